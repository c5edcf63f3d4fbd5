"""The thread pool that a loop makes for itself."""

from __future__ import annotations

import collections
import concurrent.futures
import queue
import types
from concurrent.futures import thread as _thread
from typing import Any

from . import _core

__all__ = ("DefaultExecutor", "has_plain_submit")

_global_lock: Any = vars(_thread)["_global_shutdown_lock"]


def has_plain_submit(executor: Any) -> bool:
    """Is this no pool of the user's own kind (nor 3.14's of interpreters), nor instrumented?"""
    if type(executor) not in (concurrent.futures.ThreadPoolExecutor, DefaultExecutor):
        return False
    submit = getattr(executor.submit, "__func__", None)
    return type(submit) is types.FunctionType and submit.__globals__ is vars(_thread)


class _Idle(collections.deque[None]):
    """How many workers wait: a semaphore that is never waited for, without its Python code."""

    def acquire(self, timeout: float = 0) -> bool:
        """Take one; False if there is none. pop() and append() are atomic."""
        try:
            self.pop()
        except IndexError:
            return False
        return True

    def release(self) -> None:
        """Give one back."""
        self.append(None)


class _Calls(queue.SimpleQueue[Any]):
    """The pool's queue: a thread looks out for a call for a moment before it sleeps."""

    def __init__(self, handoff: _core.Handoff) -> None:
        self._wait = handoff.wait

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """As SimpleQueue.get()."""
        self._wait()
        return super().get(block, timeout)


class DefaultExecutor(concurrent.futures.ThreadPoolExecutor):
    """A pool as any other, which also takes the loop's calls as they are (C: core/executor.c),
    without a future and a work item of their own."""

    def __init__(self, handoff: _core.Handoff) -> None:
        super().__init__(thread_name_prefix="asyncio")
        self._work_queue: Any = _Calls(handoff)
        self._idle_semaphore: Any = _Idle()

    def take(self, call: Any) -> bool:
        """Queue `call`, as submit() does its work item; False: submit() knows better."""
        inner: Any = self
        with inner._shutdown_lock, _global_lock:
            if inner._shutdown or inner._broken or vars(_thread)["_shutdown"]:
                return False
            call.enter_pool()
            inner._work_queue.put(call)
            inner._adjust_thread_count()
        return True
