"""Threads behind the loop: executors and the resolver."""

from __future__ import annotations

import asyncio
import socket

from benchmarks.registry import Batches, inside, over_uvloop

GROUP = "Executors"


def nothing() -> None:
    """The job."""


@inside(
    "executor-1",
    "run_in_executor, one after the other",
    GROUP,
    "calls/s",
    over_uvloop(2.0),
    pinned=False,
)
async def executor_one(loop: asyncio.AbstractEventLoop) -> Batches:
    while True:
        for _ in range(200):
            await loop.run_in_executor(None, nothing)
        yield 200


@inside(
    "executor-100",
    "run_in_executor, 100 at once",
    GROUP,
    "calls/s",
    over_uvloop(2.0),
    pinned=False,
)
async def executor_hundred(loop: asyncio.AbstractEventLoop) -> Batches:
    while True:
        for _ in range(5):
            await asyncio.gather(*[loop.run_in_executor(None, nothing) for _ in range(100)])
        yield 500


@inside("to_thread", "asyncio.to_thread", GROUP, "calls/s", over_uvloop(1.8), pinned=False)
async def to_thread(loop: asyncio.AbstractEventLoop) -> Batches:
    while True:
        for _ in range(200):
            await asyncio.to_thread(nothing)
        yield 200


@inside("getaddrinfo", "getaddrinfo of a literal", GROUP, "calls/s", over_uvloop(2.5), pinned=False)
async def getaddrinfo(loop: asyncio.AbstractEventLoop) -> Batches:
    while True:
        for _ in range(200):
            await loop.getaddrinfo("127.0.0.1", 80, type=socket.SOCK_STREAM)
        yield 200
