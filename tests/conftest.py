"""Fixtures of the suite: every behaviour test runs on asyncio's own loop and on ours.

The standard loop is the specification: a test has to hold there first. ``--loop NAME`` (may be
repeated) restricts a run to the named loops.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import threading
import warnings
import weakref

import psutil
import pytest
from support import KINDS, make_loop, open_fds, tcp_pair, wait_until

DEFAULT_TIMEOUT = 120.0

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A script's background jobs begin so, and their children would; tests send Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser):
    parser.addoption(
        "--loop",
        action="append",
        choices=KINDS,
        default=None,
        help="run only on this loop (may be given more than once; default: all)",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config):
    config.addinivalue_line("markers", "core: quick tests of the core, run first and everywhere")
    config.addinivalue_line("markers", "leaks: slow tests that count objects, descriptors, memory")
    config.addinivalue_line("markers", "only(*loops): the behaviour belongs to the named loops")
    if (
        config.pluginmanager.hasplugin("timeout")
        and config.option.timeout is None
        and "PYTEST_TIMEOUT" not in os.environ
        and not config.getini("timeout")
    ):
        config.option.timeout = DEFAULT_TIMEOUT


def pytest_generate_tests(metafunc):
    if "kind" not in metafunc.fixturenames:
        return
    marker = metafunc.definition.get_closest_marker("only")
    metafunc.parametrize("kind", KINDS if marker is None else marker.args)


def begins_late(item):
    """Slow tests go first, so that none is waited for; the conformance suites keep their order."""
    return "conformance" in item.nodeid or item.get_closest_marker("slow") is None


def pytest_collection_modifyitems(config, items):
    items.sort(key=begins_late)
    wanted = config.getoption("--loop")
    if not wanted:
        return
    kept, dropped = [], []
    for item in items:
        callspec = getattr(item, "callspec", None)
        kind = callspec.params.get("kind", wanted[0]) if callspec else wanted[0]
        (kept if kind in wanted else dropped).append(item)
    items[:] = kept
    config.hook.pytest_deselected(items=dropped)


def pytest_collection_finish():
    """What pytest itself keeps is not looked at again by every test's ``gc.collect()``."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def no_child():
    """A function: whether no child is left, not even a dead one, of those that the test started."""
    this = psutil.Process()
    others = set(this.children())  # multiprocessing's helpers of earlier tests
    return lambda: set(this.children()) <= others


@pytest.fixture
def new_loop(kind):
    """A maker of loops of the kind under test; closes those the test left open."""
    made = []

    def make():
        loop = make_loop(kind)
        made.append(weakref.ref(loop))
        return loop

    yield make
    for ref in made:
        loop = ref()
        if loop is not None and not loop.is_closed():
            loop.close()


class Reports(list):
    """The contexts given to the loop's exception handler, in order."""

    def __call__(self, loop, context):
        self.append(context)

    @property
    def exceptions(self):
        return [context.get("exception") for context in self]

    @property
    def messages(self):
        return [context["message"] for context in self]


@pytest.fixture
def errors():
    """What the loop's exception handler was told; asking for it means that errors are expected."""
    return Reports()


@pytest.fixture
def loop(kind, request):
    """A fresh loop. At the end it is closed, and it must have left nothing behind."""
    expected = "errors" in request.fixturenames
    reports = request.getfixturevalue("errors") if expected else Reports()
    gc.collect()
    make_loop(kind).close()  # libuv opens a process-wide pipe with its first loop
    fds = open_fds()
    threads = set(threading.enumerate())
    loop = make_loop(kind)
    loop.set_exception_handler(reports)
    yield loop

    assert not loop.is_running()
    pending = set()
    if not loop.is_closed():
        pending = {task for task in asyncio.all_tasks(loop) if not task.done()}
        for task in pending:
            task.cancel()
        if pending:
            loop.run_until_complete(asyncio.wait(pending, timeout=10))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
    assert loop.is_closed()
    assert not pending, f"the test left tasks: {pending}"
    assert expected or not reports, f"reported to the exception handler: {list(reports)}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
    leftover = [thread for thread in threading.enumerate() if thread not in threads]
    for thread in leftover:
        thread.join(10)
        assert not thread.is_alive(), f"thread left running: {thread}"
    assert wait_until(lambda: open_fds() <= fds), f"descriptors left open: {open_fds() - fds}"


@pytest.fixture
def run(loop):
    """``run(coro, limit=30)``: the coroutine's result; TimeoutError where it takes too long."""

    def run(coro, limit=30):
        return loop.run_until_complete(asyncio.wait_for(coro, limit))

    return run


@pytest.fixture
def turns(loop):
    """``turns(n)``: run the loop for n turns."""

    def turns(count=1):
        for _ in range(count):
            loop.call_soon(loop.stop)
            loop.run_forever()

    return turns


@pytest.fixture
def pair():
    """A maker of connected, non-blocking TCP socket pairs; closes them at the end."""
    made = []

    def make():
        a, b = tcp_pair()
        made.extend((a, b))
        return a, b

    yield make
    for sock in made:
        sock.close()


@pytest.fixture
def sockets():
    """A connected, non-blocking pair of Unix sockets."""
    a, b = socket.socketpair()
    a.setblocking(False)
    b.setblocking(False)
    yield a, b
    a.close()
    b.close()


@pytest.fixture
def path(tmp_path):
    """Where a test may put a Unix socket."""
    return str(tmp_path / "socket")
