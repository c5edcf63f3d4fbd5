"""The loop as a Python object: repr, attributes, weak references, subclasses, warnings."""

import asyncio
import contextvars
import gc
import inspect
import re
import subprocess
import sys
import threading
import time
import types
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


@pytest.mark.only("uvloop_clone")
def test_the_loops_methods_are_its_own(loop):
    """The interpreter is slower to call those of a base."""
    base = type(loop).__mro__[-3]
    inherited = [
        name
        for name, method in vars(base).items()
        if isinstance(method, types.MethodDescriptorType)
        and getattr(type(loop), name).__objclass__ is not type(loop)
    ]
    assert base.__name__ == "Loop"
    assert inherited == []


def test_a_mixins_method_comes_before_the_loops(loop, turns):
    class Mixin:
        def call_soon(self, callback, *args, context=None):
            seen.append(callback)
            return super().call_soon(callback, *args, context=context)

    class MixedLoop(Mixin, type(loop)):
        pass

    async def main():
        await asyncio.sleep(0)

    seen = []
    mixed = MixedLoop()
    try:
        mixed.run_until_complete(main())
    finally:
        mixed.close()
    assert len(seen) >= 2


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


def test_a_cycle_through_a_server_of_an_unclosed_loop_is_collected(new_loop):
    loop = new_loop()
    ref = weakref.ref(loop)
    loop.run_until_complete(loop.create_server(lambda loop=loop: None, "127.0.0.1", 0))
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


@pytest.mark.only("uvloop_clone")
def test_a_loop_that_cannot_be_made(kind):
    """With whatever number of descriptors: an OSError, no warning, none of its methods called."""
    result = run_script(
        kind,
        """
        import errno, resource, warnings, uvloop_clone
        make_loop(KIND).close()  # libuv opens a pipe of the process with its first loop

        class Mine(uvloop_clone.Loop):
            def __init__(self):
                super().__init__()
                self.mine = True
            def close(self):
                super().close()
                assert self.mine

        def fill():
            try:
                while True:
                    copies.append(os.dup(0))
            except OSError:
                pass

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (60, hard))
        warnings.simplefilter("error")
        copies, unraisable, outcomes = [], [], []
        sys.unraisablehook = unraisable.append
        Mine().close()  # libuv opens a process-wide pipe with its first loop
        for free in range(12):
            fill()
            for _ in range(free):
                os.close(copies.pop())
            try:
                Mine().close()
                outcomes.append(0)
            except OSError as error:
                outcomes.append(error.errno)
            held = len(copies)
            fill()
            assert len(copies) == held + free, "a descriptor is left open"
        made = outcomes.count(0)
        print(outcomes == [errno.EMFILE] * (12 - made) + [0] * made, 1 < made < 12, unraisable)
        """,
    )
    assert result.stdout == "True True []\n", result.stderr


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


@pytest.fixture(params=["subclass", "instance"])
def traced(loop, request):
    """A maker of a loop with some methods replaced, and of the list of their calls."""
    made = []

    def replacement(name, calls):
        method = getattr(type(loop), name)

        def call(self, *args, **kwargs):
            calls.append(name)
            return method(self, *args, **kwargs)

        return call

    def make(*names):
        calls = []
        methods = {name: replacement(name, calls) for name in names}
        if request.param == "subclass":
            mine = type("Mine", (type(loop),), methods)()
            made.append(mine)
            return mine, calls
        for name, function in methods.items():
            setattr(loop, name, types.MethodType(function, loop))
        return loop, calls

    yield make
    for mine in made:
        mine.close()


def test_run_until_complete_runs_by_run_forever_and_ends_by_stop(traced):
    mine, calls = traced("run_forever", "stop")
    assert mine.run_until_complete(asyncio.sleep(0, "slept")) == "slept"
    assert calls == ["run_forever", "stop"]


def test_run_until_complete_of_what_is_done_already(traced):
    mine, calls = traced("run_forever", "stop")
    future = mine.create_future()
    future.set_result("done")
    assert mine.run_until_complete(future) == "done"
    assert calls == ["run_forever", "stop"]


def test_a_run_forever_that_does_nothing(loop, monkeypatch):
    future = loop.create_future()
    with monkeypatch.context() as patch:
        patch.setattr(loop, "run_forever", lambda: None, raising=False)
        with pytest.raises(RuntimeError, match="Event loop stopped before Future completed"):
            loop.run_until_complete(future)


def test_call_later_is_a_call_at(traced):
    mine, calls = traced("call_at")
    seen = []
    handle = mine.call_later(0.001, seen.append, 1)
    assert isinstance(handle, asyncio.TimerHandle)
    assert calls == ["call_at"]
    mine.run_until_complete(asyncio.sleep(0.01))
    assert seen == [1]


def test_what_call_at_answers_is_what_call_later_answers(loop, monkeypatch):
    answers = []

    def call_at(when, callback, *args, context=None):
        answers.append(asyncio.TimerHandle(when, callback, args, loop, context))
        return answers[-1]

    monkeypatch.setattr(loop, "call_at", call_at)
    context = contextvars.copy_context()
    before = loop.time()
    handle = loop.call_later(1000, print, 1, 2, context=context)
    assert handle is answers[0]
    assert before + 1000 <= handle.when() <= loop.time() + 1000
    assert (handle._callback, handle._args, handle._context) == (print, (1, 2), context)


def test_outcomes_of_the_executor_come_by_call_soon_threadsafe(traced):
    mine, calls = traced("call_soon_threadsafe")

    def divide(*numbers):
        time.sleep(0.05)  # since 3.14 an outcome that is there already needs no call
        return divmod(*numbers)

    async def main():
        assert await mine.run_in_executor(None, divide, 3, 2) == (1, 1)
        assert calls == ["call_soon_threadsafe"]
        with pytest.raises(ZeroDivisionError):
            await mine.run_in_executor(None, divide, 1, 0)
        assert calls == 2 * ["call_soon_threadsafe"]
        await mine.shutdown_default_executor()

    mine.run_until_complete(main())


def is_collected(owner):
    """Whether an instance goes that nobody holds, and its unclosed loop with it."""
    ref = weakref.ref(owner())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
    return ref() is None


@pytest.mark.parametrize("method", ["call_soon", "call_later", "call_soon_threadsafe"])
def test_a_cycle_through_a_kept_handle_of_an_unclosed_loop_is_collected(new_loop, method):
    class Owner:
        def __init__(self):
            self.loop = new_loop()
            delay = (1000,) if method == "call_later" else ()
            self.handle = getattr(self.loop, method)(*delay, self.callback)

        def callback(self):
            raise AssertionError

    assert is_collected(Owner)


@pytest.mark.parametrize("method", ["call_soon", "call_later", "call_soon_threadsafe"])
def test_what_a_run_leaves_queued_is_collected_with_an_unclosed_loop(new_loop, method):
    """As above, of a handle that its run has not come to."""

    class Owner:
        def __init__(self):
            self.loop = new_loop()
            self.loop.call_soon(self.begin)
            self.loop.run_forever()

        def begin(self):
            if method == "call_soon_threadsafe":
                thread = threading.Thread(target=self.schedule)
                thread.start()
                thread.join()
            else:
                self.schedule()
            self.loop.stop()

        def schedule(self):
            delay = (1000,) if method == "call_later" else ()
            self.handle = getattr(self.loop, method)(*delay, self.callback)

        def callback(self):
            raise AssertionError

    assert is_collected(Owner)
