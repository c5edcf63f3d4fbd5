"""libuv itself, on the loop that runs: the extra ``cffi``.

``lib`` holds libuv's functions and ``ffi`` its types, as CFFI gives them; ``loop_ptr(loop)`` is the
``uv_loop_t *`` of a loop of ours. :class:`Handle` looks after one libuv handle: its memory, its
callbacks and its end. docs/ffi.md tells the rules.
"""

import asyncio
import functools
import importlib.util
import os
from collections.abc import Callable
from typing import Any, TypeAlias, final

from . import _core
from .loop import Loop

try:
    from ._ffi import ffi, lib
except ImportError as _error:
    _INSTALL = "pip install 'uvloop_clone[cffi]'"
    if importlib.util.find_spec("uvloop_clone._ffi") is None:
        _reason = f"this uvloop_clone was built without cffi; build it again with {_INSTALL}"
    else:
        _reason = f"uvloop_clone.ffi needs the package cffi: {_INSTALL} ({_error})"
    raise ImportError(_reason, name="uvloop_clone._ffi") from _error

__all__ = ("Handle", "callback", "check", "ffi", "lib", "loop_ptr")

CData: TypeAlias = Any  # a value of C's; CFFI has no types for them

if lib.uvloop_clone_libuv_address() != _core._libuv_address:
    raise ImportError(
        f"uvloop_clone.ffi is bound to libuv {ffi.string(lib.uv_version_string()).decode()} and "
        f"the loop to another copy, {_core.libuv_version}: build both from one libuv",
        name="uvloop_clone._ffi",
    )


def loop_ptr(loop: Loop) -> CData:
    """Return the live ``uv_loop_t *`` of `loop`, good until the loop is closed.

    TypeError for any other loop than ours; RuntimeError when it is closed, or runs in another
    thread. The pointer keeps the loop object alive.
    """
    pointer = ffi.cast("uv_loop_t *", _share(loop)[0])
    return ffi.gc(pointer, lambda _pointer, _loop=loop: None)


def check(code: int) -> int:
    """Return `code`, what a function of libuv's returned, or raise the OSError it stands for."""
    if code >= 0:
        return code
    own = code <= -3000  # libuv's own numbers: no errno
    raise OSError(-code, ffi.string(lib.uv_strerror(code)).decode() if own else os.strerror(-code))


def callback(loop: Loop, ctype: Any) -> Callable[[Callable[..., Any]], CData]:
    """Decorate a function that libuv will call: ``@callback(loop, "uv_timer_cb")``.

    The result is a C function pointer, which must be kept as long as libuv may call it (what
    :meth:`Handle.call` is given is kept). An exception goes to the exception handler of `loop`
    and C is given 0; SystemExit and KeyboardInterrupt end the run of the loop.
    """
    _check_loop(loop)

    def decorate(function: Callable[..., Any]) -> CData:
        report = functools.partial(_report, loop, function)
        return ffi.callback(ctype, function, onerror=report)

    return decorate


@final
class Handle:
    """A libuv handle on a loop: ``Handle(loop, lib.uv_timer_init)``.

    `init` is libuv's function that makes the handle and `args` what it takes after the loop and
    the handle; where it takes a C callback, a Python function will do. The handle belongs to
    the loop, not to this object: it stays open until :meth:`close`, or until the loop closes,
    and so long its memory and its callbacks are kept. As a context manager it closes at the end.

    Raises what :func:`loop_ptr` raises, OSError where libuv refuses, TypeError where `init` makes
    no handle.
    """

    __slots__ = ("__weakref__", "_closed", "_kept", "_loop", "ptr")

    def __init__(self, loop: Loop, init: CData, *args: Any) -> None:
        _, guests = _share(loop)
        parameters = _parameters(init)
        if not _makes_handle(parameters):
            raise TypeError(f"a function of libuv's that makes a handle was expected, got {init!r}")
        self._loop = loop
        self._closed: asyncio.Future[None] | None = None
        self._kept: dict[Any, tuple[Any, ...]] = {}
        #: The handle for libuv's functions: a ``uv_timer_t *``, for example.
        self.ptr: CData = ffi.new(parameters[1])
        converted = self._convert(parameters[2:], args)
        self._kept[init] = converted
        status = init(loop_ptr(loop), self.ptr, *converted)
        if status >= 0 or init is lib.uv_spawn:
            guests[_address(self.ptr)] = (self.ptr, self._kept)
        if status < 0 and init is lib.uv_spawn:  # the handle is the loop's even so
            self.close()
        check(status)

    def call(self, function: CData, *args: Any) -> Any:
        """Call ``function(self.ptr, *args)``: ``timer.call(lib.uv_timer_start, on_timer, 10, 0)``.

        A Python function serves as a C callback (see :func:`callback`); the arguments are kept
        until the next call of the same function, or the end of the handle. Returns what libuv
        returns; an error of libuv's is raised as OSError. RuntimeError after :meth:`close`, when
        the loop is closed, or runs in another thread.
        """
        _share(self._loop)
        if self._closed is not None or lib.uv_is_closing(self._as("uv_handle_t *")):
            raise RuntimeError("the libuv handle is closed")
        parameters = _parameters(function)
        pointer = self.ptr
        if parameters and parameters[0] in _BASES:
            pointer = self._as(parameters[0])
        converted = self._convert(parameters[1:], args)
        result = function(pointer, *converted)
        if isinstance(result, int):
            check(result)
        before = self._kept.get(function)
        self._kept[function] = converted
        if before:  # one of them may be what runs right now
            self._loop.call_soon(lambda _before: None, before)
        return result

    def close(self) -> "asyncio.Future[None]":
        """Close the handle; its callbacks are not called any more. May be called again.

        The result is done when libuv has let go of the handle. RuntimeError when the loop runs
        in another thread.
        """
        if self._closed is None:
            self._closed = self._loop.create_future()
            if self._loop.is_closed():  # which has closed its handles
                self._closed.set_result(None)
                return self._closed
            try:
                _, guests = _share(self._loop)
                if lib.uv_is_closing(self._as("uv_handle_t *")):
                    raise RuntimeError("the libuv handle was closed by uv_close() already")
            except RuntimeError:
                self._closed = None
                raise
            _closing[_address(self.ptr)] = self._loop, guests, self._closed
            lib.uv_close(self._as("uv_handle_t *"), lib.uvloop_clone_handle_closed)
        return self._closed

    @property
    def closed(self) -> bool:
        """True once :meth:`close` was called or the loop was closed."""
        return self._closed is not None or self._loop.is_closed()

    def __enter__(self) -> "Handle":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self.closed else "open"
        return f"<{type(self).__name__} {ffi.typeof(self.ptr).item.cname} {state}>"

    def _as(self, ctype: Any) -> CData:
        return ffi.cast(ctype, self.ptr)

    def _convert(self, parameters: "tuple[Any, ...]", args: "tuple[Any, ...]") -> "tuple[Any, ...]":
        """`args` with C callbacks in the place of Python functions."""
        converted = list(args)
        for index, (parameter, arg) in enumerate(zip(parameters, args, strict=False)):
            if callable(arg) and not isinstance(arg, ffi.CData) and _is_callback(parameter):
                converted[index] = callback(self._loop, parameter)(arg)
        return tuple(converted)


# Handles that libuv is about to let go, by address: (loop, its guests, who waits for it).
_closing: "dict[int, tuple[Loop, dict[Any, Any], asyncio.Future[None]]]" = {}

# What every handle, and every stream, may be taken for.
_BASES = (ffi.typeof("uv_handle_t *"), ffi.typeof("uv_stream_t *"))


@ffi.def_extern()  # type: ignore[untyped-decorator]
def uvloop_clone_handle_closed(pointer: CData) -> None:
    """libuv has let go of a handle: its memory may go."""
    address = _address(pointer)
    loop, guests, closed = _closing.pop(address)
    # Not at once: a nested run may have been entered from one of its callbacks.
    loop._release_later(guests.pop(address))
    if not closed.done() and not loop.is_closed():
        closed.set_result(None)


def _address(pointer: CData) -> int:
    return int(ffi.cast("uintptr_t", pointer))


def _check_loop(loop: Any) -> None:
    if not isinstance(loop, Loop):
        raise TypeError(f"a loop of uvloop_clone was expected, got {loop!r}")


def _share(loop: Loop) -> "tuple[int, dict[Any, Any]]":
    """The address of the loop's uv_loop_t, and the dict of what lives until the loop closes."""
    _check_loop(loop)
    return loop._share_uv()


def _parameters(function: Any) -> "tuple[Any, ...]":
    """The C types of the parameters of a function of libuv's."""
    try:
        ctype = ffi.typeof(function)
    except (TypeError, ffi.error):
        ctype = None
    if ctype is not None and ctype.kind == "pointer":
        ctype = ctype.item
    if ctype is None or ctype.kind != "function":
        raise TypeError(f"a function of lib was expected, got {function!r}")
    return tuple(ctype.args)


def _is_callback(ctype: Any) -> bool:
    if ctype.kind == "pointer":
        ctype = ctype.item
    return bool(ctype.kind == "function")


def _makes_handle(parameters: "tuple[Any, ...]") -> bool:
    if len(parameters) < 2 or parameters[0] is not ffi.typeof("uv_loop_t *"):
        return False
    pointer = parameters[1]
    if pointer.kind != "pointer" or pointer.item.kind != "struct":
        return False
    return {"loop", "type"} <= {name for name, _ in pointer.item.fields or ()}


def _report(
    loop: Loop,
    function: Callable[..., Any],
    kind: "type[BaseException]",
    exc: BaseException,
    traceback: Any,
) -> None:
    """What a callback raised goes where the exceptions of any other callback go."""
    name = getattr(function, "__qualname__", repr(function))
    exc = exc.with_traceback(traceback)
    context = {"message": f"Exception in libuv callback {name}()", "exception": exc}
    if loop.is_running() and asyncio._get_running_loop() is not loop:
        loop.call_soon_threadsafe(loop.call_exception_handler, context)  # from the thread pool
        return
    try:
        if isinstance(exc, (SystemExit, KeyboardInterrupt)):
            loop._leave_with(exc)
        else:
            loop.call_exception_handler(context)
    except (SystemExit, KeyboardInterrupt) as leaving:
        loop._leave_with(leaving)
