"""create_datagram_endpoint: its arguments, and what the endpoints receive."""

import asyncio
import inspect
import os
import socket
import struct
import sys
import warnings
import weakref

import pytest
from support import until

pytestmark = pytest.mark.core

HERE = ("127.0.0.1", 0)


class Datagrams(asyncio.DatagramProtocol):
    """Keeps what happens to it."""

    def __init__(self):
        self.events = []
        self.received = []
        self.failures = []
        self.transport = None
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport):
        self.events.append("made")
        self.transport = transport

    def datagram_received(self, data, addr):
        assert type(data) is bytes
        self.received.append((data, addr))

    def error_received(self, exc):
        self.failures.append(exc)

    def pause_writing(self):
        self.events.append("pause")

    def resume_writing(self):
        self.events.append("resume")

    def connection_lost(self, exc):
        self.events.append("lost")
        self.lost.set_result(exc)


async def endpoint(factory=Datagrams, **kwargs):
    loop = asyncio.get_running_loop()
    if not kwargs:
        kwargs = {"local_addr": HERE}
    return await loop.create_datagram_endpoint(factory, **kwargs)


async def end(*protocols):
    for protocol in protocols:
        protocol.transport.close()
        assert await asyncio.wait_for(protocol.lost, 5) is None
    await asyncio.sleep(0)


def name_of(transport):
    return transport.get_extra_info("sockname")


def has_ipv6():
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")


def test_there_and_back(loop, run):
    class Echo(Datagrams):
        def datagram_received(self, data, addr):
            super().datagram_received(data, addr)
            self.transport.sendto(b"re: " + data, addr)

    async def main():
        server, echo = await endpoint(Echo)
        client, answers = await endpoint(remote_addr=name_of(server))
        for i in range(50):
            client.sendto(b"%d" % i)
        await until(lambda: len(answers.received) == 50)
        own, peer = name_of(client), name_of(server)
        assert echo.received == [(b"%d" % i, own) for i in range(50)]
        assert answers.received == [(b"re: %d" % i, peer) for i in range(50)]
        await end(echo, answers)
        assert echo.events == answers.events == ["made", "lost"]

    run(main())


def test_types_and_extra_info(loop, run):
    async def main():
        transport, protocol = await endpoint()
        assert isinstance(transport, asyncio.Transport)
        if sys.version_info >= (3, 12):
            assert isinstance(transport, asyncio.DatagramTransport)
        assert weakref.ref(transport)() is transport
        sock = transport.get_extra_info("socket")
        assert sock.type == socket.SOCK_DGRAM
        assert sock.getsockname() == name_of(transport)
        assert sock.gettimeout() == 0
        assert transport.get_extra_info("peername", "none") is None
        assert transport.get_extra_info("nonsense", 7) == 7
        assert transport.get_protocol() is protocol
        other = Datagrams()
        transport.set_protocol(other)
        assert transport.get_protocol() is other
        transport.set_protocol(protocol)
        client, second = await endpoint(remote_addr=name_of(transport))
        assert client.get_extra_info("peername") == name_of(transport)
        await end(protocol, second)
        assert name_of(client) is not None

    run(main())


@pytest.mark.only("uvloop_clone")
def test_ours_is_a_datagram_transport_everywhere(loop, run):
    async def main():
        transport, protocol = await endpoint()
        assert isinstance(transport, asyncio.DatagramTransport)
        await end(protocol)

    run(main())


def test_repr(loop, run):
    async def main():
        transport, protocol = await endpoint()
        fd = transport.get_extra_info("socket").fileno()
        assert f"fd={fd} read=polling write=<idle, bufsize=0>" in repr(transport)
        transport.close()
        assert "closing" in repr(transport)
        await protocol.lost
        await asyncio.sleep(0)
        assert "closed" in repr(transport)

    run(main())


@needs_ipv6
def test_ipv6(loop, run):
    async def main():
        server, got = await endpoint(local_addr=("::1", 0))
        name = name_of(server)
        assert name[0] == "::1" and name[2:] == (0, 0)
        client, protocol = await endpoint(remote_addr=name[:2])
        other, third = await endpoint(local_addr=("::1", 0))
        client.sendto(b"connected")
        other.sendto(b"two", name[:2])
        other.sendto(b"four", name)
        other.sendto(b"three", ("::1", name[1], 0))
        await until(lambda: len(got.received) == 4)
        assert got.received == [
            (b"connected", name_of(client)),
            (b"two", name_of(other)),
            (b"four", name_of(other)),
            (b"three", name_of(other)),
        ]
        await end(got, protocol, third)

    run(main())


@needs_ipv6
def test_a_scope(loop, run):
    """The scope of an address is kept, as text behind % and as the fourth item."""
    index = socket.if_nametoindex("lo" if sys.platform == "linux" else "lo0")

    async def main():
        server, got = await endpoint(local_addr=("::1", 0))
        port = name_of(server)[1]
        client, protocol = await endpoint(local_addr=("::1", 0))
        client.sendto(b"a", ("::1", port, 0, index))
        await until(lambda: len(got.received) == 1)
        assert got.received == [(b"a", name_of(client))]
        await end(got, protocol)

    run(main())


def test_host_names_are_resolved(loop, run):
    async def main():
        server, got = await endpoint(local_addr=("localhost", 0), family=socket.AF_INET)
        client, protocol = await endpoint()
        client.sendto(b"by name", ("localhost", name_of(server)[1]))
        await until(lambda: got.received)
        assert got.received == [(b"by name", name_of(client))]
        await end(got, protocol)

    run(main())


def test_a_name_that_does_not_resolve(loop, run):
    async def main():
        with pytest.raises(socket.gaierror):
            await endpoint(remote_addr=("no-such-host.invalid", 1))
        transport, protocol = await endpoint()
        transport.sendto(b"x", ("no-such-host.invalid", 1))
        assert isinstance(protocol.failures[0], socket.gaierror)
        assert not transport.is_closing()
        await end(protocol)

    run(main())


def test_many_peers(loop, run):
    """More peers than any table of addresses holds; each is told apart."""

    async def main():
        server, got = await endpoint()
        name = name_of(server)
        clients = [await endpoint() for _ in range(150)]
        for turn in range(3):
            for i, (client, _) in enumerate(clients):
                client.sendto(b"%d %d" % (turn, i), name)
            await until(lambda turn=turn: len(got.received) == 150 * (turn + 1))
        expected = {
            (b"%d %d" % (turn, i), name_of(client))
            for turn in range(3)
            for i, (client, _) in enumerate(clients)
        }
        assert set(got.received) == expected
        for client, protocol in clients:
            server.sendto(b"back", name_of(client))
            await until(lambda protocol=protocol: protocol.received)
            assert protocol.received == [(b"back", name)]
        await end(got, *(protocol for _, protocol in clients))

    run(main())


@pytest.mark.parametrize("size", [1, 1472, 9000, 65507])
def test_sizes(loop, run, size):
    async def main():
        server, got = await endpoint()
        client, protocol = await endpoint(remote_addr=name_of(server))
        data = os.urandom(size)
        for _ in range(3):
            client.sendto(data)
        await until(lambda: len(got.received) == 3)
        assert [d for d, _ in got.received] == [data] * 3
        await end(got, protocol)

    run(main())


def test_a_datagram_too_large(loop, run):
    async def main():
        server, got = await endpoint()
        client, protocol = await endpoint(remote_addr=name_of(server))
        client.sendto(b"x" * 70000)
        assert [type(exc) for exc in protocol.failures] == [OSError]
        client.sendto(b"small")
        await until(lambda: got.received)
        assert got.received[0][0] == b"small"
        await end(got, protocol)

    run(main())


def test_empty_datagrams(loop, run):
    """Received everywhere; sent since Python 3.13."""

    async def main():
        server, got = await endpoint()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"", name_of(server))
            await until(lambda: got.received)
            assert got.received == [(b"", ("127.0.0.1", sock.getsockname()[1]))]
        client, protocol = await endpoint(remote_addr=name_of(server))
        client.sendto(b"")
        client.sendto(bytearray())
        client.sendto(b"end")
        await until(lambda: got.received[-1][0] == b"end")
        sent = [b"", b"", b"end"] if sys.version_info >= (3, 13) else [b"end"]
        assert [data for data, _ in got.received[1:]] == sent
        await end(got, protocol)

    run(main())


# ---- arguments ---------------------------------------------------------------------------


def refused(run, error, match, **kwargs):
    async def main():
        loop = asyncio.get_running_loop()
        with pytest.raises(error, match=match):
            await loop.create_datagram_endpoint(Datagrams, **kwargs)

    run(main())


def test_no_address_and_no_family(loop, run):
    refused(run, ValueError, "unexpected address family")


@pytest.mark.parametrize("address", ["localhost", ("localhost",), ("localhost", 1, 2), ["a", 1]])
@pytest.mark.parametrize("name", ["local_addr", "remote_addr"])
def test_addresses_that_are_none(loop, run, name, address):
    error = TypeError if sys.version_info >= (3, 11) else AssertionError
    refused(run, error, "2-tuple is expected", **{name: address})


@pytest.mark.parametrize("name", ["local_addr", "remote_addr"])
def test_no_port(loop, run, name):
    refused(run, OverflowError, "port must be 0-65535", **{name: ("127.0.0.1", 65536 + 9)})


@needs_ipv6
def test_ends_of_two_families(loop, run):
    refused(
        run,
        ValueError,
        "can not get address information",
        local_addr=HERE,
        remote_addr=("::1", 1),
    )


@pytest.mark.parametrize("address", [("a", 1), b"bytes"])
def test_unix_addresses_are_text(loop, run, address):
    refused(run, TypeError, "string is expected", local_addr=address, family=socket.AF_UNIX)


@pytest.mark.parametrize(
    "arguments, problems",
    [
        ({"local_addr": ("127.0.0.1", 1)}, "local_addr=('127.0.0.1', 1)"),
        ({"remote_addr": ("127.0.0.1", 1)}, "remote_addr=('127.0.0.1', 1)"),
        ({"family": 2}, "family=2"),
        ({"proto": 1, "flags": 3}, "proto=1, flags=3"),
        ({"reuse_port": True, "allow_broadcast": True}, "reuse_port=True, allow_broadcast=True"),
    ],
)
def test_a_socket_goes_with_nothing_else(loop, run, arguments, problems):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:

        async def main():
            with pytest.raises(ValueError) as info:
                await loop.create_datagram_endpoint(Datagrams, sock=sock, **arguments)
            start = "socket modifier keyword arguments can not be used when sock is specified. ("
            assert str(info.value).startswith(start)
            shown = str(info.value)[len(start) : -1].split(", ")
            if sys.version_info < (3, 11):  # asyncio's own shows an argument that was not given
                shown = [text for text in shown if not text.startswith("reuse_address")]
            assert ", ".join(shown) == problems

        run(main())


def test_a_stream_socket(loop, run):
    with socket.socket() as sock:
        refused(run, ValueError, r"A (UDP Socket|datagram socket) was expected, got <", sock=sock)


def test_a_given_socket(loop, run):
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(HERE)

    async def main():
        transport, protocol = await endpoint(sock=sock)
        assert sock.gettimeout() == 0
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.sendto(b"x", sock.getsockname())
            await until(lambda: protocol.received)
        await end(protocol)
        assert sock.fileno() == -1

    run(main())


def test_a_connected_socket(loop, run):
    async def main():
        server, got = await endpoint()
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.connect(name_of(server))
        transport, protocol = await endpoint(sock=sock)
        assert transport.get_extra_info("peername") == name_of(server)
        transport.sendto(b"plain")
        transport.sendto(b"with an address", ("192.0.2.1", 9))  # which the peer's name overrides
        await until(lambda: len(got.received) == 2)
        await end(got, protocol)

    run(main())


# asyncio lets both transports read and write it
@pytest.mark.only("uvloop_clone")
def test_the_socket_of_a_transport(loop, run):
    """It is refused to a second one, and the first keeps it."""

    async def main():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind(HERE)
            transport, protocol = await endpoint(sock=sock)
            assert loop.metrics().datagrams == 1
            with pytest.raises(RuntimeError, match=r"File descriptor \d+ is used by transport"):
                await endpoint(sock=sock)
            assert loop.metrics().datagrams == 1
            with pytest.raises(RuntimeError, match=r"File descriptor \d+ is used by transport"):
                loop.add_reader(sock, print)
            transport.sendto(b"to itself", sock.getsockname())
            await until(lambda: protocol.received == [(b"to itself", sock.getsockname())])
            await end(protocol)
            assert loop.metrics().datagrams == 0

    run(main())


def udp_pair():
    """Two UDP sockets, connected to each other."""
    near, far = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
    for sock in (near, far):
        sock.bind(HERE)
        sock.setblocking(False)
    near.connect(far.getsockname())
    far.connect(near.getsockname())
    return near, far


def test_the_number_of_a_closed_socket_is_used_again(loop, run):
    """The file that has the number next is neither read nor written."""

    async def main():
        near, far = udp_pair()
        transport, protocol = await endpoint(sock=near)
        near.close()
        others = socket.socketpair()
        with far, others[0], others[1]:
            transport.sendto(b"secret")
            for sock in others:
                sock.setblocking(False)
                with pytest.raises(BlockingIOError):
                    sock.recv(100)
            for sock in others:
                sock.send(b"private")
            await asyncio.sleep(0.01)
            assert protocol.received == []
            transport.abort()
            assert await asyncio.wait_for(protocol.lost, 5) is None
            await asyncio.sleep(0)
            assert [sock.recv(100) for sock in others] == [b"private"] * 2

    run(main())


@pytest.mark.only("uvloop_clone")
@pytest.mark.parametrize("closes", [True, False])
def test_a_given_socket_is_held(loop, run, closes):
    """asyncio's transport is left without a descriptor; ours works until it is closed itself."""

    async def main():
        near, far = udp_pair()
        transport, protocol = await endpoint(sock=near)
        fd = near.fileno()
        with far:
            if closes:
                near.close()
            transport.sendto(b"there")
            assert far.recv(100) == b"there"
            far.send(b"back")
            await until(lambda: protocol.received)
            assert protocol.received == [(b"back", far.getsockname())]
            await end(protocol)
            assert near.fileno() == -1
            with pytest.raises(OSError):
                os.fstat(fd)

    run(main())


def test_close_is_called_once_on_a_given_socket(loop, run):
    class Socket(socket.socket):
        closed = 0

        def close(self):
            self.closed += 1
            super().close()

    async def main():
        sock = Socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind(HERE)
        _, protocol = await endpoint(sock=sock)
        await end(protocol)
        assert sock.fileno() == -1 and sock.closed == 1

    run(main())


def test_family_alone(loop, run):
    async def main():
        transport, protocol = await endpoint(family=socket.AF_INET)
        assert name_of(transport) == ("0.0.0.0", 0)
        server, got = await endpoint()
        transport.sendto(b"x", name_of(server))
        await until(lambda: got.received)
        await end(got, protocol)

    run(main())


def test_local_and_remote(loop, run):
    async def main():
        server, got = await endpoint()
        transport, protocol = await endpoint(local_addr=HERE, remote_addr=name_of(server))
        assert name_of(transport)[0] == "127.0.0.1"
        assert transport.get_extra_info("peername") == name_of(server)
        await end(got, protocol)

    run(main())


def test_an_address_in_use(loop, run):
    async def main():
        server, got = await endpoint()
        with pytest.raises(OSError, match="in use"):
            await endpoint(local_addr=name_of(server))
        await end(got)

    run(main())


@pytest.mark.skipif(not hasattr(socket, "SO_REUSEPORT"), reason="no SO_REUSEPORT")
def test_reuse_port(loop, run):
    async def main():
        first, protocol = await endpoint(local_addr=HERE, reuse_port=True)
        second, other = await endpoint(local_addr=name_of(first), reuse_port=True)
        for transport in (first, second):
            sock = transport.get_extra_info("socket")
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)
        await end(protocol, other)

    run(main())


def test_allow_broadcast(loop, run):
    """The socket may broadcast; the remote address is only sent to, not connected to."""

    async def main():
        server, got = await endpoint()
        transport, protocol = await endpoint(remote_addr=name_of(server), allow_broadcast=True)
        sock = transport.get_extra_info("socket")
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST)
        assert transport.get_extra_info("peername") is None
        transport.sendto(b"a")
        transport.sendto(b"b", name_of(server))
        with pytest.raises(ValueError, match="Invalid address: must be None or"):
            transport.sendto(b"c", ("127.0.0.1", 1))
        await until(lambda: len(got.received) == 2)
        await end(got, protocol)

    run(main())


def test_broadcast_takes_permission(loop, run):
    async def main():
        transport, protocol = await endpoint(family=socket.AF_INET)
        transport.sendto(b"x", ("255.255.255.255", 9))
        assert [type(exc) for exc in protocol.failures] == [PermissionError]
        await end(protocol)

    run(main())


def test_reuse_address(loop, run):
    """Gone in 3.11; before, True was refused and False deprecated."""

    async def main():
        make = loop.create_datagram_endpoint
        if sys.version_info >= (3, 11):
            with pytest.raises(TypeError, match="unexpected keyword argument 'reuse_address'"):
                await make(Datagrams, local_addr=HERE, reuse_address=False)
            assert "reuse_address" not in inspect.signature(make).parameters
            return
        assert "reuse_address" in inspect.signature(make).parameters
        with pytest.raises(ValueError, match="Passing `reuse_address=True` is no longer supported"):
            await make(Datagrams, local_addr=HERE, reuse_address=True)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            _, protocol = await make(Datagrams, local_addr=HERE, reuse_address=False)
        assert [w.category for w in caught] == [DeprecationWarning]
        await end(protocol)

    run(main())


def test_a_factory_that_fails(loop, run):
    async def main():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind(HERE)
            with pytest.raises(ZeroDivisionError):
                await loop.create_datagram_endpoint(lambda: 1 / 0, sock=sock)
            assert sock.fileno() != -1

    run(main())


def test_cancelled_while_it_is_made(loop, run):
    made = []

    def factory():
        made.append(Datagrams())
        return made[0]

    async def main():
        task = loop.create_task(loop.create_datagram_endpoint(factory, local_addr=HERE))
        while not made:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await made[0].lost

    run(main())


# ---- Unix sockets ------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder whose name is short enough for socket paths: the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_unix_datagrams(loop, run, folder):
    async def main():
        server, got = await endpoint(local_addr="server", family=socket.AF_UNIX)
        named, first = await endpoint(local_addr="client", family=socket.AF_UNIX)
        bound, second = await endpoint(remote_addr="server", family=socket.AF_UNIX)
        assert bound.get_extra_info("peername") == "server"
        named.sendto(b"named", "server")
        bound.sendto(b"no name")
        await until(lambda: len(got.received) == 2)
        assert got.received == [(b"named", "client"), (b"no name", None)]
        server.sendto(b"back", "client")
        await until(lambda: first.received)
        assert first.received == [(b"back", "server")]
        await end(got, first, second)

    run(main())


def test_unix_stale_file(loop, run, folder):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind("stale")
    (folder / "file").write_text("no socket")

    async def main():
        _, protocol = await endpoint(local_addr="stale", family=socket.AF_UNIX)
        with pytest.raises(OSError, match="in use"):
            await endpoint(local_addr="file", family=socket.AF_UNIX)
        await end(protocol)

    run(main())


@pytest.mark.skipif(sys.platform != "linux", reason="abstract names are Linux's")
def test_unix_abstract_name(loop, run):
    name = f"\0uvloop-clone-test-{os.getpid()}"

    async def main():
        server, got = await endpoint(local_addr=name, family=socket.AF_UNIX)
        assert name_of(server) == name.encode()
        client, protocol = await endpoint(remote_addr=name, family=socket.AF_UNIX)
        client.sendto(b"x")
        await until(lambda: got.received)
        await end(got, protocol)

    run(main())


def test_unix_large_datagrams(loop, run):
    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    data = os.urandom(150_000)
    a.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)

    async def main():
        _, got = await endpoint(sock=b)
        a.send(b"small")
        a.send(data)
        await until(lambda: len(got.received) == 2)
        assert [d for d, _ in got.received] == [b"small", data]
        await end(got)

    with a:
        run(main())


@pytest.mark.only("uvloop_clone")
def test_unix_pair_without_names(loop, run):
    """A peer without a name is a peer: asyncio's transport fails there."""
    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)

    async def main():
        one, first = await endpoint(sock=a)
        _, second = await endpoint(sock=b)
        one.sendto(b"x")
        await until(lambda: second.received)
        await end(first, second)

    run(main())


@pytest.mark.skipif(not hasattr(socket, "AF_NETLINK"), reason="netlink is Linux's")
@pytest.mark.parametrize("given", [[b"data", (1, 2)], (b"data", (1, 2), 3), None])
def test_what_recvfrom_of_a_subclass_gives(loop, run, errors, given):
    """A family whose addresses only the socket module knows; two things of any iterable."""

    class Odd(socket.socket):
        def recvfrom(self, size):
            self.recv(size)
            return given

    async def main():
        sock = Odd(socket.AF_NETLINK, socket.SOCK_DGRAM)
        sock.bind((0, 0))
        transport, protocol = await endpoint(sock=sock)
        # A question that the kernel answers: RTM_GETLINK, a dump of all.
        sock.send(struct.pack("=IHHIIBxHiII", 32, 18, 0x301, 1, 0, 0, 0, 0, 0, 0))
        await until(lambda: protocol.received or errors)
        if type(given) is list:
            assert protocol.received[0] == tuple(given)
            transport.close()
            await protocol.lost
        else:
            assert isinstance(await protocol.lost, (TypeError, ValueError))
            assert errors[0]["message"] == "Fatal read error on datagram transport"
            errors.clear()

    run(main())
