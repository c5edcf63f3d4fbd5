"""`asyncio.wait`: look at a set of tasks at the first result, the first error, or the end.

`wait` raises nothing and cancels nothing: it hands back two sets, done and pending, and
what to do with the pending ones is up to you.
"""

import asyncio

import uvloop_clone


async def runner(name: str, seconds: float) -> str:
    await asyncio.sleep(seconds)
    if name == "Bob":
        raise RuntimeError("Bob fell")
    return name


def race(**seconds: float) -> list["asyncio.Task[str]"]:
    return [asyncio.create_task(runner(name, s), name=name) for name, s in seconds.items()]


def names(tasks: "set[asyncio.Task[str]]") -> str:
    return ", ".join(sorted(task.get_name() for task in tasks)) or "nobody"


async def main() -> None:
    done, pending = await asyncio.wait(
        race(Ann=0.02, Cleo=0.4, Dan=0.5), return_when=asyncio.FIRST_COMPLETED
    )
    print(f"first home: {names(done)}; still out: {names(pending)}")
    for task in pending:
        task.cancel()
    done, pending = await asyncio.wait(pending)
    print("called back:", all(task.cancelled() for task in done), "- pending:", names(pending))

    done, pending = await asyncio.wait(
        race(Ann=0.02, Bob=0.1, Cleo=0.5), return_when=asyncio.FIRST_EXCEPTION
    )
    fallen = [task for task in done if task.exception()]
    print(f"stopped at the first error: {fallen[0].exception()}; still out: {names(pending)}")
    for task in pending:
        task.cancel()
    await asyncio.gather(*pending, return_exceptions=True)

    done, pending = await asyncio.wait(race(Ann=0.05, Dan=0.02))
    print(f"all home: {names(done)}; still out: {names(pending)}")

    slow = race(Eve=0.3)
    done, pending = await asyncio.wait(slow, timeout=0.02)
    print(f"after the timeout: done {names(done)}; still out: {names(pending)}")
    print("wait did not cancel it:", await slow[0])


if __name__ == "__main__":
    uvloop_clone.run(main())
