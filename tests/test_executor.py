"""run_in_executor, the default executor and its shutdown."""

import asyncio
import concurrent.futures
import contextvars
import multiprocessing
import os
import pickle
import sys
import threading
import time
from multiprocessing import forkserver, resource_tracker

import pytest
from support import run_script

var = contextvars.ContextVar("var", default="unset")

only_warned_in_3_10 = pytest.mark.skipif(
    sys.version_info < (3, 11), reason="3.10 deprecates other executors and takes them"
)


def double(x):
    return 2 * x


def pid_and_double(x):
    return os.getpid(), 2 * x


def test_result(loop, run):
    async def main():
        assert await loop.run_in_executor(None, double, 21) == 42

    run(main())


def test_runs_in_another_thread(loop, run):
    async def main():
        there = await loop.run_in_executor(None, threading.get_ident)
        assert there != threading.get_ident()

    run(main())


def test_name_of_the_default_executors_threads(loop, run):
    async def main():
        name = await loop.run_in_executor(None, lambda: threading.current_thread().name)
        assert name.startswith("asyncio_")

    run(main())


def test_returns_a_future(loop, run):
    async def main():
        future = loop.run_in_executor(None, double, 1)
        assert asyncio.isfuture(future)
        assert future.get_loop() is loop
        assert await future == 2

    run(main())


def test_exception(loop, run):
    def fail():
        raise KeyError("from the thread")

    async def main():
        with pytest.raises(KeyError, match="from the thread"):
            await loop.run_in_executor(None, fail)

    run(main())


def test_the_loop_is_free_meanwhile(loop, run):
    async def main():
        ticks = 0
        future = loop.run_in_executor(None, time.sleep, 0.1)
        while not future.done():
            await asyncio.sleep(0.001)
            ticks += 1
        assert ticks > 5

    run(main())


def test_a_given_executor(loop, run):
    async def main():
        with concurrent.futures.ThreadPoolExecutor(1, "mine") as pool:
            name = await loop.run_in_executor(pool, lambda: threading.current_thread().name)
        assert name.startswith("mine")

    run(main())


def test_a_default_executor_of_the_user(loop, run):
    pool = concurrent.futures.ThreadPoolExecutor(1, "mine")
    loop.set_default_executor(pool)

    async def main():
        name = await loop.run_in_executor(None, lambda: threading.current_thread().name)
        assert name.startswith("mine")
        assert await asyncio.to_thread(double, 4) == 8

    run(main())


@only_warned_in_3_10
@pytest.mark.parametrize("value", [None, 1, object()])
def test_a_default_executor_of_the_wrong_type(loop, value):
    with pytest.raises(TypeError, match="executor must be ThreadPoolExecutor instance"):
        loop.set_default_executor(value)


@pytest.fixture(scope="module", autouse=True)
def process_helpers():
    """What multiprocessing starts once and keeps: its pipes are not left by the tests."""
    resource_tracker.ensure_running()
    if multiprocessing.get_start_method() == "forkserver":
        forkserver.ensure_running()


@only_warned_in_3_10
def test_a_process_pool_cannot_be_the_default(loop):
    with concurrent.futures.ProcessPoolExecutor(1) as pool:
        with pytest.raises(TypeError, match="executor must be ThreadPoolExecutor instance"):
            loop.set_default_executor(pool)


def test_processes(loop, run):
    async def main():
        with concurrent.futures.ProcessPoolExecutor(2) as pool:
            results = await asyncio.gather(
                *(loop.run_in_executor(pool, pid_and_double, i) for i in range(5))
            )
        assert [value for _, value in results] == [0, 2, 4, 6, 8]
        assert os.getpid() not in {pid for pid, _ in results}

    run(main(), limit=60)


def test_many_jobs(loop, run):
    async def main():
        jobs = [loop.run_in_executor(None, double, i) for i in range(500)]
        assert await asyncio.gather(*jobs) == [2 * i for i in range(500)]

    run(main())


def test_cancel_of_a_job_that_waits(loop, run):
    async def main():
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            gate = threading.Event()
            seen = []
            first = loop.run_in_executor(pool, gate.wait, 10)
            second = loop.run_in_executor(pool, seen.append, 1)
            second.cancel()
            with pytest.raises(asyncio.CancelledError):
                await second
            await asyncio.sleep(0.01)
            gate.set()
            assert await first is True
        assert seen == []

    run(main())


def test_cancel_of_a_running_job_leaves_the_loop_sound(loop, run):
    async def main():
        gate = threading.Event()
        future = loop.run_in_executor(None, gate.wait, 10)
        await asyncio.sleep(0.05)
        future.cancel()
        with pytest.raises(asyncio.CancelledError):
            await future
        gate.set()
        assert await loop.run_in_executor(None, double, 3) == 6

    run(main())


def test_context_is_not_carried_by_run_in_executor_but_by_to_thread(loop, run):
    async def main():
        var.set("set")
        assert await loop.run_in_executor(None, var.get) == "unset"
        assert await asyncio.to_thread(var.get) == "set"

    run(main())


def test_debug_mode_refuses_coroutines(loop, run):
    async def coroutine_function():
        pass

    async def main():
        loop.set_debug(True)
        with pytest.raises(TypeError, match="coroutines cannot be used with run_in_executor"):
            await loop.run_in_executor(None, coroutine_function)
        with pytest.raises(TypeError, match="a callable object was expected by run_in_executor"):
            await loop.run_in_executor(None, 5)

    run(main())


def test_closed_loop(loop):
    loop.close()
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        loop.run_in_executor(None, double, 1)


def test_shutdown_waits_for_the_threads(loop, run):
    done = []

    def work():
        time.sleep(0.1)
        done.append(1)

    async def main():
        loop.run_in_executor(None, work)
        await loop.shutdown_default_executor()
        assert done == [1]

    run(main())


def test_no_job_after_the_shutdown(loop, run):
    async def main():
        await loop.run_in_executor(None, double, 1)
        await loop.shutdown_default_executor()
        with pytest.raises(RuntimeError, match="Executor shutdown has been called"):
            loop.run_in_executor(None, double, 1)

    run(main())


def test_shutdown_with_no_executor(loop, run):
    run(loop.shutdown_default_executor())


@pytest.mark.skipif(sys.version_info < (3, 12), reason="timeout= is new in 3.12")
def test_shutdown_with_a_timeout(loop, run, kind):
    if kind == "asyncio" and sys.version_info < (3, 13):
        pytest.skip("early releases of 3.12 wait for the threads whatever the timeout")
    gate = threading.Event()

    async def main():
        loop.run_in_executor(None, gate.wait, 20)
        await asyncio.sleep(0.02)
        begin = time.monotonic()
        with pytest.warns(RuntimeWarning, match="The executor did not finish"):
            await loop.shutdown_default_executor(timeout=0.1)
        assert time.monotonic() - begin < 10
        gate.set()

    run(main())


def test_close_does_not_wait_for_the_threads(new_loop):
    loop = new_loop()
    gate = threading.Event()
    loop.run_in_executor(None, gate.wait, 20)
    begin = time.monotonic()
    loop.close()
    assert time.monotonic() - begin < 10
    gate.set()


def test_a_job_that_ends_after_the_close_does_no_harm(new_loop):
    loop = new_loop()
    gate, ended = threading.Event(), threading.Event()

    def work():
        gate.wait(20)
        ended.set()

    async def main():
        loop.run_in_executor(None, work)

    loop.run_until_complete(main())
    loop.close()
    gate.set()
    assert ended.wait(20)


def test_numbers_of_threads_at_once(loop, run):
    barrier = threading.Barrier(3)

    async def main():
        jobs = [loop.run_in_executor(None, barrier.wait, 20) for _ in range(3)]
        assert sorted(await asyncio.gather(*jobs)) == [0, 1, 2]

    run(main())


def test_to_thread_from_asyncio_run_style_code(loop, run):
    async def main():
        results = await asyncio.gather(*(asyncio.to_thread(double, i) for i in range(20)))
        assert results == [2 * i for i in range(20)]

    run(main())


def test_one_thread_serves_jobs_one_after_the_other(loop, run):
    async def main():
        threads = set()
        for _ in range(50):
            threads.add(await loop.run_in_executor(None, threading.get_ident))
            await asyncio.sleep(0.001)
        assert len(threads) <= 2  # a second one where the first was not idle yet, six without reuse

    run(main())


def test_the_default_executor_is_a_pool_of_its_own_right(loop, run):
    """Whoever finds it may use it as any ThreadPoolExecutor, beside the loop."""

    async def main():
        await loop.run_in_executor(None, double, 1)
        pool = loop._default_executor
        assert isinstance(pool, concurrent.futures.ThreadPoolExecutor)
        future = pool.submit(double, 21)
        jobs = [loop.run_in_executor(None, double, i) for i in range(20)]
        assert await asyncio.wrap_future(future) == 42
        assert await asyncio.gather(*jobs) == [2 * i for i in range(20)]
        assert list(pool.map(double, range(3))) == [0, 2, 4]

    run(main())


def test_dropping_the_queue_cancels_what_waits(loop, run):
    async def main():
        gate = threading.Event()
        started = threading.Event()
        pool_size = min(32, (os.cpu_count() or 1) + 4)

        def block():
            started.set()
            gate.wait(10)
            return "ran"

        jobs = [loop.run_in_executor(None, block) for _ in range(pool_size + 10)]
        started.wait(10)
        await asyncio.sleep(0.05)
        loop._default_executor.shutdown(wait=False, cancel_futures=True)
        gate.set()
        outcomes = await asyncio.gather(*jobs, return_exceptions=True)
        ran = outcomes.count("ran")
        assert 1 <= ran <= pool_size
        assert all(isinstance(o, asyncio.CancelledError) for o in outcomes if o != "ran")
        assert len(outcomes) - ran >= 10

    run(main())


def test_an_instrumented_pool_sees_the_jobs(loop, run, monkeypatch):
    """Tracing tools wrap ThreadPoolExecutor.submit()."""
    submit = concurrent.futures.ThreadPoolExecutor.submit
    seen = []

    def traced(self, func, /, *args, **kwargs):
        seen.append(func)
        return submit(self, func, *args, **kwargs)

    monkeypatch.setattr(concurrent.futures.ThreadPoolExecutor, "submit", traced)

    async def main():
        assert await loop.run_in_executor(None, double, 21) == 42

    run(main())
    assert len(seen) == 1


def test_a_job_after_the_pool_was_shut_down_by_hand(loop, run):
    async def main():
        await loop.run_in_executor(None, double, 1)
        loop._default_executor.shutdown()
        with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
            await loop.run_in_executor(None, double, 1)

    run(main())


def test_the_pool_goes_on_after_failures(loop, run):
    async def main():
        for _ in range(10):
            with pytest.raises(ZeroDivisionError):
                await loop.run_in_executor(None, divmod, 1, 0)
        assert await loop.run_in_executor(None, double, 2) == 4

    run(main())


def settle_in(loop, calls=100):
    """Short calls that follow each other at once: both sides begin to look out for the other."""

    async def main():
        for i in range(calls):
            assert await loop.run_in_executor(None, double, i) == 2 * i

    return main()


def test_short_jobs_then_long_ones_then_none(loop, run):
    async def main():
        await settle_in(loop)
        for _ in range(20):  # so the outcome is not near: all sides sleep as ever
            await loop.run_in_executor(None, time.sleep, 0.005)
        before = time.process_time()
        await asyncio.gather(*[loop.run_in_executor(None, time.sleep, 0.3) for _ in range(3)])
        await asyncio.sleep(0.2)
        assert time.process_time() - before < 0.1
        await settle_in(loop)

    run(main())


def test_looking_out_for_an_outcome_holds_up_neither_timers_nor_sockets(loop, run, pair):
    a, b = pair()

    async def main():
        await settle_in(loop)
        answered = threading.Event()
        job = loop.run_in_executor(None, answered.wait, 20)  # short ones were expected
        loop.call_later(0.001, b.send, b"from the timer")
        assert await loop.sock_recv(a, 100) == b"from the timer"
        assert not job.done()
        answered.set()
        assert await job is True

    run(main())


@pytest.mark.only("uvloop_clone")
def test_a_long_job_after_short_ones_is_not_polled_for(loop, run):
    loop.busy_poll_duration = 0.005

    async def main():
        await settle_in(loop)
        job = loop.run_in_executor(None, time.sleep, 1.0)
        for _ in range(10):
            await asyncio.sleep(0.006)  # the loop expects an outcome, and stops to
        before = time.process_time()
        for _ in range(100):
            await asyncio.sleep(0.006)
        assert time.process_time() - before < 0.25  # of 0.6; polled for, it would be 0.5
        await job

    run(main())


@pytest.mark.only("uvloop_clone")
def test_cancelled_and_dropped_jobs_are_no_longer_outstanding(loop, run):
    async def main():
        await settle_in(loop)
        go_on = threading.Event()
        count = 2 * (os.cpu_count() or 1) + 40  # more than there are threads
        jobs = [loop.run_in_executor(None, go_on.wait, 20) for _ in range(count)]
        assert loop._handoff().outstanding == count
        for job in jobs[count // 2 :]:
            job.cancel()
        go_on.set()
        await asyncio.gather(*jobs, return_exceptions=True)
        await settle_in(loop)
        assert loop._handoff().outstanding == 0

    run(main())


def test_jobs_from_jobs_and_from_other_threads(loop, run):
    async def main():
        await settle_in(loop)

        def from_a_thread(depth):
            if depth == 0:
                return 1
            job = asyncio.run_coroutine_threadsafe(
                asyncio.to_thread(from_a_thread, depth - 1), loop
            )
            return 1 + job.result(20)

        found = await asyncio.gather(*[asyncio.to_thread(from_a_thread, 1) for _ in range(2)])
        assert found == [2, 2]

    run(main())


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity here")
def test_on_a_single_cpu(kind):
    child = run_script(
        kind,
        """
        import asyncio, os

        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        loop = make_loop(KIND)

        async def main():
            return sum([await loop.run_in_executor(None, int, "1") for _ in range(300)])

        print(loop.run_until_complete(main()))
        loop.close()
        """,
    )
    assert (child.stdout, child.stderr) == ("300\n", "")


class Elsewhere(concurrent.futures.ThreadPoolExecutor):
    """Sends its calls away, as 3.14's InterpreterPoolExecutor does, and looks at what comes."""

    def __init__(self):
        super().__init__(1)
        self.seen = []
        self.outcomes = []

    def submit(self, fn, /, *args, **kwargs):
        self.seen.append((fn, args, kwargs))
        data = pickle.dumps((fn, args))

        def there():
            function, args = pickle.loads(data)
            return [function(*args)]

        future = super().submit(there)
        future.add_done_callback(lambda future: self.outcomes.append(future.exception()))
        future.add_done_callback(lambda future: self.outcomes.append(future.result()))
        return future


def test_a_pool_with_a_submit_of_its_own_sees_the_call(loop, run):
    with Elsewhere() as pool:
        assert run(loop.run_in_executor(pool, double, 4)) == [8]
    assert pool.seen == [(double, (4,), {})]
    assert pool.outcomes == [None, [8]]


def test_it_may_be_the_default_one(loop, run):
    loop.set_default_executor(pool := Elsewhere())
    assert run(loop.run_in_executor(None, double, 4)) == [8]
    assert pool.seen == [(double, (4,), {})]


def test_the_future_of_such_a_pool_tells_the_failure(loop, run):
    class Mine(concurrent.futures.ThreadPoolExecutor):
        def submit(self, fn, /, *args, **kwargs):
            future = super().submit(fn, *args, **kwargs)
            future.add_done_callback(lambda future: failures.append(future.exception()))
            return future

    failures = []
    with Mine(1) as pool:
        with pytest.raises(ZeroDivisionError) as info:
            run(loop.run_in_executor(pool, divmod, 1, 0))
    assert failures == [info.value]


def test_a_pool_may_try_a_call_again(kind):
    child = run_script(
        kind,
        """
        import concurrent.futures

        class Twice(concurrent.futures.ThreadPoolExecutor):
            def submit(self, fn, /, *args, **kwargs):
                return super().submit(lambda: [fn(*args, **kwargs) for _ in range(2)])

        loop = make_loop(KIND)
        with Twice(1) as pool:
            for _ in range(20):
                result = loop.run_until_complete(loop.run_in_executor(pool, str, 1))
        loop.close()
        print(result)
        """,
    )
    assert (child.returncode, child.stdout, child.stderr) == (0, "['1', '1']\n", "")


@pytest.mark.parametrize("where", ["class", "instance", "subclass"])
def test_a_submit_patched_onto_the_default_pool_sees_the_call(loop, run, monkeypatch, where):
    submit = concurrent.futures.ThreadPoolExecutor.submit
    seen = []

    async def main():
        await loop.run_in_executor(None, double, 0)
        pool = loop._default_executor

        def traced(*args, **kwargs):
            *this, func, argument = args
            seen.append((func, argument))
            return submit(pool, func, argument, **kwargs)

        patched = {
            "class": concurrent.futures.ThreadPoolExecutor,
            "instance": pool,
            "subclass": type(pool),
        }
        monkeypatch.setattr(patched[where], "submit", traced)
        assert await loop.run_in_executor(None, double, 21) == 42

    run(main())
    assert seen == [(double, 21)]


@pytest.mark.skipif(
    not hasattr(concurrent.futures, "InterpreterPoolExecutor"), reason="new in 3.14"
)
def test_a_pool_of_interpreters(kind):
    child = run_script(
        kind,
        """
        import concurrent.futures

        loop = make_loop(KIND)
        with concurrent.futures.InterpreterPoolExecutor(1) as pool:
            print(loop.run_until_complete(loop.run_in_executor(pool, abs, -4)))
        loop.close()
        """,
    )
    assert (child.returncode, child.stdout, child.stderr) == (0, "4\n", "")


def test_a_call_that_raises_cancelled_error(loop, run):
    def fail():
        raise concurrent.futures.CancelledError("why")

    async def main():
        future = loop.run_in_executor(None, fail)
        with pytest.raises(asyncio.CancelledError, match="why"):
            await future
        assert not future.cancelled()

    run(main())


def test_an_invalid_state_becomes_asyncios(loop, run):
    def fail():
        raise concurrent.futures.InvalidStateError("twice")

    async def main():
        with pytest.raises(asyncio.InvalidStateError, match="twice"):
            await loop.run_in_executor(None, fail)

    run(main())
