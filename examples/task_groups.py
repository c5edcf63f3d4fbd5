"""`asyncio.TaskGroup`: tasks that live and fail together.

The block ends when all its tasks have ended; if one fails, the others are cancelled and the
errors arrive as one ExceptionGroup.

Needs: Python 3.11
"""

import asyncio

import uvloop_clone

stopped: list[str] = []


async def dig(name: str, seconds: float) -> str:
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        stopped.append(name)
        raise
    if name == "Rex":
        raise LookupError("Rex found a bone")
    return name


async def main() -> None:
    async with asyncio.TaskGroup() as group:
        diggers = [group.create_task(dig(name, 0.02)) for name in ("Ina", "Jo")]
    print("done:", [task.result() for task in diggers])

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(dig("Ina", 10))
            group.create_task(dig("Rex", 0.05))
            group.create_task(dig("Jo", 10))
    except ExceptionGroup as group_error:  # noqa: F821 - a built-in name since 3.11
        print("failed:", [str(error) for error in group_error.exceptions])
    print("the others stopped digging:", sorted(stopped))


if __name__ == "__main__":
    uvloop_clone.run(main())
