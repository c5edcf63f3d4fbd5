"""Looking into the loop's turns: what runs before its wait, what after, and what while idle.

Needs: cffi, uvloop_clone._ffi
"""

import asyncio
import time
from typing import Any, final

import uvloop_clone
from uvloop_clone.ffi import Handle, lib


@final
class Probe:
    """Notes when the loop begins to wait (`uv_prepare`) and when it has waited (`uv_check`)."""

    def __init__(self, loop: uvloop_clone.Loop) -> None:
        self.order: list[str] = []
        self.longest_wait = 0.0
        self.began = 0.0
        self.prepare = Handle(loop, lib.uv_prepare_init)
        self.check = Handle(loop, lib.uv_check_init)

    def __enter__(self) -> "Probe":
        self.prepare.call(lib.uv_prepare_start, self.before)
        self.check.call(lib.uv_check_start, self.after)
        return self

    def __exit__(self, *_exc_info: object) -> None:
        self.prepare.close()
        self.check.close()

    def before(self, _handle: Any) -> None:
        self.order.append("before")
        self.began = time.perf_counter()

    def after(self, _handle: Any) -> None:
        self.order.append("after")
        self.longest_wait = max(self.longest_wait, time.perf_counter() - self.began)


async def main() -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, uvloop_clone.Loop)

    with Probe(loop) as probe:
        await asyncio.sleep(0.1)
    pairs = list(zip(probe.order[::2], probe.order[1::2], strict=False))
    print("before and after take turns:", set(pairs) == {("before", "after")})
    print("the loop slept in one piece:", probe.longest_wait > 0.05)

    rounds = 0

    def on_idle(_handle: Any) -> None:  # as long as it is active, the loop does not sleep
        nonlocal rounds
        rounds += 1

    with Probe(loop) as probe, Handle(loop, lib.uv_idle_init) as idle:
        idle.call(lib.uv_idle_start, on_idle)
        await asyncio.sleep(0.1)
    print("with an idle handle it never rests:", rounds > 10)
    print("closed with their blocks:", probe.prepare.closed, idle.closed)


if __name__ == "__main__":
    uvloop_clone.run(main())
