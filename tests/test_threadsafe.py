"""call_soon_threadsafe: from threads and signal handlers, order, wake-up, stress."""

import asyncio
import contextvars
import signal
import threading
import time

import pytest
from support import in_thread

pytestmark = pytest.mark.core

var = contextvars.ContextVar("var", default="unset")


def test_wakes_a_sleeping_loop(loop):
    timer = threading.Timer(0.1, loop.call_soon_threadsafe, args=(loop.stop,))
    guard = loop.call_later(30, loop.stop)
    timer.start()
    begin = time.monotonic()
    loop.run_forever()
    timer.join()
    guard.cancel()
    assert time.monotonic() - begin < 10


def test_runs_in_the_loops_thread(loop, run):
    async def main():
        done = loop.create_future()
        in_thread(loop.call_soon_threadsafe, lambda: done.set_result(threading.get_ident()))
        assert await done == threading.get_ident()

    run(main())


def test_order_of_one_thread_is_kept(loop, run):
    seen = []

    async def main():
        done = loop.create_future()

        def fill():
            for i in range(5000):
                loop.call_soon_threadsafe(seen.append, i)
            loop.call_soon_threadsafe(done.set_result, None)

        thread = threading.Thread(target=fill)
        thread.start()
        await done
        thread.join()

    run(main())
    assert seen == list(range(5000))


def test_mixed_order_in_the_loops_own_thread(loop, turns):
    """In one thread the two methods share one queue."""
    seen = []
    for i in range(10):
        (loop.call_soon_threadsafe if i % 2 else loop.call_soon)(seen.append, i)
    turns(2)
    assert seen == list(range(10))


def test_returns_a_handle_that_cancels(loop, run):
    seen = []

    async def main():
        handle = in_thread(loop.call_soon_threadsafe, seen.append, "cancelled")
        assert isinstance(handle, asyncio.Handle)
        handle.cancel()
        in_thread(loop.call_soon_threadsafe, seen.append, "kept")
        await asyncio.sleep(0.02)

    run(main())
    assert seen == ["kept"]


def test_while_the_loop_rests(loop, turns):
    """What was handed over before the loop starts runs in its first turn."""
    seen = []
    in_thread(loop.call_soon_threadsafe, seen.append, 1)
    assert seen == []
    turns()
    assert seen == [1]


def test_arguments_and_context(loop, run):
    seen = []
    context = contextvars.copy_context()
    context.run(var.set, "given")

    async def main():
        done = loop.create_future()

        def record(*args):
            seen.append((args, var.get()))
            done.set_result(None)

        def hand_over():
            loop.call_soon_threadsafe(record, 1, 2, 3, 4, 5, 6, context=context)

        in_thread(hand_over)
        await done

    run(main())
    assert seen == [((1, 2, 3, 4, 5, 6), "given")]


def test_the_calling_threads_context_is_copied(loop, run):
    seen = []

    async def main():
        done = loop.create_future()

        def record():
            seen.append(var.get())
            done.set_result(None)

        def hand_over():
            var.set("of the thread")
            loop.call_soon_threadsafe(record)

        in_thread(hand_over)
        await done

    run(main())
    assert seen == ["of the thread"]


def test_closed_loop(loop):
    loop.close()
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        loop.call_soon_threadsafe(print)
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        in_thread(loop.call_soon_threadsafe, print)


def test_debug_mode_allows_other_threads(loop, run):
    seen = []

    async def main():
        loop.set_debug(True)
        in_thread(loop.call_soon_threadsafe, seen.append, 1)
        await asyncio.sleep(0.01)

    run(main())
    assert seen == [1]


def test_wake_up_takes_no_time_worth_naming(loop, run):
    """The best of many hand-overs to a waiting loop; a loop that polls would need milliseconds."""

    async def main():
        best = 1.0
        for _ in range(50):
            done = loop.create_future()
            sent = []

            def hand_over(done=done, sent=sent):
                time.sleep(0.003)
                sent.append(time.monotonic())
                loop.call_soon_threadsafe(done.set_result, None)

            thread = threading.Thread(target=hand_over)
            thread.start()
            await done
            best = min(best, time.monotonic() - sent[0])
            thread.join()
        assert best < 0.005

    run(main())


def test_many_threads(loop, run):
    threads, each = 8, 2000
    seen = []

    async def main():
        done = loop.create_future()

        def record(item):
            seen.append(item)
            if len(seen) == threads * each:
                done.set_result(None)

        def fill(number):
            for i in range(each):
                loop.call_soon_threadsafe(record, (number, i))

        workers = [threading.Thread(target=fill, args=(n,)) for n in range(threads)]
        for worker in workers:
            worker.start()
        await done
        for worker in workers:
            worker.join()

    run(main(), limit=60)
    for number in range(threads):
        assert [i for n, i in seen if n == number] == list(range(each))


def test_threads_race_with_close(new_loop):
    """A hand-over either gets in or is refused; the refusal is RuntimeError."""
    for _ in range(20):
        loop = new_loop()
        refused = []
        ready = threading.Barrier(3)

        def hammer(loop=loop, ready=ready, refused=refused):
            ready.wait()
            for _ in range(1_000_000):
                try:
                    loop.call_soon_threadsafe(int)
                except RuntimeError as exc:
                    refused.append(str(exc))
                    return

        workers = [threading.Thread(target=hammer) for _ in range(2)]
        for worker in workers:
            worker.start()
        ready.wait()
        loop.call_later(0.005, loop.stop)
        loop.run_forever()
        loop.close()
        for worker in workers:
            worker.join(30)
        assert refused == ["Event loop is closed"] * 2


def test_ping_pong_between_two_loops(new_loop):
    """Two loops in two threads hand a counter back and forth."""
    first, second = new_loop(), new_loop()
    rounds = 500

    def bounce(count, here, there):
        if count == 0:
            there.call_soon_threadsafe(there.stop)
            here.stop()
        else:
            there.call_soon_threadsafe(bounce, count - 1, there, here)

    thread = threading.Thread(target=second.run_forever)
    thread.start()
    first.call_soon(bounce, rounds, first, second)
    guard = first.call_later(30, first.stop)
    first.run_forever()
    thread.join(30)
    assert not thread.is_alive()
    assert first.time() < guard.when()
    first.close()
    second.close()


def test_from_a_signal_handler(loop, run):
    """A Python-level handler runs while the loop waits, and may call into the loop."""
    seen = []

    async def main():
        done = loop.create_future()

        def handler(signum, frame):
            loop.call_soon_threadsafe(done.set_result, signum)
            seen.append("handler")

        before = signal.signal(signal.SIGUSR1, handler)
        timer = threading.Timer(0.1, signal.raise_signal, args=(signal.SIGUSR1,))
        # a handler of our own keeps the wake-up descriptor in force on every loop
        loop.add_signal_handler(signal.SIGUSR2, print)
        try:
            timer.start()
            assert await asyncio.wait_for(done, 10) == signal.SIGUSR1
        finally:
            timer.join()
            loop.remove_signal_handler(signal.SIGUSR2)
            signal.signal(signal.SIGUSR1, before)

    run(main())
    assert seen == ["handler"]


def test_run_coroutine_threadsafe(loop, run):
    async def double(x):
        await asyncio.sleep(0)
        return 2 * x

    async def fail():
        raise KeyError("x")

    async def main():
        def ask():
            assert asyncio.run_coroutine_threadsafe(double(21), loop).result(10) == 42
            with pytest.raises(KeyError):
                asyncio.run_coroutine_threadsafe(fail(), loop).result(10)

        await loop.run_in_executor(None, ask)

    run(main())
