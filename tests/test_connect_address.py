"""create_connection() to one numeric address: its waits, its ends, and what it leaves replaced.

The `loop` fixture sees to it that no descriptor is left after any of them.
"""

import asyncio
import contextvars
import errno
import resource
import socket
import sys

import pytest
from serving import Echo, ask, hang_up, port_of, shut
from support import Recorder, free_port, open_fds, run_script, until

pytestmark = pytest.mark.core

var = contextvars.ContextVar("var", default="unset")


class Deaf:
    """A listener whose queue is full: who connects waits until accept() is called."""

    def __init__(self):
        self.sock = socket.create_server(("127.0.0.1", 0), backlog=0)
        self.clients = []
        while not self.clients or self.is_connected(self.clients[-1]):
            client = socket.socket()
            client.setblocking(False)
            client.connect_ex(self.sock.getsockname())
            self.clients.append(client)

    @staticmethod
    def is_connected(client):
        try:
            client.getpeername()
        except OSError:
            return False
        return True

    def accept(self):
        """Take in those who have filled the queue."""
        self.clients.pop().close()
        for _ in self.clients:
            self.sock.accept()[0].close()

    def close(self):
        for sock in (self.sock, *self.clients):
            sock.close()


@pytest.fixture
def deaf():
    if sys.platform != "linux":
        pytest.skip("another kernel's full queue may refuse")
    listener = Deaf()
    yield listener
    listener.close()


def test_waits_for_the_handshake(loop, run, deaf):
    address = deaf.sock.getsockname()

    async def main():
        task = loop.create_task(loop.create_connection(Recorder, *address))
        await asyncio.sleep(0.05)
        assert not task.done()
        deaf.accept()
        transport, protocol = await task  # after the kernel's second try
        accepted, peer = deaf.sock.accept()
        assert protocol.events == ["made"]
        assert transport.get_extra_info("peername") == address
        assert transport.get_extra_info("sockname") == peer
        accepted.send(b"hello")
        await until(lambda: protocol.data == b"hello")
        accepted.close()
        await hang_up(transport, protocol)

    run(main())


@pytest.mark.parametrize("how", ["cancel", "timeout", "close", "resume"])
def test_left_during_the_handshake(loop, run, deaf, how):
    address = deaf.sock.getsockname()

    async def main():
        before = open_fds()
        connecting = loop.create_connection(Recorder, *address)
        if how == "timeout":
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(connecting, 0.05)
        elif how == "cancel":
            task = loop.create_task(connecting)
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        else:
            connecting.send(None)
            if how == "close":
                connecting.close()
            else:
                with pytest.raises(RuntimeError, match="await wasn't used with future"):
                    connecting.send(None)
        await asyncio.sleep(0)
        assert open_fds() == before

    run(main())


def test_refused(loop, run):
    port = free_port()

    async def main():
        with pytest.raises(ConnectionRefusedError) as caught:
            await loop.create_connection(Recorder, "127.0.0.1", port)
        assert caught.value.args == (
            errno.ECONNREFUSED,
            f"Connect call failed {('127.0.0.1', port)}",
        )

    run(main())


def test_unreachable(loop, run):
    async def main():
        with pytest.raises(OSError) as caught:
            await loop.create_connection(Recorder, "255.255.255.255", 80)
        assert caught.value.errno in (errno.EACCES, errno.ENETUNREACH)

    run(main())


def test_no_descriptor_left(loop, run):
    async def main():
        server = await loop.create_server(Echo, "127.0.0.1", 0)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        with socket.socket() as last:
            resource.setrlimit(resource.RLIMIT_NOFILE, (last.fileno(), hard))
        try:
            with pytest.raises(OSError) as caught:
                await loop.create_connection(Recorder, "127.0.0.1", port_of(server))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert caught.value.errno == errno.EMFILE
        await shut(server)

    run(main())


def test_cancelled_before_the_task_goes_on(loop, run):
    """Whatever stage it is at: the connection is closed and its protocol, if made, is told."""
    made, accepted = [], []

    def factory():
        made.append(Recorder())
        return made[-1]

    async def main():
        server = await loop.create_server(lambda: Echo(accepted), "127.0.0.1", 0)
        for turns in range(6):
            task = loop.create_task(loop.create_connection(factory, "127.0.0.1", port_of(server)))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            try:
                transport, protocol = await task
            except asyncio.CancelledError:
                continue
            await hang_up(transport, protocol)
        await until(lambda: all(echo.lost.done() for echo in accepted))
        await until(lambda: all(p.lost.done() for p in made if "made" in p.events))
        await shut(server)

    run(main())


@pytest.mark.only("uvloop_clone")  # asyncio has made no protocol by then
def test_closed_before_connection_made(loop, run):
    """Nobody waits for the transport any more when its protocol is told."""
    accepted, made = [], []

    def factory():
        made.append(Recorder())
        return made[-1]

    async def main():
        server = await loop.create_server(lambda: Echo(accepted), "127.0.0.1", 0)
        connecting = loop.create_connection(factory, "127.0.0.1", port_of(server))
        connecting.send(None)
        connecting.close()
        (protocol,) = made
        await protocol.lost
        assert protocol.events[0] == "made"
        await until(lambda: accepted and accepted[0].lost.done())
        await shut(server)

    run(main())


def test_contexts(loop, run):
    """The factory runs in the task, the protocol's methods in a copy of the task's context."""
    seen = []

    class Protocol(Recorder):
        def __init__(self):
            super().__init__()
            seen.append(("factory", asyncio.current_task(), var.get()))
            var.set("factory")

        def connection_made(self, transport):
            super().connection_made(transport)
            seen.append(("made", None, var.get()))
            var.set("made")

        def connection_lost(self, exc):
            super().connection_lost(exc)
            seen.append(("lost", None, var.get()))

    async def main():
        server = await loop.create_server(Echo, "127.0.0.1", 0)
        var.set("task")
        transport, protocol = await loop.create_connection(Protocol, "127.0.0.1", port_of(server))
        assert var.get() == "factory"
        await hang_up(transport, protocol)
        assert seen[0] == ("factory", asyncio.current_task(), "task")
        assert seen[1][2] == "factory"
        await shut(server)

    run(main())


def test_order_of_callbacks(loop, run):
    """connection_made() comes in a turn of its own, before the task goes on."""
    order = []

    class Protocol(Recorder):
        def __init__(self):
            super().__init__()
            order.append("factory")
            loop.call_soon(order.append, "after the factory")

        def connection_made(self, transport):
            super().connection_made(transport)
            order.append("made")
            loop.call_soon(order.append, "after made")

    async def main():
        server = await loop.create_server(Echo, "127.0.0.1", 0)
        made = await loop.create_connection(Protocol, "127.0.0.1", port_of(server))
        order.append("connected")
        await asyncio.sleep(0)
        assert order[:3] == ["factory", "after the factory", "made"]
        assert sorted(order[3:]) == ["after made", "connected"]
        await hang_up(*made)
        await shut(server)

    run(main())


def test_the_socket_that_is_shown(loop, run):
    async def main():
        server = await loop.create_server(Echo, "127.0.0.1", 0)
        transport, protocol = await loop.create_connection(Recorder, "127.0.0.1", port_of(server))
        own, peer = transport.get_extra_info("sockname"), transport.get_extra_info("peername")
        shown = transport.get_extra_info("socket")
        assert (shown.family, shown.type, shown.proto) == (
            socket.AF_INET,
            socket.SOCK_STREAM,
            socket.IPPROTO_TCP,
        )
        assert shown.gettimeout() == 0
        assert (shown.getsockname(), shown.getpeername()) == (own, peer)
        assert shown.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert not shown.get_inheritable()
        assert await ask(transport, protocol) == b"ping"
        await hang_up(transport, protocol)
        await asyncio.sleep(0)
        assert shown.fileno() == -1
        assert transport.get_extra_info("sockname") == own
        assert transport.get_extra_info("peername") == peer
        await shut(server)

    run(main())


def test_the_peer_of_the_wildcard(loop, run):
    """0.0.0.0 is this machine: the kernel knows what it stands for."""

    async def main():
        server = await loop.create_server(Echo, "127.0.0.1", 0)
        transport, protocol = await loop.create_connection(Recorder, "0.0.0.0", port_of(server))
        assert transport.get_extra_info("peername") == ("127.0.0.1", port_of(server))
        await hang_up(transport, protocol)
        await shut(server)

    run(main())


@pytest.mark.parametrize("what", ["class", "method", "sock_connect"])
def test_replaced_ways_to_connect_are_used(loop, run, monkeypatch, what):
    """By tools that forbid sockets, or lead them through a proxy."""

    class Guarded(socket.socket):
        def connect(self, address):
            raise PermissionError(f"not to {address}")

    async def sock_connect(sock, address):
        Guarded.connect(sock, address)

    async def main():
        server = await loop.create_server(Echo, "127.0.0.1", 0)
        with monkeypatch.context() as patch:
            if what == "class":
                patch.setattr(socket, "socket", Guarded)
            elif what == "method":
                patch.setattr(socket.socket, "connect", Guarded.connect)
            else:
                patch.setattr(loop, "sock_connect", sock_connect)
            with pytest.raises(PermissionError, match="not to"):
                await loop.create_connection(Recorder, "127.0.0.1", port_of(server))
        await shut(server)

    run(main())


def test_audit_hooks_are_asked(kind):
    """In a process of its own: an audit hook stays for good."""
    code = """
        import socket, sys

        def hook(event, args):
            if event == "socket.connect" and args[1] == address:
                raise PermissionError("not there")

        listener = socket.create_server(("127.0.0.1", 0))
        address = listener.getsockname()
        sys.addaudithook(hook)

        async def main():
            try:
                await loop.create_connection(asyncio.Protocol, *address)
            except PermissionError as error:
                print(error)

        loop = make_loop(KIND)
        loop.run_until_complete(main())
        loop.close()
    """
    assert run_script(kind, code).stdout == "not there\n"
