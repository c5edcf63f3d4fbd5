"""What a handshake settles, and how it fails: certificates, ALPN, SNI, time-outs, reports."""

import asyncio
import contextlib
import contextvars
import logging
import socket
import ssl
import sys

import pytest
from serving import Echo, ask, hang_up, port_of, shut
from support import Recorder, tcp_pair, until
from tls_peer import (
    NAME,
    VERSIONS,
    Peer,
    authority,
    client_context,
    connect,
    part,
    server_context,
)

pytestmark = pytest.mark.core

both_versions = pytest.mark.parametrize("version", VERSIONS, ids=["1.2", "1.3"])


@both_versions
def test_extra_info(loop, run, version):
    async def main():
        context = client_context(version)
        transport, protocol, peer = await connect(context=context)
        info = transport.get_extra_info
        assert info("sslcontext") is context
        assert isinstance(info("ssl_object"), ssl.SSLObject)
        assert info("ssl_object").version() == peer.tls.version()
        assert info("cipher") == info("ssl_object").cipher()
        assert info("compression") is None
        assert dict(info("peercert")["subjectAltName"])["DNS"] == NAME
        assert info("peername") == peer.sock.getsockname()
        assert info("sockname") == peer.sock.getpeername()
        assert info("socket").fileno() > 0
        assert info("nothing") is None
        assert info("nothing", 7) == 7
        assert isinstance(transport, asyncio.Transport)
        assert "ssl" in type(transport).__name__.lower()
        await part(transport, protocol, peer)

    run(main())


def test_connection_made_comes_after_the_handshake(loop, run):
    async def main():
        a, b = tcp_pair()
        made = []

        class Noting(Recorder):
            def connection_made(self, transport):
                super().connection_made(transport)
                made.append(transport.get_extra_info("cipher"))
                transport.write(b"first words")

        connecting = asyncio.ensure_future(
            loop.create_connection(Noting, sock=a, ssl=client_context(), server_hostname=NAME)
        )
        await asyncio.sleep(0.03)
        assert not made and not connecting.done()
        peer = Peer(b, server_context(), True)
        await peer.handshake()
        transport, protocol = await connecting
        assert made and made[0]
        assert await peer.receive(11) == b"first words"
        await part(transport, protocol, peer)

    run(main())


def test_data_right_behind_the_handshake(loop, run):
    """The client's last flight and its first request in one packet."""

    async def main():
        a, b = tcp_pair()
        peer = Peer(b, client_context(), False)
        making = asyncio.ensure_future(loop.connect_accepted_socket(Echo, a, ssl=server_context()))
        with pytest.raises(ssl.SSLWantReadError):
            peer.tls.do_handshake()
        await peer.flush()
        while True:
            await peer.fetch()
            try:
                peer.tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                continue
        peer.tls.write(b"request")
        await peer.flush()
        assert await peer.receive(7) == b"request"
        transport, protocol = await making
        await part(transport, protocol, peer)

    run(main())


def test_alpn(loop, run):
    async def main():
        server_side, client_side = server_context(), client_context()
        server_side.set_alpn_protocols(["h2", "http/1.1"])
        client_side.set_alpn_protocols(["http/1.1"])
        server = await loop.create_server(Echo, "127.0.0.1", 0, ssl=server_side)
        transport, protocol = await loop.create_connection(
            Recorder, "127.0.0.1", port_of(server), ssl=client_side
        )
        ssl_object = transport.get_extra_info("ssl_object")
        assert ssl_object.selected_alpn_protocol() == "http/1.1"
        await hang_up(transport, protocol)
        await shut(server)

    run(main())


def test_sni_callback_switches_contexts(loop, run):
    async def main():
        outer, inner = server_context(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority().issue_cert("inner.test").configure_cert(inner)
        names = []

        def choose(ssl_object, name, context):
            names.append(name)
            assert isinstance(ssl_object, ssl.SSLObject)
            assert context is outer
            if name == "inner.test":
                ssl_object.context = inner
            elif name == "unknown.test":
                return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
            return None

        outer.sni_callback = choose
        server = await loop.create_server(Echo, "127.0.0.1", 0, ssl=outer)
        for name in ("localhost", "inner.test"):
            transport, protocol = await loop.create_connection(
                Recorder,
                "127.0.0.1",
                port_of(server),
                ssl=client_context(),
                server_hostname=name,
            )
            assert await ask(transport, protocol) == b"ping"
            certificate = transport.get_extra_info("peercert")
            assert ("DNS", name) in certificate["subjectAltName"]
            await hang_up(transport, protocol)
        with pytest.raises((ssl.SSLError, ConnectionResetError)):
            await loop.create_connection(
                Recorder,
                "127.0.0.1",
                port_of(server),
                ssl=client_context(),
                server_hostname="unknown.test",
            )
        assert names == ["localhost", "inner.test", "unknown.test"]
        await asyncio.sleep(0.03)
        await shut(server)

    run(main())


@both_versions
def test_client_certificates(loop, run, version):
    async def main():
        server_side = server_context(version)
        server_side.verify_mode = ssl.CERT_REQUIRED
        authority().configure_trust(server_side)
        known = client_context(version)
        authority().issue_cert("client.test").configure_cert(known)
        served = []
        server = await loop.create_server(lambda: Echo(served), "127.0.0.1", 0, ssl=server_side)
        transport, protocol = await loop.create_connection(
            Recorder, "127.0.0.1", port_of(server), ssl=known
        )
        assert await ask(transport, protocol) == b"ping"
        certificate = served[0].transport.get_extra_info("peercert")
        assert ("DNS", "client.test") in certificate["subjectAltName"]
        await hang_up(transport, protocol)

        # without a certificate: TLS 1.2 tells the client at once, 1.3 after its handshake
        try:
            transport, protocol = await loop.create_connection(
                Recorder, "127.0.0.1", port_of(server), ssl=client_context(version)
            )
            exc = await asyncio.wait_for(protocol.lost, 10)
        except (ssl.SSLError, ConnectionResetError) as failure:
            exc = failure
        assert exc is None or isinstance(exc, (ssl.SSLError, ConnectionResetError))
        await asyncio.sleep(0.03)
        assert not hasattr(served[1], "transport"), "never connected"
        await shut(server)

    run(main())


def test_bad_certificate(loop, run):
    async def main():
        a, b = tcp_pair()
        peer = Peer(b, server_context(), True)
        stranger = ssl.create_default_context()
        connecting = loop.create_connection(Recorder, sock=a, ssl=stranger, server_hostname=NAME)
        failure, _ = await asyncio.gather(connecting, peer.handshake(), return_exceptions=True)
        assert type(failure) is ssl.SSLCertVerificationError
        assert failure.verify_code in (18, 19, 20, 21)
        assert failure.reason == "CERTIFICATE_VERIFY_FAILED"
        assert a.fileno() == -1, "the socket is closed"
        b.close()

    run(main())


@pytest.mark.only("uvloop_clone")
def test_the_peer_of_a_failed_handshake_is_told_why(loop, run):
    async def main():
        a, b = tcp_pair()
        peer = Peer(b, server_context(), True)
        stranger = ssl.create_default_context()
        _, told = await asyncio.gather(
            loop.create_connection(Recorder, sock=a, ssl=stranger, server_hostname=NAME),
            peer.handshake(),
            return_exceptions=True,
        )
        if told is None:  # TLS 1.3: the server was done before
            with pytest.raises(ssl.SSLError, match="UNKNOWN_CA"):
                await peer.receive(1)
        else:
            assert "UNKNOWN_CA" in str(told)
        b.close()

    run(main())


@pytest.mark.parametrize("server_side", [False, True])
def test_plain_text_instead_of_a_handshake(loop, run, server_side):
    async def main():
        a, b = tcp_pair()
        b.send(b"220 mail.test ready, and more to come than five bytes\r\n")
        if server_side:
            connecting = loop.connect_accepted_socket(Echo, a, ssl=server_context())
        else:
            connecting = loop.create_connection(
                Recorder, sock=a, ssl=client_context(), server_hostname=NAME
            )
        with pytest.raises(ssl.SSLError) as failure:
            await connecting
        assert failure.value.reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE")
        await asyncio.sleep(0.01)
        assert a.fileno() == -1
        b.close()

    run(main())


@pytest.mark.skipif(sys.version_info < (3, 11), reason="3.10 words it differently")
@pytest.mark.parametrize("how", ["end", "reset"])
def test_the_peer_leaves_during_the_handshake(loop, run, how):
    async def main():
        a, b = tcp_pair()
        connecting = asyncio.ensure_future(
            loop.create_connection(Recorder, sock=a, ssl=client_context(), server_hostname=NAME)
        )
        await loop.sock_recv(b, 10_000)
        if how == "reset":
            b.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        b.close()
        with pytest.raises(ConnectionResetError):
            await connecting
        await asyncio.sleep(0.01)
        assert a.fileno() == -1

    run(main())


@pytest.mark.parametrize("server_side", [False, True])
def test_handshake_timeout(loop, run, server_side):
    async def main():
        a, b = tcp_pair()
        if server_side:
            connecting = loop.connect_accepted_socket(
                Echo, a, ssl=server_context(), ssl_handshake_timeout=0.05
            )
        else:
            connecting = loop.create_connection(
                Recorder,
                sock=a,
                ssl=client_context(),
                server_hostname=NAME,
                ssl_handshake_timeout=0.05,
            )
        begin = loop.time()
        with pytest.raises(ConnectionAbortedError) as failure:
            await connecting
        assert loop.time() - begin < 5
        assert str(failure.value) == (
            "SSL handshake is taking longer than 0.05 seconds: aborting the connection"
        )
        b.close()

    run(main())


def test_cancelled_while_shaking_hands(loop, run):
    async def main():
        a, b = tcp_pair()
        connecting = asyncio.ensure_future(
            loop.create_connection(Recorder, sock=a, ssl=client_context(), server_hostname=NAME)
        )
        await loop.sock_recv(b, 10_000)
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting
        await until(lambda: a.fileno() == -1)
        b.close()

    run(main())


def test_failing_connection_made(loop, run, errors):
    class Failing(Recorder):
        def connection_made(self, transport):
            raise ZeroDivisionError

    async def main():
        a, b = tcp_pair()
        peer = Peer(b, server_context(), True)
        failure, _ = await asyncio.gather(
            loop.create_connection(Failing, sock=a, ssl=client_context(), server_hostname=NAME),
            peer.handshake(),
            return_exceptions=True,
        )
        assert isinstance(failure, ZeroDivisionError)
        b.close()
        await asyncio.sleep(0.02)

    run(main())
    assert any(isinstance(exc, ZeroDivisionError) for exc in errors.exceptions)


def test_failures_of_a_server_are_reported_in_debug_mode_only(loop, run, errors):
    async def main():
        server = await loop.create_server(Echo, "127.0.0.1", 0, ssl=server_context())
        for debug in (False, True):
            loop.set_debug(debug)
            with pytest.raises(ssl.SSLCertVerificationError):
                await loop.create_connection(
                    Recorder,
                    "127.0.0.1",
                    port_of(server),
                    ssl=ssl.create_default_context(),
                )
            await asyncio.sleep(0.05)
            assert bool(errors) is debug
        loop.set_debug(False)
        await shut(server)

    run(main())
    assert errors.messages == ["Error on transport creation for incoming connection"]
    assert isinstance(errors[0]["exception"], (ssl.SSLError, ConnectionResetError))
    assert isinstance(errors[0]["protocol"], Echo)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="3.10 words it differently")
def test_debug_log(loop, run, caplog):
    async def main():
        loop.set_debug(True)
        transport, protocol, peer = await connect()
        await part(transport, protocol, peer)
        loop.set_debug(False)

    with caplog.at_level(logging.DEBUG, logger="asyncio"):
        run(main())
    assert "starts SSL handshake" in caplog.text
    assert "SSL handshake took" in caplog.text


def test_callbacks_run_in_the_context_of_the_connection(loop, run):
    variable = contextvars.ContextVar("variable", default="unset")

    class Noting(Recorder):
        def __init__(self):
            super().__init__()
            self.seen = []

        def connection_made(self, transport):
            super().connection_made(transport)
            self.seen.append(variable.get())
            variable.set("changed by connection_made")

        def data_received(self, data):
            super().data_received(data)
            self.seen.append(variable.get())

        def eof_received(self):
            self.seen.append(variable.get())

    async def main():
        variable.set("of the caller")
        _, protocol, peer = await connect(Noting)
        variable.set("changed later")
        await peer.send(b"x")
        await until(lambda: protocol.data == b"x")
        await loop.sock_sendall(peer.sock, peer.close_notify())
        await asyncio.wait_for(protocol.lost, 10)
        assert protocol.seen[0] == "of the caller"
        assert len(set(protocol.seen[1:])) == 1 and "changed later" not in protocol.seen
        peer.sock.close()

    run(main())


@pytest.mark.only("uvloop_clone")
@pytest.mark.parametrize("where", ["turn", "get_write_buffer_size", "set_write_buffer_limits"])
def test_flow_control_runs_in_the_context_of_the_connection(loop, run, where):
    """As without TLS; asyncio takes the context of whoever wrote."""
    variable = contextvars.ContextVar("variable")

    class Noting(Recorder):
        def pause_writing(self):
            super().pause_writing()
            self.paused_in = variable.get()

        def resume_writing(self):
            super().resume_writing()
            self.resumed_in = variable.get()

    async def write(transport):
        variable.set("of the writer")
        transport.set_write_buffer_limits(high=1 << 26)
        while not transport.get_write_buffer_size():
            transport.write(bytes(100_000))
            await asyncio.sleep(0)
        if where == "set_write_buffer_limits":
            transport.set_write_buffer_limits(high=10)
            return
        transport.write(bytes(100_000))
        transport.set_write_buffer_limits(high=1 << 20)
        transport.write(bytes(1 << 20))
        if where == "turn":
            await asyncio.sleep(0)
        else:
            transport.get_write_buffer_size()

    async def main():
        variable.set("of the caller")
        transport, protocol, peer = await connect(Noting)
        await loop.create_task(write(transport))
        assert protocol.paused_in == "of the caller"
        while "resume" not in protocol.events:
            await peer.call(peer.tls.read, 1 << 16)
        assert protocol.resumed_in == "of the caller"
        transport.abort()
        await asyncio.wait_for(protocol.lost, 10)
        peer.sock.close()

    run(main())


@pytest.mark.only("uvloop_clone")
def test_what_was_paused_comes_in_the_context_of_the_connection(loop, run):
    """asyncio takes the context of whoever called resume_reading()."""
    variable = contextvars.ContextVar("variable")

    class Noting(Recorder):
        def data_received(self, data):
            super().data_received(data)
            self.seen = variable.get()

    async def resume(transport):
        variable.set("of the reader")
        transport.resume_reading()

    async def main():
        variable.set("of the caller")
        transport, protocol, peer = await connect(Noting)
        transport.pause_reading()
        await peer.send(b"x")
        await until(lambda: transport.get_read_buffer_size() > 0)
        await loop.create_task(resume(transport))
        await until(lambda: protocol.data == b"x")
        assert protocol.seen == "of the caller"
        transport.abort()
        await asyncio.wait_for(protocol.lost, 10)
        peer.sock.close()

    run(main())


def test_default_context_without_a_name(loop, run):
    """ssl=True and an empty name: no name is checked, the authority is."""

    async def main():
        a, b = tcp_pair()
        peer = Peer(b, server_context(), True)
        failure, _ = await asyncio.gather(
            loop.create_connection(Recorder, sock=a, ssl=True, server_hostname=""),
            peer.handshake(),
            return_exceptions=True,
        )
        assert isinstance(failure, ssl.SSLCertVerificationError)
        assert "Hostname mismatch" not in str(failure)
        b.close()

    run(main())


def test_a_server_needs_a_context(loop, run, pair):
    async def main():
        a, _ = pair()
        with pytest.raises(ValueError, match="Server side SSL needs a valid SSLContext"):
            await loop.connect_accepted_socket(Echo, a, ssl=True)

    run(main())


def test_an_impossible_name(loop, run, pair):
    async def main():
        a, _ = pair()
        with pytest.raises(ValueError):
            await loop.create_connection(
                Recorder, sock=a, ssl=client_context(), server_hostname=".example.test"
            )

    run(main())


# -- start_tls -----------------------------------------------------------------------------------


@pytest.mark.skipif(sys.version_info < (3, 11), reason="3.10 has no TLS in TLS")
@pytest.mark.parametrize("size", [5, 1_000_000])
def test_tls_in_tls(loop, run, size):
    async def main():
        a, b = tcp_pair()
        (outer_server, served), (outer_client, client) = await asyncio.gather(
            loop.connect_accepted_socket(Recorder, a, ssl=server_context()),
            loop.create_connection(Recorder, sock=b, ssl=client_context(), server_hostname=NAME),
        )
        inner_server, inner_client = await asyncio.gather(
            loop.start_tls(outer_server, served, server_context(), server_side=True),
            loop.start_tls(outer_client, client, client_context(), server_hostname=NAME),
        )
        data = bytes(range(250)) * (size // 250 + 1)
        inner_client.write(data)
        await until(lambda: len(served.data) == len(data))
        assert served.data == data
        inner_server.write(data)
        await until(lambda: len(client.data) == len(data))
        assert client.data == data
        info = inner_client.get_extra_info
        assert info("ssl_object") is not outer_client.get_extra_info("ssl_object")
        assert info("peername") == outer_client.get_extra_info("peername")
        assert client.events.count("made") == 1
        inner_client.close()
        assert await asyncio.wait_for(client.lost, 10) is None
        assert await asyncio.wait_for(served.lost, 10) is None

    run(main())


@pytest.mark.skipif(sys.version_info < (3, 11), reason="3.10 has no TLS in TLS")
def test_back_pressure_through_both_layers(loop, run):
    async def main():
        a, b = tcp_pair()
        (outer_server, served), (outer_client, client) = await asyncio.gather(
            loop.connect_accepted_socket(Recorder, a, ssl=server_context()),
            loop.create_connection(Recorder, sock=b, ssl=client_context(), server_hostname=NAME),
        )
        inner_server, inner_client = await asyncio.gather(
            loop.start_tls(outer_server, served, server_context(), server_side=True),
            loop.start_tls(outer_client, client, client_context(), server_hostname=NAME),
        )
        inner_server.pause_reading()
        written = 0
        while "pause" not in client.events:
            inner_client.write(bytes(100_000))
            written += 100_000
            assert written < 100_000_000
            await asyncio.sleep(0)
        inner_server.resume_reading()
        await until(lambda: len(served.data) == written)
        await until(lambda: "resume" in client.events)
        inner_client.abort()
        await asyncio.wait_for(asyncio.gather(client.lost, served.lost), 10)

    run(main())


@pytest.mark.only("uvloop_clone")
@pytest.mark.parametrize("end", [False, True])
def test_start_tls_returns_before_the_first_data(loop, run, end):
    """Data right behind the handshake finds a protocol that knows the TLS transport (uvloop
    sees to that as well; asyncio delivers it first)."""

    class Answering(Recorder):
        def data_received(self, data):
            super().data_received(data)
            self.transport.write(data.upper())

    async def main():
        a, b = tcp_pair()
        peer = Peer(b, client_context(), False)
        transport, protocol = await loop.create_connection(Answering, sock=a)

        async def upgrade():
            protocol.transport = await loop.start_tls(
                transport, protocol, server_context(), server_side=True
            )
            assert protocol.data == b""

        async def shake_hands():
            while True:
                try:
                    peer.tls.do_handshake()
                except ssl.SSLWantReadError:
                    await peer.flush()
                    await peer.fetch()
                    continue
                peer.tls.write(b"hello")
                if end:
                    with contextlib.suppress(ssl.SSLWantReadError):
                        peer.tls.unwrap()
                await peer.flush()  # the end of the handshake and the data in one segment
                return

        await asyncio.gather(upgrade(), shake_hands())
        assert await peer.receive(5) == b"HELLO"
        assert protocol.data == b"hello"
        if end:
            assert await asyncio.wait_for(protocol.lost, 10) is None
            peer.sock.close()
        else:
            await part(protocol.transport, protocol, peer)

    run(main())


@pytest.mark.skipif(sys.version_info < (3, 11), reason="3.10 ends connections differently")
def test_start_tls_cancelled(loop, run):
    async def main():
        a, b = tcp_pair()
        transport, protocol = await loop.create_connection(Recorder, sock=a)
        starting = asyncio.ensure_future(
            loop.start_tls(transport, protocol, client_context(), server_hostname=NAME)
        )
        await loop.sock_recv(b, 10_000)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        assert transport.is_closing()
        await until(lambda: a.fileno() == -1)
        b.close()

    run(main())


def test_start_tls_over_a_transport_of_somebody_else(loop, run):
    """Any transport that says it can carry TLS does."""

    class Forwarding(asyncio.Transport):
        """A transport in Python over another one."""

        _start_tls_compatible = True

        def __init__(self, below):
            super().__init__()
            self._below = below

        def __getattr__(self, name):
            return getattr(self._below, name)

        def write(self, data):
            assert type(data) is bytes
            self._below.write(data)

        def set_protocol(self, protocol):
            self._below.set_protocol(protocol)

        def pause_reading(self):
            self._below.pause_reading()

        def resume_reading(self):
            self._below.resume_reading()

        def get_extra_info(self, name, default=None):
            return self._below.get_extra_info(name, default)

        def close(self):
            self._below.close()

        def abort(self):
            self._below.abort()

        def _force_close(self, exc):
            self._below._force_close(exc)

    async def main():
        a, b = tcp_pair()
        transport, protocol = await loop.create_connection(Recorder, sock=a)
        peer = Peer(b, server_context(), True)
        upgraded, _ = await asyncio.gather(
            loop.start_tls(Forwarding(transport), protocol, client_context(), server_hostname=NAME),
            peer.handshake(),
        )
        data = bytes(range(250)) * 1000
        upgraded.write(data)
        assert await peer.receive(len(data)) == data
        await peer.send(data)
        await until(lambda: len(protocol.data) == len(data))
        assert upgraded.get_extra_info("peername") == b.getsockname()
        await part(upgraded, protocol, peer)

    run(main())
