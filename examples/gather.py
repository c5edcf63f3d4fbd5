"""`asyncio.gather`: results in the order of the arguments, whatever finishes first.

An exception is passed on to the one who awaits, or becomes a result of its own with
`return_exceptions=True`. Without it the other awaitables go on running.
"""

import asyncio

import uvloop_clone


async def weigh(parcel: str, delay: float) -> str:
    await asyncio.sleep(delay)
    if parcel == "torn":
        raise ValueError(f"cannot weigh a {parcel} parcel")
    print(f"weighed the {parcel} parcel")
    return f"{parcel}: {len(parcel)} kg"


async def main() -> None:
    print(await asyncio.gather(weigh("large", 0.1), weigh("tiny", 0.02), weigh("round", 0.06)))

    slow = asyncio.create_task(weigh("heavy", 0.1))
    try:
        await asyncio.gather(slow, weigh("torn", 0.02))
    except ValueError as error:
        print("gather raised:", error)
    print("the other one goes on:", await slow)

    for outcome in await asyncio.gather(
        weigh("flat", 0.05), weigh("torn", 0.01), return_exceptions=True
    ):
        word = "failed" if isinstance(outcome, BaseException) else "succeeded"
        print(f"{word}: {outcome}")


if __name__ == "__main__":
    uvloop_clone.run(main())
