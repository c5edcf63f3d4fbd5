"""Contexts of callbacks: each has the variables of its caller, and keeps what it sets to itself."""

import asyncio
import contextvars
import gc
import sys
import threading
import weakref

import pytest

pytestmark = pytest.mark.core

var = contextvars.ContextVar("var", default="unset")
other = contextvars.ContextVar("other", default="unset")
HAS_GET_CONTEXT = sys.version_info >= (3, 12)


class Value:
    """Something that weak references can follow."""


def go(loop, count, function, *args):
    """Call the function and go on for so many turns, all in one run."""

    def count_down(left):
        if left:
            loop.call_soon(count_down, left - 1)
        else:
            loop.stop()

    loop.call_soon(function, *args)
    loop.call_soon(count_down, count)
    loop.run_forever()


def test_what_one_sets_no_other_sees(loop):
    seen = []

    def callback(i):
        seen.append((var.get(), other.get()))
        if i % 3 == 0:
            var.set(i)
        if i % 5 == 0:
            other.set(i)

    def queue():
        for i in range(50):
            loop.call_soon(callback, i)

    go(loop, 1, queue)
    assert seen == [("unset", "unset")] * 50


def test_each_sees_what_was_set_when_it_was_queued(loop):
    seen = []

    def callback():
        seen.append(var.get())
        var.set("callback's")

    def queue():
        for i in range(20):
            if i % 4 == 0:
                var.set(i)
            loop.call_soon(callback)
        var.set("too late")

    go(loop, 1, queue)
    assert seen == [i // 4 * 4 for i in range(20)]


def test_a_chain_hands_its_variables_on(loop):
    seen = []

    def callback(left):
        seen.append(var.get())
        var.set(left)
        if left:
            loop.call_soon(callback, left - 1)

    go(loop, 6, callback, 5)
    assert seen == ["unset", 5, 4, 3, 2, 1]


def test_two_chains_side_by_side(loop):
    seen = []

    def callback(name, left):
        seen.append((name, var.get()))
        if left:
            loop.call_soon(callback, name, left - 1)

    def queue():
        for name in "ab":
            context = contextvars.copy_context()
            context.run(var.set, name)
            context.run(loop.call_soon, callback, name, 5)

    go(loop, 6, queue)
    assert seen == [("a", "a"), ("b", "b")] * 6


def test_set_and_reset(loop):
    seen, tokens = [], []

    def callback(i):
        seen.append(var.get())
        token = var.set(i)
        if i % 2:
            var.reset(token)
        else:
            tokens.append(token)

    def queue():
        for i in range(20):
            loop.call_soon(callback, i)

    go(loop, 1, queue)
    assert seen == ["unset"] * 20


def test_a_token_is_of_no_use_to_another(loop, errors):
    """Even where the first one has left no trace in its context."""
    tokens = []

    def first():
        outer = var.set(1)
        tokens.append(var.set(2))
        var.reset(outer)

    def second():
        assert var.get() == "unset"
        with pytest.raises(ValueError, match="different Context"):
            var.reset(tokens.pop())
        tokens.append("tried")

    def queue():
        loop.call_soon(first)
        loop.call_soon(second)

    contextvars.Context().run(go, loop, 1, queue)
    assert tokens == ["tried"]


def test_a_failing_callback_changes_nothing_for_the_next(loop):
    seen, reports = [], []
    loop.set_exception_handler(lambda loop, context: reports.append(context["handle"]))

    def callback(i):
        seen.append(var.get())
        var.set(i)
        if i % 2:
            raise ValueError(i)

    def queue():
        for i in range(6):
            loop.call_soon(callback, i)

    go(loop, 1, queue)
    assert seen == ["unset"] * 6
    assert len(reports) == 3
    if HAS_GET_CONTEXT:
        assert [handle.get_context()[var] for handle in reports] == [1, 3, 5]


def test_an_exit_changes_nothing_for_the_next(loop):
    seen = []

    def callback(i):
        seen.append(var.get())
        var.set(i)
        if i == 1:
            raise KeyboardInterrupt

    def queue():
        for i in range(4):
            loop.call_soon(callback, i)

    with pytest.raises(KeyboardInterrupt):
        go(loop, 1, queue)
    go(loop, 1, int)
    assert seen == ["unset"] * 4


@pytest.mark.skipif(not HAS_GET_CONTEXT, reason="Handle.get_context is new in 3.12")
@pytest.mark.parametrize("method", ["call_soon", "call_later"])
def test_a_kept_handle_has_the_context_it_ran_in(loop, method):
    handles, shown = [], []
    before = () if method == "call_soon" else (-1,)

    def queue():
        for i in range(9):
            handle = getattr(loop, method)(*before, var.set, i)
            if i % 3 == 0:
                shown.append(handle.get_context())
                assert var not in shown[-1]
                handles.append(handle)
            elif i % 3 == 1:
                handles.append(handle)
            del handle

    go(loop, 1, queue)
    assert [handle.get_context()[var] for handle in handles] == [0, 1, 3, 4, 6, 7]
    assert [context[var] for context in shown] == [0, 3, 6]
    assert [handle.get_context() for handle in handles[::2]] == shown
    assert len({id(handle.get_context()) for handle in handles}) == 6


def test_a_callback_that_reaches_its_own_handle_weakly(loop):
    references, seen = [], []

    def callback():
        var.set("set")
        handle = references[0]()
        seen.append(handle._context[var])

    go(loop, 1, lambda: references.append(weakref.ref(loop.call_soon(callback))))
    assert seen == ["set"]


def test_values_live_no_longer_than_their_callbacks(loop, run):
    gone = []

    def queue():
        value = Value()
        gone.append(weakref.ref(value))
        var.set(value)
        for _ in range(5):
            loop.call_soon(int)

    async def main():
        loop.call_soon(queue)
        for _ in range(4):
            await asyncio.sleep(0)
        gc.collect()
        assert gone[0]() is None

    run(main())


def test_values_are_given_up_when_the_run_ends(loop):
    gone = []

    def queue():
        value = Value()
        gone.append(weakref.ref(value))
        var.set(value)
        loop.call_soon(loop.stop)

    loop.call_soon(queue)
    loop.run_forever()
    gc.collect()
    assert gone[0]() is None


def test_values_of_callbacks_that_never_run(loop):
    gone = []

    def queue():
        value = Value()
        gone.append(weakref.ref(value))
        var.set(value)
        return loop.call_soon(int), loop.call_later(60, int)

    for handle in contextvars.copy_context().run(queue):
        handle.cancel()
    del handle
    loop.close()
    gc.collect()
    assert gone[0]() is None


def test_values_of_callbacks_that_a_run_leaves_behind(loop):
    gone = []

    def queue():
        value = Value()
        gone.append(weakref.ref(value))
        var.set(value)
        loop.call_soon(int)
        loop.call_later(3600, int)

    go(loop, 0, queue)
    gc.collect()
    assert gone[0]() is not None
    loop.close()
    gc.collect()
    assert gone[0]() is None


def test_from_another_thread(loop, run):
    seen = []

    async def main():
        var.set("loop's")
        done = loop.create_future()

        def work():
            var.set("thread's")
            for _ in range(3):
                loop.call_soon_threadsafe(lambda: seen.append(var.get()))
            loop.call_soon_threadsafe(done.set_result, None)

        for _ in range(3):
            loop.call_soon(lambda: seen.append(var.get()))
        thread = threading.Thread(target=contextvars.Context().run, args=(work,))
        thread.start()
        await done
        thread.join()

    run(main())
    assert seen == ["loop's"] * 3 + ["thread's"] * 3


@pytest.mark.only("uvloop_clone")
def test_a_nested_run_in_the_midst(loop, run):
    loop.allow_nested()
    seen = []

    def callback(i):
        seen.append((i, var.get()))
        var.set(i)
        if i == 1:
            loop.run_until_complete(asyncio.sleep(0))
            assert var.get() == 1

    async def main():
        for i in range(5):
            loop.call_soon(callback, i)
        await asyncio.sleep(0.01)

    run(main())
    assert seen == [(i, "unset") for i in range(5)]


def test_a_reader_keeps_its_context(loop, run, sockets):
    """One context for all its calls, unlike callbacks that are queued anew."""
    seen = []
    a, b = sockets

    def callback():
        seen.append(var.get())
        var.set(len(seen))
        a.recv(1)

    async def main():
        loop.add_reader(a, callback)
        for _ in range(3):
            b.send(b"x")
            await asyncio.sleep(0.01)
        loop.remove_reader(a)

    run(main())
    assert seen == ["unset", 1, 2]


def test_tasks_and_callbacks_of_futures(loop, run):
    seen = []

    async def worker(i):
        var.set(i)
        future = loop.create_future()
        future.add_done_callback(lambda _: seen.append((i, var.get())))
        loop.call_soon(future.set_result, None)
        await future
        loop.call_soon(lambda: seen.append((i, var.get())))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert var.get() == i

    async def main():
        await asyncio.gather(*map(worker, range(10)))

    run(main())
    assert sorted(seen) == sorted([(i, i) for i in range(10)] * 2)
