"""Stream transports with BufferedProtocol, and the change between the two interfaces."""

import asyncio

import pytest
from support import BufferedRecorder, Recorder, attach, read_to_end, until

pytestmark = pytest.mark.core

LARGE = bytes(range(256)) * 4096 * 4


def test_data_arrives_in_the_protocols_buffer(loop, run, pair):
    a, b = pair()

    async def main():
        transport, protocol = await attach(a, BufferedRecorder)
        await loop.sock_sendall(b, b"data")
        await until(lambda: bytes(protocol.data) == b"data")
        assert protocol.buffer.startswith(b"data")
        assert all(type(hint) is int for hint in protocol.hints)
        b.close()
        assert await protocol.lost is None
        assert protocol.events == ["made", "data", "eof", "lost"]
        assert transport.is_closing()

    run(main())


@pytest.mark.parametrize("size", [1, 3, 1024, 65536, 1 << 20])
def test_buffers_of_any_size(loop, run, pair, size):
    a, b = pair()
    total = min(size * 2000, len(LARGE))

    async def main():
        transport, protocol = await attach(a, lambda: BufferedRecorder(size))
        await loop.sock_sendall(b, LARGE[:total])
        await until(lambda: len(protocol.data) == total)
        assert protocol.data == LARGE[:total]
        transport.abort()
        await protocol.lost

    run(main())


@pytest.mark.parametrize("make", [bytearray, lambda n: memoryview(bytearray(n))])
def test_kinds_of_buffers(loop, run, pair, make):
    a, b = pair()
    seen = []

    class Protocol(BufferedRecorder):
        def get_buffer(self, sizehint):
            self.mine = make(100)
            return self.mine

        def buffer_updated(self, nbytes):
            seen.append(bytes(self.mine[:nbytes]))

    async def main():
        transport, protocol = await attach(a, Protocol)
        await loop.sock_sendall(b, b"data")
        await until(lambda: seen)
        transport.abort()
        await protocol.lost

    run(main())
    assert b"".join(seen) == b"data"


def test_the_buffer_is_let_go_after_the_update(loop, run, pair):
    a, b = pair()

    class Protocol(BufferedRecorder):
        def buffer_updated(self, nbytes):
            self.data += self.buffer[:nbytes]

    async def main():
        transport, protocol = await attach(a, Protocol)
        await loop.sock_sendall(b, b"data")
        await until(lambda: protocol.data)
        transport.abort()
        await protocol.lost
        protocol.buffer.clear()  # BufferError while exported

    run(main())


@pytest.mark.parametrize(
    "buffer, text",
    [(bytearray(), "get_buffer"), (memoryview(b""), "get_buffer")],
    ids=["empty bytearray", "empty view"],
)
def test_an_empty_buffer(loop, run, pair, errors, buffer, text):
    a, b = pair()

    class Protocol(BufferedRecorder):
        def get_buffer(self, sizehint):
            return buffer

    async def main():
        _, protocol = await attach(a, Protocol)
        await loop.sock_sendall(b, b"x")
        exc = await protocol.lost
        assert isinstance(exc, RuntimeError)
        assert "returned an empty buffer" in str(exc)

    run(main())
    assert errors.messages == ["Fatal error: protocol.get_buffer() call failed."]
    assert text in errors.messages[0]


@pytest.mark.parametrize("buffer", [b"read only", "text", None, 5, memoryview(b"read only")])
def test_a_buffer_that_cannot_be_written(loop, run, pair, errors, buffer):
    a, b = pair()

    class Protocol(BufferedRecorder):
        def get_buffer(self, sizehint):
            return buffer

    async def main():
        _, protocol = await attach(a, Protocol)
        await loop.sock_sendall(b, b"x")
        exc = await protocol.lost
        assert isinstance(exc, (TypeError, BufferError))

    run(main())
    assert len(errors) == 1
    assert errors.messages[0].startswith("Fatal ")


@pytest.mark.parametrize("method", ["get_buffer", "buffer_updated"])
def test_a_failing_callback(loop, run, pair, errors, method):
    a, b = pair()

    class Protocol(BufferedRecorder):
        pass

    def fail(self, number):
        raise ZeroDivisionError

    setattr(Protocol, method, fail)

    async def main():
        transport, protocol = await attach(a, Protocol)
        await loop.sock_sendall(b, b"x")
        assert isinstance(await protocol.lost, ZeroDivisionError)
        (context,) = errors
        assert context["message"] == f"Fatal error: protocol.{method}() call failed."
        assert isinstance(context["exception"], ZeroDivisionError)
        assert context["transport"] is transport
        assert context["protocol"] is protocol

    run(main())


def test_eof_received_true_keeps_the_writing_half(loop, run, pair):
    a, b = pair()

    async def main():
        transport, protocol = await attach(a, lambda: BufferedRecorder(keep_open=True))
        b.shutdown(1)
        await until(lambda: "eof" in protocol.events)
        transport.write(b"answer")
        transport.close()
        assert await read_to_end(b) == b"answer"
        assert await protocol.lost is None

    run(main())


def test_paused_in_buffer_updated(loop, run, pair):
    a, b = pair()

    class OneAtATime(BufferedRecorder):
        def buffer_updated(self, nbytes):
            super().buffer_updated(nbytes)
            self.transport.pause_reading()

    async def main():
        transport, protocol = await attach(a, lambda: OneAtATime(2))
        await loop.sock_sendall(b, b"abcdef")
        for expected in (b"ab", b"abcd", b"abcdef"):
            await until(lambda e=expected: bytes(protocol.data) == e)
            await asyncio.sleep(0.01)
            assert bytes(protocol.data) == expected
            transport.resume_reading()
        transport.abort()
        await protocol.lost

    run(main())


def test_closed_in_get_buffer_and_in_buffer_updated(loop, run, pair):
    for method in ("get_buffer", "buffer_updated"):
        a, b = pair()

        class Protocol(BufferedRecorder):
            closing_in = method

            def get_buffer(self, sizehint):
                if self.closing_in == "get_buffer":
                    self.transport.close()
                return super().get_buffer(sizehint)

            def buffer_updated(self, nbytes):
                super().buffer_updated(nbytes)
                if self.closing_in == "buffer_updated":
                    self.transport.close()

        async def main(a=a, b=b, factory=Protocol):
            _, protocol = await attach(a, factory)
            await loop.sock_sendall(b, b"data")
            assert await protocol.lost is None

        run(main())


@pytest.mark.parametrize("method", ["abort", "pause_reading"])
def test_other_calls_in_get_buffer(loop, run, pair, method):
    """The read that asked for the buffer may still be delivered, nothing after it."""
    a, b = pair()

    class Protocol(BufferedRecorder):
        def get_buffer(self, sizehint):
            if len(self.hints) == 0:
                getattr(self.transport, method)()
            return super().get_buffer(sizehint)

    async def main():
        transport, protocol = await attach(a, Protocol)
        await loop.sock_sendall(b, b"data")
        await until(lambda: protocol.hints)
        await asyncio.sleep(0.02)
        if method == "pause_reading":
            await loop.sock_sendall(b, b"more")
            await asyncio.sleep(0.02)
            assert bytes(protocol.data) in (b"", b"data")
            transport.resume_reading()
            await until(lambda: bytes(protocol.data) == b"datamore")
            transport.abort()
        assert await protocol.lost is None

    run(main())


def test_from_protocol_to_buffered_protocol(loop, run, pair):
    a, b = pair()

    async def main():
        transport, first = await attach(a)
        await loop.sock_sendall(b, b"first")
        await until(lambda: bytes(first.data) == b"first")
        second = BufferedRecorder()
        assert transport.set_protocol(second) is None
        assert transport.get_protocol() is second
        await loop.sock_sendall(b, b"second")
        await until(lambda: bytes(second.data) == b"second")
        third = Recorder()
        transport.set_protocol(third)
        await loop.sock_sendall(b, b"third")
        await until(lambda: bytes(third.data) == b"third")
        transport.close()
        await third.lost
        assert first.events == ["made", "data"]
        assert second.events == ["data"]
        assert third.events == ["data", "lost"]

    run(main())


def test_the_protocol_is_changed_inside_data_received(loop, run, pair):
    a, b = pair()

    class First(Recorder):
        def data_received(self, data):
            super().data_received(data)
            self.second = BufferedRecorder(4)
            self.transport.set_protocol(self.second)

    async def main():
        transport, first = await attach(a, First)
        await loop.sock_sendall(b, b"x")
        await until(lambda: first.data)
        await loop.sock_sendall(b, b"for the second")
        await until(lambda: bytes(first.second.data) == b"for the second")
        transport.abort()
        await first.second.lost
        assert not first.lost.done()

    run(main())
