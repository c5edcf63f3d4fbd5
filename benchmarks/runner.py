"""The run: every row, every contestant, round after round in turn (A B C A B C)."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from benchmarks import sessions
from benchmarks.loops import LIMIT, LOOPS, PAIR, PAIRED
from benchmarks.native import Unable
from benchmarks.registry import Inside, Row, Served
from benchmarks.results import Results, RowResult
from benchmarks.sessions import Session


def machine() -> dict[str, str]:
    """What a reader needs to know about this machine."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release().split('-')[0]} {platform.machine()}",
        "cpu": f"{model}, {os.cpu_count()} cores",
    }


def find_loops(names: Iterable[str], folder: str) -> tuple[dict[str, str], dict[str, str]]:
    """Versions of the loops that can be used, and the reasons of the others."""
    versions: dict[str, str] = {}
    absent: dict[str, str] = {}
    for name in names:
        try:
            versions[name] = sessions.probe(name, folder)
        except Unable as error:
            absent[name] = str(error)
    return versions, absent


def contestants(row: Row, names: Iterable[str], paired: bool) -> list[str]:
    """Who takes part in a row: the loops, pairings where the row wants them, the C server."""
    found = list(names)
    if isinstance(row.work, Served) and row.work.pairs and paired:
        found += [name + PAIR for name in PAIRED if name in found]
    if isinstance(row.work, Inside | Served) and row.work.limit:
        found.append(LIMIT)
    return found


def run_row(row: Row, names: Iterable[str], rounds: int, seconds: float, folder: str) -> RowResult:
    """Measure one row. A contestant that fails is left out from there on, with its reason."""
    result = RowResult(
        row.name, row.title, row.group, row.unit, row.less, row.goals, row.series, row.size
    )
    open_sessions: dict[str, Session] = {}

    def fail(name: str, error: Exception) -> None:
        result.reasons[name] = str(error)
        result.samples.pop(name, None)
        session = open_sessions.pop(name, None)
        if session is not None:
            session.close()

    try:
        for name in names:
            try:
                open_sessions[name] = sessions.open_session(row, name, folder)
            except (Unable, OSError) as error:
                fail(name, error)
        for _ in range(rounds):
            for name in list(open_sessions):
                try:
                    sample = open_sessions[name].measure(seconds)
                except (Unable, OSError) as error:
                    fail(name, error)
                else:
                    result.samples.setdefault(name, []).append(sample)
    finally:
        for session in open_sessions.values():
            session.close()
    return result


def run(
    rows: list[Row],
    names: Iterable[str],
    rounds: int,
    seconds: float,
    by: str,
    show: Callable[[Results, RowResult], None],
) -> Results:
    """Run all rows; ``show`` is called after each."""
    folder = sessions.work_folder()
    try:
        versions, absent = find_loops(names, folder)
        if not versions:
            raise SystemExit("none of the loops is installed")
        paired = any(isinstance(row.work, Served) and row.work.pairs for row in rows)
        if paired:
            extra, missing = find_loops(["asyncio" + PAIR], folder)
            paired = bool(extra)
            absent |= {PAIR[1:]: reason for reason in missing.values()}
        results = Results(machine(), versions, absent, rounds, seconds, by)
        for row in rows:
            sys.stderr.write(f"\r\033[K{row.name} ..." if sys.stderr.isatty() else "")
            sys.stderr.flush()
            found = run_row(row, contestants(row, versions, paired), rounds, seconds, folder)
            results.rows.append(found)
            if sys.stderr.isatty():
                sys.stderr.write("\r\033[K")
            show(results, found)
        return results
    finally:
        sessions.remove_folder(folder)


def known_loops() -> list[str]:
    """Names of all loops that can be compared."""
    return list(LOOPS)
