"""add_signal_handler, remove_signal_handler and Python's own signal handlers."""

import _thread
import asyncio
import contextvars
import os
import signal
import socket
import sys
import threading
import time

import pytest
from support import in_thread, until

pytestmark = pytest.mark.core

var = contextvars.ContextVar("var", default="unset")


@pytest.fixture(autouse=True)
def dispositions():
    """Whatever a test does, signals are handled afterwards as before."""
    numbers = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    wakeup = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(wakeup)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
    assert signal.set_wakeup_fd(wakeup) == wakeup


async def within(future, limit=10):
    return await asyncio.wait_for(future, limit)


def test_a_handler_is_called(loop, run):
    async def main():
        done = loop.create_future()
        loop.add_signal_handler(signal.SIGUSR1, done.set_result, "called")
        os.kill(os.getpid(), signal.SIGUSR1)
        assert await within(done) == "called"
        loop.remove_signal_handler(signal.SIGUSR1)

    run(main())


def test_it_is_called_by_the_loop_not_by_the_signal(loop, run):
    seen = []

    async def main():
        loop.add_signal_handler(signal.SIGUSR1, seen.append, 1)
        signal.raise_signal(signal.SIGUSR1)
        for _ in range(1000):
            pass
        assert seen == []
        await asyncio.sleep(0.02)
        assert seen == [1]
        loop.remove_signal_handler(signal.SIGUSR1)

    run(main())


@pytest.mark.parametrize("count", [0, 1, 3, 5, 8])
def test_arguments(loop, run, count):
    seen = []

    async def main():
        loop.add_signal_handler(signal.SIGUSR1, lambda *args: seen.append(args), *range(count))
        signal.raise_signal(signal.SIGUSR1)
        await asyncio.sleep(0.02)
        loop.remove_signal_handler(signal.SIGUSR1)

    run(main())
    assert seen == [tuple(range(count))]


def test_many_signals_in_order(loop, run):
    seen = []

    async def main():
        for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP):
            loop.add_signal_handler(number, seen.append, number)
        for number in (signal.SIGUSR2, signal.SIGUSR1, signal.SIGHUP, signal.SIGUSR1):
            signal.raise_signal(number)
        await asyncio.sleep(0.02)
        for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP):
            loop.remove_signal_handler(number)

    run(main())
    assert seen == [signal.SIGUSR2, signal.SIGUSR1, signal.SIGHUP, signal.SIGUSR1]


def test_a_storm(loop, run):
    count = []

    async def main():
        loop.add_signal_handler(signal.SIGUSR1, count.append, 1)
        for _ in range(50):
            for _ in range(20):
                signal.raise_signal(signal.SIGUSR1)
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.02)
        loop.remove_signal_handler(signal.SIGUSR1)

    run(main())
    assert len(count) == 1000


def test_a_new_handler_replaces_the_old(loop, run):
    seen = []

    async def main():
        loop.add_signal_handler(signal.SIGUSR1, seen.append, "old")
        loop.add_signal_handler(signal.SIGUSR1, seen.append, "new")
        signal.raise_signal(signal.SIGUSR1)
        await asyncio.sleep(0.02)
        assert loop.remove_signal_handler(signal.SIGUSR1) is True
        assert loop.remove_signal_handler(signal.SIGUSR1) is False

    run(main())
    assert seen == ["new"]


def test_remove_puts_the_default_back(loop):
    loop.add_signal_handler(signal.SIGUSR1, print)
    assert signal.getsignal(signal.SIGUSR1) is not signal.SIG_DFL
    loop.remove_signal_handler(signal.SIGUSR1)
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL


def test_remove_of_sigint_puts_pythons_handler_back(loop):
    loop.add_signal_handler(signal.SIGINT, print)
    assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    assert loop.remove_signal_handler(signal.SIGINT) is True
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_close_removes_the_handlers(loop):
    loop.add_signal_handler(signal.SIGUSR1, print)
    loop.add_signal_handler(signal.SIGINT, print)
    loop.close()
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_remove_of_what_is_not_there(loop):
    assert loop.remove_signal_handler(signal.SIGUSR1) is False


@pytest.mark.parametrize("method", ["add_signal_handler", "remove_signal_handler"])
def test_what_is_no_signal(loop, method):
    args = (print,) if method == "add_signal_handler" else ()
    call = getattr(loop, method)
    with pytest.raises(TypeError, match="sig must be an int, not 'SIGUSR1'"):
        call("SIGUSR1", *args)
    for number in (0, -1, 10_000):
        with pytest.raises(ValueError, match=f"invalid signal number {number}"):
            call(number, *args)


def test_signals_that_cannot_be_caught(loop):
    with pytest.raises(RuntimeError, match=f"sig {signal.SIGKILL:d} cannot be caught"):
        loop.add_signal_handler(signal.SIGKILL, print)
    with pytest.raises(RuntimeError, match=f"sig {signal.SIGSTOP:d} cannot be caught"):
        loop.add_signal_handler(signal.SIGSTOP, print)


def test_coroutines_are_refused(loop):
    async def coroutine_function():
        pass

    with pytest.raises(TypeError, match=r"coroutines cannot be used with add_signal_handler\(\)"):
        loop.add_signal_handler(signal.SIGUSR1, coroutine_function)
    coro = coroutine_function()
    with pytest.raises(TypeError, match=r"coroutines cannot be used with add_signal_handler\(\)"):
        loop.add_signal_handler(signal.SIGUSR1, coro)
    coro.close()
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL


def test_closed_loop(loop):
    loop.close()
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        loop.add_signal_handler(signal.SIGUSR1, print)


def test_from_another_thread(new_loop):
    def work():
        loop = new_loop()
        with pytest.raises((RuntimeError, ValueError)) as info:
            loop.add_signal_handler(signal.SIGUSR1, print)
        loop.close()
        return info.value

    assert isinstance(in_thread(work), RuntimeError)
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL


def test_context_is_that_of_the_registration(loop, run):
    seen = []
    token = var.set("registered")
    loop.add_signal_handler(signal.SIGUSR1, lambda: seen.append(var.get()))
    var.reset(token)

    async def main():
        signal.raise_signal(signal.SIGUSR1)
        await asyncio.sleep(0.02)

    run(main())
    loop.remove_signal_handler(signal.SIGUSR1)
    assert seen == ["registered"]


def test_a_failing_handler_is_reported(loop, run, errors):
    def fail():
        raise ZeroDivisionError

    async def main():
        loop.add_signal_handler(signal.SIGUSR1, fail)
        signal.raise_signal(signal.SIGUSR1)
        await asyncio.sleep(0.02)
        loop.remove_signal_handler(signal.SIGUSR1)

    run(main())
    assert [type(exc) for exc in errors.exceptions] == [ZeroDivisionError]


def test_a_handler_removes_itself(loop, run):
    seen = []

    def once():
        seen.append(loop.remove_signal_handler(signal.SIGUSR1))

    async def main():
        loop.add_signal_handler(signal.SIGUSR1, once)
        signal.raise_signal(signal.SIGUSR1)
        await asyncio.sleep(0.02)

    run(main())
    assert seen == [True]
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL


def test_it_wakes_a_waiting_loop(loop, run):
    async def main():
        done = loop.create_future()
        loop.add_signal_handler(signal.SIGUSR1, done.set_result, None)
        timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGUSR1))
        timer.start()
        begin = time.monotonic()
        await within(done, 20)
        assert time.monotonic() - begin < 5
        timer.join()
        loop.remove_signal_handler(signal.SIGUSR1)

    run(main())


def test_a_signal_while_the_loop_rests_is_handled_at_the_next_run(loop, turns):
    seen = []
    loop.add_signal_handler(signal.SIGUSR1, seen.append, 1)
    signal.raise_signal(signal.SIGUSR1)
    assert seen == []
    turns(3)
    loop.remove_signal_handler(signal.SIGUSR1)
    assert seen == [1]


def test_pythons_own_handler_runs_while_the_loop_waits(loop, run):
    seen = []

    async def main():
        signal.signal(signal.SIGUSR1, lambda number, frame: seen.append(time.monotonic()))
        timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGUSR1))
        begin = time.monotonic()
        timer.start()
        await asyncio.sleep(1.0)
        timer.join()
        assert len(seen) == 1
        # not only at the end of the sleep
        assert seen[0] - begin < 0.9

    run(main())


def test_an_exception_of_pythons_own_handler_leaves_the_loop(loop):
    class Leave(Exception):
        pass

    def handler(number, frame):
        raise Leave

    signal.signal(signal.SIGUSR1, handler)
    timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGUSR1))
    timer.start()
    begin = time.monotonic()
    guard = loop.call_later(20, loop.stop)
    with pytest.raises(Leave):
        loop.run_forever()
    assert time.monotonic() - begin < 10
    timer.join()
    guard.cancel()
    assert not loop.is_running()
    assert loop.run_until_complete(asyncio.sleep(0, "usable")) == "usable"


def test_keyboard_interrupt_while_waiting(loop):
    signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    guard = loop.call_later(20, loop.stop)
    with pytest.raises(KeyboardInterrupt):
        loop.run_forever()
    assert loop.time() < guard.when() - 5
    timer.join()
    guard.cancel()
    assert loop.run_until_complete(asyncio.sleep(0, "usable")) == "usable"


def test_the_wake_up_descriptor_is_given_back(new_loop):
    before = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(before)
    loop = new_loop()
    loop.add_signal_handler(signal.SIGUSR1, print)
    loop.call_soon(loop.stop)
    loop.run_forever()
    loop.remove_signal_handler(signal.SIGUSR1)
    loop.close()
    after = signal.set_wakeup_fd(before)
    assert after == before == -1


def test_a_second_loop_in_another_thread_leaves_the_handlers_alone(loop, run, new_loop):
    def work():
        other = new_loop()
        try:
            return other.run_until_complete(asyncio.sleep(0.01, "done"))
        finally:
            other.close()

    async def main():
        done = loop.create_future()
        loop.add_signal_handler(signal.SIGUSR1, done.set_result, None)
        assert await loop.run_in_executor(None, work) == "done"
        os.kill(os.getpid(), signal.SIGUSR1)
        await within(done)
        loop.remove_signal_handler(signal.SIGUSR1)

    run(main())


def test_two_loops_in_turn_in_the_main_thread(new_loop):
    for _ in range(5):
        loop = new_loop()
        seen = []
        loop.add_signal_handler(signal.SIGUSR1, seen.append, 1)
        signal.raise_signal(signal.SIGUSR1)
        loop.call_later(0.02, loop.stop)
        loop.run_forever()
        loop.close()
        assert seen == [1]


def test_pythons_own_handler_in_the_turn_of_an_exit(loop):
    """It is called without the exception that leaves the run."""
    seen = []
    signal.signal(signal.SIGUSR1, lambda number, frame: seen.append(number))
    loop.call_soon(_thread.interrupt_main, signal.SIGUSR1)
    loop.call_soon(sys.exit, "out")
    with pytest.raises(SystemExit, match="out") as info:
        loop.run_forever()
    assert seen == [signal.SIGUSR1]
    assert info.value.__cause__ is None


def test_a_queued_call_outlasts_its_handler(loop, run):
    """Each signal is handled once, by the old handler or by the new."""
    seen = []

    async def main():
        for pause in range(30):
            loop.add_signal_handler(signal.SIGUSR1, seen.append, "old")
            signal.raise_signal(signal.SIGUSR1)
            for _ in range(pause):
                await asyncio.sleep(0)
            loop.add_signal_handler(signal.SIGUSR1, seen.append, "new")
            await until(lambda pause=pause: len(seen) > pause)
        loop.remove_signal_handler(signal.SIGUSR1)

    run(main())
    assert len(seen) == 30


def test_a_signal_of_one_loop_while_another_runs(loop, new_loop, turns):
    seen = []
    loop.add_signal_handler(signal.SIGUSR1, seen.append, 1)
    other = new_loop()
    other.call_soon(signal.raise_signal, signal.SIGUSR1)
    other.run_until_complete(asyncio.sleep(0.02))
    assert seen == []
    turns(3)
    assert seen == [1]


def test_a_signal_of_one_loop_in_the_last_turn_of_another(loop, new_loop, turns):
    seen = []
    loop.add_signal_handler(signal.SIGUSR1, seen.append, 1)
    other = new_loop()
    other.call_soon(signal.raise_signal, signal.SIGUSR1)
    other.call_soon(other.stop)
    other.run_forever()
    turns(3)
    assert seen == [1]


@pytest.mark.parametrize("change", ["close", "add"])
def test_keyboard_interrupt_after_another_loop_changed_its_handlers(loop, new_loop, change):
    """The wake-up descriptor is the running loop's, whatever others do meanwhile."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    other = new_loop()
    other.add_signal_handler(signal.SIGUSR1, print)
    if change == "close":
        loop.call_soon(other.close)
    else:
        loop.call_soon(other.add_signal_handler, signal.SIGUSR2, print)
    timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    guard = loop.call_later(20, loop.stop)
    with pytest.raises(KeyboardInterrupt):
        loop.run_forever()
    assert loop.time() < guard.when() - 5
    timer.join()
    guard.cancel()
    other.close()


def test_a_descriptor_closed_meanwhile_is_not_given_back(new_loop):
    """Its number may be that of anything by now."""
    first, second = new_loop(), new_loop()
    first.add_signal_handler(signal.SIGUSR1, print)
    first.call_soon(first.stop)
    first.run_forever()
    others = []

    def use_again():
        first.close()
        others.extend(sock for _ in range(8) for sock in socket.socketpair())
        for sock in others:
            sock.setblocking(False)

    second.call_soon(use_again)
    second.call_soon(second.stop)
    second.run_forever()
    after = signal.set_wakeup_fd(-1)
    for sock in others:
        sock.close()
    assert after == -1


def test_a_wake_up_descriptor_set_during_the_run_stays(turns, loop, sockets):
    a, _b = sockets
    loop.call_soon(signal.set_wakeup_fd, a.fileno())
    turns()
    assert signal.set_wakeup_fd(-1) == a.fileno()


@pytest.mark.parametrize("when", ["before", "during"])
def test_a_wake_up_descriptor_that_is_closed_during_the_run(new_loop, sockets, monkeypatch, when):
    """Nothing is reported, and no number of the loop's stays, which another file may get."""
    reports = []
    monkeypatch.setattr(sys, "unraisablehook", reports.append)
    a, _b = sockets
    number = a.fileno()
    loop = new_loop()
    if when == "before":
        signal.set_wakeup_fd(number)
    else:
        loop.call_soon(signal.set_wakeup_fd, number)
    loop.call_soon(a.close)
    loop.call_soon(loop.stop)
    try:
        loop.run_forever()
        loop.close()
    finally:
        found = signal.set_wakeup_fd(-1)
    assert found in (number, -1)
    assert not reports


def test_a_wake_up_descriptor_of_somebody_else_is_served(loop, run, sockets):
    a, b = sockets
    signal.signal(signal.SIGUSR1, lambda number, frame: None)
    signal.set_wakeup_fd(a.fileno())

    async def main():
        signal.raise_signal(signal.SIGUSR1)
        return await loop.sock_recv(b, 10)

    try:
        assert run(main()) == bytes([signal.SIGUSR1])
    finally:
        found = signal.set_wakeup_fd(-1)
    assert found == a.fileno()
