"""Handle and TimerHandle as user code sees them."""

import asyncio
import contextvars
import functools
import gc
import re
import sys
import weakref

import pytest
from support import run_script

pytestmark = pytest.mark.core


def callback(*args):
    return args


@pytest.fixture(params=["call_soon", "call_soon_threadsafe", "call_later", "call_at"])
def make(loop, request):
    """A maker of handles by each of the four methods; what is left is cancelled."""
    made = []

    def make(function=callback, *args):
        method = getattr(loop, request.param)
        if request.param == "call_later":
            handle = method(1000, function, *args)
        elif request.param == "call_at":
            handle = method(loop.time() + 1000, function, *args)
        else:
            handle = method(function, *args)
        made.append(weakref.ref(handle))
        return handle

    yield make
    for ref in made:
        if (handle := ref()) is not None:
            handle.cancel()


def test_instances_of_asyncios_classes(loop, make):
    assert isinstance(make(), asyncio.Handle)


def test_timers_are_timer_handles(loop):
    for handle in (loop.call_later(5, print), loop.call_at(5, print)):
        assert isinstance(handle, asyncio.TimerHandle)
        assert isinstance(handle, asyncio.Handle)
        handle.cancel()
    assert not isinstance(loop.call_soon(callback), asyncio.TimerHandle)


def test_cancel(make):
    handle = make()
    assert handle.cancelled() is False
    assert handle.cancel() is None
    assert handle.cancelled() is True
    assert handle.cancel() is None
    assert handle.cancelled() is True


def test_a_cancelled_callback_does_not_run(loop, turns):
    seen = []
    handles = [loop.call_soon(seen.append, i) for i in range(5)]
    handles[1].cancel()
    handles[4].cancel()
    turns()
    assert seen == [0, 2, 3]


def test_one_callback_cancels_the_next(loop, turns):
    seen = []
    loop.call_soon(lambda: second.cancel())
    second = loop.call_soon(seen.append, "second")
    loop.call_soon(seen.append, "third")
    turns()
    assert seen == ["third"]


def test_a_callback_cancels_itself(loop, turns):
    seen = []

    def itself(argument):
        handle.cancel()
        seen.append(argument)

    handle = loop.call_soon(itself, "ran")
    turns()
    assert seen == ["ran"]
    assert handle.cancelled()


def test_cancel_after_the_run_is_harmless(loop, turns):
    handle = loop.call_soon(callback)
    timer = loop.call_at(loop.time() - 1, callback)
    turns(2)
    assert not handle.cancelled() and not timer.cancelled()
    handle.cancel()
    timer.cancel()
    assert handle.cancelled() and timer.cancelled()


def test_cancel_frees_callback_and_arguments_at_once(make):
    class Thing:
        def __call__(self, *args):
            raise AssertionError

    function, argument = Thing(), Thing()
    refs = [weakref.ref(function), weakref.ref(argument)]
    handle = make(function, argument)
    del function, argument
    gc.disable()
    try:
        handle.cancel()
        assert [ref() for ref in refs] == [None, None]
    finally:
        gc.enable()


def test_weak_references(loop, make, turns):
    handle = make()
    ref = weakref.ref(handle)
    assert ref() is handle
    handle.cancel()


def test_a_handle_that_ran_is_freed(loop, turns):
    gc.disable()
    try:
        ref = weakref.ref(loop.call_soon(callback))
        timer = weakref.ref(loop.call_at(loop.time() - 1, callback))
        assert ref() is not None and timer() is not None
        turns(2)
        assert ref() is None and timer() is None
    finally:
        gc.enable()


def test_repr(loop, make):
    handle = make()
    line = callback.__code__.co_firstlineno
    text = repr(handle)
    assert re.fullmatch(
        rf"<(Timer)?Handle (when=[\d.]+ )?callback\(\) at .*test_handles\.py:{line}>", text
    ), text
    handle.cancel()
    assert re.fullmatch(r"<(Timer)?Handle cancelled( when=[\d.]+)?>", repr(handle))


def test_repr_of_the_timer_tells_its_time(loop):
    handle = loop.call_at(12345678.5, callback)
    assert repr(handle).startswith("<TimerHandle when=12345678.5 callback() at ")
    handle.cancel()
    assert repr(handle) == "<TimerHandle cancelled when=12345678.5>"


def test_repr_with_arguments(make):
    text = repr(make(callback, 1, "two"))
    if sys.version_info >= (3, 13):
        # since then values of arguments appear in debug mode only
        assert "callback()" in text
    else:
        assert "callback(1, 'two')" in text


def test_repr_in_debug_mode_tells_the_origin(loop, make):
    loop.set_debug(True)
    handle = make(callback, 1)
    text = repr(handle)
    assert "callback(1) at " in text
    assert re.search(r"created at .*test_handles\.py:\d+>$", text), text
    handle.cancel()
    text = repr(handle)
    assert re.match(r"<(Timer)?Handle cancelled (when=[\d.]+ )?callback\(1\) at ", text), text
    assert "created at" in text


def test_repr_of_a_partial_and_a_builtin(loop, make):
    text = repr(make(functools.partial(callback, 1), 2))
    if sys.version_info >= (3, 13):
        assert "callback()()" in text
    else:
        assert "callback(1)(2)" in text
    assert "print(" in repr(make(print))


@pytest.mark.skipif(sys.version_info < (3, 12), reason="Handle.get_context is new in 3.12")
def test_get_context(loop):
    context = contextvars.copy_context()
    for handle in (
        loop.call_soon(callback, context=context),
        loop.call_soon_threadsafe(callback, context=context),
        loop.call_later(10, callback, context=context),
        loop.call_at(10, callback, context=context),
    ):
        assert handle.get_context() is context
        handle.cancel()
    handle = loop.call_soon(callback)
    assert isinstance(handle.get_context(), contextvars.Context)


def timers_of(loop, *whens, function=callback):
    handles = [loop.call_at(when, function) for when in whens]
    for handle in handles:
        loop.call_soon(handle.cancel)
    return handles


def test_timers_are_ordered_by_time(loop, turns):
    early, late, twin = timers_of(loop, 1e9, 2e9, 1e9)
    assert early < late and early <= late and late > early and late >= early
    assert not (late < early) and not (late <= early) and not (early > late)
    assert early <= twin and early >= twin and not early < twin and not early > twin
    assert sorted([late, early]) == [early, late]
    turns()


def test_timers_are_equal_by_time_callback_and_arguments(loop, turns):
    first, twin, later = timers_of(loop, 1e9, 1e9, 2e9)
    (other,) = timers_of(loop, 1e9, function=print)
    assert first == twin and first == twin
    assert first != later
    assert first != other
    with_args = loop.call_at(1e9, callback, 1)
    assert first != with_args
    with_args.cancel()
    turns()
    assert first == twin  # both cancelled now


def test_comparing_may_cancel(loop):
    class Cancelling:
        def __eq__(self, other):
            for timer in timers:
                timer.cancel()
            return True

        __hash__ = None

    timers = [loop.call_at(1e9, callback, Cancelling(), i) for i in range(2)]
    assert (timers[0] == timers[1]) in (True, False)
    assert all(timer.cancelled() for timer in timers)


def test_cancelled_though_its_repr_fails(loop, turns):
    class Unprintable:
        def __call__(self):
            raise AssertionError("cancelled")

        def __repr__(self):
            raise KeyError("no repr")

    loop.set_debug(True)
    handles = [loop.call_later(0, Unprintable()) for _ in range(3)]
    for handle in handles:
        with pytest.raises(KeyError, match="no repr"):
            handle.cancel()
        assert handle.cancelled()
    turns(3)


def test_a_cancelled_timer_differs_from_its_twin(loop, turns):
    first, twin = timers_of(loop, 1e9, 1e9)
    first.cancel()
    assert first != twin
    turns()


def test_hash_of_a_timer(loop, turns):
    first, twin = timers_of(loop, 1e9, 1e9)
    assert hash(first) == hash(twin) == hash(1e9)
    assert {first: 1}[twin] == 1
    turns()


def test_timers_compare_with_timers_only(loop, turns):
    (timer,) = timers_of(loop, 1e9)
    assert timer != 1e9
    assert (timer == object()) is False
    for compare in ("__lt__", "__le__", "__gt__", "__ge__"):
        assert getattr(timer, compare)(1e9) is NotImplemented
    with pytest.raises(TypeError):
        timer < 1e9  # noqa: B015
    turns()


def test_plain_handles_compare_by_identity(loop):
    first, second = loop.call_soon(callback), loop.call_soon(callback)
    assert first == first and first != second
    assert len({first, second}) == 2
    with pytest.raises(TypeError):
        first < second  # noqa: B015


def test_handles_refuse_attributes(loop):
    handle = loop.call_soon(callback)
    with pytest.raises(AttributeError):
        handle.nonsense = 1


def test_the_report_names_a_callable_in_full(loop, turns, errors):
    class Long:
        def __call__(self):
            raise ValueError

        def __repr__(self):
            return "<" + 400 * "é" + ">"

    loop.call_soon(Long())
    turns()
    assert errors.messages == [f"Exception in callback {Long()!r}()"]


# Each leaves a handle of `loop` in `kept`.
NOT_ENTERED = """
context = contextvars.copy_context()
kept.append(loop.call_soon(print, context=context))
loop.call_soon(loop.stop)
context.run(loop.run_forever)
"""
SIGNAL = """
loop.add_signal_handler(signal.SIGUSR1, fail)
signal.raise_signal(signal.SIGUSR1)
loop.run_forever()
"""
REPLACED_SIGNAL = SIGNAL + "loop.add_signal_handler(signal.SIGUSR1, print)"
REMOVED_SIGNAL = SIGNAL + "loop.remove_signal_handler(signal.SIGUSR1)"
REPLACED_READER = """
a, b = socket.socketpair()
loop.add_reader(a, fail)
b.send(b"x")
loop.run_forever()
loop.add_reader(a, print)
loop.remove_reader(a)
"""


@pytest.mark.parametrize(
    "leave",
    [NOT_ENTERED, SIGNAL, REPLACED_SIGNAL, REMOVED_SIGNAL, REPLACED_READER],
    ids=["context not entered", "signal", "replaced signal", "removed signal", "replaced reader"],
)
def test_a_handle_outlives_its_loop(kind, leave):
    """An exception handler may keep the handle that it was told of."""
    head = """
import contextvars, gc, socket
loop = make_loop(KIND)
kept = []
loop.set_exception_handler(lambda loop, context: kept.append(context.get("handle")))
def fail():
    loop.stop()
    raise ValueError
"""
    tail = """
loop.close()
del loop
gc.collect()
handle = kept[0]
assert isinstance(handle, asyncio.Handle)
repr(handle._loop), repr(handle), handle.cancel()
print(repr(handle))
"""
    overwritten = {"PYTHONMALLOC": "debug"}  # what is freed is
    result = run_script(kind, head + leave + tail, env=overwritten)
    assert (result.returncode, result.stdout) == (0, "<Handle cancelled>\n"), result.stderr


@pytest.mark.parametrize("method", ["call_soon", "call_later"])
def test_a_long_chain_of_handles_is_freed(kind, method):
    """Not each within the other, which takes more stack than there is."""
    result = run_script(
        kind,
        f"""
        loop = make_loop(KIND)
        handle = None
        for _ in range(200_000):
            handle = loop.{method}({"0, " if method == "call_later" else ""}bool, handle)
        loop.call_soon(loop.stop)
        loop.run_forever()
        loop.close()
        del handle
        print("freed")
        """,
    )
    assert (result.returncode, result.stdout) == (0, "freed\n"), result.stderr
