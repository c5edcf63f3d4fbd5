"""connect_read_pipe: pipes, FIFOs, sockets, terminals, character devices."""

import asyncio
import contextvars
import gc
import os
import socket
import tempfile
import tty
import warnings
import weakref

import pytest
from support import PAUSES_ANYWHERE, until

pytestmark = pytest.mark.core

var = contextvars.ContextVar("var", default="unset")


class Reader(asyncio.Protocol):
    """Keeps what happens to it."""

    def __init__(self):
        self.events = []
        self.data = bytearray()
        self.transport = None
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport):
        self.events.append("made")
        self.transport = transport

    def data_received(self, data):
        assert type(data) is bytes
        if self.events[-1] != "data":
            self.events.append("data")
        self.data += data

    def eof_received(self):
        self.events.append("eof")

    def connection_lost(self, exc):
        self.events.append("lost")
        self.lost.set_result(exc)


@pytest.fixture
def pipe():
    """A pipe: (the reading end as a file object, the descriptor of the writing end)."""
    r, w = os.pipe()
    file = os.fdopen(r, "rb", 0)
    closed = []

    def close_writer():
        if not closed:
            closed.append(True)
            os.close(w)

    yield file, w, close_writer
    close_writer()
    file.close()


@pytest.fixture
def pauses(kind):
    """Skips where asyncio's pipes have no is_reading() and forget an early pause."""
    if kind == "asyncio" and not PAUSES_ANYWHERE:
        pytest.skip("reading pipes tell is_reading() since 3.11.4")


async def reading(file, factory=Reader):
    return await asyncio.get_running_loop().connect_read_pipe(factory, file)


def test_data_and_end(loop, run, pipe):
    file, w, close_writer = pipe

    async def main():
        transport, protocol = await reading(file)
        assert protocol.transport is transport
        assert isinstance(transport, asyncio.ReadTransport)
        assert weakref.ref(transport)() is transport
        assert transport.get_extra_info("pipe") is file
        assert transport.get_extra_info("nonsense", 3) == 3
        assert transport.get_protocol() is protocol
        assert not transport.is_closing()
        assert not os.get_blocking(file.fileno())
        os.write(w, b"one")
        await until(lambda: protocol.data == b"one")
        os.write(w, b"two")
        await until(lambda: protocol.data == b"onetwo")
        close_writer()
        assert await protocol.lost is None
        await asyncio.sleep(0)
        assert protocol.events == ["made", "data", "eof", "lost"]
        assert transport.is_closing()
        assert file.closed
        assert transport.get_extra_info("pipe") is file

    run(main())


def test_much_data(loop, run, pipe):
    file, w, close_writer = pipe
    os.set_blocking(w, False)
    data = os.urandom(3_000_000)

    async def main():
        _, protocol = await reading(file)
        sent = 0
        while sent < len(data):
            try:
                sent += os.write(w, data[sent:])
            except BlockingIOError:
                await asyncio.sleep(0)
        close_writer()
        await protocol.lost
        assert protocol.data == data

    run(main())


def test_close(loop, run, pipe):
    file, w, _ = pipe

    async def main():
        transport, protocol = await reading(file)
        transport.close()
        transport.close()
        assert transport.is_closing()
        os.write(w, b"late")
        assert await protocol.lost is None
        await asyncio.sleep(0)
        assert protocol.events == ["made", "lost"]
        assert file.closed
        transport.close()
        transport.pause_reading()
        transport.resume_reading()

    run(main())


def test_closed_in_data_received(loop, run, pipe):
    file, w, _ = pipe

    class Closing(Reader):
        def data_received(self, data):
            super().data_received(data)
            self.transport.close()

    async def main():
        _, protocol = await reading(file, Closing)
        os.write(w, b"x")
        assert await protocol.lost is None
        assert protocol.events == ["made", "data", "lost"]

    run(main())


def test_pause_and_resume(pauses, loop, run, pipe):
    file, w, close_writer = pipe

    async def main():
        transport, protocol = await reading(file)
        assert transport.is_reading()
        transport.pause_reading()
        transport.pause_reading()
        assert not transport.is_reading()
        os.write(w, b"x")
        close_writer()
        await asyncio.sleep(0.02)
        assert protocol.events == ["made"]
        transport.resume_reading()
        transport.resume_reading()
        assert transport.is_reading()
        await protocol.lost
        assert protocol.events == ["made", "data", "eof", "lost"]

    run(main())


def test_paused_from_the_start(pauses, loop, run, pipe):
    file, w, _ = pipe

    class Paused(Reader):
        def connection_made(self, transport):
            super().connection_made(transport)
            transport.pause_reading()

    async def main():
        transport, protocol = await reading(file, Paused)
        os.write(w, b"x")
        await asyncio.sleep(0.02)
        assert not protocol.data
        transport.resume_reading()
        await until(lambda: protocol.data == b"x")
        transport.close()
        await protocol.lost

    run(main())


def test_a_fifo(loop, run, tmp_path):
    path = tmp_path / "fifo"
    os.mkfifo(path)
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb", 0)

    async def main():
        _, protocol = await reading(file)
        with open(path, "wb", 0) as writer:
            writer.write(b"through a fifo")
            await until(lambda: protocol.data == b"through a fifo")
        assert await protocol.lost is None

    run(main())


def test_a_socket(loop, run):
    a, b = socket.socketpair()

    async def main():
        transport, protocol = await reading(a)
        assert transport.get_extra_info("pipe") is a
        b.send(b"x")
        await until(lambda: protocol.data == b"x")
        b.close()
        assert await protocol.lost is None
        await asyncio.sleep(0)
        assert a.fileno() == -1

    run(main())


def test_a_terminal(loop, run):
    """The end of the other side is an EIO that nobody hears of but connection_lost."""
    master, slave = os.openpty()
    tty.setraw(slave)
    file = os.fdopen(master, "rb", 0)

    async def main():
        _, protocol = await reading(file)
        os.write(slave, b"typed")
        await until(lambda: protocol.data == b"typed")
        os.close(slave)
        exc = await protocol.lost
        assert exc is None or isinstance(exc, OSError)
        assert protocol.events[:2] == ["made", "data"]

    run(main())


@pytest.mark.only("uvloop_clone")
@pytest.mark.parametrize("path, expected", [("/dev/null", b""), ("/dev/zero", b"\0")])
def test_devices_that_cannot_be_polled(loop, run, path, expected):
    """asyncio's selector refuses them; there is no need to."""
    file = os.fdopen(os.open(path, os.O_RDONLY), "rb", 0)

    async def main():
        transport, protocol = await reading(file)
        if expected:
            await until(lambda: len(protocol.data) > 3 * 256 * 1024)
            transport.pause_reading()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            size = len(protocol.data)
            await asyncio.sleep(0.01)
            assert len(protocol.data) == size
            transport.resume_reading()
            await until(lambda: len(protocol.data) > size)
            transport.close()
        await protocol.lost
        assert protocol.events == (
            ["made", "data", "lost"] if expected else ["made", "eof", "lost"]
        )

    run(main())
    assert file.closed


def test_a_regular_file(loop, run):
    with tempfile.TemporaryFile() as file:

        async def main():
            with pytest.raises(ValueError) as info:
                await reading(file)
            assert str(info.value) == "Pipe transport is for pipes/sockets only."

        run(main())
        assert not file.closed


def test_what_is_no_file(loop, run):
    async def main():
        with pytest.raises(AttributeError, match="fileno"):
            await reading(None)

    run(main())


def test_callbacks_that_fail(loop, run, pipe, errors):
    """They are reported, and reading goes on to the end."""
    file, w, close_writer = pipe

    class Failing(Reader):
        def data_received(self, data):
            super().data_received(data)
            raise ZeroDivisionError

        def eof_received(self):
            super().eof_received()
            raise LookupError

        def connection_lost(self, exc):
            super().connection_lost(exc)
            raise KeyError

    async def main():
        transport, protocol = await reading(file, Failing)
        os.write(w, b"a")
        await until(lambda: protocol.data == b"a")
        assert not transport.is_closing()
        os.write(w, b"b")
        await until(lambda: protocol.data == b"ab")
        close_writer()
        await protocol.lost
        await asyncio.sleep(0)
        assert file.closed

    run(main())
    kinds = [type(exc) for exc in errors.exceptions]
    assert kinds == [ZeroDivisionError, ZeroDivisionError, LookupError, KeyError]


def test_a_read_that_fails(loop, run, errors):
    """Any error but EIO is reported, and ends the transport."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as nobody:
        nobody.bind(("127.0.0.1", 0))
        sock.connect(nobody.getsockname())

    async def main():
        transport, protocol = await reading(sock)
        sock.send(b"x")
        assert isinstance(await protocol.lost, ConnectionRefusedError)
        assert transport.is_closing()
        assert protocol.events == ["made", "lost"]

    run(main())
    assert errors.messages == ["Fatal read error on pipe transport"]
    assert isinstance(errors.exceptions[0], ConnectionRefusedError)


def test_stream_reader(loop, run, pipe):
    file, w, close_writer = pipe

    async def main():
        reader = asyncio.StreamReader()
        await reading(file, lambda: asyncio.StreamReaderProtocol(reader))
        os.write(w, b"line 1\nline 2\nrest")
        close_writer()
        assert await reader.readline() == b"line 1\n"
        assert await reader.readline() == b"line 2\n"
        assert await reader.read() == b"rest"

    run(main())


def test_set_protocol(loop, run, pipe):
    file, w, close_writer = pipe

    async def main():
        transport, first = await reading(file)
        second = Reader()
        second.connection_made(transport)
        transport.set_protocol(second)
        assert transport.get_protocol() is second
        os.write(w, b"x")
        close_writer()
        await second.lost
        assert first.events == ["made"]
        assert second.data == b"x"

    run(main())


def test_context(loop, run, pipe):
    file, w, close_writer = pipe
    seen = []

    class Seeing(Reader):
        def data_received(self, data):
            seen.append(var.get())

        def eof_received(self):
            seen.append(var.get())

    async def main():
        var.set("maker")
        _, protocol = await reading(file, Seeing)
        var.set("later")
        os.write(w, b"x")
        await until(lambda: seen)
        close_writer()
        await protocol.lost

    run(main())
    assert seen == ["maker", "maker"]


def test_repr(loop, run, pipe):
    file, w, _ = pipe

    async def main():
        transport, protocol = await reading(file)
        fd = file.fileno()
        assert f"fd={fd} polling>" in repr(transport)
        transport.pause_reading()
        assert f"fd={fd} idle>" in repr(transport)
        transport.close()
        assert "closing" in repr(transport)
        await protocol.lost
        await asyncio.sleep(0)
        assert "closed" in repr(transport)

    run(main())


def test_cancelled_while_it_connects(loop, run, pipe):
    file, _, _ = pipe

    async def main():
        made = []

        def factory():
            made.append(Reader())
            return made[0]

        task = loop.create_task(reading(file, factory))
        while not made:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await made[0].lost
        await asyncio.sleep(0)
        assert file.closed

    run(main())


def test_unclosed(kind, new_loop):
    loop = new_loop()
    r, w = os.pipe()

    async def main():
        await reading(os.fdopen(r, "rb", 0))

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loop.run_until_complete(main())
        loop.close()
        del loop
        gc.collect()
    texts = [str(w.message) for w in caught if w.category is ResourceWarning]
    assert len([t for t in texts if t.startswith("unclosed transport <")]) == 1
    with pytest.raises(OSError):
        os.fstat(r)
    os.close(w)


def test_debug_log(loop, run, pipe, caplog):
    file, _, close_writer = pipe
    loop.set_debug(True)

    async def main():
        with caplog.at_level("DEBUG", logger="asyncio"):
            transport, protocol = await reading(file)
            transport.pause_reading()
            transport.resume_reading()
            close_writer()
            await protocol.lost

    run(main())
    texts = [record.getMessage() for record in caplog.records]
    assert any(t.startswith("Read pipe ") and "connected" in t for t in texts)
    assert any(t.endswith("pauses reading") for t in texts)
    assert any(t.endswith("resumes reading") for t in texts)
    assert any(t.endswith("was closed by peer") for t in texts)
