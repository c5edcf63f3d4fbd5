"""Lock, Event, Semaphore and Condition: let coroutines wait for each other."""

import asyncio

import uvloop_clone


async def with_lock(lock: asyncio.Lock, name: str) -> None:
    async with lock:
        print(f"{name} enters")
        await asyncio.sleep(0)
        print(f"{name} leaves")


async def with_event(start: asyncio.Event, name: str) -> str:
    await start.wait()
    return name


async def with_semaphore(places: asyncio.Semaphore, inside: list[int]) -> int:
    async with places:
        inside[0] += 1
        most = inside[0]
        await asyncio.sleep(0.002)
        inside[0] -= 1
        return most


async def with_condition(condition: asyncio.Condition, basket: list[str]) -> str:
    async with condition:
        await condition.wait_for(lambda: basket)
        return basket.pop(0)


async def main() -> None:
    lock = asyncio.Lock()
    await asyncio.gather(*(with_lock(lock, name) for name in ("Ann", "Ben", "Cleo")))
    print("locked:", lock.locked())

    start = asyncio.Event()
    runners = [asyncio.create_task(with_event(start, name)) for name in ("hare", "tortoise")]
    await asyncio.sleep(0)
    print("anybody off before the shot:", any(task.done() for task in runners))
    start.set()
    print("off:", await asyncio.gather(*runners))

    places, inside = asyncio.Semaphore(3), [0]
    crowd = await asyncio.gather(*(with_semaphore(places, inside) for _ in range(10)))
    print("never more than", max(crowd), "inside")

    bounded = asyncio.BoundedSemaphore(1)
    try:
        bounded.release()
    except ValueError:
        print("released once too often")

    condition, basket = asyncio.Condition(), []
    hungry = [asyncio.create_task(with_condition(condition, basket)) for _ in range(2)]
    await asyncio.sleep(0)
    for fruit in ("apple", "pear"):
        async with condition:
            basket.append(fruit)
            condition.notify()
    print("eaten:", await asyncio.gather(*hungry))


if __name__ == "__main__":
    uvloop_clone.run(main())
