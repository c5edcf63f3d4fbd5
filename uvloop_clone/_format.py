"""Text of handles, called when somebody looks at one; and what the core looks for elsewhere."""

from __future__ import annotations

import _socket
import asyncio
import sys
import traceback
from asyncio import format_helpers, tasks
from collections.abc import Callable

try:
    from ssl import SSLSocket
except ImportError:  # a Python without ssl has no such sockets either

    class SSLSocket:  # type: ignore[no-redef]
        """Stands for a class that has no instances."""


SOCKET_KIND = _socket.socket.type
"""Tells SOCK_STREAM and its kin of a socket, without the enum that ``sock.type`` makes."""

C_TASK = getattr(tasks, "_CTask", None)
"""The Task class in C, where Python was built with it."""

TYPE_CHECKING = False  # asyncio does without typing on 3.15, and so do we
if TYPE_CHECKING:
    from typing import Any

__all__ = (
    "C_TASK",
    "SOCKET_KIND",
    "SSLSocket",
    "describe_callback",
    "describe_handle",
    "format_callback",
    "format_handle",
)


def format_callback(
    callback: Callable[..., Any], args: tuple[Any, ...] | None, debug: bool = False
) -> str:
    """Name, arguments and source line of a callback, as asyncio's messages show them."""
    describe: Any = format_helpers._format_callback_source
    if sys.version_info >= (3, 13):
        text = describe(callback, args, debug=debug)
    else:
        text = describe(callback, args)
    return str(text)


def format_handle(
    handle_kind: str,
    callback: Callable[..., Any] | None,
    args: tuple[Any, ...] | None,
    cancelled: bool,
    when: float | None,
    source_traceback: traceback.StackSummary | None,
    debug: bool,
) -> str:
    """The repr of a handle: its class name, state, deadline, callback and place of creation."""
    parts = [handle_kind]
    if cancelled:
        parts.append("cancelled")
    if when is not None:
        parts.append(f"when={when}")
    if callback is not None:
        parts.append(format_callback(callback, args, debug))
    if source_traceback:
        frame = source_traceback[-1]
        parts.append(f"created at {frame[0]}:{frame[1]}")
    return f"<{' '.join(parts)}>"


def describe_callback(handle: Any) -> str:
    """What a failed callback is reported as: its name, arguments and source line."""
    return format_callback(handle._callback, handle._args)


def describe_handle(handle: Any) -> str:
    """What a slow callback is reported as: its task where it is a task's step, else the handle."""
    owner = getattr(handle._callback, "__self__", None)
    return repr(owner) if isinstance(owner, asyncio.Task) else str(handle)
