"""Data over TLS: sizes, buffers, protocols, flow control in both directions."""

import asyncio
import contextlib
import functools
import shutil
import ssl
import subprocess

import pytest
from serving import Echo, port_of, shut
from support import BufferedRecorder as BytearrayRecorder
from support import Recorder, attach, tcp_pair, until
from tls_peer import (
    NAME,
    VERSIONS,
    Peer,
    certificate,
    client_context,
    connect,
    part,
    server_context,
)

pytestmark = pytest.mark.core

both_versions = pytest.mark.parametrize("version", VERSIONS, ids=["1.2", "1.3"])
both_sides = pytest.mark.parametrize("server_side", [False, True], ids=["client", "server"])
PATTERN = bytes(range(251)) * 9000  # more than two megabytes, out of step with every power of two


@both_versions
@both_sides
@pytest.mark.parametrize("size", [1, 16384, 16385, 300_000])
def test_both_ways(loop, run, version, server_side, size):
    async def main():
        transport, protocol, peer = await connect(version=version, server_side=server_side)
        data = PATTERN[:size]
        sending = asyncio.ensure_future(peer.send(data))
        await until(lambda: len(protocol.data) == size)
        await sending
        assert protocol.data == data
        transport.write(data)
        assert await peer.receive(size) == data
        await part(transport, protocol, peer)

    run(main())


class BufferedRecorder(BytearrayRecorder):
    """asyncio's TLS slices the buffer, which must then be a view to be written through."""

    def get_buffer(self, sizehint):
        return memoryview(super().get_buffer(sizehint))


def interrupted(loop, failing, ended):
    """An exit out of a callback leaves some data undelivered, and nothing else may come."""

    class Leaving(BufferedRecorder):
        calls = 0

        def get_buffer(self, sizehint):
            self.leave("get_buffer")
            return super().get_buffer(sizehint)

        def buffer_updated(self, nbytes):
            super().buffer_updated(nbytes)
            self.leave("buffer_updated")

        def leave(self, name):
            self.calls += name == failing
            if self.calls == 2:
                self.calls += 1
                raise KeyboardInterrupt

    async def main():
        transport, protocol, peer = await connect(lambda: Leaving(100))
        if ended:
            transport.pause_reading()
        await peer.send(PATTERN[:10_000])
        if ended:
            peer.sock.shutdown(1)
            await asyncio.sleep(0.02)
            transport.resume_reading()
        await until(lambda: len(protocol.data) == 10_000)
        assert protocol.data == PATTERN[:10_000]
        transport.abort()
        await protocol.lost
        peer.sock.close()

    task = loop.create_task(asyncio.wait_for(main(), 5))
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(task)
    loop.run_until_complete(task)


@pytest.mark.parametrize("failing", ["get_buffer", "buffer_updated"])
def test_the_next_run_goes_on_with_what_has_arrived(loop, failing):
    interrupted(loop, failing, ended=False)


@pytest.mark.only("uvloop_clone")  # asyncio stops for good
@pytest.mark.parametrize("failing", ["get_buffer", "buffer_updated"])
def test_the_next_run_goes_on_with_what_came_before_the_end(loop, failing):
    interrupted(loop, failing, ended=True)


def test_one_call_for_what_arrives_together(loop, run):
    async def main():
        transport, protocol, peer = await connect()
        records = b"".join(peer.encrypt(bytes([i]) * 100) for i in range(20))
        await loop.sock_sendall(peer.sock, records)
        await until(lambda: len(protocol.data) == 2000)
        assert protocol.data == b"".join(bytes([i]) * 100 for i in range(20))
        assert protocol.events.count("data") == 1
        await part(transport, protocol, peer)

    run(main())


def test_a_record_in_pieces(loop, run):
    async def main():
        transport, protocol, peer = await connect()
        record = peer.encrypt(b"in pieces")
        for i in range(len(record)):
            assert protocol.data == b""
            await loop.sock_sendall(peer.sock, record[i : i + 1])
            await asyncio.sleep(0.001)
        await until(lambda: protocol.data == b"in pieces")
        # one and a half records, then the rest
        records = peer.encrypt(PATTERN[:30000])
        await loop.sock_sendall(peer.sock, records[:20000])
        await until(lambda: len(protocol.data) == 9 + 16384)
        await loop.sock_sendall(peer.sock, records[20000:])
        await until(lambda: len(protocol.data) == 9 + 30000)
        assert protocol.data[9:] == PATTERN[:30000]
        await part(transport, protocol, peer)

    run(main())


@pytest.mark.parametrize("size", [1, 7, 1000, 16384, 100_000])
def test_buffered_protocol(loop, run, size):
    async def main():
        transport, protocol, peer = await connect(lambda: BufferedRecorder(size))
        wanted = PATTERN[: min(150_000, size * 2000)]
        sending = asyncio.ensure_future(peer.send(wanted))
        await until(lambda: len(protocol.data) == len(wanted))
        await sending
        assert protocol.data == wanted
        assert all(hint >= 0 for hint in protocol.hints)
        transport.write(b"answer")
        assert await peer.receive(6) == b"answer"
        await part(transport, protocol, peer)

    run(main())


@pytest.mark.only("uvloop_clone")
def test_a_bytearray_as_the_buffer(loop, run):
    """Written through in all its length; asyncio's TLS loses what a second record brings."""

    async def main():
        transport, protocol, peer = await connect(lambda: BytearrayRecorder(1000))
        await peer.send(PATTERN[:100_000])
        await until(lambda: len(protocol.data) == 100_000)
        assert protocol.data == PATTERN[:100_000]
        await part(transport, protocol, peer)

    run(main())


def test_an_empty_buffer(loop, run, errors):
    class Empty(BufferedRecorder):
        def get_buffer(self, sizehint):
            return bytearray()

    async def main():
        transport, protocol, peer = await connect(Empty)
        await loop.sock_sendall(peer.sock, peer.encrypt(b"x"))
        await asyncio.wait_for(protocol.lost, 10)
        assert protocol.data == b""
        peer.sock.close()

    run(main())


def test_protocols_are_switched(loop, run):
    class First(Recorder):
        def data_received(self, data):
            super().data_received(data)
            self.transport.set_protocol(self.second)

    async def main():
        transport, protocol, peer = await connect(First)
        second = protocol.second = BufferedRecorder(10)
        assert transport.get_protocol() is protocol
        await peer.send(b"first")
        await until(lambda: protocol.data == b"first")
        assert transport.get_protocol() is second
        await peer.send(b"for the second one")
        await until(lambda: second.data == b"for the second one")
        transport.close()
        await peer.receive_end()
        await peer.call(peer.tls.unwrap)
        await asyncio.wait_for(second.lost, 10)
        assert protocol.data == b"first" and not protocol.lost.done()
        peer.sock.close()

    run(main())


def test_a_protocol_of_the_other_kind_in_mid_stream(loop, run):
    """What is decrypted after the switch belongs to the second one."""

    class First(BufferedRecorder):
        def buffer_updated(self, nbytes):
            super().buffer_updated(nbytes)
            self.transport.set_protocol(self.second)

    async def main():
        transport, protocol, peer = await connect(lambda: First(10))
        second = protocol.second = Recorder()
        await peer.send(PATTERN[:30_000])
        await until(lambda: len(second.data) == 30_000 - 10)
        assert protocol.data == PATTERN[:10]
        assert second.data == PATTERN[10:30_000]
        await part(transport, second, peer)
        assert protocol.events == ["made", "data"]

    run(main())


def test_a_protocol_of_the_other_kind_from_get_buffer(loop, run):
    """buffer_updated() is for the one that gave the buffer."""

    class First(BufferedRecorder):
        second = None

        def get_buffer(self, sizehint):
            if self.second is not None:
                self.transport.set_protocol(self.second)
            return super().get_buffer(sizehint)

    async def main():
        transport, protocol, peer = await connect(First)
        second = protocol.second = Recorder()
        await peer.send(b"for the first one")
        await until(lambda: protocol.data == b"for the first one")
        await peer.send(b"for the second one")
        await until(lambda: second.data == b"for the second one")
        await part(transport, second, peer)
        assert protocol.events == ["made", "data"]

    run(main())


# -- writing -------------------------------------------------------------------------------------


def test_what_may_be_written(loop, run):
    async def main():
        transport, protocol, peer = await connect()
        changing = bytearray(b"array,")
        view = memoryview(bytearray(b"a view,"))[2:]
        transport.write(b"bytes,")
        transport.write(changing)
        transport.write(b"")
        transport.write(memoryview(changing))
        transport.write(view)
        transport.writelines([b"l", bytearray(b"i"), b"", memoryview(b"nes")])
        changing[:] = b"ARRAY!"
        wanted = b"bytes,array,array,view,lines"
        assert await peer.receive(len(wanted)) == wanted
        for wrong in ("text", None, 1, [b"x"]):
            with pytest.raises(TypeError, match="data: expecting a bytes-like instance, got"):
                transport.write(wrong)
        await part(transport, protocol, peer)

    run(main())


def test_another_protocol_for_the_transport_below(loop, run):
    """TLS is told nothing any more, but what it is given to write still leaves."""

    async def main():
        a, b = tcp_pair()
        below, protocol = await attach(a)
        peer = Peer(b, server_context(), True)
        starting = loop.start_tls(below, protocol, client_context(), server_hostname=NAME)
        transport, _ = await asyncio.gather(starting, peer.handshake())
        other = Recorder()
        transport.write(b"before,")
        below.set_protocol(other)
        transport.write(b"after")
        assert await asyncio.wait_for(peer.receive(12), 10) == b"before,after"
        transport.abort()
        assert await asyncio.wait_for(other.lost, 10) is None
        peer.sock.close()

    run(main())


def test_many_small_writes_keep_their_order(loop, run):
    async def main():
        transport, protocol, peer = await connect()
        for i in range(3000):
            transport.write(b"%d," % i)
        wanted = b"".join(b"%d," % i for i in range(3000))
        assert await peer.receive(len(wanted)) == wanted
        await part(transport, protocol, peer)

    run(main())


def test_a_slow_reader_pauses_the_writer(loop, run):
    async def main():
        transport, protocol, peer = await connect()
        written = 0
        while "pause" not in protocol.events:
            transport.write(PATTERN[:100_000])
            written += 1
            assert written < 1000
            await asyncio.sleep(0)
        assert transport.get_write_buffer_size() > 0
        total = written * 100_000
        assert await peer.receive(total) == PATTERN[:100_000] * written
        await until(lambda: protocol.events[-1] == "resume")
        assert transport.get_write_buffer_size() == 0
        assert protocol.events == ["made", "pause", "resume"]
        await part(transport, protocol, peer)

    run(main())


def test_write_buffer_limits(loop, run):
    async def main():
        transport, protocol, peer = await connect()
        assert transport.get_write_buffer_limits() == (131072, 524288)
        transport.set_write_buffer_limits(high=1000)
        assert transport.get_write_buffer_limits() == (250, 1000)
        transport.set_write_buffer_limits(low=1000)
        assert transport.get_write_buffer_limits() == (1000, 4000)
        transport.set_write_buffer_limits(10, 5)
        assert transport.get_write_buffer_limits() == (5, 10)
        for high, low in [(5, 10), (-1, None), (None, -1)]:
            with pytest.raises(ValueError, match="must be >= low"):
                transport.set_write_buffer_limits(high, low)
        transport.set_write_buffer_limits()
        assert transport.get_write_buffer_limits() == (131072, 524288)
        assert transport.can_write_eof() is False
        with pytest.raises(NotImplementedError):
            transport.write_eof()
        await part(transport, protocol, peer)

    run(main())


def test_failing_flow_control_is_reported(loop, run, errors):
    class Failing(Recorder):
        def pause_writing(self):
            super().pause_writing()
            raise ZeroDivisionError

        def resume_writing(self):
            super().resume_writing()
            raise KeyError("resume")

    async def main():
        transport, protocol, peer = await connect(Failing)
        written = 0
        while "pause" not in protocol.events:
            transport.write(PATTERN[:100_000])
            written += 1
            await asyncio.sleep(0)
        await peer.receive(written * 100_000)
        await until(lambda: "resume" in protocol.events)
        await part(transport, protocol, peer)

    run(main())
    assert [type(exc) for exc in errors.exceptions] == [ZeroDivisionError, KeyError]
    assert errors.messages == [
        "protocol.pause_writing() failed",
        "protocol.resume_writing() failed",
    ]


# -- reading -------------------------------------------------------------------------------------


@pytest.mark.parametrize("factory", [Recorder, BufferedRecorder])
def test_pause_reading(loop, run, factory):
    async def main():
        transport, protocol, peer = await connect(factory)
        assert transport.is_reading()
        transport.pause_reading()
        assert not transport.is_reading()
        await peer.send(b"later")
        await asyncio.sleep(0.03)
        assert protocol.data == b""
        transport.resume_reading()
        assert transport.is_reading()
        assert protocol.data == b"", "not from within resume_reading()"
        await until(lambda: protocol.data == b"later")
        transport.resume_reading()  # no harm
        await part(transport, protocol, peer)

    run(main())


@pytest.mark.only("uvloop_clone")
def test_a_buffered_protocol_without_the_base_class(loop, run):
    """What has get_buffer() and no data_received() will do, as without TLS; not so in asyncio."""

    class Bare(asyncio.BaseProtocol):
        def __init__(self):
            self.buffer = bytearray(4)
            self.data = bytearray()

        def get_buffer(self, hint):
            return self.buffer

        def buffer_updated(self, count):
            self.data += self.buffer[:count]

    async def main():
        transport, first, peer = await connect()
        await peer.send(b"one")
        await until(lambda: first.data == b"one")
        second = Bare()
        transport.set_protocol(second)
        await peer.send(b"the second")
        await until(lambda: second.data == b"the second")
        transport.set_protocol(first)
        await peer.send(b"three")
        await until(lambda: first.data == b"onethree")
        await part(transport, first, peer)

    run(main())


def test_pausing_pushes_back(loop, run):
    async def main():
        transport, protocol, peer = await connect()
        transport.pause_reading()
        peer.sock.setblocking(False)
        sent, stalled = 0, 0
        record = b""
        while stalled < 20:
            record = record or peer.encrypt(PATTERN[:16384])
            try:
                count = peer.sock.send(record)
                sent += count
                record = record[count:]
                stalled = 0
            except BlockingIOError:
                stalled += 1
                await asyncio.sleep(0.01)
            assert sent < 100_000_000
        size = transport.get_read_buffer_size()
        low, high = transport.get_read_buffer_limits()
        assert (low, high) == (65536, 262144)
        assert high <= size < high + 600_000
        transport.resume_reading()
        if record:
            await loop.sock_sendall(peer.sock, record)
        await until(lambda: len(protocol.data) % 16384 == 0 and len(protocol.data) >= sent * 0.98)
        assert transport.get_read_buffer_size() == 0
        await part(transport, protocol, peer)

    run(main())


def test_read_buffer_limits(loop, run):
    async def main():
        transport, protocol, peer = await connect()
        transport.set_read_buffer_limits(high=100, low=10)
        assert transport.get_read_buffer_limits() == (10, 100)
        with pytest.raises(ValueError, match="must be >= low"):
            transport.set_read_buffer_limits(high=1, low=2)
        await peer.send(PATTERN[:50000])
        await until(lambda: len(protocol.data) == 50000)
        await part(transport, protocol, peer)

    run(main())


def test_pause_in_data_received(loop, run):
    class Pausing(Recorder):
        def data_received(self, data):
            super().data_received(data)
            self.transport.pause_reading()

    async def main():
        transport, protocol, peer = await connect(Pausing)
        await peer.send(b"one")
        await until(lambda: protocol.data == b"one")
        await peer.send(b"two")
        await asyncio.sleep(0.03)
        assert protocol.data == b"one"
        transport.resume_reading()
        await until(lambda: protocol.data == b"onetwo")
        await part(transport, protocol, peer)

    run(main())


def test_pause_in_buffer_updated_holds_the_rest_back(loop, run):
    class Pausing(BufferedRecorder):
        def buffer_updated(self, nbytes):
            super().buffer_updated(nbytes)
            self.transport.pause_reading()

    async def main():
        transport, protocol, peer = await connect(lambda: Pausing(100))
        await peer.send(PATTERN[:250])
        await until(lambda: len(protocol.data) == 100)
        await asyncio.sleep(0.02)
        assert len(protocol.data) == 100
        while len(protocol.data) < 250:
            before = len(protocol.data)
            transport.resume_reading()
            await until(lambda before=before: len(protocol.data) > before)
            assert len(protocol.data) <= before + 100
        assert protocol.data == PATTERN[:250]
        await part(transport, protocol, peer)

    run(main())


@pytest.mark.parametrize("method", ["data_received", "get_buffer", "buffer_updated"])
def test_failing_protocol(loop, run, errors, method):
    base = Recorder if method == "data_received" else BufferedRecorder

    def fail(self, *args):
        if armed:
            raise ZeroDivisionError(method)
        return getattr(base, method)(self, *args)

    armed = []
    failing = type("Failing", (base,), {method: fail})

    async def main():
        transport, protocol, peer = await connect(failing)
        armed.append(True)
        await peer.send(b"x")
        exc = await asyncio.wait_for(protocol.lost, 10)
        assert isinstance(exc, ZeroDivisionError)
        assert transport.is_closing()
        peer.sock.close()

    run(main())
    assert errors.messages == ["Fatal error on SSL protocol"]
    assert isinstance(errors[0]["exception"], ZeroDivisionError)
    assert set(errors[0]) == {"message", "exception", "transport", "protocol"}


@pytest.mark.only("uvloop_clone")  # asyncio's TLS does not look at its size
def test_an_empty_buffer_that_cannot_be_written(loop, run, errors):
    class Empty(BytearrayRecorder):
        def get_buffer(self, sizehint):
            return b""

    async def main():
        _, protocol, peer = await connect(Empty)
        await peer.send(b"x")
        exc = await asyncio.wait_for(protocol.lost, 10)
        assert isinstance(exc, RuntimeError)
        assert str(exc) == "get_buffer() returned an empty buffer"
        peer.sock.close()

    run(main())
    assert errors.messages == ["Fatal error on SSL protocol"]


@pytest.mark.parametrize("method", ["data_received", "get_buffer", "buffer_updated"])
def test_cancelled_error_from_the_protocol(loop, run, errors, method):
    """No Exception: asyncio's TLS lets it pass, and the transport below reports it."""
    base = Recorder if method == "data_received" else BufferedRecorder

    def fail(self, *args):
        if armed:
            raise asyncio.CancelledError(method)
        return getattr(base, method)(self, *args)

    armed = []
    failing = type("Failing", (base,), {method: fail})

    async def main():
        transport, protocol, peer = await connect(failing)
        armed.append(True)
        await peer.send(b"x")
        exc = await asyncio.wait_for(protocol.lost, 10)
        assert isinstance(exc, asyncio.CancelledError)
        assert transport.is_closing()
        peer.sock.close()

    run(main())
    assert errors.messages == ["Fatal error: protocol.buffer_updated() call failed."]
    assert isinstance(errors[0]["exception"], asyncio.CancelledError)


@pytest.mark.only("uvloop_clone")
def test_a_view_with_gaps(loop, run):
    """asyncio's TLS closes the connection over it."""

    async def main():
        transport, protocol, peer = await connect()
        transport.write(memoryview(b"g-a-p-s-")[::2])
        assert await peer.receive(4) == b"gaps"
        await part(transport, protocol, peer)

    run(main())


@pytest.mark.only("uvloop_clone")
@pytest.mark.parametrize("size", [5000, 150_000])
def test_a_nested_run_in_a_callback(loop, run, size):
    """The ciphertext that is left when a callback runs the loop is not overwritten by it: what
    OpenSSL has taken of one record, and the records behind it."""

    class Nesting(BufferedRecorder):
        def buffer_updated(self, nbytes):
            super().buffer_updated(nbytes)
            if len(self.data) == 10:
                loop.run_until_complete(asyncio.wait_for(self.meanwhile(), 10))

    async def main():
        loop.allow_nested()
        transport, protocol, peer = await connect(lambda: Nesting(10))
        other, other_protocol, other_peer = await connect()

        async def meanwhile():
            await other_peer.send(PATTERN[:200_000])
            await until(lambda: len(other_protocol.data) == 200_000)

        protocol.meanwhile = meanwhile
        await peer.send(PATTERN[:size])
        await until(lambda: len(protocol.data) == size and len(other_protocol.data) == 200_000)
        assert protocol.data == PATTERN[:size]
        assert other_protocol.data == PATTERN[:200_000]
        await part(transport, protocol, peer)
        await part(other, other_protocol, other_peer)

    run(main())


def test_streams(loop, run):
    async def main():
        async def handle(reader, writer):
            while line := await reader.readline():
                writer.write(line.upper())
                await writer.drain()
            writer.close()

        server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=server_context())
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port_of(server), ssl=client_context()
        )
        for i in range(50):
            writer.write(b"line %d\n" % i)
            assert await reader.readline() == b"LINE %d\n" % i
        writer.close()
        await writer.wait_closed()
        await shut(server)

    run(main())


@pytest.mark.parametrize("command", [b"k", b"K"])
def test_key_update(loop, run, command):
    """Keys that change in mid-stream (TLS 1.3): openssl's own client asks for it."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl command")

    def client(port):
        process = subprocess.Popen(
            ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-tls1_3"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        output = b""
        try:
            for line, wanted in [
                (b"before", b"before\n"),
                (command, b"KEYUPDATE"),
                (b"after", b"after\n"),
            ]:
                process.stdin.write(line + b"\n")
                process.stdin.flush()
                while wanted not in output:
                    chunk = process.stdout.readline()
                    assert chunk, output
                    output += chunk
        finally:
            process.kill()
            process.communicate()

    async def main():
        server = await loop.create_server(Echo, "127.0.0.1", 0, ssl=server_context())
        await asyncio.to_thread(client, port_of(server))
        await asyncio.sleep(0.05)
        await shut(server)

    run(main())


@pytest.mark.parametrize("server_side", [False, True], ids=["client", "server"])
@pytest.mark.parametrize("protocol", [Recorder, BufferedRecorder], ids=["bytes", "buffer"])
def test_an_sslobject_is_read_as_asyncio_reads_it(run, protocol, server_side):
    """Without a buffer where the protocol has none: the read() of a subclass may take none."""

    class Plain(ssl.SSLObject):
        def read(self, len):
            return super().read(len)

    class Buffered(ssl.SSLObject):
        def read(self, len, buffer):
            return super().read(len, buffer)

    async def main():
        context = server_context() if server_side else client_context()
        context.sslobject_class = Plain if protocol is Recorder else Buffered
        transport, user, peer = await connect(protocol, server_side=server_side, context=context)
        data = PATTERN[:100_000]
        await peer.send(data)
        await until(lambda: len(user.data) == len(data))
        assert user.data == data
        await part(transport, user, peer)

    run(main())


class OpenSSLConnection:
    """Enough of an SSLObject for Peer, over pyOpenSSL, which can ask for a renegotiation."""

    def __init__(self, crypto, peer):
        self.want_read = crypto.WantReadError
        self.peer = peer
        context = crypto.Context(crypto.TLSv1_2_METHOD)
        with certificate().private_key_and_cert_chain_pem.tempfile() as path:
            context.use_privatekey_file(path)
            context.use_certificate_chain_file(path)
        self.connection = crypto.Connection(context, None)
        self.connection.set_accept_state()

    def _call(self, method, *args):
        if data := self.peer.incoming.read():
            self.connection.bio_write(data)
        try:
            return method(*args)
        except self.want_read:
            raise ssl.SSLWantReadError from None
        finally:
            with contextlib.suppress(self.want_read):
                while True:
                    self.peer.outgoing.write(self.connection.bio_read(1 << 16))

    def __getattr__(self, name):
        return functools.partial(self._call, getattr(self.connection, name))


def test_renegotiation(loop, run):
    """A server of TLS 1.2 may shake hands again in mid-stream."""
    crypto = pytest.importorskip("OpenSSL.SSL")

    async def main():
        a, b = tcp_pair()
        version = ssl.TLSVersion.TLSv1_2
        peer = Peer(b, server_context(version), True)
        peer.tls = OpenSSLConnection(crypto, peer)
        making = loop.create_connection(
            Recorder, sock=a, ssl=client_context(version), server_hostname=NAME
        )
        (transport, protocol), _ = await asyncio.gather(making, peer.handshake())
        await peer.call(peer.tls.send, b"before")
        await until(lambda: protocol.data == b"before")
        assert peer.tls.connection.renegotiate()
        await asyncio.wait_for(peer.handshake(), 10)
        transport.write(b"after")
        assert await peer.call(peer.tls.recv, 100) == b"after"
        assert peer.tls.connection.total_renegotiations() == 1
        await peer.call(peer.tls.send, b"after")
        await until(lambda: protocol.data == b"beforeafter")
        transport.abort()
        await asyncio.wait_for(protocol.lost, 10)
        peer.sock.close()

    run(main())
