"""The public loop class: the C core and the mixins that add what awaits several things."""

import asyncio

from . import _core
from ._clock import ClockMixin
from ._connect import ConnectMixin
from ._datagram import DatagramMixin
from ._executor import ExecutorMixin
from ._pipes import PipesMixin
from ._process import ProcessMixin
from ._reports import ReportsMixin
from ._sendfile import SendfileMixin
from ._signals import SignalsMixin
from ._sockets import SocketsMixin
from ._tls import TLSMixin
from ._unix import UnixMixin

__all__ = ("Loop", "new_event_loop")


class Loop(  # type: ignore[misc]  # our signatures are narrower here and there
    SignalsMixin,
    SendfileMixin,
    UnixMixin,
    ConnectMixin,
    DatagramMixin,
    ProcessMixin,
    PipesMixin,
    TLSMixin,
    SocketsMixin,
    ExecutorMixin,
    ReportsMixin,
    ClockMixin,
    _core.Loop,
    asyncio.AbstractEventLoop,
):
    """An event loop with all of :class:`asyncio.AbstractEventLoop`, on libuv.

    It may be subclassed, weakly referenced, and given attributes.
    """

    # nest_asyncio asks for this mark before it patches a loop: ours is entered again as it is.
    _nest_patched = True


Loop.__module__ = "uvloop_clone"


def new_event_loop() -> Loop:
    """Return a new loop. It is not made the current one (see :func:`asyncio.set_event_loop`)."""
    return Loop()
