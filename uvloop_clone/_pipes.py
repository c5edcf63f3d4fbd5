"""Pipes and terminals: connect_read_pipe and connect_write_pipe."""

from __future__ import annotations

import asyncio
from asyncio.log import logger
from collections.abc import Callable
from typing import Any, TypeVar

from . import _core

__all__ = ("PipesMixin",)

_Protocol = TypeVar("_Protocol", bound=asyncio.BaseProtocol)


class PipesMixin(_core.Loop):
    """Transports over one end of a pipe (C: transports/pipe.c)."""

    async def connect_read_pipe(
        self, protocol_factory: Callable[[], _Protocol], pipe: Any
    ) -> tuple[asyncio.ReadTransport, _Protocol]:
        """Read from `pipe`, a file object; return (transport, protocol).

        As :meth:`asyncio.loop.connect_read_pipe`: a pipe, FIFO, socket, terminal or other
        character device, which the transport makes non-blocking and closes in the end. Raises
        ValueError for any other file.
        """
        protocol = protocol_factory()
        waiter = self.create_future()
        transport = self._read_pipe_transport(pipe, protocol, waiter)
        await self._pipe_connected("Read", pipe, transport, protocol, waiter)
        return transport, protocol

    async def connect_write_pipe(
        self, protocol_factory: Callable[[], _Protocol], pipe: Any
    ) -> tuple[asyncio.WriteTransport, _Protocol]:
        """Write to `pipe`, a file object; return (transport, protocol).

        As :meth:`asyncio.loop.connect_write_pipe`, for the files that :meth:`connect_read_pipe`
        takes. Raises ValueError for any other file.
        """
        protocol = protocol_factory()
        waiter = self.create_future()
        transport = self._write_pipe_transport(pipe, protocol, waiter)
        await self._pipe_connected("Write", pipe, transport, protocol, waiter)
        return transport, protocol

    async def _pipe_connected(
        self,
        direction: str,
        pipe: Any,
        transport: asyncio.BaseTransport,
        protocol: asyncio.BaseProtocol,
        waiter: asyncio.Future[Any],
    ) -> None:
        try:
            await waiter
        except BaseException:
            transport.close()
            raise
        if self.get_debug():
            logger.debug(
                "%s pipe %r connected: (%r, %r)", direction, pipe.fileno(), transport, protocol
            )
