"""``--instructions``: what one operation costs in user-space instructions, by callgrind.

Counts are the same on a busy machine as on an idle one, and they tell whose they are: the
interpreter's (with its own extension modules), the loop's extension, libuv's (a peer may have it
built in), OpenSSL's, or the C library's. What the kernel does is not in them.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from benchmarks import sessions
from benchmarks.loops import LIMIT
from benchmarks.native import Unable
from benchmarks.registry import Row

OWNERS = (
    ("libuv", r"libuv[-.]"),
    ("OpenSSL", r"lib(ssl|crypto)[-.]"),
    ("libc", r"(libc|libm|libpthread|ld-linux[^/]*)[-.]"),
    ("interpreter", r"(lib)?python3|/lib-dynload/"),
    ("extension", r"\.so$"),
)
COLUMNS = ("interpreter", "extension", "libuv", "OpenSSL", "libc", "other")
NAME = re.compile(r"c?ob=\((\d+)\)(?: (.*))?")


def owner(path: str) -> str:
    """Whose an object file is."""
    name = path if "/lib-dynload/" in path else path.rsplit("/", 1)[-1]
    return next((found for found, pattern in OWNERS if re.search(pattern, name)), "other")


def by_owner(lines: Iterable[str]) -> Counter[str]:
    """Instructions by owner, from the lines of a file that callgrind wrote."""
    names: dict[str, str] = {}
    found: Counter[str] = Counter()
    current, inclusive = "other", False
    for line in lines:
        named = NAME.match(line)
        if named:
            number, path = named.groups()
            if path is not None:
                names[number] = path
            if not line.startswith("c"):
                current = owner(names[number])
        elif line.startswith("calls="):
            inclusive = True  # the next line is what the callee cost, which has lines of its own
        elif line[:1].isdigit() or line[:1] in "+-*":
            cost = line.split()[1:]  # nothing stands for zero
            if cost and not inclusive:
                found[current] += int(cost[0])
            inclusive = False
    return found


def control(option: str, pid: int) -> None:
    """Have a running callgrind zero its counters (-z) or write them down (-d)."""
    done = subprocess.run(["callgrind_control", option, str(pid)], capture_output=True, check=False)
    if done.returncode != 0:
        raise Unable(f"callgrind_control: {done.stderr.decode(errors='replace').strip()}")


def count(row: Row, name: str, seconds: float) -> Counter[str]:
    """Instructions of one operation by owner. Raises Unable."""
    if shutil.which("valgrind") is None:
        raise Unable("valgrind is not installed")
    folder = sessions.work_folder()
    tool = ("valgrind", "--tool=callgrind", f"--callgrind-out-file={folder}/callgrind")
    session = sessions.open_session(row, name, folder, tool)
    try:
        child = getattr(session, "child", None)
        if child is None:
            raise Unable("this kind of row has no process that stays")
        session.measure(seconds / 4)  # warm
        child.go()
        control("-z", child.process.pid)
        operations = session.measure(seconds).count
        child.go()
        control("-d", child.process.pid)
        total = by_owner(Path(f"{folder}/callgrind.1").read_text().splitlines())
    finally:
        session.close()
        sessions.remove_folder(folder)
    return Counter({who: round(cost / operations) for who, cost in total.items()})


def table(rows: Iterable[Row], names: Iterable[str], seconds: float) -> Iterable[str]:
    """A table in Markdown, line by line as it is measured."""
    yield "| work | on | all | " + " | ".join(COLUMNS) + " |"
    yield "|---" * (len(COLUMNS) + 3) + "|"
    for row in rows:
        for name in names:
            if name == LIMIT and not getattr(row.work, "limit", ""):
                continue
            try:
                found = count(row, name, seconds)
            except Unable as error:
                yield f"| {row.name} | {name} | {error} |" + " |" * len(COLUMNS)
                continue
            cells = [f"{found[column]:,}" if found[column] else " " for column in COLUMNS]
            all_of_it = f"{sum(found.values()):,}"
            yield f"| {row.name} | {name} | {all_of_it} | " + " | ".join(cells) + " |"
