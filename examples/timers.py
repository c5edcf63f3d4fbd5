"""Timers: short sleeps are exact to well under a millisecond, and a steady rhythm.

The rhythm is kept by `call_at` with computed deadlines, so a late beat does not delay the
ones after it.
"""

import asyncio

import uvloop_clone


class Metronome:
    """Beats `count` times, `period` seconds apart."""

    def __init__(self, period: float, count: int) -> None:
        self.loop = asyncio.get_running_loop()
        self.period, self.left = period, count
        self.next_beat = self.loop.time() + period
        self.late_by: list[float] = []
        self.finished = self.loop.create_future()
        self.loop.call_at(self.next_beat, self.beat)

    def beat(self) -> None:
        self.late_by.append(self.loop.time() - self.next_beat)
        self.left -= 1
        if self.left:
            self.next_beat += self.period
            self.loop.call_at(self.next_beat, self.beat)
        else:
            self.finished.set_result(None)


async def main() -> None:
    loop = asyncio.get_running_loop()
    for seconds in (0.0005, 0.002, 0.01):
        start = loop.time()
        await asyncio.sleep(seconds)
        print(f"sleep({seconds}) was not too short:", loop.time() - start >= seconds)

    metronome = Metronome(period=0.02, count=5)
    await metronome.finished
    print("beats:", len(metronome.late_by))
    print("none of them early:", all(late >= 0 for late in metronome.late_by))

    order: list[int] = []
    for delay in (30, 10, 50, 20, 40):
        loop.call_later(delay / 1000, order.append, delay)
    await asyncio.sleep(0.1)
    print("fired in the order of their deadlines:", order)


if __name__ == "__main__":
    uvloop_clone.run(main())
