"""loop.sendfile over TLS: piece by piece, whatever becomes of the connection meanwhile."""

import asyncio
import contextlib
import io
import socket
import ssl
import sys

import pytest
from support import until
from tls_peer import VERSIONS, connect, part

pytestmark = pytest.mark.core

DATA = bytes(range(256)) * (1 << 15)  # 8 MiB: more than everything on the way holds
SMALL = b"0123456789" * 10_000

both_versions = pytest.mark.parametrize("version", VERSIONS, ids=["1.2", "1.3"])
newer = pytest.mark.skipif(sys.version_info < (3, 11), reason="3.10 ends connections differently")


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(DATA)
    with open(path, "rb") as file:
        yield file


async def stalled(transport, file, peer):
    """A transfer that waits for a peer that does not read: the task."""
    loop = asyncio.get_running_loop()
    sending = loop.create_task(loop.sendfile(transport, file))
    assert await peer.receive(1000) == DATA[:1000]
    position = -1
    while file.tell() != position:
        position = file.tell()
        await asyncio.sleep(0.05)
    assert 1000 < position < len(DATA)
    assert not sending.done()
    return sending


async def drain(sock):
    """How much comes until the end, encrypted as it is."""
    count = 0
    while chunk := await asyncio.get_running_loop().sock_recv(sock, 1 << 20):
        count += len(chunk)
    return count


def reset(sock):
    """The peer dies: what it holds unread is answered with a reset."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    sock.close()


@both_versions
@pytest.mark.parametrize("server_side", [False, True])
def test_a_file_between_writes(loop, run, file, version, server_side):
    before = b"b" * (1 << 21)

    async def main():
        transport, protocol, peer = await connect(version=version, server_side=server_side)

        async def send():
            transport.write(before)
            assert await loop.sendfile(transport, file, 1000, len(DATA) - 2000) == len(DATA) - 2000
            assert file.tell() == len(DATA) - 1000
            transport.write(b"after")

        expected = before + DATA[1000:-1000] + b"after"
        _, received = await asyncio.gather(send(), peer.receive(len(expected)))
        assert received == expected
        assert transport.get_protocol() is protocol
        await peer.send(b"answer")
        await until(lambda: protocol.data == b"answer")
        await part(transport, protocol, peer)

    run(main())


def test_what_the_peer_says_meanwhile_waits(loop, run, file):
    async def main():
        transport, protocol, peer = await connect()
        sending = await stalled(transport, file, peer)
        await peer.send(b"early")
        await asyncio.sleep(0.02)
        assert protocol.data == b""
        await peer.receive(len(DATA) - 1000)
        assert await sending == len(DATA)
        await until(lambda: protocol.data == b"early")
        await part(transport, protocol, peer)

    run(main())


@pytest.mark.parametrize("size", [0, 1])
def test_refused_for_a_closing_transport(loop, run, size):
    async def main():
        transport, protocol, peer = await connect()
        transport.close()
        with pytest.raises(RuntimeError, match="Transport is closing"):
            await loop.sendfile(transport, io.BytesIO(bytes(size)))
        transport.abort()
        await protocol.lost
        with pytest.raises(RuntimeError, match="Transport is closing"):
            await loop.sendfile(transport, io.BytesIO(bytes(size)))
        peer.sock.close()

    run(main())


def test_no_fallback(loop, run):
    async def main():
        transport, protocol, peer = await connect()
        file = io.BytesIO(SMALL)
        with pytest.raises(RuntimeError, match="fallback is disabled and native sendfile is not"):
            await loop.sendfile(transport, file, fallback=False)
        assert file.tell() == 0
        await part(transport, protocol, peer)

    run(main())


@newer
@pytest.mark.parametrize("when", ["before the first piece", "between two pieces"])
def test_closed_while_the_file_is_read(loop, run, when):
    """close() comes when nothing waits for room: the next piece is refused."""

    class Closing(io.BytesIO):
        def readinto(self, buffer):
            if self.tell() == (0 if when.startswith("before") else 32768):
                closed = asyncio.run_coroutine_threadsafe(self.close_transport(), loop)
                closed.result(10)
            return super().readinto(buffer)

        async def close_transport(self):
            self.transport.close()

    async def main():
        transport, protocol, peer = await connect()
        file = Closing(SMALL)
        file.transport = transport
        with pytest.raises(ConnectionError, match=r"^Connection closed by peer$"):
            await loop.sendfile(transport, file)
        assert file.tell() == (16384 if when.startswith("before") else 32768)
        assert await peer.receive_end() == (b"" if when.startswith("before") else SMALL[:32768])
        await peer.call(peer.tls.unwrap)
        assert await asyncio.wait_for(protocol.lost, 10) is None
        assert protocol.events[0] == "made" and protocol.events[-1] == "lost"
        peer.sock.close()

    run(main())


@pytest.mark.only("uvloop_clone")
def test_closed_while_it_waits(loop, run, file):
    """What was taken from the file until then arrives, then the goodbye. asyncio counts one piece
    more than it sends."""

    async def main():
        transport, protocol, peer = await connect()
        sending = await stalled(transport, file, peer)
        transport.close()
        received = bytearray(DATA[:1000]) + await peer.receive_end()
        with pytest.raises(ConnectionError, match=r"^Connection closed by peer$"):
            await asyncio.wait_for(sending, 10)
        assert received == DATA[: len(received)]
        assert file.tell() == len(received)
        await peer.call(peer.tls.unwrap)
        assert await asyncio.wait_for(protocol.lost, 10) is None
        peer.sock.close()

    run(main())


@pytest.mark.only("uvloop_clone")
def test_the_peers_goodbye_comes_while_the_transfer_waits(loop, run, file):
    """asyncio's stand-in for the protocol raises RuntimeError when it hears of the end."""

    async def main():
        transport, protocol, peer = await connect()
        sending = await stalled(transport, file, peer)
        await loop.sock_sendall(peer.sock, peer.close_notify())
        await asyncio.sleep(0.02)
        assert not sending.done()
        transport.close()
        drained = loop.create_task(drain(peer.sock))
        with pytest.raises(ConnectionError, match=r"^Connection (is )?closed by peer$"):
            await asyncio.wait_for(sending, 10)
        assert await asyncio.wait_for(protocol.lost, 10) is None
        assert protocol.events == ["made", "eof", "lost"]
        await asyncio.wait_for(drained, 10)
        peer.sock.close()

    run(main())


def test_aborted_while_it_waits(loop, run, file):
    async def main():
        transport, protocol, peer = await connect()
        sending = await stalled(transport, file, peer)
        transport.abort()
        with pytest.raises(ConnectionError, match=r"^Connection is closed by peer$"):
            await asyncio.wait_for(sending, 10)
        assert await asyncio.wait_for(protocol.lost, 10) is None
        assert protocol.events == ["made", "lost"]
        peer.sock.close()

    run(main())


def test_reset_while_it_waits(loop, run, file):
    async def main():
        transport, protocol, peer = await connect()
        sending = await stalled(transport, file, peer)
        reset(peer.sock)
        with pytest.raises((ConnectionResetError, BrokenPipeError)) as caught:
            await asyncio.wait_for(sending, 10)
        assert await asyncio.wait_for(protocol.lost, 10) is caught.value
        assert protocol.events == ["made", "lost"]
        assert transport.is_closing()

    run(main())


@pytest.mark.parametrize("reading", [True, False])
def test_reset_while_the_file_is_read(loop, run, reading):
    class Resetting(io.BytesIO):
        def readinto(self, buffer):
            if self.tell() == 32768:
                asyncio.run_coroutine_threadsafe(self.lose(), loop).result(10)
            return super().readinto(buffer)

        async def lose(self):
            reset(self.sock)
            await asyncio.wait_for(self.lost, 10)

    async def main():
        transport, protocol, peer = await connect()
        if not reading:
            transport.pause_reading()
        file = Resetting(SMALL)
        file.sock, file.lost = peer.sock, protocol.lost
        with pytest.raises(ConnectionError, match=r"^Connection closed by peer$"):
            await loop.sendfile(transport, file)
        assert isinstance(await protocol.lost, ConnectionResetError)

    run(main())


@newer
@both_versions
def test_the_peer_has_said_goodbye_and_goes_on_reading(loop, run, file, version):
    """Nobody looks at the goodbye before the transfer is over."""

    async def main():
        transport, protocol, peer = await connect(version=version)
        sending = await stalled(transport, file, peer)
        await loop.sock_sendall(peer.sock, peer.close_notify())
        await asyncio.sleep(0.02)
        assert not sending.done()
        sent, encrypted = await asyncio.gather(sending, drain(peer.sock))
        assert sent == len(DATA)
        assert encrypted > len(DATA) // 2
        assert await asyncio.wait_for(protocol.lost, 10) is None
        assert protocol.events == ["made", "eof", "lost"]
        peer.sock.close()

    run(main())


@pytest.mark.only("uvloop_clone")
def test_the_peer_ends_without_a_goodbye_and_goes_on_reading(loop, run, file):
    """asyncio reports success here, and drops what comes after the end of the peer."""

    async def main():
        transport, protocol, peer = await connect()
        sending = await stalled(transport, file, peer)
        peer.sock.shutdown(socket.SHUT_WR)
        await asyncio.sleep(0.02)
        received = bytearray(DATA[:1000])
        receiving = asyncio.ensure_future(receive(peer, received))
        with pytest.raises(ConnectionError, match=r"^Connection closed by peer$"):
            await asyncio.wait_for(sending, 10)
        assert await asyncio.wait_for(protocol.lost, 10) is None
        assert protocol.events == ["made", "eof", "lost"]
        await receiving
        assert len(received) == file.tell()
        assert received == DATA[: len(received)]
        peer.sock.close()

    async def receive(peer, received):
        while chunk := await loop.sock_recv(peer.sock, 1 << 18):
            peer.incoming.write(chunk)
            with contextlib.suppress(ssl.SSLWantReadError):
                while data := peer.tls.read(1 << 18):
                    received += data

    run(main())


@pytest.mark.only("uvloop_clone")
def test_written_before_the_end_of_the_peer(loop, run):
    """Reading is paused, the peer has ended and reads: what was written goes on arriving."""

    async def main():
        transport, protocol, peer = await connect()
        transport.pause_reading()
        transport.write(DATA)
        assert transport.get_write_buffer_size() > 0
        peer.sock.shutdown(socket.SHUT_WR)
        await asyncio.sleep(0.05)
        assert await peer.receive(len(DATA)) == DATA
        assert transport.get_write_buffer_size() == 0
        assert protocol.events == ["made", "pause", "resume"]
        transport.resume_reading()
        assert await asyncio.wait_for(protocol.lost, 10) is None
        peer.sock.close()

    run(main())


def test_cancelled(loop, run, file):
    async def main():
        transport, protocol, peer = await connect()
        sending = await stalled(transport, file, peer)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        assert transport.get_protocol() is protocol
        position = file.tell()
        transport.write(b"the rest is silence")
        received = await peer.receive(position - 1000 + 19)
        assert received == DATA[1000:position] + b"the rest is silence"
        await part(transport, protocol, peer)

    run(main())
