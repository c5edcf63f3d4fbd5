"""The report on the terminal: one table per group, printed row by row as the run goes on."""

from __future__ import annotations

from benchmarks.loops import LIMIT, OURS
from benchmarks.results import Results, RowResult

CHANCE = 0.02
LABELS = {OURS: "ours"}


def label(name: str) -> str:
    """How a contestant is called in tables."""
    return LABELS.get(name, name)


def amount(value: float | None, unit: str) -> str:
    """A value with its unit, in three or four digits: 1.23 M/s, 52.1 us, 0.9 KiB."""
    if value is None:
        return "-"
    if not unit.endswith("/s"):
        return f"{value:.2f} {unit}" if value < 10 else f"{value:.1f} {unit}"
    for factor, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{value / factor:.3g} {prefix}{'B' if unit == 'bytes/s' else ''}/s"
    return f"{value:.3g} /s"


def times(ratio: float | None) -> str:
    """A ratio, or '-'."""
    return "-" if ratio is None else f"{ratio:.2f}"


def leader(row: RowResult, by: str) -> tuple[str, float] | None:
    """The peer that is ahead of us by more than two figures of one run can differ by chance."""
    best, ours = row.best_peer(by), row.ratio(OURS, row.base(), by)
    if best is None or ours is None or ours >= best[1] * (1 - CHANCE):
        return None
    return best


def state(row: RowResult, by: str) -> str:
    """'met', or what is missing; empty where nothing can be said."""
    if OURS in row.reasons:
        return f"- {row.reasons[OURS]}"
    verdicts = row.verdicts(by)
    missed = [v for v in verdicts if not v.met]
    notes = [f"BELOW {v.goal} (at {v.reached:.3g})" for v in missed]
    if row.early(OURS):
        notes.append(f"{row.early(OURS)} early")
    best = leader(row, by)
    if best is not None:
        notes.append(f"behind {best[0]} ({best[1]:.2f})")
    if notes:
        return ", ".join(notes)
    return "met" if verdicts else ""


def columns(results: Results, row: RowResult) -> list[str]:
    """Contestants of the table: ours last."""
    names = [name for name in results.contestants() if name != OURS]
    names += [name for name in (*row.samples, *row.reasons) if name not in names]
    names = [name for name in dict.fromkeys(names) if name not in (OURS, LIMIT)]
    return [*names, OURS] if OURS in results.versions else names


def cells(results: Results, row: RowResult, by: str) -> list[str]:
    """One row of the table."""
    base = row.base()
    found = [row.title, amount(row.value(base), row.unit)]
    found.append(times(row.ratio(LIMIT, base, by)))
    found += [times(row.ratio(name, base, by)) for name in columns(results, row)]
    found.append(", ".join(str(goal) for goal in row.goals))
    found.append(state(row, by))
    return found


def header(results: Results, row: RowResult) -> list[str]:
    """The head of the table."""
    return [
        row.group,
        f"{row.base() or 'value'} is",
        "limit",
        *[label(name) for name in columns(results, row)],
        "goal",
        "state",
    ]


class Printer:
    """Prints results as they come; a new group begins with a head."""

    def __init__(self) -> None:
        self.group = ""

    def __call__(self, results: Results, row: RowResult) -> None:
        names = header(results, row)
        widths = [42, 11, 5] + [max(7, len(name)) for name in names[3:-2]] + [32, 0]
        if row.group != self.group:
            self.group = row.group
            print("\n" + self.line(names, widths))
        print(self.line(cells(results, row, results.by), widths), flush=True)

    @staticmethod
    def line(cells: list[str], widths: list[int]) -> str:
        """Cells in their widths; the first and the last two to the left."""
        last = len(cells) - 2
        parts = [
            cell.ljust(width) if i == 0 or i >= last else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return "  ".join(parts).rstrip()


def ending(results: Results) -> str:
    """What is absent, why cells are empty, and where we lose."""
    lines = [f"{name} is not compared: {reason}" for name, reason in results.absent.items()]
    reasons: dict[tuple[str, str], list[str]] = {}
    for row in results.rows:
        for name, reason in row.reasons.items():
            reasons.setdefault((label(name), reason), []).append(row.name)
    for (name, reason), rows_without in reasons.items():
        lines.append(f"{name} has no figure for {', '.join(rows_without)}: {reason}")
    for title, rows in (
        ("Below the goal", below(results)),
        ("Behind a peer", behind(results)),
    ):
        if rows:
            lines.append(f"{title} ({len(rows)}):")
            lines += [f"  {row.name}: {state(row, results.by)}" for row in rows]
    return "\n".join(lines)


def below(results: Results) -> list[RowResult]:
    """Rows that miss a goal, the worst first."""
    missed = []
    for row in results.rows:
        gaps = [
            v.goal.value / v.reached if v.goal.against == "at most" else v.reached / v.goal.value
            for v in row.verdicts(results.by)
            if not v.met
        ]
        if gaps:
            missed.append((min(gaps), row))
    return [row for _, row in sorted(missed, key=lambda pair: pair[0])]


def behind(results: Results) -> list[RowResult]:
    """Rows where a peer is better than we are."""
    return [row for row in results.rows if leader(row, results.by) is not None]
