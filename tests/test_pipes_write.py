"""connect_write_pipe: pipes, FIFOs, sockets, terminals, character devices."""

import array
import asyncio
import gc
import os
import socket
import tempfile
import tty
import warnings
import weakref

import pytest
from support import until
from test_pipes_read import Reader, reading, var

pytestmark = pytest.mark.core

BIG = b"0123456789" * 100_000  # more than a pipe holds


class Writer(asyncio.BaseProtocol):
    """Keeps what happens to it."""

    def __init__(self):
        self.events = []
        self.transport = None
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport):
        self.events.append("made")
        self.transport = transport

    def pause_writing(self):
        self.events.append("pause")

    def resume_writing(self):
        self.events.append("resume")

    def connection_lost(self, exc):
        self.events.append("lost")
        self.lost.set_result(exc)


@pytest.fixture
def pipe():
    """A pipe: (the writing end as a file object, the non-blocking reading end)."""
    r, w = os.pipe()
    os.set_blocking(r, False)
    source = os.fdopen(r, "rb", 0)
    file = os.fdopen(w, "wb", 0)
    yield file, source
    source.close()
    file.close()


async def writing(file, factory=Writer):
    return await asyncio.get_running_loop().connect_write_pipe(factory, file)


async def drain(source, count):
    """`count` bytes, or what there is before the end."""
    found = bytearray()
    while len(found) < count:
        data = source.read(count - len(found))
        if data == b"":
            break
        if data is None:
            await asyncio.sleep(0.001)
        else:
            found += data
    return bytes(found)


async def end(transport, protocol):
    transport.close()
    await asyncio.wait_for(protocol.lost, 5)
    await asyncio.sleep(0)


def test_data_and_end(loop, run, pipe):
    file, source = pipe

    async def main():
        transport, protocol = await writing(file)
        assert protocol.transport is transport
        assert isinstance(transport, asyncio.WriteTransport)
        assert weakref.ref(transport)() is transport
        assert transport.get_extra_info("pipe") is file
        assert transport.get_protocol() is protocol
        assert not os.get_blocking(file.fileno())
        assert transport.can_write_eof()
        assert transport.write(b"one") is None
        assert source.read(10) == b"one"  # it went at once
        transport.writelines([b"two", bytearray(b"three"), memoryview(b"four")])
        assert await drain(source, 12) == b"twothreefour"
        transport.write(b"")
        transport.close()
        transport.close()
        assert transport.is_closing()
        assert await protocol.lost is None
        await asyncio.sleep(0)
        assert file.closed
        assert source.read(1) == b""
        assert protocol.events == ["made", "lost"]
        transport.close()

    run(main())


def test_writelines_sends_all_or_nothing(loop, run, pipe):
    file, source = pipe

    async def main():
        transport, protocol = await writing(file)
        with pytest.raises(TypeError):
            transport.writelines([b"one", "two"])
        assert transport.get_write_buffer_size() == 0
        transport.write(b"three")
        await end(transport, protocol)
        assert source.read(100) == b"three"

    run(main())


@pytest.mark.parametrize("kind_of", [list, tuple, iter])
def test_writelines_of_arrays(loop, run, pipe, kind_of):
    file, source = pipe

    async def main():
        transport, protocol = await writing(file)
        transport.writelines(kind_of([b"one,", array.array("B", b"two"), b"."]))
        await end(transport, protocol)
        assert source.read(100) == b"one,two."

    run(main())


def test_flow_control(loop, run, pipe):
    file, source = pipe

    async def main():
        transport, protocol = await writing(file)
        assert transport.get_write_buffer_limits() == (16 * 1024, 64 * 1024)
        changing = bytearray(BIG)
        transport.write(changing)
        assert protocol.events == ["made", "pause"]
        changing[:] = b"x" * len(BIG)
        first = transport.get_write_buffer_size()
        assert 0 < first < len(BIG)
        transport.write(b"more")
        assert transport.get_write_buffer_size() == first + 4
        assert protocol.events == ["made", "pause"]
        assert await drain(source, len(BIG) // 2) == BIG[: len(BIG) // 2]
        await until(lambda: transport.get_write_buffer_size() < first)
        assert await drain(source, len(BIG) // 2 + 4) == BIG[len(BIG) // 2 :] + b"more"
        await until(lambda: protocol.events == ["made", "pause", "resume"])
        assert transport.get_write_buffer_size() == 0
        await end(transport, protocol)

    run(main())


def test_limits(loop, run, pipe):
    file, _ = pipe

    async def main():
        transport, protocol = await writing(file)
        transport.set_write_buffer_limits(high=100)
        assert transport.get_write_buffer_limits() == (25, 100)
        with pytest.raises(ValueError, match=r"high \(1\) must be >= low \(2\) must be >= 0"):
            transport.set_write_buffer_limits(1, 2)
        await end(transport, protocol)

    run(main())


@pytest.mark.parametrize("how", ["close", "write_eof"])
def test_what_waits_leaves_first(loop, run, pipe, how):
    file, source = pipe

    async def main():
        transport, protocol = await writing(file)
        transport.write(BIG)
        transport.write(b"last")
        getattr(transport, how)()
        assert transport.is_closing()
        await asyncio.sleep(0.01)
        assert not protocol.lost.done()
        assert await drain(source, len(BIG) + 5) == BIG + b"last"
        assert await protocol.lost is None

    run(main())


def test_abort(loop, run, pipe):
    file, source = pipe

    async def main():
        transport, protocol = await writing(file)
        transport.write(BIG)
        transport.abort()
        assert transport.is_closing()
        assert transport.get_write_buffer_size() == 0
        assert await protocol.lost is None
        await asyncio.sleep(0)
        assert file.closed
        assert len(await drain(source, len(BIG))) < len(BIG)

    run(main())


def test_abort_after_close(loop, run, pipe):
    file, _ = pipe

    async def main():
        transport, protocol = await writing(file)
        transport.write(BIG)
        transport.close()
        transport.abort()
        assert await protocol.lost is None

    run(main())


def test_the_reader_goes(loop, run, pipe):
    file, source = pipe

    async def main():
        transport, protocol = await writing(file)
        transport.write(b"x")
        source.close()
        assert await protocol.lost is None
        assert transport.is_closing()

    run(main())


def test_the_reader_goes_in_debug_mode(loop, run, pipe, caplog):
    """The failed write() is logged there."""
    file, source = pipe
    loop.set_debug(True)

    async def main():
        transport, protocol = await writing(file)
        source.close()
        with caplog.at_level("DEBUG", logger="asyncio"):
            transport.write(b"for nobody")
        assert isinstance(await asyncio.wait_for(protocol.lost, 5), BrokenPipeError)

    run(main())


def test_the_reader_goes_while_data_waits(loop, run, pipe):
    file, source = pipe

    async def main():
        transport, protocol = await writing(file)
        transport.write(BIG)
        source.close()
        assert isinstance(await protocol.lost, BrokenPipeError)
        assert transport.get_write_buffer_size() == 0

    run(main())


def test_writing_to_nobody(loop, run, pipe):
    """The failure comes as the reason of connection_lost, and is no report."""
    file, source = pipe

    async def main():
        transport, protocol = await writing(file)
        source.close()
        transport.write(b"x")
        assert transport.is_closing()
        assert isinstance(await protocol.lost, BrokenPipeError)

    run(main())


def test_writes_after_the_end(loop, run, pipe, caplog):
    file, _ = pipe

    async def main():
        transport, _ = await writing(file)
        transport.abort()
        for _ in range(8):
            transport.write(b"x")
        texts = {r.getMessage() for r in caplog.records if r.name == "asyncio"}
        assert texts == {"pipe closed by peer or os.write(pipe, data) raised exception."}
        assert transport.get_write_buffer_size() == 0
        await asyncio.sleep(0.01)

    run(main())


@pytest.mark.parametrize("data", ["text", 5, None])
def test_data_that_is_none(loop, run, pipe, data):
    file, _ = pipe

    async def main():
        transport, protocol = await writing(file)
        with pytest.raises(AssertionError):
            transport.write(data)
        await end(transport, protocol)

    run(main())


def test_flow_control_that_fails(loop, run, pipe, errors):
    file, source = pipe

    class Failing(Writer):
        def pause_writing(self):
            super().pause_writing()
            raise ZeroDivisionError

        def resume_writing(self):
            super().resume_writing()
            raise LookupError

    async def main():
        transport, protocol = await writing(file, Failing)
        transport.write(BIG)
        assert await drain(source, len(BIG)) == BIG
        await until(lambda: "resume" in protocol.events)
        await end(transport, protocol)

    run(main())
    assert errors.messages == [
        "protocol.pause_writing() failed",
        "protocol.resume_writing() failed",
    ]


def test_contexts_of_flow_control(kind, loop, run, pipe):
    """The writer's own for pause_writing(); for resume_writing() that of the transport, where
    asyncio's pipes take the one of whoever found them full."""
    file, source = pipe
    seen = []

    class Seeing(Writer):
        def pause_writing(self):
            super().pause_writing()
            seen.append(var.get())

        def resume_writing(self):
            super().resume_writing()
            seen.append(var.get())

    async def main():
        var.set("maker")
        transport, protocol = await writing(file, Seeing)
        var.set("writer")
        transport.write(BIG)
        assert await drain(source, len(BIG)) == BIG
        await until(lambda: "resume" in protocol.events)
        await end(transport, protocol)

    run(main())
    assert seen == ["writer", "writer" if kind == "asyncio" else "maker"]


@pytest.mark.only("uvloop_clone")
def test_resume_writing_writes_and_closes(loop, run, pipe):
    """What resume_writing() wrote leaves before the end; asyncio drops it."""
    file, source = pipe

    class More(Writer):
        def resume_writing(self):
            super().resume_writing()
            if self.events.count("resume") == 1:
                self.transport.write(BIG)
                self.transport.close()

    async def main():
        transport, protocol = await writing(file, More)
        transport.write(BIG)
        assert await drain(source, 2 * len(BIG) + 1) == BIG + BIG
        assert await protocol.lost is None

    run(main())


def test_a_fifo(loop, run, tmp_path):
    path = tmp_path / "fifo"
    os.mkfifo(path)
    source = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb", 0)
    file = os.fdopen(os.open(path, os.O_WRONLY), "wb", 0)

    async def main():
        transport, protocol = await writing(file)
        transport.write(b"through")
        assert await drain(source, 7) == b"through"
        source.close()
        assert await protocol.lost is None

    run(main())


def test_a_socket(loop, run):
    a, b = socket.socketpair()
    b.setblocking(False)

    async def main():
        transport, protocol = await writing(a)
        transport.write(b"x")
        assert await loop.sock_recv(b, 10) == b"x"
        b.close()
        assert await protocol.lost is None
        await asyncio.sleep(0)
        assert a.fileno() == -1

    run(main())


def test_a_terminal(loop, run):
    master, slave = os.openpty()
    tty.setraw(slave)
    file = os.fdopen(slave, "wb", 0)

    async def main():
        transport, protocol = await writing(file)
        transport.write(b"shown")
        assert os.read(master, 100) == b"shown"
        await end(transport, protocol)

    run(main())
    os.close(master)


def test_both_ways_over_one_descriptor(loop, run):
    """A terminal's descriptor serves a reading and a writing transport."""
    master, slave = os.openpty()
    tty.setraw(slave)
    os.set_blocking(master, False)
    read_file = os.fdopen(slave, "rb", 0, closefd=False)
    write_file = os.fdopen(slave, "wb", 0, closefd=False)

    async def main():
        reader, got = await reading(read_file)
        writer, protocol = await writing(write_file)
        for i in range(3):
            os.write(master, b"in %d" % i)
            await until(lambda i=i: got.data.endswith(b"in %d" % i))
            writer.write(b"out %d" % i)
            assert os.read(master, 100) == b"out %d" % i
        writer.write(BIG)  # waits, and reading goes on meanwhile
        os.write(master, b"!")
        await until(lambda: got.data.endswith(b"!"))
        found = bytearray()

        def collect():
            try:
                found.extend(os.read(master, 1 << 16))
            except BlockingIOError:
                return False
            return len(found) == len(BIG)

        await until(collect)
        assert found == BIG
        writer.close()
        reader.close()
        await protocol.lost
        await got.lost

    run(main())
    os.close(slave)
    os.close(master)


def test_dev_null(loop, run):
    file = os.fdopen(os.open(os.devnull, os.O_WRONLY), "wb", 0)

    async def main():
        transport, protocol = await writing(file)
        transport.write(BIG)
        assert transport.get_write_buffer_size() == 0
        await end(transport, protocol)
        assert protocol.events == ["made", "lost"]

    run(main())


def test_a_regular_file(loop, run):
    with tempfile.TemporaryFile() as file:

        async def main():
            with pytest.raises(ValueError) as info:
                await writing(file)
            assert str(info.value) == (
                "Pipe transport is only for pipes, sockets and character devices"
            )

        run(main())
        assert not file.closed


def test_a_pipe_from_end_to_end(loop, run):
    r, w = os.pipe()

    async def main():
        _, got = await reading(os.fdopen(r, "rb", 0))
        transport, protocol = await writing(os.fdopen(w, "wb", 0))
        for _ in range(20):
            transport.write(BIG)
        transport.write_eof()
        await got.lost
        await protocol.lost
        assert got.data == BIG * 20
        assert got.events == ["made", "data", "eof", "lost"]

    run(main())


def test_stream_writer(loop, run, pipe):
    file, source = pipe

    async def main():
        class Protocol(asyncio.streams.FlowControlMixin, asyncio.Protocol):
            def __init__(self):
                super().__init__()
                self.closed = loop.create_future()

            def connection_lost(self, exc):
                super().connection_lost(exc)
                self.closed.set_result(None)

            def _get_close_waiter(self, stream):
                return self.closed

        transport, protocol = await writing(file, Protocol)
        writer = asyncio.StreamWriter(transport, protocol, None, loop)
        writer.write(BIG)
        task = loop.create_task(writer.drain())
        await asyncio.sleep(0.01)
        assert not task.done()
        assert await drain(source, len(BIG)) == BIG
        await task
        writer.close()
        await writer.wait_closed()

    run(main())


def test_repr(loop, run, pipe):
    file, _ = pipe

    async def main():
        transport, protocol = await writing(file)
        fd = file.fileno()
        assert f"fd={fd} idle bufsize=0>" in repr(transport)
        transport.write(BIG)
        assert f"fd={fd} polling bufsize={transport.get_write_buffer_size()}>" in repr(transport)
        transport.abort()
        assert "closing" in repr(transport)
        await protocol.lost
        await asyncio.sleep(0)
        assert "closed" in repr(transport)

    run(main())


def test_unclosed(kind, new_loop):
    loop = new_loop()
    r, w = os.pipe()

    async def main():
        await writing(os.fdopen(w, "wb", 0))

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loop.run_until_complete(main())
        loop.close()
        del loop
        gc.collect()
    texts = [str(w.message) for w in caught if w.category is ResourceWarning]
    assert len([t for t in texts if t.startswith("unclosed transport <")]) == 1
    with pytest.raises(OSError):
        os.fstat(w)
    os.close(r)


def test_a_file_whose_close_fails(loop, run, pipe, errors):
    """Its own buffer meets a reader that is gone."""
    file, source = pipe
    buffered = os.fdopen(os.dup(file.fileno()), "wb")
    file.close()

    async def main():
        transport, protocol = await writing(buffered)
        buffered.write(b"unflushed")
        source.close()
        await protocol.lost
        await asyncio.sleep(0)
        assert transport.is_closing()

    run(main())
    assert [type(exc) for exc in errors.exceptions] == [BrokenPipeError]


def test_reader_and_its_own_writer_in_one_loop(loop, run):
    """Descriptors are used again and again: no state of an earlier one is left."""

    async def main():
        for i in range(50):
            r, w = os.pipe()
            _, got = await reading(os.fdopen(r, "rb", 0), Reader)
            transport, protocol = await writing(os.fdopen(w, "wb", 0))
            transport.write(b"%d" % i)
            transport.close()
            await got.lost
            await protocol.lost
            assert got.data == b"%d" % i

    run(main())
