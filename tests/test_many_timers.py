"""Thousands of timers at once: order, arguments, contexts and lifetimes, whether or not somebody
keeps the handles. (From 1,000 on, our loop keeps a record of a timer in the place of its handle.)
"""

import asyncio
import contextvars
import gc
import itertools
import math
import random
import tracemalloc
import weakref

import pytest

pytestmark = pytest.mark.core

MANY = 3000
var = contextvars.ContextVar("var", default="unset")


class Thing:
    """Something that weak references can follow."""

    def method(self, *args):
        pass


@pytest.fixture
def inside(loop, turns):
    """A decorator that calls the function at once, within a run: what was set outside of one may
    never be run, and our loop keeps its handles for the collector to see."""

    def call(function):
        loop.call_soon(function)
        turns(1)

    return call


def spread(count):
    return [i / count for i in random.Random(3).sample(range(count), count)]


def clustered(count):
    """Most within a microsecond, some decades away."""
    choose = random.Random(4)
    return [choose.choice((1e-6, 1e-6, 1e-6, 1.0, 1e9)) * choose.random() for _ in range(count)]


def exponential(count):
    return [2.0**-i for i in random.Random(5).sample(range(count), count)]


def few_values(count):
    choose = random.Random(6)
    return [choose.choice((0.25, 0.5, 0.5000000000000001)) for _ in range(count)]


def infinite(count):
    choose = random.Random(7)
    return [choose.choice((-math.inf, math.nan, choose.random())) for _ in range(count)]


@pytest.mark.parametrize(
    "delays",
    [spread, clustered, exponential, few_values, infinite, lambda count: [0.5] * count],
    ids=["spread", "clustered", "exponential", "few values", "infinite", "one deadline"],
)
@pytest.mark.parametrize("keep", [False, True], ids=["dropped", "kept"])
def test_order(loop, turns, inside, kind, delays, keep):
    delays = delays(MANY)
    if kind == "asyncio" and any(map(math.isnan, delays)):
        pytest.skip("asyncio's heap has no order with NaN in it")
    base = loop.time() - 2e9
    seen, kept = [], []

    @inside
    def _():
        for i, delay in enumerate(delays):
            handle = loop.call_at(base + delay, seen.append, i)
            if keep:
                kept.append(handle)

    turns(2)
    sooner = [-math.inf if math.isnan(delay) else base + delay for delay in delays]
    assert [sooner[i] for i in seen] == sorted(sooner)
    if kind == "uvloop_clone":  # asyncio promises nothing for equal deadlines
        assert seen == sorted(range(MANY), key=lambda i: (sooner[i], i))


def test_those_that_are_not_due_stay(loop, turns, inside):
    seen = []
    now = loop.time()
    far = random.Random(8).sample(range(MANY), MANY)

    @inside
    def _():
        for i in far:
            loop.call_at(now - 10 + 0.001 * i if i < 2000 else now + 3600 + i, seen.append, i)

    turns(2)
    assert seen == list(range(2000))
    loop.call_at(now - 1, seen.append, "late")
    turns(2)
    assert seen == [*range(2000), "late"]


@pytest.mark.parametrize("nargs", range(7))
def test_arguments(loop, turns, inside, nargs):
    seen = []
    now = loop.time() - 1

    def callback(*args):
        seen.append(args)

    @inside
    def _():
        for i in range(MANY):
            loop.call_at(now + i * 1e-6, callback, *range(i, i + nargs))

    turns(2)
    assert seen == [tuple(range(i, i + nargs)) for i in range(MANY)]


def test_each_has_a_context_of_its_own(loop, turns, inside):
    """What one sets, no other sees; each sees what was set when it was made."""
    seen = []
    now = loop.time() - 1

    def callback(i):
        seen.append((i, var.get()))
        var.set(("set by", i))

    expected = []
    context = contextvars.copy_context()

    @inside
    def _():
        for i in range(MANY):
            if i % 7 == 0:
                context.run(var.set, i)
            expected.append((i, i // 7 * 7))
            context.run(loop.call_at, now + i * 1e-6, callback, i)

    turns(2)
    assert seen == expected
    assert context[var] == (MANY - 1) // 7 * 7


def test_a_variable_set_again_to_an_equal_value(loop, turns, inside):
    first, second = [], []
    assert first == second and first is not second
    seen = []
    now = loop.time() - 1

    def make():
        for i in range(MANY):
            var.set((first, second)[i % 2])
            loop.call_at(now + i * 1e-6, lambda: seen.append(var.get()))

    inside(make)
    turns(2)
    assert [value is (first, second)[i % 2] for i, value in enumerate(seen)] == [True] * MANY


def test_a_given_context_is_entered_itself(loop, turns, inside):
    now = loop.time() - 1
    context = contextvars.Context()

    @inside
    def _():
        for i in range(MANY):
            loop.call_at(now + i * 1e-6, var.set, i, context=context)

    turns(2)
    assert context[var] == MANY - 1


def test_contexts_live_as_long_as_their_timers(loop, turns, inside):
    gone = None
    now = loop.time()

    @inside
    def _():
        nonlocal gone
        thing = Thing()
        gone = weakref.ref(thing)
        context = contextvars.copy_context()
        context.run(var.set, thing)
        for i in range(MANY):
            context.run(loop.call_at, now - 1 + i * 1e-6, int)
        loop.call_at(now + 3600, print)

    gc.collect()
    assert gone() is not None
    turns(2)
    gc.collect()
    assert gone() is None


def test_what_they_refer_to_is_given_up(loop, turns, inside):
    now = loop.time()
    things = [Thing() for _ in range(2 * MANY)]
    gone = list(map(weakref.ref, things))

    @inside
    def _():
        for i, thing in enumerate(things):
            loop.call_at(now + (3600 if i % 2 else -1), thing.method, thing)

    things.clear()
    gc.collect()
    assert all(reference() is not None for reference in gone)
    turns(2)
    assert [reference() is None for reference in gone] == [True, False] * MANY
    loop.close()
    gc.collect()
    assert all(reference() is None for reference in gone)


@pytest.mark.filterwarnings("ignore:unclosed event loop:ResourceWarning")
@pytest.mark.parametrize("close", [True, False])
def test_a_loop_that_is_dropped(new_loop, close):
    loop = new_loop()
    things = [Thing() for _ in range(MANY)]
    gone = list(map(weakref.ref, things))

    async def main(loop):
        for thing in things:
            thing.loop = loop
            loop.call_later(3600, thing.method, thing)

    loop.run_until_complete(main(loop))
    things.clear()
    gc.collect()
    assert all(reference() is not None for reference in gone)
    if close:
        loop.close()
    del loop
    gc.collect()
    assert all(reference() is None for reference in gone)


def test_weak_references_to_handles(loop, turns, inside):
    """A handle that somebody can reach, if only weakly, stays."""
    now = loop.time()
    references = []

    @inside
    def _():
        for i in range(MANY):
            references.append(weakref.ref(loop.call_at(now - 1 + i * 1e-6, int)))

    assert all(reference() is not None for reference in references)
    assert references[-1]().when() == now - 1 + (MANY - 1) * 1e-6
    references[7]().cancel()
    turns(2)
    gc.collect()
    assert all(reference() is None for reference in references)


def test_cancelled_among_kept_and_dropped(loop, turns, inside):
    seen = []
    now = loop.time() - 1
    kept = []

    @inside
    def _():
        for i in range(3 * MANY):
            handle = loop.call_at(now + i * 1e-6, seen.append, i)
            if i % 3:
                kept.append(handle)

    for handle in kept[::2]:
        handle.cancel()
    turns(2)
    assert seen == [i for i in range(3 * MANY) if i % 3 != 1]
    assert [handle.cancelled() for handle in kept] == [True, False] * MANY


def test_failures_name_the_timer(loop, turns, inside):
    reports = []
    loop.set_exception_handler(lambda loop, context: reports.append(context))
    now = loop.time() - 1

    def failing(number):
        raise ValueError(number)

    @inside
    def _():
        for i in range(MANY):
            loop.call_at(now + i * 1e-6, failing, i)

    turns(2)
    assert [context["exception"].args for context in reports] == [(i,) for i in range(MANY)]
    for i in (9, MANY - 9):
        assert reports[i]["message"].startswith("Exception in callback ")
        assert "failing(" in reports[i]["message"]  # newer Pythons hide the arguments
        handle = reports[i]["handle"]
        assert isinstance(handle, asyncio.TimerHandle)
        assert handle.when() == now + i * 1e-6
        assert "source_traceback" not in reports[i]


def test_an_exit_leaves_the_rest_for_the_next_run(loop, turns, inside):
    seen = []
    now = loop.time() - 1

    def callback(i):
        seen.append(i)
        if i == 1000:
            raise KeyboardInterrupt

    @inside
    def _():
        for i in range(MANY):
            loop.call_at(now + i * 1e-6, callback, i)

    with pytest.raises(KeyboardInterrupt):
        turns(2)
    assert seen == list(range(1001))
    turns(2)
    assert seen == list(range(MANY))


def test_debug_mode_switched_on_between(loop, turns, inside):
    seen = []
    now = loop.time() - 1

    @inside
    def _():
        for i in range(MANY):
            loop.call_at(now + i * 1e-6, seen.append, i)
        loop.set_debug(True)
        for i in range(MANY, 2 * MANY):
            loop.call_at(now + i * 1e-6, seen.append, i)

    turns(2)
    assert seen == list(range(2 * MANY))


def test_set_and_run_again_and_again(loop, turns, inside):
    """The places of those that ran are used again, in whatever order they became free."""
    seen = []
    counter = itertools.count()
    choose = random.Random(9)
    now = loop.time()
    expected = []

    def set_some():
        for _ in range(MANY // 2):
            number = next(counter)
            soon = choose.random() < 0.7
            loop.call_at(now - 1 + number * 1e-6 if soon else now + 3600, seen.append, number)
            if soon:
                expected.append(number)

    for _ in range(20):
        inside(set_some)
    turns(1)
    assert seen == expected


def test_collections_while_they_run(loop, turns, inside):
    seen = []
    now = loop.time() - 1

    def callback(i):
        seen.append(i)
        if i % 500 == 0:
            gc.collect()
            loop.call_later(-1, seen.append, "more")

    @inside
    def _():
        for i in range(MANY):
            loop.call_at(now + i * 1e-6, callback, i)

    turns(3)
    assert seen == [*range(MANY), *["more"] * 6]


@pytest.mark.only("uvloop_clone")
def test_a_nested_run_goes_on_with_the_rest(loop, run):
    loop.allow_nested()
    seen = []

    def callback(i):
        seen.append(i)
        if i == 100:
            loop.run_until_complete(asyncio.sleep(0))
            seen.append("nested")

    async def main():
        now = loop.time() - 1
        for i in range(MANY):
            loop.call_at(now + i * 1e-6, callback, i)
        await asyncio.sleep(0.01)

    run(main())
    assert seen == [*range(MANY), "nested"]


@pytest.mark.leaks
@pytest.mark.only("uvloop_clone")
def test_memory_of_a_timer_whose_handle_is_dropped(loop, turns, inside):
    """40 bytes of a record, which grow by doubling, and 24 in the heap, likewise."""
    count = 100_000
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]

        @inside
        def _():
            for _ in itertools.repeat(None, count):
                loop.call_later(3600, int)

        assert tracemalloc.get_traced_memory()[0] - before < 2 * 64 * count
    finally:
        tracemalloc.stop()


@pytest.mark.leaks
@pytest.mark.only("uvloop_clone")
def test_the_memory_of_many_is_given_back(loop, run):
    async def burst():
        for _ in itertools.repeat(None, 200_000):
            loop.call_later(0, int)
        await asyncio.sleep(0)

    async def main():
        await burst()
        await asyncio.sleep(0.01)
        tracemalloc.start()
        try:
            await burst()
            assert tracemalloc.get_traced_memory()[0] > 6_000_000
            await asyncio.sleep(0.01)  # the loop waits
            assert tracemalloc.get_traced_memory()[0] < 1_000_000
        finally:
            tracemalloc.stop()

    run(main())
