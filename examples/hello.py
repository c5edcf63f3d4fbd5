"""The smallest program: one coroutine, one pause, run to its end by `uvloop_clone.run`.

`run` makes a loop, drives the coroutine on it, cleans up and hands back what the coroutine
returned. While `greet` sleeps the loop is free for other work.
"""

import asyncio

import uvloop_clone


async def greet(name: str) -> str:
    print(f"Good morning, {name}.")
    await asyncio.sleep(0.05)
    print(f"Good night, {name}.")
    return f"{name} was greeted"


if __name__ == "__main__":
    print(uvloop_clone.run(greet("Ada")))
