"""Scheduling: what one callback costs."""

from __future__ import annotations

import asyncio
import threading
from itertools import repeat

from benchmarks.registry import Batches, inside, over_uvloop

GROUP = "Scheduling"
TURN = 1000  # callbacks that are ready in one turn
TURNS = 20


def nothing(*args: object) -> None:
    """The callback: as little as Python can do."""


@inside("call_soon-0", "call_soon, no argument", GROUP, "calls/s", over_uvloop(1.5))
async def call_soon_0(loop: asyncio.AbstractEventLoop) -> Batches:
    call_soon = loop.call_soon
    while True:
        for _ in range(TURNS):
            for _ in repeat(None, TURN):
                call_soon(nothing)
            await asyncio.sleep(0)
        yield TURN * TURNS


@inside("call_soon-3", "call_soon, three arguments", GROUP, "calls/s", over_uvloop(1.6))
async def call_soon_3(loop: asyncio.AbstractEventLoop) -> Batches:
    call_soon = loop.call_soon
    while True:
        for _ in range(TURNS):
            for _ in repeat(None, TURN):
                call_soon(nothing, 1, 2, 3)
            await asyncio.sleep(0)
        yield TURN * TURNS


@inside("call_soon_threadsafe", "call_soon_threadsafe", GROUP, "calls/s", over_uvloop(1.6))
async def call_soon_threadsafe(loop: asyncio.AbstractEventLoop) -> Batches:
    call = loop.call_soon_threadsafe
    while True:
        for _ in range(TURNS):
            for _ in repeat(None, TURN):
                call(nothing)
            await asyncio.sleep(0)
        yield TURN * TURNS


@inside(
    "call_soon_threadsafe-thread",
    "call_soon_threadsafe from another thread",
    GROUP,
    "calls/s",
    pinned=False,
)
async def call_soon_threadsafe_thread(loop: asyncio.AbstractEventLoop) -> Batches:
    """A thread hands over a burst and waits until its last callback ran."""
    bursts, burst = 50, 100
    while True:
        done = loop.create_future()

        def work(done: asyncio.Future[None] = done) -> None:
            call = loop.call_soon_threadsafe
            arrived = threading.Event()
            for _ in range(bursts):
                arrived.clear()
                for _ in repeat(None, burst - 1):
                    call(nothing)
                call(arrived.set)
                arrived.wait()
            call(done.set_result, None)

        thread = threading.Thread(target=work)
        thread.start()
        await done
        thread.join()
        yield bursts * burst
