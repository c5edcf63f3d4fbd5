"""The command: ``python -m benchmarks``."""

from __future__ import annotations

import argparse
import fnmatch
import json
import signal
import sys
from pathlib import Path

from benchmarks import docs, instructions, profile, registry, report, runner
from benchmarks.loops import LIMIT, OURS
from benchmarks.native import Unable
from benchmarks.results import Results

GROWTH = "Growth"


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Compare the loop with every installed peer, side by side in one run.",
    )
    parser.add_argument(
        "--only",
        action="append",
        metavar="PATTERN",
        help="a row by its name, or rows with this in their name or group; repeatable",
    )
    parser.add_argument("--loops", metavar="A,B", help="only these loops")
    parser.add_argument("--rounds", type=int, help="rounds of each row (default 5)")
    parser.add_argument("--seconds", type=float, help="seconds of one measure (default 0.5)")
    parser.add_argument(
        "--quick", action="store_true", help="3 rounds of 0.15 s, without the growth rows"
    )
    parser.add_argument(
        "--by",
        choices=("wall", "cpu"),
        help="ratios of elapsed time, or of the CPU time of the loop's process (steadier where "
        "other programs run beside)",
    )
    parser.add_argument("--json", metavar="FILE", help="write all samples")
    parser.add_argument(
        "--from",
        dest="sources",
        nargs="+",
        metavar="FILE",
        help="do not measure: report what --json wrote",
    )
    parser.add_argument("--write-docs", action="store_true", help="write docs/performance.md")
    parser.add_argument(
        "--profile",
        action="store_true",
        help="instead of comparing, show where the time of each loop goes at the rows (perf)",
    )
    parser.add_argument(
        "--instructions",
        action="store_true",
        help="instead of comparing, count the instructions of one operation (valgrind)",
    )
    parser.add_argument("--list", action="store_true", help="name the rows and end")
    return parser.parse_args(argv)


def choose(rows: dict[str, registry.Row], args: argparse.Namespace) -> list[registry.Row]:
    """The rows asked for."""
    known = set(rows)
    if args.only:
        rows = {
            name: row
            for name, row in rows.items()
            if any(
                row.name == pattern
                or (pattern not in known and fnmatch.fnmatch(text.lower(), f"*{pattern.lower()}*"))
                for pattern in args.only
                for text in (row.name, row.group)
            )
        }
    return [row for row in rows.values() if not (args.quick and row.group == GROWTH)]


def measure(args: argparse.Namespace) -> Results:
    """Run and print."""
    chosen = choose(registry.load(), args)
    if not chosen:
        raise SystemExit("no row has such a name; --list names them all")
    known = runner.known_loops()
    names = args.loops.split(",") if args.loops else known
    unknown = [name for name in names if name not in known]
    if unknown:
        raise SystemExit(f"unknown loops: {', '.join(unknown)}; known: {', '.join(known)}")
    rounds = args.rounds or (3 if args.quick else 5)
    seconds = args.seconds or (0.15 if args.quick else 0.5)
    return runner.run(chosen, names, rounds, seconds, args.by or "wall", report.Printer())


def show_profiles(args: argparse.Namespace) -> int:
    """Print a profile for each row and loop asked for; ours alone if none is named."""
    for row in choose(registry.load(), args):
        for name in args.loops.split(",") if args.loops else [OURS]:
            try:
                print(profile.profile(row, name, args.seconds or 3.0) + "\n", flush=True)
            except Unable as error:
                print(f"{row.name} on {name}: {error}\n")
    return 0


def show_instructions(args: argparse.Namespace) -> int:
    """Print the instructions of one operation for each row asked for."""
    names = args.loops.split(",") if args.loops else [OURS, "uvloop", LIMIT]
    rows = choose(registry.load(), args)
    for line in instructions.table(rows, names, args.seconds or 2.0):
        print(line, flush=True)
    return 0


def reread(args: argparse.Namespace) -> list[Results]:
    """Earlier runs, printed again; runs on the same Python count as parts of one."""
    found: dict[str, Results] = {}
    for name in args.sources:
        results = Results.from_json(json.loads(Path(name).read_text()))
        first = found.setdefault(results.machine["python"], results)
        if first is not results:
            first.add(results)
    for results in found.values():
        show = report.Printer()
        results.by = args.by or results.by
        for row in results.rows:
            show(results, row)
    return list(found.values())


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    args = parse(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the processes are ended
    if args.list:
        for group, rows in registry.groups(registry.load().values()).items():
            print(group)
            for row in rows:
                print(f"  {row.name:28} {row.title}")
        return 0
    if args.profile:
        return show_profiles(args)
    if args.instructions:
        return show_instructions(args)
    runs = reread(args) if args.sources else [measure(args)]
    for results in runs:
        print("\n" + report.ending(results))
    if args.json:
        Path(args.json).write_text(json.dumps(runs[0].to_json(), indent=1) + "\n")
    if args.write_docs:
        for path in docs.write(runs):
            print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BrokenPipeError:  # the reader of the report has gone
        sys.stderr.close()
        sys.exit(1)
