"""A loop's metrics for OpenTelemetry (extra ``otel``): ``instrument(loop)``, once per loop."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping

from opentelemetry.metrics import CallbackOptions, Meter, Observation, get_meter

from . import Loop, Metrics, __version__

__all__ = ("instrument",)

_Values = Iterable[tuple[float, dict[str, str]]]

# (name, unit, description, values); the counters of Metrics
_COUNTERS: tuple[tuple[str, str, str, Callable[[Metrics], _Values]], ...] = (
    ("turns", "{turn}", "Turns of the event loop", lambda m: [(m.turns, {})]),
    ("polls", "{poll}", "Polls of the kernel", lambda m: [(m.polls, {})]),
    ("callbacks", "{callback}", "Handles that ran", lambda m: [(m.callbacks, {})]),
    (
        "time",
        "s",
        "Time in runs of the loop, by what it was spent on",
        lambda m: [(m.busy_time, {"state": "busy"}), (m.idle_time, {"state": "idle"})],
    ),
    (
        "io",
        "By",
        "Bytes that transports received and sent",
        lambda m: [
            (m.bytes_received, {"direction": "receive"}),
            (m.bytes_sent, {"direction": "transmit"}),
        ],
    ),
)

# what goes up and down
_LEVELS: tuple[tuple[str, str, str, Callable[[Metrics], _Values]], ...] = (
    ("ready", "{callback}", "Callbacks that wait for their turn", lambda m: [(m.ready, {})]),
    ("timers", "{timer}", "Timers that are set", lambda m: [(m.timers, {})]),
    (
        "open",
        "{handle}",
        "What the loop watches, by kind",
        lambda m: [
            (m.streams, {"kind": "stream"}),
            (m.servers, {"kind": "server"}),
            (m.datagrams, {"kind": "datagram"}),
            (m.pipes, {"kind": "pipe"}),
            (m.descriptors, {"kind": "descriptor"}),
        ],
    ),
)


def instrument(
    loop: Loop, meter: Meter | None = None, attributes: Mapping[str, str] | None = None
) -> None:
    """Let `meter` (the global provider's, by default) observe `loop.metrics()`.

    The instruments are ``asyncio.eventloop.turns``, ``.polls``, ``.callbacks``, ``.time`` (s, by
    ``state``) and ``.io`` (bytes, by ``direction``), which count, and ``.ready``, ``.timers`` and
    ``.open`` (by ``kind``), which go up and down. `attributes` are added to each observation. The
    loop is held weakly; nothing is observed once it is closed.
    """
    if meter is None:
        meter = get_meter("uvloop_clone", __version__)
    ref = weakref.ref(loop)
    constant = dict(attributes or {})

    def observer(
        values: Callable[[Metrics], _Values],
    ) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def observe(options: CallbackOptions) -> Iterable[Observation]:
            watched = ref()
            if watched is None or watched.is_closed():
                return []
            found = values(watched.metrics())
            return [Observation(value, {**constant, **extra}) for value, extra in found]

        return observe

    for name, unit, description, values in _COUNTERS:
        meter.create_observable_counter(
            f"asyncio.eventloop.{name}", [observer(values)], unit, description
        )
    for name, unit, description, values in _LEVELS:
        meter.create_observable_up_down_counter(
            f"asyncio.eventloop.{name}", [observer(values)], unit, description
        )
