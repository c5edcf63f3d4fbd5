"""Run every example on this project's loop and check what it prints.

    python examples/run_all.py [--how script|runner] [-k TEXT] [-v]

--how script   each example is run as `python example.py` (default)
--how runner   each example is run as `python -m uvloop_clone example.py`
-k TEXT        only examples whose name contains TEXT
-v             name the examples that passed too

What an example must print stands in `expected/<name>.txt`. What it takes beyond the standard
library stands in the last line of its docstring, after `Needs:`; where that is absent the
example is skipped, and the reason is printed. The last line of the output reads
`N passed, N failed, N skipped`; the exit status is 0 if nothing failed.

Standard library only; the interpreter that runs this file runs the examples.
"""

import argparse
import ast
import functools
import importlib.util
import os
import pathlib
import socket
import subprocess
import sys
from collections.abc import Iterable, Mapping

HERE = pathlib.Path(__file__).resolve().parent
TIME_LIMIT = 60  # seconds for one example; far more than any of them takes
POSTGRESQL = ("127.0.0.1", int(os.environ.get("PGPORT", "5432")))
LOG_IN = """
import asyncio, asyncpg, os, sys
async def log_in():
    connection = await asyncpg.connect(
        host=sys.argv[1],
        port=int(sys.argv[2]),
        user=os.environ.get("PGUSER", "postgres"),
        password=os.environ.get("PGPASSWORD"),
        database=os.environ.get("PGDATABASE", "postgres"),
        timeout=10,
    )
    await connection.close()
asyncio.run(log_in())
"""


def examples() -> list[pathlib.Path]:
    """The example scripts, in alphabetical order."""
    return sorted(path for path in HERE.glob("*.py") if path != pathlib.Path(__file__).resolve())


def expectation(example: pathlib.Path) -> pathlib.Path:
    """The file that holds what `example` must print."""
    return HERE / "expected" / (example.stem + ".txt")


def needs(example: pathlib.Path) -> list[str]:
    """What the `Needs:` line of the docstring of `example` lists; empty if it has none."""
    docstring = ast.get_docstring(ast.parse(example.read_text(encoding="utf-8"))) or ""
    last_line = docstring.rpartition("\n")[2]
    if not last_line.startswith("Needs:"):
        return []
    return [need.strip() for need in last_line.removeprefix("Needs:").split(",")]


@functools.cache
def postgresql_refuses() -> str:
    """Why the PostgreSQL example cannot run here; an empty string if it can."""
    where = "PostgreSQL on {}:{}".format(*POSTGRESQL)
    try:
        socket.create_connection(POSTGRESQL, timeout=5).close()
    except OSError as error:
        return f"no {where}: {error.strerror or error}"
    attempt = subprocess.run(
        [sys.executable, "-c", LOG_IN, *map(str, POSTGRESQL)],
        capture_output=True,
        text=True,
        timeout=TIME_LIMIT,
    )
    if attempt.returncode:
        return f"{where} does not let us in: {attempt.stderr.strip().splitlines()[-1]}"
    return ""


def missing(needed: Iterable[str]) -> str:
    """Why an example that needs `needed` cannot run here; an empty string if it can."""
    for need in needed:
        if need.startswith("Python "):
            wanted = tuple(int(part) for part in need.removeprefix("Python ").split("."))
            if sys.version_info < wanted:
                return f"needs {need} or later"
        elif need == "PostgreSQL":
            if reason := postgresql_refuses():
                return reason
        elif importlib.util.find_spec(need) is None:
            return f"needs the package {need}"
    return ""


def run(
    example: pathlib.Path,
    how: str = "script",
    environment: "Mapping[str, str] | None" = None,
) -> str:
    """Run `example` in a process of its own.

    Returns what is wrong with its output, exit status or length, in one or more lines; an
    empty string if all is as expected. `environment` is added to the process's own.
    """
    try:
        expected = expectation(example).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        return f"there is no file {error.filename} that says what it prints"
    command = [sys.executable, "-W", "always::ResourceWarning"]
    if how == "runner":
        command += ["-m", "uvloop_clone"]
    command.append(str(example))
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=TIME_LIMIT,
            cwd=example.parent,  # not the checkout, whose sources would hide the installed package
            env={**os.environ, "PYTHONIOENCODING": "utf-8", **(environment or {})},
        )
    except subprocess.TimeoutExpired:
        return f"no end within {TIME_LIMIT} s"
    faults = []
    if done.returncode:
        faults.append(f"exit status {done.returncode}")
    if done.stdout != expected:
        faults.append(f"expected:\n{expected}printed:\n{done.stdout}")
    if done.stderr:
        faults.append(f"on stderr:\n{done.stderr}")
    return "\n".join(faults)


def main() -> int:
    """Run what the command line asks for; the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--how", choices=["script", "runner"], default="script")
    parser.add_argument("-k", default="", metavar="TEXT")
    parser.add_argument("-v", action="store_true")
    options = parser.parse_args()
    if importlib.util.find_spec("uvloop_clone") is None:
        print(f"uvloop_clone is not installed for {sys.executable}: pip install .")
        return 2

    counts = {"passed": 0, "failed": 0, "skipped": 0}
    for example in examples():
        if options.k not in example.stem:
            continue
        if detail := missing(needs(example)):
            outcome = "skipped"
        else:
            detail = run(example, options.how)
            outcome = "failed" if detail else "passed"
        counts[outcome] += 1
        if detail or options.v:
            print(f"{outcome}  {example.name}" + (f": {detail}" if detail else ""), flush=True)
    print(", ".join(f"{count} {outcome}" for outcome, count in counts.items()))
    return 1 if counts["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
