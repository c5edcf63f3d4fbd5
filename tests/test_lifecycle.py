"""run_forever, run_until_complete, stop, close and the questions about them."""

import asyncio
import errno
import os
import shutil
import subprocess
import sys
import threading
import time
import weakref

import pytest
from support import KINDS, attach, in_thread, run_script

pytestmark = pytest.mark.core

# 3.13.0's own loop ends its run when it refuses a second one
forgets_that_it_runs = pytest.mark.only(
    *(["uvloop_clone"] if sys.version_info[:3] == (3, 13, 0) else KINDS)
)


async def value_of(x):
    await asyncio.sleep(0)
    return x


def test_states(loop):
    seen = []
    assert loop.is_running() is False and loop.is_closed() is False
    loop.call_soon(lambda: seen.append((loop.is_running(), loop.is_closed())))
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert seen == [(True, False)]
    assert loop.is_running() is False and loop.is_closed() is False
    loop.close()
    assert loop.is_running() is False and loop.is_closed() is True


def test_the_result_of_a_coroutine(loop):
    assert loop.run_until_complete(value_of(42)) == 42


def test_the_result_of_a_future(loop):
    future = loop.create_future()
    loop.call_soon(future.set_result, "result")
    assert loop.run_until_complete(future) == "result"


def test_the_result_of_a_task(loop):
    task = loop.create_task(value_of(1))
    assert loop.run_until_complete(task) == 1


def test_a_future_that_is_done_already(loop):
    future = loop.create_future()
    future.set_result(5)
    assert loop.run_until_complete(future) == 5


def test_the_result_of_any_awaitable(loop):
    class Awaitable:
        def __await__(self):
            return (yield from value_of(7).__await__())

    assert loop.run_until_complete(Awaitable()) == 7


def test_an_exception_comes_out(loop):
    async def fail():
        await asyncio.sleep(0)
        raise KeyError("x")

    with pytest.raises(KeyError):
        loop.run_until_complete(fail())
    assert loop.run_until_complete(value_of(1)) == 1


def test_a_cancelled_task_comes_out(loop):
    async def cancelled():
        asyncio.current_task().cancel()
        await asyncio.sleep(0)

    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(cancelled())


@pytest.mark.parametrize("thing", [None, 1, "text", lambda: None, value_of])
def test_what_cannot_be_awaited(loop, thing):
    with pytest.raises(TypeError):
        loop.run_until_complete(thing)
    assert not loop.is_running()


def test_a_future_of_another_loop(loop, new_loop):
    future = new_loop().create_future()
    with pytest.raises(ValueError):
        loop.run_until_complete(future)
    assert not loop.is_running()


def test_stopped_before_the_future_is_done(loop):
    future = loop.create_future()
    loop.call_soon(loop.stop)
    with pytest.raises(RuntimeError, match="Event loop stopped before Future completed"):
        loop.run_until_complete(future)


def test_run_until_complete_leaves_no_callback_on_the_future(loop):
    future = loop.create_future()
    loop.call_soon(loop.stop)
    with pytest.raises(RuntimeError):
        loop.run_until_complete(future)
    seen = []
    future.set_result(None)
    loop.call_soon(loop.call_soon, seen.append, 1)
    loop.call_soon(loop.call_soon, loop.call_soon, loop.stop)
    loop.run_forever()
    assert seen == [1]


def test_stop_before_the_run_ends_it_after_one_turn(loop):
    seen = []
    loop.stop()
    loop.call_soon(seen.append, 1)
    loop.call_soon(lambda: loop.call_soon(seen.append, 2))
    loop.run_forever()
    assert seen == [1]
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert seen == [1, 2]


def test_stop_is_forgotten_after_the_run(loop):
    loop.stop()
    loop.run_forever()
    begin = time.monotonic()
    loop.call_later(0.02, loop.stop)
    loop.run_forever()
    assert time.monotonic() - begin >= 0.019


def test_stop_does_not_wait_for_timers(loop):
    seen = []
    handle = loop.call_later(30, seen.append, 1)
    loop.call_soon(loop.stop)
    begin = time.monotonic()
    loop.run_forever()
    handle.cancel()
    assert seen == [] and time.monotonic() - begin < 20


def test_run_until_complete_stops_in_the_turn_of_the_result(loop):
    """Callbacks of the future's own turn run; those scheduled by them wait for the next run."""
    seen = []

    async def main():
        loop.call_soon(seen.append, "during")
        loop.call_later(30, seen.append, "never").cancel()

    loop.run_until_complete(main())
    assert seen == ["during"]


def test_it_can_run_many_times(loop):
    for i in range(300):
        assert loop.run_until_complete(value_of(i)) == i


@forgets_that_it_runs
def test_run_while_running(loop):
    async def main():
        with pytest.raises(RuntimeError, match="This event loop is already running"):
            loop.run_forever()
        coro = value_of(1)
        with pytest.raises(RuntimeError, match="This event loop is already running"):
            loop.run_until_complete(coro)
        coro.close()
        assert loop.is_running()
        assert asyncio.get_running_loop() is loop
        return "done"

    assert loop.run_until_complete(main()) == "done"
    assert not loop.is_running()


@forgets_that_it_runs
def test_run_while_another_loop_runs(loop, new_loop):
    other = new_loop()

    async def main():
        with pytest.raises(RuntimeError, match="Cannot run the event loop while another loop is"):
            other.run_forever()
        coro = value_of(1)
        with pytest.raises(RuntimeError, match="Cannot run the event loop while another loop is"):
            other.run_until_complete(coro)
        coro.close()
        assert not other.is_running()
        assert asyncio.get_running_loop() is loop

    loop.run_until_complete(main())


def test_run_in_another_thread_while_running(loop):
    async def main():
        def try_it():
            with pytest.raises(RuntimeError, match="This event loop is already running"):
                loop.run_forever()

        in_thread(try_it)

    loop.run_until_complete(main())


def test_run_when_closed(loop):
    loop.close()
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        loop.run_forever()
    coro = value_of(1)
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        loop.run_until_complete(coro)
    coro.close()


def test_no_running_loop_outside(loop):
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()
    loop.run_until_complete(value_of(1))
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()


def test_close_twice(loop):
    loop.close()
    loop.close()
    assert loop.is_closed()


def test_close_while_running(loop):
    async def main():
        with pytest.raises(RuntimeError, match="Cannot close a running event loop"):
            loop.close()
        assert not loop.is_closed()
        await asyncio.sleep(0)

    loop.run_until_complete(main())


def test_close_drops_what_is_queued(loop):
    class Thing:
        def __call__(self):
            raise AssertionError

    thing = Thing()
    ref = weakref.ref(thing)
    loop.call_soon(thing)
    del thing
    loop.close()
    assert ref() is None


def test_close_from_another_thread(loop):
    loop.run_until_complete(value_of(1))
    in_thread(loop.close)
    assert loop.is_closed()


def test_closed_loops_answer_what_needs_no_loop(loop):
    loop.close()
    assert loop.time() <= time.monotonic() + 1
    assert loop.get_debug() in (True, False)
    assert loop.get_task_factory() is None
    loop.stop()


def test_stop_from_another_thread_takes_a_wake_up(loop):
    guard = loop.call_later(30, loop.stop)
    timer = threading.Timer(0.05, loop.call_soon_threadsafe, (loop.stop,))
    timer.start()
    loop.run_forever()
    timer.join()
    assert loop.time() < guard.when()
    guard.cancel()


@pytest.mark.parametrize("exception", [SystemExit, KeyboardInterrupt])
def test_exits_leave_the_loop(loop, exception):
    """They come out of the run, and the loop can be run again from where it was."""
    seen = []

    def leave():
        raise exception("out")

    loop.call_soon(seen.append, 1)
    loop.call_soon(leave)
    loop.call_soon(seen.append, 2)
    with pytest.raises(exception, match="out"):
        loop.run_forever()
    assert not loop.is_running()
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()
    assert seen == [1]
    assert loop.run_until_complete(value_of(3)) == 3
    assert seen == [1, 2]


@pytest.mark.parametrize("exception", [SystemExit, KeyboardInterrupt])
def test_exits_out_of_a_task(loop, exception):
    async def leave():
        await asyncio.sleep(0)
        raise exception("out")

    with pytest.raises(exception, match="out"):
        loop.run_until_complete(leave())
    assert loop.run_until_complete(value_of(1)) == 1


@pytest.mark.parametrize("exception", [SystemExit, KeyboardInterrupt])
def test_exits_out_of_a_timer(loop, exception):
    def leave():
        raise exception("out")

    loop.call_later(0.001, leave)
    with pytest.raises(exception, match="out"):
        loop.run_until_complete(asyncio.sleep(10))
    for task in asyncio.all_tasks(loop):
        task.cancel()
    assert loop.run_until_complete(value_of(1)) == 1


def test_other_exceptions_do_not(loop, errors):
    seen = []

    def fail():
        raise ValueError("reported")

    loop.call_soon(fail)
    loop.call_soon(seen.append, 1)
    assert loop.run_until_complete(value_of(2)) == 2
    assert seen == [1]
    assert [str(exc) for exc in errors.exceptions] == ["reported"]


def test_a_base_exception_of_another_kind_is_reported(loop, errors):
    class Odd(BaseException):
        pass

    def fail():
        raise Odd

    loop.call_soon(fail)
    assert loop.run_until_complete(value_of(2)) == 2
    assert [type(exc) for exc in errors.exceptions] == [Odd]


def test_in_another_thread(new_loop):
    def work():
        loop = new_loop()
        try:
            return loop.run_until_complete(value_of(threading.get_ident()))
        finally:
            loop.close()

    assert in_thread(work) != threading.get_ident()


def test_asyncio_run_with_a_loop_of_ours(kind, new_loop):
    async def main():
        loop = asyncio.get_running_loop()
        await asyncio.sleep(0)
        return loop

    loop = new_loop()
    asyncio.set_event_loop(loop)
    try:
        assert loop.run_until_complete(main()) is loop
        assert asyncio.get_event_loop() is loop
    finally:
        asyncio.set_event_loop(None)


@pytest.mark.parametrize("exception", [SystemExit, KeyboardInterrupt])
def test_exits_out_of_a_turn_whose_writes_fail(loop, run, sockets, exception):
    a, b = sockets
    transport, protocol = run(attach(a))
    b.close()

    def leave():
        transport.write(b"to nobody")
        raise exception("out")

    loop.call_soon(leave)
    with pytest.raises(exception, match="out"):
        loop.run_forever()
    assert isinstance(run(protocol.lost), BrokenPipeError)


def test_create_task_takes_no_loop(loop):
    coro = value_of(1)
    with pytest.raises(TypeError):
        loop.create_task(coro, loop=loop)
    coro.close()


@pytest.mark.only("uvloop_clone")
@pytest.mark.skipif(
    not sys.platform.startswith("linux")
    or shutil.which("cc") is None
    or "LD_PRELOAD" in os.environ,
    reason="needs a C compiler and LD_PRELOAD to have the kernel refuse",
)
def test_a_kernel_that_does_not_watch_the_timer(kind, tmp_path):
    """A loop that cannot be made raises, and ends no process: the user's watches are used up."""
    source, library = tmp_path / "refuse.c", tmp_path / "refuse.so"
    source.write_text("""
        #include <errno.h>
        #include <sys/syscall.h>
        #include <unistd.h>
        int epoll_ctl(int epoll, int op, int fd, void *event)
        {
            static int calls;
            if (calls++ == 0) {
                errno = ENOSPC;
                return -1;
            }
            return (int)syscall(SYS_epoll_ctl, epoll, op, fd, event);
        }
    """)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
    result = run_script(
        kind,
        """
        try:
            make_loop(KIND)
        except OSError as error:
            print(error.errno)
        make_loop(KIND).close()
        """,
        env={"LD_PRELOAD": str(library)},
    )
    assert result.stdout == f"{errno.ENOSPC}\n", result.stderr
