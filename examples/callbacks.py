"""Plain callbacks: `call_soon`, `call_later`, `call_at`, and callbacks of a finished task.

What is ready runs first come, first served; timers run in the order of their deadlines. The
handle that each of these calls returns can be cancelled.
"""

import asyncio
import functools

import uvloop_clone


async def errand() -> str:
    return "milk"


def report(task: "asyncio.Task[str]", *, label: str) -> None:
    print(f"{label}: the task brought {task.result()}")


async def main() -> None:
    loop = asyncio.get_running_loop()
    for word in ("ready", "steady", "go"):
        loop.call_soon(print, word)
    dropped = loop.call_soon(print, "never printed")
    dropped.cancel()
    await asyncio.sleep(0)
    print("dropped:", dropped.cancelled())

    finished = loop.create_future()
    start = loop.time()
    loop.call_at(start + 0.06, finished.set_result, None)
    loop.call_at(start + 0.04, print, "timer at 40 ms")
    early = loop.call_at(start + 0.02, print, "timer at 20 ms")
    late = loop.call_later(60, print, "timer in a minute")
    print("a timer knows its time:", early.when() == start + 0.02)
    late.cancel()
    await finished
    print("timers never fire early:", loop.time() >= start + 0.06)

    task = asyncio.create_task(errand())
    task.add_done_callback(functools.partial(report, label="first"))
    unwanted = functools.partial(report, label="unwanted")
    task.add_done_callback(unwanted)
    task.add_done_callback(functools.partial(report, label="second"))
    print("callbacks taken back:", task.remove_done_callback(unwanted))
    await task
    await asyncio.sleep(0)

    def count_down(number: int) -> None:
        print("T minus", number)
        if number:
            loop.call_soon(count_down, number - 1)
        else:
            lift_off.set()

    lift_off = asyncio.Event()
    count_down(3)
    await lift_off.wait()


if __name__ == "__main__":
    uvloop_clone.run(main())
