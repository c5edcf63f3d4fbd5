"""Asynchronous generators: finalisation by the loop, shutdown_asyncgens."""

import asyncio
import gc
import sys

import pytest

pytestmark = pytest.mark.core


def numbers(log):
    async def generator():
        try:
            for i in range(100):
                yield i
        finally:
            log.append("finally")
            await asyncio.sleep(0)
            log.append("closed")

    return generator()


def test_a_dropped_generator_is_closed_by_the_loop(loop, run):
    log = []

    async def main():
        async for i in numbers(log):
            if i == 3:
                break
        gc.collect()
        for _ in range(5):
            await asyncio.sleep(0)
        assert log == ["finally", "closed"]

    run(main())


def test_shutdown_closes_what_is_left(loop, run):
    log = []
    kept = [numbers(log), numbers(log)]

    async def main():
        for generator in kept:
            assert await generator.__anext__() == 0

    run(main())
    assert log == []
    run(loop.shutdown_asyncgens())
    assert sorted(log) == ["closed", "closed", "finally", "finally"]
    with pytest.raises(StopAsyncIteration):
        run(kept[0].__anext__())


def test_shutdown_with_nothing_to_do(loop, run):
    assert run(loop.shutdown_asyncgens()) is None
    assert run(loop.shutdown_asyncgens()) is None


def test_a_generator_that_fails_to_close_is_reported(loop, run, errors):
    async def bad():
        try:
            yield 1
        finally:
            raise ZeroDivisionError

    generator = bad()

    async def main():
        await generator.__anext__()

    run(main())
    run(loop.shutdown_asyncgens())
    (context,) = errors
    assert context["message"].startswith("an error occurred during closing of asynchronous gen")
    assert isinstance(context["exception"], ZeroDivisionError)
    assert context["asyncgen"] is generator


def test_a_generator_first_used_after_the_shutdown_warns(loop, run):
    async def main():
        await loop.shutdown_asyncgens()
        with pytest.warns(ResourceWarning, match="was scheduled after"):
            generator = numbers([])
            await generator.__anext__()
        await generator.aclose()

    run(main())


def test_the_hooks_are_in_force_while_the_loop_runs(loop, run):
    async def main():
        return sys.get_asyncgen_hooks()

    before = sys.get_asyncgen_hooks()
    inside = run(main())
    assert inside.firstiter is not None and inside.finalizer is not None
    assert sys.get_asyncgen_hooks() == before


def test_the_hooks_are_put_back_after_an_exit(loop):
    def leave():
        raise SystemExit

    before = sys.get_asyncgen_hooks()
    loop.call_soon(leave)
    with pytest.raises(SystemExit):
        loop.run_forever()
    assert sys.get_asyncgen_hooks() == before


def test_finished_generators_are_forgotten(loop, run):
    log = []

    async def main():
        async for _ in numbers(log):
            log.clear()

    run(main())
    assert log == ["finally", "closed"]
    run(loop.shutdown_asyncgens())
    assert log == ["finally", "closed"]


def test_a_shutdown_that_is_not_awaited(loop):
    """pytest-asyncio ignores this warning by asyncio's name of the method."""
    with pytest.warns(RuntimeWarning, match="BaseEventLoop.shutdown_asyncgens' was never awaited"):
        loop.shutdown_asyncgens()
        gc.collect()
