"""How TLS connections end: goodbyes, ends without one, aborts, time-outs, and what was left."""

import asyncio
import gc
import logging
import socket
import ssl
import sys
import warnings
import weakref

import pytest
from serving import Echo, ask, hang_up, port_of, shut
from support import BufferedRecorder, Recorder, until
from tls_peer import NAME, VERSIONS, client_context, connect, part, server_context

pytestmark = pytest.mark.core

both_versions = pytest.mark.parametrize("version", VERSIONS, ids=["1.2", "1.3"])
needs_shutdown_timeout = pytest.mark.skipif(
    sys.version_info < (3, 11), reason="ssl_shutdown_timeout is newer than this Python"
)
# Python 3.10 has another TLS protocol: no goodbye is waited for. Ours is the newer one there, too.
newer = pytest.mark.skipif(sys.version_info < (3, 11), reason="3.10 ends connections differently")


@newer
@both_versions
@pytest.mark.parametrize("server_side", [False, True])
def test_close(loop, run, version, server_side):
    async def main():
        transport, protocol, peer = await connect(version=version, server_side=server_side)
        transport.write(b"last words")
        transport.close()
        assert transport.is_closing()
        assert await peer.receive_end() == b"last words"
        await asyncio.sleep(0.02)
        assert not protocol.lost.done(), "the peer's goodbye is awaited"
        await peer.call(peer.tls.unwrap)
        assert await asyncio.wait_for(protocol.lost, 10) is None
        assert protocol.events == ["made", "eof", "lost"]
        assert await loop.sock_recv(peer.sock, 10) == b""
        peer.sock.close()
        transport.close()  # no harm
        if not type(loop).__module__.startswith("asyncio") or sys.version_info >= (3, 11, 5):
            transport.abort()  # AttributeError there before

    run(main())


@newer
@both_versions
def test_the_peer_says_goodbye(loop, run, version):
    async def main():
        transport, protocol, peer = await connect(version=version)
        await loop.sock_sendall(peer.sock, peer.encrypt(b"last words") + peer.close_notify())
        assert await asyncio.wait_for(protocol.lost, 10) is None
        assert protocol.events == ["made", "data", "eof", "lost"]
        assert protocol.data == b"last words"
        assert transport.is_closing()
        await peer.call(peer.tls.unwrap)  # its goodbye was answered
        peer.sock.close()

    run(main())


@newer
def test_the_peer_says_goodbye_to_a_buffered_protocol(loop, run):
    async def main():
        transport, protocol, peer = await connect(lambda: BufferedRecorder(4))
        protocol_view = protocol.buffer
        protocol.get_buffer = lambda hint: memoryview(protocol_view)
        await loop.sock_sendall(peer.sock, peer.encrypt(b"last words") + peer.close_notify())
        assert await asyncio.wait_for(protocol.lost, 10) is None
        assert protocol.data == b"last words"
        assert protocol.events[-2:] == ["eof", "lost"]
        assert transport.is_closing()
        peer.sock.close()

    run(main())


@newer
def test_an_answer_to_the_last_words(loop, run):
    """Written from within data_received, in the same packet as the goodbye: it arrives."""

    async def main():
        transport, _, peer = await connect(Echo)
        await loop.sock_sendall(peer.sock, peer.encrypt(b"last words") + peer.close_notify())
        await asyncio.wait_for(transport.get_protocol().lost, 10)
        assert await peer.receive_end() == b"last words"
        peer.sock.close()

    run(main())


@newer
@pytest.mark.parametrize("keep_open", [False, True])
def test_end_without_a_goodbye(loop, run, caplog, keep_open):
    async def main():
        transport, protocol, peer = await connect(lambda: Recorder(keep_open))
        await peer.send(b"data")
        peer.sock.shutdown(socket.SHUT_WR)
        assert await asyncio.wait_for(protocol.lost, 10) is None
        assert protocol.events == ["made", "data", "eof", "lost"]
        assert transport.is_closing()
        peer.sock.close()

    with caplog.at_level(logging.WARNING, logger="asyncio"):
        run(main())
    warned = "returning true from eof_received() has no effect when using ssl" in caplog.text
    assert warned is keep_open


@newer
def test_end_while_reading_is_paused(loop, run):
    async def main():
        transport, protocol, peer = await connect()
        transport.pause_reading()
        await peer.send(b"unread")
        peer.sock.shutdown(socket.SHUT_WR)
        await asyncio.sleep(0.05)
        assert protocol.events == ["made"]
        transport.resume_reading()
        assert await asyncio.wait_for(protocol.lost, 10) is None
        assert protocol.events == ["made", "data", "eof", "lost"]
        assert protocol.data == b"unread"
        peer.sock.close()

    run(main())


def test_reset(loop, run):
    async def main():
        transport, protocol, peer = await connect()
        peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        peer.sock.close()
        assert isinstance(await asyncio.wait_for(protocol.lost, 10), ConnectionResetError)
        assert protocol.events == ["made", "lost"]
        assert transport.is_closing()

    run(main())


def test_abort(loop, run):
    async def main():
        transport, protocol, peer = await connect()
        transport.write(b"sent before")
        transport.abort()
        assert transport.is_closing()
        assert protocol.events == ["made"], "not from within abort()"
        assert await asyncio.wait_for(protocol.lost, 10) is None
        assert protocol.events == ["made", "lost"]
        assert await peer.receive(11) == b"sent before"
        assert await loop.sock_recv(peer.sock, 100) == b""
        transport.abort()
        peer.sock.close()

    run(main())


@needs_shutdown_timeout
def test_shutdown_timeout(loop, run):
    async def main():
        transport, protocol, peer = await connect(ssl_shutdown_timeout=0.1)
        begin = loop.time()
        transport.close()
        exc = await asyncio.wait_for(protocol.lost, 10)
        assert isinstance(exc, TimeoutError) and str(exc) == "SSL shutdown timed out"
        assert 0.09 < loop.time() - begin < 5
        peer.sock.close()

    run(main())


@needs_shutdown_timeout
@pytest.mark.only("uvloop_clone")  # older Pythons wait for ever
@pytest.mark.parametrize("close_first", [True, False])
def test_shutdown_timeout_with_a_peer_that_ended_and_reads_nothing(loop, run, close_first):
    async def main():
        transport, protocol, peer = await connect(ssl_shutdown_timeout=0.1)
        while not transport.get_write_buffer_size():
            transport.write(bytes(1 << 20))
        if close_first:
            transport.close()
        peer.sock.shutdown(socket.SHUT_WR)
        exc = await asyncio.wait_for(protocol.lost, 10)
        assert isinstance(exc, TimeoutError) and str(exc) == "SSL shutdown timed out"
        peer.sock.close()

    run(main())


# close() promises that no more data is received. asyncio calls data_received() from within it, and
# fails with APPLICATION_DATA_AFTER_CLOSE_NOTIFY where data comes later; uvloop and we drop both.


@pytest.mark.only("uvloop_clone")
@both_versions
@pytest.mark.parametrize("factory", [Recorder, BufferedRecorder])
def test_data_that_crosses_the_goodbye(loop, run, version, factory):
    async def main():
        transport, protocol, peer = await connect(factory, version=version)
        transport.close()
        for _ in range(3):
            await loop.sock_sendall(peer.sock, peer.encrypt(b"crossing" * 5000))
            await asyncio.sleep(0.01)
        assert not protocol.lost.done()
        await peer.receive_end()
        await peer.call(peer.tls.unwrap)
        assert await asyncio.wait_for(protocol.lost, 10) is None
        assert protocol.data == b""
        assert protocol.events == ["made", "eof", "lost"]
        peer.sock.close()

    run(main())


@pytest.mark.only("uvloop_clone")
@pytest.mark.parametrize("paused", [True, False])
@pytest.mark.parametrize("size", [6, 1_000_000])
def test_close_drops_what_was_not_read(loop, run, paused, size):
    """Also where so much came that the transport below does not read any more."""

    async def main():
        transport, protocol, peer = await connect()
        transport.pause_reading()
        sending = asyncio.ensure_future(peer.send(bytes(size)))
        await until(lambda: transport.get_read_buffer_size() >= min(size, 300_000))
        if not paused:
            transport.resume_reading()
        transport.close()
        await sending
        await peer.receive_end()
        await peer.call(peer.tls.unwrap)
        assert await asyncio.wait_for(protocol.lost, 10) is None
        assert protocol.data == b""
        peer.sock.close()

    run(main())


@pytest.mark.only("uvloop_clone")
def test_close_after_an_end_that_waits_for_reading(loop, run):
    """The peer's end comes while reading is paused; the user does not care what was before it."""

    async def main():
        transport, protocol, peer = await connect()
        transport.pause_reading()
        await peer.send(b"unread")
        peer.sock.shutdown(socket.SHUT_WR)
        await asyncio.sleep(0.05)
        assert protocol.events == ["made"]
        transport.close()
        assert await asyncio.wait_for(protocol.lost, 10) is None
        assert protocol.events == ["made", "eof", "lost"]
        peer.sock.close()

    run(main())


@newer
def test_a_broken_record_after_the_goodbye(loop, run):
    async def main():
        transport, protocol, peer = await connect()
        transport.close()
        record = bytearray(peer.encrypt(b"to be broken"))
        record[-1] ^= 1
        await loop.sock_sendall(peer.sock, record)
        exc = await asyncio.wait_for(protocol.lost, 10)
        assert isinstance(exc, ssl.SSLError)
        assert exc.reason in ("DECRYPTION_FAILED_OR_BAD_RECORD_MAC", "RECORD_LAYER_FAILURE")
        peer.sock.close()

    run(main())


def test_close_with_much_to_send(loop, run):
    async def main():
        transport, protocol, peer = await connect()
        data = bytes(range(256)) * 20_000
        transport.write(data)
        transport.close()
        assert await peer.receive_end() == data
        await peer.call(peer.tls.unwrap)
        assert await asyncio.wait_for(protocol.lost, 10) is None
        peer.sock.close()

    run(main())


@newer
def test_write_after_close(loop, run, caplog):
    async def main():
        transport, protocol, peer = await connect()
        transport.close()
        for _ in range(10):
            transport.write(b"too late")
        transport.writelines([b"too", b"late"])
        assert await peer.receive_end() == b""
        await peer.call(peer.tls.unwrap)
        await asyncio.wait_for(protocol.lost, 10)
        transport.write(b"far too late")
        peer.sock.close()

    with caplog.at_level(logging.WARNING, logger="asyncio"):
        run(main())
    assert caplog.text.count("SSL connection is closed") >= 5


@newer
def test_after_the_end(loop, run):
    async def main():
        transport, protocol, peer = await connect()
        await part(transport, protocol, peer)
        assert transport.is_closing()
        assert transport.get_extra_info("ssl_object") is not None
        assert transport.get_extra_info("peername", "gone") == "gone"
        assert transport.get_write_buffer_size() == 0
        transport.pause_reading()
        transport.resume_reading()
        transport.close()
        repr(transport)
        await asyncio.sleep(0.01)

    run(main())


@newer
def test_a_second_close_lets_go_of_the_context(loop, run):
    """A user's cycle through the transport then keeps nothing of the ssl module alive."""

    async def main():
        context = client_context()
        seen = weakref.ref(context)
        transport, protocol, peer = await connect(context=context)
        del context
        transport.close()
        transport.close()
        await peer.receive_end()
        await peer.call(peer.tls.unwrap)
        peer.sock.close()
        assert await asyncio.wait_for(protocol.lost, 10) is None
        await asyncio.sleep(0)
        assert seen() is None
        return transport

    transport = run(main())
    if not isinstance(transport, asyncio.sslproto._SSLProtocolTransport):
        assert transport.get_extra_info("sslcontext") is None
        assert transport.get_read_buffer_size() == transport.get_write_buffer_size() == 0
        transport.set_read_buffer_limits(high=1)
        transport.set_write_buffer_limits(high=1)
        transport.pause_reading()
        transport.resume_reading()
        transport.write(b"into the void")
        transport.abort()
        transport.close()
        repr(transport)
        run(asyncio.sleep(0.01))


def test_failing_eof_received(loop, run, errors):
    class Failing(Recorder):
        def eof_received(self):
            raise ZeroDivisionError

    async def main():
        _, protocol, peer = await connect(Failing)
        await loop.sock_sendall(peer.sock, peer.close_notify())
        assert isinstance(await asyncio.wait_for(protocol.lost, 10), ZeroDivisionError)
        peer.sock.close()

    run(main())
    assert "Error calling eof_received()" in errors.messages


def test_what_was_written_before_a_failure_is_sent(loop, run, errors):
    class Failing(Recorder):
        def data_received(self, data):
            self.transport.write(b"-ERR bye")
            raise ZeroDivisionError

    async def main():
        _, protocol, peer = await connect(Failing)
        await peer.send(b"x")
        assert await peer.receive(8) == b"-ERR bye"
        assert isinstance(await asyncio.wait_for(protocol.lost, 10), ZeroDivisionError)
        peer.sock.close()

    run(main())
    assert [type(exc) for exc in errors.exceptions] == [ZeroDivisionError]


def test_what_was_written_before_a_broken_record(loop, run):
    """The record's error is the one that is told, whether the answer can be sent or not."""

    class Answering(Recorder):
        def data_received(self, data):
            self.transport.write(b"answer")

    async def main():
        _, protocol, peer = await connect(Answering)
        records = bytearray(peer.encrypt(b"first") + peer.encrypt(b"broken"))
        records[-1] ^= 1
        await loop.sock_sendall(peer.sock, records)
        exc = await asyncio.wait_for(protocol.lost, 10)
        assert exc.reason in ("DECRYPTION_FAILED_OR_BAD_RECORD_MAC", "RECORD_LAYER_FAILURE")
        peer.sock.close()

    run(main())


def test_failing_connection_lost(loop, run, errors):
    class Failing(Recorder):
        def connection_lost(self, exc):
            super().connection_lost(exc)
            raise ZeroDivisionError

    async def main():
        transport, protocol, peer = await connect(Failing)
        await part(transport, protocol, peer)
        await asyncio.sleep(0.01)

    run(main())
    assert isinstance(errors[0]["exception"], ZeroDivisionError)


@pytest.mark.parametrize(
    ("where", "method"),
    [("data_received", "close"), ("data_received", "abort"), ("connection_made", "close")],
)
def test_ended_by_its_own_callback(loop, run, method, where):
    class Ending(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            if where == "connection_made":
                getattr(transport, method)()

        def data_received(self, data):
            super().data_received(data)
            getattr(self.transport, method)()

    async def main():
        _, protocol, peer = await connect(Ending)
        if where == "data_received":
            await loop.sock_sendall(peer.sock, peer.encrypt(b"one") + peer.encrypt(b"two"))
        if method == "close":
            await peer.receive_end()
            await peer.call(peer.tls.unwrap)
        assert await asyncio.wait_for(protocol.lost, 10) is None
        assert protocol.data == (b"onetwo" if where == "data_received" else b"")
        peer.sock.close()

    run(main())


@newer
def test_a_broken_record(loop, run):
    async def main():
        transport, protocol, peer = await connect()
        record = bytearray(peer.encrypt(b"to be broken"))
        record[-1] ^= 1
        await loop.sock_sendall(peer.sock, record)
        exc = await asyncio.wait_for(protocol.lost, 10)
        assert type(exc) is ssl.SSLError
        # the later OpenSSLs name the layer first
        assert exc.reason in ("DECRYPTION_FAILED_OR_BAD_RECORD_MAC", "RECORD_LAYER_FAILURE")
        assert exc.library == "SSL"
        assert protocol.data == b""
        assert transport.is_closing()
        peer.sock.close()

    run(main())


def test_plain_text_in_mid_stream(loop, run):
    async def main():
        _, protocol, peer = await connect()
        await loop.sock_sendall(peer.sock, b"GET / HTTP/1.0\r\n\r\n")
        assert isinstance(await asyncio.wait_for(protocol.lost, 10), ssl.SSLError)
        peer.sock.close()

    run(main())


# -- servers -------------------------------------------------------------------------------------


def test_server_counts_tls_connections(loop, run):
    async def main():
        server = await loop.create_server(Echo, "127.0.0.1", 0, ssl=server_context())
        clients = [
            await loop.create_connection(
                Recorder, "127.0.0.1", port_of(server), ssl=client_context()
            )
            for _ in range(3)
        ]
        for transport, protocol in clients:
            assert await ask(transport, protocol) == b"ping"
        server.close()
        waiting = asyncio.ensure_future(server.wait_closed())
        await asyncio.sleep(0.05)
        assert waiting.done() is (sys.version_info < (3, 12))
        for transport, protocol in clients:
            await hang_up(transport, protocol)
        await asyncio.wait_for(waiting, 10)

    run(main())


@pytest.mark.skipif(sys.version_info < (3, 13), reason="close_clients is newer than this Python")
@pytest.mark.parametrize("method", ["close_clients", "abort_clients"])
def test_server_ends_its_clients(loop, run, method):
    async def main():
        server = await loop.create_server(Echo, "127.0.0.1", 0, ssl=server_context())
        transport, protocol = await loop.create_connection(
            Recorder, "127.0.0.1", port_of(server), ssl=client_context()
        )
        assert await ask(transport, protocol) == b"ping"
        server.close()
        getattr(server, method)()
        await asyncio.wait_for(server.wait_closed(), 10)
        await asyncio.wait_for(protocol.lost, 10)

    run(main())


def test_an_open_transport_warns(loop, new_loop):
    async def main():
        return await connect()

    other = new_loop()
    transport, _, peer = other.run_until_complete(main())
    peer.sock.close()
    with pytest.warns(ResourceWarning, match="unclosed transport"):
        other.close()
        del transport, _
        gc.collect()


@pytest.mark.parametrize("size", [4, 10_000_000])
def test_what_was_written_after_the_last_run(loop, new_loop, size):
    """It has left, as far as the kernel takes it, when the loop is closed."""
    other = new_loop()
    transport, protocol, peer = other.run_until_complete(connect())
    transport.write(b"QUIT" * (size // 4))
    other.close()
    peer.sock.settimeout(10)
    peer.incoming.write(peer.sock.recv(1 << 16))
    assert peer.tls.read(4) == b"QUIT"
    peer.sock.close()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        del transport, protocol
        gc.collect()


def test_shut_server_with_nobody(loop, run):
    async def main():
        server = await loop.create_server(Echo, "127.0.0.1", 0, ssl=server_context())
        await shut(server)

    run(main())


def test_start_tls_of_a_closed_transport(loop, run, pair):
    """None tells that the connection was lost before the handshake: programs look for it."""
    a, _b = pair()

    async def main():
        transport, _ = await loop.create_connection(asyncio.Protocol, sock=a)
        transport.close()
        protocol = Recorder()
        made = await loop.start_tls(transport, protocol, client_context(), server_hostname=NAME)
        assert made is None
        assert await asyncio.wait_for(protocol.lost, 5) is None

    run(main())


def test_the_protocol_between(run):
    """Programs look at its private context."""

    async def main():
        context = client_context()
        transport, protocol, peer = await connect(context=context)
        assert transport._ssl_protocol._sslcontext is context
        await part(transport, protocol, peer)

    run(main())
