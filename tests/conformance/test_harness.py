"""The harness itself: what it makes of tests that pass, fail, skip, crash, hang or use no loop."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import textwrap

import psutil
import pytest

from . import conftest, pool, skips

START = """
import sys
sys.path[:0] = {paths!r}
import cpython
cpython.PACKAGE = "suite_of_harness"
cpython.MODULES = {{"test_some": (("*",), ("LeftOut",)), "test_broken": (("*",), ())}}
import worker
worker.main()
"""

SOME = """
import asyncio, os, signal, subprocess, sys, time, unittest

class Some(unittest.TestCase):
    def test_passes(self):
        asyncio.new_event_loop().close()

    def test_runs(self):
        print("said on stdout")
        self.assertEqual(asyncio.run(asyncio.sleep(0, 7)), 8)

    def test_skips(self):
        self.skipTest("not here")

    def test_subtests(self):
        for i in range(2):
            with self.subTest(i=i):
                self.assertEqual(i, 0)

    def test_dies(self):
        os.kill(os.getpid(), signal.SIGSEGV)

    def test_exits(self):
        os._exit(3)

    def test_hangs(self):
        time.sleep(600)

    def test_no_loop(self):
        self.assertTrue(True)

    def test_leaves_a_process(self):
        asyncio.new_event_loop().close()
        child = subprocess.Popen(["sleep", "600"], stdin=subprocess.PIPE)
        print("child", child.pid)

class LeftOut(unittest.TestCase):
    def test_is_not_run(self):
        self.fail("it was")
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """The plan and the results that the worker gives for a suite of our own, on asyncio."""
    folder = tmp_path_factory.mktemp("suite")
    package = folder / "suite_of_harness"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "utils.py").touch()
    (package / "test_some.py").write_text(textwrap.dedent(SOME))
    (package / "test_broken.py").write_text("raise ImportError('broken on purpose')\n")
    start = START.format(paths=[str(folder), str(pool.WORKER.parent)])
    arguments = ["--loop", "asyncio", "--jobs", "4", "--limit", "3"]
    process = subprocess.Popen(
        [sys.executable, "-c", start, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    plan = json.loads(process.stdout.readline())
    process.stdin.write(json.dumps({"run": plan["tests"]}) + "\n")
    process.stdin.flush()
    results = [json.loads(process.stdout.readline()) for _ in plan["tests"]]
    process.stdin.close()
    assert process.wait(10) == 0
    process.stdout.close()
    found = {result["test"].rpartition("::")[2]: result for result in results}
    return plan, found


def test_plan(answers):
    plan, found = answers
    assert plan["missing"] is None
    assert "broken on purpose" in plan["broken"]["test_broken"]
    assert "test_some::Some::test_passes" in plan["tests"]
    assert "test_is_not_run" not in found


@pytest.mark.parametrize(
    ("name", "outcome", "ours", "text"),
    [
        ("test_passes", "passed", 1, ""),
        ("test_runs", "failed", 1, "7 != 8"),
        ("test_skips", "skipped", 0, "not here"),
        ("test_subtests", "failed", 0, "(i=1)"),
        ("test_dies", "failed", None, "died: SIGSEGV"),
        ("test_exits", "failed", None, "died: status 3"),
        ("test_hangs", "failed", None, "killed after 3 s"),
        ("test_no_loop", "passed", 0, ""),
    ],
)
def test_result(answers, name, outcome, ours, text):
    result = answers[1][name]
    assert (result["outcome"], result["loops"].get("ours")) == (outcome, ours)
    assert text in result["detail"]


def test_output_is_kept(answers):
    assert "said on stdout" in answers[1]["test_runs"]["output"]
    assert "Segmentation fault" in answers[1]["test_dies"]["output"]
    assert "test_hangs" in answers[1]["test_hangs"]["output"]


def test_no_process_is_left(answers):
    output = answers[1]["test_leaves_a_process"]["output"].split()
    pid = output[output.index("child") + 1]
    with contextlib.suppress(psutil.NoSuchProcess):
        assert psutil.Process(int(pid)).status() == psutil.STATUS_ZOMBIE


def _result(outcome="passed", ours=0, foreign=0):
    loops = {"ours": ours, "foreign": foreign, "clock": 0}
    return {"outcome": outcome, "detail": "why", "output": "", "loops": loops}


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (_result(ours=1), "passed"),
        (_result(ours=1, foreign=1), "passed"),
        (_result(), "without a loop"),
        (_result(foreign=1), "on another loop"),
        (_result("failed", ours=1), "failed"),
        (_result("skipped"), "skipped"),
    ],
)
def test_verdict(result, expected):
    assert conftest.verdict(result, True, "a::B::c")[0] == expected


def test_tables():
    assert len(skips.SKIPS) <= 20
    for table in (skips.SKIPS, skips.OTHER_LOOPS):
        assert all(key.count("::") == 2 and text.strip() for key, text in table.items())
