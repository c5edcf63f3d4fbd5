"""Stream transports: close, abort, connection_lost, and what follows."""

import asyncio
import contextlib
import gc
import socket
import warnings
import weakref

import pytest
from support import Recorder, attach, open_fds, read_to_end, until

pytestmark = pytest.mark.core

LARGE = bytes(range(256)) * 4096 * 8


def test_close(loop, run, pair):
    a, b = pair()

    async def main():
        transport, protocol = await attach(a)
        assert transport.is_closing() is False
        assert transport.close() is None
        assert transport.is_closing() is True
        # the protocol is told later, never from within close()
        assert protocol.events == ["made"]
        assert await protocol.lost is None
        assert protocol.events == ["made", "lost"]
        assert await read_to_end(b) == b""

    run(main())


def test_close_twice(loop, run, pair):
    a, _b = pair()

    async def main():
        transport, protocol = await attach(a)
        transport.close()
        transport.close()
        await protocol.lost
        transport.close()
        transport.abort()
        await asyncio.sleep(0.01)
        assert protocol.events == ["made", "lost"]

    run(main())


def test_close_sends_all_that_was_written(loop, run, pair):
    a, b = pair()

    async def main():
        transport, protocol = await attach(a)
        transport.write(b"first")
        transport.write(LARGE)
        transport.close()
        await asyncio.sleep(0.02)
        assert protocol.events[-1] == "pause"
        assert await read_to_end(b) == b"first" + LARGE
        assert await protocol.lost is None

    run(main())


def test_no_data_is_received_after_close(loop, run, pair):
    a, b = pair()

    async def main():
        transport, protocol = await attach(a)
        transport.write(LARGE)
        transport.close()
        await loop.sock_sendall(b, b"too late")
        await asyncio.sleep(0.02)
        assert "data" not in protocol.events
        transport.abort()
        await protocol.lost
        assert "data" not in protocol.events

    run(main())


def test_abort(loop, run, pair):
    a, b = pair()

    async def main():
        transport, protocol = await attach(a)
        transport.write(LARGE)
        assert transport.abort() is None
        assert transport.is_closing() is True
        assert transport.get_write_buffer_size() == 0
        assert "lost" not in protocol.events
        assert await protocol.lost is None
        received = bytearray()
        try:
            while chunk := await loop.sock_recv(b, 1 << 20):
                received += chunk
        except ConnectionResetError:
            received.clear()
        assert len(received) < len(LARGE)

    run(main())


def test_abort_sends_what_the_kernel_takes(loop, run, pair):
    """All of it was tried at write(), as far as anybody can see."""
    a, b = pair()
    data = bytes(1_000_000)
    taken = pair()[0].send(data)
    if taken < 400_000:
        pytest.skip("the kernel takes less than a stream sends in a turn")

    async def main():
        transport, protocol = await attach(a)
        transport.write(data)
        transport.abort()
        assert len(await read_to_end(b)) > taken / 2
        assert await protocol.lost is None

    run(main())


def test_abort_after_close_gives_up_the_data(loop, run, pair):
    a, _b = pair()

    async def main():
        transport, protocol = await attach(a)
        transport.write(LARGE)
        transport.close()
        await asyncio.sleep(0.01)
        assert not protocol.lost.done()
        transport.abort()
        assert await protocol.lost is None

    run(main())


@pytest.mark.parametrize("method", ["close", "abort"])
def test_closed_in_connection_made(loop, run, pair, method):
    a, b = pair()

    class Protocol(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            getattr(transport, method)()

    async def main():
        _, protocol = await attach(a, Protocol)
        assert await protocol.lost is None
        assert protocol.events == ["made", "lost"]
        assert await read_to_end(b) == b""

    run(main())


def test_the_peer_resets_while_data_is_pending(loop, run, pair):
    a, b = pair()
    b.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    async def main():
        transport, protocol = await attach(a)
        transport.write(LARGE)
        await asyncio.sleep(0.01)
        b.close()
        exc = await protocol.lost
        assert isinstance(exc, (ConnectionResetError, BrokenPipeError))
        assert transport.is_closing()

    run(main())


def test_ordinary_connection_errors_are_not_reported(loop, run, pair, errors):
    """A reset ends the connection; it is no matter for the exception handler."""
    a, b = pair()
    b.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    async def main():
        _, protocol = await attach(a)
        b.close()
        await protocol.lost

    run(main())
    assert errors == []


def test_everything_is_refused_or_ignored_after_the_end(loop, run, pair):
    a, _b = pair()

    async def main():
        transport, protocol = await attach(a)
        transport.close()
        await protocol.lost
        await asyncio.sleep(0)
        assert transport.is_closing()
        assert transport.is_reading() is False
        assert transport.get_write_buffer_size() == 0
        assert transport.can_write_eof() is True
        transport.pause_reading()
        transport.resume_reading()
        transport.write_eof()
        transport.set_write_buffer_limits(10, 5)
        assert protocol.events == ["made", "lost"]

    run(main())


def test_the_descriptor_is_closed(loop, run, pair):
    a, _b = pair()

    async def main():
        transport, protocol = await attach(a)
        assert a.fileno() >= 0
        transport.close()
        await protocol.lost
        await asyncio.sleep(0)
        assert a.fileno() == -1
        assert transport.get_extra_info("socket").fileno() == -1

    run(main())


def test_transport_and_protocol_are_freed(loop, run, pair):
    a, _b = pair()

    async def main():
        transport, protocol = await attach(a)
        refs = weakref.ref(transport), weakref.ref(protocol)
        lost = protocol.lost
        transport.close()
        protocol.transport = None
        protocol.made = None
        del transport, protocol
        await lost
        del lost
        await asyncio.sleep(0.02)  # a loop may put off the poll that ends the close
        gc.collect()
        assert [ref() for ref in refs] == [None, None]

    run(main())


def test_an_unclosed_transport_warns_when_its_loop_is_gone(new_loop, pair):
    a, _b = pair()
    loop = new_loop()

    async def main():
        await attach(a, asyncio.Protocol)

    loop.run_until_complete(main())
    loop.call_soon(loop.stop)
    loop.run_forever()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loop.close()
        del loop
        gc.collect()
    texts = [str(w.message) for w in caught if w.category is ResourceWarning]
    assert any("unclosed transport" in text for text in texts), texts


def test_close_of_the_loop_with_open_transports(new_loop, pair):
    """No crash, and no descriptor is left behind."""
    a, b = pair()
    b.close()
    before = open_fds()
    loop = new_loop()
    kept = []

    async def main():
        transport, _protocol = await attach(a, asyncio.Protocol)
        transport.write(b"pending")
        kept.append(transport)

    loop.run_until_complete(main())
    loop.close()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kept.clear()
        del loop
        gc.collect()
        a.close()
    assert open_fds() <= before


def test_close_of_a_transport_after_its_loop(new_loop, pair):
    """The transport's methods do no harm once the loop is closed."""
    a, _b = pair()
    loop = new_loop()

    async def main():
        return await attach(a, asyncio.Protocol)

    transport, _ = loop.run_until_complete(main())
    loop.close()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for method in (transport.close, transport.abort):
            try:
                method()
            except RuntimeError as exc:
                assert "closed" in str(exc)
        del transport
        gc.collect()


def test_abort_from_another_callback_of_the_same_turn(loop, run, pair):
    """Data is on its way to a transport that somebody aborts first."""
    a, b = pair()
    c, d = pair()

    class Killer(Recorder):
        victim = None

        def data_received(self, data):
            super().data_received(data)
            self.victim.abort()

    async def main():
        first, one = await attach(a, Killer)
        second, two = await attach(c, Killer)
        one.victim, two.victim = second, first
        b.send(b"x")
        d.send(b"x")
        await until(lambda: one.data or two.data)
        await asyncio.sleep(0.02)
        # asyncio may have read both before; each is lost at most once, one surely
        assert one.events.count("lost") + two.events.count("lost") >= 1
        first.abort()
        second.abort()
        await one.lost
        await two.lost
        assert one.events.count("lost") == two.events.count("lost") == 1

    run(main())


def test_close_while_reading_is_paused(loop, run, pair):
    a, b = pair()

    async def main():
        transport, protocol = await attach(a)
        transport.pause_reading()
        transport.write(b"bye")
        transport.close()
        assert await read_to_end(b) == b"bye"
        assert await protocol.lost is None

    run(main())


def test_stream_writer_wait_closed(loop, run, pair):
    a, b = pair()

    async def main():
        _, writer = await asyncio.open_connection(sock=a)
        writer.write(b"bye")
        writer.close()
        await writer.wait_closed()
        assert await read_to_end(b) == b"bye"

    run(main())


# ---- forgotten half open -----------------------------------------------------------------
# After the peer's end, a protocol may keep its transport open. The loop then waits for nothing
# and does not hold the two: where nobody else does, the garbage collector closes the connection.


class HalfOpen(asyncio.Protocol):
    def eof_received(self):
        return True


@contextlib.contextmanager
def unclosed():
    """A list that in the end holds the warnings about unclosed transports and writers."""
    found = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        yield found
    kinds = "unclosed transport", "unclosed <StreamWriter"
    found += [text for w in caught if (text := str(w.message)).startswith(kinds)]


async def collecting_until(condition):
    def holds():
        gc.collect()
        return condition()

    await until(holds)


def test_forgotten_by_a_handler(loop, run):
    async def handle(reader, writer):
        writer.write(await reader.read())

    async def main():
        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        for i in range(10):
            with socket.create_connection(address) as client:
                client.setblocking(False)
                client.send(b"x")
                client.shutdown(socket.SHUT_WR)
                assert await loop.sock_recv(client, 10) == b"x"
            if i == 0:  # the first one makes our loop open what it keeps in reserve
                before = open_fds()
        await collecting_until(lambda: open_fds() <= before)
        server.close()

    with unclosed() as texts:
        run(main())
    assert len(texts) >= 10  # a writer may warn and close, too: whichever is collected first


def test_forgotten_by_its_protocol(loop, run, pair):
    a, b = pair()

    async def main():
        await attach(a, HalfOpen)
        b.shutdown(socket.SHUT_WR)
        await collecting_until(lambda: a.fileno() == -1)
        assert await read_to_end(b) == b""

    with unclosed() as texts:
        run(main())
    assert len(texts) == 1


def test_forgotten_while_paused(loop, run, pair):
    a, b = pair()

    async def main():
        transport, _ = await attach(a, asyncio.Protocol)
        transport.write(b"last words")
        transport.pause_reading()
        del transport, _
        await collecting_until(lambda: a.fileno() == -1)
        assert await read_to_end(b) == b"last words"

    with unclosed() as texts:
        run(main())
    assert len(texts) == 1


def test_resumed_nobody_else_needs_to_hold_it(loop, run, pair):
    a, b = pair()

    async def main():
        protocol = (await attach(a, Recorder))[1]
        protocol.transport.pause_reading()
        protocol.transport.resume_reading()
        ref = weakref.ref(protocol)
        del protocol
        gc.collect()
        await asyncio.sleep(0.01)
        gc.collect()
        b.send(b"x")
        await until(lambda: ref().data == b"x")
        ref().transport.close()
        await ref().lost

    run(main())


def test_collecting_in_its_own_calls(loop, run, pair):
    a, b = pair()

    class Collecting(HalfOpen):
        def connection_made(self, transport):
            gc.collect()

        def data_received(self, data):
            gc.collect()

        def eof_received(self):
            gc.collect()
            return True

    async def main():
        await attach(a, Collecting)
        b.send(b"data")
        b.shutdown(socket.SHUT_WR)
        await collecting_until(lambda: a.fileno() == -1)

    with unclosed() as texts:
        run(main())
    assert len(texts) == 1


def test_forgotten_with_data_to_send(loop, run, pair):
    """All of it is sent; then nothing holds the transport."""
    a, b = pair()

    class Answering(HalfOpen):
        def connection_made(self, transport):
            self.transport = transport

        def eof_received(self):
            self.transport.write(LARGE)
            return True

    async def main():
        await attach(a, Answering)
        b.shutdown(socket.SHUT_WR)
        reading = loop.create_task(read_to_end(b))
        await collecting_until(reading.done)
        assert reading.result() == LARGE

    with unclosed() as texts:
        run(main())
    assert len(texts) == 1


@pytest.mark.parametrize("held", ["transport", "protocol"])
def test_held_half_open(loop, run, pair, held):
    """Whoever holds either end of it can still write, and close."""
    a, b = pair()

    async def main():
        transport, protocol = await attach(a, lambda: Recorder(keep_open=True))
        b.shutdown(socket.SHUT_WR)
        await until(lambda: "eof" in protocol.events)
        protocol.made = None  # its result is the transport
        if held == "transport":
            protocol = None
        else:
            transport = None
        for _ in range(3):
            gc.collect()
            await asyncio.sleep(0.001)
        transport = transport or protocol.transport
        assert not transport.is_closing()
        transport.write(b"still here")
        assert await loop.sock_recv(b, 100) == b"still here"
        lost = transport.get_protocol().lost
        transport.close()
        assert await lost is None

    with unclosed() as texts:
        run(main())
    assert texts == []


def test_held_by_its_writer(loop, run, pair):
    a, b = pair()

    async def main():
        reader, writer = await asyncio.open_connection(sock=a)
        b.shutdown(socket.SHUT_WR)
        assert await reader.read() == b""
        del reader
        for _ in range(3):
            gc.collect()
            await asyncio.sleep(0.001)
        writer.write(b"still here")
        assert await loop.sock_recv(b, 100) == b"still here"
        writer.close()
        await writer.wait_closed()

    with unclosed() as texts:
        run(main())
    assert texts == []


def test_held_by_a_handler_that_goes_on(loop, run):
    async def main():
        ended, answer = asyncio.Event(), asyncio.Event()

        async def handle(reader, writer):
            await reader.read()
            ended.set()
            await answer.wait()
            writer.write(b"late")
            writer.close()

        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        with socket.create_connection(server.sockets[0].getsockname()) as client:
            client.setblocking(False)
            client.shutdown(socket.SHUT_WR)
            await ended.wait()
            for _ in range(3):
                gc.collect()
                await asyncio.sleep(0.001)
            answer.set()
            assert await read_to_end(client) == b"late"
        server.close()
        await server.wait_closed()

    with unclosed() as texts:
        run(main())
    assert texts == []
