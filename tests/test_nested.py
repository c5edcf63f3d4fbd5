"""Entering a loop that runs already: refused by default, possible when nesting is allowed."""

import asyncio
import contextvars
import os

import pytest
from support import BufferedRecorder, Recorder, attach, read_exactly, run_script, until

pytestmark = [pytest.mark.core, pytest.mark.only("uvloop_clone")]

var = contextvars.ContextVar("var", default="unset")


@pytest.fixture
def nesting(loop):
    """The loop, allowed to be entered again."""
    loop.allow_nested()
    return loop


async def inner(value):
    await asyncio.sleep(0.001)
    return value


@pytest.mark.only("asyncio", "uvloop_clone")
def test_refused_by_default(loop, run):
    async def main():
        coro = inner(1)
        with pytest.raises(RuntimeError, match="This event loop is already running"):
            loop.run_until_complete(coro)
        coro.close()

    run(main())


def test_nest_asyncio_accepts_our_loop(kind):
    """In a process of its own, as apply() patches asyncio for good."""
    pytest.importorskip("nest_asyncio", reason="optional: nest_asyncio")
    result = run_script(
        kind,
        """
        import nest_asyncio
        loop = make_loop(KIND)
        asyncio.set_event_loop(loop)
        methods = {n: getattr(type(loop), n) for n in ("run_forever", "run_until_complete")}
        nest_asyncio.apply(loop)
        nest_asyncio.apply(loop)
        assert all(getattr(type(loop), n) is m for n, m in methods.items())

        async def inner(x):
            await asyncio.sleep(0.001)
            return x

        async def main():
            first = loop.run_until_complete(inner(1))
            second = asyncio.get_event_loop().run_until_complete(inner(2))
            third = await inner(3)
            return first + second + third

        print(loop.run_until_complete(main()))
        loop.close()
        """,
    )
    assert (result.returncode, result.stdout.strip(), result.stderr) == (0, "6", "")


def test_nested_result(nesting, run):
    async def main():
        return nesting.run_until_complete(inner(1)) + await inner(2)

    assert run(main()) == 3


def test_nested_exception(nesting, run):
    async def fail():
        await asyncio.sleep(0)
        raise KeyError("x")

    async def main():
        with pytest.raises(KeyError):
            nesting.run_until_complete(fail())
        return await inner("goes on")

    assert run(main()) == "goes on"


def test_three_deep(nesting, run):
    async def level(n):
        await asyncio.sleep(0)
        if n:
            return 1 + nesting.run_until_complete(level(n - 1))
        return 0

    assert run(level(10)) == 10


def test_current_task_and_running_loop_are_put_back(nesting, run):
    async def main():
        me = asyncio.current_task()

        async def look():
            assert asyncio.current_task() is not me
            assert asyncio.get_running_loop() is nesting
            await asyncio.sleep(0)
            return asyncio.current_task()

        other = nesting.run_until_complete(look())
        assert other is not me and other.done()
        assert asyncio.current_task() is me
        assert asyncio.get_running_loop() is nesting
        assert nesting.is_running()
        await asyncio.sleep(0)
        assert asyncio.current_task() is me

    run(main())
    assert not nesting.is_running()
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()


def test_contexts_are_put_back(nesting, run):
    async def change():
        assert var.get() == "outer"
        var.set("inner")
        await asyncio.sleep(0)
        return var.get()

    async def main():
        var.set("outer")
        assert nesting.run_until_complete(change()) == "inner"
        assert var.get() == "outer"
        await asyncio.sleep(0)
        assert var.get() == "outer"

    run(main())
    assert var.get() == "unset"


def test_the_inner_run_does_not_end_the_outer_one(nesting, run):
    seen = []

    async def main():
        nesting.run_until_complete(inner(1))
        for i in range(3):
            await asyncio.sleep(0.001)
            seen.append(i)

    run(main())
    assert seen == [0, 1, 2]


def test_other_tasks_go_on_meanwhile(nesting, run):
    seen = []

    async def ticker():
        while True:
            seen.append(asyncio.get_running_loop())
            await asyncio.sleep(0.002)

    async def main():
        ticks = asyncio.ensure_future(ticker())
        await asyncio.sleep(0)
        before = len(seen)
        nesting.run_until_complete(asyncio.sleep(0.05))
        during = len(seen) - before
        ticks.cancel()
        assert during >= 3

    run(main())
    assert set(seen) == {nesting}


def test_what_the_outer_turn_had_queued_still_runs_once(nesting, run):
    seen = []

    def enter():
        seen.append("enter")
        nesting.run_until_complete(inner(1))
        seen.append("leave")

    async def main():
        nesting.call_soon(enter)
        for i in range(5):
            nesting.call_soon(seen.append, i)
        await asyncio.sleep(0.02)

    run(main())
    assert sorted(map(str, seen)) == sorted(["enter", "leave", "0", "1", "2", "3", "4"])
    assert seen.index("enter") < seen.index("leave")
    assert [x for x in seen if isinstance(x, int)] == [0, 1, 2, 3, 4]


def test_from_plain_callbacks_and_timers(nesting, run):
    async def main():
        results = []
        done = nesting.create_future()

        def callback(value):
            results.append(nesting.run_until_complete(inner(value)))
            if len(results) == 2:
                done.set_result(None)

        nesting.call_soon(callback, 1)
        nesting.call_later(0.001, callback, 2)
        await done
        return sorted(results)

    assert run(main()) == [1, 2]


def test_exit_from_the_inner_run(nesting):
    def leave():
        raise SystemExit(3)

    async def main():
        nesting.call_soon(leave)
        sleep = nesting.create_task(asyncio.sleep(0.01, "slept"))
        try:
            nesting.run_until_complete(sleep)
        except SystemExit:
            assert asyncio.get_running_loop() is nesting
            assert nesting.is_running()
            assert await sleep == "slept"
            return "caught"

    assert nesting.run_until_complete(main()) == "caught"


def test_stop_in_the_inner_run_ends_the_inner_run(nesting, run):
    async def main():
        nesting.call_soon(nesting.stop)
        with pytest.raises(RuntimeError, match="stopped before Future completed"):
            nesting.run_until_complete(nesting.create_future())
        return await inner("outer goes on")

    assert run(main()) == "outer goes on"


def test_inside_protocol_callbacks(nesting, run, pair):
    """The inner run moves data of the very transport whose callback it was entered from."""
    a, b = pair()

    class Nesting(Recorder):
        def data_received(self, data):
            super().data_received(data)
            if data == b"first":
                nesting.run_until_complete(self.converse())

        async def converse(self):
            self.transport.write(b"reply")
            assert await read_exactly(b, 5) == b"reply"
            await nesting.sock_sendall(b, b"second")
            for _ in range(2000):
                if b"second" in self.data:
                    return
                await asyncio.sleep(0.001)
            raise AssertionError("the inner run saw no data")

    async def main():
        transport, protocol = await attach(a, Nesting)
        await nesting.sock_sendall(b, b"first")
        for _ in range(2000):
            if bytes(protocol.data) == b"firstsecond":
                break
            await asyncio.sleep(0.001)
        assert bytes(protocol.data) == b"firstsecond"
        transport.write(b"bye")
        assert await read_exactly(b, 3) == b"bye"
        transport.close()
        assert await protocol.lost is None

    run(main())


def test_close_inside_a_nested_protocol_callback(nesting, run, pair):
    a, b = pair()

    class Closing(Recorder):
        def data_received(self, data):
            super().data_received(data)
            self.transport.abort()
            nesting.run_until_complete(asyncio.sleep(0.01))
            self.events.append("after")

    async def main():
        _transport, protocol = await attach(a, Closing)
        await nesting.sock_sendall(b, b"x")
        await protocol.lost
        await until(lambda: "after" in protocol.events)
        assert protocol.events == ["made", "data", "lost", "after"]

    run(main())


def test_the_loop_is_not_closed_by_the_inner_run(nesting, run):
    async def main():
        nesting.run_until_complete(inner(1))
        with pytest.raises(RuntimeError, match="Cannot close a running event loop"):
            nesting.close()

    run(main())


def test_a_server_closed_in_a_nested_run_of_its_protocol_factory(kind):
    """The accepting that called the factory goes on with what was the listener."""
    result = run_script(
        kind,
        """
        import socket
        loop = make_loop(KIND)
        loop.allow_nested()
        made = []

        class Protocol(asyncio.Protocol):
            def connection_made(self, transport):
                made.append(transport)

        async def main():
            async def close():
                server.close()
                await asyncio.sleep(0.01)

            def factory():
                loop.run_until_complete(close())
                return Protocol()

            server = await loop.create_server(factory, "127.0.0.1", 0)
            address = server.sockets[0].getsockname()
            clients = [socket.create_connection(address) for _ in range(2)]
            while server.is_serving():
                await asyncio.sleep(0.001)
            await asyncio.sleep(0.01)
            for client in clients:
                client.close()
            await asyncio.sleep(0.01)

        loop.run_until_complete(asyncio.wait_for(main(), 30))
        loop.close()
        print("closed", made)
        """,
        env={"PYTHONMALLOC": os.environ.get("PYTHONMALLOC", "debug")},  # a sanitizer's is its own
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "closed []\n", "")


@pytest.mark.parametrize("what", ["abort", "close", "pause_reading", "read", "end"])
@pytest.mark.parametrize("when", ["before", "behind"])
def test_a_loop_run_by_get_buffer(nesting, run, errors, pair, what, when):
    """libuv has found the stream readable and is about to read it; the inner run reads it first."""
    a, b = pair()

    class Protocol(BufferedRecorder):
        def get_buffer(self, sizehint):
            super().get_buffer(sizehint)
            if len(self.hints) == 1:
                nesting.run_until_complete(self.act())
            self.buffer = bytearray(100)
            return self.buffer

        async def act(self):
            if when == "before":
                self.do()
            await asyncio.sleep(0.002)
            if when == "behind":
                self.do()
            await asyncio.sleep(0.002)

        def do(self):
            if what == "end":
                b.shutdown(1)
            elif what != "read":
                getattr(self.transport, what)()

    async def main():
        transport, protocol = await attach(a, Protocol)
        b.send(b"hello")
        await until(lambda: protocol.hints)
        await asyncio.sleep(0.01)
        if what == "pause_reading":
            transport.resume_reading()
        if what in ("read", "pause_reading"):
            b.send(b"more")
            await until(lambda: protocol.data.endswith(b"more"))
            assert protocol.data == b"hellomore"
            transport.close()
        await protocol.lost
        assert protocol.data.startswith(b"hello") or what in ("abort", "close")

    run(main())
    assert not errors


# A callback that runs many times runs again within a nested run, which ends its watch; what the
# outer call still uses must be there. In processes of their own, with freed memory made visible.

RUN_AGAIN = {
    "reader": """
        class Reader:
            calls = 0

            def read(self, *args):
                a.recv(1)
                self.calls += 1
                if self.calls == 1:
                    b.send(b"y")
                    loop.run_until_complete(asyncio.sleep(0.02))
                    del args
                    loop.remove_reader(a)
                    assert all(ref() is not None for ref in refs), "freed below us"

        class Argument:
            pass

        a, b = socket.socketpair()
        a.setblocking(False)
        reader, args = Reader(), [Argument() for _ in range(5)]
        refs = [weakref.ref(arg) for arg in args]
        loop.add_reader(a, reader.read, *args)
        del args
        b.send(b"x")
        loop.run_until_complete(asyncio.sleep(0.05))
        print(reader.calls, [ref() for ref in refs])
        a.close()
        b.close()
        """,
    "datagrams": """
        class Protocol(KeepsTransport, asyncio.DatagramProtocol):
            def datagram_received(self, data, address):
                if data == b"1":
                    loop.run_until_complete(asyncio.sleep(0.02))
                    gc.collect()
                    assert transport_ref() is not None, "freed below us"
                else:
                    self.transport.close()

        async def main():
            global transport_ref
            transport, _ = await loop.create_datagram_endpoint(
                Protocol, local_addr=("127.0.0.1", 0)
            )
            transport_ref = weakref.ref(transport)
            address = transport.get_extra_info("sockname")
            del transport, _
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.sendto(b"1", address)
                loop.call_later(0.01, sock.sendto, b"2", address)
                await asyncio.sleep(0.05)
            gc.collect()
            print(transport_ref())

        loop.run_until_complete(main())
        """,
    "pipe": """
        class Protocol(KeepsTransport, asyncio.Protocol):
            calls = 0

            def data_received(self, data):
                self.calls += 1
                if self.calls == 1:
                    loop.run_until_complete(asyncio.sleep(0.02))
                    gc.collect()
                    assert transport_ref() is not None, "freed below us"
                else:
                    self.transport.close()

        async def main():
            global transport_ref
            reader, writer = os.pipe()
            transport, _ = await loop.connect_read_pipe(Protocol, os.fdopen(reader, "rb", 0))
            transport_ref = weakref.ref(transport)
            del transport, _
            os.write(writer, b"1")
            loop.call_later(0.01, os.write, writer, b"2")
            await asyncio.sleep(0.05)
            os.close(writer)
            gc.collect()
            print(transport_ref())

        loop.run_until_complete(main())
        """,
}


@pytest.mark.parametrize("what", RUN_AGAIN)
def test_a_callback_that_runs_again_and_ends_its_watch(kind, what):
    result = run_script(
        kind,
        """
        import gc, os, socket, weakref
        loop = make_loop(KIND)
        loop.allow_nested()

        class KeepsTransport:
            def connection_made(self, transport):
                self.transport = transport

            def connection_lost(self, exc):
                self.transport = None

        """
        + RUN_AGAIN[what]
        + """
        loop.close()
        """,
        env={"PYTHONMALLOC": os.environ.get("PYTHONMALLOC", "debug")},
    )
    expected = "2 [None, None, None, None, None]\n" if what == "reader" else "None\n"
    assert (result.returncode, result.stdout, result.stderr) == (0, expected, "")
