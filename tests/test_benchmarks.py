"""The benchmarks' own arithmetic, their plots, and one real row from the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import xml.etree.ElementTree
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))

from benchmarks import docs, instructions, registry, report, svg  # noqa: E402
from benchmarks.loops import LIMIT, OURS  # noqa: E402
from benchmarks.results import Results, RowResult  # noqa: E402
from benchmarks.sessions import Sample  # noqa: E402


def row(*goals, less=False, **values):
    """A row whose contestants have these values, one for each round."""
    names = {"ours": OURS, "pair": "uvloop+aiofastnet"}
    samples = {
        names.get(name, name): [Sample(float(value)) for value in found]
        for name, found in values.items()
    }
    return RowResult("r", "title", "group", "calls/s", less, goals, samples=samples)


def results(*rows):
    return Results(
        {"python": "3.11.7", "cpu": "c", "system": "s"}, {OURS: "1"}, {}, 3, 1, rows=rows
    )


def test_ratio_is_the_median_of_the_rounds_own_ratios():
    found = row(ours=[10, 40, 90], uvloop=[10, 20, 30])
    assert found.ratio(OURS, "uvloop") == 2
    assert row(less=True, ours=[1], uvloop=[4]).ratio(OURS, "uvloop") == 4


def test_goals_are_judged_against_their_own_measure():
    over, limit = registry.over_uvloop(1.5), registry.of_limit(0.97)
    found = row(over, limit, ours=[15], uvloop=[10], limit=[20])
    assert [verdict.met for verdict in found.verdicts()] == [True, False]
    assert "BELOW 0.97 x limit (at 0.75)" in report.state(found, "wall")
    pair = registry.Goal("aiofastnet", 1.05)
    assert not row(pair, ours=[10], pair=[10]).verdicts()[0].met
    assert row(registry.at_most(40), less=True, ours=[39]).verdicts()[0].met


def test_growth_is_told_for_all_that_took_part():
    rows = []
    for size, ours, limit in ((10, 2.0, 1.0), (100, 1.0, 1.5), (1000, 3.0, 2.0)):
        found = row(ours=[1], limit=[1])
        found.series, found.size = "connections", size
        found.samples = {OURS: [Sample(1, cpu=ours)], LIMIT: [Sample(1, cpu=limit)]}
        rows.append(found)
    (line,) = docs.flatness(results(*rows))
    assert "ours" not in line
    assert "3.00 times the cheapest (the mark is 1.5; limit: 2.00)" in line


CALLGRIND = """
positions: line
ob=(1) /usr/lib/libpython3.11.so.1.0
fn=(1) eval
12 100
+3 5
cob=(2) /usr/lib/libc.so.6
cfn=(2) memcpy
calls=2 40
* 900
17
ob=(2)
fn=(2)
40 60
ob=(3) /venv/uvloop_clone/_core.cpython-311-x86_64-linux-gnu.so
fn=(3) turn
-2 7
cob=(4) /usr/lib/python3.11/lib-dynload/_asyncio.cpython-311-x86_64-linux-gnu.so
calls=1 1
1 30
ob=(4)
1 30
"""


def test_instructions_are_counted_once_and_by_owner():
    found = instructions.by_owner(CALLGRIND.splitlines())
    assert found == {"interpreter": 135, "libc": 60, "extension": 7}
    assert instructions.owner("/usr/lib/x86_64-linux-gnu/libuv.so.1.0.0") == "libuv"
    assert instructions.owner("/usr/lib/libcrypto.so.3") == "OpenSSL"
    assert instructions.owner("/usr/bin/python3.13") == "interpreter"
    assert instructions.owner("/usr/lib/ld-linux-x86-64.so.2") == "libc"
    assert instructions.owner("???") == "other"


def test_one_early_timer_fails_the_goal():
    found = row(registry.at_most(40), less=True, ours=[39])
    found.samples[OURS].append(Sample(39, early=1))
    assert not found.verdicts()[0].met
    assert "1 early" in report.state(found, "wall")


def test_a_peer_ahead_is_named():
    found = row(ours=[10], uvloop=[10], rloop=[12])
    assert report.state(found, "wall") == "behind rloop (1.20)"
    assert report.behind(results(found)) == [found]


def test_results_survive_json():
    before = results(row(registry.over_uvloop(1.5), ours=[1, 2], uvloop=[3, 4]))
    text = json.dumps(before.to_json())
    after = Results.from_json(json.loads(text))
    assert json.dumps(after.to_json()) == text
    assert after.rows[0].verdicts() == before.rows[0].verdicts()


def test_plots_are_well_formed_and_hold_every_contestant():
    dots = svg.dots("t", {"g <1>": [svg.DotRow("r", {"uvloop": 1, OURS: 2}, 1.5)]}, OURS, {})
    panel = svg.Panel("t", "sizes", "us", {"uvloop": [(10, 1.0), (1000, 1.4)]})
    for text, wanted in ((dots, {"uvloop", OURS}), (svg.lines("t", [panel], {}), {"uvloop"})):
        words = {element.text for element in xml.etree.ElementTree.fromstring(text).iter()}
        assert wanted <= words


def test_page_states_losses(tmp_path):
    found = row(registry.over_uvloop(1.5), ours=[10], uvloop=[10])
    found.reasons["rloop"] = "NotImplementedError"
    paths = docs.write([results(found)], tmp_path)
    page = paths[0].read_text()
    assert "Below the goal" in page
    assert "rloop: NotImplementedError (title)" in page
    assert all(path.exists() for path in paths)


def test_every_goal_of_a_row_has_a_measure():
    for found in registry.load().values():
        for goal in found.goals:
            if goal.against == LIMIT:
                assert found.work.limit, found.name


@pytest.mark.slow
def test_rows_of_every_kind_on_the_command_line(tmp_path):
    """One row inside a loop and one under the C client, on asyncio alone."""
    target = tmp_path / "out.json"
    command = [sys.executable, "-m", "benchmarks", "--loops", "asyncio", "--rounds", "1"]
    command += ["--seconds", "0.05", "--only", "call_soon-0", "--only", "unix-10x1k"]
    env = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = subprocess.run(
        [*command, "--json", str(target)], cwd=ROOT, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    rows = Results.from_json(json.loads(target.read_text())).rows
    assert [found.name for found in rows] == ["call_soon-0", "unix-10x1k"]
    assert all(found.value("asyncio") for found in rows), rows
    assert rows[1].value(LIMIT), rows[1].reasons
