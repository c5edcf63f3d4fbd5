"""`asyncio.shield`: the waiting may be cancelled, the work behind it is not.

Keep a reference to the inner task: it is what you await in the end.
"""

import asyncio

import uvloop_clone


async def save(record: str) -> str:
    print(f"saving {record}")
    await asyncio.sleep(0.1)
    print(f"saved {record}")
    return record.upper()


async def main() -> None:
    work = asyncio.create_task(save("invoice"))

    async def caller() -> str:
        return await asyncio.shield(work)

    waiting = asyncio.create_task(caller())
    await asyncio.sleep(0.02)
    waiting.cancel()
    try:
        await waiting
    except asyncio.CancelledError:
        print("the caller was cancelled, the work was not:", not work.cancelled())
    print("result:", await work)

    bare = asyncio.create_task(save("draft"))
    try:
        await asyncio.wait_for(bare, timeout=0.02)
    except asyncio.TimeoutError:
        print("without a shield the work is cancelled too:", bare.cancelled())


if __name__ == "__main__":
    uvloop_clone.run(main())
