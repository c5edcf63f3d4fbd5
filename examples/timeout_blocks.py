"""`asyncio.timeout`: one limit for a whole block, which can be moved while it runs.

Needs: Python 3.11
"""

import asyncio

import uvloop_clone


async def main() -> None:
    try:
        async with asyncio.timeout(0.05) as limit:
            print("step one")
            await asyncio.sleep(0)
            print("step two")
            await asyncio.sleep(10)
            print("never reached")
    except TimeoutError:
        print("the block ran out of time:", limit.expired())

    loop = asyncio.get_running_loop()
    async with asyncio.timeout(0.05) as limit:
        limit.reschedule(loop.time() + 10)
        await asyncio.sleep(0.1)
        print("given more time, it finished:", not limit.expired())

    try:
        async with asyncio.timeout(10):
            async with asyncio.timeout_at(loop.time() + 0.02):
                await asyncio.sleep(5)
    except TimeoutError:
        print("the inner of two limits struck")


if __name__ == "__main__":
    uvloop_clone.run(main())
