"""A task factory: decide how the loop makes its tasks, here to number and time them."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import uvloop_clone


class NumberedTask(asyncio.Task):  # type: ignore[type-arg]
    made = 0

    def __init__(self, coro: Coroutine[Any, Any, Any], **options: Any) -> None:
        super().__init__(coro, **options)
        NumberedTask.made += 1
        self.number = NumberedTask.made


def factory(
    loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, Any], **options: Any
) -> NumberedTask:
    return NumberedTask(coro, loop=loop, **options)


async def whoami() -> str:
    task = asyncio.current_task()
    return f"task number {task.number}" if isinstance(task, NumberedTask) else "an ordinary task"


async def main() -> None:
    loop = asyncio.get_running_loop()
    print("before:", await asyncio.create_task(whoami()))
    loop.set_task_factory(factory)
    print("with the factory:", await asyncio.gather(whoami(), whoami()))
    print("in force:", loop.get_task_factory() is factory)
    loop.set_task_factory(None)
    print("after:", await asyncio.create_task(whoami()))


if __name__ == "__main__":
    uvloop_clone.run(main())
