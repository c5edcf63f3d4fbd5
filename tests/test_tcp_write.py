"""Stream transports: write, writelines, write_eof, what goes over the wire."""

import array
import asyncio
import errno
import logging
import socket
import struct
import sys

import pytest
from support import Recorder, attach, read_exactly, read_to_end

pytestmark = pytest.mark.core

LARGE = bytes(range(256)) * 4096 * 8  # 8 MiB


def test_write(loop, run, pair):
    a, b = pair()

    async def main():
        transport, protocol = await attach(a)
        assert transport.write(b"one") is None
        transport.write(b"two")
        assert await read_exactly(b, 6) == b"onetwo"
        transport.close()
        await protocol.lost

    run(main())


@pytest.mark.parametrize(
    "data",
    [
        b"bytes",
        bytearray(b"bytearray"),
        memoryview(b"memoryview"),
        memoryview(bytearray(b"writable")),
    ],
    ids=lambda data: bytes(data).decode(),
)
def test_write_of_any_buffer(loop, run, pair, data):
    a, b = pair()

    async def main():
        transport, protocol = await attach(a)
        transport.write(data)
        assert await read_exactly(b, len(bytes(data))) == bytes(data)
        transport.abort()
        await protocol.lost

    run(main())


@pytest.mark.parametrize(
    "data",
    [
        memoryview(array.array("i", [1, 2, 3])),
        memoryview(array.array("d", [0.5])),
        memoryview(bytes(range(24))).cast("B", (2, 3, 4)),
        memoryview(b"every second")[::2],
        memoryview(b"backwards")[::-1],
    ],
    ids=["int", "double", "three-dimensional", "strided", "reversed"],
)
# asyncio's own transport trusts len() and may send such data in part only
@pytest.mark.only("uvloop_clone")
def test_write_of_a_memoryview_of_any_format(loop, run, pair, data):
    a, b = pair()

    async def main():
        transport, protocol = await attach(a)
        transport.write(data)
        assert await read_exactly(b, data.nbytes) == data.tobytes()
        transport.abort()
        await protocol.lost

    run(main())


def test_a_bytearray_changed_after_the_write(loop, run, pair, kind):
    """The bytes of the moment of the call are sent, whether the kernel takes them now or later."""
    if kind == "asyncio" and sys.version_info >= (3, 12):
        pytest.skip("since 3.12 asyncio keeps a view of what the kernel did not take at once")
    a, b = pair()

    async def main():
        transport, protocol = await attach(a)
        data = bytearray(b"small")
        transport.write(data)
        data[:] = b"CHANGED AND LONGER"
        assert await read_exactly(b, 5) == b"small"
        data = bytearray(LARGE)
        transport.write(data)
        data[:] = bytes(10)
        assert await read_exactly(b, len(LARGE)) == LARGE
        view = bytearray(LARGE)
        transport.write(b"first")
        transport.write(memoryview(view))
        view[-100:] = bytes(100)
        assert await read_exactly(b, 5 + len(LARGE)) == b"first" + LARGE
        transport.abort()
        await protocol.lost

    run(main())


def test_a_buffer_is_free_again_once_it_is_sent(loop, run, pair):
    a, _b = pair()

    async def main():
        transport, protocol = await attach(a)
        data = bytearray(b"some data")
        transport.write(data)
        await asyncio.sleep(0.01)
        data.clear()  # BufferError while exported
        transport.abort()
        await protocol.lost

    run(main())


@pytest.mark.parametrize("data", ["text", 5, None, [b"x"], array.array("b", b"x")])
def test_write_of_what_is_no_buffer(loop, run, pair, data):
    a, b = pair()

    async def main():
        transport, protocol = await attach(a)
        with pytest.raises(TypeError) as info:
            transport.write(data)
        text = str(info.value)
        assert "bytes-like object" in text
        assert type(data).__name__ in text
        transport.write(b"still open")
        assert await read_exactly(b, 10) == b"still open"
        transport.abort()
        await protocol.lost

    run(main())


def test_write_of_nothing(loop, run, pair):
    a, b = pair()

    async def main():
        transport, protocol = await attach(a)
        transport.write(b"")
        transport.write(bytearray())
        transport.writelines([])
        transport.writelines([b"", b""])
        transport.write(b"x")
        assert await read_exactly(b, 1) == b"x"
        transport.abort()
        await protocol.lost

    run(main())


@pytest.mark.parametrize("kind_of", [list, tuple, iter])
def test_writelines(loop, run, pair, kind_of):
    a, b = pair()

    async def main():
        transport, protocol = await attach(a)
        parts = [b"one,", bytearray(b"two,"), memoryview(b"three"), b"", b"."]
        assert transport.writelines(kind_of(parts)) is None
        assert await read_exactly(b, 14) == b"one,two,three."
        transport.abort()
        await protocol.lost

    run(main())


def test_writelines_of_many_and_of_much(loop, run, pair):
    a, b = pair()

    async def main():
        transport, protocol = await attach(a)
        parts = [b"%d;" % i for i in range(5000)]
        transport.writelines(parts)
        transport.writelines([LARGE, b"between", bytearray(LARGE)])
        expected = b"".join(parts) + LARGE + b"between" + LARGE
        assert await read_exactly(b, len(expected)) == expected
        transport.abort()
        await protocol.lost

    run(main())


@pytest.mark.parametrize("lines", [5, ["text"], [b"x", 5]])
def test_writelines_of_what_are_no_buffers(loop, run, pair, lines):
    a, _b = pair()

    async def main():
        transport, protocol = await attach(a)
        with pytest.raises(TypeError):
            transport.writelines(lines)
        transport.abort()
        await protocol.lost

    run(main())


def test_writelines_sends_all_or_nothing(loop, run, pair):
    a, b = pair()

    async def main():
        transport, protocol = await attach(a)
        with pytest.raises(TypeError):
            transport.writelines([b"one", "two"])
        assert transport.get_write_buffer_size() == 0
        transport.write(b"three")
        transport.close()
        assert await read_to_end(b) == b"three"
        await protocol.lost

    run(main())


@pytest.mark.parametrize("kind_of", [list, tuple, iter])
def test_writelines_of_arrays(loop, run, pair, kind_of):
    """What write() refuses will do here: asyncio joins the items, or takes a view of each."""
    a, b = pair()

    async def main():
        transport, protocol = await attach(a)
        transport.writelines(kind_of([b"one,", array.array("B", b"two"), b"."]))
        transport.close()
        assert await read_to_end(b) == b"one,two."
        await protocol.lost

    run(main())


def test_a_write_refused_during_sendfile(loop, run, sockets, tmp_path):
    """It sends nothing, though there is room for it at that moment."""
    a, b = sockets
    path = tmp_path / "file"
    path.write_bytes(LARGE)

    async def main():
        transport, protocol = await attach(a)
        with path.open("rb") as file:
            sending = loop.create_task(loop.sendfile(transport, file))
            received = await read_exactly(b, 1 << 20)
            while len(received) < 2 << 20:  # until b is empty, and a has not sent on
                try:
                    received += b.recv(1 << 20)
                except BlockingIOError:
                    break
            with pytest.raises(RuntimeError, match="sendfile is in progress"):
                transport.write(bytearray(8192))
            received += await read_exactly(b, len(LARGE) - len(received))
            assert await sending == len(LARGE)
        transport.close()
        assert received + await read_to_end(b) == LARGE
        await protocol.lost

    run(main())


def test_much_data_arrives_in_order(loop, run, pair):
    a, b = pair()

    async def main():
        transport, protocol = await attach(a)
        pieces = [bytes([i % 256]) * (i * 37 % 70_000) for i in range(300)]
        reader = loop.create_task(read_exactly(b, sum(map(len, pieces))))
        for i, piece in enumerate(pieces):
            transport.write(piece)
            if i % 20 == 0:
                await asyncio.sleep(0)
        assert await reader == b"".join(pieces)
        transport.close()
        assert await protocol.lost is None

    run(main())


def test_write_from_connection_made(loop, run, pair):
    a, b = pair()

    class Greeter(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            transport.write(b"hello")
            transport.close()

    async def main():
        _, protocol = await attach(a, Greeter)
        assert await read_to_end(b) == b"hello"
        await protocol.lost

    run(main())


def test_write_eof(loop, run, pair):
    a, b = pair()

    async def main():
        transport, protocol = await attach(a)
        assert transport.can_write_eof() is True
        transport.write(b"last words")
        assert transport.write_eof() is None
        transport.write_eof()  # again is harmless
        assert await read_to_end(b) == b"last words"
        # the other direction is still open
        await loop.sock_sendall(b, b"answer")
        while bytes(protocol.data) != b"answer":
            await asyncio.sleep(0.001)
        transport.close()
        assert await protocol.lost is None

    run(main())


def test_write_eof_waits_for_the_data(loop, run, pair):
    a, b = pair()

    async def main():
        transport, protocol = await attach(a)
        transport.write(LARGE)
        transport.write_eof()
        assert await read_to_end(b) == LARGE
        transport.close()
        assert await protocol.lost is None

    run(main())


def test_write_eof_after_a_reset(loop, run):
    """Nobody has noticed it yet, as reading is paused."""

    async def main():
        with socket.create_server(("127.0.0.1", 0)) as listener:
            transport, protocol = await loop.create_connection(Recorder, *listener.getsockname())
            peer = listener.accept()[0]
        transport.pause_reading()
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()
        with pytest.raises(OSError) as caught:
            transport.write_eof()
        assert caught.value.errno == errno.ENOTCONN
        transport.abort()
        await protocol.lost

    run(main())


def test_write_after_write_eof(loop, run, pair):
    a, _b = pair()

    async def main():
        transport, protocol = await attach(a)
        transport.write_eof()
        with pytest.raises(RuntimeError, match=r"Cannot call write.* after write_eof"):
            transport.write(b"x")
        for lines in ([b"x"], []):
            with pytest.raises(RuntimeError, match=r"Cannot call write.* after write_eof"):
                transport.writelines(lines)
        transport.close()
        await protocol.lost

    run(main())


def test_write_after_close(loop, run, pair):
    """What is written after close() is dropped without an error."""
    a, b = pair()

    async def main():
        transport, protocol = await attach(a)
        transport.write(b"sent")
        transport.close()
        await protocol.lost
        transport.write(b"dropped")
        assert await read_to_end(b) == b"sent"

    run(main())


def test_many_writes_after_the_connection_is_lost_warn(loop, run, pair, caplog):
    a, _b = pair()

    async def main():
        transport, protocol = await attach(a)
        transport.abort()
        await protocol.lost
        with caplog.at_level(logging.WARNING, "asyncio"):
            for _ in range(4):
                transport.write(b"x")
            assert caplog.messages == []
            for _ in range(4):
                transport.write(b"x")
        assert set(caplog.messages) == {"socket.send() raised exception."}

    run(main())


def test_a_peer_that_has_gone(loop, run, pair):
    a, b = pair()
    b.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    async def main():
        transport, protocol = await attach(a)
        transport.pause_reading()
        b.close()
        await asyncio.sleep(0.01)
        for _ in range(20):
            transport.write(b"x" * 1000)
            await asyncio.sleep(0.005)
        exc = await protocol.lost
        assert isinstance(exc, (BrokenPipeError, ConnectionResetError))

    run(main())


def test_nagle_is_off(loop, run, pair):
    a, _b = pair()

    async def main():
        transport, protocol = await attach(a)
        sock = transport.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        transport.abort()
        await protocol.lost

    run(main())


def test_unix_sockets_work_as_well(loop, run):
    a, b = socket.socketpair()
    a.setblocking(False)
    b.setblocking(False)

    class Echo(Recorder):
        def data_received(self, data):
            self.transport.write(data)

    async def main():
        transport, protocol = await attach(a, Echo)
        await loop.sock_sendall(b, b"echo")
        assert await read_exactly(b, 4) == b"echo"
        transport.close()
        await protocol.lost

    run(main())
    b.close()
