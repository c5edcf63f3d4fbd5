"""sock_connect(): the one sock_* operation that may need the resolver first."""

from __future__ import annotations

import socket
from typing import Any

from ._executor import ExecutorMixin

__all__ = ("SocketsMixin",)


class SocketsMixin(ExecutorMixin):
    """What surrounds the core's socket operations (io/sockop.c)."""

    async def sock_connect(self, sock: socket.socket, address: Any) -> None:
        """Connect a non-blocking socket; a host name in ``address`` is resolved first.

        Raises OSError when the connection fails, ValueError in debug mode for a blocking socket,
        TypeError for a TLS socket.
        """
        if sock.family in (socket.AF_INET, socket.AF_INET6) and not self._sock_is_refused(sock):
            host, port = address[:2]
            found: Any = self._resolve_literal(host, port, sock.family, sock.type, sock.proto, 0)
            if found is None:
                found = await self.getaddrinfo(
                    host, port, family=sock.family, type=sock.type, proto=sock.proto
                )
            address = found[0][4][:2] + tuple(address[2:])
        await self._sock_connect(sock, address)

    def _sock_is_refused(self, sock: socket.socket) -> bool:
        """Whether the core is going to raise: then nothing need be resolved before."""
        return self.get_debug() and sock.gettimeout() != 0
