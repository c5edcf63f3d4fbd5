"""A `uv_timer` of libuv's own on the running loop, beside asyncio's timers.

Needs: cffi, uvloop_clone._ffi
"""

import asyncio
from typing import Any

import uvloop_clone
from uvloop_clone.ffi import Handle, lib, loop_ptr


async def main() -> None:
    loop = uvloop_clone_loop()
    print("libuv sees a loop that is alive:", bool(lib.uv_loop_alive(loop_ptr(loop))))

    ticks: asyncio.Queue[int] = asyncio.Queue()
    count = 0

    def on_tick(_timer: Any) -> None:  # called by libuv: a plain function, no coroutine
        nonlocal count
        count += 1
        if count == 3:
            raise ValueError("the third tick is a bad one")
        ticks.put_nowait(count)

    loop.set_exception_handler(lambda _loop, context: print("reported:", context["exception"]))
    with Handle(loop, lib.uv_timer_init) as timer:
        timer.call(lib.uv_timer_start, on_tick, 10, 10)  # milliseconds: the first, the next ones
        print("repeats every", timer.call(lib.uv_timer_get_repeat), "ms")
        for _ in range(4):
            print("tick", await asyncio.wait_for(ticks.get(), 5))
    await timer.close()  # done when libuv has let go of it
    print("closed:", timer.closed)

    try:
        timer.call(lib.uv_timer_again)
    except RuntimeError as error:
        print("too late:", error)


def uvloop_clone_loop() -> uvloop_clone.Loop:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, uvloop_clone.Loop)
    return loop


if __name__ == "__main__":
    uvloop_clone.run(main())
