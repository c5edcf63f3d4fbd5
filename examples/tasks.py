"""Tasks: start coroutines in the background, name them, and collect what they return.

A task starts at the next turn of the loop, not at `create_task`; that is why the first line
printed is the one of `main`. Two tasks take turns at each `await`.
"""

import asyncio

import uvloop_clone


async def count(label: str, items: str, finished: list[str]) -> int:
    for item in items:
        print(f"{label} says {item}")
        await asyncio.sleep(0)
    finished.append(label)
    return len(items)


async def main() -> None:
    finished: list[str] = []
    numbers = asyncio.create_task(count("numbers", "123", finished), name="numbers")
    letters = asyncio.create_task(count("letters", "abcd", finished), name="letters")
    print("both tasks exist, neither has run:", not numbers.done() and not letters.done())
    print("named:", numbers.get_name(), "and", letters.get_name())

    print("items:", await numbers + await letters)
    print("finished in this order:", finished)
    print("results stay readable:", numbers.result(), letters.result())


if __name__ == "__main__":
    uvloop_clone.run(main())
