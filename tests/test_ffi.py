"""uvloop_clone.ffi: libuv's own handles on our loop. The bridge exists on our loop alone."""

import asyncio
import gc
import os
import socket
import subprocess
import sys
import threading
import time
import weakref

import pytest
from support import FOLDER, in_thread, make_loop, until

bridge = pytest.importorskip("uvloop_clone.ffi", exc_type=ImportError)
Handle, callback, check = bridge.Handle, bridge.callback, bridge.check
ffi, lib, loop_ptr = bridge.ffi, bridge.lib, bridge.loop_ptr

pytestmark = [pytest.mark.core, pytest.mark.only("uvloop_clone")]

FAR = 3_600_000  # milliseconds that no test waits for


def in_time(seconds=5.0):
    """A function that says whether less than `seconds` have gone by."""
    end = time.monotonic() + seconds
    return lambda: time.monotonic() < end


class TestLoopPointer:
    def test_is_the_running_loop(self, loop, run):
        async def main():
            pointer = loop_ptr(loop)
            assert ffi.typeof(pointer) is ffi.typeof("uv_loop_t *")
            assert pointer == loop_ptr(loop)
            assert lib.uv_loop_alive(pointer)
            lib.uv_update_time(pointer)
            assert abs(lib.uv_now(pointer) - time.monotonic_ns() // 1_000_000) < 5000

        run(main())

    def test_before_the_loop_runs(self, loop):
        assert lib.uv_backend_fd(loop_ptr(loop)) >= 0

    def test_closed_loop(self, loop):
        loop.close()
        with pytest.raises(RuntimeError, match="Event loop is closed"):
            loop_ptr(loop)
        with pytest.raises(RuntimeError, match="Event loop is closed"):
            Handle(loop, lib.uv_timer_init)

    def test_other_thread(self, loop, run):
        async def main():
            timer = Handle(loop, lib.uv_timer_init)
            for use in (
                lambda: loop_ptr(loop),
                lambda: Handle(loop, lib.uv_timer_init),
                lambda: timer.call(lib.uv_timer_stop),
                timer.close,
            ):
                with pytest.raises(RuntimeError, match="other than the current one"):
                    await asyncio.to_thread(use)
            assert not timer.closed
            await timer.close()

        run(main())

    @pytest.mark.parametrize("other", [None, object(), 1])
    def test_no_loop(self, loop, other):
        for use in (loop_ptr, lambda it: Handle(it, lib.uv_timer_init)):
            with pytest.raises(TypeError, match=r"a loop of uvloop_clone was expected"):
                use(other)
        with pytest.raises(TypeError, match=r"a loop of uvloop_clone was expected"):
            callback(other, "uv_timer_cb")

    def test_the_standard_loop(self, loop):
        other = make_loop("asyncio")
        with pytest.raises(TypeError, match=r"a loop of uvloop_clone was expected"):
            loop_ptr(other)
        other.close()

    def test_keeps_the_loop_alive(self, kind):
        loop = make_loop(kind)
        pointer, ref = loop_ptr(loop), weakref.ref(loop)
        loop.close()
        del loop
        gc.collect()
        assert ref() is not None
        del pointer
        gc.collect()
        assert ref() is None


class TestLibrary:
    def test_is_the_cores_libuv(self, kind):
        import uvloop_clone

        assert ffi.string(lib.uv_version_string()).decode() == uvloop_clone.libuv_version

    def test_no_way_to_run_or_close_the_loop(self, kind):
        for name in ("uv_run", "uv_loop_close", "uv_loop_init", "uv_library_shutdown"):
            assert not hasattr(lib, name)

    def test_every_handle_type_has_its_size(self, kind):
        for name in [
            "async",
            "check",
            "fs_event",
            "fs_poll",
            "idle",
            "poll",
            "prepare",
            "process",
            "signal",
        ]:
            size = lib.uv_handle_size(getattr(lib, f"UV_{name.upper()}"))
            assert ffi.sizeof(f"uv_{name}_t") == size

    @pytest.mark.parametrize(
        ("code", "error"),
        [("UV_ENOENT", FileNotFoundError), ("UV_ECONNREFUSED", ConnectionRefusedError)],
    )
    def test_check(self, kind, code, error):
        with pytest.raises(error) as caught:
            check(getattr(lib, code))
        assert caught.value.strerror == os.strerror(caught.value.errno)

    def test_check_of_libuvs_own_codes(self, kind):
        with pytest.raises(OSError, match="unknown node or service"):
            check(lib.UV_EAI_NONAME)
        assert check(3) == 3

    @pytest.mark.parametrize(
        ("head", "text"),
        [
            ("sys.modules['_cffi_backend'] = None", "pip install 'uvloop_clone[cffi]'"),
            ("sys.modules['uvloop_clone._ffi'] = None", "built without cffi"),
            ("import uvloop_clone._core as c; c._libuv_address += 8", "another copy"),
        ],
    )
    def test_import_that_cannot_be(self, kind, head, text):
        code = f"import sys; {head}\nimport uvloop_clone; import uvloop_clone.ffi"
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, cwd=FOLDER
        )
        assert done.returncode == 1
        last = done.stderr.strip().splitlines()[-1]
        assert last.startswith("ImportError: ") and text in last


class TestHandle:
    def test_life(self, loop, run):
        async def main():
            fired = []
            timer = Handle(loop, lib.uv_timer_init)
            assert timer.ptr.type == lib.UV_TIMER
            assert repr(timer) == "<Handle uv_timer_t open>"
            timer.call(lib.uv_timer_start, fired.append, 1, 0)
            await until(lambda: fired)
            assert fired[0] == timer.ptr
            closing = timer.close()
            assert timer.close() is closing
            assert timer.closed and not closing.done()
            await closing
            assert repr(timer) == "<Handle uv_timer_t closed>"
            with pytest.raises(RuntimeError, match="handle is closed"):
                timer.call(lib.uv_timer_stop)

        run(main())

    def test_block(self, loop, run):
        async def main():
            with Handle(loop, lib.uv_idle_init) as idle:
                assert not idle.closed
            assert idle.closed
            await idle.close()

        run(main())

    def test_no_function_that_makes_a_handle(self, loop):
        for wrong in (lib.uv_timer_stop, lib.uv_fs_stat, lib.uv_now, len, None, "uv_timer_init"):
            with pytest.raises(TypeError, match=r"was expected, got"):
                Handle(loop, wrong)

    def test_refused_by_libuv(self, loop):
        with pytest.raises(OSError, match=os.strerror(9)):
            Handle(loop, lib.uv_poll_init, 987654)
        loop.close()

    def test_failed_spawn_leaves_nothing(self, loop, run):
        async def main():
            name = ffi.new("char[]", b"/no/such/program")
            args = ffi.new("char *[]", [name, ffi.NULL])
            options = ffi.new("uv_process_options_t *", {"file": name, "args": args})
            with pytest.raises(FileNotFoundError):
                Handle(loop, lib.uv_spawn, options)
            await asyncio.sleep(0.01)
            assert not loop._share_uv()[1]

        run(main())

    def test_functions_of_every_handle(self, loop):
        timer = Handle(loop, lib.uv_timer_init)
        assert timer.call(lib.uv_is_active) == 0
        timer.call(lib.uv_timer_start, lambda _: None, FAR, 0)
        assert timer.call(lib.uv_is_active) == 1
        assert timer.call(lib.uv_has_ref) == 1
        timer.call(lib.uv_unref)
        assert timer.call(lib.uv_has_ref) == 0

    def test_functions_of_another_handle(self, loop):
        timer = Handle(loop, lib.uv_timer_init)
        with pytest.raises(TypeError):
            timer.call(lib.uv_idle_stop)
        with pytest.raises(TypeError):
            timer.call(len)

    def test_error_of_a_call(self, loop, tmp_path):
        watcher = Handle(loop, lib.uv_fs_event_init)
        with pytest.raises(FileNotFoundError):
            watcher.call(lib.uv_fs_event_start, lambda *_: None, os.fsencode(tmp_path / "none"), 0)

    def test_closed_by_libuvs_own_function(self, loop):
        timer = Handle(loop, lib.uv_timer_init)
        lib.uv_close(ffi.cast("uv_handle_t *", timer.ptr), ffi.NULL)
        with pytest.raises(RuntimeError, match=r"uv_close\(\) already"):
            timer.close()
        with pytest.raises(RuntimeError, match="is closed"):
            timer.call(lib.uv_timer_stop)
        loop.close()
        assert timer.close().done()

    def test_close_from_its_own_callback(self, loop, run):
        async def main():
            closing = loop.create_future()
            timer = Handle(loop, lib.uv_timer_init)
            timer.call(lib.uv_timer_start, lambda _: closing.set_result(timer.close()), 0, 1)
            await (await closing)

        run(main())

    def test_started_anew_from_its_own_callback(self, loop, run):
        async def main():
            timer = Handle(loop, lib.uv_timer_init)
            fired = []

            def again(_):
                fired.append(1)
                for _ in range(3):
                    timer.call(lib.uv_timer_start, lambda pointer: again(pointer), 1, 0)
                gc.collect(0)

            timer.call(lib.uv_timer_start, again, 1, 0)
            await until(lambda: len(fired) > 5)
            await timer.close()

        run(main())


class TestMemory:
    def test_is_kept_while_open_and_let_go_when_closed(self, loop, run):
        async def main():
            timer = Handle(loop, lib.uv_timer_init)
            fired = []

            def on_timer(_):
                fired.append(1)

            timer.call(lib.uv_timer_start, on_timer, 1, 1)
            memory, function = weakref.ref(timer.ptr), weakref.ref(on_timer)
            del timer, on_timer
            gc.collect()
            assert memory() is not None and function() is not None
            await until(lambda: len(fired) > 2)  # nobody holds it, and it goes on
            loop.call_soon(gc.collect)

        run(main())
        guests = loop._share_uv()[1]
        assert len(guests) == 1
        memory = weakref.ref(next(iter(guests.values()))[0])
        del guests
        loop.close()
        gc.collect()
        assert memory() is None

    def test_after_close(self, loop, run):
        async def main():
            timer = Handle(loop, lib.uv_timer_init)
            memory = weakref.ref(timer.ptr)
            closing = timer.close()
            del timer
            gc.collect()
            assert memory() is not None
            await closing
            gc.collect()
            assert memory() is None

        run(main())

    def test_loop_with_open_handles_is_collected(self, kind):
        loop = make_loop(kind)
        timer = Handle(loop, lib.uv_timer_init)
        timer.call(lib.uv_timer_start, lambda _, loop=loop: None, FAR, 0)  # a cycle
        loop.pointer = loop_ptr(loop)  # and another one
        memory, ref = weakref.ref(timer.ptr), weakref.ref(loop)
        del timer, loop
        with pytest.warns(ResourceWarning, match="unclosed event loop"):
            gc.collect()
        gc.collect()
        assert ref() is None and memory() is None


class TestForgotten:
    """The loop closes whatever is open on it, without a look at what `data` says."""

    KINDS = ("timer", "idle", "prepare", "check", "fs_event", "fs_poll", "signal", "async")
    KINDS += ("tcp", "pipe", "udp", "poll")

    @pytest.fixture
    def extra(self):
        pair = socket.socketpair()
        yield {"pipe": (0,), "poll": (pair[0].fileno(),), "async": (lambda _: None,)}
        for sock in pair:
            sock.close()

    @pytest.mark.parametrize("name", KINDS)
    @pytest.mark.parametrize("data", ["nothing", "loop", "itself", "garbage"])
    def test_handle(self, loop, extra, name, data):
        handle = Handle(loop, getattr(lib, f"uv_{name}_init"), *extra.get(name, ()))
        handle.ptr.data = {
            "nothing": ffi.NULL,
            "loop": loop_ptr(loop).data,
            "itself": handle.ptr,
            "garbage": ffi.cast("void *", 0x10),
        }[data]
        pointer = ffi.cast("uv_handle_t *", handle.ptr)
        loop.close()
        assert lib.uv_is_closing(pointer)
        assert handle.closed
        assert handle.close().done()

    def test_raw_handle(self, loop):
        timer = ffi.new("uv_timer_t *")
        fired = callback(loop, "uv_timer_cb")(lambda _: None)
        check(lib.uv_timer_init(loop_ptr(loop), timer))
        check(lib.uv_timer_start(timer, fired, FAR, 0))
        loop.close()
        assert lib.uv_is_closing(ffi.cast("uv_handle_t *", timer))

    def test_beside_transports(self, loop, run, pair):
        async def main():
            a, b = pair()
            transport, _ = await loop.create_connection(asyncio.Protocol, sock=a)
            Handle(loop, lib.uv_tcp_init)
            return transport

        transport = run(main())
        with pytest.warns(ResourceWarning, match="unclosed transport"):
            loop.close()
        assert transport.is_closing()

    def test_close_callback_that_opens_another(self, loop):
        opened = []
        raw = ffi.new("uv_timer_t *")

        @callback(loop, "uv_close_cb")
        def on_close(pointer):
            opened.append(ffi.new("uv_timer_t *"))
            lib.uv_timer_init(pointer.loop, opened[0])
            lib.uv_timer_start(opened[0], ffi.NULL or fired, FAR, 0)

        fired = callback(loop, "uv_timer_cb")(lambda _: None)
        check(lib.uv_timer_init(loop_ptr(loop), raw))
        lib.uv_close(ffi.cast("uv_handle_t *", raw), on_close)
        loop.close()
        assert lib.uv_is_closing(ffi.cast("uv_handle_t *", opened[0]))

    def test_work_in_the_thread_pool(self, loop):
        """Its end needs the GIL, which close() must not hold while it waits."""
        steps = []
        request = ffi.new("uv_work_t *")

        @callback(loop, "uv_work_cb")
        def work(_):
            time.sleep(0.05)
            steps.append("work")

        @callback(loop, "uv_after_work_cb")
        def after(_, status):
            steps.append(status)

        check(lib.uv_queue_work(loop_ptr(loop), request, work, after))
        loop.close()
        assert steps == ["work", 0]


class TestTurn:
    """What a raw callback does takes effect at once, wherever in the turn it is called."""

    def start(self, loop, name, function):
        """A handle whose next call is in the part of the turn that `name` says; stops itself."""

        def once(_):
            handle.call(getattr(lib, f"uv_{name}_stop"))
            function()

        handle = Handle(loop, getattr(lib, f"uv_{name}_init"))
        handle.call(getattr(lib, f"uv_{name}_start"), once, *((0, 0) if name == "timer" else ()))
        return handle

    where = pytest.mark.parametrize("name", ["timer", "idle", "prepare", "check"])

    def wait(self, loop, name, function):
        """Run until a future that `function` gets is done; nothing else keeps the loop awake."""

        async def main():
            done = loop.create_future()
            with self.start(loop, name, lambda: function(done)):
                await done

        begin = time.monotonic()
        awake = loop.call_later(20, lambda: None)
        if name == "check":  # it runs after a wait, which something else must end
            loop.call_later(0.02, lambda: None)
        loop.run_until_complete(main())
        awake.cancel()
        assert time.monotonic() - begin < 10

    @where
    def test_call_soon(self, loop, name):
        self.wait(loop, name, lambda done: loop.call_soon(done.set_result, None))

    @where
    def test_future(self, loop, name):
        self.wait(loop, name, lambda done: done.set_result(None))

    @where
    def test_call_later(self, loop, name):
        self.wait(loop, name, lambda done: loop.call_later(0.01, done.set_result, None))

    @where
    def test_call_soon_threadsafe(self, loop, name):
        self.wait(loop, name, lambda done: loop.call_soon_threadsafe(done.set_result, None))

    @where
    def test_task(self, loop, name):
        async def task(done):
            await asyncio.sleep(0)
            done.set_result(None)

        tasks = []
        self.wait(loop, name, lambda done: tasks.append(loop.create_task(task(done))))

    @where
    def test_write(self, loop, name, pair):
        a, b = pair()

        async def connect():
            transport, _ = await loop.create_connection(asyncio.Protocol, sock=a)
            return transport

        transport = loop.run_until_complete(connect())

        def function(done):
            transport.write(b"x")
            loop.add_reader(b, lambda: done.done() or done.set_result(None))

        self.wait(loop, name, function)
        loop.remove_reader(b)
        assert b.recv(10) == b"x"
        transport.close()
        loop.run_until_complete(asyncio.sleep(0))

    @where
    def test_stop(self, loop, name):
        begin = time.monotonic()
        awake = loop.call_later(20, lambda: None)
        if name == "check":
            loop.call_later(0.02, lambda: None)
        with self.start(loop, name, loop.stop):
            loop.run_forever()
        awake.cancel()
        assert time.monotonic() - begin < 10

    @where
    def test_descriptor_closed_while_watched(self, loop, name):
        def function(done):
            a, b = socket.socketpair()
            loop.add_reader(a, lambda: None)
            a.close()
            b.close()
            loop.call_soon(done.set_result, None)
            loop.call_soon(loop.remove_reader, fd := a.fileno() if a.fileno() >= 0 else 10**5)
            assert fd

        self.wait(loop, name, function)

    def test_running_loop_and_context(self, loop):
        seen = []

        def function(done):
            seen.append(asyncio.get_running_loop())
            done.set_result(None)

        self.wait(loop, "timer", function)
        assert seen == [loop]


class TestThreads:
    """CFFI takes the GIL for each callback by itself; the loop lets it go for its waits."""

    def test_other_threads_run_while_the_loop_waits(self, loop, run):
        async def main():
            timer = Handle(loop, lib.uv_timer_init)
            timer.call(lib.uv_timer_start, lambda _: None, 5, 5)
            counts = []

            def count():
                for number in range(20):
                    time.sleep(0.002)
                    counts.append(number)

            await asyncio.to_thread(count)
            assert counts == list(range(20))
            await timer.close()

        run(main())

    def test_raw_and_own_callbacks_in_one_batch(self, loop, run, pair):
        async def main():
            raw, own = [], []
            sockets = [pair() for _ in range(16)]
            handles = []
            transports = []
            for index, (a, _) in enumerate(sockets):
                if index % 2:

                    def readable(_poll, status, _events, a=a):
                        raw.append((status, a.recv(100)))

                    handles.append(Handle(loop, lib.uv_poll_init, a.fileno()))
                    handles[-1].call(lib.uv_poll_start, lib.UV_READABLE, readable)
                else:

                    class Reader(asyncio.Protocol):
                        def data_received(self, data):
                            own.append(data)

                    transports.append((await loop.create_connection(Reader, sock=a))[0])
            for round_ in range(1, 30):
                for _, b in sockets if round_ % 2 else reversed(sockets):
                    b.send(b"x")
                await until(lambda: len(raw) == len(own) == 8 * round_)  # noqa: B023
            assert set(raw) == {(0, b"x")} and set(own) == {b"x"}
            for handle in handles:
                await handle.close()
            for transport in transports:
                transport.close()
            await asyncio.sleep(0)

        run(main())

    @pytest.mark.parametrize("name", ["timer", "idle", "prepare", "check", "poll"])
    def test_nested_run_in_a_callback(self, loop, name, sockets):
        """The nested wait must let the GIL go as well, and the outer one find it as it was."""
        loop.allow_nested()
        results = []

        async def inner():
            with Handle(loop, lib.uv_timer_init) as nested:
                ticks = []
                nested.call(lib.uv_timer_start, ticks.append, 1, 1)
                threads = await asyncio.gather(*(asyncio.to_thread(time.sleep, 0.01) for _ in "ab"))
                await until(lambda: len(ticks) > 2)
                return threads

        def function(pointer, *_):
            if name == "poll":
                sockets[0].recv(10)
            else:
                handle.call(getattr(lib, f"uv_{name}_stop"))
            results.append(loop.run_until_complete(inner()))
            closed.append(handle.close())

        async def main():
            for _ in range(3):
                await asyncio.to_thread(time.sleep, 0.005)
            await until(lambda: closed)
            await closed[0]
            await asyncio.to_thread(time.sleep, 0.005)

        closed = []
        arguments = {"poll": (sockets[0].fileno(),)}.get(name, ())
        handle = Handle(loop, getattr(lib, f"uv_{name}_init"), *arguments)
        start = {"timer": (function, 1, 0), "poll": (lib.UV_READABLE, function)}
        sockets[1].send(b"x")
        handle.call(getattr(lib, f"uv_{name}_start"), *start.get(name, (function,)))
        loop.run_until_complete(main())
        assert results == [[None, None]]
        loop.run_until_complete(loop.shutdown_default_executor())

    def test_nested_run_of_another_loop(self, loop, run):
        async def main():
            done = loop.create_future()

            def function(_):
                asyncio._set_running_loop(None)
                other = make_loop("uvloop_clone")
                try:
                    with Handle(other, lib.uv_timer_init) as timer:
                        future = other.create_future()
                        timer.call(lib.uv_timer_start, lambda _: future.set_result(3), 1, 0)
                        done.set_result(other.run_until_complete(future))
                finally:
                    other.close()
                    asyncio._set_running_loop(loop)

            with Handle(loop, lib.uv_timer_init) as timer:
                timer.call(lib.uv_timer_start, function, 1, 0)
                assert await done == 3

        run(main())

    def test_two_loops_in_two_threads(self, loop, run):
        def ticks():
            other = make_loop("uvloop_clone")
            count = []
            timer = Handle(other, lib.uv_timer_init)
            timer.call(lib.uv_timer_start, count.append, 1, 1)
            other.run_until_complete(until(lambda: len(count) > 20))
            other.run_until_complete(timer.close())
            other.close()
            return len(count)

        async def main():
            with Handle(loop, lib.uv_timer_init) as timer:
                timer.call(lib.uv_timer_start, lambda _: None, 1, 1)
                assert await asyncio.to_thread(ticks) > 20

        run(main())

    def test_uv_async_from_another_thread(self, loop, run):
        async def main():
            done = loop.create_future()
            wake = Handle(loop, lib.uv_async_init, lambda _: done.set_result(threading.get_ident()))
            in_thread(lib.uv_async_send, wake.ptr)
            assert await done == threading.get_ident()
            await wake.close()

        run(main())

    def test_work_in_the_thread_pool(self, loop, run):
        async def main():
            done = loop.create_future()
            request = ffi.new("uv_work_t *")
            seen = []
            work = callback(loop, "uv_work_cb")(lambda _: seen.append(threading.get_ident()))
            after = callback(loop, "uv_after_work_cb")(lambda _, status: done.set_result(status))
            check(lib.uv_queue_work(loop_ptr(loop), request, work, after))
            assert await done == 0
            assert seen and seen[0] != threading.get_ident()

        run(main())


class TestExceptions:
    def test_go_to_the_exception_handler(self, loop, run, errors):
        def broken(_):
            raise ZeroDivisionError("here")

        async def main():
            with Handle(loop, lib.uv_timer_init) as timer:
                timer.call(lib.uv_timer_start, broken, 0, 0)
                await until(lambda: errors)

        run(main())
        [context] = errors
        assert type(context["exception"]) is ZeroDivisionError
        assert "broken()" in context["message"]
        assert context["exception"].__traceback__ is not None

    def test_result_of_the_wrong_type(self, loop, errors):
        @callback(loop, "int(*)(int)")
        def text(_number):
            return "text"

        assert text(1) == 0
        [context] = errors
        assert type(context["exception"]) is TypeError

    def test_from_the_thread_pool(self, loop, run, errors):
        def broken(_):
            raise KeyError("in a thread")

        async def main():
            request = ffi.new("uv_work_t *")
            done = loop.create_future()
            work = callback(loop, "uv_work_cb")(broken)
            after = callback(loop, "uv_after_work_cb")(lambda _, status: done.set_result(status))
            check(lib.uv_queue_work(loop_ptr(loop), request, work, after))
            await done
            await until(lambda: errors)

        threads = []
        loop.set_exception_handler(
            lambda loop, context: (threads.append(threading.get_ident()), errors.append(context))
        )
        run(main())
        assert type(errors[0]["exception"]) is KeyError
        assert threads == [threading.get_ident()]

    @pytest.mark.parametrize("leaving", [KeyboardInterrupt, SystemExit])
    @pytest.mark.parametrize("name", ["timer", "prepare", "idle"])
    def test_that_end_the_run(self, loop, leaving, name):
        def broken(_):
            handle.close()
            raise leaving("enough")

        awake = loop.call_later(20, lambda: None)
        handle = Handle(loop, getattr(lib, f"uv_{name}_init"))
        arguments = (0, 0) if name == "timer" else ()
        handle.call(getattr(lib, f"uv_{name}_start"), broken, *arguments)
        soon = in_time()
        with pytest.raises(leaving, match="enough"):
            loop.run_forever()
        assert soon()
        awake.cancel()
        loop.run_until_complete(handle.close())

    def test_handler_that_ends_the_run(self, loop, errors):
        def handler(_loop, _context):
            raise SystemExit(3)

        def broken(_):
            raise ValueError

        loop.set_exception_handler(handler)
        with Handle(loop, lib.uv_timer_init) as timer:
            timer.call(lib.uv_timer_start, broken, 0, 0)
            with pytest.raises(SystemExit):
                loop.run_forever()


class TestKinds:
    """Handles that asyncio has nothing like."""

    def test_fs_event(self, loop, run, tmp_path):
        async def main():
            names = []

            def changed(_handle, name, _events, status):
                names.append((ffi.string(name).decode(), status))

            with Handle(loop, lib.uv_fs_event_init) as watcher:
                watcher.call(lib.uv_fs_event_start, changed, os.fsencode(tmp_path), 0)
                (tmp_path / "new").write_text("x")
                await until(lambda: names)
            assert set(names) == {("new", 0)}

        run(main())

    def test_fs_poll(self, loop, run, tmp_path):
        async def main():
            sizes = []
            path = tmp_path / "file"
            path.write_text("x")

            def changed(_handle, status, before, after):
                sizes.append((status, before.st_size, after.st_size))

            with Handle(loop, lib.uv_fs_poll_init) as watcher:
                watcher.call(lib.uv_fs_poll_start, changed, os.fsencode(path), 10)
                await asyncio.sleep(0.05)
                path.write_text("xyz")
                await until(lambda: sizes and sizes[-1][2] == 3)
            assert sizes[0][:2] == (0, 1)
            await watcher.close()

        run(main())

    def test_stat_in_the_thread_pool(self, loop, run, tmp_path):
        async def main():
            done = loop.create_future()
            request = ffi.new("uv_fs_t *")
            after = callback(loop, "uv_fs_cb")(lambda req: done.set_result(req.result))
            check(lib.uv_fs_stat(loop_ptr(loop), request, os.fsencode(tmp_path), after))
            assert await done == 0
            assert request.statbuf.st_ino == os.stat(tmp_path).st_ino
            lib.uv_fs_req_cleanup(request)

        run(main())

    def test_uv_stop_does_no_harm(self, loop, run):
        async def main():
            lib.uv_stop(loop_ptr(loop))
            await asyncio.sleep(0.01)

        run(main())
