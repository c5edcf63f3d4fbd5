"""Debug mode: slow callbacks, where handles and coroutines came from."""

import asyncio
import logging
import re
import sys
import time

import pytest
from support import run_script

pytestmark = pytest.mark.core


def nap():
    time.sleep(0.03)


def test_get_and_set(loop):
    assert loop.get_debug() is False
    loop.set_debug(True)
    assert loop.get_debug() is True
    loop.set_debug(False)
    assert loop.get_debug() is False


def test_any_truth_value_will_do(loop):
    loop.set_debug(1)
    assert loop.get_debug()
    loop.set_debug("")
    assert not loop.get_debug()


def test_set_while_running(loop, run):
    async def main():
        loop.set_debug(True)
        await asyncio.sleep(0)
        loop.set_debug(False)
        await asyncio.sleep(0)

    run(main())


@pytest.mark.parametrize("flags, env", [(["-X", "dev"], {}), ([], {"PYTHONASYNCIODEBUG": "1"})])
def test_on_from_the_start(kind, flags, env):
    code = "loop = make_loop(KIND); print(loop.get_debug()); loop.close()"
    result = run_script(kind, code, *flags, env=env)
    assert (result.returncode, result.stdout) == (0, "True\n"), result.stderr


def test_slow_callback_duration(loop):
    assert loop.slow_callback_duration == 0.1
    loop.slow_callback_duration = 0.5
    assert loop.slow_callback_duration == 0.5
    loop.slow_callback_duration = 2
    assert loop.slow_callback_duration == 2


def test_slow_callbacks_are_logged(loop, turns, caplog):
    loop.set_debug(True)
    loop.slow_callback_duration = 0.01
    loop.call_soon(nap)
    with caplog.at_level(logging.WARNING, "asyncio"):
        turns()
    (record,) = caplog.records
    assert record.name == "asyncio" and record.levelname == "WARNING"
    assert re.fullmatch(
        r"Executing <Handle nap\(\) at .*test_debug\.py:\d+ created at .*test_debug\.py:\d+>"
        r" took \d\.\d{3} seconds",
        record.getMessage(),
    ), record.getMessage()


def test_slow_timers_are_logged(loop, turns, caplog):
    loop.set_debug(True)
    loop.slow_callback_duration = 0.01
    loop.call_at(loop.time() - 1, nap)
    with caplog.at_level(logging.WARNING, "asyncio"):
        turns(2)
    (record,) = caplog.records
    assert re.match(r"Executing <TimerHandle when=[\d.]+ nap\(\) at ", record.getMessage())


def test_slow_task_steps_are_logged_with_the_task(loop, run, caplog):
    async def slow():
        time.sleep(0.03)

    async def main():
        task = loop.create_task(slow(), name="the slow one")
        await task

    loop.set_debug(True)
    loop.slow_callback_duration = 0.01
    with caplog.at_level(logging.WARNING, "asyncio"):
        run(main())
    messages = [record.getMessage() for record in caplog.records]
    assert any(
        re.match(r"Executing <Task .*name='the slow one'.* took \d\.\d{3} seconds", message)
        for message in messages
    ), messages


def test_quick_callbacks_are_not_logged(loop, turns, caplog):
    loop.set_debug(True)
    loop.slow_callback_duration = 5
    loop.call_soon(nap)
    with caplog.at_level(logging.WARNING, "asyncio"):
        turns()
    assert caplog.records == []


def test_nothing_is_logged_without_debug_mode(loop, turns, caplog):
    loop.slow_callback_duration = 0.01
    loop.call_soon(nap)
    with caplog.at_level(logging.WARNING, "asyncio"):
        turns()
    assert caplog.records == []


def test_errors_tell_where_the_handle_was_made(loop, turns, errors):
    loop.set_debug(True)

    def fail():
        raise ValueError

    loop.call_soon(fail)
    turns()
    (context,) = errors
    names = [frame.name for frame in context["source_traceback"]]
    assert names[-1] == "test_errors_tell_where_the_handle_was_made"


def test_errors_of_timers_too(loop, turns, errors):
    loop.set_debug(True)

    def fail():
        raise ValueError

    loop.call_later(-1, fail)
    loop.call_at(0, fail)
    loop.call_soon_threadsafe(fail)
    turns(2)
    assert len(errors) == 3
    for context in errors:
        assert context["source_traceback"][-1].name == "test_errors_of_timers_too"


def test_no_traceback_without_debug_mode(loop, turns, errors):
    def fail():
        raise ValueError

    loop.call_soon(fail)
    turns()
    assert "source_traceback" not in errors[0]


def test_futures_and_tasks_remember_their_origin(loop, run):
    async def main():
        future = loop.create_future()
        task = loop.create_task(asyncio.sleep(0))
        for made in (future, task):
            assert "main" in [frame.name for frame in made._source_traceback[-2:]]
            assert re.search(r"created at .*\.py:\d+", repr(made))
        await task

    loop.set_debug(True)
    run(main())


def test_coroutine_origins_are_tracked_while_running(loop, run):
    async def other():
        await asyncio.sleep(0)

    async def main():
        coro = other()
        await coro
        return sys.get_coroutine_origin_tracking_depth(), coro.cr_origin

    before = sys.get_coroutine_origin_tracking_depth()
    assert run(main())[1] is None
    loop.set_debug(True)
    depth, origin = run(main())
    assert depth > 0
    assert origin[0][2] == "main"
    assert sys.get_coroutine_origin_tracking_depth() == before


def test_switching_debug_mode_on_while_running_tracks_coroutines(loop, run):
    async def main():
        assert sys.get_coroutine_origin_tracking_depth() == 0
        loop.set_debug(True)
        await asyncio.sleep(0.001)
        assert sys.get_coroutine_origin_tracking_depth() > 0
        loop.set_debug(False)
        await asyncio.sleep(0.001)
        assert sys.get_coroutine_origin_tracking_depth() == 0

    run(main())


def test_a_slow_poll_is_no_slow_callback(loop, run, caplog):
    loop.set_debug(True)
    loop.slow_callback_duration = 0.2
    with caplog.at_level(logging.WARNING, "asyncio"):
        run(asyncio.sleep(0.5))
    assert [r for r in caplog.records if r.levelno >= logging.WARNING] == []


def test_slow_callbacks_that_raise_are_logged_too(loop, turns, errors, caplog):
    def fail():
        nap()
        raise ValueError

    loop.set_debug(True)
    loop.slow_callback_duration = 0.01
    loop.call_soon(fail)
    with caplog.at_level(logging.WARNING, "asyncio"):
        turns()
    (record,) = caplog.records
    assert re.match(r"Executing <Handle .*fail\(\) at ", record.getMessage())
    assert [type(exc) for exc in errors.exceptions] == [ValueError]


@pytest.mark.parametrize("method", ["call_soon", "call_soon_threadsafe", "call_later", "call_at"])
def test_the_default_handlers_log_tells_where_the_running_handle_was_made(
    loop, turns, caplog, method
):
    def made_here(function, *args):
        if method in ("call_later", "call_at"):
            getattr(loop, method)(0, function, *args)
        else:
            getattr(loop, method)(function, *args)

    loop.set_debug(True)
    loop.set_exception_handler(None)
    made_here(loop.call_exception_handler, {"message": "something happened"})
    with caplog.at_level(logging.ERROR, "asyncio"):
        turns(2)
    (record,) = caplog.records
    lines = record.getMessage().splitlines()
    assert lines[:2] == [
        "something happened",
        "handle_traceback: Handle created at (most recent call last):",
    ]
    assert any(line.endswith(", in made_here") for line in lines)
