"""What happens to exceptions that nobody awaits, and to asynchronous generators at the end."""

from __future__ import annotations

import asyncio
import sys
import traceback
import warnings
import weakref
from asyncio import base_events
from collections.abc import AsyncGenerator, Callable

from . import _core

TYPE_CHECKING = False  # asyncio does without typing on 3.15, and so do we
if TYPE_CHECKING:
    from typing import Any

    _Context = dict[str, Any]
    _Handler = Callable[[Any, _Context], object]
    _AsyncGenerator = AsyncGenerator[Any, Any]

__all__ = ("ReportsMixin",)


# Since 3.12 a handler runs in the context of the task or handle that failed.
_RUNS_IN_SCOPE = sys.version_info >= (3, 12)

_TRACEBACKS = {
    "source_traceback": "Object created at (most recent call last):\n",
    "handle_traceback": "Handle created at (most recent call last):\n",
}


class ReportsMixin(_core.Loop):
    """Exception handlers and asynchronous generators of a loop."""

    _exception_handler: _Handler | None = None
    _asyncgens: weakref.WeakSet[_AsyncGenerator] | None = None
    _asyncgens_shutdown_called = False

    # -- exception handlers ------------------------------------------------------------------

    def get_exception_handler(self) -> _Handler | None:
        """Return the handler set with :meth:`set_exception_handler`, or None."""
        return self._exception_handler

    def set_exception_handler(self, handler: _Handler | None) -> None:
        """Call ``handler(loop, context)`` for each report; None brings the default one back.

        Raises TypeError when `handler` cannot be called.
        """
        if handler is not None and not callable(handler):
            raise TypeError(f"A callable object or None is expected, got {handler!r}")
        self._exception_handler = handler

    def default_exception_handler(self, context: _Context) -> None:
        """Log `context`, as of :meth:`call_exception_handler`, to the ``asyncio`` logger."""
        exception = context.get("exception")
        if "source_traceback" not in context:
            # Debug mode: where the callback that is running now was scheduled.
            created = getattr(self._running_handle, "_source_traceback", None)
            if created:
                context["handle_traceback"] = created
        lines = [context.get("message") or "Unhandled exception in event loop"]
        for key in sorted(context):
            if key in ("message", "exception"):
                continue
            value = context[key]
            if key in _TRACEBACKS:
                text = _TRACEBACKS[key] + "".join(traceback.format_list(value)).rstrip()
            else:
                text = repr(value)
            lines.append(f"{key}: {text}")
        base_events.logger.error(  # type: ignore[attr-defined]
            "\n".join(lines),
            exc_info=(type(exception), exception, exception.__traceback__)
            if exception is not None
            else False,
        )

    def call_exception_handler(self, context: _Context) -> None:
        """Report an exception that nobody awaits.

        `context` has asyncio's keys: ``message``, and where they apply ``exception``, ``future``,
        ``task``, ``handle``, ``protocol``, ``transport``, ``socket``, ``source_traceback``,
        ``handle_traceback``, ``asyncgen``. A failing handler is reported too; only SystemExit and
        KeyboardInterrupt leave this method.
        """
        handler = self._exception_handler
        if handler is None:
            self._guard_default(context, "Exception in default exception handler")
            return
        try:
            scope = self._scope_of(context) if _RUNS_IN_SCOPE else None
            if scope is None:
                handler(self, context)
            else:
                scope.run(handler, self, context)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            self._guard_default(
                {
                    "message": "Unhandled error in exception handler",
                    "exception": error,
                    "context": context,
                },
                "Exception in default exception handler while handling an unexpected error "
                "in custom exception handler",
            )

    def _guard_default(self, context: _Context, complaint: str) -> None:
        """The default handler, which a subclass may have replaced by one that fails."""
        try:
            self.default_exception_handler(context)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException:
            base_events.logger.error(  # type: ignore[attr-defined]
                complaint, exc_info=True
            )

    @staticmethod
    def _scope_of(context: _Context) -> Any:
        """The contextvars context that the report's task or handle runs in, or None."""
        for key in ("task", "future", "handle"):
            thing = context.get(key)
            if thing is not None:
                get_context = getattr(thing, "get_context", None)
                scope = get_context() if get_context is not None else None
                return scope if hasattr(scope, "run") else None
        return None

    # -- asynchronous generators -------------------------------------------------------------

    def _asyncgen_firstiter_hook(self, agen: _AsyncGenerator) -> None:
        """Called by the interpreter when a generator is first iterated under this loop."""
        if self._asyncgens_shutdown_called:
            warnings.warn(
                f"asynchronous generator {agen!r} was scheduled after "
                f"loop.shutdown_asyncgens() call",
                ResourceWarning,
                stacklevel=2,
                source=self,
            )
        alive = self._asyncgens
        if alive is None:
            alive = self._asyncgens = weakref.WeakSet()
        alive.add(agen)

    def _asyncgen_finalizer_hook(self, agen: _AsyncGenerator) -> None:
        """Called by the garbage collector, in any thread: close the generator on the loop."""
        if self._asyncgens is not None:
            self._asyncgens.discard(agen)
        if not self.is_closed():
            self.call_soon_threadsafe(self.create_task, agen.aclose())

    async def shutdown_asyncgens(self) -> None:
        """Close every asynchronous generator that is still open; failures are reported."""
        self._asyncgens_shutdown_called = True
        open_ones = list(self._asyncgens or ())
        if not open_ones:
            return
        self._asyncgens = None
        results = await asyncio.gather(*(g.aclose() for g in open_ones), return_exceptions=True)
        for result, agen in zip(results, open_ones, strict=True):
            if isinstance(result, Exception):
                self.call_exception_handler(
                    {
                        "message": "an error occurred during closing of asynchronous generator "
                        f"{agen!r}",
                        "exception": result,
                        "asyncgen": agen,
                    }
                )

    # What a warning about a coroutine that was never awaited calls it: pytest-asyncio looks there.
    shutdown_asyncgens.__qualname__ = "BaseEventLoop.shutdown_asyncgens"
