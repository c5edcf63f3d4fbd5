"""Signals: `add_signal_handler` runs a callback on the loop, safe to touch anything there.

SIGUSR1 asks for a status line, SIGTERM for an orderly end, as a service would do it.
"""

import asyncio
import os
import signal

import uvloop_clone


async def main() -> None:
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    reported = asyncio.Event()
    served = 0

    def status(label: str) -> None:
        print(f"{label}: {served} requests served")
        reported.set()

    loop.add_signal_handler(signal.SIGUSR1, status, "status")
    loop.add_signal_handler(signal.SIGTERM, stopping.set)

    for _ in range(3):
        await asyncio.sleep(0)
        served += 1
    os.kill(os.getpid(), signal.SIGUSR1)
    await asyncio.wait_for(reported.wait(), 5)

    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(stopping.wait(), 5)
    print("asked to stop, closing down")

    for number in (signal.SIGUSR1, signal.SIGTERM):
        print(f"{number.name} removed:", loop.remove_signal_handler(number))
    print("nothing left to remove:", not loop.remove_signal_handler(signal.SIGTERM))
    print("the old behaviour is back:", signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)


if __name__ == "__main__":
    uvloop_clone.run(main())
