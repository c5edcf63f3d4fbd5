"""The other end of a TLS connection, driven by hand: what arrives when, and what is broken."""

import asyncio
import contextlib
import functools
import ssl

import pytest
from support import Recorder, tcp_pair

NAME = "localhost"


@functools.cache
def authority():
    return pytest.importorskip("trustme").CA()


@functools.cache
def certificate():
    return authority().issue_cert(NAME, "127.0.0.1")


def server_context(version=None):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate().configure_cert(context)
    return _only(context, version)


def client_context(version=None):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority().configure_trust(context)
    return _only(context, version)


def _only(context, version):
    if version is not None:
        context.minimum_version = context.maximum_version = version
    return context


VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


class Peer:
    """TLS over a plain socket: an SSLObject between two BIOs, and sock_recv/sock_sendall."""

    def __init__(self, sock, context, server_side):
        self.loop = asyncio.get_running_loop()
        self.sock = sock
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(
            self.incoming,
            self.outgoing,
            server_side=server_side,
            server_hostname=None if server_side else NAME,
        )

    async def flush(self):
        data = self.outgoing.read()
        if data:
            await self.loop.sock_sendall(self.sock, data)

    async def fetch(self):
        data = await self.loop.sock_recv(self.sock, 1 << 16)
        if data:
            self.incoming.write(data)
        else:
            self.incoming.write_eof()
        return data

    async def call(self, method, *args):
        while True:
            try:
                result = method(*args)
            except ssl.SSLWantReadError:
                await self.flush()
                await self.fetch()
                continue
            await self.flush()
            return result

    async def handshake(self):
        await self.call(self.tls.do_handshake)

    async def send(self, data):
        await self.call(self.tls.write, data)

    async def receive(self, count):
        data = bytearray()
        while len(data) < count:
            chunk = await self.call(self.tls.read, count - len(data))
            assert chunk, f"end of stream after {len(data)} of {count} bytes"
            data += chunk
        return bytes(data)

    async def receive_end(self):
        """What is left until close_notify."""
        data = bytearray()
        while True:
            try:
                chunk = await self.call(self.tls.read, 1 << 16)
            except ssl.SSLZeroReturnError:
                return bytes(data)
            if not chunk:
                return bytes(data)
            data += chunk

    def encrypt(self, data):
        """The records of `data`, not sent."""
        self.tls.write(data)
        return self.outgoing.read()

    def close_notify(self):
        """The peer's goodbye, not sent; it reads no more where there was something to read."""
        with contextlib.suppress(ssl.SSLError):
            self.tls.unwrap()
        return self.outgoing.read()


class TLSSocket:
    """A Peer behind the methods of a non-blocking socket."""

    def __init__(self, peer):
        self.peer = peer

    def send(self, data):
        self.peer.sock.sendall(self.peer.encrypt(data))

    def recv(self, size):
        while True:
            try:
                return self.peer.tls.read(size)
            except ssl.SSLWantReadError:
                data = self.peer.sock.recv(1 << 16)  # BlockingIOError where there is nothing
                if data:
                    self.peer.incoming.write(data)
                else:
                    self.peer.incoming.write_eof()
            except ssl.SSLZeroReturnError:
                return b""

    def close(self):
        with contextlib.suppress(OSError, ssl.SSLError):
            while self.recv(1 << 16):  # what is left unread would end in a reset
                pass
        with contextlib.suppress(OSError):
            self.peer.sock.send(self.peer.close_notify())
        self.peer.sock.close()


async def connect(factory=Recorder, *, server_side=False, version=None, **options):
    """(transport, protocol, peer): a TLS transport of the running loop and its counterpart."""
    loop = asyncio.get_running_loop()
    a, b = tcp_pair()
    if server_side:
        peer = Peer(b, client_context(version), False)
        making = loop.connect_accepted_socket(
            factory, a, ssl=options.pop("context", None) or server_context(version), **options
        )
    else:
        peer = Peer(b, server_context(version), True)
        making = loop.create_connection(
            factory,
            sock=a,
            ssl=options.pop("context", None) or client_context(version),
            server_hostname=NAME,
            **options,
        )
    (transport, protocol), _ = await asyncio.gather(making, peer.handshake())
    return transport, protocol, peer


async def part(transport, protocol, peer):
    """End the connection in good order."""
    transport.close()
    await peer.receive_end()
    await peer.call(peer.tls.unwrap)
    peer.sock.close()
    return await asyncio.wait_for(protocol.lost, 10)
