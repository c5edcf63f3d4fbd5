"""run(): asyncio.run's semantics; each test runs asyncio.run too."""

import asyncio
import contextvars
import signal
import subprocess
import sys
import textwrap
import time
import warnings

import pytest
from support import FOLDER

import uvloop_clone

pytestmark = pytest.mark.core

RUNS = {"asyncio": asyncio.run, "uvloop_clone": uvloop_clone.run}


@pytest.fixture
def start(kind):
    return RUNS[kind]


@pytest.fixture(autouse=True)
def clean_current_loop():
    yield
    asyncio.set_event_loop(None)


async def answer():
    return 42


def test_result(start):
    assert start(answer()) == 42


def test_the_loop_is_ours():
    async def main():
        return asyncio.get_running_loop()

    loop = uvloop_clone.run(main())
    assert type(loop) is uvloop_clone.Loop
    assert loop.is_closed()


def test_exception(start):
    async def main():
        raise KeyError("from main")

    with pytest.raises(KeyError, match="from main"):
        start(main())


@pytest.mark.parametrize("debug", [True, False])
def test_debug(start, debug):
    async def main():
        return asyncio.get_running_loop().get_debug()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert start(main(), debug=debug) is debug


def test_debug_none_takes_the_loops_default(start):
    async def main():
        return asyncio.get_running_loop().get_debug()

    default = uvloop_clone.new_event_loop()
    try:
        assert start(main(), debug=None) is default.get_debug()
    finally:
        default.close()


def test_loop_factory():
    made = []

    def factory():
        made.append(asyncio.SelectorEventLoop())
        return made[-1]

    async def main():
        return asyncio.get_running_loop()

    assert [uvloop_clone.run(main(), loop_factory=factory)] == made
    assert made[0].is_closed()


@pytest.mark.parametrize("wrong", [None, 42, "main", answer, lambda: None])
def test_anything_but_a_coroutine(start, wrong):
    with pytest.raises((ValueError, TypeError)):
        start(wrong)


def test_the_error_for_a_non_coroutine_is_asyncios():
    errors = []
    for start in RUNS.values():
        with pytest.raises(Exception) as caught:
            start("main")
        errors.append((caught.type, str(caught.value)))
    assert errors[0] == errors[1]


def test_inside_a_running_loop(start):
    async def main():
        inner = answer()
        try:
            with pytest.raises(RuntimeError, match="cannot be called from a running event loop"):
                start(inner)
        finally:
            inner.close()

    start(main())


def test_positional_options_are_refused(start):
    main = answer()
    with pytest.raises(TypeError):
        start(main, True)
    main.close()


def test_tasks_left_behind_are_cancelled(start):
    ended = []

    async def background():
        try:
            await asyncio.sleep(100)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    async def main():
        asyncio.get_running_loop().kept = asyncio.ensure_future(background())
        await asyncio.sleep(0)

    start(main())
    assert ended == ["cancelled"]


def test_a_task_that_fails_when_cancelled_is_reported(start):
    reports = []

    async def background():
        try:
            await asyncio.sleep(100)
        finally:
            raise KeyError("while cancelled")

    async def main():
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: reports.append(context))
        loop.kept = loop.create_task(background())
        await asyncio.sleep(0)

    start(main())
    assert len(reports) == 1
    assert reports[0]["message"] == "unhandled exception during asyncio.run() shutdown"
    assert isinstance(reports[0]["exception"], KeyError)
    assert isinstance(reports[0]["task"], asyncio.Task)


def test_async_generators_are_closed(start):
    closed = []

    async def numbers():
        try:
            while True:
                yield 1
        finally:
            await asyncio.sleep(0)
            closed.append(True)

    async def main():
        generator = numbers()
        asyncio.get_running_loop().kept = generator
        await generator.__anext__()

    start(main())
    assert closed == [True]


def test_the_default_executor_has_ended(start):
    ended = []

    def work():
        time.sleep(0.1)
        ended.append(True)

    async def main():
        asyncio.get_running_loop().run_in_executor(None, work)

    start(main())
    assert ended == [True]


def test_context_variables_of_the_caller(start):
    var = contextvars.ContextVar("var")
    var.set("outside")

    async def main():
        seen = var.get()
        var.set("inside")
        return seen

    assert start(main()) == "outside"
    assert var.get() == "outside"


def test_system_exit(start):
    async def main():
        sys.exit(7)

    with pytest.raises(SystemExit) as caught:
        start(main())
    assert caught.value.code == 7


def test_cancelled_by_itself(start):
    async def main():
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        start(main())


def test_does_not_touch_a_current_loop_that_it_did_not_set():
    current = uvloop_clone.new_event_loop()
    asyncio.set_event_loop(current)
    try:
        uvloop_clone.run(answer())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            assert asyncio.get_event_loop() is current
    finally:
        current.close()


# -- Ctrl-C --------------------------------------------------------------------------------------


def interrupted(code, count=1):
    """Run a program, send it SIGINT each time it prints "ready": (status, output, errors)."""
    child = subprocess.Popen(
        [sys.executable, "-u", "-c", textwrap.dedent(code)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        cwd=FOLDER,  # not the checkout, whose sources would hide the installed package
    )
    try:
        for _ in range(count):
            assert child.stdout.readline() == "ready\n"
            time.sleep(0.2)
            child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=30)
    finally:
        if child.poll() is None:
            child.kill()
            child.communicate()
    return child.returncode, out, err


def test_interrupt_cancels_main():
    status, out, err = interrupted(
        """
        import asyncio, uvloop_clone
        async def background():
            await asyncio.sleep(100)
        async def main():
            task = asyncio.ensure_future(background())
            print("ready")
            try:
                await asyncio.sleep(100)
            except asyncio.CancelledError:
                print("cancelled")
                raise
            finally:
                await asyncio.sleep(0.05)
                print("cleaned up")
        try:
            uvloop_clone.run(main())
        except KeyboardInterrupt:
            print("interrupted")
        """
    )
    assert (status, out, err) == (0, "cancelled\ncleaned up\ninterrupted\n", "")


def test_interrupt_that_nobody_catches():
    status, _, err = interrupted(
        """
        import asyncio, uvloop_clone
        async def main():
            print("ready")
            await asyncio.sleep(100)
        uvloop_clone.run(main())
        """
    )
    assert status == -signal.SIGINT
    assert err.strip().endswith("KeyboardInterrupt")
    assert "destroyed" not in err


def test_second_interrupt_does_not_wait_for_main():
    status, out, err = interrupted(
        """
        import asyncio, uvloop_clone
        async def main():
            print("ready")
            try:
                await asyncio.sleep(100)
            except asyncio.CancelledError:
                print("ready")
                await asyncio.sleep(100)
        try:
            uvloop_clone.run(main())
        except KeyboardInterrupt:
            print("interrupted")
        """,
        count=2,
    )
    assert (status, out) == (0, "interrupted\n")
    assert "destroyed" not in err


def test_the_users_own_handler_stays():
    status, out, err = interrupted(
        """
        import asyncio, signal, uvloop_clone
        signal.signal(signal.SIGINT, lambda *args: print("mine"))
        async def main():
            print("ready")
            await asyncio.sleep(1)
            return "to the end"
        print(uvloop_clone.run(main()))
        """
    )
    assert (status, out, err) == (0, "mine\nto the end\n", "")


def test_the_handler_is_put_back(start):
    before = signal.getsignal(signal.SIGINT)
    start(answer())
    assert signal.getsignal(signal.SIGINT) is before


def test_in_another_thread(start):
    from support import in_thread

    assert in_thread(lambda: start(answer())) == 42
