"""call_soon: order, arguments, contexts, wrong use."""

import asyncio
import contextvars
import functools
import weakref

import pytest
from support import in_thread

pytestmark = pytest.mark.core

var = contextvars.ContextVar("var", default="unset")


def test_runs_in_the_order_of_the_calls(loop, turns):
    seen = []
    for i in range(1000):
        loop.call_soon(seen.append, i)
    turns()
    assert seen == list(range(1000))


def test_nothing_runs_before_the_loop_does(loop, turns):
    seen = []
    loop.call_soon(seen.append, 1)
    assert seen == []
    turns()
    assert seen == [1]


def test_what_a_callback_schedules_runs_in_the_next_turn(loop, turns):
    seen = []

    def first():
        seen.append("first")
        loop.call_soon(seen.append, "third")

    loop.call_soon(first)
    loop.call_soon(seen.append, "second")
    turns()
    assert seen == ["first", "second"]
    turns()
    assert seen == ["first", "second", "third"]


def test_all_of_a_turn_run_although_stop_came_first(loop):
    seen = []
    loop.call_soon(loop.stop)
    loop.call_soon(seen.append, "same turn")
    loop.call_soon(lambda: loop.call_soon(seen.append, "next turn"))
    loop.run_forever()
    assert seen == ["same turn"]


def test_the_queue_survives_between_runs(loop, turns):
    seen = []
    loop.call_soon(loop.stop)
    loop.call_soon(lambda: loop.call_soon(seen.append, "late"))
    loop.run_forever()
    assert seen == []
    turns()
    assert seen == ["late"]


def test_the_queue_grows_while_it_is_drained(loop, turns):
    seen = []

    def spread(depth):
        seen.append(depth)
        if depth:
            loop.call_soon(spread, depth - 1)
            loop.call_soon(spread, depth - 1)

    loop.call_soon(spread, 12)
    turns(13)
    assert len(seen) == 2**13 - 1
    assert seen == sorted(seen, reverse=True)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 6, 12, 300])
def test_passes_every_argument(loop, turns, count):
    args = tuple(object() for _ in range(count))
    seen = []
    loop.call_soon(lambda *a: seen.append(a), *args)
    turns()
    assert len(seen) == 1
    assert len(seen[0]) == count
    assert all(x is y for x, y in zip(seen[0], args, strict=True))


def test_any_kind_of_callable(loop, turns):
    seen = []

    class Thing:
        def __call__(self, x):
            seen.append(("call", x))

        def method(self, x):
            seen.append(("method", x))

        @classmethod
        def of_class(cls, x):
            seen.append(("class", x))

    thing = Thing()
    for callback in (thing, thing.method, Thing.of_class, functools.partial(thing, 2)):
        if isinstance(callback, functools.partial):
            loop.call_soon(callback)
        else:
            loop.call_soon(callback, 1)
    turns()
    assert seen == [("call", 1), ("method", 1), ("class", 1), ("call", 2)]


def test_the_callback_may_be_named(loop, turns):
    seen = []
    loop.call_soon(callback=lambda: seen.append(1))
    turns()
    assert seen == [1]


def test_what_the_callback_returns_is_dropped(loop, turns):
    class Result:
        pass

    refs = []

    def callback():
        result = Result()
        refs.append(weakref.ref(result))
        return result

    loop.call_soon(callback)
    turns()
    assert refs[0]() is None


def test_arguments_are_freed_after_the_run(loop, turns):
    class Thing:
        pass

    thing = Thing()
    ref = weakref.ref(thing)
    loop.call_soon(lambda x: None, thing)
    del thing
    assert ref() is not None
    turns()
    assert ref() is None


def test_the_current_context_is_copied(loop, turns):
    seen = []
    token = var.set("when scheduled")
    loop.call_soon(lambda: seen.append(var.get()))
    var.reset(token)
    turns()
    assert seen == ["when scheduled"]


def test_a_callback_does_not_change_the_callers_context(loop, turns):
    loop.call_soon(var.set, "inside")
    turns()
    assert var.get() == "unset"


def test_each_call_has_its_own_copy(loop, turns):
    seen = []

    def callback(value):
        seen.append(var.get())
        var.set(value)

    loop.call_soon(callback, 1)
    loop.call_soon(callback, 2)
    turns()
    assert seen == ["unset", "unset"]


def test_context_argument(loop, turns):
    context = contextvars.copy_context()
    context.run(var.set, "given")
    seen = []
    loop.call_soon(lambda: seen.append(var.get()), context=context)
    loop.call_soon(var.set, "changed", context=context)
    loop.call_soon(lambda: seen.append(var.get()), context=context)
    turns()
    assert seen == ["given", "changed"]
    assert context[var] == "changed"
    assert var.get() == "unset"


def test_context_none_means_the_current_one(loop, turns):
    seen = []
    token = var.set("current")
    loop.call_soon(lambda: seen.append(var.get()), context=None)
    var.reset(token)
    turns()
    assert seen == ["current"]


def test_a_failing_callback_leaves_its_context(loop, turns, errors):
    context = contextvars.copy_context()

    def fail():
        var.set("failed")
        raise ValueError

    loop.call_soon(fail, context=context)
    turns()
    assert var.get() == "unset"
    assert context.run(var.get) == "failed"
    assert [type(exc) for exc in errors.exceptions] == [ValueError]


def test_a_context_that_is_entered_already(loop, turns, errors, caplog):
    context = contextvars.copy_context()
    loop.call_soon(lambda: None, context=context)
    context.run(turns)
    # since 3.12 the handler would run in that context too, so only the log can tell
    told = [record.exc_info[1] for record in caplog.records] + errors.exceptions
    assert [type(exc) for exc in told] == [RuntimeError]
    assert "cannot enter context" in str(told[0])


def test_wrong_calls(loop):
    with pytest.raises(TypeError):
        loop.call_soon()
    with pytest.raises(TypeError):
        loop.call_soon(print, nonsense=1)
    with pytest.raises(TypeError):
        loop.call_soon(print, callback=print)


@pytest.mark.parametrize("method", ["call_soon", "call_soon_threadsafe"])
def test_debug_mode_refuses_coroutines(loop, method):
    async def coroutine_function():
        pass

    loop.set_debug(True)
    with pytest.raises(TypeError, match=rf"coroutines cannot be used with {method}\(\)"):
        getattr(loop, method)(coroutine_function)
    coro = coroutine_function()
    try:
        with pytest.raises(TypeError, match=rf"coroutines cannot be used with {method}\(\)"):
            getattr(loop, method)(coro)
    finally:
        coro.close()


@pytest.mark.parametrize("method", ["call_soon", "call_soon_threadsafe"])
def test_debug_mode_refuses_what_cannot_be_called(loop, method):
    loop.set_debug(True)
    with pytest.raises(TypeError, match=rf"a callable object was expected by {method}\(\), got 1"):
        getattr(loop, method)(1)


def test_a_coroutine_is_an_error_without_debug_mode_too(loop, turns, errors):
    async def coroutine_function():
        pass

    coro = coroutine_function()
    try:
        loop.call_soon(coro)
    except TypeError as exc:  # told at once, where asyncio tells when it runs
        errors.append({"message": str(exc), "exception": exc})
    turns()
    coro.close()
    assert [type(exc) for exc in errors.exceptions] == [TypeError]


def test_closed_loop(loop):
    loop.close()
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        loop.call_soon(print)


def test_debug_mode_refuses_another_thread(loop, run):
    async def main():
        loop.set_debug(True)
        for method, args in [
            ("call_soon", (print,)),
            ("call_later", (1, print)),
            ("call_at", (loop.time(), print)),
        ]:
            with pytest.raises(RuntimeError, match="Non-thread-safe operation"):
                in_thread(getattr(loop, method), *args)

    run(main())


def test_without_debug_mode_a_resting_loop_can_be_filled_by_any_thread(loop, turns):
    seen = []
    in_thread(loop.call_soon, seen.append, 1)
    turns()
    assert seen == [1]


def test_get_running_loop_in_a_callback(loop, turns):
    seen = []
    loop.call_soon(lambda: seen.append(asyncio.get_running_loop()))
    loop.call_soon(lambda: seen.append(asyncio.current_task()))
    turns()
    assert seen[0] is loop
    assert seen[1] is None
