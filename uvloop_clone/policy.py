"""The event loop policy, and install() which puts it in force."""

from __future__ import annotations

import asyncio
import sys
import threading

from .loop import Loop, new_event_loop

__all__ = ("EventLoopPolicy", "install")

# From 3.14 on the policy's names are private, and the public ones warn.
TYPE_CHECKING = False  # asyncio does without typing on 3.15, and so do we
if TYPE_CHECKING:
    from typing import Any

    _Base = asyncio.DefaultEventLoopPolicy
elif sys.version_info >= (3, 14):
    from asyncio.unix_events import _DefaultEventLoopPolicy as _Base
else:
    from asyncio import DefaultEventLoopPolicy as _Base


class EventLoopPolicy(_Base):
    """asyncio's policy of the running Python, with our loops.

    Where that Python has child watchers, they work with it.
    """

    _loop_factory = Loop

    def new_event_loop(self) -> Loop:
        """Return a new loop of ours; it is not made the current one."""
        return new_event_loop()


class _InstalledPolicy(EventLoopPolicy):
    """The policy of install(): the main thread never lacks a current loop."""

    def get_event_loop(self) -> asyncio.AbstractEventLoop:
        """Return the thread's current loop; the main thread gets a new one if it has none.

        Other threads get RuntimeError, as under asyncio's own policy.
        """
        local: Any = self._local  # type: ignore[attr-defined]
        loop: asyncio.AbstractEventLoop | None = local._loop
        if loop is None:
            thread = threading.current_thread()
            if thread is not threading.main_thread():
                raise RuntimeError(f"There is no current event loop in thread {thread.name!r}.")
            loop = self.new_event_loop()
            self.set_event_loop(loop)
        return loop


def install() -> None:
    """Make our loop the one of every asyncio call of this process that makes a loop.

    ``asyncio.run``, ``asyncio.Runner``, ``asyncio.new_event_loop`` and, where Python has it,
    ``asyncio.EventLoop`` give it. Outside a coroutine, ``asyncio.get_event_loop`` in the main
    thread returns a current loop on every Python, making one when there is none.
    """
    events: Any = asyncio.events
    policy = _InstalledPolicy()
    if sys.version_info >= (3, 14):
        events._set_event_loop_policy(policy)
    else:
        asyncio.set_event_loop_policy(policy)
    if hasattr(asyncio, "EventLoop"):
        asyncio.EventLoop = Loop
