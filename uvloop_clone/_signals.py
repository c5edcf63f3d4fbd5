"""Unix signal handlers of the loop: registering them. The core delivers them (core/signals.c)."""

from __future__ import annotations

import asyncio
import errno
import signal
import sys
from collections.abc import Callable

from . import _core

TYPE_CHECKING = False  # asyncio does without typing on 3.15, and so do we
if TYPE_CHECKING:
    from typing import Any

__all__ = ("SignalsMixin",)

if sys.version_info >= (3, 14):
    from inspect import iscoroutinefunction
else:
    from asyncio import iscoroutinefunction


def _ignore(signum: int, frame: Any) -> None:
    """Python's own handler for a signal that the loop handles: the wake-up byte does it all."""


def _check_signal(sig: int) -> None:
    if not isinstance(sig, int):
        raise TypeError(f"sig must be an int, not {sig!r}")
    if sig not in signal.valid_signals():
        raise ValueError(f"invalid signal number {sig}")


class SignalsMixin(_core.Loop):
    """add_signal_handler() and remove_signal_handler()."""

    def add_signal_handler(self, sig: int, callback: Callable[..., object], *args: Any) -> None:
        """Call ``callback(*args)`` in the loop when the process gets the signal ``sig``.

        Raises TypeError for a coroutine or a bad ``sig``, ValueError for a number that is no
        signal, RuntimeError outside the main thread or for a signal that cannot be caught.
        """
        if asyncio.iscoroutine(callback) or iscoroutinefunction(callback):
            raise TypeError("coroutines cannot be used with add_signal_handler()")
        _check_signal(sig)
        self._check_closed()
        sig = int(sig)
        before = self._get_signal_handles().get(sig)
        fd = self._set_signal_handle(sig, callback, *args)
        try:
            # Only to learn whether this is the main thread; the fd is set again for each run.
            found = signal.set_wakeup_fd(fd, warn_on_full_buffer=False)
            if not self.is_running() and _holder_told(fd):
                signal.set_wakeup_fd(found, warn_on_full_buffer=False)
            signal.signal(sig, _ignore)
            # A system call that the signal interrupts starts again.
            signal.siginterrupt(sig, False)
        except (ValueError, OSError) as exc:
            handles = self._get_signal_handles()
            if before is None:
                del handles[sig]
            else:
                handles[sig] = before
            if not handles and not self.is_running():
                _forget_wakeup_fd()
            if isinstance(exc, OSError) and exc.errno == errno.EINVAL:
                raise RuntimeError(f"sig {sig} cannot be caught") from None
            if isinstance(exc, ValueError):
                raise RuntimeError(str(exc)) from exc
            raise
        if before is not None:
            self._let_go_signal_handle(before)  # what is queued already still runs

    def remove_signal_handler(self, sig: int) -> bool:
        """Give the signal its default behaviour back; False if it had no handler here.

        Raises TypeError, ValueError and RuntimeError as :meth:`add_signal_handler` does.
        """
        _check_signal(sig)
        handle = self._get_signal_handles().pop(int(sig), None)
        if handle is None:
            return False
        self._let_go_signal_handle(handle)
        default = signal.default_int_handler if sig == signal.SIGINT else signal.SIG_DFL
        try:
            signal.signal(sig, default)
        except OSError as exc:
            if exc.errno == errno.EINVAL:
                raise RuntimeError(f"sig {sig} cannot be caught") from None
            raise
        if not self._get_signal_handles() and not self.is_running():
            _forget_wakeup_fd()
        return True

    def _on_close(self) -> None:
        """Called by close(): no signal keeps a handler that leads nowhere."""
        if not sys.is_finalizing():
            for sig in list(self._get_signal_handles()):
                self.remove_signal_handler(sig)
        super()._on_close()


def _forget_wakeup_fd() -> None:
    try:
        found = signal.set_wakeup_fd(-1)
        if _holder_told(-1):
            signal.set_wakeup_fd(found, warn_on_full_buffer=False)
    except ValueError:
        return  # not the main thread: it was never set


def _holder_told(fd: int) -> bool:
    """Another loop of ours runs here and keeps the descriptor: it passes on what is not its own."""
    running = asyncio._get_running_loop()
    return isinstance(running, _core.Loop) and running._set_outer_wakeup(fd)
