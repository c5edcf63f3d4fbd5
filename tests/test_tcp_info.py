"""Stream transports: extra info, types, repr, contexts of the protocol's callbacks."""

import asyncio
import contextvars
import re
import socket
import sys
import weakref

import pytest
from support import Recorder, attach, until

pytestmark = pytest.mark.core

var = contextvars.ContextVar("var", default="unset")


def test_types(loop, run, pair):
    a, _ = pair()

    async def main():
        transport, protocol = await attach(a)
        assert isinstance(transport, asyncio.Transport)
        assert isinstance(transport, asyncio.ReadTransport)
        assert isinstance(transport, asyncio.WriteTransport)
        assert isinstance(transport, asyncio.BaseTransport)
        assert weakref.ref(transport)() is transport
        transport.abort()
        await protocol.lost

    run(main())


def test_extra_info(loop, run, pair):
    a, _b = pair()
    own, peer = a.getsockname(), a.getpeername()

    async def main():
        transport, protocol = await attach(a)
        assert transport.get_extra_info("sockname") == own
        assert transport.get_extra_info("peername") == peer
        assert transport.get_extra_info("nonsense") is None
        assert transport.get_extra_info("nonsense", 5) == 5
        assert transport.get_extra_info("nonsense", default=6) == 6
        assert transport.get_extra_info(name="sockname") == own
        assert transport.get_extra_info("sslcontext") is None
        transport.close()
        await protocol.lost
        await asyncio.sleep(0)
        assert transport.get_extra_info("sockname") == own
        assert transport.get_extra_info("peername") == peer

    run(main())


def test_peername_after_the_peer_went(loop, run, pair):
    a, b = pair()
    peer = a.getpeername()

    async def main():
        transport, protocol = await attach(a)
        b.close()
        await protocol.lost
        assert transport.get_extra_info("peername") == peer

    run(main())


def test_the_socket(loop, run, pair):
    a, _b = pair()

    async def main():
        transport, protocol = await attach(a)
        sock = transport.get_extra_info("socket")
        assert type(sock).__name__ == "TransportSocket"
        assert sock.fileno() == a.fileno()
        assert sock.family == socket.AF_INET
        assert sock.type == socket.SOCK_STREAM
        assert sock.getsockname() == a.getsockname()
        assert sock.getpeername() == a.getpeername()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        assert a.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert sock.gettimeout() == 0
        if sys.version_info >= (3, 11):  # 3.10 still has it, with a warning
            with pytest.raises(AttributeError):
                sock.recv(1)
        transport.abort()
        await protocol.lost

    run(main())


def test_unix_sockets_have_names_too(loop, run):
    a, b = socket.socketpair()
    a.setblocking(False)

    async def main():
        transport, protocol = await attach(a)
        assert transport.get_extra_info("sockname") == ""
        assert transport.get_extra_info("peername") == ""
        assert transport.get_extra_info("socket").family == socket.AF_UNIX
        transport.abort()
        await protocol.lost

    run(main())
    b.close()


def test_repr(loop, run, pair):
    a, _ = pair()

    async def main():
        transport, protocol = await attach(a)
        number = a.fileno()
        text = repr(transport)
        assert re.search(rf"fd={number}\b", text), text
        transport.close()
        assert re.search(r"closing|closed", repr(transport))
        await protocol.lost
        await asyncio.sleep(0)
        assert "closed" in repr(transport)

    run(main())


def test_set_protocol_to_anything(loop, run, pair):
    """asyncio does not check; what is set is what get_protocol() gives."""
    a, _ = pair()

    async def main():
        transport, protocol = await attach(a)
        other = Recorder()
        transport.set_protocol(other)
        assert transport.get_protocol() is other
        transport.set_protocol(protocol)
        transport.abort()
        await protocol.lost
        assert other.events == []

    run(main())


def test_transports_hash_and_compare_by_identity(loop, run, pair):
    a, b = pair()

    async def main():
        first, one = await attach(a)
        second, two = await attach(b)
        assert first == first and first != second
        assert len({first, second}) == 2
        first.abort()
        second.abort()
        await one.lost
        await two.lost

    run(main())


def test_callbacks_see_the_context_of_the_connection(loop, run, pair):
    """Every callback of the protocol sees the variables as they were when it was connected."""
    a, b = pair()
    seen = {}

    class Protocol(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            seen["made"] = var.get()

        def data_received(self, data):
            super().data_received(data)
            seen["data"] = var.get()

        def eof_received(self):
            seen["eof"] = var.get()

        def connection_lost(self, exc):
            seen["lost"] = var.get()
            super().connection_lost(exc)

    async def main():
        var.set("connected")
        _, protocol = await attach(a, Protocol)
        var.set("later")
        b.send(b"x")
        await until(lambda: protocol.data)
        b.close()
        await protocol.lost

    run(main())
    assert seen == dict.fromkeys(("made", "data", "eof", "lost"), "connected")


def test_callbacks_run_with_no_current_task(loop, run, pair):
    a, b = pair()
    seen = []

    class Protocol(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            self.look()

        def data_received(self, data):
            super().data_received(data)
            self.look()

        def look(self):
            seen.append((asyncio.current_task(), asyncio.get_running_loop()))

    async def main():
        transport, protocol = await attach(a, Protocol)
        b.send(b"x")
        await until(lambda: protocol.data)
        transport.abort()
        await protocol.lost

    run(main())
    assert seen == [(None, loop), (None, loop)]
