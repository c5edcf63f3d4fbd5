"""create_server(): where it listens, options, refusals; streams and threads over it."""

import asyncio
import contextlib
import errno
import socket
import sys
import threading

import pytest
from serving import Echo, ask, can_connect, hang_up, needs_ipv6, port_of, shut
from support import Recorder, free_port, run_script, until

pytestmark = pytest.mark.core

# From 3.13 on, and in later releases of 3.12.
NEEDS_AN_ADDRESS = "EADDRNOTAVAIL" in asyncio.BaseEventLoop.create_server.__code__.co_names


def test_server_sockets(loop, run):
    async def main():
        server = await loop.create_server(Echo, "127.0.0.1", 0)
        assert isinstance(server, asyncio.AbstractServer)
        assert isinstance(server.sockets, tuple)
        (view,) = server.sockets
        assert isinstance(view, asyncio.trsock.TransportSocket)
        assert view.family == socket.AF_INET
        assert repr(server).startswith("<Server sockets=(<asyncio.TransportSocket fd=")
        await shut(server)
        assert server.sockets == ()
        assert repr(server) == "<Server sockets=()>"

    run(main())


def test_several_hosts(loop, run):
    async def main():
        server = await loop.create_server(Echo, ["127.0.0.1", "127.0.0.2", "127.0.0.1"], 0)
        assert sorted(s.getsockname()[0] for s in server.sockets) == ["127.0.0.1", "127.0.0.2"]
        for sock in server.sockets:
            assert await can_connect(loop, *sock.getsockname())
        await shut(server)

    run(main())


@needs_ipv6
@pytest.mark.parametrize("host", [None, ""])
def test_everywhere_is_both_families(loop, run, host):
    async def main():
        port = free_port()
        server = await loop.create_server(Echo, host, port)
        assert {s.family for s in server.sockets} == {socket.AF_INET, socket.AF_INET6}
        assert await can_connect(loop, "127.0.0.1", port)
        assert await can_connect(loop, "::1", port)
        await shut(server)

    run(main())


def test_one_family(loop, run):
    async def main():
        server = await loop.create_server(Echo, None, free_port(), family=socket.AF_INET)
        assert [s.family for s in server.sockets] == [socket.AF_INET]
        await shut(server)

    run(main())


def test_given_socket(loop, run):
    async def main():
        sock = socket.socket()
        sock.bind(("127.0.0.1", 0))
        server = await loop.create_server(Echo, sock=sock)
        assert not sock.getblocking()
        assert await can_connect(loop, *sock.getsockname())
        await shut(server)
        assert sock.fileno() == -1

    run(main())


@pytest.mark.parametrize(("given", "expected"), [(None, 1), (True, 1), (False, 0)])
def test_reuse_address(loop, run, given, expected):
    async def main():
        server = await loop.create_server(Echo, "127.0.0.1", 0, reuse_address=given)
        value = server.sockets[0].getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
        assert bool(value) == bool(expected)
        await shut(server)

    run(main())


@pytest.mark.skipif(not hasattr(socket, "SO_REUSEPORT"), reason="this system has no SO_REUSEPORT")
def test_reuse_port(loop, run):
    async def main():
        first = await loop.create_server(Echo, "127.0.0.1", 0, reuse_port=True)
        second = await loop.create_server(Echo, "127.0.0.1", port_of(first), reuse_port=True)
        await shut(first)
        await shut(second)

    run(main())


def test_reuse_port_where_there_is_none(loop, run, monkeypatch):
    async def main():
        monkeypatch.delattr(socket, "SO_REUSEPORT", raising=False)
        with pytest.raises(ValueError, match="reuse_port not supported by socket module"):
            await loop.create_server(Echo, "127.0.0.1", 0, reuse_port=True)

    run(main())


@pytest.mark.skipif(sys.version_info < (3, 13), reason="keep_alive is newer than this Python")
def test_keep_alive(loop, run):
    async def main():
        server = await loop.create_server(Echo, "127.0.0.1", 0, keep_alive=True)
        assert server.sockets[0].getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        await shut(server)

    run(main())


def test_address_in_use(loop, run):
    async def main():
        server = await loop.create_server(Echo, "127.0.0.1", 0)
        with pytest.raises(OSError, match="error while attempting to bind on address") as caught:
            await loop.create_server(Echo, "127.0.0.1", port_of(server))
        assert caught.value.errno == errno.EADDRINUSE
        await shut(server)

    run(main())


def test_no_port(loop, run):
    async def main():
        port = 65536 + free_port()
        with pytest.raises(OverflowError, match="port must be 0-65535"):
            await loop.create_server(Echo, "127.0.0.1", port)
        with pytest.raises(OverflowError, match="port must be 0-65535"):
            await asyncio.start_server(print, "127.0.0.1", port)

    run(main())


@pytest.mark.only("uvloop_clone")
def test_texts_are_asyncios(loop, run):
    """They differ between Pythons, even between maintenance releases."""

    async def failures():
        loop = asyncio.get_running_loop()
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            address = taken.getsockname()
            for opening in (
                loop.create_server(Echo, *address),
                loop.create_connection(Echo, "127.0.0.1", 1, local_addr=address),
                loop.create_datagram_endpoint(asyncio.DatagramProtocol, ("192.0.2.1", 0)),
            ):
                with pytest.raises(OSError) as caught:
                    await opening
                yield caught.value.errno, str(caught.value).replace(str(address[1]), "port")

    async def main():
        return [failure async for failure in failures()]

    with contextlib.closing(asyncio.SelectorEventLoop()) as standard:
        expected = standard.run_until_complete(main())
    assert run(main()) == expected


@pytest.mark.skipif(NEEDS_AN_ADDRESS, reason="asyncio refuses that here")
def test_no_host_at_all(loop, run):
    async def main():
        server = await loop.create_server(Echo, [], 0)
        assert server.sockets == () and server.is_serving()
        await shut(server)

    run(main())


def test_address_of_another_machine(loop, run):
    async def main():
        with pytest.raises(OSError) as caught:
            await loop.create_server(Echo, "192.0.2.1", 0)
        if NEEDS_AN_ADDRESS:
            assert "could not bind on any address" in str(caught.value)
        else:
            assert caught.value.errno == errno.EADDRNOTAVAIL

    run(main())


@pytest.mark.parametrize(
    ("arguments", "options", "error", "text"),
    [
        ((), {}, ValueError, "Neither host/port nor sock were specified"),
        (("127.0.0.1", 0), {"ssl": True}, TypeError, "must be an SSLContext or None"),
        (("127.0.0.1", 0), {"ssl": False}, TypeError, "must be an SSLContext or None"),
        (("127.0.0.1", 0), {"ssl_handshake_timeout": 1}, ValueError, "only meaningful with ssl"),
        (("127.0.0.1", 0), {"ssl_shutdown_timeout": 1}, ValueError, "only meaningful with ssl"),
        (("nothing.invalid", 0), {}, socket.gaierror, None),
        (("127.0.0.1", 0), {"backlog": "many"}, TypeError, None),
        (([], 0), {}, OSError, "could not bind"),
    ],
)
def test_wrong_server_arguments(loop, run, arguments, options, error, text):
    if "ssl_shutdown_timeout" in options and sys.version_info < (3, 11):
        pytest.skip("ssl_shutdown_timeout is newer than this Python")
    if arguments and arguments[0] == [] and not NEEDS_AN_ADDRESS:
        pytest.skip("asyncio makes a server without sockets here")

    async def main():
        with pytest.raises(error, match=text):
            await loop.create_server(Echo, *arguments, **options)

    run(main())


def test_server_socket_and_host(loop, run):
    async def main():
        with socket.socket() as sock:
            with pytest.raises(ValueError, match="can not be specified at the same time"):
                await loop.create_server(Echo, "127.0.0.1", 0, sock=sock)

    run(main())


def test_many_connections(loop, run):
    async def main():
        accepted = []
        server = await loop.create_server(lambda: Echo(accepted), "127.0.0.1", 0)
        clients = await asyncio.gather(
            *(loop.create_connection(Recorder, "127.0.0.1", port_of(server)) for _ in range(100))
        )
        answers = await asyncio.gather(
            *(ask(t, p, b"client %d" % i) for i, (t, p) in enumerate(clients))
        )
        assert answers == [b"client %d" % i for i in range(100)]
        await asyncio.gather(*(hang_up(t, p) for t, p in clients))
        await until(lambda: all(e.lost.done() for e in accepted))
        assert len(accepted) == 100
        await shut(server)

    run(main())


def test_accepted_transport_tells_its_addresses(loop, run):
    async def main():
        accepted = []
        server = await loop.create_server(lambda: Echo(accepted), "127.0.0.1", 0)
        transport, protocol = await loop.create_connection(Recorder, "127.0.0.1", port_of(server))
        await until(lambda: accepted)
        info = accepted[0].transport.get_extra_info
        assert info("sockname") == transport.get_extra_info("peername")
        assert info("peername") == transport.get_extra_info("sockname")
        assert isinstance(info("socket"), asyncio.trsock.TransportSocket)
        await hang_up(transport, protocol)
        await shut(server)

    run(main())


def test_streams(loop, run):
    async def main():
        async def handle(reader, writer):
            while line := await reader.readline():
                writer.write(line.upper())
                await writer.drain()
            writer.close()
            await writer.wait_closed()

        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(server))
        for text in (b"one\n", b"two\n"):
            writer.write(text)
            assert await reader.readline() == text.upper()
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
        await shut(server)

    run(main())


def test_debug_mode_logs(loop, run, caplog):
    async def main():
        loop.set_debug(True)
        server = await loop.create_server(Echo, "127.0.0.1", 0)
        transport, protocol = await loop.create_connection(Recorder, "127.0.0.1", port_of(server))
        await hang_up(transport, protocol)
        await shut(server)
        loop.set_debug(False)

    with caplog.at_level("DEBUG", logger="asyncio"):
        run(main())
    assert "is serving" in caplog.text
    assert "connected to 127.0.0.1" in caplog.text


@pytest.mark.only("uvloop_clone")
def test_no_memory_for_listening(kind):
    """Whichever allocation fails, it is a MemoryError and nobody listens."""
    pytest.importorskip("_testcapi")
    result = run_script(
        kind,
        """
        import _testcapi, contextvars, socket
        contextvars.copy_context()  # Python's own first making of one crashes without memory

        def start(sock, n):
            loop = make_loop(KIND)
            _testcapi.set_nomemory(n, n + 1)
            try:
                loop._start_listening(sock, asyncio.Protocol, None, 1)
            except MemoryError:
                return False
            finally:
                _testcapi.remove_mem_hooks()
                servers = loop.metrics().servers
                loop.close()
                outcomes.append(servers)
            return True

        outcomes = []
        with socket.create_server(("127.0.0.1", 0)) as sock:
            n = 1
            while not start(sock, n):
                n += 1
        print(n > 3, sum(outcomes[:-1]), outcomes[-1])
        """,
    )
    assert result.stdout == "True 0 1\n", result.stderr


def test_loops_in_two_threads_talk(loop, run, new_loop):
    other = new_loop()
    ready = threading.Event()
    ports = []

    async def serve():
        server = await other.create_server(Echo, "127.0.0.1", 0)
        ports.append(port_of(server))
        stop = asyncio.Event()
        ports.append(stop)
        ready.set()
        await stop.wait()
        await shut(server)

    thread = threading.Thread(target=lambda: other.run_until_complete(serve()))
    thread.start()
    assert ready.wait(10)

    async def main():
        transport, protocol = await loop.create_connection(Recorder, "127.0.0.1", ports[0])
        assert await ask(transport, protocol) == b"ping"
        await hang_up(transport, protocol)

    try:
        run(main())
    finally:
        other.call_soon_threadsafe(ports[1].set)
        thread.join(10)
    assert not thread.is_alive()
