"""Ctrl-C: the program is interrupted at once, and its `finally` blocks still run.

The program sends itself the signal that Ctrl-C sends, in the middle of an hour's sleep.
"""

import asyncio
import os
import signal

import uvloop_clone


async def watch_the_oven() -> None:
    try:
        await asyncio.sleep(3600)
    finally:
        print("the oven is switched off")


async def main() -> None:
    oven = asyncio.create_task(watch_the_oven())
    asyncio.get_running_loop().call_later(0.05, os.kill, os.getpid(), signal.SIGINT)
    print("baking, press Ctrl-C to stop")
    try:
        await oven
    finally:
        print("the kitchen is closed")


if __name__ == "__main__":
    try:
        uvloop_clone.run(main())
    except KeyboardInterrupt:
        print("interrupted by the user")
