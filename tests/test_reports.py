"""Exception handlers: who is told what when a callback fails."""

import asyncio
import contextvars
import gc
import logging
import re
import sys
import weakref

import pytest

pytestmark = pytest.mark.core

var = contextvars.ContextVar("var", default="unset")


def fail(*args):
    raise ZeroDivisionError("out of a callback")


def test_get_and_set(loop):
    def handler(loop, context):
        raise AssertionError

    loop.set_exception_handler(None)
    assert loop.get_exception_handler() is None
    loop.set_exception_handler(handler)
    assert loop.get_exception_handler() is handler
    loop.set_exception_handler(None)
    assert loop.get_exception_handler() is None


@pytest.mark.parametrize("value", [1, "text", object()])
def test_a_handler_must_be_callable(loop, value):
    with pytest.raises(TypeError, match="A callable object or None is expected, got"):
        loop.set_exception_handler(value)


def test_context_of_a_failed_callback(loop, turns):
    seen = []
    loop.set_exception_handler(lambda *args: seen.append(args))
    handle = loop.call_soon(fail, 1)
    turns()
    ((where, context),) = seen
    assert where is loop
    assert context["message"].startswith("Exception in callback fail(")
    assert "test_reports.py" in context["message"]
    assert isinstance(context["exception"], ZeroDivisionError)
    assert context["handle"] is handle
    assert set(context) == {"message", "exception", "handle"}


def test_context_of_a_failed_timer(loop, turns, errors):
    handle = loop.call_at(loop.time() - 1, fail)
    turns(2)
    (context,) = errors
    assert context["message"].startswith("Exception in callback fail(")
    assert context["handle"] is handle


class Named:
    """A callback that fails, known by its repr."""

    def __init__(self, name):
        self.name = name

    def __call__(self):
        fail()

    def __repr__(self):
        if self.name is None:
            raise ValueError("no name")
        return self.name


def test_a_callback_whose_repr_is_no_utf8(loop, turns, errors):
    loop.call_soon(Named("file\udcff"))
    turns()
    assert errors[0]["message"].startswith("Exception in callback file\udcff()")


@pytest.mark.only("uvloop_clone")  # asyncio's run ends with the ValueError
def test_a_callback_whose_repr_fails(loop, turns, errors):
    loop.call_soon(Named(None))
    turns()
    (context,) = errors
    assert isinstance(context["exception"], ZeroDivisionError)
    assert context["message"] == "Exception in callback <unprintable callback>"


def test_the_traceback_names_the_callback(loop, turns, errors):
    loop.call_soon(fail)
    turns()
    traceback = errors[0]["exception"].__traceback__
    while traceback.tb_next:
        traceback = traceback.tb_next
    assert traceback.tb_frame.f_code is fail.__code__


def test_the_default_handler_logs(loop, turns, caplog):
    loop.set_exception_handler(None)
    loop.call_soon(fail, 1)
    with caplog.at_level(logging.ERROR, "asyncio"):
        turns()
    (record,) = caplog.records
    assert record.name == "asyncio" and record.levelname == "ERROR"
    lines = record.getMessage().splitlines()
    assert re.match(r"Exception in callback fail\(.*\) at .*test_reports\.py:\d+$", lines[0])
    assert re.match(r"handle: <Handle fail\(.*\) at .*test_reports\.py:\d+>$", lines[1])
    assert len(lines) == 2
    assert isinstance(record.exc_info[1], ZeroDivisionError)


def test_the_default_handler_by_hand(loop, caplog):
    with caplog.at_level(logging.ERROR, "asyncio"):
        loop.default_exception_handler({"message": "told so", "b": 2, "a": "one"})
        loop.default_exception_handler({})
    assert caplog.records[0].getMessage().splitlines() == ["told so", "a: 'one'", "b: 2"]
    assert caplog.records[0].exc_info is False or caplog.records[0].exc_info is None
    assert caplog.records[1].getMessage() == "Unhandled exception in event loop"


def test_the_default_handler_tells_where_objects_were_made(loop, turns, caplog):
    loop.set_exception_handler(None)
    loop.set_debug(True)
    loop.call_soon(fail)
    with caplog.at_level(logging.ERROR, "asyncio"):
        turns()
    text = caplog.records[0].getMessage()
    assert "source_traceback: Object created at (most recent call last):\n" in text
    assert "in test_the_default_handler_tells_where_objects_were_made" in text


def test_call_exception_handler(loop, errors):
    context = {"message": "by hand", "extra": 1}
    assert loop.call_exception_handler(context) is None
    assert errors == [context]
    assert errors[0] is context


def test_a_handler_that_fails_itself(loop, turns, caplog):
    def handler(loop, context):
        raise KeyError("in the handler")

    loop.set_exception_handler(handler)
    loop.call_soon(fail)
    with caplog.at_level(logging.ERROR, "asyncio"):
        turns()
    (record,) = caplog.records
    assert record.getMessage().startswith("Unhandled error in exception handler")
    assert "context: {'message': 'Exception in callback fail(" in record.getMessage()
    assert isinstance(record.exc_info[1], KeyError)


def test_a_default_handler_that_fails(new_loop, caplog):
    loop = new_loop()

    def broken(context):
        raise KeyError("in the default handler")

    loop.default_exception_handler = broken
    with caplog.at_level(logging.ERROR, "asyncio"):
        loop.call_exception_handler({"message": "m"})
    (record,) = caplog.records
    assert record.getMessage() == "Exception in default exception handler"
    assert isinstance(record.exc_info[1], KeyError)
    loop.close()


@pytest.mark.parametrize("exception", [SystemExit, KeyboardInterrupt])
def test_exits_from_a_handler_leave_the_loop(loop, exception):
    def handler(loop, context):
        raise exception("from the handler")

    loop.set_exception_handler(handler)
    loop.call_soon(fail)
    with pytest.raises(exception):
        loop.run_forever()
    loop.set_exception_handler(None)


def test_call_exception_handler_replaced_in_a_subclass_or_instance(loop, turns):
    seen = []
    loop.call_exception_handler = seen.append
    loop.call_soon(fail)
    turns()
    del loop.call_exception_handler
    assert [type(context["exception"]) for context in seen] == [ZeroDivisionError]


def test_the_handler_may_call_the_default_one(loop, turns, caplog):
    loop.set_exception_handler(lambda where, context: where.default_exception_handler(context))
    loop.call_soon(fail)
    with caplog.at_level(logging.ERROR, "asyncio"):
        turns()
    assert len(caplog.records) == 1


def test_the_context_in_which_the_handler_runs(loop, turns):
    """Since 3.12 it is that of the failed callback; before, that of the code around the loop."""
    seen = []
    loop.set_exception_handler(lambda where, context: seen.append(var.get()))
    context = contextvars.copy_context()
    context.run(var.set, "of the callback")
    loop.call_soon(fail, context=context)
    turns()
    assert seen == ["of the callback" if sys.version_info >= (3, 12) else "unset"]


def test_the_context_of_a_failed_task(loop, turns):
    seen = []
    loop.set_exception_handler(lambda where, context: seen.append(var.get()))

    async def work():
        var.set("of the task")
        raise ValueError

    task = loop.create_task(work())
    turns(3)
    del task
    gc.collect()
    assert seen == ["of the task" if sys.version_info >= (3, 12) else "unset"]


def test_the_exception_is_not_kept(loop, turns):
    """Once reported, exception and callback are freed."""

    class Thing:
        def __call__(self):
            raise ZeroDivisionError

    loop.set_exception_handler(lambda where, context: None)
    thing = Thing()
    ref = weakref.ref(thing)
    loop.call_soon(thing)
    del thing
    turns()
    gc.collect()
    assert ref() is None


def test_each_failure_is_reported_once(loop, turns, errors):
    for i in range(50):
        loop.call_soon(fail, i)
    turns()
    assert len(errors) == 50


def test_failing_done_callbacks_of_futures(loop, run, errors):
    async def main():
        future = loop.create_future()
        seen = []
        future.add_done_callback(fail)
        future.add_done_callback(seen.append)
        future.set_result(None)
        await asyncio.sleep(0.001)
        assert seen == [future]

    run(main())
    assert [type(exc) for exc in errors.exceptions] == [ZeroDivisionError]
