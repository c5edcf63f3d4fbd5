"""Stream transports: protocols whose callbacks fail."""

import asyncio
import weakref

import pytest
from serving import port_of, shut
from support import Recorder, attach, read_to_end, run_script, until
from tls_peer import client_context, server_context

pytestmark = pytest.mark.core


class Boom(Exception):
    pass


def failing(method):
    """A Recorder whose `method` raises Boom."""

    class Failing(Recorder):
        pass

    def fail(self, *args):
        raise Boom(method)

    setattr(Failing, method, fail)
    return Failing


def check(context, message, transport, protocol):
    assert context["message"] == message
    assert isinstance(context["exception"], Boom)
    assert context["transport"] is transport
    assert context["protocol"] is protocol


def test_data_received(loop, run, pair, errors):
    a, b = pair()

    async def main():
        transport, protocol = await attach(a, failing("data_received"))
        b.send(b"x")
        exc = await protocol.lost
        assert isinstance(exc, Boom)
        (context,) = errors
        check(context, "Fatal error: protocol.data_received() call failed.", transport, protocol)
        assert transport.is_closing()
        assert await read_to_end(b) == b""

    run(main())


def test_eof_received(loop, run, pair, errors):
    a, b = pair()

    async def main():
        transport, protocol = await attach(a, failing("eof_received"))
        b.shutdown(1)
        exc = await protocol.lost
        assert isinstance(exc, Boom)
        (context,) = errors
        check(context, "Fatal error: protocol.eof_received() call failed.", transport, protocol)

    run(main())


@pytest.mark.parametrize("method", ["data_received", "eof_received"])
def test_what_was_written_before_the_failure_is_sent(loop, run, pair, errors, method):
    a, b = pair()

    class Failing(failing(method)):
        pass

    def write_and_fail(self, *args):
        self.transport.write(b"-ERR ")
        self.transport.write(b"bye")
        raise Boom

    setattr(Failing, method, write_and_fail)

    async def main():
        _, protocol = await attach(a, Failing)
        if method == "data_received":
            b.send(b"x")
        else:
            b.shutdown(1)
        assert await read_to_end(b) == b"-ERR bye"
        assert isinstance(await protocol.lost, Boom)

    run(main())
    assert [type(exc) for exc in errors.exceptions] == [Boom]


def test_what_was_written_before_the_failure_cannot_be_sent(loop, run, pair, errors):
    """The loss that comes first is the one that counts."""
    a, b = pair()

    class Failing(Recorder):
        def data_received(self, data):
            self.transport.get_extra_info("socket").shutdown(1)
            self.transport.write(b"x" * 100_000)
            raise Boom

    async def main():
        _, protocol = await attach(a, Failing)
        b.send(b"x")
        assert isinstance(await protocol.lost, BrokenPipeError)

    run(main())
    assert [type(exc) for exc in errors.exceptions] == [Boom]


def test_connection_lost(loop, run, pair, errors):
    a, b = pair()

    async def main():
        transport, _ = await attach(a, failing("connection_lost"))
        transport.close()
        await until(lambda: errors)
        # the descriptor is closed all the same
        assert await read_to_end(b) == b""
        assert a.fileno() == -1

    run(main())
    assert [type(exc) for exc in errors.exceptions] == [Boom]
    assert len(errors) == 1


def test_connection_made(loop, run, pair, errors):
    """It is reported; the connection stays, as in asyncio, and still works."""
    a, b = pair()

    class Failing(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            raise Boom

    async def main():
        transport, protocol = await attach(a, Failing)
        b.send(b"x")
        await until(lambda: protocol.data)
        transport.close()
        await protocol.lost

    run(main())
    assert [type(exc) for exc in errors.exceptions] == [Boom]


@pytest.mark.parametrize("exception", [SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize("way", ["stream", "pipe"])
def test_connection_made_leaves_the_loop(loop, pair, exception, way):
    """Who runs the loop again finds the connection made."""
    a, b = pair()

    class Leaving(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            raise exception

    async def main():
        if way == "stream":
            transport, protocol = await attach(a, Leaving)
        else:
            transport, protocol = await loop.connect_read_pipe(Leaving, a)
        b.send(b"x")
        await until(lambda: protocol.data == b"x")
        transport.close()
        await protocol.lost

    task = loop.create_task(asyncio.wait_for(main(), 5))
    with pytest.raises(exception):
        loop.run_until_complete(task)
    loop.run_until_complete(task)


@pytest.mark.parametrize("way", ["plain", "tls"])
def test_a_protocol_outlives_its_connection_made(loop, run, way):
    """Though it puts another in its place meanwhile, and nobody else holds it."""
    alive, others = [], []

    class Switching(asyncio.Protocol):
        def connection_made(self, transport):
            others.append(Recorder())
            transport.set_protocol(others[0])
            this = weakref.ref(self)
            del self
            alive.append(this() is not None)

    async def main():
        contexts = (None, None) if way == "plain" else (server_context(), client_context())
        server = await loop.create_server(Switching, "127.0.0.1", 0, ssl=contexts[0])
        transport, protocol = await loop.create_connection(
            Recorder, "127.0.0.1", port_of(server), ssl=contexts[1]
        )
        await until(lambda: alive)
        transport.abort()
        await protocol.lost
        await others[0].lost
        await shut(server)

    run(main())
    assert alive == [True]


@pytest.mark.parametrize("exception", [SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize("method", ["data_received", "eof_received"])
def test_exits_leave_the_loop(loop, pair, method, exception):
    a, b = pair()
    made = []

    class Leaving(Recorder):
        pass

    def leave(self, *args):
        raise exception("out")

    setattr(Leaving, method, leave)

    async def main():
        made.extend(await attach(a, Leaving))

    loop.run_until_complete(main())
    if method == "data_received":
        b.send(b"x")
    else:
        b.shutdown(1)
    guard = loop.call_later(20, loop.stop)
    with pytest.raises(exception, match="out"):
        loop.run_forever()
    guard.cancel()
    transport, protocol = made

    async def end():
        transport.abort()
        await asyncio.wait_for(protocol.lost, 10)

    loop.run_until_complete(end())


@pytest.mark.parametrize("method", ["connection_made", "connection_lost"])
def test_exits_from_scheduled_callbacks_leave_the_loop(loop, pair, method):
    a, _b = pair()
    made = []

    class Leaving(Recorder):
        pass

    def leave(self, *args):
        setattr(Leaving, method, getattr(Recorder, method))
        self.transport = None
        raise SystemExit("out")

    setattr(Leaving, method, leave)

    async def main():
        transport, _protocol = await loop.create_connection(Leaving, sock=a)
        made.append(transport)
        transport.close()
        await asyncio.sleep(0.05)

    with pytest.raises(SystemExit, match="out"):
        loop.run_until_complete(main())
    for task in asyncio.all_tasks(loop):
        task.cancel()
    loop.run_until_complete(asyncio.sleep(0.02))
    for transport in made:
        transport.abort()
    made.clear()
    loop.run_until_complete(asyncio.sleep(0.02))
    a.close()


def test_a_protocol_without_the_methods(loop, run, pair, errors):
    a, b = pair()

    class Bare:
        def connection_made(self, transport):
            self.transport = transport

        def connection_lost(self, exc):
            self.lost.set_result(exc)

    async def main():
        _, protocol = await attach(a, Bare)
        protocol.lost = loop.create_future()
        b.send(b"x")
        exc = await protocol.lost
        assert isinstance(exc, AttributeError)

    run(main())
    assert errors.messages == ["Fatal error: protocol.data_received() call failed."]


def test_a_factory_that_fails(loop, run, pair):
    a, _b = pair()

    def factory():
        raise Boom

    with pytest.raises(Boom):
        run(attach(a, factory))
    a.close()


def test_other_connections_are_not_disturbed(loop, run, pair, errors):
    a, b = pair()
    c, d = pair()

    async def main():
        _, bad = await attach(a, failing("data_received"))
        transport, good = await attach(c)
        b.send(b"x")
        d.send(b"good")
        await bad.lost
        await until(lambda: bytes(good.data) == b"good")
        transport.close()
        await good.lost

    run(main())
    assert len(errors) == 1


def test_failing_while_data_is_pending(loop, run, pair, errors):
    """A failure is as abort(): what was not sent is dropped."""
    a, b = pair()

    class Failing(Recorder):
        def data_received(self, data):
            self.transport.write(b"y" * (1 << 24))
            raise Boom

    async def main():
        transport, protocol = await attach(a, Failing)
        b.send(b"x")
        assert isinstance(await protocol.lost, Boom)
        assert transport.get_write_buffer_size() == 0

    run(main())
    assert len(errors) == 1


@pytest.mark.only("uvloop_clone")
def test_no_memory_for_what_the_kernel_does_not_take(kind):
    """Whichever allocation fails, the connection is lost and nothing else is."""
    pytest.importorskip("_testcapi")
    result = run_script(
        kind,
        """
        import _testcapi, socket

        async def main():
            loop = asyncio.get_running_loop()
            reports = []
            loop.set_exception_handler(lambda loop, context: reports.append(context))
            for n in range(1, 8):
                a, b = socket.socketpair()
                a.setblocking(False)
                transport, _ = await loop.create_unix_connection(asyncio.Protocol, sock=a)
                data = b"x" * 4_000_000
                _testcapi.set_nomemory(n, n + 1)
                try:
                    transport.write(data)
                except MemoryError:
                    pass
                finally:
                    _testcapi.remove_mem_hooks()
                transport.abort()
                b.close()
                await asyncio.sleep(0)

        loop = make_loop(KIND)
        loop.run_until_complete(main())
        loop.close()
        print("done")
        """,
        env={"PYTHONMALLOC": "debug"},
    )
    assert result.stdout == "done\n", result.stderr
