"""`asyncio.Runner` with our loop: several entries into one loop and one context.

Needs: Python 3.11
"""

import asyncio
import contextvars

import uvloop_clone

visits = contextvars.ContextVar("visits", default=0)


async def visit() -> int:
    visits.set(visits.get() + 1)
    await asyncio.sleep(0)
    return visits.get()


def main() -> None:
    with asyncio.Runner(loop_factory=uvloop_clone.new_event_loop) as runner:
        loop = runner.get_loop()
        print("our loop:", type(loop).__module__.partition(".")[0] == "uvloop_clone")
        print("first visit:", runner.run(visit()))
        print("second visit, same context:", runner.run(visit()))
        print("same loop:", runner.get_loop() is loop)
    print("closed with the runner:", loop.is_closed())


if __name__ == "__main__":
    main()
