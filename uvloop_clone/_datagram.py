"""UDP and Unix datagrams: create_datagram_endpoint."""

from __future__ import annotations

import asyncio
import socket
import sys
import warnings
from asyncio.log import logger
from collections.abc import Callable
from typing import Any, TypeVar

from ._signatures import since
from ._sockets import SocketsMixin, remove_stale_socket, set_reuse_port

__all__ = ("DatagramMixin",)

_Protocol = TypeVar("_Protocol", bound=asyncio.BaseProtocol)
# (family, protocol number), (local address, remote address)
_Candidate = tuple[tuple[int, int], tuple[Any, Any]]

_unset: Any = object()
# Python 3.11 dropped reuse_address.
_REUSE_ADDRESS = (3, 10) if sys.version_info < (3, 11) else (99, 0)
# asyncio refused all but SOCK_DGRAM before, which shut out raw sockets.
_ONLY_DGRAM = sys.version_info < (3, 11, 9) or (3, 12) <= sys.version_info < (3, 12, 3)


class DatagramMixin(SocketsMixin):
    """create_datagram_endpoint (C: transports/datagram.c)."""

    @since(reuse_address=_REUSE_ADDRESS)
    async def create_datagram_endpoint(
        self,
        protocol_factory: Callable[[], _Protocol],
        local_addr: tuple[str, int] | str | None = None,
        remote_addr: tuple[str, int] | str | None = None,
        *,
        family: int = 0,
        proto: int = 0,
        flags: int = 0,
        reuse_address: bool | None = _unset,
        reuse_port: bool | None = None,
        allow_broadcast: bool | None = None,
        sock: socket.socket | None = None,
    ) -> tuple[asyncio.DatagramTransport, _Protocol]:
        """Open a datagram endpoint; return (transport, protocol).

        As :meth:`asyncio.loop.create_datagram_endpoint`: bound to `local_addr`, connected to
        `remote_addr` (with `allow_broadcast` only sent to), or over `sock`. Raises ValueError or
        TypeError for arguments that do not go together, :exc:`socket.gaierror`, OSError when no
        address can be used.
        """
        if reuse_address is not _unset:
            self._check_reuse_address(reuse_address)
        remote_address = None
        if sock is not None:
            _check_given(
                sock,
                local_addr=local_addr,
                remote_addr=remote_addr,
                family=family,
                proto=proto,
                flags=flags,
                reuse_port=reuse_port,
                allow_broadcast=allow_broadcast,
            )
            sock.setblocking(False)
        else:
            failures: list[OSError] = []
            for candidate in await self._datagram_candidates(
                local_addr, remote_addr, family, proto, flags
            ):
                try:
                    sock = await self._open_datagram_socket(
                        candidate, bool(local_addr), bool(remote_addr), reuse_port, allow_broadcast
                    )
                except OSError as error:
                    failures.append(error)
                    continue
                remote_address = candidate[1][1] if remote_addr else None
                break
            else:
                raise failures[0]
        assert sock is not None
        protocol = protocol_factory()
        waiter = self.create_future()
        transport = self._datagram_transport(sock, protocol, remote_address, waiter)
        if self.get_debug():
            _log_created(local_addr, remote_addr, transport, protocol)
        try:
            await waiter
        except BaseException:
            transport.close()
            raise
        return transport, protocol

    @staticmethod
    def _check_reuse_address(value: object) -> None:
        """What each Python says to the argument that 3.11 dropped."""
        if sys.version_info >= (3, 11):
            raise TypeError(
                "create_datagram_endpoint() got an unexpected keyword argument 'reuse_address'"
            )
        if value:
            raise ValueError(
                "Passing `reuse_address=True` is no longer supported, as the usage of "
                "SO_REUSEPORT in UDP poses a significant security concern."
            )
        warnings.warn(
            "The *reuse_address* parameter has been deprecated as of 3.5.10 and is scheduled "
            "for removal in 3.11.",
            DeprecationWarning,
            stacklevel=3,
        )

    async def _datagram_candidates(
        self, local_addr: Any, remote_addr: Any, family: int, proto: int, flags: int
    ) -> list[_Candidate]:
        """What could be tried, in order; at least one."""
        if not (local_addr or remote_addr):
            if family == 0:
                raise ValueError("unexpected address family")
            return [((family, proto), (None, None))]
        if family == socket.AF_UNIX:
            for address in (local_addr, remote_addr):
                if address is not None and not isinstance(address, str):
                    raise TypeError("string is expected")
            if local_addr and local_addr[0] != "\x00":
                remove_stale_socket(local_addr)
            return [((family, proto), (local_addr, remote_addr))]
        # Both ends need an address of the same family and protocol.
        found: dict[tuple[int, int], list[Any]] = {}
        for index, address in enumerate((local_addr, remote_addr)):
            if address is None:
                continue
            _check_pair(address)
            for info in await self._resolve(address, socket.SOCK_DGRAM, family, proto, flags):
                found.setdefault((info[0], info[2]), [None, None])[index] = info[4]
        candidates = [
            (key, (local, remote))
            for key, (local, remote) in found.items()
            if not ((local_addr and local is None) or (remote_addr and remote is None))
        ]
        if not candidates:
            raise ValueError("can not get address information")
        return candidates

    async def _open_datagram_socket(
        self,
        candidate: _Candidate,
        binds: bool,
        connects: bool,
        reuse_port: bool | None,
        allow_broadcast: bool | None,
    ) -> socket.socket:
        (family, proto), (local, remote) = candidate
        sock = socket.socket(family=family, type=socket.SOCK_DGRAM, proto=proto)
        try:
            if reuse_port:
                set_reuse_port(sock)
            if allow_broadcast:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            sock.setblocking(False)
            if binds:
                sock.bind(local)
            if connects and not allow_broadcast:
                await self.sock_connect(sock, remote)
        except BaseException:
            sock.close()
            raise
        return sock


def _check_given(sock: socket.socket, **options: object) -> None:
    """Raise ValueError for a socket that is none for datagrams, and for what is said beside it."""
    if sock.type != socket.SOCK_DGRAM if _ONLY_DGRAM else sock.type == socket.SOCK_STREAM:
        kind = "UDP Socket" if _ONLY_DGRAM else "datagram socket"
        raise ValueError(f"A {kind} was expected, got {sock!r}")
    problems = ", ".join(f"{name}={value}" for name, value in options.items() if value)
    if problems:
        raise ValueError(
            "socket modifier keyword arguments can not be used when sock is specified. "
            f"({problems})"
        )


def _log_created(local_addr: object, remote_addr: object, *made: object) -> None:
    if local_addr:
        logger.info(
            "Datagram endpoint local_addr=%r remote_addr=%r created: (%r, %r)",
            local_addr,
            remote_addr,
            *made,
        )
    else:
        logger.debug("Datagram endpoint remote_addr=%r created: (%r, %r)", remote_addr, *made)


def _check_pair(address: object) -> None:
    if isinstance(address, tuple) and len(address) == 2:
        return
    if sys.version_info < (3, 11):
        raise AssertionError("2-tuple is expected")
    raise TypeError("2-tuple is expected")
