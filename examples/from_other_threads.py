"""Reaching the loop from another thread: `call_soon_threadsafe`, `run_coroutine_threadsafe`."""

import asyncio
import threading

import uvloop_clone


async def double(number: int) -> int:
    await asyncio.sleep(0.01)
    return number * 2


async def broken() -> None:
    raise ValueError("bad number")


def worker(loop: asyncio.AbstractEventLoop, inbox: "asyncio.Queue[str]", loop_thread: int) -> None:
    def put(text: str) -> None:
        assert threading.get_ident() == loop_thread
        inbox.put_nowait(text)

    for text in ("one", "two", "three"):
        loop.call_soon_threadsafe(put, text)

    answer = asyncio.run_coroutine_threadsafe(double(21), loop).result(timeout=5)
    loop.call_soon_threadsafe(put, f"double(21) is {answer}")
    error = asyncio.run_coroutine_threadsafe(broken(), loop).exception(timeout=5)
    loop.call_soon_threadsafe(put, f"broken() raised {error!r}")
    loop.call_soon_threadsafe(put, "end")


async def main() -> None:
    inbox: asyncio.Queue[str] = asyncio.Queue()
    thread = threading.Thread(
        target=worker, args=(asyncio.get_running_loop(), inbox, threading.get_ident())
    )
    thread.start()
    while (text := await inbox.get()) != "end":
        print("from the thread:", text)
    await asyncio.to_thread(thread.join)
    print("the thread has ended:", not thread.is_alive())


if __name__ == "__main__":
    uvloop_clone.run(main())
