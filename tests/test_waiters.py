"""What a task waits for while a stream's read() or a sock_* call is not ready.

On our loop that is no asyncio.Future; whoever runs the task must not notice.
"""

import asyncio
import contextvars
import sys

import pytest
from test_streams import closed, streams

pytestmark = pytest.mark.core

variable = contextvars.ContextVar("variable", default="unset")


class Task(asyncio.Task):
    """Not exactly asyncio's."""


def create_python_task(loop, coroutine):
    return asyncio.tasks._PyTask(coroutine, loop=loop)


def create_own_task(loop, coroutine):
    return Task(coroutine, loop=loop)


def create_eager_task(loop, coroutine):
    return asyncio.Task(coroutine, loop=loop, eager_start=True)


CREATE = {
    "c": lambda loop, coroutine: loop.create_task(coroutine),
    "python": create_python_task,
    "own": create_own_task,
}
if sys.version_info >= (3, 12):
    CREATE["eager"] = create_eager_task


@pytest.fixture(params=["read", "readline", "sock_recv"])
def waiting(request, run, pair):
    """Runs `test(make a coroutine that waits, the other end)`; it gives b"data\\n" in the end."""

    def run_it(test, **options):
        a, b = pair()
        b.setblocking(False)

        async def main():
            if request.param == "sock_recv":
                a.setblocking(False)
                loop = asyncio.get_running_loop()
                await test(lambda: loop.sock_recv(a, 100), b)
                return
            reader, writer = await streams(a)
            calls = {"read": lambda: reader.read(100), "readline": reader.readline}
            try:
                await test(calls[request.param], b)
            finally:
                writer.close()
                await asyncio.wait_for(closed(writer), 5)

        run(main(), **options)

    return run_it


@pytest.fixture(params=CREATE)
def create_task(request):
    return lambda coroutine: CREATE[request.param](asyncio.get_running_loop(), coroutine)


async def wrapped(call):
    return await call()


@pytest.mark.parametrize("direct", [True, False], ids=["itself", "within"])
def test_tasks_of_all_kinds(waiting, create_task, direct):
    async def test(call, other):
        for _ in range(3):
            task = create_task(call() if direct else wrapped(call))
            await asyncio.sleep(0.005)
            assert not task.done()
            assert "wait_for=" in repr(task)
            task.get_stack()
            other.send(b"data\n")
            assert await task == b"data\n"

    waiting(test)


@pytest.mark.skipif(sys.version_info < (3, 14), reason="call graphs are new in 3.14")
def test_call_graph(waiting):
    async def test(call, other):
        task = asyncio.ensure_future(wrapped(call))
        await asyncio.sleep(0.001)
        graph = asyncio.capture_call_graph(task)
        assert "wrapped" in [entry.frame.f_code.co_name for entry in graph.call_stack]
        assert "wrapped" in asyncio.format_call_graph(task)
        other.send(b"data\n")
        await task

    waiting(test)


def test_cancelling_says_why(waiting, create_task):
    async def test(call, other):
        for message, arguments in ((("why",), ("why",)), ((("a", 1),), (("a", 1),)), ((), ())):
            task = create_task(wrapped(call))
            await asyncio.sleep(0.001)
            assert task.cancel(*message)
            with pytest.raises(asyncio.CancelledError) as caught:
                await task
            assert task.cancelled()
            if sys.version_info >= (3, 11):
                assert caught.value.args == arguments
        other.send(b"data\n")
        assert await call() == b"data\n"

    waiting(test)


def test_cancelled_in_its_first_step(waiting, create_task):
    async def main(call):
        current = asyncio.current_task() or asyncio.tasks._py_current_task()  # apart since 3.14
        current.cancel()
        await call()

    async def test(call, other):
        task = create_task(main(call))
        with pytest.raises(asyncio.CancelledError):
            await task
        other.send(b"data\n")
        assert await call() == b"data\n"

    waiting(test)


def test_the_task_goes_on_after_being_cancelled(waiting, create_task):
    async def stubborn(call):
        try:
            return await call()
        except asyncio.CancelledError:
            return await call()

    async def test(call, other):
        task = create_task(stubborn(call))
        await asyncio.sleep(0.001)
        task.cancel()
        await asyncio.sleep(0.001)
        assert not task.done()
        other.send(b"data\n")
        assert await task == b"data\n"

    waiting(test)


def test_wait_for(waiting):
    async def test(call, other):
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(call(), 0.005)
        if sys.version_info >= (3, 11):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.005):
                    await call()
        asyncio.get_running_loop().call_later(0.005, other.send, b"data\n")
        assert await asyncio.wait_for(call(), 5) == b"data\n"

    waiting(test)


def test_awaited_by_two_tasks(waiting):
    async def test(call, other):
        coroutine = call()

        async def wait():
            return await coroutine

        first, second = asyncio.ensure_future(wait()), asyncio.ensure_future(wait())
        with pytest.raises(RuntimeError, match="coroutine is being awaited already"):
            await second
        other.send(b"data\n")
        assert await first == b"data\n"

    waiting(test)


def test_a_future_while_somebody_waits(waiting):
    """Only then: ensure_future() has to make a task of the call itself."""

    async def test(call, other):
        coroutine = call()
        assert asyncio.iscoroutine(coroutine) and not asyncio.isfuture(coroutine)
        future = coroutine.send(None)
        assert asyncio.isfuture(future)
        assert future.get_loop() is asyncio.get_running_loop()
        assert not future.done() and not future.cancelled()
        for ask in (future.result, future.exception):
            with pytest.raises(asyncio.InvalidStateError):
                ask()
        coroutine.close()
        assert not asyncio.isfuture(coroutine)

    waiting(test)


def test_callbacks(waiting):
    """In the order they were added, each in its context, with a future that is done."""

    async def test(call, other):
        seen = []

        def note(future):
            assert future.done() and future.exception() is None
            seen.append(variable.get())

        def never(future):
            raise AssertionError

        coroutine = call()
        future = coroutine.send(None)
        context = contextvars.copy_context()
        context.run(variable.set, "given")
        future.add_done_callback(never)
        future.add_done_callback(note, context=context)
        future.add_done_callback(never)
        variable.set("current")
        future.add_done_callback(note)
        future.add_done_callback(note)
        variable.set("later")
        assert future.remove_done_callback(never) == 2
        assert future.remove_done_callback(never) == 0
        other.send(b"data\n")
        while not seen:
            await asyncio.sleep(0.001)
        assert seen == ["given", "current", "current"]
        future.add_done_callback(note)
        await asyncio.sleep(0)
        assert seen[3:] == ["later"]
        assert not future.cancel()
        with pytest.raises(StopIteration) as caught:
            coroutine.send(None)
        assert caught.value.value == b"data\n"

    waiting(test)


def test_cancelled_future(waiting):
    async def test(call, other):
        coroutine = call()
        future = coroutine.send(None)
        assert future.cancel("why")
        assert not future.cancel()
        assert future.cancelled() and future.done()
        for ask in (future.result, future.exception):
            with pytest.raises(asyncio.CancelledError):
                ask()
        with pytest.raises(asyncio.CancelledError):
            coroutine.send(None)

    waiting(test)


def test_wrong_calls(waiting):
    async def test(call, other):
        coroutine = call()
        future = coroutine.send(None)
        for wrong in (
            lambda: future.add_done_callback(),
            lambda: future.add_done_callback(print, print),
            lambda: future.add_done_callback(print, other=None),
            lambda: future.cancel(1, 2),
            lambda: future.cancel(other=1),
            lambda: future.set_exception(1),
        ):
            with pytest.raises(TypeError):
                wrong()
        coroutine.close()

    waiting(test)


def test_a_stop_iteration(waiting):
    """An error, or another exception: what this Python's own future makes of it."""

    def told(future):
        try:
            future.set_exception(StopIteration("x"))
        except TypeError as exc:
            return str(exc)
        exc = future.exception()
        return repr(exc), repr(exc.__cause__), repr(exc.__context__)

    async def test(call, other):
        coroutine = call()
        future = coroutine.send(None)
        assert told(future) == told(asyncio.get_running_loop().create_future())
        coroutine.close()

    waiting(test)


def test_exception_for_whoever_waits(run, pair):
    """reader.set_exception(), as connection_lost() calls it."""
    a, _b = pair()

    async def main():
        reader, writer = await streams(a)
        task = asyncio.ensure_future(reader.read(1))
        await asyncio.sleep(0)
        waiter = reader._waiter
        reader.set_exception(KeyError("set"))
        assert waiter.done() and isinstance(waiter.exception(), KeyError)
        with pytest.raises(asyncio.InvalidStateError):
            waiter.set_result(None)
        with pytest.raises(KeyError):
            await task
        writer.close()
        await closed(writer)

    run(main())


def test_exception_of_the_waiter_alone(run, pair):
    a, b = pair()

    async def main():
        reader, writer = await streams(a)
        for exception in (KeyError("set"), KeyError):
            task = asyncio.ensure_future(reader.read(9))
            await asyncio.sleep(0)
            reader._waiter.set_exception(exception)
            with pytest.raises(KeyError):
                await task
        b.send(b"data")
        assert await reader.read(9) == b"data"
        writer.close()
        await closed(writer)

    run(main())


@pytest.mark.only("uvloop_clone")
def test_woken_without_data(run, pair):
    """Whoever sets the waiter's result: the call looks again, and waits on."""
    a, b = pair()
    a.setblocking(False)

    async def main():
        loop = asyncio.get_running_loop()
        coroutine = loop.sock_recv(a, 9)
        for _ in range(2):
            coroutine.send(None).set_result(None)
        task = loop.create_task(coroutine)
        await asyncio.sleep(0.005)
        b.send(b"data")
        assert await task == b"data"

    run(main())


def test_task_of_another_loop(new_loop, pair):
    a, _b = pair()
    a.setblocking(False)
    first, second = new_loop(), new_loop()
    coroutine = first.sock_recv(a, 9)
    with pytest.raises(RuntimeError, match="attached to a different loop"):
        second.run_until_complete(second.create_task(wrapped(lambda: coroutine)))


def test_closed_loop(new_loop, pair):
    a, _b = pair()
    a.setblocking(False)
    loop = new_loop()
    coroutine = loop.sock_recv(a, 9)
    future = coroutine.send(None)
    future.add_done_callback(print)
    loop.close()
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        future.cancel()
    coroutine.close()


def test_debug_mode(run, pair):
    a, b = pair()
    a.setblocking(False)

    async def main():
        loop = asyncio.get_running_loop()
        loop.set_debug(True)
        task = loop.create_task(loop.sock_recv(a, 9))
        await asyncio.sleep(0.005)
        b.send(b"data")
        assert await task == b"data"

    run(main())
