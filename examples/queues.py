"""Queues between producers and consumers: plain, bounded, by priority, last in first out."""

import asyncio

import uvloop_clone


async def producer(queue: "asyncio.Queue[int]", numbers: range, log: list[str]) -> None:
    for number in numbers:
        await queue.put(number)  # waits while the queue is full
        log.append(f"put {number}")


async def consumer(queue: "asyncio.Queue[int]", totals: dict[str, int], name: str) -> None:
    while True:
        number = await queue.get()
        await asyncio.sleep(0.001)
        totals[name] = totals.get(name, 0) + number
        queue.task_done()


async def many_to_many() -> None:
    queue: asyncio.Queue[int] = asyncio.Queue(maxsize=3)
    log: list[str] = []
    totals: dict[str, int] = {}
    workers = [asyncio.create_task(consumer(queue, totals, name)) for name in ("A", "B")]
    await asyncio.gather(producer(queue, range(20), log), producer(queue, range(20, 40), log))
    await queue.join()
    for worker in workers:
        worker.cancel()
    await asyncio.gather(*workers, return_exceptions=True)
    print("items:", len(log), "- total:", sum(totals.values()), "- workers:", len(totals))


async def main() -> None:
    await many_to_many()

    bounded: asyncio.Queue[int] = asyncio.Queue(maxsize=2)
    log: list[str] = []
    filling = asyncio.create_task(producer(bounded, range(4), log))
    await asyncio.sleep(0.01)
    print("full:", bounded.full(), "-", ", ".join(log))
    print("got", await bounded.get(), "and", await bounded.get())
    await filling
    print("then:", ", ".join(log[2:]))
    try:
        bounded.put_nowait(9)
    except asyncio.QueueFull:
        print("no room for 9")

    urgent: asyncio.PriorityQueue[tuple[int, str]] = asyncio.PriorityQueue()
    for entry in ((3, "water the plants"), (1, "put out the fire"), (2, "feed the cat")):
        urgent.put_nowait(entry)
    print("by priority:", [urgent.get_nowait()[1] for _ in range(3)])

    stack: asyncio.LifoQueue[str] = asyncio.LifoQueue()
    for plate in ("red", "green", "blue"):
        await stack.put(plate)
    print("last in, first out:", [await stack.get() for _ in range(3)])
    try:
        stack.get_nowait()
    except asyncio.QueueEmpty:
        print("nothing left")


if __name__ == "__main__":
    uvloop_clone.run(main())
