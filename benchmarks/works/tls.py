"""TLS echo. The peers also run with aiofastnet over them where it is installed."""

from __future__ import annotations

import asyncio
import ssl

from benchmarks.registry import Goal, Place, Row, Served, add, of_limit
from benchmarks.works.net import BACKLOG, Echo, client
from benchmarks.works.streams import echo_read


def server_context(place: Place) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(place.certificate, place.key)
    return context


async def serve_tls(loop: asyncio.AbstractEventLoop, place: Place) -> object:
    return await loop.create_server(
        Echo, sock=place.listener, ssl=server_context(place), backlog=BACKLOG
    )


async def serve_streams(loop: asyncio.AbstractEventLoop, place: Place) -> object:
    return await asyncio.start_server(
        echo_read, sock=place.listener, ssl=server_context(place), backlog=BACKLOG
    )


for _kib in (1, 10, 100):
    add(
        Row(
            f"tls-10x{_kib}k",
            f"Protocol, 10 x {_kib} KiB",
            "TLS echo",
            "echoes/s",
            Served(
                serve_tls, client(10, _kib * 1024, "-t"), limit="echo_tls", tls=True, pairs=True
            ),
            (Goal("aiofastnet", 1.05), of_limit(1.0)),
        )
    )

add(
    Row(
        "tls-streams-10x1k",
        "streams, read, 10 x 1 KiB",
        "TLS echo",
        "echoes/s",
        Served(serve_streams, client(10, 1024, "-t"), limit="echo_tls", tls=True, pairs=True),
    )
)
