"""Ctrl-C in a process of its own: it ends any wait at once, and quietly where it should."""

import signal

import pytest
from support import interrupt_script

pytestmark = pytest.mark.core

AT_ONCE = 8  # seconds; each of the waits below lasts far longer


@pytest.mark.parametrize(
    "wait",
    [
        "loop.run_forever()",
        "loop.run_until_complete(asyncio.sleep(100))",
        "loop.run_until_complete(loop.create_future())",
    ],
)
def test_ends_a_wait(kind, wait):
    code, out, err, seconds = interrupt_script(
        kind,
        f"""
        loop = make_loop(KIND)
        loop.call_later(0.01, print, "ready")
        try:
            {wait}
        except KeyboardInterrupt:
            print("interrupted", loop.is_running(), loop.is_closed())
            for task in asyncio.all_tasks(loop):
                task.cancel()
            print(loop.run_until_complete(asyncio.sleep(0.01, "usable")))
            loop.close()
        """,
    )
    assert (code, out, err) == (0, "interrupted False False\nusable\n", "")
    assert seconds < AT_ONCE


def test_uncaught_it_ends_the_process(kind):
    code, _out, err, seconds = interrupt_script(
        kind,
        """
        loop = make_loop(KIND)
        print("ready")
        loop.run_forever()
        """,
    )
    assert code in (-signal.SIGINT, 130)
    assert "\nKeyboardInterrupt\n" in err
    assert seconds < AT_ONCE


def test_ends_a_busy_loop(kind):
    code, out, err, seconds = interrupt_script(
        kind,
        """
        loop = make_loop(KIND)
        def spin():
            loop.call_soon(spin)
        spin()
        loop.call_later(0.01, print, "ready")
        try:
            loop.run_forever()
        except KeyboardInterrupt:
            print("interrupted")
        loop.close()
        """,
    )
    assert (code, out, err) == (0, "interrupted\n", "")
    assert seconds < AT_ONCE


def test_ends_a_wait_on_sockets(kind):
    _code, out, err, seconds = interrupt_script(
        kind,
        """
        import socket
        loop = make_loop(KIND)
        async def main():
            kept = []
            server = await asyncio.start_server(lambda *ends: kept.append(ends), "127.0.0.1", 0)
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            print("ready")
            await reader.read(1)
        try:
            loop.run_until_complete(main())
        except KeyboardInterrupt:
            print("interrupted")
        """,
    )
    assert out == "interrupted\n", err
    assert seconds < AT_ONCE


def test_under_run_tasks_are_cancelled_quietly(kind):
    """The runner cancels the main task, waits for its end, and raises KeyboardInterrupt."""
    code, out, err, seconds = interrupt_script(
        kind,
        """
        async def helper():
            try:
                await asyncio.sleep(100)
            finally:
                print("helper ends")

        async def main():
            task = asyncio.create_task(helper())
            await asyncio.sleep(0.01)
            print("ready")
            try:
                await asyncio.sleep(100)
            except asyncio.CancelledError:
                print("main cancelled")
                raise

        if KIND == "asyncio":
            run = asyncio.run
        else:
            from uvloop_clone import run
        try:
            run(main())
        except KeyboardInterrupt:
            print("interrupted")
        """,
    )
    assert (code, err) == (0, "")
    assert sorted(out.split("\n")) == ["", "helper ends", "interrupted", "main cancelled"]
    assert seconds < AT_ONCE


def test_with_a_handler_of_the_loop(kind):
    code, out, err, seconds = interrupt_script(
        kind,
        """
        loop = make_loop(KIND)
        loop.add_signal_handler(signal.SIGINT, loop.stop)
        loop.call_soon(print, "ready")
        loop.run_forever()
        print("stopped")
        loop.close()
        """,
    )
    assert (code, out, err) == (0, "stopped\n", "")
    assert seconds < AT_ONCE


def test_with_a_handler_of_python(kind):
    code, out, err, seconds = interrupt_script(
        kind,
        """
        loop = make_loop(KIND)
        def handler(number, frame):
            print("handled", number == signal.SIGINT)
            loop.call_soon_threadsafe(loop.stop)
        signal.signal(signal.SIGINT, handler)
        loop.call_later(0.01, print, "ready")
        loop.run_forever()
        loop.close()
        """,
    )
    assert (code, out, err) == (0, "handled True\n", "")
    assert seconds < AT_ONCE


def test_an_ignored_interrupt(kind):
    code, out, err, _seconds = interrupt_script(
        kind,
        """
        loop = make_loop(KIND)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        print("ready")
        print(loop.run_until_complete(asyncio.sleep(0.6, "slept through")))
        loop.close()
        """,
    )
    assert (code, out, err) == (0, "slept through\n", "")


def test_sigterm_with_a_handler_of_the_loop(kind):
    code, out, err, seconds = interrupt_script(
        kind,
        """
        async def main():
            loop = asyncio.get_running_loop()
            ended = asyncio.Event()
            loop.add_signal_handler(signal.SIGTERM, ended.set)
            print("ready")
            await ended.wait()
            print("ended")
        loop = make_loop(KIND)
        loop.run_until_complete(main())
        loop.close()
        """,
        signum=signal.SIGTERM,
    )
    assert (code, out, err) == (0, "ended\n", "")
    assert seconds < AT_ONCE


def test_while_a_job_runs_in_the_executor(kind):
    _code, out, err, seconds = interrupt_script(
        kind,
        """
        loop = make_loop(KIND)
        gate = threading.Event()
        async def main():
            future = loop.run_in_executor(None, gate.wait, 100)
            await asyncio.sleep(0.05)
            print("ready")
            await future
        try:
            loop.run_until_complete(main())
        except KeyboardInterrupt:
            print("interrupted")
            gate.set()
        """,
    )
    assert out == "interrupted\n", err
    assert seconds < AT_ONCE


def test_a_loop_in_another_thread_goes_on(kind):
    """Signals reach the main thread; the loop elsewhere is not disturbed."""
    code, out, err, seconds = interrupt_script(
        kind,
        """
        loop = make_loop(KIND)
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        print("ready")
        try:
            time.sleep(100)
        except KeyboardInterrupt:
            print("interrupted", loop.is_running())
        future = asyncio.run_coroutine_threadsafe(asyncio.sleep(0.01, "alive"), loop)
        print(future.result(10))
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
        """,
    )
    assert (code, out, err) == (0, "interrupted True\nalive\n", "")
    assert seconds < AT_ONCE
