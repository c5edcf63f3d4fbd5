"""An asyncio event loop in C on libuv.

``run(main())`` runs a coroutine on it; ``install()`` makes it the loop of every asyncio program of
this process; ``Loop`` and ``new_event_loop`` give single loops.
"""

from ._core import libuv_version
from .loop import Loop, new_event_loop
from .policy import EventLoopPolicy, install
from .runner import run

__all__ = (
    "EventLoopPolicy",
    "Loop",
    "__version__",
    "install",
    "libuv_version",
    "new_event_loop",
    "run",
)

__version__ = "0.1.0"
