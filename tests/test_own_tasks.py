"""What a task is to its program, in the corners that a loop which steps its tasks itself may miss:
cancellation, who is current, what outlives a step, what is reported and when."""

import asyncio
import contextlib
import contextvars
import functools
import gc
import io
import sys
import threading
import traceback
import weakref

import pytest

pytestmark = [
    pytest.mark.core,
    pytest.mark.skipif(sys.version_info < (3, 11), reason="3.10's tasks are asyncio's"),
]

var = contextvars.ContextVar("var", default="unset")

PyTask, PyFuture = asyncio.tasks._PyTask, asyncio.futures._PyFuture
MAKERS = ["create_task", "Task", "PyTask"]


def make_task(maker, loop, coro, **kwargs):
    if maker == "create_task":
        return loop.create_task(coro, **kwargs)
    return {"Task": asyncio.Task, "PyTask": PyTask}[maker](coro, loop=loop, **kwargs)


def current_task(loop, maker="create_task"):
    """From 3.14 on tasks of asyncio's Python class are current in its Python functions alone."""
    python = maker == "PyTask" and sys.version_info >= (3, 14)
    return (asyncio.tasks._py_current_task if python else asyncio.current_task)(loop)


def current_name(loop, maker="create_task"):
    task = current_task(loop, maker)
    return None if task is None else task.get_name()


def functions(exc):
    """The names of the functions in the traceback."""
    return [frame.f_code.co_name for frame, _ in traceback.walk_tb(exc.__traceback__)]


def contexts(exc):
    found = []
    while (exc := exc.__context__) is not None:
        found.append(type(exc))
    return found


class Yields:
    def __init__(self, thing):
        self.thing = thing

    def __await__(self):
        return (yield self.thing)


class Likeness:
    """Like a future; the callbacks are its test's affair."""

    _asyncio_future_blocking = False

    def __init__(self, loop, adding=None):
        self.loop, self.adding = loop, adding
        self.callbacks = []
        self.reason = None

    def get_loop(self):
        return self.loop

    def add_done_callback(self, callback, *, context=None):
        self.callbacks.append(functools.partial(callback, self))
        if self.adding is not None:
            self.adding(self)

    def result(self):
        if self.reason is not None:
            raise asyncio.CancelledError(*self.reason)

    def cancel(self, msg=None):
        if self.reason is not None:
            return False
        self.reason = (msg,)
        for callback in self.callbacks:
            self.loop.call_soon(callback)
        return True

    def __await__(self):
        self._asyncio_future_blocking = True
        yield self


# ---- cancelling ---------------------------------------------------------------------------


@pytest.mark.parametrize("message", [None, "text", ("a", "b"), (), 7])
@pytest.mark.parametrize("started", [False, True])
def test_the_message_of_cancel(loop, run, message, started):
    async def main():
        task = loop.create_task(asyncio.sleep(30))
        if started:
            await asyncio.sleep(0)
        assert task.cancel(message)
        assert task.cancelling() == 1
        assert task._must_cancel is not started
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
        assert caught.value.args == (() if message is None else (message,))
        assert not task.cancel("late")
        assert task.cancelling() == 1

    run(main())


def test_cancel_before_the_start_runs_nothing(loop, run):
    seen = []

    async def work():
        seen.append(1)

    async def main():
        task = loop.create_task(work())
        task.cancel(msg="x")
        await asyncio.wait([task])
        assert task.cancelled() and seen == []

    run(main())


@pytest.mark.parametrize("awaiting", ["future", "task", "sleep(0)"])
def test_a_task_that_cancels_itself(loop, run, awaiting):
    async def work():
        asyncio.current_task().cancel("self")
        assert asyncio.current_task()._must_cancel
        if awaiting == "future":
            await loop.create_future()
        elif awaiting == "task":
            await loop.create_task(asyncio.sleep(30))
        else:
            await asyncio.sleep(0)

    async def main():
        task = loop.create_task(work())
        with pytest.raises(asyncio.CancelledError, match="self"):
            await task
        assert not task._must_cancel

    run(main())


def test_cancelled_right_before_the_end(loop, run):
    async def work():
        asyncio.current_task().cancel("last")
        return 1

    async def main():
        task = loop.create_task(work())
        with pytest.raises(asyncio.CancelledError, match="last") as caught:
            await task
        assert "work" not in functions(caught.value)

    run(main())


def test_cancel_reaches_the_innermost_task(loop, run):
    async def middle(inner):
        await inner

    async def main():
        inner = loop.create_task(asyncio.sleep(30))
        outer = loop.create_task(middle(inner))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert outer._fut_waiter is inner
        outer.cancel("down")
        assert inner.cancelling() == 1 and not outer._must_cancel
        with pytest.raises(asyncio.CancelledError, match="down") as caught:
            await outer
        assert functions(caught.value)[-1] == "sleep"

    run(main())


def test_cancel_between_the_result_and_the_step(loop, run):
    """The future is done, the task is queued: its exception gives way to the cancellation."""
    caught = []

    async def work(future):
        try:
            await future
        except BaseException as exc:
            caught.append(type(exc))

    async def main():
        for finish in (
            lambda f: f.set_result(1),
            lambda f: f.set_exception(KeyError()),
            lambda f: f.cancel(),
        ):
            future = loop.create_future()
            task = loop.create_task(work(future))
            await asyncio.sleep(0)
            finish(future)
            assert task.cancel() and task._must_cancel
            await task
            assert caught.pop() is asyncio.CancelledError

    run(main())


def test_a_task_that_swallows_its_cancellation(loop, run):
    async def work():
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            assert task.cancelling() == 2 and task.uncancel() == 1 and task.uncancel() == 0
            assert task.uncancel() == 0
        await asyncio.sleep(0)
        return "survived"

    async def main():
        task = loop.create_task(work())
        await asyncio.sleep(0)
        assert task.cancel() and task.cancel()
        assert await task == "survived"

    run(main())


def test_uncancel_before_the_step(loop, run):
    async def work():
        await asyncio.sleep(0)
        return "went on"

    async def main():
        task = loop.create_task(work())
        task.cancel()
        task.uncancel()
        await asyncio.wait([task])
        assert task.cancelled() is (sys.version_info < (3, 13))

    run(main())


def test_cancel_from_a_done_callback(loop, run):
    async def main():
        other = loop.create_task(asyncio.sleep(30))
        first = loop.create_task(asyncio.sleep(0))
        first.add_done_callback(lambda _: other.cancel("callback"))
        with pytest.raises(asyncio.CancelledError, match="callback"):
            await other

    run(main())


def test_the_arguments_of_cancel(loop, run):
    async def main():
        task = loop.create_task(asyncio.sleep(0))
        for args, kwargs in (((1, 2), {}), ((), {"message": 1}), ((1,), {"msg": 1})):
            with pytest.raises(TypeError):
                task.cancel(*args, **kwargs)
        assert task.cancelling() == 0
        await task

    run(main())


def test_a_message_does_not_outlive_the_cancellation(kind, loop, run):

    class Message:
        pass

    async def work():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(30)
        raise asyncio.CancelledError

    async def main():
        task = loop.create_task(work())
        message = Message()
        task.cancel(message)
        held = weakref.ref(message)
        del message
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0)
        return held, task

    held, task = run(main())
    gc.collect()
    assert task.cancelled() and held() is None


# ---- the outcome --------------------------------------------------------------------------


def test_the_traceback_of_a_cancellation_is_for_the_first_who_asks(loop, run):
    async def work():
        await asyncio.sleep(30)

    async def main():
        task = loop.create_task(work())
        await asyncio.sleep(0)
        task.cancel("once")
        await asyncio.wait([task])
        with pytest.raises(asyncio.CancelledError) as first:
            task.result()
        with pytest.raises(asyncio.CancelledError) as second:
            task.exception()
        with pytest.raises(asyncio.CancelledError) as third:
            await task
        assert first.value.args == ("once",) and "work" in functions(first.value)
        assert second.value is not first.value and "work" not in functions(second.value)
        assert "work" not in functions(third.value)

    run(main())


@pytest.mark.parametrize("awaiter", MAKERS)
@pytest.mark.parametrize("awaited", MAKERS)
def test_several_await_one(loop, run, awaiter, awaited):
    async def work():
        await asyncio.sleep(0)
        raise KeyError("x")

    async def waits(task):
        try:
            await task
        except KeyError as exc:
            return functions(exc)

    async def main():
        task = make_task(awaited, loop, work())
        waiting = [make_task(awaiter, loop, waits(task)) for _ in range(3)]
        found = [await each for each in waiting]
        assert all(names[0] == "waits" and names[-1] == "work" for names in found[:1])
        assert all(names[0] == "waits" for names in found)
        with pytest.raises(KeyError):  # finished: again and again
            await task
        with pytest.raises(KeyError):
            await task

    run(main())


def test_no_context_is_added_to_what_is_raised_elsewhere(kind, loop):
    """A run within an except block: the exception of a future is not raised by the loop."""
    found = []

    async def inner():
        try:
            raise KeyError
        except KeyError:
            raise TimeoutError from None

    async def main():
        future = loop.create_future()
        loop.call_soon(future.set_exception, IndexError())
        try:
            await future
        except IndexError as exc:
            found.append(contexts(exc))
        try:
            await loop.create_task(inner())
        except TimeoutError as exc:
            found.append(contexts(exc))

    try:
        raise ValueError
    except ValueError:
        loop.run_until_complete(main())
    assert found == [[], [KeyError, ValueError]]


@pytest.mark.parametrize("leaving", [SystemExit, KeyboardInterrupt])
def test_what_leaves_the_loop(loop, leaving):
    seen = []

    async def work():
        raise leaving("out")

    async def waits(task):
        try:
            await task
        except leaving:
            seen.append(current_name(loop))

    task = loop.create_task(work())
    waiting = loop.create_task(waits(task), name="waits")
    with pytest.raises(leaving):
        loop.run_forever()
    assert asyncio.current_task(loop) is None
    assert task.done() and not waiting.done()
    loop.run_until_complete(waiting)
    assert seen == ["waits"]


def test_a_result_set_by_hand(loop, turns, errors):
    """Future.set_result() of a task: its next step finds it done."""

    async def work():
        await asyncio.sleep(0)

    task = loop.create_task(work())
    turns(1)
    asyncio.Future.set_result(task, "by hand")
    turns(2)
    assert task.result() == "by hand"
    assert [type(exc) for exc in errors.exceptions] == [asyncio.InvalidStateError]
    assert "step(): already done" in str(errors.exceptions[0])
    with pytest.raises(RuntimeError, match="does not support set_result"):
        task.set_result(1)


# ---- what a coroutine may yield -----------------------------------------------------------


@pytest.mark.parametrize("maker", MAKERS)
def test_what_cannot_be_awaited(loop, run, maker):
    async def work(thing):
        try:
            await Yields(thing)
        except RuntimeError as exc:
            return str(exc)

    async def itself():
        try:
            await current_task(loop, maker)
        except RuntimeError as exc:
            return str(exc)

    async def main():
        foreign_loop = asyncio.new_event_loop()
        foreign = foreign_loop.create_future()
        foreign._asyncio_future_blocking = True
        for thing, text in (
            (7, "Task got bad yield: 7"),
            ("text", "Task got bad yield: 'text'"),
            ((i for i in ()), "yield was used instead of yield from for generator in task"),
            (loop.create_future(), "yield was used instead of yield from in task"),
            (foreign, "attached to a different loop"),
            (Likeness(foreign_loop), "attached to a different loop"),
            (Likeness(loop), "yield was used instead of yield from in task"),
        ):
            assert text in await make_task(maker, loop, work(thing))
        assert "Task cannot await on itself" in await make_task(maker, loop, itself())
        foreign_loop.close()

    run(main())


@pytest.mark.parametrize("kind_of_future", ["own", "Python", "subclass", "likeness"])
def test_every_kind_of_future(loop, run, kind_of_future):
    class Sub(asyncio.Future):
        pass

    async def main():
        if kind_of_future == "likeness":
            future = Likeness(loop)
        else:
            makers = {"own": asyncio.Future, "Python": PyFuture, "subclass": Sub}
            future = makers[kind_of_future](loop=loop)

        async def work():
            await future

        task = loop.create_task(work())
        await asyncio.sleep(0)
        assert task._fut_waiter is future
        task.cancel("m")
        with pytest.raises(asyncio.CancelledError, match="m"):
            await task
        assert task._fut_waiter is None

    run(main())


def test_a_likeness_whose_callback_cancels_while_it_is_added(kind, loop, run):
    """asyncio cancels the future behind add_done_callback(): before it, nothing wakes the task."""
    seen = []

    def adding(future):
        task = asyncio.current_task()
        seen.append(task._fut_waiter)
        callbacks, future.callbacks = future.callbacks, []
        task.cancel("while adding")
        future.callbacks = callbacks

    async def work():
        await Likeness(loop, adding)

    async def main():
        task = loop.create_task(work())
        await asyncio.wait([task], timeout=1)
        assert task.cancelled() and seen == [None]

    run(main())


def test_a_likeness_that_calls_back_at_once(kind, loop, turns, errors):
    texts = []

    def adding(future):
        try:
            future.callbacks.pop()()
        except RuntimeError as exc:
            texts.append(str(exc))

    async def work():
        me = asyncio.current_task()
        await Likeness(loop, adding)
        me.cancel()
        await asyncio.sleep(0)

    task = loop.create_task(work(), name="work")
    turns(3)
    assert len(texts) == 1 and texts[0].startswith("Cannot enter into task")
    assert not task.done()
    task._log_destroy_pending = False
    asyncio.Future.cancel(task)


def test_another_task_is_not_stepped_within_a_step(kind, loop, run):

    async def work(future):
        await future

    async def main():
        future = loop.create_future()
        task = loop.create_task(work(future))
        await asyncio.sleep(0)
        done = loop.create_future()
        done.set_result(None)
        [(wakeup, _)] = future._callbacks
        with pytest.raises(RuntimeError, match="Cannot enter into task"):
            wakeup(done)
        assert asyncio.current_task() is main_task
        future.set_result(None)
        await task

    main_task = loop.create_task(main())
    loop.run_until_complete(main_task)


def test_a_likeness_that_calls_back_twice(kind, loop, turns, errors):
    """The second call comes while the task is queued, and brings it to its end."""
    future = Likeness(loop)
    ends = []

    async def work():
        await future
        await asyncio.sleep(0)
        ends.append(1)

    task = loop.create_task(work())
    turns(1)
    loop.call_soon(future.callbacks[0])
    loop.call_soon(future.callbacks[0])
    turns(3)
    assert task.done() and ends == [1]
    assert [type(exc) for exc in errors.exceptions] == [asyncio.InvalidStateError]


# ---- who is current -----------------------------------------------------------------------


def test_current_task_everywhere(loop, turns):
    seen = []

    def note(*_):
        seen.append(current_name(loop))

    async def work(future):
        note()
        await asyncio.sleep(0)
        note()
        loop.call_soon(note)
        await future
        note()

    future = loop.create_future()
    for name in "ab":
        loop.create_task(work(future), name=name).add_done_callback(note)
    loop.call_soon(note)
    turns(1)
    assert seen == ["a", "b", None]
    turns(2)
    assert seen[3:] == ["a", "b", None, None]
    loop.call_later(0, future.set_result, None)
    future.add_done_callback(note)
    turns(5)
    assert seen[7:] == ["a", "b", None, None, None]


def test_nobody_is_current_when_a_task_dies_between_steps(kind, loop, turns):
    """It waits for what forgets it, and another task comes next."""
    seen = []

    async def dies():
        asyncio.current_task()._log_destroy_pending = False  # whose report would keep it
        try:
            await Likeness(loop, lambda future: future.callbacks.clear())
        finally:
            seen.append(current_name(loop))

    async def follows():
        seen.append(current_name(loop))

    loop.create_task(dies(), name="dies")
    task = loop.create_task(follows(), name="follows")
    turns(2)
    assert seen == [None, "follows"] and task.done()


@pytest.mark.only("uvloop_clone")
@pytest.mark.parametrize("maker", MAKERS)
def test_current_task_in_a_nested_run(loop, maker):
    loop.allow_nested()
    seen = []

    async def inner():
        await asyncio.sleep(0)
        seen.append(current_name(loop, maker))

    async def outer():
        seen.append(current_name(loop))
        loop.run_until_complete(make_task(maker, loop, inner(), name="inner"))
        seen.append(current_name(loop))
        await asyncio.sleep(0)
        seen.append(current_name(loop))

    loop.run_until_complete(loop.create_task(outer(), name="outer"))
    assert seen == ["outer", "inner", "outer", "outer"]
    assert asyncio.current_task(loop) is None


@pytest.mark.only("uvloop_clone")
@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks are new in 3.12")
def test_a_nested_run_in_an_eager_task(kind, loop):
    loop.allow_nested()
    seen = []

    async def eager():
        loop.run_until_complete(asyncio.sleep(0))
        seen.append(current_name(loop))

    async def main():
        asyncio.Task(eager(), loop=loop, eager_start=True, name="eager")
        seen.append(current_name(loop))
        await asyncio.sleep(0)
        seen.append(current_name(loop))

    loop.run_until_complete(loop.create_task(main(), name="main"))
    assert seen == ["eager", "main", "main"]
    assert asyncio.current_task(loop) is None


def test_nobody_is_current_when_a_cancelled_handle_dies(kind, loop, turns):
    """Its context is all that it still has."""
    seen = []

    class Dies:
        def __del__(self):
            seen.append(current_name(loop))

    task = loop.create_task(asyncio.sleep(0))
    context = contextvars.Context()
    context.run(var.set, Dies())
    loop.call_soon(print, context=context).cancel()
    del context
    turns(1)
    assert seen == [None]
    loop.run_until_complete(task)


def test_two_threads_make_tasks_at_once(kind, loop, new_loop):
    """Whatever is remembered of a task being made is not another thread's."""
    inside, asked = threading.Barrier(2), []

    class Name:
        def __init__(self, waits_for):
            self.waits_for = waits_for

        def __str__(self):
            if self.waits_for is other_done:
                first_in.set()
                inside.wait(10)
            else:
                inside.wait(10)
                other_done.wait(10)
            return "name"

    class Callback:
        def __call__(self):
            pass

        def __getattr__(self, name):
            asked.append(name)
            raise AttributeError(name)

    first_in, other_done = threading.Event(), threading.Event()

    def first():
        other = new_loop()
        other.run_until_complete(other.create_task(asyncio.sleep(0), name=Name(other_done)))
        other.close()
        other_done.set()

    thread = threading.Thread(target=first)
    thread.start()
    first_in.wait(10)
    loop.run_until_complete(loop.create_task(asyncio.sleep(0), name=Name(None)))
    thread.join()
    loop.call_soon(Callback())
    loop.run_until_complete(asyncio.sleep(0))
    assert asked == []


def test_all_tasks(loop, run):
    async def work():
        await asyncio.sleep(0)

    async def main():
        tasks = {loop.create_task(work()) for _ in range(3)}
        assert asyncio.all_tasks() == tasks | {asyncio.current_task()}
        await asyncio.wait(tasks)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    loop.run_until_complete(main())


# ---- what outlives what -------------------------------------------------------------------


def test_the_awaited_task_lives_through_the_step(kind, loop, run):
    """Until the awaiter's step is over, as the argument of its wake-up."""
    seen = []

    async def work():
        await asyncio.sleep(0)

    async def main():
        task = loop.create_task(work())
        held = weakref.ref(task, lambda _: seen.append(current_name(loop)))
        wait, task = task.__await__(), None
        await Wrapped(wait)
        del wait
        seen.append(held() is not None)
        await asyncio.sleep(0)
        assert seen == [True, None]

    class Wrapped:
        def __init__(self, iterator):
            self.__await__ = iterator

        def __await__(self):
            return self.__dict__.pop("__await__")

    loop.run_until_complete(main())


def test_what_is_over_dies_at_once(loop):
    class Local:
        pass

    held = []

    async def work(how):
        local = Local()
        held.append(weakref.ref(local))
        await asyncio.sleep(0)
        if how == "fails":
            raise KeyError
        if how == "sleeps":
            await asyncio.sleep(30)

    async def main(how):
        task = loop.create_task(work(how))
        held.append(weakref.ref(task))
        held.append(weakref.ref(task.get_coro()))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        if how == "sleeps":
            task.cancel()
        try:
            await task
        except (KeyError, asyncio.CancelledError):
            del task  # this frame is in the traceback of its exception

    gc.collect()
    gc.disable()
    try:
        for how in ("returns", "fails", "sleeps"):
            loop.run_until_complete(main(how))
    finally:
        gc.enable()
    assert len(held) == 9 and [ref() for ref in held] == [None] * 9


def test_a_pending_task_in_a_cycle_is_collected(loop, turns, errors):
    async def work(future):
        await future

    future = loop.create_future()
    task = loop.create_task(work(future), name="lost")
    turns(1)
    held = weakref.ref(future)
    del task, future
    assert held() is not None
    gc.collect()
    assert errors.messages == ["Task was destroyed but it is pending!"]
    assert set(errors[0]) == {"task", "message"}
    assert errors[0]["task"].get_name() == "lost"
    errors.clear()
    gc.collect()  # the report had brought it back
    assert held() is None


def test_a_task_is_queued_when_the_loop_closes(loop, turns, errors):
    async def work():
        while True:
            await asyncio.sleep(0)

    loop.create_task(work())
    turns(1)
    loop.close()
    gc.collect()
    assert errors.messages == ["Task was destroyed but it is pending!"]
    errors.clear()


def test_never_retrieved_is_reported_when_it_dies(loop, turns, errors):
    async def work():
        raise KeyError

    task = loop.create_task(work())
    turns(3)
    assert errors == []
    del task
    assert errors.messages == ["Task exception was never retrieved"]
    assert set(errors[0]) == {"message", "exception", "future"}
    errors.clear()


def test_cancel_after_the_end_silences_the_report(loop, turns, errors):
    async def work():
        raise KeyError

    task = loop.create_task(work())
    turns(2)
    assert not task.cancel()
    del task
    gc.collect()
    assert errors == []


# ---- contexts -----------------------------------------------------------------------------


def test_each_step_runs_in_the_tasks_context(loop, run):
    async def work(future):
        seen = [var.get()]
        var.set("by the task")
        await asyncio.sleep(0)
        seen.append(var.get())
        await future
        seen.append(var.get())
        return seen

    async def main():
        var.set("outer")
        future = loop.create_future()
        context = contextvars.copy_context()
        task = loop.create_task(work(future), context=context)
        var.set("later")
        await asyncio.sleep(0)
        contextvars.copy_context().run(loop.call_soon, future.set_result, None)
        assert await task == ["outer", "by the task", "by the task"]
        assert context[var] == "by the task" and var.get() == "later"

    run(main())


# ---- somebody else's call_soon() ----------------------------------------------------------


def test_call_soon_replaced_on_the_instance_sees_every_step(loop, run):
    calls = []
    original = loop.call_soon

    def call_soon(callback, *args, context=None):
        calls.append(len(args))
        assert context is not None
        handle = original(callback, *args, context=context)
        assert not handle.cancelled()
        return handle

    async def work(future):
        await asyncio.sleep(0)
        await future
        await asyncio.sleep(0)

    async def main():
        future = loop.create_future()
        old = loop.create_task(work(future))  # made before
        loop.call_soon = call_soon
        new = loop.create_task(work(future))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        future.set_result(None)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        del loop.call_soon
        assert old.done() and new.done()

    loop.run_until_complete(main())
    # new: its start; each: sleep(0), the wake-up, sleep(0); main: five times sleep(0)
    assert sorted(calls) == [0] * 10 + [1] * 2


def test_call_soon_replaced_on_the_class(kind, loop, monkeypatch):
    cls = next(c for c in type(loop).__mro__ if "call_soon" in vars(c))
    if kind == "uvloop_clone":
        cls = type(loop)
    original = cls.call_soon
    calls = []

    def call_soon(self, callback, *args, **kwargs):
        handle = original(self, callback, *args, **kwargs)
        calls.append(handle.cancelled())
        return handle

    async def main():
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    monkeypatch.setattr(cls, "call_soon", call_soon)
    loop.run_until_complete(main())
    monkeypatch.undo()
    assert len(calls) == 4  # the start, sleep(0) twice, run_until_complete()'s done callback


def test_debug_mode_is_switched_while_tasks_wait(loop, run):
    async def work(future):
        await asyncio.sleep(0)
        await future
        await asyncio.sleep(0)
        return 1

    async def main():
        for first in (False, True):
            loop.set_debug(first)
            future = loop.create_future()
            tasks = [loop.create_task(work(future)) for _ in range(3)]
            loop.set_debug(not first)
            await asyncio.sleep(0)
            loop.set_debug(first)
            await asyncio.sleep(0)
            loop.set_debug(not first)
            future.set_result(None)
            loop.set_debug(first)
            assert await asyncio.gather(*tasks) == [1, 1, 1]
        loop.set_debug(False)

    run(main())


# ---- what is shown of a task --------------------------------------------------------------


def test_repr_and_stack(loop, run):
    async def work(future):
        await future

    async def main():
        future = loop.create_future()
        task = loop.create_task(work(future), name="n")
        await asyncio.sleep(0)
        assert repr(task).startswith("<Task pending name='n' coro=<")
        assert "wait_for=<Future pending cb=[Task.task_wakeup()]>" in repr(task)
        assert [frame.f_code.co_name for frame in task.get_stack()] == ["work"]
        out = io.StringIO()
        task.print_stack(file=out)
        assert "await future" in out.getvalue()
        task.cancel()
        assert repr(task).startswith("<Task cancelling name='n'")
        await asyncio.wait([task])
        assert repr(task).startswith("<Task cancelled name='n'") and task.get_stack() == []

    run(main())


def test_a_task_has_attributes_and_weak_references(loop, run):
    async def main():
        task = loop.create_task(asyncio.sleep(0))
        task.anything = 1
        assert weakref.ref(task)() is task and task.anything == 1
        assert isinstance(task, asyncio.Task) and hash(task) == object.__hash__(task)
        for name in ("_must_cancel", "_fut_waiter"):
            with pytest.raises(AttributeError):
                setattr(task, name, None)
        await task

    run(main())


def test_await_by_hand(loop, run):
    async def main():
        task = loop.create_task(asyncio.sleep(0, "result"))
        iterator = task.__await__()
        assert iter(iterator) is iterator
        assert next(iterator) is task and task._asyncio_future_blocking
        with pytest.raises(RuntimeError, match="await wasn't used with future"):
            next(iterator)
        task._asyncio_future_blocking = False
        await asyncio.wait([task])
        with pytest.raises(StopIteration) as stop:
            iterator.send(None)
        assert stop.value.value == "result"
        with pytest.raises(StopIteration):
            next(iterator)
        for iterator in (task.__await__(), iter(task)):
            with pytest.raises(KeyError, match="thrown"):
                iterator.throw(KeyError("thrown"))
            with pytest.raises(StopIteration):
                next(iterator)
            iterator.close()

    run(main())


# ---- all kinds together -------------------------------------------------------------------


@pytest.mark.parametrize("inner", MAKERS)
@pytest.mark.parametrize("outer", MAKERS)
def test_kinds_of_tasks_await_each_other(loop, run, inner, outer):
    async def work(how):
        await asyncio.sleep(0)
        if how == "fails":
            raise KeyError
        await asyncio.sleep(30 if how == "is cancelled" else 0)
        return how

    async def waits(task):
        return await task

    async def main():
        for how in ("returns", "fails", "is cancelled"):
            first = make_task(inner, loop, work(how))
            second = make_task(outer, loop, waits(first))
            for _ in range(3):
                await asyncio.sleep(0)
            if how == "is cancelled":
                second.cancel("from outside")
            await asyncio.wait([second])
            assert first.done()
            if how == "returns":
                assert second.result() == how
            elif how == "fails":
                assert second.exception() is first.exception()
            else:
                assert first.cancelled() and second.cancelled()
                with pytest.raises(asyncio.CancelledError, match="from outside"):
                    second.result()

    run(main())


def test_a_long_chain_of_tasks(loop, run):
    async def link(task):
        return 1 if task is None else 1 + await task

    async def main():
        task = None
        for _ in range(3000):
            task = loop.create_task(link(task))
        assert await task == 3000

    run(main())


# ---- asked through asyncio's class -------------------------------------------------------


@pytest.mark.parametrize("maker", ["create_task", "Task"])
def test_cancelled_through_the_class(loop, run, maker):
    """As in `list(map(asyncio.Task.cancel, tasks))`."""

    async def sleep():
        await asyncio.sleep(10)

    async def main():
        waiting, twice = (make_task(maker, loop, sleep()) for _ in range(2))
        await asyncio.sleep(0)
        fresh = make_task(maker, loop, sleep())
        assert list(map(asyncio.Task.cancel, (waiting, fresh))) == [True, True]
        assert asyncio.Task.cancel(twice, "why")
        assert asyncio.Task.cancel(twice, msg="more")
        for ask in (asyncio.Task.cancelling, lambda task: task.cancelling()):
            assert list(map(ask, (waiting, fresh, twice))) == [1, 1, 2]
        assert asyncio.Task.uncancel(twice) == twice.cancelling() == 1
        await asyncio.wait([waiting, fresh, twice])
        assert all(map(asyncio.Task.cancelled, (waiting, fresh, twice)))
        assert not asyncio.Task.cancel(waiting)
        with pytest.raises(asyncio.CancelledError, match=r"^why$|^more$"):
            asyncio.Task.result(twice)
        for wrong in ((), (waiting, 1, 2), (3,)):
            with pytest.raises(TypeError):
                asyncio.Task.cancel(*wrong)

    run(asyncio.wait_for(main(), 5))


@pytest.mark.parametrize("owner", [asyncio.Task, asyncio.Future], ids=["Task", "Future"])
@pytest.mark.parametrize("name", ["result", "exception", "_make_cancelled_error"])
def test_the_message_of_a_cancelled_one_through_a_class(loop, run, owner, name):
    async def main():
        task = loop.create_task(asyncio.sleep(10))
        await asyncio.sleep(0)
        task.cancel("why")
        await asyncio.wait([task])
        try:
            exc = getattr(owner, name)(task)
        except asyncio.CancelledError as raised:
            exc = raised
        assert exc.args == ("why",)

    run(main())


def test_the_message_of_a_cancelled_one_is_told_once(loop, run):
    async def main():
        task = loop.create_task(asyncio.sleep(10))
        await asyncio.sleep(0)
        task.cancel("why")
        await asyncio.wait([task])
        for args in (("why",), ()):
            with pytest.raises(asyncio.CancelledError) as caught:
                task.result()
            assert caught.value.args == args
        assert task._cancel_message is None

    run(main())


# ---- asyncio's methods of a future -------------------------------------------------------


@pytest.fixture(params=["stepped by the loop", "of a subclass", "eager"])
def task(request, loop):
    """A task that waits for `task.future`, of each kind that our class comes in."""

    async def wait():
        return await future

    if request.param == "eager" and sys.version_info < (3, 12):
        pytest.skip("eager tasks are new in 3.12")
    future = loop.create_future()
    task_class = type(loop.create_task(asyncio.sleep(0)))
    if request.param == "of a subclass":
        task_class = type("Sub", (task_class,), {})
    if request.param == "eager":
        loop.set_task_factory(asyncio.create_eager_task_factory(task_class))
        loop.call_soon(lambda: setattr(loop, "made", loop.create_task(wait())))
        loop.run_until_complete(asyncio.sleep(0))
        task = loop.made
        del loop.made
    else:
        task = task_class(wait(), loop=loop)
        loop.run_until_complete(asyncio.sleep(0))
    task.future = future
    yield task
    if not future.done():
        future.set_result(None)
        loop.run_until_complete(task)


def test_done_callbacks_and_their_contexts(task, loop, run):
    context = contextvars.copy_context()
    context.run(var.set, "the callback's")
    seen = []

    def note(*args):
        seen.append((args, var.get()))

    task.add_done_callback(note)
    task.add_done_callback(note, context=context)
    task.add_done_callback(seen.append)
    assert task.remove_done_callback(seen.append) == 1
    task.future.set_result(3)
    assert loop.run_until_complete(task) == 3
    task.add_done_callback(note, context=context)
    loop.run_until_complete(asyncio.sleep(0))
    assert seen == [((task,), "unset"), *[((task,), "the callback's")] * 2]


@pytest.mark.parametrize(
    ("args", "kwargs"), [((), {}), ((print, print), {}), ((print,), {"contexts": None})]
)
def test_bad_arguments_of_add_done_callback(task, args, kwargs):
    with pytest.raises(TypeError, match=r"add_done_callback|argument"):
        task.add_done_callback(*args, **kwargs)


def test_its_loop_and_its_outcome(task, loop):
    assert task.get_loop() is loop
    assert not task.done()
    assert not task.cancelled()
    for ask in (task.result, task.exception):
        with pytest.raises(asyncio.InvalidStateError):
            ask()
    task.future.set_exception(KeyError("k"))
    with pytest.raises(KeyError):
        loop.run_until_complete(task)
    assert repr(task.exception()) == "KeyError('k')"
    assert task.done()


def test_keywords_that_are_none(loop, run):
    """asyncio.create_task() of 3.13 and TaskGroup give them so."""

    async def main():
        number = int(loop.create_task(answer(), context=None).get_name()[len("Task-") :])
        named = loop.create_task(answer(), name=None, context=None)
        other = loop.create_task(answer(), name="other", context=None)
        assert named.get_name() == f"Task-{number + 1}"
        assert other.get_name() == "other"
        with pytest.raises(TypeError):
            loop.create_task(coro := answer(), nonsense=None)
        coro.close()
        return await asyncio.gather(named, other)

    async def answer():
        return var.get()

    assert run(main()) == ["unset"] * 2
