"""HTTP servers as people run them: 'hello' over ten keep-alive connections."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from benchmarks.registry import Place, Row, Served, add, over_uvloop
from benchmarks.works.net import BACKLOG, client

GROUP = "HTTP"


async def application(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    """The ASGI application: hello."""
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"5")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"hello"})


async def serve_uvicorn(loop: asyncio.AbstractEventLoop, place: Place) -> object:
    import uvicorn

    config = uvicorn.Config(
        application,
        loop="none",
        http="httptools",
        ws="none",
        lifespan="off",
        access_log=False,
        log_level="warning",
    )
    server = uvicorn.Server(config)
    return loop.create_task(server.serve(sockets=[place.listener]))


async def serve_aiohttp(loop: asyncio.AbstractEventLoop, place: Place) -> object:
    from aiohttp import web

    async def hello(request: web.Request) -> web.Response:
        return web.Response(text="hello")

    app = web.Application()
    app.router.add_get("/", hello)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.SockSite(runner, place.listener, backlog=BACKLOG)
    await site.start()
    return runner


add(
    Row(
        "uvicorn",
        "uvicorn (httptools) hello",
        GROUP,
        "requests/s",
        Served(serve_uvicorn, client(10, 1, "-H")),
        (over_uvloop(1.6),),
    )
)
add(
    Row(
        "aiohttp",
        "aiohttp hello",
        GROUP,
        "requests/s",
        Served(serve_aiohttp, client(10, 1, "-H")),
        (over_uvloop(1.35),),
    )
)
