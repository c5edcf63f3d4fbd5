"""Tasks: switching, gathering, handing over."""

from __future__ import annotations

import asyncio

from benchmarks.registry import Batches, inside, over_uvloop

GROUP = "Tasks"


async def switch(count: int) -> None:
    """Give way ``count`` times."""
    sleep = asyncio.sleep
    for _ in range(count):
        await sleep(0)


@inside("sleep-0", "asyncio.sleep(0) switches", GROUP, "switches/s", over_uvloop(3.0))
async def sleep_zero(loop: asyncio.AbstractEventLoop) -> Batches:
    """One task alone, so that nothing of the harness is between it and the loop."""
    while True:
        await loop.create_task(switch(5000))
        yield 5000


async def little() -> None:
    """A task that ends at once."""


@inside("gather-100", "gather of 100 tasks", GROUP, "tasks/s", over_uvloop(1.4))
async def gather_100(loop: asyncio.AbstractEventLoop) -> Batches:
    while True:
        for _ in range(20):
            await asyncio.gather(*[little() for _ in range(100)])
        yield 2000


@inside("queue", "queue ping-pong of two tasks", GROUP, "items/s", over_uvloop(1.5))
async def queue_ping_pong(loop: asyncio.AbstractEventLoop) -> Batches:
    there: asyncio.Queue[int] = asyncio.Queue()
    back: asyncio.Queue[int] = asyncio.Queue()

    async def ask(count: int) -> None:
        for i in range(count):
            there.put_nowait(i)
            await back.get()

    async def answer() -> None:
        while True:
            back.put_nowait(await there.get())

    other = loop.create_task(answer())
    try:
        while True:
            await loop.create_task(ask(2000))
            yield 4000
    finally:
        other.cancel()
        await asyncio.wait([other])
