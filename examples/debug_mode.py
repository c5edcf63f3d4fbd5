"""Debug mode: the loop reports callbacks that hold it up and calls from the wrong thread."""

import asyncio
import logging
import threading
import time

import uvloop_clone


class Collector(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


def hog() -> None:
    time.sleep(0.06)


async def main() -> None:
    loop = asyncio.get_running_loop()
    print("debug:", loop.get_debug())
    loop.slow_callback_duration = 0.05

    logger = logging.getLogger("asyncio")
    collector = Collector()
    logger.addHandler(collector)
    logger.propagate = False
    loop.call_soon(hog)
    await asyncio.sleep(0.01)
    slow = [text for text in collector.messages if "hog" in text]
    print("slow callbacks reported:", len(slow))
    print("it says how long:", slow[0].startswith("Executing") and slow[0].endswith("seconds"))

    errors: list[str] = []

    def wrong_thread() -> None:
        try:
            loop.call_soon(hog)
        except RuntimeError as error:
            errors.append(str(error))

    thread = threading.Thread(target=wrong_thread)
    thread.start()
    thread.join()
    print("call_soon from another thread:", errors)
    loop.set_debug(False)
    print("debug:", loop.get_debug())


if __name__ == "__main__":
    uvloop_clone.run(main(), debug=True)
