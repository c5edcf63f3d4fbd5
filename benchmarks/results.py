"""Results: samples, their ratios round by round, and how they stand to the goals."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

from benchmarks.loops import LIMIT, OURS
from benchmarks.registry import Goal
from benchmarks.sessions import Sample

BASES = ("uvloop", "asyncio")


@dataclass(frozen=True)
class Verdict:
    """A goal, what was reached in its measure, and whether that is enough."""

    goal: Goal
    reached: float
    met: bool


@dataclass
class RowResult:
    """All samples of one row, by contestant, and the reasons of those that have none."""

    name: str
    title: str
    group: str
    unit: str
    less: bool
    goals: tuple[Goal, ...]
    series: str = ""
    size: int = 0
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)

    def value(self, name: str) -> float | None:
        """Median value in the row's unit."""
        samples = self.samples.get(name)
        return median(sample.value for sample in samples) if samples else None

    def cpu(self, name: str) -> float | None:
        """Median CPU microseconds for one operation, where known."""
        known = [sample.cpu for sample in self.samples.get(name, []) if sample.cpu]
        return median(known) if known else None

    def scores(self, name: str, by: str) -> list[float]:
        """More is better: values, or what CPU time buys (``by`` is 'wall' or 'cpu')."""
        found = []
        for sample in self.samples.get(name, []):
            if by == "cpu" and sample.cpu:
                found.append(1 / sample.cpu)
            else:
                found.append(1 / sample.value if self.less else sample.value)
        return found

    def ratio(self, name: str, base: str, by: str = "wall") -> float | None:
        """Median over the rounds of what ``name`` reached against ``base`` in that round."""
        pairs = list(zip(self.scores(name, by), self.scores(base, by), strict=False))
        return median(a / b for a, b in pairs) if pairs else None

    def base(self) -> str:
        """The contestant that counts as 1.00."""
        return next((name for name in BASES if self.samples.get(name)), "")

    def peers(self) -> list[str]:
        """Everybody but us and the C server, pairings included."""
        return [name for name in self.samples if name not in (OURS, LIMIT) and self.samples[name]]

    def best_peer(self, by: str = "wall") -> tuple[str, float] | None:
        """The best peer and its ratio to the base."""
        found = [(self.ratio(name, self.base(), by), name) for name in self.peers()]
        known = [(ratio, name) for ratio, name in found if ratio is not None]
        if not known:
            return None
        ratio, name = max(known)
        return name, ratio

    def early(self, name: str) -> int:
        """How often a timer fired before its time."""
        return sum(sample.early for sample in self.samples.get(name, []))

    def verdicts(self, by: str = "wall") -> list[Verdict]:
        """Our standing at every goal that can be judged in this run."""
        return [v for v in (self._verdict(goal, by) for goal in self.goals) if v is not None]

    def _verdict(self, goal: Goal, by: str) -> Verdict | None:
        ours = self.value(OURS)
        if ours is None:
            return None
        if goal.against == "at most":
            return Verdict(goal, ours, ours <= goal.value and not self.early(OURS))
        if goal.against == "aiofastnet":
            pairs = [name for name in self.samples if name.endswith("+aiofastnet")]
            ratios = [self.ratio(OURS, name, by) for name in pairs]
            known = [ratio for ratio in ratios if ratio is not None]
            reached = min(known) if known else None
        else:
            reached = self.ratio(OURS, goal.against, by)
        if reached is None:
            return None
        return Verdict(goal, reached, reached >= goal.value)


@dataclass
class Results:
    """One run: where, what and every row."""

    machine: dict[str, str]
    versions: dict[str, str]
    absent: dict[str, str]
    rounds: int
    seconds: float
    by: str = "wall"
    rows: list[RowResult] = field(default_factory=list)

    def contestants(self) -> list[str]:
        """Loops that took part, in the order of the tables."""
        return list(self.versions)

    def add(self, other: Results) -> None:
        """Take over the rows of another run on the same Python; they replace ours."""
        mine = {row.name: row for row in self.rows}
        mine.update({row.name: row for row in other.rows})
        self.rows = list(mine.values())

    def to_json(self) -> dict[str, Any]:
        """Plain data for ``--json``."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Results:
        """The inverse of ``to_json``."""
        rows = [
            RowResult(
                **{
                    **row,
                    "goals": tuple(Goal(**goal) for goal in row["goals"]),
                    "samples": {
                        name: [Sample(**sample) for sample in samples]
                        for name, samples in row["samples"].items()
                    },
                }
            )
            for row in data["rows"]
        ]
        return cls(**{**data, "rows": rows})
