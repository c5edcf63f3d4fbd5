"""The pytest side of worker.py: starts it, hands it tests and keeps what it answers."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
import threading
from collections.abc import Iterable
from typing import Any

WORKER = pathlib.Path(__file__).with_name("worker.py")


class PoolError(Exception):
    """The worker could not be started or is gone; the text is what it said last."""


class Pool:
    """Runs tests by id in the background; ``result`` waits for one."""

    def __init__(self, loop: str, jobs: int, limit: float, *more: str) -> None:
        command = [sys.executable, str(WORKER), "--loop", loop, "--jobs", str(jobs)]
        command += ["--limit", str(limit), "--path", json.dumps([p for p in sys.path if p]), *more]
        self.limit = limit
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        self._change = threading.Condition()
        self._asked: set[str] = set()
        self._errors = ""
        self._dead = False
        self.results: dict[str, dict[str, Any]] = {}
        self.plan: dict[str, Any] = {}
        self._threads = [
            threading.Thread(target=self._read_results, daemon=True),
            threading.Thread(target=self._read_errors, daemon=True),
        ]
        for thread in self._threads:
            thread.start()
        with self._change:
            self._change.wait_for(lambda: self.plan or self._dead)
        if not self.plan:
            self._threads[1].join(5)
            raise PoolError(f"the worker for {loop} did not start:\n{self._errors}")

    def _read_results(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            message = json.loads(line)
            with self._change:
                if message.pop("event") == "plan":
                    self.plan = message
                else:
                    self.results[message.pop("test")] = message
                self._change.notify_all()
        with self._change:
            self._dead = True
            self._change.notify_all()

    def _read_errors(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._errors = (self._errors + line.decode(errors="replace"))[-20_000:]

    def submit(self, tests: Iterable[str]) -> None:
        """Queues the tests that were not asked for yet."""
        new = [test for test in tests if test not in self._asked]
        if new and not self._dead:
            self._asked.update(new)
            assert self._process.stdin is not None
            self._process.stdin.write((json.dumps({"run": new}) + "\n").encode())
            self._process.stdin.flush()

    def result(self, test: str) -> dict[str, Any]:
        """The outcome of one test; raises PoolError when the worker is gone without it."""
        self.submit([test])
        with self._change:
            self._change.wait_for(lambda: test in self.results or self._dead)
            if test not in self.results:
                raise PoolError(f"the worker is gone:\n{self._errors}")
            return self.results[test]

    def close(self) -> None:
        """Ends the worker and whatever it still runs."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.close()
        except BrokenPipeError:
            self._dead = True
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for thread in self._threads:
            thread.join(5)
        for stream in (self._process.stdout, self._process.stderr):
            assert stream is not None
            stream.close()
