"""Sessions: one contestant at one row, open for all rounds; and the processes behind them.

While it is not a session's turn its process is stopped (SIGSTOP), so that a loop that polls
while idle takes nothing from the others.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Protocol

from benchmarks import native
from benchmarks.loops import LIMIT, LOOPS
from benchmarks.native import Unable
from benchmarks.registry import Idle, Inside, Row, Served, WholeProcess

ROOT = str(Path(__file__).resolve().parent.parent)
# The checkout comes last on the path: an installed package wins over a source tree.
BOOT = (
    "import sys; sys.path.append(sys.argv[1])\n"
    "from benchmarks.worker import main; main(sys.argv[2:])"
)
PATIENCE = 40.0  # seconds beyond the measured time before a worker counts as hung


@dataclass(frozen=True)
class Sample:
    """One measure: the value in the row's unit, CPU microseconds of the loop's process for one
    operation where they are known, the number of timers that fired early, and how many operations
    the process did from the start of the measure to its end."""

    value: float
    cpu: float | None = None
    early: int = 0
    count: float = 0


@dataclass(frozen=True)
class Cores:
    """Where the loop and the client run; -1: anywhere."""

    server: int = -1
    client: int = -1


def cores() -> Cores:
    """Two different cores where this process may use two."""
    if not hasattr(os, "sched_getaffinity"):
        return Cores()
    allowed = sorted(os.sched_getaffinity(0))
    return Cores(allowed[0], allowed[-1]) if len(allowed) > 1 else Cores()


class Child:
    """A process that talks in lines; its stderr is kept for the reason of a failure."""

    def __init__(self, command: list[str], folder: str) -> None:
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            cwd=folder,
        )
        self.buffer = b""

    def reason(self) -> str:
        """The last line of stderr, or how the process ended."""
        self.errors.seek(0)
        lines = [x for x in self.errors.read().decode(errors="replace").splitlines() if x.strip()]
        if lines:
            return lines[-1].strip()[:160]
        return f"ended with status {self.process.poll()}"

    def line(self, limit: float) -> str:
        """The next line of stdout. Raises Unable at its end or after ``limit`` seconds."""
        assert self.process.stdout is not None
        out, end = self.process.stdout.fileno(), time.monotonic() + limit
        while b"\n" not in self.buffer:
            left = end - time.monotonic()
            if left <= 0 or not select.select([out], [], [], left)[0]:
                raise Unable(f"no answer within {limit:.0f} s")
            data = os.read(out, 65536)
            if not data:
                self.process.wait()
                raise Unable(self.reason())
            self.buffer += data
        text, self.buffer = self.buffer.split(b"\n", 1)
        return text.decode()

    def answer(self, limit: float) -> dict[str, Any]:
        """The next line as JSON; lines that a library prints are passed over."""
        while True:
            text = self.line(limit)
            if text.startswith("{"):
                found: dict[str, Any] = json.loads(text)
                return found

    def tell(self, text: str) -> None:
        """One line to the process's stdin."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(text.encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            self.process.wait()
            raise Unable(self.reason()) from None

    def stop(self) -> None:
        """Hold the process until ``go``."""
        self.process.send_signal(signal.SIGSTOP)

    def go(self) -> None:
        """Let it run again."""
        self.process.send_signal(signal.SIGCONT)

    def cpu(self) -> float:
        """CPU seconds used by all its threads so far; 0 where the kernel does not tell."""
        total = 0
        for task in Path(f"/proc/{self.process.pid}/task").glob("*/schedstat"):
            total += int(task.read_text().split()[0])
        return total / 1e9

    def rest(self) -> float:
        """Wait until the process has nothing to do (10 s at most); the CPU seconds used so far."""
        end, used, now = time.monotonic() + 10, -1.0, self.cpu()
        while now - used > 0.001 and time.monotonic() < end:
            time.sleep(0.02)
            used, now = now, self.cpu()
        return now

    def resident(self) -> float:
        """Resident memory in KiB."""
        for text in Path(f"/proc/{self.process.pid}/smaps_rollup").read_text().splitlines():
            if text.startswith("Rss:"):
                return float(text.split()[1])
        raise Unable("no smaps_rollup")

    def kill(self) -> None:
        """End it and forget it."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            try:
                pipe.close()
            except BrokenPipeError:
                continue
        self.errors.close()


Tool = tuple[str, ...]  # a command that runs another command, such as valgrind's; or nothing


class Session(Protocol):
    """What the runner asks of every kind of work."""

    def measure(self, seconds: float) -> Sample:
        """One round. Raises Unable."""

    def close(self) -> None:
        """End all processes."""


def worker(mode: str, name: str, folder: str, *arguments: str, tool: Tool = ()) -> Child:
    """Start a worker process for a loop."""
    return Child([*tool, sys.executable, "-c", BOOT, ROOT, mode, name, *arguments], folder)


def probe(name: str, folder: str) -> str:
    """The version of a loop as a fresh process sees it. Raises Unable where it is not usable."""
    child = worker("probe", name, folder)
    try:
        return str(child.answer(PATIENCE)["version"])
    finally:
        child.kill()


class InsideSession:
    """A worker that measures its own loop on request."""

    def __init__(self, row: Row, name: str, folder: str, tool: Tool) -> None:
        work = row.work
        assert isinstance(work, Inside)
        cpu = cores().server if work.pinned else -1
        self.child = worker("inside", name, folder, row.name, str(cpu), tool=tool)
        try:
            self.child.answer(PATIENCE)
        except Unable:
            self.child.kill()
            raise
        self.child.stop()

    def measure(self, seconds: float) -> Sample:
        self.child.go()
        self.child.tell(repr(seconds))
        answer = self.child.answer(seconds + PATIENCE)
        self.child.stop()
        return Sample(answer["value"], answer.get("cpu"), answer.get("early", 0), answer["count"])

    def close(self) -> None:
        self.child.kill()


class ProgramSession:
    """A C program that does the work of a row and prints the value: the limit of it."""

    def __init__(self, row: Row, folder: str) -> None:
        work = row.work
        assert isinstance(work, Inside)
        self.program = native.program(work.limit)
        self.cpu = str(cores().server if work.pinned else -1)
        self.folder = folder

    def measure(self, seconds: float) -> Sample:
        child = Child([self.program, repr(seconds), self.cpu], self.folder)
        try:
            return Sample(float(child.answer(seconds + PATIENCE)["value"]))
        finally:
            child.kill()

    def close(self) -> None:
        """Every program has ended."""


class Server:
    """A server process, of a loop or the C limit, and the client's way to it."""

    def __init__(self, row: Row, name: str, folder: str, tool: Tool = ()) -> None:
        work = row.work
        assert isinstance(work, (Served, Idle))
        tls = isinstance(work, Served) and work.tls
        transport = work.transport if isinstance(work, Served) else "tcp"
        self.client = native.client(tls)
        self.path = f"{folder}/{row.name}-{name}.sock" if transport == "unix" else ""
        cert, key = native.certificate() if tls else ("", "")
        cpu = str(cores().server)
        if name == LIMIT:
            assert isinstance(work, Served)
            where = [cert, key] if tls else [f"unix:{self.path}" if self.path else transport]
            self.child = Child([*tool, native.program(work.limit), *where, cpu], folder)
        else:
            arguments = [row.name, cpu, self.path, cert, key]
            self.child = worker("serve", name, folder, *arguments, tool=tool)
        try:
            if name == LIMIT:
                port = self.child.line(PATIENCE)
                self.address = [transport, *([port] if self.path else ["127.0.0.1", port])]
            else:
                self.address = self.child.answer(PATIENCE)["address"]
        except Unable:
            self.child.kill()
            raise

    def close(self) -> None:
        self.child.kill()
        if self.path and os.path.exists(self.path):
            os.unlink(self.path)


class ServedSession:
    """A server that stays up, loaded by a client in every round."""

    def __init__(self, row: Row, name: str, folder: str, tool: Tool) -> None:
        assert isinstance(row.work, Served)
        self.options, self.folder = row.work.client, folder
        self.server = Server(row, name, folder, tool)
        self.child = self.server.child
        self.child.stop()

    def measure(self, seconds: float) -> Sample:
        child = self.child
        child.go()
        command = [
            self.server.client,
            *self.options,
            *("-g", "-d", repr(seconds), "-w", repr(seconds / 5), "-a", str(cores().client)),
            *self.server.address,
        ]
        client = Child(command, self.folder)
        try:
            client.line(PATIENCE)
            begin = child.rest()
            client.tell("go")
            answer = client.answer(seconds + PATIENCE)
            used = child.cpu() - begin
        except Unable as error:
            text = str(error).removeprefix("client: ")
            raise Unable(text if child.process.poll() is None else child.reason()) from None
        finally:
            client.kill()
        if not answer["answers"]:
            raise Unable("no answers")
        child.rest()  # the server sees the connections end
        child.stop()
        cpu = used / answer["total"] * 1e6 if used else None
        return Sample(answer["per_second"], cpu, count=answer["total"])

    def close(self) -> None:
        self.server.close()


class IdleSession:
    """Memory for each connection: a fresh server in every round."""

    def __init__(self, row: Row, name: str, folder: str) -> None:
        assert isinstance(row.work, Idle)
        self.row, self.name, self.folder = row, name, folder
        self.connections = row.work.connections
        if not os.path.exists("/proc/self/smaps_rollup"):
            raise Unable("needs /proc/PID/smaps_rollup (Linux)")

    def hold(self, server: Server, connections: int) -> Child:
        """A client that has that many connections open."""
        client = Child([server.client, "-o", "-c", str(connections), *server.address], self.folder)
        try:
            client.line(PATIENCE)
        except Unable:
            client.kill()
            raise
        return client

    def measure(self, seconds: float) -> Sample:
        server = Server(self.row, self.name, self.folder)
        try:
            self.hold(server, 50).kill()  # what is paid once is paid here
            server.child.rest()
            before = server.child.resident()
            client = self.hold(server, self.connections)
            try:
                server.child.rest()
                after = server.child.resident()
            finally:
                client.kill()
        finally:
            server.close()
        return Sample(max(after - before, 0.001) / self.connections)

    def close(self) -> None:
        """Nothing stays open between rounds."""


class ProcessSession:
    """Whole processes, one after the other, for the time given (three at least)."""

    def __init__(self, row: Row, name: str, folder: str) -> None:
        assert isinstance(row.work, WholeProcess)
        spec = LOOPS[name]
        factory = f"__import__({spec.module!r}).{spec.factory}()"
        path = f"import sys; sys.path.append({ROOT!r})"
        self.command = [sys.executable, "-c", path + row.work.code.replace("{loop}", factory)]
        self.folder = folder
        # The first start leaves the bytecode that an installed package has and a checkout may not.
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        done = subprocess.run(
            self.command,
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        if done.returncode != 0:
            raise Unable((done.stderr.strip().splitlines() or ["failed"])[-1])

    def measure(self, seconds: float) -> Sample:
        walls: list[float] = []
        cpus: list[float] = []
        end = time.monotonic() + seconds
        while len(walls) < 3 or time.monotonic() < end:
            begin = time.perf_counter()
            process = subprocess.Popen(self.command, cwd=self.folder)
            _, status, usage = os.wait4(process.pid, 0)
            walls.append((time.perf_counter() - begin) * 1e3)
            process.returncode = status
            if status:
                raise Unable(f"ended with status {status}")
            cpus.append((usage.ru_utime + usage.ru_stime) * 1e6)
        return Sample(median(walls), median(cpus))

    def close(self) -> None:
        """Every process has ended."""


def open_session(row: Row, name: str, folder: str, tool: Tool = ()) -> Session:
    """A session of the kind that the row's work needs; ``tool`` runs the process that stays, where
    there is one. Raises Unable."""
    if isinstance(row.work, Inside):
        if name == LIMIT:
            return ProgramSession(row, folder)
        return InsideSession(row, name, folder, tool)
    if isinstance(row.work, Served):
        return ServedSession(row, name, folder, tool)
    if isinstance(row.work, Idle):
        return IdleSession(row, name, folder)
    return ProcessSession(row, name, folder)


def work_folder() -> str:
    """A short-named folder for sockets, which is also where workers run."""
    return tempfile.mkdtemp(prefix="bench-")


def remove_folder(folder: str) -> None:
    """Remove it with what is left inside."""
    shutil.rmtree(folder, ignore_errors=True)
