"""Cancelling a task: it gets a CancelledError at its next `await` and may tidy up first."""

import asyncio

import uvloop_clone


async def download(name: str, started: asyncio.Event) -> None:
    try:
        print(f"{name}: started")
        started.set()
        await asyncio.sleep(60)
    except asyncio.CancelledError as error:
        print(f"{name}: asked to stop ({', '.join(map(str, error.args)) or 'no reason given'})")
        await asyncio.sleep(0)  # tidying up may take a few turns of its own
        raise
    finally:
        print(f"{name}: closed its file")


async def stubborn() -> str:
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        return "finished after all"
    return "slept for a minute"


async def main() -> None:
    started = asyncio.Event()
    task = asyncio.create_task(download("film", started))
    await started.wait()
    print("cancel() accepted:", task.cancel())
    try:
        await task
    except asyncio.CancelledError:
        print("cancelled:", task.cancelled())
    print("cancel() on a finished task:", task.cancel())

    never = asyncio.create_task(download("song", started))
    never.cancel()  # before its first step: its body never runs
    await asyncio.gather(never, return_exceptions=True)
    print("cancelled before it began:", never.cancelled())

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    task.cancel()
    print("a task may answer a cancel with a result:", await task)


if __name__ == "__main__":
    uvloop_clone.run(main())
