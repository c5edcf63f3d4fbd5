"""run(): a coroutine from start to end on a loop of its own."""

from __future__ import annotations

import asyncio
import functools
import signal
import sys
import threading
from collections.abc import Callable, Coroutine

from .loop import new_event_loop

TYPE_CHECKING = False  # asyncio does without typing on 3.15, and so do we
if TYPE_CHECKING:
    from typing import Any, TypeVar

    _T = TypeVar("_T")

__all__ = ("run",)


def run(
    main: Coroutine[Any, Any, _T],
    *,
    debug: bool | None = None,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> _T:
    """Run the coroutine `main` on a new loop, close the loop, and return the result.

    As :func:`asyncio.run`: Ctrl-C cancels `main` and then raises KeyboardInterrupt; at the end the
    tasks that are left are cancelled, and asynchronous generators and the default executor shut
    down. `debug` sets the loop's debug mode, `loop_factory` makes another loop than ours. Raises
    RuntimeError inside a running loop, and asyncio's error when `main` is no coroutine.
    """
    if asyncio._get_running_loop() is not None:
        raise RuntimeError("asyncio.run() cannot be called from a running event loop")
    factory = new_event_loop if loop_factory is None else loop_factory
    if sys.version_info >= (3, 11):
        with asyncio.Runner(debug=debug, loop_factory=factory) as runner:
            return runner.run(main)
    return _run_without_runner(main, debug, factory)


def _run_without_runner(
    main: Coroutine[Any, Any, _T],
    debug: bool | None,
    factory: Callable[[], asyncio.AbstractEventLoop],
) -> _T:
    """What asyncio.Runner does, for Python 3.10."""
    if not asyncio.iscoroutine(main):
        raise ValueError(f"a coroutine was expected, got {main!r}")
    loop = factory()
    try:
        if debug is not None:
            loop.set_debug(debug)
        return _run_interruptible(loop, main)
    finally:
        try:
            _cancel_tasks(loop)
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.run_until_complete(loop.shutdown_default_executor())
        finally:
            loop.close()


def _run_interruptible(loop: asyncio.AbstractEventLoop, main: Coroutine[Any, Any, _T]) -> _T:
    """Run `main`; the first Ctrl-C cancels it, a second one raises at once."""
    task: asyncio.Task[_T] = loop.create_task(main)
    interrupts = 0

    def interrupt(signum: int, frame: object) -> None:
        nonlocal interrupts
        interrupts += 1
        if interrupts > 1 or task.done():
            raise KeyboardInterrupt
        task.cancel()
        loop.call_soon_threadsafe(functools.partial(int))  # ends a wait that is under way

    previous = signal.getsignal(signal.SIGINT)
    ours = (
        threading.current_thread() is threading.main_thread()
        and previous is signal.default_int_handler
    )
    if ours:
        try:
            signal.signal(signal.SIGINT, interrupt)
        except ValueError:  # an interpreter without signals
            ours = False
    try:
        return loop.run_until_complete(task)
    except asyncio.CancelledError:
        if interrupts:
            raise KeyboardInterrupt from None
        raise
    finally:
        if ours and signal.getsignal(signal.SIGINT) is interrupt:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _cancel_tasks(loop: asyncio.AbstractEventLoop) -> None:
    """Cancel the tasks that `main` left behind, and report those that fail at it."""
    left = asyncio.all_tasks(loop)
    if not left:
        return
    for task in left:
        task.cancel()
    loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
    for task in left:
        if not task.cancelled() and task.exception() is not None:
            loop.call_exception_handler(
                {
                    "message": "unhandled exception during asyncio.run() shutdown",
                    "exception": task.exception(),
                    "task": task,
                }
            )
