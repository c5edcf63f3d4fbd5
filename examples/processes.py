"""Heavy arithmetic goes to other processes, where it does not hold up this interpreter.

The function must stand at module level, and the start of the program behind
`if __name__ == "__main__"`: a worker process may import this file again.
"""

import asyncio
import concurrent.futures
import os

import uvloop_clone


def count_primes(limit: int) -> tuple[int, int]:
    sieve = bytearray([1]) * limit
    sieve[:2] = b"\0\0"
    for n in range(2, int(limit**0.5) + 1):
        if sieve[n]:
            sieve[n * n :: n] = bytes(len(range(n * n, limit, n)))
    return sum(sieve), os.getpid()


async def main() -> None:
    loop = asyncio.get_running_loop()
    limits = [1_000, 100_000, 1_000_000]
    with concurrent.futures.ProcessPoolExecutor(max_workers=2) as pool:
        jobs = [loop.run_in_executor(pool, count_primes, limit) for limit in limits]
        for limit, (primes, pid) in zip(limits, await asyncio.gather(*jobs), strict=True):
            elsewhere = "another process" if pid != os.getpid() else "this process"
            print(f"{primes} primes below {limit}, counted in {elsewhere}")


if __name__ == "__main__":
    uvloop_clone.run(main())
