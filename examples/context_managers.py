"""`async with`: resources that need an `await` to open and to close."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import uvloop_clone


class Door:
    def __init__(self, name: str) -> None:
        self.name = name

    async def __aenter__(self) -> str:
        await asyncio.sleep(0)
        print(f"{self.name} door opens")
        return self.name

    async def __aexit__(self, *error: object) -> None:
        await asyncio.sleep(0)
        print(f"{self.name} door closes")


@contextlib.asynccontextmanager
async def guarded(name: str) -> AsyncIterator[str]:
    print(f"{name} is watched")
    try:
        yield name
    except ValueError as error:
        print(f"{name}: {error}, dealt with")
    finally:
        print(f"{name} is left alone")


async def main() -> None:
    async with Door("front") as name, Door("inner"):
        print("inside, through the", name, "door")

    async with guarded("the vault"):
        raise ValueError("alarm")

    async with contextlib.AsyncExitStack() as stack:
        for name in ("first", "second"):
            await stack.enter_async_context(Door(name))
        stack.push_async_callback(asyncio.sleep, 0)
        print("both are open")

    task = asyncio.create_task(stay(Door("back")))
    await asyncio.sleep(0.02)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    print("cancelled, and the door is shut")


async def stay(door: Door) -> None:
    async with door:
        await asyncio.sleep(60)


if __name__ == "__main__":
    uvloop_clone.run(main())
