"""What is measured: rows, the kinds of work behind them, and the goals they are held to.

The modules in ``benchmarks.works`` fill the registry when they are imported. A row belongs to a
group (one table in the report), has a unit, and one of four kinds of work:

- ``Inside``: an async generator that runs on the loop; each ``yield`` is one batch, worth the
  number of operations it yields.
- ``Served``: a server on the loop, loaded by the C client from another process.
- ``Idle``: memory that a server holds for each open connection on which nothing happens.
- ``WholeProcess``: a Python program from start to exit.
"""

from __future__ import annotations

import asyncio
import importlib
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field

MODULES = (
    "micro",
    "timers",
    "tasks",
    "executor",
    "process",
    "net",
    "streams",
    "tls",
    "http",
    "scale",
)


@dataclass(frozen=True)
class Goal:
    """What a row should reach.

    ``against`` names the measure: ``uvloop`` or ``asyncio`` (times that loop), ``limit`` (times
    the C server), ``aiofastnet`` (times the best pairing of it with a loop), ``at most`` (an
    absolute value in the row's unit).
    """

    against: str
    value: float

    def __str__(self) -> str:
        if self.against == "at most":
            return f"<= {self.value:g}"
        return f"{self.value:g} x {self.against}"


def over_uvloop(value: float) -> Goal:
    """At least ``value`` times uvloop."""
    return Goal("uvloop", value)


def of_limit(value: float) -> Goal:
    """At least ``value`` times the C server."""
    return Goal("limit", value)


def at_most(value: float) -> Goal:
    """Not more than ``value`` in the row's own unit."""
    return Goal("at most", value)


Batches = AsyncGenerator[float, None]


@dataclass(frozen=True)
class Inside:
    """Work inside one process: batches of operations on the loop itself."""

    function: Callable[[asyncio.AbstractEventLoop], Batches]
    pinned: bool = True  # False where threads or child processes take part
    mean: bool = False  # the batches yield measures, not counts: the value is their mean size
    limit: str = ""  # name of a C program that measures the same


@dataclass(frozen=True)
class Place:
    """Where a server shall listen: a socket that is bound already, or a Unix path."""

    sock: socket.socket | None = None
    path: str = ""
    certificate: str = ""
    key: str = ""

    @property
    def listener(self) -> socket.socket:
        """The socket; ValueError where the place is a path."""
        if self.sock is None:
            raise ValueError("this place is a path")
        return self.sock


@dataclass(frozen=True)
class Served:
    """A server on the loop under the load of the C client; value: answers per second."""

    serve: Callable[[asyncio.AbstractEventLoop, Place], Awaitable[object]]
    client: tuple[str, ...]  # options of the client
    transport: str = "tcp"  # tcp, unix or udp
    limit: str = ""  # name of the C program that is the limit: echo_uv, echo_tls
    tls: bool = False
    pairs: bool = False  # also run each loop with aiofastnet


@dataclass(frozen=True)
class Idle:
    """Memory (KiB) a server holds for one open connection on which nothing happens."""

    serve: Callable[[asyncio.AbstractEventLoop, Place], Awaitable[object]]
    connections: int


@dataclass(frozen=True)
class WholeProcess:
    """Milliseconds from the start of a Python process to its end; {loop} is a factory call."""

    code: str


Work = Inside | Served | Idle | WholeProcess


@dataclass(frozen=True)
class Row:
    """One line of the report."""

    name: str
    title: str
    group: str
    unit: str
    work: Work
    goals: tuple[Goal, ...] = ()
    less: bool = False  # less is better
    series: str = ""  # rows of one series make a line in the growth plot
    size: int = 0  # position on that line

    @property
    def never_early(self) -> bool:
        """True where negative measures are a fault."""
        return isinstance(self.work, Inside) and self.work.mean


@dataclass
class _Registry:
    rows: dict[str, Row] = field(default_factory=dict)


_registry = _Registry()


def add(row: Row) -> None:
    """Register a row; its name must be new."""
    if row.name in _registry.rows:
        raise ValueError(f"two rows are named {row.name!r}")
    _registry.rows[row.name] = row


def inside(
    name: str,
    title: str,
    group: str,
    unit: str,
    *goals: Goal,
    pinned: bool = True,
    mean: bool = False,
    less: bool = False,
    limit: str = "",
) -> Callable[
    [Callable[[asyncio.AbstractEventLoop], Batches]],
    Callable[[asyncio.AbstractEventLoop], Batches],
]:
    """Decorator: the async generator below is the work of a row."""

    def register(
        function: Callable[[asyncio.AbstractEventLoop], Batches],
    ) -> Callable[[asyncio.AbstractEventLoop], Batches]:
        work = Inside(function, pinned=pinned, mean=mean, limit=limit)
        add(Row(name, title, group, unit, work, goals, less=less))
        return function

    return register


def load() -> dict[str, Row]:
    """Import every module of works and return all rows in their order."""
    for module in MODULES:
        importlib.import_module(f"benchmarks.works.{module}")
    return _registry.rows


def groups(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Rows by group, in order."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.group, []).append(row)
    return found
