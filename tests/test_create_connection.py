"""create_connection() by host and port: resolving, several addresses, happy eyeballs."""

import asyncio
import errno
import gc
import socket
import sys
import warnings

import pytest
from serving import Echo, ask, hang_up, needs_ipv6, port_of, resolving_to, shut
from support import Recorder, free_port, until

pytestmark = pytest.mark.core


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", b"127.0.0.1"])
def test_connect(loop, run, host):
    async def main():
        server = await loop.create_server(Echo, "127.0.0.1", 0)
        transport, protocol = await loop.create_connection(Recorder, host, port_of(server))
        assert isinstance(transport, asyncio.Transport)
        assert isinstance(protocol, Recorder)
        assert protocol.events == ["made"]
        assert protocol.transport is transport
        assert await ask(transport, protocol) == b"ping"
        assert transport.get_extra_info("peername") == ("127.0.0.1", port_of(server))
        assert transport.get_extra_info("sockname")[0] == "127.0.0.1"
        assert await hang_up(transport, protocol) is None
        await shut(server)

    run(main())


def test_port_as_text(loop, run):
    async def main():
        server = await loop.create_server(Echo, "127.0.0.1", "0")
        transport, protocol = await loop.create_connection(
            Recorder, "127.0.0.1", str(port_of(server))
        )
        await hang_up(transport, protocol)
        await shut(server)

    run(main())


def test_no_port(loop, run):
    async def main():
        server = await loop.create_server(Echo, "127.0.0.1", 0)
        with pytest.raises(OverflowError, match="port must be 0-65535"):
            await loop.create_connection(Recorder, "127.0.0.1", 65536 + port_of(server))
        with pytest.raises(OverflowError, match="port must be 0-65535"):
            await loop.create_connection(
                Recorder, "127.0.0.1", port_of(server), local_addr=("127.0.0.1", 65536)
            )
        await shut(server)

    run(main())


def test_host_none_is_this_machine(loop, run):
    async def main():
        server = await loop.create_server(Echo, "127.0.0.1", 0)
        transport, protocol = await loop.create_connection(
            Recorder, None, port_of(server), family=socket.AF_INET
        )
        assert await ask(transport, protocol) == b"ping"
        await hang_up(transport, protocol)
        await shut(server)

    run(main())


@needs_ipv6
def test_ipv6(loop, run):
    async def main():
        server = await loop.create_server(Echo, "::1", 0)
        transport, protocol = await loop.create_connection(Recorder, "::1", port_of(server))
        assert transport.get_extra_info("peername")[:2] == ("::1", port_of(server))
        assert await ask(transport, protocol) == b"ping"
        await hang_up(transport, protocol)
        await shut(server)

    run(main())


def test_protocol_is_made_after_the_connection(loop, run):
    made = []

    def factory():
        made.append(True)
        return Recorder()

    async def main():
        with pytest.raises(ConnectionRefusedError):
            await loop.create_connection(factory, "127.0.0.1", free_port())
        assert made == []

    run(main())


async def give_protocol():
    return asyncio.Protocol()


@pytest.mark.filterwarnings("ignore:coroutine 'give_protocol' was never awaited:RuntimeWarning")
@pytest.mark.parametrize(
    "factory", [lambda: None, give_protocol, object], ids=["none", "coroutine", "object"]
)
@pytest.mark.parametrize("way", ["host", "sock", "unix", "datagram", "pipe"])
def test_a_factory_that_gives_no_protocol(loop, run, pair, factory, way):
    near, _far = pair()

    async def connect():
        if way == "host":
            with socket.create_server(("127.0.0.1", 0)) as server:
                await loop.create_connection(factory, *server.getsockname())
        elif way == "sock":
            await loop.create_connection(factory, sock=near)
        elif way == "unix":
            one, _other = socket.socketpair()
            await loop.create_unix_connection(factory, sock=one)
        elif way == "datagram":
            await loop.create_datagram_endpoint(factory, local_addr=("127.0.0.1", 0))
        else:
            await loop.connect_read_pipe(factory, near)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # sockets that nobody closes
        with pytest.raises(AttributeError, match="has no attribute 'connection_made'"):
            run(connect())
        gc.collect()


def test_failing_protocol_factory(loop, run):
    accepted = []

    async def main():
        server = await loop.create_server(lambda: Echo(accepted), "127.0.0.1", 0)
        with pytest.raises(KeyError):
            await loop.create_connection({}.popitem, "127.0.0.1", port_of(server))
        await until(lambda: accepted and accepted[0].lost.done())
        await shut(server)

    if type(loop).__module__ != "uvloop_clone" and sys.version_info < (3, 14):
        pytest.skip("asyncio leaves the socket to the garbage collector")
    run(main())


def test_refused(loop, run):
    async def main():
        with pytest.raises(ConnectionRefusedError) as caught:
            await loop.create_connection(Recorder, "127.0.0.1", free_port())
        assert caught.value.errno == errno.ECONNREFUSED

    run(main())


def test_unknown_host(loop, run):
    async def main():
        with pytest.raises(socket.gaierror):
            await loop.create_connection(Recorder, "nothing.invalid", 80)

    run(main())


def test_several_addresses_and_one_answers(loop, run, monkeypatch):
    async def main():
        server = await loop.create_server(Echo, "127.0.0.1", 0)
        port, dead = port_of(server), free_port()

        def resolve(host, wanted, *args, **kwargs):
            return [
                (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", dead)),
                (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)),
            ]

        monkeypatch.setattr(socket, "getaddrinfo", resolve)
        transport, protocol = await loop.create_connection(Recorder, "two.test", 1)
        assert await ask(transport, protocol) == b"ping"
        await hang_up(transport, protocol)
        await shut(server)

    run(main())


@pytest.mark.parametrize("delay", [None, 0.01])
def test_several_addresses_and_none_answers(loop, run, monkeypatch, delay):
    async def main():
        ports = free_port(), free_port()
        resolving_to(monkeypatch, *ports)
        with pytest.raises(OSError) as caught:
            await loop.create_connection(Recorder, "two.test", 1, happy_eyeballs_delay=delay)
        assert str(caught.value).startswith("Multiple exceptions: ")
        assert all(str(port) in str(caught.value) for port in ports)

    run(main())


def test_equal_failures_are_raised_as_one(loop, run, monkeypatch):
    async def main():
        port = free_port()
        resolving_to(monkeypatch, port, port)
        with pytest.raises(ConnectionRefusedError):
            await loop.create_connection(Recorder, "two.test", 1)

    run(main())


def test_no_address(loop, run, monkeypatch):
    async def main():
        resolving_to(monkeypatch)
        with pytest.raises(OSError, match=r"getaddrinfo\(\) returned empty list"):
            await loop.create_connection(Recorder, "none.test", 1)

    run(main())


@pytest.mark.skipif(sys.version_info < (3, 12), reason="all_errors is newer than this Python")
@pytest.mark.parametrize("count", [1, 2])
def test_all_errors(loop, run, monkeypatch, count):
    async def main():
        resolving_to(monkeypatch, *[free_port() for _ in range(count)])
        with pytest.raises(ExceptionGroup) as caught:  # noqa: F821
            await loop.create_connection(Recorder, "some.test", 1, all_errors=True)
        assert len(caught.value.exceptions) == count
        assert all(isinstance(e, ConnectionRefusedError) for e in caught.value.exceptions)

    run(main())


def test_happy_eyeballs_takes_the_one_that_answers(loop, run, monkeypatch):
    async def main():
        server = await loop.create_server(Echo, "127.0.0.1", 0)
        port = port_of(server)
        stuck, connect = ("127.0.0.1", 1), loop.sock_connect

        async def slow_connect(sock, address):
            if address == stuck:
                await asyncio.sleep(100)
            await connect(sock, address)

        monkeypatch.setattr(loop, "sock_connect", slow_connect)
        resolving_to(monkeypatch, 1, port)
        transport, protocol = await loop.create_connection(
            Recorder, "two.test", 1, happy_eyeballs_delay=0.05
        )
        assert transport.get_extra_info("peername") == ("127.0.0.1", port)
        await hang_up(transport, protocol)
        await shut(server)

    run(main())


@pytest.mark.parametrize(
    ("options", "order"),
    [
        ({}, "66644"),
        ({"interleave": 1}, "64646"),
        ({"interleave": 2}, "66464"),
        ({"interleave": 0}, "66644"),
        ({"happy_eyeballs_delay": 5}, "64646"),
        ({"happy_eyeballs_delay": 5, "interleave": 0}, "66644"),
    ],
)
def test_interleave(loop, run, monkeypatch, options, order):
    async def main():
        tried = []

        async def refuse(sock, address):
            tried.append("6" if sock.family == socket.AF_INET6 else "4")
            raise OSError(errno.ECONNREFUSED, f"refused {len(tried)}")

        def resolve(*args, **kwargs):
            six = (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", 1, 0, 0))
            four = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 1))
            return [six, six, six, four, four]

        monkeypatch.setattr(socket, "getaddrinfo", resolve)
        monkeypatch.setattr(loop, "sock_connect", refuse)
        with pytest.raises(OSError, match="Multiple exceptions"):
            await loop.create_connection(Recorder, "many.test", 1, **options)
        assert "".join(tried) == order

    run(main())


def test_local_address(loop, run):
    async def main():
        accepted = []
        server = await loop.create_server(lambda: Echo(accepted), "127.0.0.1", 0)
        port = free_port()
        transport, protocol = await loop.create_connection(
            Recorder, "127.0.0.1", port_of(server), local_addr=("127.0.0.1", port)
        )
        assert transport.get_extra_info("sockname") == ("127.0.0.1", port)
        await until(lambda: accepted)
        assert accepted[0].transport.get_extra_info("peername") == ("127.0.0.1", port)
        await hang_up(transport, protocol)
        await shut(server)

    run(main())


def test_local_address_in_use(loop, run):
    async def main():
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            address = taken.getsockname()
            with pytest.raises(
                OSError, match="error while attempting to bind on address"
            ) as caught:
                await loop.create_connection(Recorder, "127.0.0.1", 1, local_addr=address)
            assert caught.value.errno == errno.EADDRINUSE

    run(main())


@pytest.mark.skipif(sys.version_info < (3, 12), reason="asyncio connects without binding here")
def test_local_address_of_another_family(loop, run):
    async def main():
        with pytest.raises(OSError, match="no matching local address with family="):
            await loop.create_connection(Recorder, "127.0.0.1", 1, local_addr=("::1", 0))

    run(main())


def test_cancelled_while_connecting(loop, run, monkeypatch):
    async def main():
        began = loop.create_future()

        async def never(sock, address):
            began.set_result(sock)
            await asyncio.sleep(100)

        monkeypatch.setattr(loop, "sock_connect", never)
        task = loop.create_task(loop.create_connection(Recorder, "127.0.0.1", 1))
        sock = await began
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert sock.fileno() == -1

    run(main())


def test_replaced_getaddrinfo_of_the_loop_is_asked(loop, run, monkeypatch):
    async def main():
        server = await loop.create_server(Echo, "127.0.0.1", 0)
        asked = []

        async def resolve(host, port, **options):
            asked.append((host, port, options))
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

        monkeypatch.setattr(loop, "getaddrinfo", resolve)
        transport, protocol = await loop.create_connection(Recorder, "name.test", port_of(server))
        assert asked[0][:2] == ("name.test", port_of(server))
        assert asked[0][2]["type"] == socket.SOCK_STREAM
        await hang_up(transport, protocol)
        await shut(server)

    run(main())


def test_literals_need_no_resolver(loop, run, monkeypatch):
    async def main():
        server = await loop.create_server(Echo, "127.0.0.1", 0)

        def fail(*args, **kwargs):
            raise AssertionError("asked for a literal")

        monkeypatch.setattr(socket, "getaddrinfo", fail)
        transport, protocol = await loop.create_connection(Recorder, "127.0.0.1", port_of(server))
        await hang_up(transport, protocol)
        await shut(server)

    run(main())
