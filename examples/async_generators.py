"""Asynchronous generators: produce values one `await` at a time, and tidy up when left early."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import uvloop_clone


async def ticker(name: str, count: int) -> AsyncIterator[int]:
    try:
        for number in range(count):
            await asyncio.sleep(0)
            yield number
    finally:
        await asyncio.sleep(0)
        print(f"{name} is put away")


async def squares(source: AsyncIterator[int]) -> AsyncIterator[int]:
    async for number in source:
        yield number * number


async def main() -> None:
    print([value async for value in squares(ticker("first", 5))])
    print({value async for value in ticker("second", 6) if value % 2})

    async with contextlib.aclosing(ticker("third", 100)) as numbers:
        async for number in numbers:
            if number == 2:
                print("that is enough")
                break

    forgotten = ticker("fourth", 100)
    print("first value:", await forgotten.__anext__())
    left_open.append(forgotten)
    print("the end of main")  # run() closes what was left open


left_open: list[AsyncIterator[int]] = []

if __name__ == "__main__":
    uvloop_clone.run(main())
    print("the end of the program")
