"""sock_connect(), the one sock_* operation that may need the resolver first, and what the makers of
sockets of every kind share: addresses, options, socket files."""

from __future__ import annotations

import os
import socket
import stat
from asyncio import base_events
from asyncio.log import logger
from collections.abc import Sequence
from typing import Any

from ._executor import ExecutorMixin

__all__ = ("SocketsMixin", "remove_stale_socket", "set_reuse_port")


def _odd_literal(host: Any, port: Any, *how: int) -> list[Any] | None:
    """What asyncio makes of a literal that the core did not answer: a port out of range is left
    to bind() or connect(), for getaddrinfo() would cut it to 16 bits."""
    info = base_events._ipaddr_info(host, port, *how)  # type: ignore[attr-defined]
    return None if info is None else [info]


def set_reuse_port(sock: socket.socket) -> None:
    """Let others bind to the same port; ValueError where the system has no such thing."""
    if not hasattr(socket, "SO_REUSEPORT"):
        raise ValueError("reuse_port not supported by socket module")
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    except OSError:
        raise ValueError(
            "reuse_port not supported by socket module, SO_REUSEPORT defined but not implemented."
        ) from None


def remove_stale_socket(path: str | bytes) -> None:
    """Remove a socket file that is in the way of bind(); what cannot be removed is logged."""
    try:
        if stat.S_ISSOCK(os.stat(path).st_mode):
            os.remove(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        # The folder may let sockets be made in it and nothing be removed.
        logger.error("Unable to check or remove stale UNIX socket %r: %r", path, error)


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
                found = _odd_literal(
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

    async def _resolve(
        self, address: Sequence[Any], kind: int, family: int, proto: int, flags: int
    ) -> Sequence[tuple[Any, Any, int, str, Any]]:
        """What there is at (host, port, ...) for sockets of a `kind`, as of getaddrinfo(), which a
        literal does not ask. Raises OSError where it finds nothing."""
        host, port = address[:2]
        if host is not None:
            found = self._resolve_literal(host, port, family, kind, proto, flags)
            if found:
                if len(address) > 2:  # flow info and scope of an IPv6 address
                    found = [
                        (*info[:4], (*info[4][:2], *address[2:]) if len(info[4]) > 2 else info[4])
                        for info in found
                    ]
                return found
            odd = _odd_literal(host, port, family, kind, proto, *address[2:])
            if odd is not None:
                return odd
        found = await self.getaddrinfo(
            host, port, family=family, type=kind, proto=proto, flags=flags
        )
        if not found:
            raise OSError("getaddrinfo() returned empty list")
        return found

    def _sock_is_refused(self, sock: socket.socket) -> bool:
        """Whether the core is going to raise: then nothing need be resolved before."""
        return self.get_debug() and sock.gettimeout() != 0
