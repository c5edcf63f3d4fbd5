"""An asyncio event loop in C on libuv.

``run(main())`` runs a coroutine on it; ``install()`` makes it the loop of every asyncio program of
this process; ``Loop`` and ``new_event_loop`` give single loops.
"""

from __future__ import annotations

from importlib import import_module

from ._core import libuv_version
from .loop import Loop, new_event_loop

TYPE_CHECKING = False  # asyncio does without typing on 3.15, and so do we
if TYPE_CHECKING:
    from typing import Any

    from ._metrics import Metrics
    from .policy import EventLoopPolicy, install
    from .runner import run

__all__ = (
    "EventLoopPolicy",
    "Loop",
    "Metrics",
    "__version__",
    "install",
    "libuv_version",
    "new_event_loop",
    "run",
)

__version__ = "0.1.0"


# A program that makes its loop needs none of these modules.
_LATER = {
    "EventLoopPolicy": "policy",
    "Metrics": "_metrics",
    "install": "policy",
    "run": "runner",
}


def __getattr__(name: str) -> Any:
    """Import what was not asked for before."""
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f".{_LATER[name]}", __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
