"""Runs a suite's tests, each in a fork of this process, which has imported them all once.

Started by pool.py as a plain script with ``--loop NAME``; talks JSON lines. Reads
``{"run": [id, ...]}``; writes ``{"event": "plan", ...}`` once and one ``{"event": "result", ...}``
per test. A test that dies, hangs or leaves a process behind harms no other: its own session of
processes is killed, its working folder removed. An end of input ends everything.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import faulthandler
import gc
import json
import os
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
import unittest
from typing import Any

HERE = os.path.dirname(os.path.abspath(__file__))
MAX_OUTPUT = 20_000


class Recorder(unittest.TestResult):
    """The outcome of one test, subtests folded in."""

    def __init__(self) -> None:
        super().__init__()
        self.outcome = "passed"
        self.detail: list[str] = []

    def _bad(self, err: Any) -> None:
        self.outcome = "failed"
        self.detail.append("".join(traceback.format_exception(*err)))

    def addError(self, test: Any, err: Any) -> None:
        self._bad(err)

    def addFailure(self, test: Any, err: Any) -> None:
        self._bad(err)

    def addSubTest(self, test: Any, subtest: Any, err: Any) -> None:
        if err is not None:
            self.detail.append(f"in {subtest}")
            self._bad(err)

    def addSkip(self, test: Any, reason: str) -> None:
        if self.outcome == "passed":
            self.outcome = "skipped"
            self.detail.append(reason)

    def addExpectedFailure(self, test: Any, err: Any) -> None:
        self.detail.append("expected failure")

    def addUnexpectedSuccess(self, test: Any) -> None:
        self.outcome = "failed"
        self.detail.append("unexpected success")


class Child:
    """One running test."""

    def __init__(self, pid: int, test: str, folder: str, limit: float) -> None:
        self.pid, self.test, self.folder = pid, test, folder
        self.start = time.monotonic()
        self.deadline = self.start + limit
        self.timed_out = False


class Worker:
    def __init__(self, suite: Any, root: str, jobs: int, limit: float, out: int) -> None:
        self.suite, self.root, self.jobs, self.limit, self.out = suite, root, jobs, limit, out
        self.queue: collections.deque[str] = collections.deque()
        self.children: dict[int, Child] = {}
        gc.collect()
        gc.freeze()

    def send(self, **message: Any) -> None:
        data = (json.dumps(message) + "\n").encode()
        while data:
            data = data[os.write(self.out, data) :]

    def serve(self) -> None:
        self.send(
            event="plan",
            missing=self.suite.missing,
            broken=self.suite.broken,
            tests=self.suite.plan,
            loop=self.suite.binding.name,
            version=self.suite.binding.version,
        )
        buffer = b""
        try:
            while True:
                while self.queue and len(self.children) < self.jobs:
                    self.start(self.queue.popleft())
                wait = 0.01 if self.children else None
                if select.select([0], [], [], wait)[0]:
                    chunk = os.read(0, 1 << 16)
                    if not chunk:
                        return
                    *lines, buffer = (buffer + chunk).split(b"\n")
                    for line in lines:
                        self.queue.extend(json.loads(line)["run"])
                self.reap()
        finally:
            for child in self.children.values():
                self.kill(child)
                os.waitpid(child.pid, 0)

    def start(self, test: str) -> None:
        folder = tempfile.mkdtemp(dir=self.root)
        pid = os.fork()
        if pid == 0:
            status = 70
            try:
                self.run(test, folder)
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        self.children[pid] = Child(pid, test, folder, self.limit)

    def reap(self) -> None:
        now = time.monotonic()
        for pid, child in list(self.children.items()):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                del self.children[pid]
                self.finish(child, status)
            elif now > child.deadline:
                child.timed_out = True
                child.deadline = now + 60
                self.kill(child)

    @staticmethod
    def kill(child: Child) -> None:
        try:
            os.killpg(child.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            return

    def finish(self, child: Child, status: int) -> None:
        self.kill(child)  # what the test left running in its session
        result: dict[str, Any] = {"outcome": "failed", "detail": "", "loops": {}}
        try:
            with open(os.path.join(child.folder, "result"), encoding="utf-8") as file:
                result = json.load(file)
        except FileNotFoundError:
            result["detail"] = "no result\n"
        code = os.waitstatus_to_exitcode(status)
        if child.timed_out:
            result["outcome"] = "failed"
            result["detail"] += f"killed after {self.limit:g} s\n"
        elif code:
            what = signal.Signals(-code).name if code < 0 else f"status {code}"
            result["outcome"] = "failed"
            result["detail"] += f"the process of the test died: {what}\n"
        with open(os.path.join(child.folder, "output"), "rb") as file:
            output = file.read().decode("utf-8", "backslashreplace")
        if len(output) > MAX_OUTPUT:
            half = MAX_OUTPUT // 2
            output = f"{output[:half]}\n[...]\n{output[-half:]}"
        shutil.rmtree(child.folder, ignore_errors=True)
        seconds = round(time.monotonic() - child.start, 3)
        self.send(event="result", test=child.test, seconds=seconds, output=output, **result)

    # -- in the child ----------------------------------------------------------------------------

    def run(self, test: str, folder: str) -> None:
        os.setsid()
        os.close(self.out)
        null = os.open(os.devnull, os.O_RDONLY)
        output = os.open(os.path.join(folder, "output"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(null, 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.close(null)
        os.close(output)
        work = os.path.join(folder, "w")
        os.mkdir(work)
        os.chdir(work)
        tempfile.tempdir = work
        os.environ["TMPDIR"] = work
        faulthandler.enable()
        faulthandler.dump_traceback_later(max(self.limit - 2, 1))
        # the state in which any test but the first of a run finds the policy
        asyncio.set_event_loop(None)
        module, cls, method = test.split("::")
        recorder = Recorder()
        try:
            case = getattr(self.suite.modules[module], cls)(method)
            unittest.TestSuite([case]).run(recorder)
        except BaseException as error:
            recorder._bad((type(error), error, error.__traceback__))
        faulthandler.cancel_dump_traceback_later()
        sys.stdout.flush()
        sys.stderr.flush()
        result = {
            "outcome": recorder.outcome,
            "detail": "\n".join(recorder.detail),
            "loops": self.suite.binding.counter.as_dict(),
        }
        partial = os.path.join(folder, "partial")
        with open(partial, "w", encoding="utf-8") as file:
            json.dump(result, file)
        os.rename(partial, os.path.join(folder, "result"))
        del case
        gc.collect()  # a crash while what the test made is freed is a failure of the test


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--loop", required=True)
    parser.add_argument("--jobs", type=int, required=True)
    parser.add_argument("--limit", type=float, required=True)
    parser.add_argument("--path", default="[]", help="the caller's sys.path, as JSON")
    parser.add_argument("--uvloop-source", help="run uvloop's own tests, of this source tree")
    options = parser.parse_args()
    out = os.dup(1)
    os.dup2(2, 1)
    sys.path += [entry for entry in json.loads(options.path) if entry not in sys.path]
    if HERE not in sys.path:
        sys.path.insert(0, HERE)
    import suites

    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry) != HERE]
    root = tempfile.mkdtemp(prefix="conf-")
    try:
        if options.uvloop_source:
            suite = suites.load_uvloop(options.loop, options.uvloop_source, root)
        else:
            suite = suites.load_cpython(options.loop)
        Worker(suite, root, options.jobs, options.limit, out).serve()
    finally:
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
