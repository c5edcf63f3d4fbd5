"""Nothing grows: loops and connections by the thousand, and what becomes of single objects."""

import asyncio
import contextvars
import functools
import gc
import os
import signal
import socket
import sys
import warnings
import weakref

import pytest
from support import make_loop, open_fds, tcp_pair

pytestmark = [pytest.mark.leaks, pytest.mark.only("uvloop_clone")]

MEGABYTE = 1 << 20


def resident():
    """This process's memory in bytes, where /proc tells it; else its peak."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except FileNotFoundError:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def measure():
    for _ in range(3):
        gc.collect()
    return len(gc.get_objects()), len(open_fds()), resident()


class Growth:
    """What `work` adds when it is repeated: objects, descriptors, bytes."""

    def __init__(self, work, warm_up, count):
        work(warm_up)
        before = measure()
        work(count)
        after = measure()
        self.objects, self.fds, self.memory = (b - a for a, b in zip(before, after, strict=True))

    def check(self, objects=100, memory=8 * MEGABYTE):
        assert self.fds <= 0, f"{self.fds} descriptors more"
        assert self.objects < objects, f"{self.objects} objects more"
        assert self.memory < memory, f"{self.memory} bytes more"


def test_the_measure_sees_a_leak():
    kept = []

    def work(count):
        kept.extend([i] for i in range(count))

    with pytest.raises(AssertionError, match="objects more"):
        Growth(work, 10, 1000).check()


def test_a_thousand_loops_never_run(kind, new_loop):
    def work(count):
        for _ in range(count):
            new_loop().close()

    Growth(work, 100, 1000).check(objects=1500)  # new_loop keeps a weak reference of each


def test_a_thousand_loops(kind):
    async def main(loop):
        loop.call_later(1000, print)
        loop.call_soon_threadsafe(int)
        await asyncio.sleep(0)
        a, b = socket.socketpair()
        with a, b:
            a.setblocking(False)
            loop.add_reader(b, print)
            loop.remove_reader(b)
            await loop.sock_sendall(a, b"x")
        loop.add_signal_handler(signal.SIGUSR1, print)
        await asyncio.create_task(asyncio.sleep(0.0001))

    def work(count):
        for _ in range(count):
            loop = make_loop(kind)
            loop.run_until_complete(main(loop))
            loop.close()

    Growth(work, 100, 1000).check()


def test_a_thousand_loops_with_an_open_connection(kind):
    """Each loop is closed while a transport is still open."""

    async def main(loop, sock):
        await loop.create_connection(asyncio.Protocol, sock=sock)

    def work(count):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            for i in range(count):
                a, b = socket.socketpair()
                a.setblocking(False)
                loop = make_loop(kind)
                loop.run_until_complete(main(loop, a))
                loop.close()
                b.close()
                if i % 50 == 0:
                    gc.collect()

    Growth(work, 60, 500).check()


def test_ten_thousand_connections(loop):
    class Echo(asyncio.Protocol):
        def connection_made(self, transport):
            self.transport = transport

        def data_received(self, data):
            self.transport.write(data)

    class Client(asyncio.Protocol):
        def __init__(self):
            self.answer = loop.create_future()
            self.lost = loop.create_future()

        def connection_made(self, transport):
            transport.write(b"x")

        def data_received(self, data):
            self.answer.set_result(data)

        def connection_lost(self, exc):
            self.lost.set_result(None)

    async def talk(address):
        transport, protocol = await loop.create_connection(Client, *address)
        assert await protocol.answer == b"x"
        transport.close()
        await protocol.lost

    async def main(count):
        server = await loop.create_server(Echo, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        for _ in range(count // 20):
            await asyncio.gather(*(talk(address) for _ in range(20)))
        await asyncio.sleep(0.05)
        server.close()
        await server.wait_closed()

    Growth(lambda count: loop.run_until_complete(main(count)), 1000, 10_000).check()


def test_callbacks_and_timers_by_the_hundred_thousand(loop):
    async def main(count):
        for _ in range(count // 100):
            for _ in range(100):
                loop.call_soon(int)
                loop.call_later(1000, int).cancel()
                loop.call_later(0, int)
            await asyncio.sleep(0)

    Growth(lambda count: loop.run_until_complete(main(count)), 10_000, 100_000).check()


def test_failing_callbacks(loop, errors):
    def fail():
        raise ZeroDivisionError

    def work(count):
        for _ in range(count):
            loop.call_soon(fail)
        loop.call_soon(loop.stop)
        loop.run_forever()
        assert len(errors) == count
        errors.clear()

    Growth(work, 1000, 5000).check()


def test_socket_calls_and_watchers(loop):
    async def main(count):
        a, b = tcp_pair()
        with a, b:
            for _ in range(count):
                reading = loop.create_task(loop.sock_recv(a, 10))
                await asyncio.sleep(0)
                b.send(b"x")
                await reading
                waiting = loop.create_task(loop.sock_recv(a, 10))
                await asyncio.sleep(0)
                waiting.cancel()
                await asyncio.wait([waiting])
                loop.add_reader(a, print)
                loop.add_writer(a, print)
                loop.remove_reader(a)
                loop.remove_writer(a)

    Growth(lambda count: loop.run_until_complete(main(count)), 500, 5000).check()


def test_hand_overs_from_the_executor(loop):
    async def main(count):
        for _ in range(count // 20):
            await asyncio.gather(*(loop.run_in_executor(None, int) for _ in range(20)))

    loop.run_until_complete(main(200))  # its threads stay
    Growth(lambda count: loop.run_until_complete(main(count)), 500, 5000).check()


# -- single objects, without the help of the garbage collector --------------------------------


class Thing:
    """A callback that can be weakly referenced."""

    def __call__(self, *args):
        return None


@pytest.fixture
def no_gc():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def scheduled(loop, how, thing):
    if how == "call_soon":
        return loop.call_soon(thing)
    if how == "call_soon with arguments":
        return loop.call_soon(int, *[thing] * 6)
    if how == "call_soon_threadsafe":
        return loop.call_soon_threadsafe(thing)
    if how == "call_later":
        return loop.call_later(0, thing)
    return loop.call_at(loop.time() - 1, thing)


HOW = [
    "call_soon",
    "call_soon with arguments",
    "call_soon_threadsafe",
    "call_later",
    "call_at",
]


@pytest.mark.parametrize("how", HOW)
def test_cancelled_handles(loop, turns, no_gc, how):
    thing = Thing()
    refs = [weakref.ref(thing)]
    handle = scheduled(loop, how, thing)
    refs.append(weakref.ref(handle))
    del thing
    handle.cancel()
    assert refs[0]() is None
    del handle
    turns(3)
    assert refs[1]() is None


@pytest.mark.parametrize("how", HOW)
def test_handles_that_never_ran(new_loop, no_gc, how):
    loop = new_loop()
    thing = Thing()
    ref = weakref.ref(thing)
    handle = weakref.ref(scheduled(loop, how, thing))
    del thing
    assert ref() is not None
    loop.close()
    assert ref() is None
    assert handle() is None


@pytest.mark.parametrize("how", [h for h in HOW if h != "call_soon with arguments"])
def test_handles_that_ran(loop, turns, no_gc, how):
    thing = Thing()
    ref = weakref.ref(thing)
    handle = weakref.ref(scheduled(loop, how, thing))
    del thing
    turns(3)
    assert ref() is None
    assert handle() is None


def test_a_kept_handle_that_ran_lets_its_loop_go(new_loop):
    loop = new_loop()
    handle = loop.call_soon(int)
    loop.call_soon(loop.stop)
    loop.run_forever()
    ref = weakref.ref(loop)
    loop.close()
    handle.cancel()
    del loop, handle
    gc.collect()
    assert ref() is None


class Holder:
    """Something that a loop's callbacks keep alive and that keeps the loop alive."""

    def __init__(self, loop):
        self.loop = loop
        self.handle = None

    def call(self):
        pass


HELD = contextvars.ContextVar("HELD")


def held_in_a_context(loop, schedule):
    """A holder that only the context of a callback refers to."""
    holder = Holder(loop)

    def set_and_schedule():
        HELD.set(holder)
        holder.handle = schedule(int)

    contextvars.copy_context().run(set_and_schedule)
    return holder


def dropped_timers(loop):
    holder = Holder(loop)
    for _ in range(5):
        loop.call_later(3600, holder.call)
    return holder


def a_kept_timer(loop):
    holder = Holder(loop)
    holder.handle = loop.call_later(3600, holder.call)
    loop.call_later(3600, int)
    return holder


def a_kept_timer_of_a_loop_that_ran(loop):
    holder = Holder(loop)
    holder.handle = loop.call_later(3600, holder.call)
    loop.call_later(0.001, loop.stop).when()
    loop.run_forever()
    return holder


def dropped_callbacks(loop):
    holder = Holder(loop)
    loop.call_soon(holder.call)
    return holder


def a_sleeping_task(loop):
    holder = Holder(loop)

    async def sleep():
        assert holder.loop is loop
        await asyncio.sleep(3600)

    holder.handle = loop.create_task(sleep())
    loop.run_until_complete(asyncio.sleep(0.001))
    return holder


def a_context_of_a_dropped_callback(loop):
    holder = held_in_a_context(loop, loop.call_soon)
    holder.handle = None
    return holder


def a_context_of_a_kept_timer(loop):
    holder = held_in_a_context(loop, lambda callback: loop.call_later(3600, callback))
    loop.call_later(3600, int)
    return holder


def a_context_that_was_looked_at(loop):
    holder = held_in_a_context(loop, lambda callback: loop.call_later(3600, callback))
    holder.context = holder.handle._context
    loop.call_later(3600, int)
    return holder


def a_context_of_a_cancelled_timer(loop):
    holder = held_in_a_context(loop, lambda callback: loop.call_later(3600, callback))
    holder.handle.cancel()
    loop.run_until_complete(asyncio.sleep(0.001))
    return holder


def a_context_of_a_callback_that_ran(loop):
    holder = held_in_a_context(loop, loop.call_soon)
    loop.run_until_complete(asyncio.sleep(0.001))
    return holder


@pytest.mark.parametrize(
    "make",
    [
        dropped_timers,
        a_kept_timer,
        a_kept_timer_of_a_loop_that_ran,
        dropped_callbacks,
        a_sleeping_task,
        a_context_of_a_dropped_callback,
        a_context_of_a_kept_timer,
        a_context_that_was_looked_at,
        a_context_of_a_cancelled_timer,
        a_context_of_a_callback_that_ran,
    ],
    ids=lambda make: make.__name__,
)
def test_a_forgotten_loop_is_collected(kind, make):
    """What waits in an unclosed loop keeps it alive no longer than the program does."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        loop = make_loop(kind)
        holder = weakref.ref(make(loop))
        gone = weakref.ref(loop)
        del loop
        for _ in range(3):
            gc.collect()
        assert holder() is None
        assert gone() is None


def test_watchers_and_signal_handlers(loop, no_gc):
    a, b = socket.socketpair()
    thing = Thing()
    ref = weakref.ref(thing)
    loop.add_reader(a, thing)
    loop.add_writer(b, thing)
    loop.add_signal_handler(signal.SIGUSR1, thing)
    del thing
    assert ref() is not None
    loop.remove_reader(a)
    loop.remove_writer(b)
    loop.remove_signal_handler(signal.SIGUSR1)
    assert ref() is None
    a.close()
    b.close()


def test_finished_tasks(loop, run, no_gc):
    async def value():
        await asyncio.sleep(0)

    async def main():
        ref = weakref.ref(loop.create_task(value()))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert ref() is None

    run(main())


def test_executors_job(loop, run):
    async def main():
        thing = Thing()
        ref = weakref.ref(thing)
        await loop.run_in_executor(None, functools.partial(thing, 1))
        del thing
        await loop.run_in_executor(None, int)  # the worker lets go of its last job
        await asyncio.sleep(0.01)
        assert ref() is None

    run(main())


def test_written_data(loop, run, no_gc):
    """bytes handed to write() are held until they are sent, and no longer."""

    async def main():
        a, b = tcp_pair()
        transport, _ = await loop.create_connection(asyncio.Protocol, sock=a)
        data = b"x" * (1 << 24)
        before = sys.getrefcount(data)
        transport.write(data)
        received = 0
        while received < 1 << 24:
            received += len(await loop.sock_recv(b, 1 << 20))
        await asyncio.sleep(0.01)
        assert sys.getrefcount(data) == before
        transport.abort()
        await asyncio.sleep(0.01)
        b.close()

    run(main())


def test_reference_counts_of_constants(loop, turns):
    """Common objects are not gained or lost per callback."""
    marks = [object() for _ in range(3)]
    before = [sys.getrefcount(mark) for mark in marks]
    for _ in range(1000):
        loop.call_soon(int.__class__, marks[0])
        loop.call_later(-1, callable, marks[1])
        loop.call_soon(lambda *a, **k: None, *marks)
    turns(3)
    assert [sys.getrefcount(mark) for mark in marks] == before
