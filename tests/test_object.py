"""The loop as a Python object: repr, attributes, weak references, subclasses, warnings."""

import asyncio
import gc
import inspect
import re
import subprocess
import sys
import warnings
import weakref

import pytest
from support import open_fds, run_script

pytestmark = pytest.mark.core


def test_is_an_abstract_event_loop(loop):
    assert isinstance(loop, asyncio.AbstractEventLoop)


@pytest.mark.only("uvloop_clone")
def test_repr(loop, turns):
    seen = []
    assert repr(loop) == "<uvloop_clone.Loop running=False closed=False debug=False>"
    loop.call_soon(lambda: seen.append(repr(loop)))
    turns()
    assert seen == ["<uvloop_clone.Loop running=True closed=False debug=False>"]
    loop.set_debug(True)
    loop.close()
    assert repr(loop) == "<uvloop_clone.Loop running=False closed=True debug=True>"


def test_repr_tells_the_state(loop):
    assert re.search(r"running=False closed=False debug=False>$", repr(loop))
    loop.close()
    assert re.search(r"running=False closed=True debug=False>$", repr(loop))


def test_attributes(loop):
    loop.something = [1]
    assert loop.something == [1]
    assert vars(loop)["something"] == [1]
    del loop.something
    with pytest.raises(AttributeError):
        loop.something  # noqa: B018


def test_weak_references(new_loop):
    loop = new_loop()
    ref = weakref.ref(loop)
    assert ref() is loop
    loop.close()
    del loop
    gc.collect()
    assert ref() is None


def test_keys_of_weak_and_plain_dicts(loop, new_loop):
    other = new_loop()
    table = weakref.WeakKeyDictionary({loop: 1, other: 2})
    assert table[loop] == 1 and table[other] == 2
    assert loop == loop and loop != other and hash(loop) != hash(other)


def test_subclass(loop):
    kind = type(loop)

    class Mine(kind):
        def __init__(self):
            super().__init__()
            self.calls = 0

        def call_soon(self, *args, **kwargs):
            self.calls += 1
            return super().call_soon(*args, **kwargs)

    mine = Mine()
    try:
        assert mine.run_until_complete(asyncio.sleep(0, "slept")) == "slept"
        assert mine.calls >= 2  # the task's steps come through the method
        assert isinstance(mine, kind)
    finally:
        mine.close()


def test_create_task_of_a_subclass_is_used(loop):
    class Mine(type(loop)):
        made = 0

        def create_task(self, coro, **kwargs):
            self.made += 1
            return super().create_task(coro, **kwargs)

    mine = Mine()
    try:
        mine.run_until_complete(asyncio.sleep(0))
        assert mine.made == 1
    finally:
        mine.close()


def test_a_cycle_through_the_loop_is_collected(new_loop):
    loop = new_loop()
    ref = weakref.ref(loop)
    loop.me = loop
    loop.set_exception_handler(lambda *a, loop=loop: None)
    loop.close()
    del loop
    gc.collect()
    assert ref() is None


def test_a_cycle_through_a_pending_callback_is_collected(new_loop):
    loop = new_loop()
    ref = weakref.ref(loop)
    loop.call_soon(lambda loop=loop: None)
    loop.call_later(1000, lambda loop=loop: None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        del loop
        gc.collect()
    assert ref() is None


def test_an_unclosed_loop_warns(new_loop):
    loop = new_loop()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del loop
        gc.collect()
    found = [w for w in caught if str(w.message).startswith("unclosed event loop")]
    assert len(found) == 1
    assert found[0].category is ResourceWarning


def test_an_unclosed_loop_leaves_no_descriptor(new_loop):
    before = open_fds()
    loop = new_loop()
    loop.call_soon(loop.stop)
    loop.run_forever()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        del loop
        gc.collect()
    assert open_fds() <= before


def test_a_closed_loop_does_not_warn(new_loop):
    loop = new_loop()
    loop.close()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        del loop
        gc.collect()


def test_the_end_of_the_interpreter_with_an_open_loop(kind):
    result = run_script(
        kind,
        """
        loop = make_loop(KIND)
        loop.call_later(100, print)
        loop.call_soon(loop.stop)
        loop.run_forever()
        print("end")
        """,
    )
    assert (result.returncode, result.stdout) == (0, "end\n"), result.stderr


def test_the_end_of_the_interpreter_inside_a_callback(kind):
    result = run_script(
        kind,
        """
        loop = make_loop(KIND)
        loop.call_soon(sys.exit, 7)
        loop.run_forever()
        """,
    )
    assert result.returncode == 7, result.stderr


def test_public_methods_have_docstrings_or_come_from_asyncio(loop):
    missing = [
        name
        for name in dir(asyncio.AbstractEventLoop)
        if not name.startswith("_")
        and inspect.getdoc(getattr(type(loop), name)) is None
        and inspect.getdoc(getattr(asyncio.AbstractEventLoop, name)) is not None
    ]
    assert missing == []


def test_every_method_of_the_abstract_loop_is_there(loop):
    for name in dir(asyncio.AbstractEventLoop):
        if not name.startswith("_"):
            assert callable(getattr(loop, name))


@pytest.mark.only("uvloop_clone")  # in asyncio the child takes the wake-up out of the shared epoll
def test_a_forked_child_can_close_its_copy(kind):
    result = run_script(
        kind,
        """
        loop = make_loop(KIND)
        async def main():
            done = loop.create_future()
            timer = threading.Timer(0.3, loop.call_soon_threadsafe, (done.set_result, "parent"))
            pid = os.fork()
            if pid == 0:
                asyncio._set_running_loop(None)
                os._exit(0)
            timer.start()
            assert os.waitpid(pid, 0)[1] == 0
            return await done
        loop.call_soon(loop.stop)
        loop.run_forever()
        pid = os.fork()
        if pid == 0:
            loop.close()
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        print(loop.run_until_complete(asyncio.wait_for(main(), 20)))
        loop.close()
        """,
        "-W",
        "ignore",
    )
    assert (result.returncode, result.stdout) == (0, "parent\n"), result.stderr


def test_script_helper_sees_failures(kind):
    """The helper behind the tests above must be able to fail."""
    assert run_script(kind, "raise SystemExit(3)").returncode == 3
    with pytest.raises(subprocess.TimeoutExpired):
        run_script(kind, "time.sleep(30)", limit=1)


LATE = ["Connect", "Datagram", "Pipes", "Process", "Sendfile", "Sockets", "TLS", "Unix"]


@pytest.mark.parametrize("name", LATE)
def test_methods_that_are_imported_later_are_all_there(name):
    code = f"""
import importlib, sys
from uvloop_clone import Loop, loop
stand_in = vars(loop.{name + "Mixin"})
late = dict((n, v) for n, v in stand_in.items() if type(v).__name__ == "_Later")
module = next(iter(late.values()))._module
assert "uvloop_clone." + module not in sys.modules
for n in late:
    getattr(Loop, n)
real = vars(getattr(sys.modules["uvloop_clone." + module], "{name}Mixin"))
assert set(late) == set(n for n in real if not n.startswith("__")), set(late) ^ set(real)
for n in late:
    assert stand_in[n] is real[n]
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_start_up_imports_little():
    code = """
import asyncio, sys
before = set(sys.modules)
import uvloop_clone
loop = uvloop_clone.new_event_loop()
loop.run_until_complete(asyncio.sleep(0.001))
loop.close()
new = set(sys.modules) - before
ours = set(n for n in new if n.startswith("uvloop_clone"))
assert new - ours <= {"__future__"}, sorted(new - ours)
assert len(ours) <= 10, sorted(ours)
assert set(dir(uvloop_clone)) >= set(uvloop_clone.__all__)
from uvloop_clone import *
assert install.__module__ == EventLoopPolicy.__module__ == "uvloop_clone.policy"
assert run.__module__ == "uvloop_clone.runner"
assert not hasattr(uvloop_clone, "nothing")
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
