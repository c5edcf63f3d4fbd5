"""What Python's own tools see of the tasks of a loop, from inside and from another process."""

import asyncio
import subprocess
import sys

import pytest
from support import FOLDER, script_text

pytestmark = [
    pytest.mark.core,
    pytest.mark.skipif(sys.version_info < (3, 14), reason="the tools are newer than this Python"),
]

PROGRAM = """
async def leaf():
    await asyncio.sleep(60)

async def middle():
    async with asyncio.TaskGroup() as group:
        group.create_task(leaf(), name="first leaf")
        group.create_task(leaf(), name="second leaf")

async def main():
    task = asyncio.create_task(middle(), name="in the middle")
    await asyncio.sleep(0.01)
    print("ready", flush=True)
    await task

asyncio.run(main(), loop_factory=lambda: make_loop(KIND))
"""


@pytest.fixture
def program(kind):
    """A process whose loop runs a tree of four tasks."""
    with subprocess.Popen(
        [sys.executable, "-c", script_text(kind, PROGRAM)],
        cwd=FOLDER,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("command", ["ps", "pstree"])
def test_asyncio_ps_and_pstree(program, command):
    tool = subprocess.run(
        [sys.executable, "-m", "asyncio", command, str(program.pid)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    if "ermission" in tool.stderr or "PTRACE" in tool.stderr:
        pytest.skip("this process may not look into another one")
    assert tool.returncode == 0, tool.stderr
    for name in ("Task-1", "in the middle", "first leaf", "second leaf"):
        assert name in tool.stdout
    assert "TaskGroup" in tool.stdout and "leaf" in tool.stdout


def test_the_call_graph_inside(loop, run):
    async def child():
        return asyncio.format_call_graph()

    async def main():
        return await asyncio.create_task(child(), name="the child")

    graph = run(main())
    assert "the child" in graph and "child()" in graph
    assert "main()" in graph
