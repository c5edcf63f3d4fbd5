"""Asking questions: which loop, which task, which tasks, is this a coroutine?"""

import asyncio
import inspect

import uvloop_clone


async def nap() -> str:
    task = asyncio.current_task()
    assert task is not None
    await asyncio.sleep(0.01)
    return task.get_name()


def plain() -> None:
    """A function like any other."""


async def main() -> None:
    loop = asyncio.get_running_loop()
    print("running:", loop.is_running(), "- closed:", loop.is_closed())
    print("inside a coroutine both calls agree:", asyncio.get_event_loop() is loop)
    before = loop.time()
    print("its clock never goes back:", loop.time() >= before)

    naps = [asyncio.create_task(nap(), name=f"nap {n}") for n in (1, 2)]
    others = asyncio.all_tasks() - {asyncio.current_task()}
    print("tasks besides this one:", sorted(task.get_name() for task in others))
    print("they know their names:", await asyncio.gather(*naps))
    print("finished tasks are no longer listed:", len(asyncio.all_tasks()))

    waiting = nap()
    for function in (nap, plain):
        print(function.__name__, "is a coroutine function:", inspect.iscoroutinefunction(function))
    print("coroutine:", asyncio.iscoroutine(waiting), asyncio.iscoroutine(nap))
    print("future:", asyncio.isfuture(naps[0]), asyncio.isfuture(waiting))
    waiting.close()

    try:
        loop.run_forever()
    except RuntimeError as error:
        print("it cannot be entered twice:", error)


if __name__ == "__main__":
    uvloop_clone.run(main())
    try:
        asyncio.get_running_loop()
    except RuntimeError as error:
        print("outside:", error)
