"""Server: listening sockets and the connections that came through them."""

from __future__ import annotations

import asyncio
import socket
import ssl
import sys
from asyncio import trsock
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from . import _core

if TYPE_CHECKING:
    from .loop import Loop

__all__ = ("Server",)

# Since 3.12 wait_closed() waits for the connections as well as for the listeners.
_WAITS_FOR_CLIENTS = sys.version_info >= (3, 12)
# Since 3.13 a cancelled serve_forever() closes the connections, or it would wait for them forever.
_CLOSES_CLIENTS = sys.version_info >= (3, 13)


class Server(_core.ServerBase, asyncio.AbstractServer):
    """What :meth:`asyncio.loop.create_server` returns; as :class:`asyncio.Server`.

    ``async with server:`` closes it at the end.
    """

    def __init__(
        self,
        loop: Any,
        sockets: list[socket.socket],
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        ssl_context: ssl.SSLContext | None,
        backlog: int,
        ssl_handshake_timeout: float | None,
        ssl_shutdown_timeout: float | None = None,
        on_socket_closed: Callable[[socket.socket], None] | None = None,
    ) -> None:
        super().__init__()
        self._loop: Loop = loop
        self._sockets: list[socket.socket] | None = sockets
        self._protocol_factory = protocol_factory
        self._ssl_context = ssl_context
        self._backlog = backlog
        self._ssl_handshake_timeout = ssl_handshake_timeout
        self._ssl_shutdown_timeout = ssl_shutdown_timeout
        self._close_socket = on_socket_closed or socket.socket.close
        self._serving = False
        self._serving_forever_fut: asyncio.Future[None] | None = None
        self._waiters: list[asyncio.Future[None]] | None = []

    def __repr__(self) -> str:
        return f"<{type(self).__name__} sockets={self.sockets!r}>"

    # -- state -------------------------------------------------------------------------------

    def get_loop(self) -> Loop:
        """The loop that serves."""
        return self._loop

    def is_serving(self) -> bool:
        """Whether new connections are accepted."""
        return self._serving

    @property
    def sockets(self) -> tuple[trsock.TransportSocket, ...]:
        """Views of the listening sockets; empty once the server is closed."""
        return tuple(map(trsock.TransportSocket, self._sockets or ()))

    # -- serving -----------------------------------------------------------------------------

    def _start_serving(self) -> None:
        if self._serving:
            return
        sockets = self._sockets
        if sockets is None:
            raise RuntimeError(f"server {self!r} is closed")
        self._serving = True
        factory = self._protocol_factory if self._ssl_context is None else self._make_tls_protocol
        for sock in sockets:
            sock.listen(self._backlog)
            self._loop._start_listening(sock, factory, self, self._backlog)

    def _make_tls_protocol(self) -> Any:
        """The protocol of one accepted connection of a TLS server."""
        protocol = self._protocol_factory()
        waiter: asyncio.Future[None] = self._loop.create_future()
        tls = self._loop._tls_protocol(
            protocol,
            self._ssl_context,
            waiter,
            server_side=True,
            handshake_timeout=self._ssl_handshake_timeout,
            shutdown_timeout=self._ssl_shutdown_timeout,
        )

        def handshake_ended(ended: asyncio.Future[None]) -> None:
            if ended.cancelled():
                return
            error = ended.exception()
            if error is not None and self._loop.get_debug():
                self._loop.call_exception_handler(
                    {
                        "message": "Error on transport creation for incoming connection",
                        "exception": error,
                        "protocol": protocol,
                    }
                )

        waiter.add_done_callback(handshake_ended)
        return tls

    async def start_serving(self) -> None:
        """Accept connections from now on. Raises RuntimeError when closed."""
        self._start_serving()
        await asyncio.sleep(0)

    async def serve_forever(self) -> None:
        """Accept connections until cancelled, then close.

        Raises RuntimeError when closed, and when somebody waits here already.
        """
        if self._serving_forever_fut is not None:
            raise RuntimeError(f"server {self!r} is already being awaited on serve_forever()")
        if self._sockets is None:
            raise RuntimeError(f"server {self!r} is closed")
        self._start_serving()
        self._serving_forever_fut = self._loop.create_future()
        try:
            await self._serving_forever_fut
        except asyncio.CancelledError:
            self.close()
            if _CLOSES_CLIENTS:
                self.close_clients()
            await self.wait_closed()
            raise
        finally:
            self._serving_forever_fut = None

    # -- closing -----------------------------------------------------------------------------

    def close(self) -> None:
        """Stop accepting and close the listening sockets; open connections go on."""
        sockets = self._sockets
        if sockets is None:
            return
        self._sockets = None
        self._closed = True
        for sock in sockets:
            self._loop._stop_listening(sock)
            self._close_socket(sock)
        self._serving = False
        forever = self._serving_forever_fut
        if forever is not None:
            self._serving_forever_fut = None
            if not forever.done():
                forever.cancel()
        if self._active_count == 0:
            self._wake_waiters()

    def close_clients(self) -> None:
        """Close every open connection, after what is buffered has been sent."""
        self._close_clients()

    def abort_clients(self) -> None:
        """Close every open connection at once."""
        self._abort_clients()

    async def wait_closed(self) -> None:
        """Return when the server is closed and, since Python 3.12, its connections are gone."""
        if self._waiters is None or (self._sockets is None and not _WAITS_FOR_CLIENTS):
            return
        waiter = self._loop.create_future()
        self._waiters.append(waiter)
        await waiter

    def _on_idle(self) -> None:
        """Called by the core when a closed server's last connection is gone."""
        self._wake_waiters()

    def _wake_waiters(self) -> None:
        waiters = self._waiters
        self._waiters = None
        for waiter in waiters or ():
            if not waiter.done():
                waiter.set_result(None)
