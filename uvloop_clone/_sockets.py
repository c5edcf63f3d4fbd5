"""sock_connect(): the one sock_* operation that may need the resolver first."""

from __future__ import annotations

import socket
from asyncio import base_events
from typing import Any

from ._executor import ExecutorMixin

__all__ = ("SocketsMixin",)


def odd_literal(host: Any, port: Any, *how: int) -> list[Any] | None:
    """What asyncio makes of a literal that the core did not answer: a port out of range is left
    to bind() or connect(), for getaddrinfo() would cut it to 16 bits."""
    info = base_events._ipaddr_info(host, port, *how)  # type: ignore[attr-defined]
    return None if info is None else [info]


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
                found = odd_literal(
                    host, port, sock.family, sock.type, sock.proto, *address[2:]
                ) or await self.getaddrinfo(
                    host, port, family=sock.family, type=sock.type, proto=sock.proto
                )
                address = found[0][4]  # with the scope of a link-local one
            elif sock.family == socket.AF_INET6 and len(address) > 2:
                address = (*found[0][4][:2], *address[2:])
            else:
                address = found[0][4]
        await self._sock_connect(sock, address)

    def _sock_is_refused(self, sock: socket.socket) -> bool:
        """Whether the core is going to raise: then nothing need be resolved before."""
        return self.get_debug() and sock.gettimeout() != 0
