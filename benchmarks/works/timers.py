"""Timers: setting, cancelling, firing, and how true they are."""

from __future__ import annotations

import asyncio
import random
import time
from itertools import repeat

from benchmarks.registry import Batches, at_most, inside, over_uvloop

GROUP = "Timers"


def nothing() -> None:
    """A callback that never runs in the cancel row."""


@inside("call_later-cancel", "call_later then cancel", GROUP, "timers/s", over_uvloop(3.5))
async def call_later_cancel(loop: asyncio.AbstractEventLoop) -> Batches:
    call_later = loop.call_later
    while True:
        for _ in range(10):
            for _ in repeat(None, 1000):
                call_later(60.0, nothing).cancel()
            await asyncio.sleep(0)
        yield 10_000


async def fire(loop: asyncio.AbstractEventLoop, delays: list[float]) -> None:
    """Set one timer per delay and wait until all of them fired."""
    done = loop.create_future()
    left = len(delays)

    def fired() -> None:
        nonlocal left
        left -= 1
        if not left:
            done.set_result(None)

    call_later = loop.call_later
    for delay in delays:
        call_later(delay, fired)
    await done


def shuffled(count: int, longest: float) -> list[float]:
    """``count`` delays spread evenly up to ``longest`` seconds, in a fixed random order.

    The numbers are made in that order, so that a walk over them finds each beside the last.
    """
    order = list(range(count))
    random.Random(1).shuffle(order)
    return [longest * i / count for i in order]


@inside("timers-20000", "20,000 timers set and fired", GROUP, "timers/s", over_uvloop(2.5))
async def timers_20000(loop: asyncio.AbstractEventLoop) -> Batches:
    """All are due by the time the last one is set, so that no waiting is measured."""
    delays = shuffled(20_000, 0.002)
    while True:
        await fire(loop, delays)
        yield len(delays)


@inside(
    "sleep-error",
    "mean error of sleeps of 0.2-2.7 ms",
    GROUP,
    "us",
    at_most(40.0),
    mean=True,
    limit="sleeps",
    less=True,
)
async def sleep_error(loop: asyncio.AbstractEventLoop) -> Batches:
    """Yields the error of one sleep in microseconds, below zero where it ended early."""
    delays = [0.0002 + 0.0001 * i for i in range(26)]
    random.Random(2).shuffle(delays)
    while True:
        for delay in delays:
            start = time.monotonic()
            await asyncio.sleep(delay)
            yield (time.monotonic() - start - delay) * 1e6
