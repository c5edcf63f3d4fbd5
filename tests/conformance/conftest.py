"""Collects CPython's asyncio tests as pytest items, one each, run on our loop by pool.py.

``pytest tests/conformance --conformance-loop asyncio`` runs the same harness on another loop.
"""

from __future__ import annotations

import collections
import fnmatch
import json
import os
import pathlib
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from . import skips
from .pool import Pool, PoolError

HERE = pathlib.Path(__file__).parent
OURS = "uvloop_clone"
POOL = pytest.StashKey[Pool]()
OUTCOMES = pytest.StashKey[dict[str, dict[str, Any]]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("conformance", "CPython's own asyncio tests")
    group.addoption(
        "--conformance-loop",
        metavar="NAME",
        help="loop under test: uvloop_clone (the default), uvloop or asyncio",
    )
    group.addoption("--conformance-jobs", type=int, default=0, help="tests run side by side")
    group.addoption("--conformance-limit", type=float, default=30.0, help="seconds per test")
    group.addoption("--conformance-report", metavar="FILE", help="write the outcomes as JSON")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "conformance: a test of CPython's own suite")
    config.stash[OUTCOMES] = {}


def _option(config: pytest.Config, name: str, default: Any) -> Any:
    """An option, also where pytest met this file too late to register it."""
    return config.getoption(name, default) or default


def _loop(config: pytest.Config) -> str:
    """The name of the loop under test."""
    return str(_option(config, "conformance_loop", OURS))


def _pool(config: pytest.Config) -> Pool:
    if POOL not in config.stash:
        jobs = _option(config, "conformance_jobs", (os.cpu_count() or 1) + 1)
        limit = _option(config, "conformance_limit", 30.0)
        config.stash[POOL] = Pool(_loop(config), jobs, limit)
    return config.stash[POOL]


def pytest_collect_file(file_path: pathlib.Path, parent: pytest.Collector) -> Any:
    if file_path == HERE / "cpython.py":
        return Suite.from_parent(parent, path=file_path)
    return None


def pytest_collection_finish(session: pytest.Session) -> None:
    """Starts on the selected tests at once; under xdist each item asks for itself."""
    config = session.config
    if POOL in config.stash and not config.option.collectonly:
        if not hasattr(config, "workerinput"):
            wanted = [item.test for item in session.items if isinstance(item, Item)]
            config.stash[POOL].submit(wanted)


class Suite(pytest.File):
    """``test.test_asyncio`` of the running interpreter."""

    def collect(self) -> Iterable[pytest.Collector]:
        try:
            plan = _pool(self.config).plan
        except PoolError as error:
            raise self.CollectError(str(error)) from None
        if plan["missing"]:
            raise pytest.skip.Exception(plan["missing"], allow_module_level=True)
        modules: dict[str, dict[str, list[str]]] = {}
        for test in plan["tests"]:
            module, cls, method = test.split("::")
            modules.setdefault(module, {}).setdefault(cls, []).append(method)
        for module, reason in plan["broken"].items():
            yield Broken.from_parent(self, name=module, reason=reason)
        for module, classes in modules.items():
            yield Group.from_parent(self, name=module, children=classes)


class Broken(pytest.Collector):
    """A test module that could not be imported."""

    def __init__(self, *, reason: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.reason = reason

    def collect(self) -> Iterable[pytest.Item]:
        if self.reason.startswith("skipped: "):
            raise pytest.skip.Exception(self.reason, allow_module_level=True)
        raise self.CollectError(self.reason)


class Group(pytest.Collector):
    """A test module, or a class of one."""

    def __init__(self, *, children: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.children = children

    def collect(self) -> Iterable[pytest.Collector | pytest.Item]:
        if isinstance(self.children, dict):
            for name, methods in self.children.items():
                yield Group.from_parent(self, name=name, children=methods)
        else:
            for name in self.children:
                yield Item.from_parent(self, name=name)


def _entry(table: dict[str, str], test: str) -> str | None:
    """The text of the first pattern of ``table`` that names ``test``."""
    return next((text for key, text in table.items() if fnmatch.fnmatchcase(test, key)), None)


def verdict(result: dict[str, Any], ours: bool, test: str) -> tuple[str, str]:
    """What the result of a test is worth, and what to say of it.

    A test passes when it made a loop of the kind under test. One that made none says nothing about
    it and is shown as skipped; one that made other loops in its place has failed, unless it is
    listed as meant so.
    """
    loops = result["loops"]
    if result["outcome"] == "failed":
        return "failed", f"{result['detail']}\n{result['output'].strip()}".strip()
    if result["outcome"] == "skipped":
        return "skipped", result["detail"]
    if loops["ours"]:
        return "passed", ""
    if not loops["foreign"]:
        return "without a loop", "passes, but makes no event loop at all: says nothing about ours"
    text = f"passes, but on {loops['foreign']} other loops alone, none of the kind under test"
    if reason := _entry(skips.OTHER_LOOPS, test):
        return "listed", f"{text}: {reason}"
    return ("on another loop" if ours else "skipped"), text


class Failure(Exception):
    """A test of CPython failed; the text is its traceback and output."""


class Item(pytest.Item):
    """One test of CPython."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        assert self.parent is not None and self.parent.parent is not None
        self.test = f"{self.parent.parent.name}::{self.parent.name}::{self.name}"
        self.add_marker(pytest.mark.conformance)
        if _loop(self.config) == OURS:
            if reason := _entry(skips.SKIPS, self.test):
                self.add_marker(pytest.mark.skip(reason=reason))

    def runtest(self) -> None:
        result = _pool(self.config).result(self.test)
        self.config.stash[OUTCOMES][self.test] = result
        kind, text = verdict(result, _loop(self.config) == OURS, self.test)
        result["outcome"] = kind
        if kind in ("failed", "on another loop"):
            raise Failure(text)
        if kind != "passed":
            pytest.skip(text)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        if isinstance(excinfo.value, (Failure, PoolError)):
            return str(excinfo.value)
        return super().repr_failure(excinfo)

    def reportinfo(self) -> tuple[pathlib.Path, int, str]:
        return self.path, 0, self.test


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: Any) -> Iterator[Any]:
    report = yield
    if isinstance(item, Item):
        outcome = item.config.stash[OUTCOMES].setdefault(
            item.test, {"outcome": "listed", "loops": {}, "seconds": 0.0, "detail": ""}
        )
        if report.when == "call" or report.outcome == "skipped":
            expected = hasattr(report, "wasxfail")
            outcome["pytest"] = "xfailed" if expected and report.skipped else report.outcome
        if report.when == "call":
            report.duration = outcome["seconds"]
    return report


def _totals(outcomes: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What the summary line and the report say about a run."""
    totals: dict[str, Any] = collections.Counter(o.get("pytest", "?") for o in outcomes.values())
    ran = [o["loops"] for o in outcomes.values() if o["loops"]]
    return {
        "tests": len(outcomes),
        "outcomes": dict(sorted(totals.items())),
        "loops_ours": sum(loops["ours"] for loops in ran),
        "loops_foreign": sum(loops["foreign"] for loops in ran),
        "tests_with_ours": sum(bool(loops["ours"]) for loops in ran),
        "tests_with_foreign": sum(bool(loops["foreign"]) for loops in ran),
        "tests_with_none": sum(not loops["ours"] and not loops["foreign"] for loops in ran),
        "failed_with_ours": sum(
            bool(o.get("pytest") == "failed" and o["loops"] and o["loops"]["ours"])
            for o in outcomes.values()
        ),
    }


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    outcomes = config.stash.get(OUTCOMES, {})
    if not outcomes or POOL not in config.stash:
        return
    plan, totals = config.stash[POOL].plan, _totals(outcomes)
    python = ".".join(map(str, sys.version_info[:3]))
    counts = ", ".join(f"{number} {name}" for name, number in totals["outcomes"].items())
    terminalreporter.write_line(
        f"conformance: CPython {python} on {plan['loop']} {plan['version']}: "
        f"{totals['tests']} tests: {counts}; loops of it: {totals['loops_ours']} in "
        f"{totals['tests_with_ours']} tests, other loops: {totals['loops_foreign']} in "
        f"{totals['tests_with_foreign']} tests, no loop in {totals['tests_with_none']} tests"
    )
    target = _option(config, "conformance_report", None)
    if target:
        report = {
            "python": python,
            "loop": plan["loop"],
            "version": plan["version"],
            "totals": totals,
            "tests": {
                test: {key: value for key, value in outcome.items() if key != "output"}
                for test, outcome in sorted(outcomes.items())
            },
        }
        pathlib.Path(target).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def pytest_unconfigure(config: pytest.Config) -> None:
    if POOL in config.stash:
        config.stash[POOL].close()
