"""A loop whose time() is replaced, on the instance, in a subclass or on the class, follows it."""

import asyncio
import math
import time
from unittest import mock

import pytest
from support import make_loop


class Clock:
    """Stands still until it is told to go on."""

    def __init__(self, now=1000.0):
        self.now = now

    def __call__(self):
        return self.now


@pytest.fixture
def clock(loop):
    """The clock that the loop under test goes by."""
    clock = Clock()
    loop.time = clock
    yield clock
    del loop.time


def test_replaced_on_the_instance(loop, clock, turns):
    fired = []
    handle = loop.call_later(60, fired.append, "minute")
    loop.call_at(1030.0, fired.append, "half")
    assert loop.time() == 1000.0
    assert handle.when() == 1060.0
    turns(3)
    assert fired == []
    clock.now = 1029.999
    turns(3)
    assert fired == []
    clock.now = 1030.0
    turns(2)
    assert fired == ["half"]
    clock.now = 5000.0
    turns(2)
    assert fired == ["half", "minute"]


def test_order_after_a_jump(loop, clock, turns):
    """Whatever is due fires in the order of deadlines, then of scheduling, in one turn."""
    fired = []
    for number, delay in enumerate([5, 1, 3, 1, 4, 2, 3]):
        loop.call_later(delay, fired.append, (delay, number))
    clock.now += 4
    turns(2)
    assert fired == [(1, 1), (1, 3), (2, 5), (3, 2), (3, 6), (4, 4)]


def test_going_back(loop, clock, turns):
    fired = []
    loop.call_later(10, fired.append, 1)
    clock.now -= 500
    loop.call_later(10, fired.append, 2)
    turns(2)
    assert fired == []
    clock.now += 10
    turns(2)
    assert fired == [2]
    clock.now += 500
    turns(2)
    assert fired == [2, 1]


def test_given_back(loop, turns):
    """Without the replacement the loop is on the real clock again."""
    loop.time = Clock(0.0)
    assert loop.time() == 0.0
    del loop.time
    assert abs(loop.time() - time.monotonic()) < 1
    fired = []
    loop.call_later(0.001, fired.append, 1)
    time.sleep(0.01)
    turns(2)
    assert fired == [1]


def test_mock_patch(loop, turns):
    fired = []
    with mock.patch.object(loop, "time", return_value=50.0) as replaced:
        loop.call_later(10, fired.append, 1)
        turns(2)
        assert fired == []
        replaced.return_value = 60.0
        turns(2)
        assert fired == [1]
    assert abs(loop.time() - time.monotonic()) < 1


def test_replaced_on_the_class(loop, turns, monkeypatch):
    now = 100.0
    monkeypatch.setattr(type(loop), "time", lambda self: now)
    fired = []
    loop.call_later(5, fired.append, 1)
    turns(2)
    assert fired == []
    now = 105.0
    turns(2)
    assert fired == [1]


def test_subclass(loop):
    class Jumping(type(loop)):
        """Goes to the next deadline by itself: a test of hours takes no time."""

        now = 0.0

        def time(self):
            return self.now

        def call_at(self, when, callback, *args, context=None):
            handle = super().call_at(when, callback, *args, context=context)
            self.call_soon(self._jump, when)
            return handle

        def call_later(self, delay, callback, *args, context=None):
            return self.call_at(self.now + delay, callback, *args, context=context)

        def _jump(self, when):
            self.now = max(self.now, when)

    loop = Jumping()
    begin = time.monotonic()

    async def main():
        await asyncio.sleep(3600)
        assert loop.time() == 3600.0
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(loop.create_future(), 7200)
        return loop.time()

    try:
        assert loop.run_until_complete(main()) == 3600.0 + 7200.0
    finally:
        loop.close()
    assert time.monotonic() - begin < 5


def test_sleep_and_timeouts(loop, clock, run):
    async def main():
        sleeping = loop.create_task(asyncio.sleep(100, "slept"))
        waiting = loop.create_task(asyncio.wait_for(loop.create_future(), 50))
        for _ in range(5):
            await asyncio.sleep(0)
        assert not sleeping.done()
        assert not waiting.done()
        clock.now += 50
        for _ in range(20):
            await asyncio.sleep(0)
        assert waiting.done()
        assert not sleeping.done()
        with pytest.raises(asyncio.TimeoutError):
            await waiting
        clock.now += 50
        assert await sleeping == "slept"

    loop.run_until_complete(main())


@pytest.mark.parametrize("offset", [-1e6, 1e6])
def test_idle_wait_is_as_long_as_its_clock_says(loop, clock, offset):
    """The deadline itself means nothing to the kernel's clock."""
    begin = time.monotonic()
    loop.time = lambda: time.monotonic() + offset
    loop.call_later(0.05, loop.stop)
    loop.run_forever()
    assert 0.05 <= time.monotonic() - begin < 5


def test_integers_and_infinity(loop, turns):
    clock = Clock(7)
    loop.time = clock
    fired = []
    loop.call_later(3, fired.append, 1)
    loop.call_at(math.inf, fired.append, 2)
    turns(2)
    clock.now = 10
    turns(2)
    assert fired == [1]
    del loop.time


def test_failing_clock(loop):
    """What time() raises leaves the loop, as it leaves asyncio's."""

    def fail():
        raise ZeroDivisionError

    loop.call_later(1, print)
    loop.time = fail
    with pytest.raises(ZeroDivisionError):
        loop.run_forever()
    del loop.time


def test_cleaner_of_idle_connections(loop, clock, turns):
    """As HTTP clients do: call_at() rounded up to whole seconds, rescheduled by the clock."""
    closed, connections = [], {"a": 1000.0, "b": 1007.5}

    def clean():
        nonlocal handle
        deadline = loop.time() - 15
        for name, used in list(connections.items()):
            if used <= deadline:
                closed.append(name)
                del connections[name]
        if connections:
            handle = loop.call_at(math.ceil(loop.time() + 1), clean)

    handle = loop.call_at(math.ceil(loop.time() + 15), clean)
    clock.now = 1014.9
    turns(2)
    assert closed == []
    clock.now = 1015.1
    turns(2)
    assert closed == ["a"]
    assert handle.when() == 1017.0
    clock.now = 1022.0
    turns(2)
    assert closed == ["a"]
    clock.now = 1023.0
    turns(2)
    assert closed == ["a", "b"]


# -- tools that stand where asyncio polls ---------------------------------------------------------


def test_replaced_select(loop, run):
    """What a tool sees there: 0 when something is ready, else the time until the first timer."""
    selector = loop._selector
    asked = []
    original = selector.select

    def select(timeout=None):
        asked.append(timeout)
        return original(0 if timeout is None else timeout)

    async def main():
        await asyncio.sleep(0)
        asked.clear()
        await asyncio.sleep(0.02)
        assert any(timeout and 0 < timeout <= 0.02 for timeout in asked)
        asked.clear()
        loop.call_later(0.02, future.set_result, None)
        loop.call_soon(lambda: None)
        await future
        assert asked[0] == 0
        assert any(timeout and 0 < timeout <= 0.02 for timeout in asked)
        future2 = loop.create_future()
        asked.clear()
        executor = loop.run_in_executor(None, time.sleep, 0.02)
        executor.add_done_callback(lambda _: future2.set_result(None))
        await future2
        assert None in asked

    future = loop.create_future()
    selector.select = select
    try:
        loop.run_until_complete(main())
    finally:
        del selector.select
    asked.clear()
    run(asyncio.sleep(0.01))
    assert asked == []


def test_replaced_select_drives_the_clock(loop, clock):
    """Waiting is replaced by moving the clock."""
    selector = loop._selector
    original = selector.select

    def select(timeout=None):
        ready = original(0)
        if timeout and not ready:
            clock.now += timeout
        return ready

    selector.select = select
    begin = time.monotonic()
    try:
        loop.run_until_complete(asyncio.sleep(86400))
    finally:
        del selector.select
    assert clock.now == pytest.approx(1000 + 86400)
    assert time.monotonic() - begin < 5


def test_replaced_selector(loop):
    """A tool may set a whole selector, and put the former one back."""
    former = loop._selector
    selector = mock.Mock()
    selector.select.side_effect = former.select
    loop._selector = selector
    assert loop._selector is selector
    try:
        loop.run_until_complete(asyncio.sleep(0))
    finally:
        loop._selector = former
    calls = selector.select.call_count
    assert calls > 0
    loop.run_until_complete(asyncio.sleep(0))
    assert selector.select.call_count == calls


def test_failing_select(loop):
    selector = loop._selector

    def select(timeout=None):
        raise ZeroDivisionError

    selector.select = select
    try:
        with pytest.raises(ZeroDivisionError):
            loop.run_forever()
    finally:
        del selector.select
    loop.run_until_complete(asyncio.sleep(0))


@pytest.mark.only("uvloop_clone")
def test_poll_outside_of_a_turn(loop):
    with pytest.raises(RuntimeError, match="from the loop's own turn only"):
        loop._selector.select(0)


def class_of(kind):
    loop = make_loop(kind)
    loop.close()
    return type(loop)


@pytest.mark.parametrize("how", ["class", "instance"])
def test_looptime(kind, how, pair):
    """The tool of that name, on a class made by it and on a loop that exists."""
    looptime = pytest.importorskip("looptime")
    if how == "class":
        loop = looptime.make_event_loop_class(class_of(kind))()
    else:
        loop = looptime.patch_event_loop(make_loop(kind))
    a, b = pair()
    begin = time.monotonic()

    async def main():
        start = loop.time()
        await asyncio.sleep(3600)
        assert loop.time() - start == pytest.approx(3600)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(loop.create_future(), 7200)
        assert loop.time() - start == pytest.approx(10800)
        order = []
        await asyncio.gather(*(_note(order, delay) for delay in (30, 10, 20)))
        assert order == [10, 20, 30]
        assert loop.time() - start == pytest.approx(10830)
        assert await loop.run_in_executor(None, lambda: 6 * 7) == 42
        reader, writer = await asyncio.open_connection(sock=a)
        writer.write(b"ping")
        assert await loop.sock_recv(b, 10) == b"ping"
        await loop.sock_sendall(b, b"pong")
        assert await reader.readexactly(4) == b"pong"
        writer.close()
        await writer.wait_closed()

    async def _note(order, delay):
        await asyncio.sleep(delay)
        order.append(delay)

    try:
        loop.run_until_complete(main())
        loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        loop.close()
    assert time.monotonic() - begin < 10


def test_looptime_end_of_time(kind):
    looptime = pytest.importorskip("looptime")
    loop = looptime.patch_event_loop(make_loop(kind), end=100)
    try:
        with pytest.raises(looptime.LoopTimeoutError):
            loop.run_until_complete(asyncio.sleep(1000))
        assert loop.time() == 100
    finally:
        loop.close()


@pytest.mark.only("uvloop_clone")
def test_mixed_with_asyncios_own_loop(kind):
    """A class between BaseEventLoop and ours overrides what it names, and nothing else."""
    base = class_of(kind)

    class Tool(asyncio.BaseEventLoop):
        def time(self):
            return 5.0

    mixed = type("Mixed", (Tool, base), {})
    loop = mixed()
    try:
        assert loop.time() == 5.0
        assert mixed.call_soon is base.call_soon
        assert mixed.create_server is base.create_server
        assert loop.run_until_complete(asyncio.sleep(0, "ran")) == "ran"
    finally:
        loop.close()
