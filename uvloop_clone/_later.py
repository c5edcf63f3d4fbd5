"""Mixins whose modules are imported when one of their methods is first asked for.

A program that runs a coroutine and a few timers needs no sockets, processes or TLS; importing what
serves them would take longer than all the rest of our start.
"""

from __future__ import annotations

import importlib

from . import _core

TYPE_CHECKING = False  # asyncio does without typing on 3.15, and so do we
if TYPE_CHECKING:
    from typing import Any

__all__ = ("later",)


class _Later:
    """Stands for a method until somebody looks at it; then the method stands there itself."""

    def __init__(self, module: str, mixin: str) -> None:
        self._module = module
        self._mixin = mixin

    def __set_name__(self, owner: type, name: str) -> None:
        self._owner = owner
        self._name = name

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        module = importlib.import_module(f".{self._module}", __package__)
        method = vars(getattr(module, self._mixin))[self._name]
        setattr(self._owner, self._name, method)
        return method.__get__(instance, owner)


def later(module: str, mixin: str, *names: str) -> type:
    """Return a class that has the methods `names` of the class `mixin` in `module`."""
    return type(mixin, (_core.Loop,), {name: _Later(module, mixin) for name in names})
