"""The public loop class: the C core and the mixins that add what awaits several things."""

import asyncio

from . import _core
from ._clock import ClockMixin
from ._executor import ExecutorMixin
from ._reports import ReportsMixin
from ._signals import SignalsMixin

TYPE_CHECKING = False  # asyncio does without typing on 3.15, and so do we
if TYPE_CHECKING:
    from ._connect import ConnectMixin
    from ._datagram import DatagramMixin
    from ._metrics import MetricsMixin
    from ._pipes import PipesMixin
    from ._process import ProcessMixin
    from ._sendfile import SendfileMixin
    from ._sockets import SocketsMixin
    from ._tls import TLSMixin
    from ._unix import UnixMixin
else:
    from ._later import later

    ConnectMixin = later(
        "_connect",
        "ConnectMixin",
        "create_connection",
        "connect_accepted_socket",
        "create_server",
        "_connect_one",
        "_connect_any",
        "_open_stream",
        "_bind_all",
    )
    DatagramMixin = later(
        "_datagram",
        "DatagramMixin",
        "create_datagram_endpoint",
        "_check_reuse_address",
        "_datagram_candidates",
        "_open_datagram_socket",
    )
    MetricsMixin = later("_metrics", "MetricsMixin", "metrics")
    PipesMixin = later(
        "_pipes", "PipesMixin", "connect_read_pipe", "connect_write_pipe", "_pipe_connected"
    )
    ProcessMixin = later(
        "_process",
        "ProcessMixin",
        "subprocess_exec",
        "subprocess_shell",
        "_subprocess",
        "_child_exited",
    )
    SendfileMixin = later(
        "_sendfile",
        "SendfileMixin",
        "sock_sendfile",
        "sendfile",
        "_sock_sendfile_native",
        "_sock_sendfile_fallback",
        "_sendfile_native",
        "_sendfile_fallback",
    )
    SocketsMixin = later("_sockets", "SocketsMixin", "sock_connect", "_sock_is_refused", "_resolve")
    TLSMixin = later(
        "_tls", "TLSMixin", "start_tls", "_tls_protocol", "_tls_transport", "_hand_over_unread"
    )
    UnixMixin = later("_unix", "UnixMixin", "create_unix_connection", "create_unix_server")

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
    MetricsMixin,
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
Loop._own_methods()


def new_event_loop() -> Loop:
    """Return a new loop. It is not made the current one (see :func:`asyncio.set_event_loop`)."""
    return Loop()
