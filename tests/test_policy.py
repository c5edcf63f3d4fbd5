"""EventLoopPolicy and install(): which loop asyncio makes, and the main thread's current loop."""

import asyncio
import subprocess
import sys
import textwrap
import threading
import warnings

import pytest
from support import FOLDER

import uvloop_clone

pytestmark = pytest.mark.core


def python(code, *flags):
    """Run code in a fresh Python with every warning an error; its output."""
    done = subprocess.run(
        [sys.executable, "-W", "error", *flags, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=FOLDER,  # not the checkout, whose sources would hide the installed package
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.split()


# -- install() -----------------------------------------------------------------------------------


def test_every_way_to_make_a_loop_after_install():
    out = python(
        """
        import asyncio, uvloop_clone
        uvloop_clone.install()
        async def name():
            return type(asyncio.get_running_loop()).__qualname__ + str(
                isinstance(asyncio.get_running_loop(), uvloop_clone.Loop))
        print(asyncio.run(name()))
        loop = asyncio.new_event_loop(); print(loop.run_until_complete(name())); loop.close()
        if hasattr(asyncio, "Runner"):
            with asyncio.Runner() as runner: print(runner.run(name()))
        if hasattr(asyncio, "EventLoop"):
            loop = asyncio.EventLoop(); print(loop.run_until_complete(name())); loop.close()
        """
    )
    assert len(out) == 2 + hasattr(asyncio, "Runner") + hasattr(asyncio, "EventLoop")
    assert set(out) == {"LoopTrue"}


def test_install_twice():
    python("import uvloop_clone; uvloop_clone.install(); uvloop_clone.install()")


def test_main_thread_is_given_a_current_loop_and_keeps_it():
    out = python(
        """
        import asyncio, uvloop_clone
        uvloop_clone.install()
        loop = asyncio.get_event_loop()
        print(isinstance(loop, uvloop_clone.Loop), asyncio.get_event_loop() is loop)
        print(loop.run_until_complete(asyncio.sleep(0, "slept")))
        loop.close()
        """
    )
    assert out == ["True", "True", "slept"]


def test_main_thread_has_a_loop_again_after_asyncio_run():
    out = python(
        """
        import asyncio, uvloop_clone
        uvloop_clone.install()
        asyncio.run(asyncio.sleep(0))
        loop = asyncio.get_event_loop()
        print(loop.is_closed(), asyncio.get_event_loop() is loop)
        loop.close()
        """
    )
    assert out == ["False", "True"]


def test_get_event_loop_in_a_coroutine_is_the_running_loop():
    out = python(
        """
        import asyncio, uvloop_clone
        uvloop_clone.install()
        async def main():
            print(asyncio.get_event_loop() is asyncio.get_running_loop())
        asyncio.run(main())
        """
    )
    assert out == ["True"]


def test_other_threads_have_no_loop_until_they_set_one():
    out = python(
        """
        import asyncio, threading, uvloop_clone
        uvloop_clone.install()
        def work():
            try:
                asyncio.get_event_loop()
            except RuntimeError as error:
                print(str(error) == "There is no current event loop in thread 'worker'.")
            loop = asyncio.new_event_loop()
            asyncio.set_event_loop(loop)
            print(asyncio.get_event_loop() is loop)
            loop.close()
        thread = threading.Thread(target=work, name="worker")
        thread.start()
        thread.join()
        """
    )
    assert out == ["True", "True"]


def test_a_forked_child_has_a_loop_of_its_own():
    out = python(
        """
        import asyncio, os, sys, uvloop_clone, warnings
        warnings.simplefilter("ignore", DeprecationWarning)  # fork with threads
        uvloop_clone.install()
        async def main():
            sys.stdout.flush()
            pid = os.fork()
            if pid == 0:
                try:
                    print(asyncio._get_running_loop(), flush=True)
                    child = asyncio.new_event_loop()
                    print(child.run_until_complete(asyncio.sleep(0, "ran")), flush=True)
                    child.close()
                finally:
                    os._exit(0)
            os.waitpid(pid, 0)
            await asyncio.sleep(0.01)
            print("parent")
        asyncio.run(main())
        """
    )
    assert out == ["None", "ran", "parent"]


# -- the policy by itself ------------------------------------------------------------------------


@pytest.fixture
def policy():
    return uvloop_clone.EventLoopPolicy()


def test_new_event_loop(policy):
    loop = policy.new_event_loop()
    try:
        assert type(loop) is uvloop_clone.Loop
        assert not loop.is_running()
    finally:
        loop.close()


def test_set_and_get(policy):
    loop = policy.new_event_loop()
    try:
        policy.set_event_loop(loop)
        assert policy.get_event_loop() is loop
        policy.set_event_loop(None)
        with pytest.raises(RuntimeError, match="There is no current event loop"):
            policy.get_event_loop()
    finally:
        loop.close()


def test_set_event_loop_refuses_anything_else(policy):
    # Python 3.10 and 3.11 assert it.
    with pytest.raises((TypeError, AssertionError)):
        policy.set_event_loop("a loop")


def test_without_a_loop_it_does_as_asyncios_policy_does(policy):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        theirs = asyncio.DefaultEventLoopPolicy()
        outcomes = []
        for each in (theirs, policy):
            try:
                loop = each.get_event_loop()
            except RuntimeError as error:
                outcomes.append(str(error))
            else:
                loop.close()
                outcomes.append("made one")
    assert outcomes[0] == outcomes[1]


def test_another_thread_has_no_loop(policy):
    caught = []

    def work():
        try:
            policy.get_event_loop()
        except RuntimeError as error:
            caught.append(str(error))

    thread = threading.Thread(target=work, name="worker")
    thread.start()
    thread.join()
    assert caught == ["There is no current event loop in thread 'worker'."]


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="this Python has no child watchers")
def test_child_watcher(policy):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        watcher = policy.get_child_watcher()
        assert isinstance(watcher, asyncio.AbstractChildWatcher)
        other = asyncio.ThreadedChildWatcher()
        policy.set_child_watcher(other)
        assert policy.get_child_watcher() is other


def test_the_loop_class_is_named_after_the_package():
    assert uvloop_clone.Loop.__module__ == "uvloop_clone"
    loop = uvloop_clone.new_event_loop()
    try:
        assert repr(loop) == "<uvloop_clone.Loop running=False closed=False debug=False>"
        assert loop._nest_patched is True
    finally:
        loop.close()


def test_versions():
    assert uvloop_clone.__version__.count(".") == 2
    assert all(part.isdigit() for part in uvloop_clone.libuv_version.split("."))
