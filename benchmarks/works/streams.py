"""Echo with asyncio's streams."""

from __future__ import annotations

import asyncio

from benchmarks.registry import Place, Row, Served, add, of_limit
from benchmarks.works.net import BACKLOG, READ_SIZE, client

GROUP = "Streams echo"


async def echo_read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(READ_SIZE):
            writer.write(data)
            await writer.drain()
    except ConnectionResetError:
        writer.transport.abort()
    writer.close()


async def echo_readline(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while line := await reader.readline():
            writer.write(line)
            await writer.drain()
    except ConnectionResetError:
        writer.transport.abort()
    writer.close()


async def serve_read(loop: asyncio.AbstractEventLoop, place: Place) -> object:
    return await asyncio.start_server(echo_read, sock=place.listener, backlog=BACKLOG)


async def serve_readline(loop: asyncio.AbstractEventLoop, place: Place) -> object:
    return await asyncio.start_server(echo_readline, sock=place.listener, backlog=BACKLOG)


for _kib in (1, 10, 100):
    add(
        Row(
            f"streams-read-10x{_kib}k",
            f"read, 10 x {_kib} KiB",
            GROUP,
            "echoes/s",
            Served(serve_read, client(10, _kib * 1024), limit="echo_uv"),
            (of_limit(0.90),),
        )
    )

add(
    Row(
        "streams-readline-10x1k",
        "readline, 10 x 1 KiB",
        GROUP,
        "echoes/s",
        Served(serve_readline, client(10, 1024, "-l"), limit="echo_uv"),
        (of_limit(0.85),),
    )
)
