"""The process that runs one loop: started by ``sessions``, never by hand.

It is told by its arguments what to be (probe, inside or serve), pins itself to its core, and talks
in lines of JSON on stdout. A worker dies with the process that started it.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import resource
import signal
import socket
import sys
import time
from typing import Any

from benchmarks import loops, registry


def say(answer: dict[str, Any]) -> None:
    """One line to the runner."""
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def settle(cpu: int) -> None:
    """Pin this process, tie its life to its parent's, allow many descriptors."""
    if cpu >= 0 and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {cpu})
    if sys.platform == "linux":
        set_pdeathsig = 1
        ctypes.CDLL(None).prctl(set_pdeathsig, signal.SIGKILL)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def batches(
    loop: asyncio.AbstractEventLoop, work: registry.Inside, seconds: float
) -> dict[str, Any]:
    """Run batches for ``seconds`` after one to warm up."""
    generator = work.function(loop)
    try:
        warming = await generator.__anext__()
        begin, begin_cpu = time.perf_counter(), time.process_time()
        end = begin + seconds
        now, count, total, early = begin, 0, 0.0, 0
        while now < end:
            measure = await generator.__anext__()
            now = time.perf_counter()
            count += 1
            total += abs(measure)
            early += measure < -0.1
        cpu = time.process_time() - begin_cpu
    finally:
        await generator.aclose()
    if work.mean:
        return {"value": total / count, "early": early, "count": count + 1}
    cpu_each = cpu / total * 1e6
    return {"value": total / (now - begin), "cpu": cpu_each, "count": total + warming}


def inside(name: str, row: registry.Row) -> None:
    """Measure whenever a line with the seconds arrives; each measure has a loop of its own."""
    work = row.work
    assert isinstance(work, registry.Inside)
    say({"ready": True})
    for line in sys.stdin:
        loop = loops.make(name)
        asyncio.set_event_loop(loop)
        try:
            say(loop.run_until_complete(batches(loop, work, float(line))))
        finally:
            asyncio.set_event_loop(None)
            loop.close()


def serve(name: str, row: registry.Row, path: str, certificate: str, key: str) -> None:
    """Serve until killed; the line that says ready carries the address for the client."""
    work = row.work
    assert isinstance(work, (registry.Served, registry.Idle))
    transport = work.transport if isinstance(work, registry.Served) else "tcp"
    sock, address = None, [path]
    if transport != "unix":
        kind = socket.SOCK_DGRAM if transport == "udp" else socket.SOCK_STREAM
        sock = socket.socket(socket.AF_INET, kind)
        sock.bind(("127.0.0.1", 0))
        if transport == "tcp":
            sock.listen(4096)
        sock.setblocking(False)
        address = ["127.0.0.1", str(sock.getsockname()[1])]
    loop = loops.make(name)
    asyncio.set_event_loop(loop)

    async def start() -> object:
        return await work.serve(loop, registry.Place(sock, path, certificate, key))

    server = loop.run_until_complete(start())
    loop.call_later(0.05, say, {"ready": True, "address": [transport, *address]})
    loop.run_forever()
    del server


def main(argv: list[str]) -> None:
    """``probe NAME`` | ``inside NAME ROW CPU`` | ``serve NAME ROW CPU PATH CERTIFICATE KEY``."""
    mode, name = argv[:2]
    if mode == "probe":
        say({"version": loops.version(name)})
        return
    row = registry.load()[argv[2]]
    settle(int(argv[3]))
    if mode == "inside":
        inside(name, row)
    else:
        serve(name, row, *argv[4:7])
