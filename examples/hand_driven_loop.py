"""Driving a loop by hand, as programs did before `run` existed.

`install` puts this project's loop in force, so `asyncio.get_event_loop()` makes one. It is
run again and again with `run_until_complete` and `run_forever`, and closed at the end.
"""

import asyncio

import uvloop_clone


async def knock(times: int) -> str:
    for _ in range(times):
        await asyncio.sleep(0.01)
    return " ".join(["knock"] * times)


def main() -> None:
    uvloop_clone.install()
    loop = asyncio.get_event_loop()
    print("this loop is ours:", type(loop).__module__.partition(".")[0] == "uvloop_clone")
    print("the same one each time:", asyncio.get_event_loop() is loop)

    print("a coroutine:", loop.run_until_complete(knock(1)))
    task = loop.create_task(knock(2))
    print("a task:", loop.run_until_complete(task))
    future = loop.create_future()
    loop.call_later(0.02, future.set_result, "who is there?")
    print("a future:", loop.run_until_complete(future))

    loop.call_later(0.06, loop.stop)
    loop.call_later(0.04, print, "third")
    loop.call_at(loop.time() + 0.02, print, "second")
    loop.call_soon(print, "first")
    loop.run_forever()
    print("stopped, may run again:", not loop.is_running() and not loop.is_closed())

    try:
        loop.run_until_complete(never_filled(loop))
    except RuntimeError as error:
        print("error:", error)

    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()
    print("closed:", loop.is_closed())
    try:
        loop.call_soon(print, "never")
    except RuntimeError as error:
        print("error:", error)


def never_filled(loop: asyncio.AbstractEventLoop) -> "asyncio.Future[None]":
    """A future that nothing will ever fill; the loop is stopped before it is done."""
    future = loop.create_future()
    loop.call_later(0.01, loop.stop)
    return future


if __name__ == "__main__":
    main()
