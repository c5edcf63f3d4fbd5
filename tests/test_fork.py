"""A loop made before fork(): parent and child each go on with a copy of their own."""

import pytest
from support import run_script

pytestmark = pytest.mark.core

# asyncio's copies share the poll set and the self-pipe, and take each other's events.
ours = pytest.mark.only("uvloop_clone")
anyone = pytest.mark.parametrize("who", ["parent", "child"])

HEAD = """
import contextlib, socket
from support import until

signal.alarm(30)  # a fork of a process that was killed for its time would go on
loop = make_loop(KIND)
loop.run_until_complete(asyncio.sleep(0.001))

def fork(function):
    pid = os.fork()
    if pid == 0:
        signal.alarm(30)
        try:
            function()
            os._exit(0)
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
        finally:
            os._exit(9)
    return pid

@contextlib.contextmanager
def beside(function):
    # a child calls `function` and then runs its loop; from there on the block is executed
    r, w = os.pipe()
    def beginning():
        function()
        loop.call_later(0.05, os.write, w, b"x")
        loop.run_forever()
    pid = fork(beginning)
    try:
        assert os.read(r, 1)
        yield
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)

def check(who, function):
    if who == "parent":
        function()
    else:
        assert os.waitpid(fork(function), 0)[1] == 0
    print("done")
"""


def run_forked(kind, code):
    result = run_script(kind, HEAD + code, "-W", "ignore")
    assert (result.returncode, result.stdout) == (0, "done\n"), result.stderr


@anyone
def test_timers(kind, who):
    run_forked(
        kind,
        f"""
def work():
    loop.call_later(0.5, loop.stop)
    begin = time.monotonic()
    loop.run_forever()
    assert time.monotonic() - begin < 10

def disturb():
    time.sleep(0.2)  # the timer above is set by now, and must not be set to this one's time
    loop.call_later(15, loop.stop)
    loop.run_forever()

pid = fork(disturb)
check({who!r}, work)
os.kill(pid, signal.SIGKILL)
os.waitpid(pid, 0)
""",
    )


@ours
@anyone
def test_calls_from_threads(kind, who):
    run_forked(
        kind,
        f"""
async def main():
    for _ in range(30):
        await asyncio.wait_for(loop.run_in_executor(None, time.sleep, 0.005), 10)

with beside(lambda: None):
    check({who!r}, lambda: loop.run_until_complete(main()))
""",
    )


@ours
@anyone
def test_watched_descriptors(kind, who):
    run_forked(
        kind,
        f"""
def work():
    loop.call_later(10, sys.exit, "not readable")
    b.send(b"x")
    loop.run_forever()

a, b = socket.socketpair()
loop.add_reader(a, loop.stop)
loop.run_until_complete(asyncio.sleep(0.001))
with beside(lambda: loop.call_soon(loop.remove_reader, a)):
    check({who!r}, work)
""",
    )


@ours
@anyone
def test_signals(kind, who):
    run_forked(
        kind,
        f"""
seen = []
loop.add_signal_handler(signal.SIGUSR1, seen.append, 1)

async def main():
    for count in range(1, 201):
        os.kill(os.getpid(), signal.SIGUSR1)
        await until(lambda: len(seen) == count, 5)

with beside(lambda: None):
    check({who!r}, lambda: loop.run_until_complete(main()))
""",
    )
