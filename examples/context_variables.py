"""Context variables: each task has its own values, and callbacks and threads keep them."""

import asyncio
import contextvars

import uvloop_clone

user: contextvars.ContextVar[str] = contextvars.ContextVar("user", default="nobody")


async def handle_request(name: str) -> str:
    user.set(name)
    await asyncio.sleep(0.01)  # the other request sets its own user meanwhile
    return f"{name} is still {user.get()}"


def note(log: list[str], place: str) -> None:
    log.append(f"{place}: {user.get()}")


async def main() -> None:
    print(await asyncio.gather(handle_request("Ann"), handle_request("Ben")))
    print("outside of the requests:", user.get())

    loop = asyncio.get_running_loop()
    log: list[str] = []
    user.set("Cleo")
    loop.call_soon(note, log, "call_soon")
    loop.call_later(0.01, note, log, "call_later")
    empty = contextvars.Context()
    loop.call_soon(lambda: note(log, "an empty context"), context=empty)
    future = loop.create_future()
    future.add_done_callback(lambda f: note(log, "done callback"))
    user.set("Dan")  # what was scheduled above keeps the value of its own moment
    future.set_result(None)
    await asyncio.sleep(0.05)
    print("\n".join(log))

    await asyncio.to_thread(note, log, "to_thread")
    print(log[-1])


if __name__ == "__main__":
    uvloop_clone.run(main())
