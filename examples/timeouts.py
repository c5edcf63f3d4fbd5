"""`asyncio.wait_for`: put a limit on how long you wait for something.

What took too long is cancelled first, so its `finally` blocks have run when the
TimeoutError arrives.
"""

import asyncio

import uvloop_clone


async def answer(seconds: float) -> int:
    try:
        await asyncio.sleep(seconds)
        return 42
    except asyncio.CancelledError:
        print("  too slow, tidying up")
        raise


async def main() -> None:
    print("in time:", await asyncio.wait_for(answer(0.01), timeout=1))
    try:
        await asyncio.wait_for(answer(10), timeout=0.05)
    except asyncio.TimeoutError:
        print("gave up waiting")

    loop = asyncio.get_running_loop()
    start = loop.time()
    try:
        await asyncio.wait_for(loop.create_future(), timeout=0.05)
    except asyncio.TimeoutError:
        print("a timeout never comes early:", loop.time() - start >= 0.05)

    try:
        await asyncio.wait_for(answer(10), timeout=0)
    except asyncio.TimeoutError:
        print("a timeout of zero does not wait at all")
    print("no limit:", await asyncio.wait_for(answer(0.01), timeout=None))


if __name__ == "__main__":
    uvloop_clone.run(main())
