"""The moment for which a busy loop polls on before it sleeps: core/lookout.c."""

import asyncio
import os
import signal
import socket
import threading
import time

import pytest

pytestmark = pytest.mark.core

LONG = 20.0  # seconds: whatever comes meanwhile has to be seen, not slept through


@pytest.fixture
def our_loop():
    uvloop_clone = pytest.importorskip("uvloop_clone")
    loop = uvloop_clone.new_event_loop()
    yield loop
    loop.close()


@pytest.fixture
def echo():
    """A socket whose other end a thread answers."""
    mine, other = socket.socketpair()
    mine.setblocking(False)

    def answer():
        while data := other.recv(100):
            other.sendall(data)

    thread = threading.Thread(target=answer)
    thread.start()
    yield mine
    mine.shutdown(socket.SHUT_RDWR)
    thread.join()
    mine.close()
    other.close()


async def exchange(echo, count=300):
    """Answers that come at once, so many that the loop expects the next one."""
    loop = asyncio.get_running_loop()
    for i in range(count):
        await loop.sock_sendall(echo, b"%d" % i)
        assert await loop.sock_recv(echo, 100) == b"%d" % i


async def promptly(awaitable):
    """Its result, which has to come long before a look-out would be over."""
    begin = time.monotonic()
    result = await awaitable
    assert time.monotonic() - begin < LONG / 2
    return result


def test_default_and_limits(our_loop):
    assert our_loop.busy_poll_duration == 20e-6
    our_loop.busy_poll_duration = 0
    assert our_loop.busy_poll_duration == 0.0
    with pytest.raises(TypeError):
        our_loop.busy_poll_duration = "long"


@pytest.mark.parametrize("duration", [0, 20e-6, LONG, -1.0, float("nan")])
def test_answers_arrive(our_loop, echo, duration):
    our_loop.busy_poll_duration = duration
    our_loop.run_until_complete(exchange(echo))


def test_a_timer_is_seen(our_loop, echo):
    our_loop.busy_poll_duration = LONG

    async def main():
        await exchange(echo)
        await promptly(asyncio.sleep(0.05))

    our_loop.run_until_complete(main())


def test_another_thread_is_seen(our_loop, echo):
    our_loop.busy_poll_duration = LONG

    async def main():
        await exchange(echo)
        called = our_loop.create_future()
        threading.Timer(0.05, our_loop.call_soon_threadsafe, (called.set_result, 5)).start()
        assert await promptly(called) == 5

    our_loop.run_until_complete(main())


def test_a_signal_is_seen(our_loop, echo):
    our_loop.busy_poll_duration = LONG

    async def main():
        await exchange(echo)
        caught = our_loop.create_future()
        our_loop.add_signal_handler(signal.SIGUSR1, caught.set_result, 5)
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1)).start()
        assert await promptly(caught) == 5

    our_loop.run_until_complete(main())


def test_other_threads_have_the_gil_meanwhile(our_loop, echo):
    our_loop.busy_poll_duration = LONG

    async def main():
        await exchange(echo)
        counted = our_loop.create_future()

        def count():
            begin = time.monotonic()
            for _ in range(100):
                time.sleep(0.0001)  # asks for the GIL anew each time
            our_loop.call_soon_threadsafe(counted.set_result, time.monotonic() - begin)

        threading.Thread(target=count).start()
        assert await counted < LONG / 2

    our_loop.run_until_complete(main())


def test_an_idle_loop_sleeps(our_loop, echo):
    our_loop.busy_poll_duration = 0.002

    async def main():
        await exchange(echo)
        for _ in range(10):
            await asyncio.sleep(0.005)  # nothing comes: it stops to expect anything
        before = time.process_time()
        for _ in range(100):
            await asyncio.sleep(0.005)
        assert time.process_time() - before < 0.15  # of 0.5, and of 0.2 if it polled each time

    our_loop.run_until_complete(main())
