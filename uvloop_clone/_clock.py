"""What tools that drive a loop's clock take hold of, beside time(): asyncio's selector.

Such a tool replaces ``loop._selector.select``, or the whole selector; asyncio calls it once a turn
with the time that it is going to wait. Ours does the same for a tool that is there, and only then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from . import _core

TYPE_CHECKING = False  # asyncio does without typing on 3.15, and so do we
if TYPE_CHECKING:
    from typing import Any

__all__ = ("ClockMixin",)


class _Selector:
    """Stands for the selector of asyncio's loops."""

    def __init__(self, loop: ClockMixin) -> None:
        self.__dict__["_loop"] = loop

    def select(self, timeout: float | None = None) -> list[bool]:
        """Poll the kernel, waiting `timeout` seconds at most; an empty list: nothing happened."""
        return [True] if self.__dict__["_loop"]._poll(timeout) else []

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name == "select":
            self.__dict__["_loop"]._set_poll_hook(value)

    def __delattr__(self, name: str) -> None:
        super().__delattr__(name)
        if name == "select":
            self.__dict__["_loop"]._set_poll_hook(None)


class ClockMixin(_core.Loop):
    """The selector that is none, and classes mixed with asyncio's own loop."""

    __selector: Any = None

    @property
    def _selector(self) -> Any:
        if self.__selector is None:
            self.__selector = _Selector(self)
        return self.__selector

    @_selector.setter
    def _selector(self, selector: Any) -> None:
        self.__selector = selector
        own = isinstance(selector, _Selector) and "select" not in vars(selector)
        self._set_poll_hook(None if own else selector.select)

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        if issubclass(cls, asyncio.BaseEventLoop):
            _put_ours_first(cls)


def _put_ours_first(cls: type) -> None:
    """Tools derive from asyncio's BaseEventLoop to override a little of it: that alone counts.

    Whatever such a class would inherit from BaseEventLoop though our loop has it, it gets from us.
    """
    theirs = cls.__mro__.index(asyncio.BaseEventLoop)
    ours = cls.__mro__[theirs + 1 :]
    for name in vars(asyncio.BaseEventLoop):
        if name in ("__module__", "__doc__", "__dict__", "__weakref__"):
            continue
        if any(name in vars(base) for base in cls.__mro__[:theirs]):
            continue  # what the tool overrides
        for base in ours:
            if name in vars(base) and base is not object:
                setattr(cls, name, vars(base)[name])
                break
    debug: Callable[[Any], bool] = _core.Loop.get_debug
    cls._debug = property(debug)  # type: ignore[attr-defined]  # BaseEventLoop's methods ask it
