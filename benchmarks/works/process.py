"""Processes: children of the loop, and the loop's own start and end."""

from __future__ import annotations

import asyncio
import subprocess

from benchmarks.registry import Batches, Goal, Row, WholeProcess, add, inside, over_uvloop

GROUP = "Processes"


@inside(
    "spawn",
    "spawn /bin/true and communicate",
    GROUP,
    "processes/s",
    over_uvloop(4.0),
    pinned=False,
)
async def spawn(loop: asyncio.AbstractEventLoop) -> Batches:
    while True:
        for _ in range(10):
            process = await asyncio.create_subprocess_exec("/bin/true", stdout=subprocess.PIPE)
            await process.communicate()
            if process.returncode != 0:
                raise RuntimeError(f"/bin/true returned {process.returncode}")
        yield 10


START = """
import asyncio

async def main():
    await asyncio.sleep(0)

loop = {loop}
asyncio.set_event_loop(loop)
try:
    loop.run_until_complete(main())
finally:
    asyncio.set_event_loop(None)
    loop.close()
"""

add(
    Row(
        "start",
        "import + run + close, whole process",
        GROUP,
        "ms",
        WholeProcess(START),
        (Goal("asyncio", 1.0),),
        less=True,
    )
)
