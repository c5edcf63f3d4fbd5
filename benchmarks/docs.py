"""docs/performance.md and its plots, written from the results of one or more runs."""

from __future__ import annotations

from pathlib import Path

from benchmarks import report, svg
from benchmarks.loops import LIMIT, OURS
from benchmarks.results import Results, RowResult

ROOT = Path(__file__).resolve().parent.parent
NOTES = Path(__file__).resolve().parent / "notes.md"
GROWTH = "Growth"
COSTS = {
    "connections": ("TCP echo of 1 KiB", "open connections, all busy"),
    "timers": ("Timers set and fired", "timers at once"),
}
INTRODUCTION = """# Performance

Written by `python -m benchmarks --write-docs`; `benchmarks/README.md` tells how it measures.
Figures are ratios to uvloop (1.00) in the same round, the median over the rounds; more is better.
"limit" is a bare echo server in C on libuv (for TLS: libuv with OpenSSL on memory BIOs) under the
same client. "-" is a work that a loop cannot do, with the reason below the table.
"""


def table(results: Results, rows: list[RowResult]) -> list[str]:
    """A group's table in Markdown; ours is bold."""
    widest = max(rows, key=lambda row: len(report.columns(results, row)))
    head = report.header(results, widest)
    head[0] = "work"
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for row in rows:
        cells = report.cells(results, row, results.by)
        if OURS in results.versions:
            cells[-3] = f"**{cells[-3]}**"
        lines.append("| " + " | ".join(cell or " " for cell in cells) + " |")
    reasons: dict[str, list[str]] = {}
    for row in rows:
        for name, reason in row.reasons.items():
            reasons.setdefault(f"{report.label(name)}: {reason}", []).append(row.title)
    lines += [""] + [f"- {text} ({', '.join(titles)})" for text, titles in reasons.items()]
    return lines


def goal_ratio(row: RowResult, by: str) -> float | None:
    """The row's first goal as a ratio to the base, to be drawn."""
    for goal in row.goals:
        if goal.against == "at most":
            base = row.value(row.base())
            return base / goal.value if base else None
        scale = row.ratio(goal.against, row.base(), by)
        if scale is not None:
            return goal.value * scale
    return None


def dot_plot(results: Results) -> str:
    """All rows but the growth ones as dots."""
    groups: dict[str, list[svg.DotRow]] = {}
    for row in results.rows:
        if row.group == GROWTH or not row.base():
            continue
        names = [*row.peers(), LIMIT, OURS]
        found = {name: row.ratio(name, row.base(), results.by) for name in names}
        ratios = {name: ratio for name, ratio in found.items() if ratio is not None}
        groups.setdefault(row.group, []).append(
            svg.DotRow(row.title, ratios, goal_ratio(row, results.by))
        )
    title = f"Against uvloop (1), CPython {results.machine['python']}; bars are the goals"
    return svg.dots(title, groups, OURS, report.LABELS)


def growth_plot(results: Results) -> str:
    """CPU time of one event over the number of connections and timers; '' without such rows."""
    panels: dict[str, svg.Panel] = {}
    for row in results.rows:
        if not row.series:
            continue
        title, sizes = COSTS[row.series]
        panel = panels.setdefault(row.series, svg.Panel(title, sizes, "CPU us for one"))
        for name in row.samples:
            cost = row.cpu(name)
            if cost:
                panel.lines.setdefault(name, []).append((row.size, cost))
    if not panels:
        return ""
    return svg.lines("How the cost of one event grows", list(panels.values()), report.LABELS)


def flatness(results: Results) -> list[str]:
    """How far the cost of one event moves over each series: ours, and beside it the others'."""
    found: dict[str, dict[str, list[float]]] = {}
    for row in results.rows:
        for name in row.samples if row.series else ():
            cost = row.cpu(name)
            if cost:
                found.setdefault(row.series, {}).setdefault(name, []).append(cost)
    lines = []
    for series, costs in found.items():
        spans = {name: f"{max(those) / min(those):.2f}" for name, those in costs.items()}
        ours = spans.pop(OURS, None)
        if ours is not None:
            others = "; ".join(f"{report.label(name)}: {span}" for name, span in spans.items())
            beside = f"; {others}" if others else ""
            lines += [
                f"- Over the {series}, our dearest event costs {ours} times the cheapest (the mark "
                f"is 1.5{beside})."
            ]
    return lines


def losses(results: Results) -> list[str]:
    """The rows below a goal or behind a peer."""
    lines = []
    for title, rows in (
        ("Below the goal", report.below(results)),
        ("Behind a peer", report.behind(results)),
    ):
        if rows:
            lines += ["", f"{title}:", ""]
            lines += [
                f"- {row.group}, {row.title}: {report.state(row, results.by)}" for row in rows
            ]
    return lines or ["", "Every goal that this run can judge is met, and no peer is ahead."]


def section(results: Results, folder: Path) -> tuple[list[str], list[Path]]:
    """One run as Markdown, and the plots it wrote."""
    python = results.machine["python"]
    mark = ".".join(python.split(".")[:2])
    versions = ", ".join(
        f"{name} {version}" for name, version in results.versions.items() if name != "asyncio"
    )
    clock = "CPU time" if results.by == "cpu" else "elapsed time"
    how = f"{results.rounds} rounds of {results.seconds:g} s, {clock}"
    place = f"{results.machine['cpu']}, {results.machine['system']}"
    lines = [f"## CPython {python}", "", f"{place}; {how}; {versions}."]
    lines += [f"Not compared: {name} ({reason})." for name, reason in results.absent.items()]
    paths = []
    for name, text in (("ratios", dot_plot(results)), ("growth", growth_plot(results))):
        if text:
            path = folder / f"performance-{name}-{mark}.svg"
            path.write_text(text)
            paths.append(path)
            lines += ["", f"![{name}]({path.name})"]
    groups: dict[str, list[RowResult]] = {}
    for row in results.rows:
        groups.setdefault(row.group, []).append(row)
    for group, rows in groups.items():
        lines += ["", f"### {group}", "", *table(results, rows)]
        if group == GROWTH:
            lines += ["", *flatness(results)]
    if OURS in results.versions:
        lines += ["", "### Where we stand", *losses(results)]
    return lines, paths


def write(runs: list[Results], folder: Path | None = None) -> list[Path]:
    """Write the page and its plots; returns their paths."""
    folder = folder or ROOT / "docs"
    lines, paths = [INTRODUCTION], [folder / "performance.md"]
    for results in runs:
        found, plots = section(results, folder)
        lines += [*found, ""]
        paths += plots
    if NOTES.exists():
        lines.append(NOTES.read_text())
    text = "\n".join(lines).replace("\n\n\n", "\n\n").rstrip() + "\n"
    paths[0].write_text(text)
    return paths
