"""What can be awaited: coroutines, tasks, futures, and classes with `__await__`."""

import asyncio
import inspect
from collections.abc import Generator
from typing import Any

import uvloop_clone


class Pause:
    """Gives the other tasks `turns` turns; a bare `yield` means 'call me again'."""

    def __init__(self, turns: int) -> None:
        self.turns = turns

    def __await__(self) -> Generator[None, None, str]:
        for _ in range(self.turns):
            yield
        return f"waited {self.turns} turns"


class Kettle:
    """Remembers its state: boils at the first await, is ready at every later one."""

    def __init__(self) -> None:
        self.boiled = 0

    async def _boil(self) -> None:
        await asyncio.sleep(0.02)
        self.boiled += 1

    def __await__(self) -> Generator[Any, None, "Kettle"]:
        if not self.boiled:
            yield from self._boil().__await__()
        return self


class Lazy:
    """Wraps a future and adds a word to its result."""

    def __init__(self, future: "asyncio.Future[int]") -> None:
        self.future = future

    def __await__(self) -> Generator[Any, None, str]:
        value = yield from self.future
        return f"value {value}"


async def coroutine() -> str:
    return "a coroutine's result"


async def main() -> None:
    loop = asyncio.get_running_loop()
    future: asyncio.Future[int] = loop.create_future()
    loop.call_later(0.02, future.set_result, 7)
    task = asyncio.create_task(coroutine())
    waiting = coroutine()
    candidates = {
        "coroutine": waiting,
        "coroutine function": coroutine,
        "task": task,
        "future": future,
        "Pause(2)": Pause(2),
        "number": 5,
    }
    for name, candidate in candidates.items():
        print(f"{name}: awaitable {inspect.isawaitable(candidate)}")

    print(await waiting, "/", await task)
    print(await Pause(2))
    print(await Lazy(future))
    kettle = Kettle()
    print("boiled", (await kettle).boiled, "time, then", (await kettle).boiled, "time still")
    print("gather takes them too:", await asyncio.gather(Pause(1), Pause(3)))
    try:
        await 5  # type: ignore[misc]
    except TypeError:
        print("a number cannot be awaited")


if __name__ == "__main__":
    uvloop_clone.run(main())
