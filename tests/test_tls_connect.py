"""TLS as an option of connections and servers, and start_tls()."""

import asyncio
import socket
import ssl
import sys

import pytest
from serving import Echo, ask, hang_up, port_of, shut
from support import Recorder, tcp_pair, until

pytestmark = pytest.mark.core

CONTEXT = ssl.create_default_context()


@pytest.fixture(scope="module")
def contexts():
    """(server context, client context) that trust each other for 127.0.0.1 and localhost."""
    trustme = pytest.importorskip("trustme")
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", "localhost").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return server, client


def test_tls(loop, run, contexts):
    async def main():
        server = await loop.create_server(Echo, "127.0.0.1", 0, ssl=contexts[0])
        transport, protocol = await loop.create_connection(
            Recorder, "127.0.0.1", port_of(server), ssl=contexts[1]
        )
        assert protocol.events == ["made"]
        assert await ask(transport, protocol) == b"ping"
        assert await ask(transport, protocol, bytes(1_000_000)) == bytes(1_000_000)
        assert transport.get_extra_info("sslcontext") is contexts[1]
        assert transport.get_extra_info("peername") == ("127.0.0.1", port_of(server))
        assert transport.get_extra_info("cipher")
        await hang_up(transport, protocol)
        await shut(server)

    run(main())


def test_tls_default_context_refuses_an_unknown_authority(loop, run, contexts):
    async def main():
        server = await loop.create_server(Echo, "127.0.0.1", 0, ssl=contexts[0])
        with pytest.raises(ssl.SSLCertVerificationError):
            await loop.create_connection(Recorder, "127.0.0.1", port_of(server), ssl=True)
        server.close()
        await asyncio.sleep(0.05)

    run(main())


def test_tls_wrong_name(loop, run, contexts):
    async def main():
        server = await loop.create_server(Echo, "127.0.0.1", 0, ssl=contexts[0])
        with pytest.raises(ssl.SSLCertVerificationError):
            await loop.create_connection(
                Recorder,
                "127.0.0.1",
                port_of(server),
                ssl=contexts[1],
                server_hostname="other.test",
            )
        server.close()
        await asyncio.sleep(0.05)

    run(main())


def test_tls_over_unix(loop, run, contexts, path):
    async def main():
        server = await loop.create_unix_server(Echo, path, ssl=contexts[0])
        transport, protocol = await loop.create_unix_connection(
            Recorder, path, ssl=contexts[1], server_hostname="localhost"
        )
        assert await ask(transport, protocol) == b"ping"
        await hang_up(transport, protocol)
        await shut(server)

    run(main())


def test_tls_on_an_accepted_socket(loop, run, contexts):
    async def main():
        a, b = tcp_pair()
        accepted, (transport, protocol) = await asyncio.gather(
            loop.connect_accepted_socket(Echo, a, ssl=contexts[0]),
            loop.create_connection(Recorder, sock=b, ssl=contexts[1], server_hostname="localhost"),
        )
        assert await ask(transport, protocol) == b"ping"
        await hang_up(transport, protocol)
        await asyncio.wait_for(accepted[1].lost, 10)

    run(main())


def test_tls_peer_that_speaks_plain_text(loop, run, contexts):
    async def main():
        async def handle(reader, writer):
            writer.write(b"this is not TLS at all, not in the least\n")
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await loop.create_connection(Recorder, "127.0.0.1", port_of(server), ssl=contexts[1])
        await asyncio.sleep(0.02)
        await shut(server)

    run(main())


def test_tls_handshake_timeout(loop, run, contexts):
    async def main():
        with socket.socket() as silent:
            silent.bind(("127.0.0.1", 0))
            silent.listen(1)
            with pytest.raises(ConnectionAbortedError, match="SSL handshake is taking longer"):
                await loop.create_connection(
                    Recorder,
                    *silent.getsockname(),
                    ssl=contexts[1],
                    ssl_handshake_timeout=0.1,
                )

    run(main())


@pytest.mark.parametrize("timeout", [0, -1])
def test_tls_timeout_must_be_positive(loop, run, contexts, pair, timeout):
    async def main():
        a, _ = pair()
        with pytest.raises(ValueError, match="should be a positive number"):
            await loop.create_connection(
                Recorder,
                sock=a,
                ssl=contexts[1],
                server_hostname="x",
                ssl_handshake_timeout=timeout,
            )

    run(main())


def test_start_tls(loop, run, contexts):
    async def main():
        a, b = tcp_pair()
        plain_server, served = await loop.create_connection(Recorder, sock=a)
        plain_client, client = await loop.create_connection(Recorder, sock=b)
        upgraded_server, upgraded_client = await asyncio.gather(
            loop.start_tls(plain_server, served, contexts[0], server_side=True),
            loop.start_tls(plain_client, client, contexts[1], server_hostname="localhost"),
        )
        upgraded_client.write(b"secret")
        await until(lambda: served.data == b"secret")
        upgraded_server.write(b"answer")
        await until(lambda: client.data == b"answer")
        assert client.events.count("made") == 1
        assert upgraded_client.get_extra_info("ssl_object") is not None
        upgraded_client.close()
        await asyncio.wait_for(asyncio.gather(client.lost, served.lost), 10)

    run(main())


def test_start_tls_failure_closes_the_transport(loop, run, contexts):
    async def main():
        a, b = tcp_pair()
        with b:
            transport, protocol = await loop.create_connection(Recorder, sock=a)
            b.send(b"this is not TLS at all, not in the least\n")
            with pytest.raises(ssl.SSLError):
                await loop.start_tls(transport, protocol, contexts[1], server_hostname="localhost")
            await until(transport.is_closing)
            await asyncio.sleep(0.02)

    run(main())


def test_start_tls_wrong_arguments(loop, run, pair):
    async def main():
        a, _ = pair()
        transport, protocol = await loop.create_connection(Recorder, sock=a)
        for wrong in (None, True, "context"):
            with pytest.raises(TypeError, match="sslcontext is expected to be an instance"):
                await loop.start_tls(transport, protocol, wrong)
        with pytest.raises(TypeError, match=r"is not supported by start_tls\(\)"):
            await loop.start_tls(asyncio.Transport(), protocol, CONTEXT)
        with pytest.raises(ValueError, match="should be a positive number"):
            await loop.start_tls(
                transport, protocol, CONTEXT, server_hostname="x", ssl_handshake_timeout=-1
            )
        assert not transport.is_closing()
        await hang_up(transport, protocol)

    run(main())


@pytest.mark.skipif(sys.version_info < (3, 11), reason="StreamWriter.start_tls is newer")
def test_start_tls_of_streams(loop, run, contexts):
    async def main():
        async def handle(reader, writer):
            assert await reader.readline() == b"STARTTLS\n"
            writer.write(b"go on\n")
            await writer.drain()
            await writer.start_tls(contexts[0])
            writer.write((await reader.readline()).upper())
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(server))
        writer.write(b"STARTTLS\n")
        assert await reader.readline() == b"go on\n"
        await writer.start_tls(contexts[1], server_hostname="localhost")
        writer.write(b"secret\n")
        assert await reader.readline() == b"SECRET\n"
        writer.close()
        await writer.wait_closed()
        await shut(server)

    run(main())
