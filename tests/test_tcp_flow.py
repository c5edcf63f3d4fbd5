"""Stream transports: write buffers, water marks, pause_writing and resume_writing."""

import asyncio
import gc
import math
import socket
import struct
import sys
import warnings
import weakref

import pytest
from support import Recorder, attach, read_exactly, read_to_end, until

pytestmark = pytest.mark.core

CHUNK = b"x" * (1 << 24)  # more than the kernel holds on both sides together


def test_default_limits(loop, run, pair):
    a, _ = pair()

    async def main():
        transport, protocol = await attach(a)
        assert transport.get_write_buffer_limits() == (16 * 1024, 64 * 1024)
        assert transport.get_write_buffer_size() == 0
        transport.abort()
        await protocol.lost

    run(main())


@pytest.mark.parametrize(
    "arguments, expected",
    [
        ({}, (16384, 65536)),
        ({"high": 1000}, (250, 1000)),
        ({"low": 1000}, (1000, 4000)),
        ({"high": 10, "low": 10}, (10, 10)),
        ({"high": 0}, (0, 0)),
        ({"high": 5, "low": 0}, (0, 5)),
        ({"low": 0}, (0, 0)),
        ({"high": 1e6}, (250000, 1000000)),
    ],
)
def test_set_limits(loop, run, pair, arguments, expected):
    a, _ = pair()

    async def main():
        transport, protocol = await attach(a)
        assert transport.set_write_buffer_limits(**arguments) is None
        assert transport.get_write_buffer_limits() == expected
        transport.abort()
        await protocol.lost

    run(main())


@pytest.mark.parametrize(
    "high, low",
    [(1, 2), (-1, None), (10, -1), (-2, -1), (None, -1), (None, -(10**30)), (math.nan, 0)],
)
def test_limits_that_make_no_sense(loop, run, pair, high, low):
    a, _ = pair()

    async def main():
        transport, protocol = await attach(a)
        with pytest.raises(ValueError, match=r"high \(.*\) must be >= low \(.*\) must be >= 0"):
            transport.set_write_buffer_limits(high=high, low=low)
        assert transport.get_write_buffer_limits() == (16384, 65536)
        transport.abort()
        await protocol.lost

    run(main())


def test_limits_that_are_no_numbers(loop, run, pair):
    a, _ = pair()

    async def main():
        transport, protocol = await attach(a)
        with pytest.raises(TypeError):
            transport.set_write_buffer_limits(high="much")
        transport.abort()
        await protocol.lost

    run(main())


def test_pause_and_resume(loop, run, pair):
    a, b = pair()

    async def main():
        transport, protocol = await attach(a)
        transport.write(CHUNK)
        await until(lambda: "pause" in protocol.events)
        assert protocol.events == ["made", "pause"]
        assert transport.get_write_buffer_size() > 64 * 1024
        transport.write(CHUNK)
        await asyncio.sleep(0.01)
        assert protocol.events == ["made", "pause"]
        assert await read_exactly(b, 2 * len(CHUNK)) == 2 * CHUNK
        await until(lambda: "resume" in protocol.events)
        assert protocol.events == ["made", "pause", "resume"]
        assert transport.get_write_buffer_size() == 0
        transport.close()
        await protocol.lost
        assert protocol.events == ["made", "pause", "resume", "lost"]

    run(main())


def test_pause_is_called_before_write_returns(loop, run, pair):
    """A writer that checks for back-pressure after write() sees it at once."""
    a, _b = pair()

    async def main():
        transport, protocol = await attach(a)
        transport.write(CHUNK)
        assert protocol.events == ["made", "pause"]
        transport.abort()
        await protocol.lost

    run(main())


def test_writelines_pauses_too(loop, run, pair):
    a, _b = pair()

    async def main():
        transport, protocol = await attach(a)
        transport.writelines([CHUNK] * 2)
        await asyncio.sleep(0)
        # some releases of 3.12 and 3.13 forget the water marks in writelines
        if not was_forgotten(transport):
            assert protocol.events == ["made", "pause"]
        transport.abort()
        await protocol.lost

    def was_forgotten(transport):
        theirs = type(transport).__module__.startswith("asyncio")
        return theirs and (3, 12) <= sys.version_info[:2] <= (3, 13)

    run(main())


def test_resume_comes_at_the_low_mark(loop, run, pair):
    a, b = pair()
    sizes = []

    class Protocol(Recorder):
        def resume_writing(self):
            super().resume_writing()
            sizes.append(self.transport.get_write_buffer_size())

    async def main():
        transport, protocol = await attach(a, Protocol)
        transport.set_write_buffer_limits(high=200_000, low=100_000)
        transport.write(CHUNK)
        assert await read_exactly(b, len(CHUNK)) == CHUNK
        await until(lambda: "resume" in protocol.events)
        transport.abort()
        await protocol.lost

    run(main())
    assert len(sizes) == 1 and sizes[0] <= 100_000


def test_resume_comes_while_something_is_left(loop, run, sockets):
    """At the low mark, however much of what is above it was written in one piece."""
    a, b = sockets
    size = 3_000_000

    async def main():
        transport, protocol = await attach(a)
        transport.set_write_buffer_limits(high=1_000_000, low=900_000)
        transport.write(bytes(size))
        assert protocol.events == ["made", "pause"]
        received = 0
        while "resume" not in protocol.events:
            received += len(await loop.sock_recv(b, 50_000))
        assert 0 < transport.get_write_buffer_size() <= 900_000
        await read_exactly(b, size - received)
        assert protocol.events == ["made", "pause", "resume"]
        transport.close()
        await protocol.lost

    run(main())


def test_what_is_being_sent_counts_for_the_high_mark(loop, run, sockets):
    a, _b = sockets

    async def main():
        transport, protocol = await attach(a)
        for _ in range(200):
            assert protocol.events == ["made"]
            transport.write(bytes(60_000))
            await asyncio.sleep(0)
            if transport.get_write_buffer_size() > 65536:
                break
        assert protocol.events == ["made", "pause"]
        transport.abort()
        await protocol.lost

    run(main())


def test_high_mark_zero_pauses_as_soon_as_anything_is_left(loop, run, pair):
    a, b = pair()

    async def main():
        transport, protocol = await attach(a)
        transport.set_write_buffer_limits(high=0)
        transport.write(b"small")
        await asyncio.sleep(0.01)
        assert await read_exactly(b, 5) == b"small"
        assert protocol.events.count("pause") == protocol.events.count("resume")
        transport.write(CHUNK)
        await until(lambda: protocol.events[-1] == "pause")
        assert await read_exactly(b, len(CHUNK)) == CHUNK
        await until(lambda: protocol.events[-1] == "resume")
        assert transport.get_write_buffer_size() == 0
        transport.abort()
        await protocol.lost

    run(main())


def test_the_buffer_size_counts_what_the_kernel_did_not_take(loop, run, pair):
    a, _b = pair()

    async def main():
        transport, protocol = await attach(a)
        transport.write(CHUNK)
        await asyncio.sleep(0.01)
        size = transport.get_write_buffer_size()
        assert 0 < size < len(CHUNK)
        transport.write(b"y" * 1000)
        assert transport.get_write_buffer_size() == size + 1000
        transport.writelines([b"z" * 500, b"z" * 500])
        await asyncio.sleep(0)
        assert transport.get_write_buffer_size() == size + 2000
        transport.abort()
        await protocol.lost

    run(main())


# asyncio fails when the transport is closed by the last resume_writing
@pytest.mark.only("uvloop_clone")
def test_writing_goes_on_from_resume_writing(loop, run, pair):
    a, b = pair()

    class Producer(Recorder):
        left = 200

        def connection_made(self, transport):
            super().connection_made(transport)
            self.paused = False
            self.produce()

        def pause_writing(self):
            self.paused = True

        def resume_writing(self):
            self.paused = False
            self.produce()

        def produce(self):
            while self.left and not self.paused:
                self.left -= 1
                self.transport.write(b"p" * 50_000)
            if not self.left:
                self.transport.close()

    async def main():
        _, protocol = await attach(a, Producer)
        data = await read_to_end(b)
        assert data == b"p" * 50_000 * 200
        assert await protocol.lost is None

    run(main())


def test_drain_of_a_stream_writer(loop, run, pair):
    """StreamWriter.drain stands on these callbacks."""
    a, b = pair()

    async def main():
        _reader, writer = await asyncio.open_connection(sock=a)
        writer.write(CHUNK)
        draining = loop.create_task(writer.drain())
        await asyncio.sleep(0.02)
        assert not draining.done()
        await read_exactly(b, len(CHUNK))
        await draining
        writer.close()
        await writer.wait_closed()

    run(main())


@pytest.mark.parametrize("method", ["pause_writing", "resume_writing"])
def test_failing_callbacks_are_reported_and_do_not_close(loop, run, pair, errors, method):
    a, b = pair()

    class Protocol(Recorder):
        pass

    def fail(self):
        raise ZeroDivisionError

    setattr(Protocol, method, fail)

    async def main():
        transport, protocol = await attach(a, Protocol)
        transport.write(CHUNK)
        assert await read_exactly(b, len(CHUNK)) == CHUNK
        await until(lambda: errors)
        (context,) = errors
        assert context["message"] == f"protocol.{method}() failed"
        assert isinstance(context["exception"], ZeroDivisionError)
        assert context["transport"] is transport and context["protocol"] is protocol
        transport.write(b"goes on")
        assert await read_exactly(b, 7) == b"goes on"
        transport.close()
        assert await protocol.lost is None

    run(main())


def test_limits_changed_while_data_is_pending(loop, run, pair):
    a, b = pair()

    async def main():
        transport, protocol = await attach(a)
        transport.set_write_buffer_limits(high=1 << 30)
        transport.write(CHUNK)
        await asyncio.sleep(0.01)
        assert protocol.events == ["made"]
        transport.set_write_buffer_limits(high=1000)
        # the new limits hold from now on; at the latest the next write sees them
        transport.write(b"x")
        await until(lambda: "pause" in protocol.events)
        assert await read_exactly(b, len(CHUNK) + 1)
        await until(lambda: "resume" in protocol.events)
        transport.abort()
        await protocol.lost

    run(main())


def test_a_limit_below_what_the_kernel_takes_anyway(loop, run, pair):
    a, b = pair()

    async def main():
        transport, protocol = await attach(a)
        transport.write(bytes(1000))
        transport.set_write_buffer_limits(high=10)
        assert await read_exactly(b, 1000) == bytes(1000)
        assert protocol.events == ["made"]
        transport.close()
        await protocol.lost

    run(main())


MUCH = bytes(range(256)) * 4096  # 1 MiB: more than a stream sends in a turn


@pytest.mark.parametrize("kind_of", [bytes, bytearray, memoryview])
def test_much_arrives_in_order(loop, run, pair, kind_of):
    a, b = pair()

    async def main():
        transport, protocol = await attach(a)
        transport.write(b"first")
        transport.write(kind_of(MUCH))
        transport.write(b"between")
        transport.writelines([kind_of(MUCH[:70000]), b"and", kind_of(MUCH)])
        transport.write(b"last")
        transport.close()
        expected = b"first" + MUCH + b"between" + MUCH[:70000] + b"and" + MUCH + b"last"
        assert await read_to_end(b) == expected
        assert await protocol.lost is None

    run(main())


def test_write_eof_after_much(loop, run, pair):
    a, b = pair()

    async def main():
        transport, protocol = await attach(a)
        transport.write(MUCH)
        transport.write_eof()
        assert await read_to_end(b) == MUCH
        b.send(b"answer")
        await until(lambda: protocol.data == b"answer")
        b.close()
        await protocol.lost

    run(main())


def test_a_writer_of_much_is_told_to_go_on(loop, run, pair):
    a, b = pair()

    async def main():
        transport, protocol = await attach(a)
        sent = 0
        reading = asyncio.ensure_future(read_to_end(b))
        for _ in range(40):
            transport.write(MUCH)
            sent += len(MUCH)
            await until(lambda: protocol.events.count("pause") == protocol.events.count("resume"))
        transport.close()
        assert len(await reading) == sent
        b.close()
        await protocol.lost

    run(main())


def test_what_the_kernel_takes_has_left_when_the_run_ends(loop, run, pair):
    a, b = pair()
    size = 400 * 1024
    with pair()[0] as plain:
        if plain.send(bytes(size)) < size:
            pytest.skip("this kernel holds less for a connection that nobody reads from")

    async def main():
        transport, protocol = await attach(a)
        transport.write(MUCH[:size])
        return transport, protocol

    transport, protocol = run(main())
    b.setblocking(True)
    b.settimeout(20)
    received = b""
    while len(received) < size:
        received += b.recv(1 << 20)
    assert received == MUCH[:size]

    async def end():
        assert transport.get_write_buffer_size() == 0
        transport.close()
        await protocol.lost
        assert protocol.events.count("pause") == protocol.events.count("resume")

    run(end())


def test_what_was_written_outside_a_run_leaves_at_close(new_loop, pair):
    a, b = pair()
    loop = new_loop()
    transport, protocol = loop.run_until_complete(attach(a))
    transport.write(b"written while the loop stands")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # a recorded one keeps the transport
        loop.close()
        seen = weakref.ref(transport)
        del transport, protocol
        gc.collect()
    assert seen() is None
    b.setblocking(True)
    b.settimeout(20)
    assert b.recv(100) == b"written while the loop stands"


def test_what_was_written_outside_a_run_to_a_peer_that_is_gone(new_loop, pair):
    a, b = pair()
    loop = new_loop()
    reports = []
    loop.set_exception_handler(lambda loop, context: reports.append(context))
    transport, protocol = loop.run_until_complete(attach(a))
    b.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    b.close()  # resets the connection
    transport.write(b"nobody reads this")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        loop.close()
        seen = weakref.ref(transport)
        del transport, protocol
        gc.collect()
    assert seen() is None
    assert reports == []
