"""The loop has itself woken a little before a deadline, and polls until it is reached.

A `uv_prepare` handle is told about every poll, so the tests see what the loop does meanwhile.
"""

import time

import pytest

bridge = pytest.importorskip("uvloop_clone.ffi", exc_type=ImportError)
Handle, lib = bridge.Handle, bridge.lib

pytestmark = [pytest.mark.core, pytest.mark.only("uvloop_clone")]

LONGEST = 50e-6
TOLERANCE = 1e-6


class Sleeps:
    """Timers one after the other, and how long before the deadline a wait came to its end."""

    def __init__(self, loop, on_early=lambda: None):
        self.loop = loop
        self.on_early = on_early  # called before each further poll until the deadline
        self.order = []

    def before_poll(self, _handle):
        self.poll_began = time.monotonic()
        if self.early and 0 < self.when - self.poll_began < LONGEST:
            self.on_early()

    def after_poll(self, _handle):
        now = time.monotonic()
        if now - self.poll_began > self.delay / 2 and now < self.when:
            self.early.append(self.when - now)

    def fire(self, fired):
        self.order.append("timer")
        fired.set_result(None)

    async def early_by(self, delay, count):
        """For each timer a list: empty, or how early the loop was awake."""
        result = []
        self.delay = delay
        with (
            Handle(self.loop, lib.uv_prepare_init) as prepare,
            Handle(self.loop, lib.uv_check_init) as check,
        ):
            self.early = []
            prepare.call(lib.uv_prepare_start, self.before_poll)
            check.call(lib.uv_check_start, self.after_poll)
            for _ in range(count):
                fired = self.loop.create_future()
                self.when = time.monotonic() + delay
                self.loop.call_at(self.loop.time() + delay, self.fire, fired)
                await fired
                assert time.monotonic() >= self.when
                result.append(self.early)
                self.early = []
        return result


def until(found, seconds=20):
    """Rounds to try until `found()`: a loaded machine wakes nobody early for a while."""
    end = time.monotonic() + seconds
    while not found() and time.monotonic() < end:
        yield


def test_some_wake_ups_are_early_and_none_by_much(loop, run):
    early = []
    count = 0
    for _ in until(early.__len__):
        early += [by for times in run(Sleeps(loop).early_by(0.001, 500)) for by in times]
        count += 500
    assert 0 < len(early) < count * 0.7
    assert max(early) <= LONGEST + TOLERANCE


def test_a_short_wait_is_cut_by_an_eighth_at_most(loop, run):
    sleeps = Sleeps(loop)
    for _ in range(100):
        run(sleeps.early_by(0.001, 10))  # so that it does not learn from short ones alone
        for times in run(sleeps.early_by(0.00005, 4))[1:]:
            assert all(by <= 0.00005 / 8 + TOLERANCE for by in times)


def served(run, sleeps):
    """Whether something that `sleeps` sends, in the rest of a wait, comes before its timer."""

    def seen():
        return "sent came timer" in " ".join(sleeps.order)

    for _ in until(seen):
        sleeps.order.clear()  # what came too late would be awaited for ever
        run(sleeps.early_by(0.001, 50))
    return seen()


def test_descriptors_are_served_meanwhile(loop, run, sockets):
    reader, writer = sockets

    def on_readable():
        reader.recv(1)
        sleeps.order.append("came")

    def on_early():
        if sleeps.order.count("sent") == sleeps.order.count("came"):
            sleeps.order.append("sent")
            writer.send(b"!")

    sleeps = Sleeps(loop, on_early)
    loop.add_reader(reader, on_readable)
    assert served(run, sleeps)
    loop.remove_reader(reader)


def test_threads_are_served_meanwhile(loop, run):
    def on_early():
        sleeps.order.append("sent")
        loop.call_soon_threadsafe(sleeps.order.append, "came")

    sleeps = Sleeps(loop, on_early)
    assert served(run, sleeps)


def test_a_timer_set_meanwhile_waits_its_time(loop, run):
    waits = []

    def on_early():
        begin = time.monotonic()
        loop.call_later(0.0003, lambda: waits.append(time.monotonic() - begin))

    for _ in until(lambda: waits):
        run(Sleeps(loop, on_early).early_by(0.001, 100))
    assert waits
    assert min(waits) >= 0.0003


def test_a_replaced_clock_knows_no_lead(loop, run):
    """It says nothing about the kernel's, so nothing may be waited for busily."""
    run(Sleeps(loop).early_by(0.001, 200))
    loop.time = lambda: time.monotonic()
    try:
        rounds = run(Sleeps(loop).early_by(0.001, 200))
    finally:
        del loop.time
    assert not any(rounds)
