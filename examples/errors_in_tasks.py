"""Where an exception goes: to whoever awaits, to the task object, or to the loop's handler."""

import asyncio

import uvloop_clone


async def divide(a: int, b: int) -> float:
    await asyncio.sleep(0)
    return a / b


def faulty_callback() -> None:
    raise OSError("the printer is on fire")


async def main() -> None:
    try:
        await divide(1, 0)
    except ZeroDivisionError as error:
        print("awaited:", error)

    task = asyncio.create_task(divide(1, 0))
    await asyncio.wait([task])
    print("kept by the task:", repr(task.exception()))

    reports: list[str] = []

    def collect(loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        reports.append(repr(context.get("exception")))

    loop = asyncio.get_running_loop()
    loop.set_exception_handler(collect)
    loop.call_soon(faulty_callback)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    print("a callback has nobody to raise to, so the handler hears of it:", reports)
    print("the handler in force is ours:", loop.get_exception_handler() is collect)
    loop.set_exception_handler(None)


if __name__ == "__main__":
    uvloop_clone.run(main())
