"""Stream transports: data_received, pause_reading, the end of the stream."""

import asyncio
import gc
import os
import select
import socket
import sys

import pytest
from support import PAUSES_ANYWHERE, Recorder, attach, read_exactly, read_to_end, until

pytestmark = pytest.mark.core

LARGE = bytes(range(256)) * 4096 * 8


def test_data_arrives(loop, run, pair):
    a, b = pair()

    async def main():
        transport, protocol = await attach(a)
        assert protocol.events == ["made"]
        await loop.sock_sendall(b, b"one")
        await until(lambda: bytes(protocol.data) == b"one")
        await loop.sock_sendall(b, b"two")
        await until(lambda: bytes(protocol.data) == b"onetwo")
        transport.close()
        assert await protocol.lost is None

    run(main())


@pytest.mark.parametrize("size", [1, 100, 65535, 65536, 65537, 1 << 20, len(LARGE)])
def test_data_of_any_size(loop, run, pair, size):
    a, b = pair()

    async def main():
        transport, protocol = await attach(a)
        await loop.sock_sendall(b, LARGE[:size])
        await until(lambda: len(protocol.data) == size)
        assert protocol.data == LARGE[:size]
        transport.abort()
        await protocol.lost

    run(main())


def test_received_bytes_stay_as_they_are(loop, run, pair):
    """Each data_received gets an object of its own, kept or not."""
    a, b = pair()
    chunks = []

    class Keep(Recorder):
        def data_received(self, data):
            chunks.append(data)

    async def main():
        transport, protocol = await attach(a, Keep)
        for i in range(50):
            await loop.sock_sendall(b, b"%04d" % i)
            await until(lambda i=i: sum(map(len, chunks)) == 4 * (i + 1))
        transport.abort()
        await protocol.lost

    run(main())
    assert b"".join(chunks) == b"".join(b"%04d" % i for i in range(50))


def test_data_sent_before_the_transport_existed(loop, run, pair):
    a, b = pair()
    b.send(b"early")
    b.close()

    async def main():
        _, protocol = await attach(a)
        await protocol.lost
        assert bytes(protocol.data) == b"early"
        assert protocol.events == ["made", "data", "eof", "lost"]

    run(main())


def test_connection_made_comes_before_the_result(loop, run, pair):
    a, b = pair()
    b.send(b"data")

    async def main():
        transport, protocol = await attach(a)
        assert protocol.events[0] == "made"
        assert protocol.transport is transport
        assert transport.get_protocol() is protocol
        transport.abort()
        await protocol.lost
        assert protocol.events[-1] == "lost" and protocol.events.count("lost") == 1

    run(main())


def test_eof_closes_the_connection_by_default(loop, run, pair):
    a, b = pair()

    async def main():
        transport, protocol = await attach(a)
        b.close()
        assert await protocol.lost is None
        assert protocol.events == ["made", "eof", "lost"]
        assert transport.is_closing()

    run(main())


@pytest.mark.parametrize("value", [None, False, 0, ""])
def test_eof_received_false(loop, run, pair, value):
    a, b = pair()

    async def main():
        _, protocol = await attach(a, lambda: Recorder(keep_open=value))
        b.shutdown(1)
        assert await protocol.lost is None
        assert await read_to_end(b) == b""

    run(main())


@pytest.mark.parametrize("value", [True, 1, "yes"])
def test_eof_received_true_keeps_the_writing_half(loop, run, pair, value):
    a, b = pair()

    async def main():
        transport, protocol = await attach(a, lambda: Recorder(keep_open=value))
        b.shutdown(1)
        await until(lambda: "eof" in protocol.events)
        await asyncio.sleep(0.02)
        assert not transport.is_closing()
        assert protocol.events == ["made", "eof"]
        transport.write(LARGE)
        assert await read_exactly(b, len(LARGE)) == LARGE
        transport.close()
        assert await protocol.lost is None
        assert await read_to_end(b) == b""

    run(main())


def test_pause_and_resume_reading(loop, run, pair):
    a, b = pair()

    async def main():
        transport, protocol = await attach(a)
        assert transport.is_reading() is True
        assert transport.pause_reading() is None
        assert transport.is_reading() is False
        transport.pause_reading()  # again is harmless
        await loop.sock_sendall(b, b"later")
        await asyncio.sleep(0.03)
        assert protocol.events == ["made"]
        assert transport.resume_reading() is None
        transport.resume_reading()
        assert transport.is_reading() is True
        await until(lambda: bytes(protocol.data) == b"later")
        transport.close()
        assert transport.is_reading() is False
        await protocol.lost

    run(main())


def test_pausing_stops_the_sender(loop, run, pair):
    a, b = pair()

    async def main():
        transport, protocol = await attach(a)
        transport.pause_reading()
        sending = loop.create_task(loop.sock_sendall(b, LARGE))
        await asyncio.sleep(0.05)
        assert not sending.done()
        transport.resume_reading()
        await sending
        await until(lambda: len(protocol.data) == len(LARGE))
        assert protocol.data == LARGE
        transport.abort()
        await protocol.lost

    run(main())


def test_paused_in_connection_made(loop, run, pair, kind):
    if kind == "asyncio" and not PAUSES_ANYWHERE:
        pytest.skip("it begins to read all the same before 3.11.4")
    a, b = pair()
    b.send(b"early")

    class Paused(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            transport.pause_reading()

    async def main():
        transport, protocol = await attach(a, Paused)
        await asyncio.sleep(0.03)
        assert protocol.events == ["made"]
        assert not transport.is_reading()
        transport.resume_reading()
        await until(lambda: bytes(protocol.data) == b"early")
        transport.abort()
        await protocol.lost

    run(main())


def test_paused_in_data_received(loop, run, pair):
    a, b = pair()

    class OneAtATime(Recorder):
        def data_received(self, data):
            super().data_received(data)
            self.transport.pause_reading()

    async def main():
        transport, protocol = await attach(a, OneAtATime)
        received = 0
        for i in range(1, 4):
            await loop.sock_sendall(b, b"x" * 10)
            await until(lambda n=received: len(protocol.data) > n)
            await asyncio.sleep(0.01)
            assert protocol.events.count("data") == i
            received = len(protocol.data)
            transport.resume_reading()
        transport.abort()
        await protocol.lost

    run(main())


def test_the_end_is_not_seen_while_reading_is_paused(loop, run, pair):
    a, b = pair()

    async def main():
        transport, protocol = await attach(a)
        transport.pause_reading()
        b.close()
        await asyncio.sleep(0.03)
        assert protocol.events == ["made"]
        transport.resume_reading()
        assert await protocol.lost is None
        assert protocol.events == ["made", "eof", "lost"]

    run(main())


def test_closed_in_data_received(loop, run, pair):
    a, b = pair()

    class CloseAtOnce(Recorder):
        def data_received(self, data):
            super().data_received(data)
            self.transport.close()

    async def main():
        _, protocol = await attach(a, CloseAtOnce)
        await loop.sock_sendall(b, b"first")
        assert await protocol.lost is None
        assert protocol.events == ["made", "data", "lost"]
        assert await read_to_end(b) == b""

    run(main())


def test_a_transport_that_nobody_holds_goes_on(loop, run, pair):
    """The loop keeps an open connection alive."""
    a, b = pair()

    class Echo(asyncio.Protocol):
        def connection_made(self, transport):
            self.transport = transport

        def data_received(self, data):
            self.transport.write(data)

    async def main():
        await attach(a, Echo)
        gc.collect()
        await loop.sock_sendall(b, b"echo")
        assert await read_exactly(b, 4) == b"echo"
        b.shutdown(1)
        assert await read_to_end(b) == b""

    run(main())


def test_methods_replaced_on_the_protocol_are_found(loop, run, pair):
    """The methods are looked up when data comes, or when the protocol is set; both will do."""
    a, b = pair()
    seen = []

    class Patched(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            self.eof_received = lambda: seen.append("eof")

    async def main():
        _, protocol = await attach(a, Patched)
        b.close()
        await protocol.lost

    run(main())
    assert seen == ["eof"]


def test_reset_by_the_peer(loop, run, pair):
    a, b = pair()
    b.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    async def main():
        _, protocol = await attach(a)
        b.close()
        exc = await protocol.lost
        assert isinstance(exc, ConnectionResetError)
        assert protocol.events == ["made", "lost"]

    run(main())


@pytest.mark.parametrize("at_end", ["reset", "close"])
@pytest.mark.parametrize("paused", [False, True])
def test_the_end_right_behind_much_data(loop, run, pair, at_end, paused):
    """A reset is no end, though libuv calls it that when it finds both at once."""
    size = 40_000

    class Pausing(Recorder):
        def data_received(self, data):
            super().data_received(data)
            if paused:
                self.transport.pause_reading()

    async def main():
        for _ in range(3):
            a, b = pair()
            a.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * size)
            b.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * size)
            if at_end == "reset":
                b.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            assert b.send(b"x" * size) == size
            b.close()
            transport, protocol = await attach(a, Pausing)
            while len(protocol.data) < size:
                await until(lambda protocol=protocol: "data" in protocol.events)
                await asyncio.sleep(0)
                transport.resume_reading()
            if paused and at_end == "close":
                assert "eof" not in protocol.events
            transport.resume_reading()
            exc = await protocol.lost
            assert isinstance(exc, ConnectionResetError) if at_end == "reset" else exc is None

    run(main())


def test_an_answer_to_a_peer_that_has_closed(loop, run, pair):
    """The answer brings on a reset, but the peer's end was there before it."""
    a, b = pair()

    class Answer(Recorder):
        def data_received(self, data):
            super().data_received(data)
            self.transport.write(b"answer")

    async def main():
        b.send(b"request")
        b.close()
        _, protocol = await attach(a, Answer)
        assert await protocol.lost is None
        assert bytes(protocol.data) == b"request"
        assert protocol.events == ["made", "data", "eof", "lost"]

    run(main())


def test_data_behind_a_passed_descriptor(loop, run, sockets):
    """A read stops there, which must not be taken for all that was left before the end."""
    a, b = sockets

    async def main():
        transport, protocol = await attach(a)
        transport.pause_reading()
        r, w = os.pipe()
        socket.send_fds(b, [b"one"], [r])
        os.close(r)
        os.close(w)
        b.send(b"two")
        b.close()
        transport.resume_reading()
        assert await protocol.lost is None
        assert bytes(protocol.data) == b"onetwo"
        assert protocol.events == ["made", "data", "data", "eof", "lost"]

    run(main())


@pytest.mark.skipif(sys.platform != "linux", reason="others read urgent data in other pieces")
def test_data_behind_urgent_data(loop, run, pair):
    """A read stops at it, and asyncio's and ours never see it."""
    a, b = pair()
    a.shutdown(socket.SHUT_WR)
    b.send(b"one")
    b.send(b"!", socket.MSG_OOB)
    b.send(b"two")
    b.close()
    poll = select.poll()
    poll.register(a, 0)
    assert poll.poll(10_000) == [(a.fileno(), select.POLLHUP)]  # all of it is there

    async def main():
        _, protocol = await attach(a)
        assert await protocol.lost is None
        assert bytes(protocol.data) == b"onetwo"
        assert protocol.events == ["made", "data", "data", "eof", "lost"]

    run(main())


def test_streams_on_top(loop, run, pair):
    """asyncio's StreamReader and StreamWriter over our transports."""

    async def main():
        async def serve(reader, writer):
            while line := await reader.readline():
                writer.write(line.upper())
                await writer.drain()
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()
        reader, writer = await asyncio.open_connection(host, port)
        for word in (b"one\n", b"two\n", b"x" * 60_000 + b"\n"):
            writer.write(word)
            await writer.drain()
            assert await reader.readline() == word.upper()
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()

    run(main())


def test_reset_by_the_peer_in_debug_mode(loop, run, pair):
    """It is logged there, and nowhere else."""
    a, b = pair()
    b.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    loop.set_debug(True)

    async def main():
        _, protocol = await attach(a)
        b.close()
        assert isinstance(await protocol.lost, ConnectionResetError)

    run(main())
