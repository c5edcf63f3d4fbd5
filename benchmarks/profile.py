"""``--profile``: where the time of one loop goes at a row, by perf (Linux)."""

from __future__ import annotations

import shutil
import subprocess
import time

from benchmarks import sessions
from benchmarks.native import Unable
from benchmarks.registry import Row

LINES = 30


def profile(row: Row, name: str, seconds: float) -> str:
    """Perf's flat report for one measure of ``name`` at ``row``. Raises Unable."""
    perf = shutil.which("perf")
    if perf is None:
        raise Unable("perf is not installed (Debian: linux-perf, Fedora: perf)")
    folder = sessions.work_folder()
    session = sessions.open_session(row, name, folder)
    try:
        child = getattr(session, "child", None)
        if child is None:
            raise Unable("this kind of row has no process that stays")
        data = f"{folder}/perf.data"
        command = [perf, "record", "-q", "-e", "cpu-clock", "-F", "5000", "-o", data]
        recorder = subprocess.Popen(
            [*command, "-p", str(child.process.pid)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(0.3)
        sample = session.measure(seconds)
        recorder.send_signal(2)
        recorder.wait()
        shown = subprocess.run(
            [perf, "report", "-i", data, "--stdio", "--sort", "dso,symbol", "-g", "none"],
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        session.close()
        sessions.remove_folder(folder)
    found = [x.rstrip() for x in shown.stdout.splitlines() if x.strip() and x[0] != "#"]
    cpu = f", {sample.cpu:.2f} us of CPU each" if sample.cpu else ""
    head = f"{row.name} on {name}: {sample.value:,.1f} {row.unit}{cpu}"
    return "\n".join([head, *found[:LINES]])
