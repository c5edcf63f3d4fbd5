"""`asyncio.as_completed`: take the results in the order in which they arrive."""

import asyncio

import uvloop_clone


async def cook(dish: str, minutes: int) -> str:
    await asyncio.sleep(minutes / 50)
    return f"{dish} ({minutes} min)"


async def main() -> None:
    orders = [cook("stew", 9), cook("salad", 1), cook("pasta", 5)]
    for place, next_dish in enumerate(asyncio.as_completed(orders), start=1):
        print(f"{place}. {await next_dish}")

    try:
        for next_dish in asyncio.as_completed([cook("toast", 1), cook("roast", 90)], timeout=0.2):
            print("served:", await next_dish)
    except asyncio.TimeoutError:
        print("the kitchen closed before the rest was done")


if __name__ == "__main__":
    uvloop_clone.run(main())
