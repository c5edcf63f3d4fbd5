"""Blocking functions go to threads: `run_in_executor`, `to_thread`, and a pool of your own.

While the threads wait, a heartbeat shows that the loop is still turning.
"""

import asyncio
import concurrent.futures
import functools
import threading
import time

import uvloop_clone


def slow_lookup(word: str, *, shout: bool = False) -> str:
    time.sleep(0.1)
    assert threading.current_thread() is not threading.main_thread()
    return word.upper() if shout else word.title()


def bad_lookup() -> None:
    raise KeyError("no such word")


async def heartbeat(beats: list[float]) -> None:
    loop = asyncio.get_running_loop()
    while True:
        beats.append(loop.time())
        await asyncio.sleep(0.01)


async def main() -> None:
    beats: list[float] = []
    heart = asyncio.create_task(heartbeat(beats))
    loop = asyncio.get_running_loop()

    print("default pool:", await loop.run_in_executor(None, slow_lookup, "apple"))
    shouting = functools.partial(slow_lookup, "pear", shout=True)
    print("keywords by partial:", await loop.run_in_executor(None, shouting))
    print("to_thread:", await asyncio.to_thread(slow_lookup, "plum", shout=True))

    with concurrent.futures.ThreadPoolExecutor(2, thread_name_prefix="mine") as pool:
        words = await asyncio.gather(
            *(loop.run_in_executor(pool, slow_lookup, word) for word in ("fig", "date"))
        )
        print("a pool of our own:", words)
        name = await loop.run_in_executor(pool, lambda: threading.current_thread().name)
        print("on its own thread:", name.startswith("mine"))

    try:
        await loop.run_in_executor(None, bad_lookup)
    except KeyError as error:
        print("an error comes back:", error)

    heart.cancel()
    print("the loop kept beating:", len(beats) > 5)


if __name__ == "__main__":
    uvloop_clone.run(main())
