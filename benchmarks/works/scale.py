"""How the cost grows: from 10 to 10,000 connections, from 100 to 1,000,000 timers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from benchmarks.registry import Batches, Inside, Row, Served, add
from benchmarks.works.net import client, serve_protocol
from benchmarks.works.timers import fire, shuffled

GROUP = "Growth"


def timers(count: int) -> Callable[[asyncio.AbstractEventLoop], Batches]:
    """Work: set ``count`` timers, all due when the last is set, and let them fire."""

    async def work(loop: asyncio.AbstractEventLoop) -> Batches:
        delays = shuffled(count, count * 1e-7)
        while True:
            await fire(loop, delays)
            yield count

    return work


for _count in (10, 100, 1000, 10_000):
    add(
        Row(
            f"scale-connections-{_count}",
            f"TCP echo of 1 KiB, {_count:,} connections",
            GROUP,
            "echoes/s",
            Served(serve_protocol, client(_count, 1024), limit="echo_uv"),
            series="connections",
            size=_count,
        )
    )

for _count in (100, 1000, 10_000, 100_000, 1_000_000):
    add(
        Row(
            f"scale-timers-{_count}",
            f"{_count:,} timers set and fired",
            GROUP,
            "timers/s",
            Inside(timers(_count)),
            series="timers",
            size=_count,
        )
    )
