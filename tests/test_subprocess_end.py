"""Subprocesses: signals, waiting, closing, who reaps; many at once, threads, nothing left."""

import asyncio
import contextlib
import gc
import logging
import os
import signal
import subprocess
import sys
import threading
import warnings

import pytest
from support import in_thread, make_loop, open_fds, run_script, until

pytestmark = pytest.mark.core

PIPE = asyncio.subprocess.PIPE
PIDFD = hasattr(os, "pidfd_open")


# -- return codes ---------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [0, 1, 7, 255])
def test_exit_code(loop, run, code):
    async def main():
        process = await asyncio.create_subprocess_shell(f"read line; exit {code}", stdin=PIPE)
        assert process.returncode is None
        process.stdin.close()
        assert await process.wait() == code
        assert process.returncode == code
        assert await process.wait() == code

    run(main())


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM, signal.SIGUSR2])
def test_killed_by_a_signal(loop, run, signum):
    async def main():
        process = await asyncio.create_subprocess_shell(f"kill -{int(signum)} $$")
        assert await process.wait() == -signum

    run(main())


@pytest.mark.parametrize("method, signum", [("kill", 9), ("terminate", 15)])
def test_kill_and_terminate(loop, run, method, signum):
    async def main():
        process = await asyncio.create_subprocess_exec("/bin/sleep", "100")
        getattr(process, method)()
        assert await process.wait() == -signum

    run(main())


def test_send_signal(loop, run):
    async def main():
        process = await asyncio.create_subprocess_shell(
            "trap 'echo caught; exit 9' USR1; echo ready; while :; do sleep 0.01; done",
            stdout=PIPE,
        )
        assert await process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGUSR1)
        assert await process.stdout.read() == b"caught\n"
        assert await process.wait() == 9

    run(main())


def test_a_stopped_child_has_not_ended(loop, run):
    async def main():
        process = await asyncio.create_subprocess_exec("/bin/sleep", "100")
        process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(0.05)
        assert process.returncode is None
        process.send_signal(signal.SIGCONT)
        await asyncio.sleep(0.05)
        assert process.returncode is None
        process.kill()
        assert await process.wait() == -signal.SIGKILL

    run(main())


def test_signals_after_the_end(loop, run):
    async def main():
        process = await asyncio.create_subprocess_exec("/bin/true")
        await process.wait()
        await asyncio.sleep(0.01)
        for method in (process.kill, process.terminate):
            with pytest.raises(ProcessLookupError):
                method()
        with pytest.raises(ProcessLookupError):
            process.send_signal(0)

    run(main())


def test_signals_between_the_end_and_its_news(loop, run):
    """Such a signal must not cost the exit status."""

    async def main():
        process = await asyncio.create_subprocess_shell("read line; exit 3", stdin=PIPE)
        process.stdin.write(b"\n")  # goes out at once
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        process.send_signal(signal.SIGUSR1)
        process.kill()
        assert await process.wait() == 3

    if type(loop).__module__.startswith("asyncio") and sys.version_info < (3, 13):
        pytest.skip("asyncio before 3.13 loses the status: 255")
    run(main())


# -- waiting --------------------------------------------------------------------------------------


def test_many_wait(loop, run):
    async def main():
        process = await asyncio.create_subprocess_shell("sleep 0.05; exit 4")
        assert await asyncio.gather(*(process.wait() for _ in range(10))) == [4] * 10

    run(main())


def test_cancelled_wait(loop, run):
    async def main():
        process = await asyncio.create_subprocess_exec("/bin/sleep", "100")
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(process.wait(), 0.02)
        waiting = [loop.create_task(process.wait()) for _ in range(3)]
        await asyncio.sleep(0)
        waiting[1].cancel()
        process.kill()
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert results[0] == results[2] == -9
        assert isinstance(results[1], asyncio.CancelledError)

    run(main())


@pytest.mark.parametrize("stream", [None, PIPE])
def test_cancelled_start(loop, run, stream, no_child):
    """The child is killed, and reaped before the cancellation goes on."""

    async def main():
        before = open_fds()
        starting = loop.create_task(
            asyncio.create_subprocess_exec(
                "/bin/sleep", "100", stdin=stream, stdout=stream, stderr=stream
            )
        )
        loop.call_soon(starting.cancel)
        with pytest.raises(asyncio.CancelledError):
            await starting
        await until(lambda: no_child() and open_fds() <= before)

    run(main())


# -- closing --------------------------------------------------------------------------------------


def test_close_kills(loop, run):
    async def main():
        transport, _ = await loop.subprocess_exec(asyncio.SubprocessProtocol, "/bin/cat")
        assert not transport.is_closing()
        transport.close()
        assert transport.is_closing()
        transport.close()
        assert await transport._wait() == -signal.SIGKILL
        assert transport.get_returncode() == -signal.SIGKILL

    run(main())


def test_close_uses_the_popen_object(loop, run):
    async def main():
        transport, _ = await loop.subprocess_exec(
            asyncio.SubprocessProtocol, "/bin/sleep", "100", stdin=None
        )
        popen = transport.get_extra_info("subprocess")
        called = []
        kill, popen.kill = popen.kill, lambda: (called.append(1), kill())
        transport.close()
        await transport._wait()
        assert called

    run(main())


def test_close_does_not_kill_the_dead(loop, run, caplog):
    async def main():
        transport, _ = await loop.subprocess_exec(
            asyncio.SubprocessProtocol, "/bin/sleep", "100", stdin=None, stdout=None, stderr=None
        )
        popen = transport.get_extra_info("subprocess")
        popen.terminate()
        popen.wait()
        called = []
        popen.kill = lambda: called.append(1)
        transport.close()
        assert not called
        await transport._wait()
        return transport.get_returncode()

    code = run(main())
    if type(loop).__module__.startswith("asyncio"):
        assert code in (255, -signal.SIGTERM)  # it may have been too late to learn it
    else:
        assert code == -signal.SIGTERM


def test_close_of_an_ended_child(loop, run):
    async def main():
        process = await asyncio.create_subprocess_exec("/bin/true", stdout=PIPE)
        await process.communicate()
        process._transport.close()
        assert process._transport.is_closing()

    run(main())


def test_close_in_debug_mode_says_that_it_kills(loop, run, caplog):
    async def main():
        loop.set_debug(True)
        transport, _ = await loop.subprocess_exec(asyncio.SubprocessProtocol, "/bin/cat")
        transport.close()
        await transport._wait()

    run(main())
    assert "Close running child process: kill <" in caplog.text


def test_repr(loop, run):
    async def main():
        transport, _ = await loop.subprocess_exec(
            asyncio.SubprocessProtocol, "/bin/cat", stdin=PIPE, stdout=PIPE, stderr=None
        )
        text = repr(transport)
        assert f"pid={transport.get_pid()} running stdin=<" in text
        assert "stdout=<" in text
        assert "stderr" not in text
        transport.close()
        await transport._wait()
        assert "closed pid=" in repr(transport)
        assert "returncode=-9" in repr(transport)

    run(main())


def test_unclosed_transport(kind):
    """A transport that nobody closed warns, kills its child, and leaves no descriptor."""
    before = open_fds()
    if kind == "asyncio" and sys.version_info < (3, 12):
        pytest.skip("the thread that waits there keeps the transport")
    loop = make_loop(kind)

    async def main(loop):
        transport, _ = await loop.subprocess_exec(
            asyncio.SubprocessProtocol, "/bin/sleep", "100", stdin=None, stdout=None, stderr=None
        )
        return transport.get_pid()

    pid = loop.run_until_complete(main(loop))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loop.close()
        del loop
        gc.collect()
    assert any("unclosed transport" in str(warning.message) for warning in caught)
    with contextlib.suppress(ChildProcessError):  # Popen's own list of children may reap first
        assert os.waitpid(pid, 0)[1] == signal.SIGKILL
    subprocess._cleanup()
    if kind != "asyncio":  # which leaves its pidfd open
        assert {fd for fd, _ in open_fds()} <= {fd for fd, _ in before}


# -- reaping --------------------------------------------------------------------------------------


def test_reaped_by_somebody_else(loop, run, caplog):
    if type(loop).__module__.startswith("asyncio") and sys.version_info < (3, 12):
        pytest.skip("a thread waits there as well: whoever comes first")

    async def main():
        process = await asyncio.create_subprocess_shell("sleep 0.3; exit 3")
        os.waitpid(process.pid, 0)
        assert await process.wait() == 255
        return process.pid

    with caplog.at_level(logging.WARNING, logger="asyncio"):
        pid = run(main())
    warning = next(record.getMessage() for record in caplog.records if "already read" in record.msg)
    assert f"hild process pid {pid} exit status already read" in warning
    assert "will report returncode 255" in warning


@pytest.mark.only("uvloop_clone")
def test_reaped_through_the_popen_object(loop, run, caplog):
    """asyncio reports 255 here, though the status is known."""

    async def main():
        process = await asyncio.create_subprocess_shell("exit 3")
        popen = process._transport.get_extra_info("subprocess")
        assert popen.wait() == 3
        assert await process.wait() == 3

    run(main())
    assert not caplog.records


def test_no_zombie(loop, run, no_child):
    async def main():
        for _ in range(10):
            process = await asyncio.create_subprocess_exec("/bin/true", stdout=PIPE)
            await process.communicate()
        assert no_child()

    run(main())


def test_popen_object_knows_the_end(loop, run):
    async def main():
        process = await asyncio.create_subprocess_shell("exit 6")
        popen = process._transport.get_extra_info("subprocess")
        await process.wait()
        assert popen.returncode == 6
        assert popen.poll() == 6

    run(main())


def test_other_children_are_left_alone(loop, run):
    """Who runs subprocess.Popen beside the loop gets its status."""

    async def main():
        other = subprocess.Popen(["/bin/sh", "-c", "exit 5"])
        process = await asyncio.create_subprocess_exec("/bin/sleep", "0.1")
        assert await process.wait() == 0
        assert other.wait() == 5

    run(main())


@pytest.mark.only("uvloop_clone")
@pytest.mark.skipif(not PIDFD, reason="needs a pidfd")
def test_neither_thread_nor_signal_handler(loop, run):
    async def main():
        threads = threading.active_count()
        process = await asyncio.create_subprocess_exec("/bin/sleep", "0.1")
        assert threading.active_count() == threads
        assert signal.getsignal(signal.SIGCHLD) is signal.SIG_DFL
        assert await process.wait() == 0

    run(main())


@pytest.mark.only("uvloop_clone")
@pytest.mark.parametrize("how", ["missing", "failing"])
def test_without_pidfd(loop, run, monkeypatch, how, no_child):
    """Then a thread waits, and the loop reaps."""
    from uvloop_clone import _process

    def refuse(pid):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(_process, "_pidfd_open", None if how == "missing" else refuse)

    async def main():
        process = await asyncio.create_subprocess_shell("sleep 0.05; exit 6")
        names = [thread.name for thread in threading.enumerate()]
        assert f"uvloop_clone-waitpid-{process.pid}" in names
        assert await process.wait() == 6
        process = await asyncio.create_subprocess_exec("/bin/echo", "hello", stdout=PIPE)
        assert await process.communicate() == (b"hello\n", None)
        process = await asyncio.create_subprocess_exec("/bin/sleep", "100")
        process.kill()
        assert await process.wait() == -9
        assert no_child()

    run(main())


@pytest.mark.only("uvloop_clone")
def test_without_pidfd_reaped_by_somebody_else(loop, run, monkeypatch, caplog):
    from uvloop_clone import _process

    monkeypatch.setattr(_process, "_pidfd_open", None)

    async def main():
        process = await asyncio.create_subprocess_shell("sleep 0.05; exit 6")
        os.waitpid(process.pid, 0)
        assert await process.wait() == 255

    run(main())
    assert "exit status already read" in caplog.text


@pytest.mark.only("uvloop_clone")
def test_without_pidfd_loop_closed(monkeypatch, caplog, kind):
    from uvloop_clone import _process

    monkeypatch.setattr(_process, "_pidfd_open", None)
    loop = make_loop(kind)

    async def main():
        return await loop.subprocess_exec(
            asyncio.SubprocessProtocol, "/bin/sleep", "100", stdin=None, stdout=None, stderr=None
        )

    transport, _ = loop.run_until_complete(main())
    loop.close()
    thread = next(
        thread
        for thread in threading.enumerate()
        if thread.name == f"uvloop_clone-waitpid-{transport.get_pid()}"
    )
    transport.close()
    thread.join(10)
    assert not thread.is_alive()
    assert f"that handles pid {transport.get_pid()} is closed" in caplog.text
    assert transport.get_extra_info("subprocess").wait() == -9


# -- many, and elsewhere --------------------------------------------------------------------------


def test_many_at_once(loop, run, no_child):
    async def one(number):
        process = await asyncio.create_subprocess_shell(
            f"cat; exit {number}", stdin=PIPE, stdout=PIPE, stderr=PIPE
        )
        data = b"%d" % number * 1000
        assert await process.communicate(data) == (data, b"")
        return process.returncode

    async def main():
        assert await asyncio.gather(*map(one, range(30))) == list(range(30))
        assert no_child()

    run(main(), 60)


def test_in_another_thread(kind):
    async def main():
        process = await asyncio.create_subprocess_shell("cat; exit 3", stdin=PIPE, stdout=PIPE)
        assert await process.communicate(b"hello") == (b"hello", None)
        return process.returncode

    def work():
        loop = make_loop(kind)
        try:
            return loop.run_until_complete(main())
        finally:
            loop.close()

    assert in_thread(work) == 3


def test_two_loops_in_two_threads(kind):
    async def main(number):
        async def one():
            process = await asyncio.create_subprocess_exec("/bin/echo", number, stdout=PIPE)
            return (await process.communicate())[0]

        return await asyncio.gather(*(one() for _ in range(10)))

    def work(number):
        loop = make_loop(kind)
        try:
            results.append(set(loop.run_until_complete(main(number))))
        finally:
            loop.close()

    results = []
    threads = [threading.Thread(target=work, args=(str(n),)) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(map(sorted, results)) == [[b"0\n"], [b"1\n"]]


def test_nothing_is_left(loop, run, no_child):
    async def one():
        process = await asyncio.create_subprocess_exec(
            "/bin/cat", stdin=PIPE, stdout=PIPE, stderr=PIPE
        )
        await process.communicate(b"x")

    async def main():
        await one()
        await asyncio.sleep(0.01)
        before = open_fds()
        for _ in range(30):
            await one()
        await asyncio.sleep(0.01)
        gc.collect()
        assert open_fds() <= before
        assert no_child()

    run(main(), 60)


@pytest.mark.leaks
@pytest.mark.only("uvloop_clone")
def test_no_growth_over_500_children(kind):
    """Descriptors, zombies, objects and memory stay where they were."""
    done = run_script(
        kind,
        """
        import gc, resource
        from support import open_fds

        async def one():
            process = await asyncio.create_subprocess_exec(
                "/bin/cat", stdin=-1, stdout=-1, stderr=-1
            )
            out, _ = await process.communicate(b"x" * 1000)
            assert out == b"x" * 1000

        async def main():
            async def some(count):
                for _ in range(count):
                    await one()
                await asyncio.sleep(0.01)
                gc.collect()
                objects, fds = len(gc.get_objects()), len(open_fds())
                with open("/proc/self/statm") as file:
                    return objects, fds, int(file.read().split()[1]) * resource.getpagesize()

            await some(50)
            objects, fds, memory = await some(50)
            objects_after, fds_after, memory_after = await some(450)
            assert fds_after == fds, (fds, fds_after)
            assert objects_after - objects < 50, (objects, objects_after)
            if "asan" not in os.environ.get("LD_PRELOAD", ""):  # which keeps what is freed
                assert memory_after - memory < 500_000, (memory, memory_after)
            try:
                os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                print("clean")

        loop = make_loop(KIND)
        loop.run_until_complete(main())
        loop.close()
        """,
        limit=120,
    )
    assert done.stdout == "clean\n", done.stderr


def test_end_of_run_with_a_running_child(kind):
    """asyncio.run() over a child that nobody waited for: no crash, and nothing waits for it."""
    done = run_script(
        kind,
        """
        async def main():
            process = await asyncio.create_subprocess_exec(
                "/bin/sleep", "100", stdout=-1, stderr=-3
            )
            print(process.pid)

        loop = make_loop(KIND)
        loop.run_until_complete(main())
        loop.close()
        """,
        limit=20,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr or kind == "asyncio"
    with contextlib.suppress(ProcessLookupError):
        os.kill(int(done.stdout), signal.SIGKILL)


# -- child watchers -------------------------------------------------------------------------------

watchers = pytest.mark.skipif(sys.version_info >= (3, 14), reason="gone in Python 3.14")


@pytest.fixture
def quiet_deprecations():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


@watchers
@pytest.mark.parametrize("name", ["SafeChildWatcher", "FastChildWatcher", "ThreadedChildWatcher"])
def test_child_watchers(loop, run, name, quiet_deprecations):
    """A policy's watcher goes on working, with asyncio's loop and with ours."""
    policy = asyncio.get_event_loop_policy()
    former = policy._watcher
    watcher = getattr(asyncio, name)()
    watcher.attach_loop(loop)
    policy.set_child_watcher(watcher)

    async def main():
        process = await asyncio.create_subprocess_shell("cat; exit 5", stdin=PIPE, stdout=PIPE)
        assert await process.communicate(b"hello") == (b"hello", None)
        assert process.returncode == 5
        process = await asyncio.create_subprocess_exec("/bin/sleep", "100")
        process.kill()
        assert await process.wait() == -9

    try:
        assert asyncio.get_child_watcher() is watcher
        run(main())
    finally:
        watcher.attach_loop(None)
        watcher.close()
        policy.set_child_watcher(former)


@watchers
def test_inactive_child_watcher(loop, run, quiet_deprecations):
    policy = asyncio.get_event_loop_policy()
    former = policy._watcher
    policy.set_child_watcher(asyncio.SafeChildWatcher())  # attached to no loop

    async def main():
        with pytest.raises(RuntimeError, match="get_child_watcher\\(\\) is not activated"):
            await asyncio.create_subprocess_exec("/bin/true")

    try:
        run(main())
    finally:
        policy.set_child_watcher(former)


@watchers
@pytest.mark.only("uvloop_clone")
def test_no_child_watcher_is_made(loop, run):
    policy = asyncio.get_event_loop_policy()
    former, policy._watcher = policy._watcher, None

    async def main():
        process = await asyncio.create_subprocess_exec("/bin/true")
        assert await process.wait() == 0

    try:
        run(main())
        assert policy._watcher is None
    finally:
        policy._watcher = former
