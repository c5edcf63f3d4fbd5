"""A loop is an ordinary object: put your own function in place of one of its methods.

Here `create_task` of one loop is replaced to keep a record; `asyncio.create_task` and
`asyncio.gather` go through it. Attributes of your own can be added as well.
"""

import asyncio
import weakref
from collections.abc import Coroutine
from typing import Any

import uvloop_clone


async def step(name: str) -> str:
    await asyncio.sleep(0)
    return name


async def main() -> None:
    loop = asyncio.get_running_loop()
    original = loop.create_task
    record: list[str] = []

    def recorded(coro: Coroutine[Any, Any, Any], **options: Any) -> "asyncio.Task[Any]":
        record.append(coro.__name__)
        return original(coro, **options)

    loop.create_task = recorded  # type: ignore[method-assign]
    print("result:", await asyncio.create_task(step("one")))
    print("results:", await asyncio.gather(step("two"), step("three")))
    print("recorded:", record)

    del loop.create_task
    await asyncio.create_task(step("four"))
    print("not recorded any more:", len(record) == 3)

    loop.nickname = "Louie"  # type: ignore[attr-defined]
    print("its nickname:", asyncio.get_running_loop().nickname)  # type: ignore[attr-defined]
    print("weakly referenced:", weakref.ref(loop)() is loop)


if __name__ == "__main__":
    uvloop_clone.run(main())
