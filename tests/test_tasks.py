"""create_future, create_task, task factories."""

import asyncio
import contextvars
import functools
import gc
import sys
import weakref

import pytest

pytestmark = pytest.mark.core

# Since 3.13.3 asyncio's create_task() hands all keywords on.
FIXED_KEYWORDS = sys.version_info < (3, 13, 3)

var = contextvars.ContextVar("var", default="unset")


async def value_of(x):
    return x


def test_create_future(loop):
    future = loop.create_future()
    assert isinstance(future, asyncio.Future)
    assert future.get_loop() is loop
    assert not future.done()


def test_futures_call_back_through_the_loop(loop, run):
    seen = []

    async def main():
        future = loop.create_future()
        future.add_done_callback(lambda f: seen.append(f.result()))
        future.set_result("result")
        assert seen == []
        await asyncio.sleep(0)
        assert seen == ["result"]

    run(main())


def test_create_task(loop, run):
    async def main():
        task = loop.create_task(value_of(5))
        assert isinstance(task, asyncio.Task)
        assert task.get_loop() is loop
        assert not task.done()
        assert await task == 5

    run(main())


def test_create_task_before_the_loop_runs(loop):
    task = loop.create_task(value_of(5))
    assert loop.run_until_complete(task) == 5


def test_tasks_start_in_order_at_the_next_turn(loop, run):
    seen = []

    async def note(x):
        seen.append(x)

    async def main():
        tasks = [loop.create_task(note(i)) for i in range(5)]
        assert seen == []
        await asyncio.sleep(0)
        assert seen == [0, 1, 2, 3, 4]
        await asyncio.gather(*tasks)

    run(main())


def test_name(loop, run):
    async def main():
        named = loop.create_task(value_of(1), name="Adam")
        plain = loop.create_task(value_of(1))
        odd = loop.create_task(value_of(1), name=7)
        assert named.get_name() == "Adam"
        assert plain.get_name().startswith("Task-")
        assert odd.get_name() == "7"
        await asyncio.gather(named, plain, odd)

    run(main())


@pytest.mark.skipif(sys.version_info < (3, 11), reason="context= is new in 3.11")
def test_context(loop, run):
    async def work():
        before = var.get()
        var.set("changed")
        return before

    async def main():
        context = contextvars.copy_context()
        context.run(var.set, "given")
        assert await loop.create_task(work(), context=context) == "given"
        assert context[var] == "changed"
        assert var.get() == "unset"

    run(main())


@pytest.mark.skipif(sys.version_info >= (3, 11), reason="3.10 has no context=")
def test_context_is_unknown_in_3_10(loop):
    coro = value_of(1)
    with pytest.raises(TypeError):
        loop.create_task(coro, context=contextvars.copy_context())
    coro.close()


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks are new in 3.12")
def test_eager_start(loop, run):
    seen = []

    async def work():
        seen.append("started")
        await asyncio.sleep(0)
        seen.append("resumed")
        return 1

    async def main():
        if sys.version_info >= (3, 14):
            task = loop.create_task(work(), eager_start=True)
        else:  # the method passes the keyword on to a factory only
            task = asyncio.Task(work(), loop=loop, eager_start=True)
        assert seen == ["started"]
        assert await task == 1
        assert seen == ["started", "resumed"]

    run(main())


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks are new in 3.12")
def test_eager_task_factory(loop, run):
    async def main():
        loop.set_task_factory(asyncio.eager_task_factory)
        task = loop.create_task(value_of(3))
        assert task.done() and task.result() == 3
        loop.set_task_factory(None)
        task = loop.create_task(value_of(4))
        assert not task.done()
        assert await task == 4

    run(main())


@pytest.mark.parametrize("thing", [None, 1, "text", value_of])
def test_what_is_no_coroutine(loop, thing):
    with pytest.raises(TypeError, match="a coroutine was expected"):
        loop.create_task(thing)


def test_closed_loop(loop):
    loop.close()
    coro = value_of(1)
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        loop.create_task(coro)
    coro.close()


@pytest.mark.parametrize("with_factory", [False, True])
def test_wrong_arguments(loop, with_factory):
    if with_factory:
        loop.set_task_factory(lambda loop, coro, **kwargs: asyncio.Task(coro, loop=loop, **kwargs))
    coro = value_of(1)
    unexpected = "unexpected keyword argument" if FIXED_KEYWORDS else "keyword argument"
    for args, kwargs, text in [
        ((), {}, r"create_task\(\) missing 1 required positional argument: 'coro'"),
        ((), {"name": "a"}, r"create_task\(\) missing 1 required positional argument: 'coro'"),
        ((coro,), {"nonsense": 1}, rf"'?nonsense'? is an invalid {unexpected}|{unexpected} 'nons"),
        ((coro,), {"coro": coro}, r"create_task\(\) got multiple values for argument 'coro'"),
        ((coro, "name"), {}, r"create_task\(\) takes 2 positional arguments but 3 were given"),
        ((coro,), {"loop": loop}, r"(keyword|values for) argument '?loop'?"),
    ]:
        with pytest.raises(TypeError, match=text):
            loop.create_task(*args, **kwargs)
    coro.close()


@pytest.mark.skipif(not FIXED_KEYWORDS, reason="create_task() takes any keyword here")
@pytest.mark.parametrize("with_factory", [False, True])
@pytest.mark.parametrize("name", ["foo", "loop", "eager_start", "context"])
def test_keywords_are_asyncios(loop, with_factory, name):
    """`eager_start` is an argument of asyncio.Task() in 3.12, but none of create_task()."""
    if name == "context" and sys.version_info >= (3, 11):
        pytest.skip("create_task() takes it here")
    if with_factory:
        loop.set_task_factory(lambda loop, coro, **kwargs: asyncio.Task(coro, loop=loop, **kwargs))
    coro = value_of(1)
    text = rf"create_task\(\) got an unexpected keyword argument '{name}'"
    for value in (None, True):
        with pytest.raises(TypeError, match=text):
            loop.create_task(coro, **{name: value})
        with pytest.raises(TypeError, match=text):
            loop.create_task(**{name: value})
    coro.close()


def test_task_factory(loop, run):
    class MyTask(asyncio.Task):
        pass

    calls = []

    def factory(loop, coro, **kwargs):
        calls.append((loop, kwargs))
        return MyTask(coro, loop=loop, **kwargs)

    assert loop.get_task_factory() is None
    loop.set_task_factory(factory)
    assert loop.get_task_factory() is factory

    async def main():
        task = loop.create_task(value_of(1))
        named = asyncio.ensure_future(value_of(2))
        assert type(task) is MyTask and type(named) is MyTask
        assert await asyncio.gather(task, named) == [1, 2]

    run(main())
    assert len(calls) >= 3
    assert all(call[0] is loop for call in calls)
    loop.set_task_factory(None)
    assert loop.get_task_factory() is None


def test_task_factory_and_name(loop, run):
    def factory(loop, coro, **kwargs):
        return asyncio.Task(coro, loop=loop, **kwargs)

    async def main():
        loop.set_task_factory(factory)
        task = loop.create_task(value_of(1), name="Adam")
        loop.set_task_factory(None)
        assert task.get_name() == "Adam"
        await task

    run(main())


@pytest.mark.skipif(sys.version_info < (3, 11), reason="context= is new in 3.11")
def test_task_factory_and_context(loop, run):
    given = []

    def factory(loop, coro, context=None, **kwargs):
        given.append(context)
        return asyncio.Task(coro, loop=loop, context=context, **kwargs)

    async def main():
        context = contextvars.copy_context()
        loop.set_task_factory(factory)
        task = loop.create_task(value_of(1), context=context)
        loop.set_task_factory(None)
        await task
        assert given == [context]

    run(main())


@pytest.mark.parametrize("value", [1, "text", object()])
def test_a_task_factory_that_cannot_be_called(loop, value):
    with pytest.raises(TypeError, match="task factory must be a callable or None"):
        loop.set_task_factory(value)
    assert loop.get_task_factory() is None


def test_a_task_factory_that_takes_itself_away(loop, run):
    """It lasts until its call is over, though nobody else holds it."""
    lasted = []

    def make(loop, coro, **kwargs):
        loop.set_task_factory(None)
        lasted.append(held() is not None)
        return asyncio.Task(coro, loop=loop, **kwargs)

    async def main():
        assert await loop.create_task(value_of(1)) == 1

    factory = functools.partial(make)
    held = weakref.ref(factory)
    loop.set_task_factory(factory)
    del factory
    run(main())
    assert lasted == [True]
    assert held() is None


def test_a_task_factory_that_raises(loop, run):
    def factory(loop, coro, **kwargs):
        coro.close()
        raise ZeroDivisionError

    async def main():
        loop.set_task_factory(factory)
        with pytest.raises(ZeroDivisionError):
            loop.create_task(value_of(1))
        loop.set_task_factory(None)

    run(main())


def test_create_task_replaced_on_the_instance(loop, run):
    calls = []
    original = loop.create_task

    def create_task(coro, **kwargs):
        calls.append(coro.__qualname__)
        return original(coro, **kwargs)

    async def main():
        loop.create_task = create_task
        try:
            assert await asyncio.create_task(value_of(1)) == 1
            assert await asyncio.ensure_future(value_of(2)) == 2
        finally:
            del loop.create_task

    run(main())
    assert calls == ["value_of", "value_of"]


def test_create_future_replaced_on_the_instance(loop, run):
    calls = []
    original = loop.create_future

    def create_future():
        calls.append(1)
        return original()

    async def main():
        loop.create_future = create_future
        try:
            await asyncio.sleep(0.001)
        finally:
            del loop.create_future

    run(main())
    assert calls == [1]


def test_a_task_that_is_lost_while_pending_is_reported(loop, turns, errors):
    async def forever():
        await loop.create_future()

    task = loop.create_task(forever())
    turns(2)
    del task
    gc.collect()
    assert errors.messages == ["Task was destroyed but it is pending!"]
    errors.clear()  # the report holds the task, which later Pythons then show in all_tasks()
    gc.collect()


def test_an_exception_never_retrieved_is_reported(loop, turns, errors):
    async def fail():
        raise KeyError("x")

    task = loop.create_task(fail())
    turns(3)
    del task
    gc.collect()
    assert errors.messages == ["Task exception was never retrieved"]
    assert isinstance(errors.exceptions[0], KeyError)


def test_a_task_cancels(loop, run):
    async def main():
        task = loop.create_task(asyncio.sleep(30))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()

    run(main())


def test_many_tasks(loop, run):
    async def work(i):
        await asyncio.sleep(0)
        await asyncio.sleep(0.001)
        return i

    async def main():
        return await asyncio.gather(*(work(i) for i in range(2000)))

    assert run(main()) == list(range(2000))
