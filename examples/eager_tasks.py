"""Eager tasks: they start inside `create_task` and cost no turn if they need not wait.

Needs: Python 3.12
"""

import asyncio

import uvloop_clone

CACHE = {"one": 1}


async def look_up(key: str) -> int:
    if key not in CACHE:
        print(f"{key} is not in the cache, fetching it")
        await asyncio.sleep(0.01)
        CACHE[key] = len(key)
    return CACHE[key]


async def main() -> None:
    asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
    known = asyncio.create_task(look_up("one"))
    print("done at once:", known.done(), known.result())
    unknown = asyncio.create_task(look_up("three"))
    print("has to wait:", not unknown.done())
    print("then:", await unknown)


if __name__ == "__main__":
    uvloop_clone.run(main())
