"""sendfile() and sock_sendfile(): checks, fallbacks, and what surrounds the kernel's sendfile."""

from __future__ import annotations

import asyncio
import io
import os
import socket
from asyncio import constants
from typing import IO, Any

from . import _core
from ._executor import ExecutorMixin
from ._tls import refuse_tls_socket

__all__ = ("SendfileMixin",)

_Mode: Any = constants._SendfileMode

_SOCKET_BLOCK = 256 * 1024
_TRANSPORT_BLOCK = 16 * 1024


class _Feeder(asyncio.Protocol):
    """Stands in for the transport's protocol while a file is read and written piece by piece."""

    def __init__(self, loop: _core.Loop, transport: Any) -> None:
        if not hasattr(transport, "_protocol_paused"):
            raise TypeError("transport should be _FlowControlMixin instance")
        self._loop = loop
        self._transport = transport
        self._protocol = transport.get_protocol()
        self._was_reading = transport.is_reading()
        self._was_paused = transport._protocol_paused
        self._room: asyncio.Future[None] | None = loop.create_future() if self._was_paused else None
        self._lost = False
        transport.pause_reading()
        transport.set_protocol(self)

    async def drain(self) -> None:
        """Wait for room in the write buffer; ConnectionError once nothing more can be sent."""
        while True:
            if self._transport.is_closing() or getattr(self._transport, "_refuses_writes", False):
                raise ConnectionError("Connection closed by peer")
            if self._room is None:
                return
            await self._room

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        raise RuntimeError("Invalid state: connection should have been established already.")

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        if self._room is not None and not self._room.done():
            # Who sends has not finished: the end is an error to them, whatever the transport says.
            self._room.set_exception(exc or ConnectionError("Connection is closed by peer"))
        self._protocol.connection_lost(exc)

    def pause_writing(self) -> None:
        if self._room is None:
            self._room = self._loop.create_future()

    def resume_writing(self) -> None:
        if self._room is not None:
            if not self._room.done():
                self._room.set_result(None)
            self._room = None

    def data_received(self, data: bytes) -> None:
        raise RuntimeError("Invalid state: reading should be paused")

    def eof_received(self) -> bool | None:
        # TLS that somebody closes meanwhile hears of the peer's goodbye, reading or not.
        keep_open: bool | None = self._protocol.eof_received()
        return keep_open

    def restore(self) -> None:
        """Give the transport back, and tell its protocol what it missed of the flow control."""
        self._transport.set_protocol(self._protocol)
        if self._was_reading:
            self._transport.resume_reading()
        if self._room is not None:
            self._room.cancel()
        paused = self._transport._protocol_paused
        if self._lost:
            return
        if self._was_paused and not paused:
            self._protocol.resume_writing()
        elif paused and not self._was_paused:
            self._protocol.pause_writing()


def _check_parameters(sock: socket.socket, file: Any, offset: object, count: object) -> None:
    if "b" not in getattr(file, "mode", "b"):
        raise ValueError("file should be opened in binary mode")
    if sock.type != socket.SOCK_STREAM:
        raise ValueError("only SOCK_STREAM type sockets are supported")
    if count is not None:
        text = f"count must be a positive integer (got {count!r})"
        if not isinstance(count, int):
            raise TypeError(text)
        if count <= 0:
            raise ValueError(text)
    text = f"offset must be a non-negative integer (got {offset!r})"
    if not isinstance(offset, int):
        raise TypeError(text)
    if offset < 0:
        raise ValueError(text)


class SendfileMixin(ExecutorMixin):
    """sendfile and sock_sendfile."""

    async def sock_sendfile(
        self,
        sock: socket.socket,
        file: IO[bytes],
        offset: int = 0,
        count: int | None = None,
        *,
        fallback: bool | None = True,
    ) -> int:
        """Send `count` bytes (None: all) of a binary file from `offset` on; return how many.

        As :meth:`asyncio.loop.sock_sendfile`: the file's position ends up behind what was sent.
        Raises :exc:`asyncio.SendfileNotAvailableError` where the kernel cannot do it and `fallback`
        is false, ValueError or TypeError for arguments out of range, a file in text mode or a
        socket that is no stream (in debug mode also a blocking one), OSError when sending fails.
        """
        if self.get_debug() and sock.gettimeout() != 0:
            raise ValueError("the socket must be non-blocking")
        refuse_tls_socket(sock)
        _check_parameters(sock, file, offset, count)
        try:
            return await self._sock_sendfile_native(sock, file, offset, count)
        except asyncio.SendfileNotAvailableError:
            if not fallback:
                raise
        return await self._sock_sendfile_fallback(sock, file, offset, count)

    async def _sock_sendfile_native(
        self, sock: socket.socket, file: Any, offset: int, count: int | None
    ) -> int:
        try:
            fd = file.fileno()
            size = os.fstat(fd).st_size
        except (AttributeError, io.UnsupportedOperation, OSError):
            raise asyncio.SendfileNotAvailableError("not a regular file") from None
        if not (count or size):
            return 0
        return await self._sock_sendfile(sock, fd, offset, count)

    async def _sock_sendfile_fallback(
        self, sock: socket.socket, file: Any, offset: int, count: int | None
    ) -> int:
        if hasattr(file, "seek"):
            file.seek(offset)
        buffer = memoryview(bytearray(min(count or _SOCKET_BLOCK, _SOCKET_BLOCK)))
        sent = 0
        try:
            while count is None or sent < count:
                view = buffer if count is None else buffer[: count - sent]
                size = await self.run_in_executor(None, file.readinto, view)
                if not size:
                    break
                await self.sock_sendall(sock, view[:size])
                sent += size
            return sent
        finally:
            if sent > 0 and hasattr(file, "seek"):
                file.seek(offset + sent)

    async def sendfile(
        self,
        transport: asyncio.WriteTransport,
        file: IO[bytes],
        offset: int = 0,
        count: int | None = None,
        *,
        fallback: bool = True,
    ) -> int:
        """Send `count` bytes (None: all) of a binary file over a transport; return how many.

        As :meth:`asyncio.loop.sendfile`: what was written before leaves first, the file's position
        ends up behind what was sent. TLS transports and what is no regular file are read and
        written piece by piece, unless `fallback` is false: then RuntimeError or
        :exc:`asyncio.SendfileNotAvailableError` is raised. RuntimeError also for a closing
        transport and for one that carries no files; ConnectionError when the connection is lost.
        """
        if transport.is_closing():
            raise RuntimeError("Transport is closing")
        mode = getattr(transport, "_sendfile_compatible", _Mode.UNSUPPORTED)
        if mode is _Mode.UNSUPPORTED:
            raise RuntimeError(f"sendfile is not supported for transport {transport!r}")
        if mode is _Mode.TRY_NATIVE:
            try:
                return await self._sendfile_native(transport, file, offset, count)
            except asyncio.SendfileNotAvailableError:
                if not fallback:
                    raise
        if not fallback:
            raise RuntimeError(
                "fallback is disabled and native sendfile is not "
                f"supported for transport {transport!r}"
            )
        return await self._sendfile_fallback(transport, file, offset, count)

    async def _sendfile_native(
        self, transport: Any, file: Any, offset: int, count: int | None
    ) -> int:
        was_reading = transport.is_reading()
        drained = transport._make_empty_waiter()
        transport.pause_reading()
        try:
            await drained
            view = transport.get_extra_info("socket")
            # libuv polls the transport's own descriptor: the transfer waits on a second one.
            with view.dup() as sock:
                return await self.sock_sendfile(sock, file, offset, count, fallback=False)
        except asyncio.SendfileNotAvailableError:
            if transport.is_closing():
                raise ConnectionError("Connection is closed by peer") from None
            raise
        finally:
            transport._reset_empty_waiter()
            if was_reading:
                transport.resume_reading()

    async def _sendfile_fallback(
        self, transport: Any, file: Any, offset: int, count: int | None
    ) -> int:
        if hasattr(file, "seek"):
            file.seek(offset)
        size = min(count or _TRANSPORT_BLOCK, _TRANSPORT_BLOCK)
        sent = 0
        feeder = _Feeder(self, transport)
        try:
            buffer = memoryview(bytearray(size))
            while count is None or sent < count:
                view = buffer if count is None else buffer[: count - sent]
                read = await self.run_in_executor(None, file.readinto, view)
                if not read:
                    break
                await feeder.drain()
                transport.write(bytes(view[:read]))
                sent += read
            return sent
        finally:
            if sent > 0 and hasattr(file, "seek"):
                file.seek(offset + sent)
            feeder.restore()
