"""The same errands three times: blocking, awaited one by one, and all together.

Awaiting in sequence is no faster than blocking; what saves time is to let the waits overlap.
"""

import asyncio
import time

import uvloop_clone

ERRANDS = {"post office": 0.1, "bakery": 0.12, "library": 0.08}


def blocking_errand(place: str) -> str:
    time.sleep(ERRANDS[place])
    return place


async def errand(place: str) -> str:
    await asyncio.sleep(ERRANDS[place])
    return place


async def in_sequence() -> list[str]:
    return [await errand(place) for place in ERRANDS]


async def together() -> list[str]:
    return await asyncio.gather(*(errand(place) for place in ERRANDS))


def main() -> None:
    timings = {}
    start = time.monotonic()
    visited = [blocking_errand(place) for place in ERRANDS]
    timings["blocking"] = time.monotonic() - start
    print("blocking:", ", ".join(visited))

    for name, trip in (("in sequence", in_sequence), ("together", together)):
        start = time.monotonic()
        visited = uvloop_clone.run(trip())
        timings[name] = time.monotonic() - start
        print(f"{name}:", ", ".join(visited))

    total = sum(ERRANDS.values())
    print("blocking took the sum of the waits:", timings["blocking"] >= total)
    print("so did awaiting in sequence:", timings["in sequence"] >= total)
    print("together took less:", timings["together"] < timings["in sequence"])


if __name__ == "__main__":
    main()
