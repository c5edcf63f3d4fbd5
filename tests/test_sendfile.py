"""loop.sendfile and loop.sock_sendfile: by the kernel, and piece by piece where it cannot."""

import asyncio
import asyncio.unix_events
import contextlib
import inspect
import io
import os
import socket
import sys

import pytest
from support import attach, open_fds, read_exactly, read_to_end, until

pytestmark = pytest.mark.core

DATA = bytes(range(256)) * (1 << 16)  # 16 MiB: more than the kernel holds on both sides together
SMALL = b"0123456789" * 100


# Later versions, 3.14.10 for one, set the position even where nothing was sent.
SETS_POSITION_ALWAYS = (
    "total_sent"
    not in inspect.signature(
        asyncio.unix_events._UnixSelectorEventLoop._sock_sendfile_update_filepos
    ).parameters
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("files")


@pytest.fixture(scope="module")
def large_path(folder):
    path = folder / "large"
    path.write_bytes(DATA)
    return path


@pytest.fixture
def large(large_path):
    with open(large_path, "rb") as file:
        yield file


@pytest.fixture
def small(folder):
    path = folder / "small"
    path.write_bytes(SMALL)
    with open(path, "rb") as file:
        yield file


async def both(sending, receiving):
    """The results of a transfer and of its reader; the first failure ends both."""
    tasks = [asyncio.ensure_future(sending), asyncio.ensure_future(receiving)]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


# -- sock_sendfile -----------------------------------------------------------------------------


@pytest.mark.parametrize("name, data", [("small", SMALL), ("large", DATA)])
def test_socket_whole_file(loop, run, pair, request, name, data):
    a, b = pair()
    file = request.getfixturevalue(name)

    async def main():
        sent, received = await both(loop.sock_sendfile(a, file), read_exactly(b, len(data)))
        assert sent == len(data)
        assert received == data
        assert file.tell() == len(data)

    run(main())


@pytest.mark.parametrize(
    "offset, count, expected",
    [
        (0, 10, SMALL[:10]),
        (7, None, SMALL[7:]),
        (5, 20, SMALL[5:25]),
        (990, 100, SMALL[990:]),
        (0, 1 << 62, SMALL),
        (1000, None, b""),
        (2000, 10, b""),
    ],
)
def test_socket_part_of_a_file(loop, run, pair, small, offset, count, expected):
    a, b = pair()

    async def main():
        assert await loop.sock_sendfile(a, small, offset, count) == len(expected)
        # Where nothing was sent, it depends on asyncio's version.
        assert small.tell() in ((offset + len(expected),) if expected else (0, offset))
        a.close()
        assert await read_to_end(b) == expected

    run(main())


@pytest.mark.skipif(SETS_POSITION_ALWAYS, reason="asyncio sets it to the offset here")
@pytest.mark.parametrize("fallback", [True, False])
def test_socket_position_where_nothing_was_sent(loop, run, pair, small, fallback):
    a, _ = pair()
    small.seek(3)
    assert run(loop.sock_sendfile(a, small, 1000, fallback=fallback)) == 0
    assert small.tell() == 3


def test_socket_empty_file(loop, run, pair, folder):
    a, _ = pair()

    async def main():
        with open(folder / "empty", "w+b") as file:
            assert await loop.sock_sendfile(a, file) == 0
            assert await loop.sock_sendfile(a, file, 5) == 0
            assert file.tell() == 0

    run(main())


def test_socket_between_other_sends(loop, run, pair, large):
    a, b = pair()

    async def send():
        await loop.sock_sendall(a, b"before")
        assert await loop.sock_sendfile(a, large) == len(DATA)
        await loop.sock_sendall(a, b"after")
        a.close()

    async def main():
        _, received = await both(send(), read_to_end(b))
        assert received == b"before" + DATA + b"after"

    run(main())


def test_socket_leaves_the_loop_free(loop, run, pair, large):
    a, b = pair()

    async def main():
        sending = loop.create_task(loop.sock_sendfile(a, large))
        for _ in range(50):  # nobody reads: the transfer waits, the loop turns
            await asyncio.sleep(0)
        assert not sending.done()
        assert await read_exactly(b, len(DATA)) == DATA
        assert await sending == len(DATA)

    run(main())


def test_socket_cancelled(loop, run, pair, large):
    a, b = pair()

    async def main():
        sending = loop.create_task(loop.sock_sendfile(a, large))
        await asyncio.sleep(0.05)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        a.close()
        received = await read_to_end(b)
        assert 0 < len(received) < len(DATA)
        assert received == DATA[: len(received)]
        return len(received)

    run(main())


@pytest.mark.only("uvloop_clone")
def test_socket_cancelled_position(loop, run, pair, large):
    """asyncio forgets to move the file's position here, though it says that it tells the bytes."""
    a, b = pair()

    async def main():
        sending = loop.create_task(loop.sock_sendfile(a, large, 100))
        await asyncio.sleep(0.05)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        a.close()
        assert os.lseek(large.fileno(), 0, os.SEEK_CUR) == 100 + len(await read_to_end(b))

    run(main())


def test_socket_usable_after_cancel(loop, run, pair, large):
    a, b = pair()

    async def main():
        sending = loop.create_task(loop.sock_sendfile(a, large))
        await asyncio.sleep(0.05)
        sending.cancel()
        await asyncio.wait([sending])

        async def send():
            await loop.sock_sendall(a, b"the end")
            a.close()

        _, received = await both(send(), read_to_end(b))
        assert received.endswith(b"the end")

    run(main())


def test_socket_peer_goes_away(loop, run, pair, large):
    a, b = pair()

    async def main():
        sending = loop.create_task(loop.sock_sendfile(a, large))
        await read_exactly(b, 1000)
        await asyncio.sleep(0.05)
        b.close()
        with pytest.raises(ConnectionError):
            await sending
        assert 1000 <= large.tell() < len(DATA)

    run(main())


def test_socket_closed_before(loop, run, pair, small):
    a, _ = pair()
    a.close()

    async def main():
        with pytest.raises(asyncio.SendfileNotAvailableError, match=r"os\.sendfile call failed"):
            await loop.sock_sendfile(a, small, fallback=False)
        with pytest.raises(OSError):
            await loop.sock_sendfile(a, small)

    run(main())


def test_socket_falls_back_for_memory(loop, run, pair):
    a, b = pair()
    file = io.BytesIO(DATA)

    async def main():
        sent, received = await both(
            loop.sock_sendfile(a, file, 16, len(DATA) - 32), read_exactly(b, len(DATA) - 32)
        )
        assert sent == len(DATA) - 32
        assert received == DATA[16:-16]
        assert file.tell() == len(DATA) - 16

    run(main())


def test_socket_falls_back_for_what_only_reads(loop, run, pair):
    a, b = pair()
    read_end, write_end = os.pipe()
    os.write(write_end, b"through a pipe")
    os.close(write_end)

    class File:
        """A pipe: the kernel's sendfile refuses it, and it has no position."""

        def __init__(self):
            self.raw = open(read_end, "rb", buffering=0)  # noqa: SIM115
            self.fileno = self.raw.fileno
            self.readinto = self.raw.readinto

    file = File()

    async def main():
        assert await loop.sock_sendfile(a, file) == 0  # its size is 0
        with pytest.raises(asyncio.SendfileNotAvailableError, match=r"os\.sendfile call failed"):
            await loop.sock_sendfile(a, file, 0, 7, fallback=False)
        assert await loop.sock_sendfile(a, file, 0, 7) == 7
        assert await loop.sock_sendfile(a, file, 0, 100) == 7
        assert await read_exactly(b, 14) == b"through a pipe"

    run(main())
    file.raw.close()


@pytest.mark.parametrize("file", [io.BytesIO(b"abc"), object()])
def test_socket_no_fallback(loop, run, pair, file):
    a, _ = pair()

    async def main():
        with pytest.raises(asyncio.SendfileNotAvailableError, match="not a regular file"):
            await loop.sock_sendfile(a, file, fallback=False)

    run(main())


@pytest.mark.parametrize(
    "offset, count, error, text",
    [
        (0, 0, ValueError, r"count must be a positive integer \(got 0\)"),
        (0, -1, ValueError, r"count must be a positive integer \(got -1\)"),
        (0, "x", TypeError, r"count must be a positive integer \(got 'x'\)"),
        (0, 1.5, TypeError, r"count must be a positive integer \(got 1\.5\)"),
        (-1, None, ValueError, r"offset must be a non-negative integer \(got -1\)"),
        ("x", None, TypeError, r"offset must be a non-negative integer \(got 'x'\)"),
        (None, None, TypeError, r"offset must be a non-negative integer \(got None\)"),
        (1 << 64, None, OverflowError, "too (big|large)"),
    ],
)
def test_socket_arguments(loop, run, pair, small, offset, count, error, text):
    a, _ = pair()

    async def main():
        with pytest.raises(error, match=text):
            await loop.sock_sendfile(a, small, offset, count)
        assert small.tell() == 0

    run(main())


def test_socket_text_file(loop, run, pair, small):
    a, _ = pair()

    async def main():
        with open(small.name) as file:
            with pytest.raises(ValueError, match="file should be opened in binary mode"):
                await loop.sock_sendfile(a, file)

    run(main())


def test_socket_datagram(loop, run, small):
    async def main():
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            with pytest.raises(ValueError, match="only SOCK_STREAM type sockets are supported"):
                await loop.sock_sendfile(sock, small)

    run(main())


def test_socket_blocking_in_debug_mode(loop, run, pair, small):
    a, _ = pair()
    a.setblocking(True)

    async def main():
        loop.set_debug(True)
        with pytest.raises(ValueError, match="the socket must be non-blocking"):
            await loop.sock_sendfile(a, small)

    run(main())


def test_socket_of_a_transport(loop, run, pair, large):
    a, _ = pair()

    async def main():
        transport, protocol = await attach(a)
        with pytest.raises(RuntimeError, match=r"File descriptor \d+ is used by transport"):
            await loop.sock_sendfile(transport.get_extra_info("socket"), large)
        transport.abort()
        await protocol.lost

    run(main())


# -- sendfile ----------------------------------------------------------------------------------


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize(
    "offset, count", [(0, None), (1000, None), (0, 5000), (70_000, 1_000_000), (16, 1 << 40)]
)
def test_transport(loop, run, pair, large, native, offset, count):
    a, b = pair()
    file = large if native else io.BytesIO(DATA)
    expected = DATA[offset:][:count]

    async def main():
        transport, protocol = await attach(a)
        sent, received = await both(
            loop.sendfile(transport, file, offset, count), read_exactly(b, len(expected))
        )
        assert sent == len(expected)
        assert received == expected
        assert file.tell() == offset + len(expected)
        transport.close()
        await protocol.lost
        assert protocol.events == ["made", "lost"]

    run(main())


@pytest.mark.parametrize("native", [True, False])
def test_transport_keeps_order(loop, run, pair, large, native):
    a, b = pair()
    file = large if native else io.BytesIO(DATA)
    before = b"p" * (1 << 23)  # waits in the transport when the transfer begins

    async def send(transport):
        transport.write(b"first")
        transport.write(before)
        assert await loop.sendfile(transport, file) == len(DATA)
        transport.write(b"last")
        transport.close()

    async def main():
        transport, protocol = await attach(a)
        _, received = await both(send(transport), read_to_end(b))
        assert received == b"first" + before + DATA + b"last"
        assert await protocol.lost is None

    run(main())


@pytest.mark.parametrize("native", [True, False])
def test_transport_reads_afterwards(loop, run, pair, small, native):
    a, b = pair()
    file = small if native else io.BytesIO(SMALL)

    async def main():
        transport, protocol = await attach(a)
        await loop.sendfile(transport, file)
        assert await read_exactly(b, len(SMALL)) == SMALL
        assert transport.is_reading()
        b.send(b"answer")
        await until(lambda: protocol.data == b"answer")
        assert transport.get_protocol() is protocol
        transport.close()
        await protocol.lost

    run(main())


def test_transport_stays_paused(loop, run, pair, small):
    a, b = pair()

    async def main():
        transport, protocol = await attach(a)
        transport.pause_reading()
        b.send(b"early")
        await loop.sendfile(transport, small)
        await asyncio.sleep(0.02)
        assert not transport.is_reading()
        assert protocol.data == b""
        transport.resume_reading()
        await until(lambda: protocol.data == b"early")
        transport.close()
        await protocol.lost

    run(main())


def test_transport_nothing_read_meanwhile(loop, run, pair, large):
    a, b = pair()

    async def main():
        transport, protocol = await attach(a)
        sending = loop.create_task(loop.sendfile(transport, large))
        await asyncio.sleep(0.02)
        b.send(b"early")
        await asyncio.sleep(0.02)
        assert not transport.is_reading()
        assert protocol.data == b""
        assert await read_exactly(b, len(DATA)) == DATA
        assert await sending == len(DATA)
        await until(lambda: protocol.data == b"early")
        transport.close()
        await protocol.lost

    run(main())


def test_transport_is_not_written_meanwhile(loop, run, pair, large):
    a, b = pair()

    async def main():
        transport, protocol = await attach(a)
        sending = loop.create_task(loop.sendfile(transport, large))
        await asyncio.sleep(0.02)
        with pytest.raises(RuntimeError, match="unable to write; sendfile is in progress"):
            transport.write(b"data")
        name = "writelines" if sys.version_info >= (3, 12) else "write"
        with pytest.raises(RuntimeError, match=f"unable to {name}; sendfile is in progress"):
            transport.writelines([b"data"])
        assert await read_exactly(b, len(DATA)) == DATA
        assert await sending == len(DATA)
        transport.write(b"again")
        assert await read_exactly(b, 5) == b"again"
        transport.close()
        await protocol.lost

    run(main())


def test_transport_peer_goes_away(loop, run, pair, large):
    a, b = pair()

    async def main():
        transport, protocol = await attach(a)
        sending = loop.create_task(loop.sendfile(transport, large))
        await read_exactly(b, 1000)
        await asyncio.sleep(0.02)
        b.close()
        with pytest.raises(ConnectionError):
            await sending
        assert 1000 <= large.tell() < len(DATA)
        await protocol.lost
        assert transport.is_closing()

    run(main())


def test_transport_peer_goes_away_while_it_drains(loop, run, pair, large, errors):
    """What was written before does not get through: the file is not even begun."""
    a, b = pair()

    async def main():
        transport, protocol = await attach(a)
        transport.write(DATA)
        sending = loop.create_task(loop.sendfile(transport, large))
        await asyncio.sleep(0.02)
        b.close()
        with pytest.raises(ConnectionError):
            await sending
        assert large.tell() == 0
        assert isinstance(await protocol.lost, ConnectionError)

    run(main())


def test_transport_peer_goes_away_between_two_writes(loop, run, pair, large, errors):
    """What the kernel took last is not all there was to send."""
    a, b = pair()

    async def main():
        transport, protocol = await attach(a)
        transport.set_write_buffer_limits(high=2_000_000, low=1_000_000)
        transport.write(bytes(8_000_000))
        sending = loop.create_task(loop.sendfile(transport, large))
        while transport.get_write_buffer_size() > 1_500_000:
            await loop.sock_recv(b, 200_000)
        with contextlib.suppress(BlockingIOError):
            while True:
                b.recv(1_000_000)
        b.close()
        with pytest.raises(ConnectionError):
            await sending
        await protocol.lost

    run(main())


def test_fallback_peer_goes_away(loop, run, pair):
    a, b = pair()
    file = io.BytesIO(DATA)

    async def main():
        transport, protocol = await attach(a)
        sending = loop.create_task(loop.sendfile(transport, file))
        await read_exactly(b, 1000)
        await asyncio.sleep(0.02)
        b.close()
        with pytest.raises(ConnectionError):
            await sending
        await protocol.lost
        assert protocol.events == ["made", "lost"]

    run(main())


@pytest.mark.only("uvloop_clone")
@pytest.mark.parametrize("method", ["close", "abort"])
def test_transport_closed_meanwhile(loop, run, pair, large, method):
    """asyncio waits for ever here."""
    a, b = pair()

    async def main():
        transport, protocol = await attach(a)
        sending = loop.create_task(loop.sendfile(transport, large))
        await asyncio.sleep(0.02)
        getattr(transport, method)()
        with pytest.raises(ConnectionError):
            await sending
        assert await protocol.lost is None
        assert 0 < large.tell() < len(DATA)
        assert len(await read_to_end(b)) == large.tell()

    run(main())


@pytest.mark.parametrize("native", [True, False])
def test_transport_cancelled(loop, run, pair, large, native):
    a, b = pair()
    file = large if native else io.BytesIO(DATA)

    async def main():
        transport, protocol = await attach(a)
        sending = loop.create_task(loop.sendfile(transport, file))
        await asyncio.sleep(0.02)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        assert transport.is_reading()
        assert transport.get_protocol() is protocol
        transport.write(b"the end")
        transport.close()
        received = await read_to_end(b)
        assert received.endswith(b"the end")
        assert received[:-7] == DATA[: len(received) - 7]
        assert await protocol.lost is None

    run(main())


@pytest.mark.only("uvloop_clone")
def test_transport_cancelled_while_it_drains(loop, run, pair, large):
    """asyncio leaves such a transport unable to write for ever."""
    a, b = pair()

    async def main():
        transport, protocol = await attach(a)
        transport.write(DATA)
        sending = loop.create_task(loop.sendfile(transport, large))
        await asyncio.sleep(0.02)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        assert transport.is_reading()
        transport.write(b"the end")
        transport.close()
        assert await read_to_end(b) == DATA + b"the end"
        assert await protocol.lost is None

    run(main())


@pytest.mark.only("uvloop_clone")
def test_two_transfers_at_once(loop, run, pair, large, small):
    """asyncio: KeyError, and the first one is disturbed."""
    a, b = pair()

    async def main():
        transport, protocol = await attach(a)
        sending = loop.create_task(loop.sendfile(transport, large))
        await asyncio.sleep(0.02)
        with pytest.raises(RuntimeError, match="Empty waiter is already set"):
            await loop.sendfile(transport, small)
        assert await read_exactly(b, len(DATA)) == DATA
        assert await sending == len(DATA)
        assert transport.is_reading()
        transport.close()
        await protocol.lost

    run(main())


def test_closing_transport(loop, run, pair, small):
    a, _ = pair()

    async def main():
        transport, protocol = await attach(a)
        transport.close()
        with pytest.raises(RuntimeError, match="Transport is closing"):
            await loop.sendfile(transport, small)
        await protocol.lost

    run(main())


def test_transport_that_carries_no_files(loop, run, small):
    class Transport(asyncio.WriteTransport):
        def is_closing(self):
            return False

    async def main():
        with pytest.raises(RuntimeError, match="sendfile is not supported for transport <"):
            await loop.sendfile(Transport(), small)

    run(main())


def test_no_fallback(loop, run, pair):
    a, _ = pair()

    async def main():
        transport, protocol = await attach(a)
        with pytest.raises(asyncio.SendfileNotAvailableError, match="not a regular file"):
            await loop.sendfile(transport, io.BytesIO(b"abc"), fallback=False)
        assert transport.is_reading()
        transport.close()
        await protocol.lost

    run(main())


@pytest.mark.parametrize(
    "offset, count, error",
    [(0, 0, ValueError), (-1, None, ValueError), ("x", None, TypeError), (0, "x", TypeError)],
)
def test_transport_arguments(loop, run, pair, small, offset, count, error):
    a, _ = pair()

    async def main():
        transport, protocol = await attach(a)
        with pytest.raises(error, match="must be a"):
            await loop.sendfile(transport, small, offset, count)
        assert transport.is_reading()
        transport.write(b"still writable")
        transport.close()
        await protocol.lost

    run(main())


def test_protocol_hears_of_no_flow_control(loop, run, pair):
    """The water marks' callbacks of a transfer piece by piece are not the protocol's."""
    a, b = pair()

    async def main():
        transport, protocol = await attach(a)
        file = io.BytesIO(DATA)
        await both(loop.sendfile(transport, file), read_exactly(b, len(DATA)))
        assert "pause" not in protocol.events
        transport.close()
        await protocol.lost

    run(main())


@pytest.mark.parametrize("native", [True, False])
def test_paused_protocol_is_resumed_once(loop, run, pair, large, native):
    a, b = pair()
    file = large if native else io.BytesIO(DATA)

    async def main():
        transport, protocol = await attach(a)
        transport.write(DATA)
        assert protocol.events == ["made", "pause"]
        await both(loop.sendfile(transport, file), read_exactly(b, 2 * len(DATA)))
        assert protocol.events == ["made", "pause", "resume"]
        transport.close()
        await protocol.lost

    run(main())


@pytest.mark.only("uvloop_clone")
def test_protocol_learns_that_the_buffer_is_full(loop, run, pair):
    """asyncio resumes a protocol that it never paused."""
    a, b = pair()

    class File:
        """Goes on until the transport's buffer is full."""

        sent = 0

        def readinto(self, view):
            if transport._protocol_paused:
                return 0
            self.sent += len(view)
            return len(view)

    async def main():
        nonlocal transport
        transport, protocol = await attach(a)
        file = File()
        assert await loop.sendfile(transport, file) == file.sent
        assert protocol.events == ["made", "pause"]
        await read_exactly(b, file.sent)
        await until(lambda: protocol.events == ["made", "pause", "resume"])
        transport.close()
        await protocol.lost

    transport = None
    run(main())


def test_stream_writer(loop, run, large):
    """Through asyncio's streams, whose protocol asserts that pauses and resumes alternate."""

    async def main():
        received = loop.create_future()

        async def serve(reader, writer):
            received.set_result(await reader.read())
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1")
        address = server.sockets[0].getsockname()
        _, writer = await asyncio.open_connection(*address)
        writer.write(b"head")
        assert await loop.sendfile(writer.transport, large) == len(DATA)
        writer.write(b"tail")
        await writer.drain()
        writer.close()
        assert await received == b"head" + DATA + b"tail"
        await writer.wait_closed()
        server.close()
        await server.wait_closed()

    run(main())


def test_unix_socket(loop, run, large):
    a, b = socket.socketpair()
    a.setblocking(False)
    b.setblocking(False)

    async def main():
        transport, protocol = await attach(a)
        sent, received = await both(loop.sendfile(transport, large), read_exactly(b, len(DATA)))
        assert sent == len(DATA)
        assert received == DATA
        transport.close()
        await protocol.lost

    run(main())
    b.close()


def test_no_descriptor_left(loop, run, pair, small):
    a, b = pair()

    async def main():
        transport, protocol = await attach(a)
        await loop.sendfile(transport, small)
        before = open_fds()
        for _ in range(50):
            await loop.sendfile(transport, small)
        assert open_fds() == before
        transport.close()
        assert await read_to_end(b) == SMALL * 51
        await protocol.lost

    run(main())
