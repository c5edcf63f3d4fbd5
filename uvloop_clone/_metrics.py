"""loop.metrics(): what a loop has done and what it holds, for whoever watches it."""

from __future__ import annotations

from typing import NamedTuple

from . import _core

__all__ = ("Metrics", "MetricsMixin")


class Metrics(NamedTuple):
    """What a loop has done since it was made, and what it holds now.

    Counters (they only grow): `turns`, `polls`, `callbacks`, `busy_time`, `idle_time`,
    `bytes_received`, `bytes_sent`. The share of a core that the loop needs over a while is the
    growth of `busy_time` by that of `busy_time + idle_time`.
    """

    turns: int
    """Turns of the loop."""
    polls: int
    """How often it asked the kernel what is there."""
    callbacks: int
    """Handles that ran: call_soon(), timers, steps of tasks, readers and writers. Protocols are
    called within a poll and are not among them."""
    busy_time: float
    """Seconds of runs that were spent on callbacks, protocols and polls that do not wait."""
    idle_time: float
    """Seconds of runs that were spent waiting, the busy polling before a wait included."""
    ready: int
    """Callbacks that wait for their turn."""
    timers: int
    """Timers that are set."""
    streams: int
    """TCP and Unix connections that are open."""
    servers: int
    """Sockets that listen."""
    datagrams: int
    """Datagram endpoints that are open."""
    pipes: int
    """Transports of pipes that are open."""
    descriptors: int
    """Other descriptors that are watched: by add_reader(), add_writer() and sock_* operations."""
    bytes_received: int
    """By streams, datagram endpoints and pipes; with TLS as it was on the wire. Not by sock_*."""
    bytes_sent: int
    """As `bytes_received`; what sendfile() sends is not among it."""


class MetricsMixin(_core.Loop):
    """metrics."""

    def metrics(self) -> Metrics:
        """Return the loop's :class:`Metrics`. Any thread may ask; asyncio has nothing like it."""
        return Metrics(*self._metrics())
