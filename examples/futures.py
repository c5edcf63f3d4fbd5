"""Futures by hand: a place for a result that somebody else will fill in."""

import asyncio

import uvloop_clone


def describe(future: "asyncio.Future[str]") -> str:
    if future.cancelled():
        return "cancelled"
    return "done" if future.done() else "pending"


async def postman(letter: "asyncio.Future[str]") -> None:
    await asyncio.sleep(0.02)
    letter.set_result("Dear Max, all is well.")


async def main() -> None:
    loop = asyncio.get_running_loop()

    letter: asyncio.Future[str] = loop.create_future()
    letter.add_done_callback(lambda f: print("callback: the letter is", describe(f)))
    print("the letter is", describe(letter))
    try:
        letter.result()
    except asyncio.InvalidStateError:
        print("too early to read it")
    delivery = asyncio.create_task(postman(letter))
    print("it says:", await letter)
    print("and again:", letter.result())
    await delivery
    try:
        letter.set_result("Another one")
    except asyncio.InvalidStateError:
        print("a future is filled once only")

    lost: asyncio.Future[str] = loop.create_future()
    loop.call_soon(lost.set_exception, ConnectionError("the coach broke down"))
    try:
        await lost
    except ConnectionError as error:
        print("lost:", error, "-", describe(lost))

    recalled: asyncio.Future[str] = loop.create_future()
    print("recalled:", recalled.cancel(), "- it is", describe(recalled))
    try:
        await recalled
    except asyncio.CancelledError:
        print("nobody will read it")

    bell: asyncio.Future[str] = asyncio.Future()
    print("asyncio.Future() belongs to this loop:", bell.get_loop() is loop)
    readers = [asyncio.create_task(listen(n, bell)) for n in (1, 2, 3)]
    await asyncio.sleep(0)
    bell.set_result("ding")
    print("one future, many waiting:", await asyncio.gather(*readers))


async def listen(number: int, bell: "asyncio.Future[str]") -> str:
    return f"{number} heard {await bell}"


if __name__ == "__main__":
    uvloop_clone.run(main())
