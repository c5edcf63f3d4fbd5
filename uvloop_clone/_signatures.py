"""Signatures as each Python shows them, though all keywords are accepted on every Python."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable

TYPE_CHECKING = False  # asyncio does without typing on 3.15, and so do we
if TYPE_CHECKING:
    from typing import Any, TypeVar

    _Function = TypeVar("_Function", bound=Callable[..., Any])


def since(**parameters: tuple[int, int]) -> Callable[[_Function], _Function]:
    """Decorator: :func:`inspect.signature` shows each named parameter from its version on."""

    def decorate(function: _Function) -> _Function:
        hidden = {name for name, version in parameters.items() if sys.version_info < version}
        if hidden:
            shown = inspect.signature(function)
            function.__signature__ = shown.replace(  # type: ignore[attr-defined]
                parameters=[p for p in shown.parameters.values() if p.name not in hidden]
            )
        return function

    return decorate
