"""Sockets: TCP, Unix and UDP echo with protocols, sock_* calls, connecting, bulk data, memory."""

from __future__ import annotations

import asyncio
import socket
from typing import cast

from benchmarks.registry import (
    Batches,
    Idle,
    Place,
    Row,
    Served,
    add,
    at_most,
    inside,
    of_limit,
    over_uvloop,
)

BACKLOG = 4096
READ_SIZE = 256 * 1024


class Echo(asyncio.Protocol):
    """Sends back what comes."""

    __slots__ = ("transport",)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class BufferedEcho(asyncio.BufferedProtocol):
    """Sends back what comes, read into one buffer of its own."""

    __slots__ = ("transport", "view")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.view = memoryview(bytearray(READ_SIZE))

    def get_buffer(self, sizehint: int) -> memoryview:
        return self.view

    def buffer_updated(self, nbytes: int) -> None:
        self.transport.write(self.view[:nbytes])


class DatagramEcho(asyncio.DatagramProtocol):
    """Sends every datagram back to its sender."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: object) -> None:
        self.transport.sendto(data, addr)  # type: ignore[arg-type]


async def serve_protocol(loop: asyncio.AbstractEventLoop, place: Place) -> object:
    if place.path:
        return await loop.create_unix_server(Echo, place.path, backlog=BACKLOG)
    return await loop.create_server(Echo, sock=place.listener, backlog=BACKLOG)


async def serve_buffered(loop: asyncio.AbstractEventLoop, place: Place) -> object:
    return await loop.create_server(BufferedEcho, sock=place.listener, backlog=BACKLOG)


async def serve_udp(loop: asyncio.AbstractEventLoop, place: Place) -> object:
    return await loop.create_datagram_endpoint(DatagramEcho, sock=place.listener)


async def serve_sock(loop: asyncio.AbstractEventLoop, place: Place) -> object:
    """An echo out of sock_accept, sock_recv and sock_sendall."""
    listener = place.listener
    listener.setblocking(False)
    tasks: set[asyncio.Task[None]] = set()

    async def talk(sock: socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with sock:
            while data := await loop.sock_recv(sock, READ_SIZE):
                await loop.sock_sendall(sock, data)

    async def accept() -> None:
        while True:
            sock, _ = await loop.sock_accept(listener)
            task = loop.create_task(talk(sock))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    return loop.create_task(accept())


def client(connections: int, size: int, *more: str) -> tuple[str, ...]:
    """Options of the load client."""
    return ("-c", str(connections), "-s", str(size), *more)


for _kind, _serve in (("Protocol", serve_protocol), ("BufferedProtocol", serve_buffered)):
    for _connections in (1, 10, 64):
        for _kib in (1, 10, 100):
            add(
                Row(
                    f"tcp-{_kind.lower()}-{_connections}x{_kib}k",
                    f"{_connections} x {_kib} KiB",
                    f"TCP echo, {_kind} (connections x message)",
                    "echoes/s",
                    Served(_serve, client(_connections, _kib * 1024), limit="echo_uv"),
                    (of_limit(0.97),),
                )
            )

for _kib in (1, 100):
    add(
        Row(
            f"unix-10x{_kib}k",
            f"Unix socket, Protocol, 10 x {_kib} KiB",
            "Other echoes",
            "echoes/s",
            Served(serve_protocol, client(10, _kib * 1024), transport="unix", limit="echo_uv"),
            (of_limit(0.97),),
        )
    )

for _kib in (1, 100):
    add(
        Row(
            f"sock-10x{_kib}k",
            f"sock_recv / sock_sendall, 10 x {_kib} KiB",
            "Other echoes",
            "echoes/s",
            Served(serve_sock, client(10, _kib * 1024), limit="echo_uv"),
            (of_limit(0.75),),
        )
    )

add(
    Row(
        "udp-16",
        "UDP ping-pong, 16 in flight",
        "Other echoes",
        "datagrams/s",
        Served(serve_udp, client(1, 64, "-f", "16"), transport="udp", limit="echo_uv"),
        (over_uvloop(1.5),),
    )
)


class Sink(asyncio.Protocol):
    """Counts what comes; tells when a number of bytes or the end was reached."""

    def __init__(self) -> None:
        self.left = 0
        self.reached: asyncio.Future[None] | None = None
        self.lost: asyncio.Future[None] | None = None

    def data_received(self, data: bytes) -> None:
        self.left -= len(data)
        if self.left <= 0 and self.reached is not None and not self.reached.done():
            self.reached.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.lost is not None:
            self.lost.set_result(None)


class Source(asyncio.Protocol):
    """A writer that stops while the transport asks for it."""

    paused: asyncio.Future[None] | None = None

    def pause_writing(self) -> None:
        self.paused = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        paused, self.paused = self.paused, None
        if paused is not None:
            paused.set_result(None)


@inside("bulk", "bulk TCP, 64 KiB writes", "Connections", "bytes/s", over_uvloop(1.6))
async def bulk(loop: asyncio.AbstractEventLoop) -> Batches:
    """Both ends are on the loop: 16 MiB go from one to the other."""
    sink, chunk, count = Sink(), bytes(64 * 1024), 256
    server = await loop.create_server(lambda: sink, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    transport, source = await loop.create_connection(Source, "127.0.0.1", port)
    try:
        while True:
            sink.left = len(chunk) * count
            sink.reached = loop.create_future()
            for _ in range(count):
                transport.write(chunk)
                if source.paused is not None:
                    await source.paused
            await sink.reached
            yield len(chunk) * count
    finally:
        transport.close()
        server.close()


@inside("connect", "connect + accept + close", "Connections", "connections/s", over_uvloop(1.3))
async def connect(loop: asyncio.AbstractEventLoop) -> Batches:
    """Both ends are on the loop; a round ends when the accepted side saw the end."""
    lost: asyncio.Future[None] = loop.create_future()

    def accepted() -> Sink:
        sink = Sink()
        sink.lost = lost
        return sink

    server = await loop.create_server(accepted, "127.0.0.1", 0, backlog=BACKLOG)
    port = server.sockets[0].getsockname()[1]
    try:
        while True:
            for _ in range(50):
                lost = loop.create_future()
                transport, _ = await loop.create_connection(asyncio.Protocol, "127.0.0.1", port)
                transport.close()
                await lost
            yield 50
    finally:
        server.close()


add(
    Row(
        "idle-memory",
        "memory per idle TCP connection",
        "Connections",
        "KiB",
        Idle(serve_protocol, 5000),
        (at_most(0.9),),
        less=True,
    )
)
