"""Two small plots as SVG text: rows of dots on a logarithmic axis, and lines on two of them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from html import escape

FONT = 'font-family="system-ui, sans-serif"'
COLOURS = {
    "uvloop_clone": "#c2410c",
    "asyncio": "#6b7280",
    "uvloop": "#111827",
    "rloop": "#0f766e",
    "zuvloop": "#7c3aed",
    "blazio": "#2563eb",
    "zloop": "#a16207",
    "loopmini": "#be185d",
    "limit": "#16a34a",
}


def colour(name: str) -> str:
    """The colour of a contestant; a pairing has its loop's."""
    return COLOURS.get(name.partition("+")[0], "#9ca3af")


def _dot(x: float, y: float, radius: float, name: str, note: str = "") -> str:
    """A dot; hollow for a pairing."""
    fill = "#ffffff" if "+" in name else colour(name)
    title = f"<title>{escape(note)}</title>" if note else ""
    return (
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" fill="{fill}" '
        f'stroke="{colour(name)}" stroke-width="1.2">{title}</circle>'
    )


LEAST = 0.125  # ratios below are drawn at the edge


@dataclass
class DotRow:
    """One line of the dot plot: ratios by contestant, and the goal as a ratio."""

    title: str
    ratios: dict[str, float]
    goal: float | None = None


def _text(x: float, y: float, text: str, size: int = 11, anchor: str = "start") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" '
        f'fill="#111827" {FONT}>{escape(text)}</text>'
    )


def _legend(names: list[str], labels: dict[str, str], x: float, y: float) -> list[str]:
    parts = []
    for name in names:
        text = labels.get(name, name)
        parts.append(_dot(x, y - 4, 4, name))
        parts.append(_text(x + 8, y, text))
        x += 26 + 6.5 * len(text)
    return parts


def _page(width: float, height: float, parts: list[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}">'
        '<rect width="100%" height="100%" fill="#ffffff"/>'
    )
    return "\n".join([head, *parts, "</svg>"]) + "\n"


def dots(title: str, groups: dict[str, list[DotRow]], ours: str, labels: dict[str, str]) -> str:
    """Ratios of all contestants, a row for each work; ours is the large dot, the goal a bar."""
    names = list(dict.fromkeys(n for rows in groups.values() for r in rows for n in r.ratios))
    left, step, plot = 290.0, 17.0, 560.0
    values = [v for rows in groups.values() for r in rows for v in (*r.ratios.values(), r.goal)]
    known = [v for v in values if v and v > 0]
    low = math.floor(math.log2(max(min([*known, 0.5]), LEAST)))
    high = math.ceil(math.log2(max([*known, 2.0])))

    def x(value: float) -> float:
        place = (math.log2(max(value, 2.0**low)) - low) / (high - low)
        return left + plot * min(max(place, 0.0), 1.0)

    count = sum(len(rows) + 1 for rows in groups.values())
    top = 66.0
    bottom = top + count * step
    parts = [_text(12, 22, title, 14), *_legend(names, labels, 16, 44)]
    for power in range(low, high + 1):
        at = x(2.0**power)
        dark = "#9ca3af" if power == 0 else "#e5e7eb"
        parts.append(
            f'<line x1="{at:.1f}" y1="{top - 8:.1f}" x2="{at:.1f}" y2="{bottom:.1f}" '
            f'stroke="{dark}"/>'
        )
        parts.append(_text(at, bottom + 14, f"{2.0**power:g}", 10, "middle"))
    y = top
    for group, rows in groups.items():
        parts.append(
            f'<text x="12" y="{y + 10:.1f}" font-size="11" font-weight="bold" '
            f'fill="#111827" {FONT}>{escape(group)}</text>'
        )
        y += step
        for row in rows:
            parts.append(_text(24, y + 10, row.title))
            middle = y + 6
            if row.goal:
                at = x(row.goal)
                parts.append(
                    f'<line x1="{at:.1f}" y1="{middle - 7:.1f}" x2="{at:.1f}" '
                    f'y2="{middle + 7:.1f}" stroke="{colour(ours)}" stroke-width="2"/>'
                )
            for name in sorted(row.ratios, key=lambda n: n == ours):
                radius = 5 if name == ours else 3
                note = f"{labels.get(name, name)} {row.ratios[name]:.2f}"
                parts.append(_dot(x(row.ratios[name]), middle, radius, name, note))
            y += step
    return _page(left + plot + 40, bottom + 28, parts)


@dataclass
class Panel:
    """One panel of the line plot: for each contestant (size, cost) points."""

    title: str
    sizes: str
    costs: str
    lines: dict[str, list[tuple[int, float]]] = field(default_factory=dict)


def lines(title: str, panels: list[Panel], labels: dict[str, str]) -> str:
    """Cost over size, both logarithmic, panels side by side."""
    names = list(dict.fromkeys(name for panel in panels for name in panel.lines))
    width, height, top = 430.0, 280.0, 76.0
    parts = [_text(12, 22, title, 14), *_legend(names, labels, 16, 44)]
    for number, panel in enumerate(panels):
        left = 60.0 + number * (width + 30)
        parts += _panel(panel, left, top, width - 60, height)
    return _page(30 + len(panels) * (width + 30), top + height + 44, parts)


def _panel(panel: Panel, left: float, top: float, width: float, height: float) -> list[str]:
    points = [point for line in panel.lines.values() for point in line]
    if not points:
        return []
    sizes = [math.log10(size) for size, _ in points]
    low_x, high_x = math.floor(min(sizes)), math.ceil(max(sizes))
    costs = [math.log2(cost) for _, cost in points]
    low_y, high_y = math.floor(min(costs)), math.ceil(max(costs))
    high_x, high_y = max(high_x, low_x + 1), max(high_y, low_y + 1)

    def place(size: int, cost: float) -> tuple[float, float]:
        across = (math.log10(size) - low_x) / (high_x - low_x)
        up = (math.log2(cost) - low_y) / (high_y - low_y)
        return left + width * across, top + height * (1 - up)

    parts = [_text(left, top - 12, f"{panel.title} ({panel.costs})", 12)]
    for power in range(low_x, high_x + 1):
        x, _ = place(10**power, 2.0**low_y)
        parts.append(
            f'<line x1="{x:.1f}" y1="{top}" x2="{x:.1f}" y2="{top + height}" stroke="#e5e7eb"/>'
        )
        parts.append(_text(x, top + height + 15, f"{10**power:,}", 10, "middle"))
    for power in range(low_y, high_y + 1):
        _, y = place(10**low_x, 2.0**power)
        parts.append(
            f'<line x1="{left}" y1="{y:.1f}" x2="{left + width}" y2="{y:.1f}" stroke="#e5e7eb"/>'
        )
        parts.append(_text(left - 6, y + 4, f"{2.0**power:g}", 10, "end"))
    parts.append(_text(left + width / 2, top + height + 32, panel.sizes, 11, "middle"))
    for name, line in panel.lines.items():
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in line))
        wide = 2.5 if name == "uvloop_clone" else 1.5
        parts.append(
            f'<polyline points="{path}" fill="none" stroke="{colour(name)}" stroke-width="{wide}"/>'
        )
    return parts
