"""Why coroutines need fewer locks than threads: they change places only at an `await`.

Threads may be switched in the middle of `balance += 1`, so they take a lock each time. A
coroutine that reads, adds and writes without an `await` in between cannot be interrupted;
one that awaits in between loses updates just like an unlocked thread would.
"""

import asyncio
import threading

import uvloop_clone


class Account:
    def __init__(self) -> None:
        self.balance = 0


def deposit_with_threads(account: Account) -> None:
    lock = threading.Lock()

    def deposit() -> None:
        for _ in range(1000):
            with lock:
                account.balance += 1

    threads = [threading.Thread(target=deposit) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


async def deposit(account: Account) -> None:
    for _ in range(100):
        account.balance += 1
        await asyncio.sleep(0)


async def careless_deposit(account: Account) -> None:
    for _ in range(100):
        seen = account.balance
        await asyncio.sleep(0)  # the others run here and read the same balance
        account.balance = seen + 1


async def main() -> None:
    account = Account()
    await asyncio.gather(*(deposit(account) for _ in range(5)))
    print("five coroutines, no lock:", account.balance)

    account = Account()
    await asyncio.gather(*(careless_deposit(account) for _ in range(5)))
    print("five coroutines, an await between read and write:", account.balance)


if __name__ == "__main__":
    threaded = Account()
    deposit_with_threads(threaded)
    print("five threads and a lock:", threaded.balance)
    uvloop_clone.run(main())
