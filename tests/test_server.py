"""Servers under load and under failure: many connections, backlog, no descriptors left."""

import asyncio
import contextlib
import errno
import gc
import socket
import sys

import pytest
from support import free_port, read_exactly, read_to_end, run_script, until

pytestmark = pytest.mark.core


class Echo(asyncio.Protocol):
    open = 0

    def connection_made(self, transport):
        type(self).open += 1
        self.transport = transport

    def data_received(self, data):
        self.transport.write(data)

    def connection_lost(self, exc):
        type(self).open -= 1


@pytest.fixture
def echo():
    """A fresh Echo class, which counts its open connections."""
    return type("Echo", (Echo,), {"open": 0})


async def listen(factory, **options):
    """A server on 127.0.0.1 and its address."""
    server = await asyncio.get_running_loop().create_server(factory, "127.0.0.1", 0, **options)
    return server, server.sockets[0].getsockname()


async def shut(server):
    server.close()
    await server.wait_closed()


async def connected(address):
    sock = socket.socket()
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, address)
    return sock


async def is_served(loop, echo, address):
    client = await connected(address)
    await loop.sock_sendall(client, b"served")
    assert await read_exactly(client, 6) == b"served"
    client.close()
    await until(lambda: echo.open == 0)


def test_several_connections_at_once(loop, run, echo):
    async def talk(address, number):
        sock = await connected(address)
        for turn in range(5):
            text = b"%d/%d" % (number, turn)
            await loop.sock_sendall(sock, text)
            assert await read_exactly(sock, len(text)) == text
        sock.close()

    async def main():
        server, address = await listen(echo)
        await asyncio.gather(*(talk(address, n) for n in range(50)))
        await until(lambda: echo.open == 0)
        await shut(server)

    run(main())


def test_all_who_wait_are_accepted(loop, run, echo):
    """The queue is full of clients before the loop comes to accepting the first."""

    async def main():
        server, address = await listen(echo, backlog=64)
        clients = [socket.create_connection(address) for _ in range(60)]
        await until(lambda: echo.open == len(clients))
        for client in clients:
            client.close()
        await until(lambda: echo.open == 0)
        await shut(server)

    run(main())


def test_connections_that_end_before_they_are_accepted(loop, run, echo):
    async def main():
        server, address = await listen(echo)
        for _ in range(20):
            sock = socket.create_connection(address)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            sock.close()
        await asyncio.sleep(0.02)
        await is_served(loop, echo, address)
        await shut(server)

    run(main())


@pytest.mark.parametrize("debug", [False, True])
def test_a_factory_that_fails(loop, run, kind, errors, echo, debug):
    """The connection ends, debug mode reports it, and the server goes on."""
    calls = []

    def factory():
        calls.append(1)
        if len(calls) == 1:
            raise ZeroDivisionError
        return echo()

    async def main():
        loop.set_debug(debug)
        server, address = await listen(factory)
        first = await connected(address)
        await until(lambda: calls)
        if kind == "uvloop_clone" or not debug:  # asyncio leaves it to the garbage collector
            assert await read_to_end(first) == b""
        first.close()
        second = await connected(address)
        await loop.sock_sendall(second, b"served")
        assert await read_exactly(second, 6) == b"served"
        second.close()
        await until(lambda: echo.open == 0)
        loop.set_debug(False)
        await shut(server)

    run(main())
    if debug:
        (context,) = errors
        assert context["message"] == "Error on transport creation for incoming connection"
        assert isinstance(context["exception"], ZeroDivisionError)
        del context
        errors.clear()  # asyncio's traceback keeps the connection


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # asyncio forgets the connection
def test_a_factory_that_closes_its_server(loop, run):
    """Nobody is served by a server that is closed: wait_closed() may be over."""
    made = []

    class Protocol(asyncio.Protocol):
        def connection_made(self, transport):
            made.append(transport)

    def factory():
        servers[0].close()
        return Protocol()

    servers = []

    async def main():
        server, address = await listen(factory)
        servers.append(server)
        with socket.create_connection(address) as sock:
            await until(lambda: not server.is_serving())
            await asyncio.wait_for(server.wait_closed(), 10)
            sock.send(b"x")
            await asyncio.sleep(0.02)
            gc.collect()

    run(main())
    assert not made


@pytest.mark.parametrize("exception", [SystemExit, KeyboardInterrupt])
def test_a_factory_that_exits_leaves_the_loop(loop, exception):
    def factory():
        raise exception("out")

    server, address = loop.run_until_complete(listen(factory))
    client = socket.create_connection(address)
    guard = loop.call_later(20, loop.stop)
    with pytest.raises(exception, match="out"):
        loop.run_forever()
    guard.cancel()
    client.close()
    server.close()
    loop.run_until_complete(asyncio.sleep(0.01))


def test_no_descriptor_left(kind):
    """Accepting pauses and is reported; open connections live on; all are served later."""
    result = run_script(
        kind,
        """
        import errno, resource, socket
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
        reports = []

        class Echo(asyncio.Protocol):
            def connection_made(self, transport):
                self.transport = transport
            def data_received(self, data):
                self.transport.write(data)

        async def ask(sock, text):
            await loop.sock_sendall(sock, text)
            return await asyncio.wait_for(loop.sock_recv(sock, 100), 20)

        async def main():
            server = await loop.create_server(Echo, "127.0.0.1", 0)
            address = server.sockets[0].getsockname()
            clients = [socket.socket() for _ in range(5)]
            for client in clients:
                client.setblocking(False)
            await loop.sock_connect(clients[0], address)
            assert await ask(clients[0], b"before") == b"before"
            copies = []
            try:
                while True:
                    copies.append(os.dup(0))
            except OSError as exc:
                assert exc.errno == errno.EMFILE
            for client in clients[1:]:
                await loop.sock_connect(client, address)
            for _ in range(100):
                await asyncio.sleep(0.005)
                if reports:
                    break
            # no storm of reports: the loop waits before it tries again
            # (asyncio reports once for each connection that the backlog allows)
            assert 1 <= len(reports) <= (100 if KIND == "asyncio" else 5), len(reports)
            assert await ask(clients[0], b"during") == b"during"
            for fd in copies:
                os.close(fd)
            begin = time.monotonic()
            answers = await asyncio.gather(*(ask(c, b"after") for c in clients))
            assert answers == [b"after"] * 5
            for client in clients:
                client.close()
            await asyncio.sleep(0.05)
            server.close()
            await server.wait_closed()

        loop = make_loop(KIND)
        loop.set_exception_handler(lambda where, context: reports.append(context))
        loop.run_until_complete(main())
        loop.close()
        context = reports[0]
        assert context["message"] == "socket.accept() out of system resource", context
        assert context["exception"].errno == errno.EMFILE
        assert type(context["socket"]).__name__ in ("TransportSocket", "socket")
        print("served")
        """,
    )
    assert (result.returncode, result.stdout) == (0, "served\n"), result.stderr


@pytest.mark.only("uvloop_clone")
def test_close_while_accepting_is_paused(kind):
    """The retry that is due a second later must not touch the closed listener."""
    result = run_script(
        kind,
        """
        import resource, socket
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
        reports = []

        async def main():
            server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
            client = socket.socket()
            client.setblocking(False)
            copies = []
            try:
                while True:
                    copies.append(os.dup(0))
            except OSError:
                pass
            await loop.sock_connect(client, server.sockets[0].getsockname())
            while not reports:
                await asyncio.sleep(0.005)
            server.close()
            for fd in copies:
                os.close(fd)
            await asyncio.sleep(1.3)
            client.close()

        loop = make_loop(KIND)
        loop.set_exception_handler(lambda where, context: reports.append(context["message"]))
        loop.run_until_complete(asyncio.wait_for(main(), 30))
        loop.close()
        print(sorted(set(reports)))
        """,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == "['socket.accept() out of system resource']\n"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel refuses shutdown()")
def test_an_error_of_accept_that_lasts(loop, run, errors, kind, echo):
    """It is reported, without filling the processor, and all is well once it is over."""

    async def main():
        with socket.create_server(("127.0.0.1", 0)) as sock:
            server = await loop.create_server(echo, sock=sock)
            sock.shutdown(socket.SHUT_RDWR)
            begin = loop.metrics().polls if kind == "uvloop_clone" else 0
            await until(lambda: errors)
            await asyncio.sleep(0.1)
            if kind == "uvloop_clone":  # asyncio accepts and reports all the time
                assert errors.messages == ["socket.accept() failed"]
                assert errors[0]["socket"].fileno() == sock.fileno()
                assert loop.metrics().polls - begin < 100  # until() polls, too
            assert {exc.errno for exc in errors.exceptions} == {errno.EINVAL}
            sock.listen()
            await is_served(loop, echo, sock.getsockname())
            await shut(server)

    run(main())


@pytest.mark.only("uvloop_clone")
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other kernels tell in other ways")
def test_an_error_that_stops_the_poll(loop, run, errors):
    """No listening socket is known to have one; a datagram socket has, and cannot accept."""

    async def main():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind(("127.0.0.1", 0))
            sock.connect(("127.0.0.1", free_port()))
            sock.setblocking(False)
            loop._start_listening(sock, asyncio.Protocol, None, 1)
            sock.send(b"nobody is there")
            await until(lambda: errors)
            loop._stop_listening(sock)

    run(main())
    assert [exc.errno for exc in errors.exceptions] == [errno.EOPNOTSUPP]


@pytest.mark.only("uvloop_clone")
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel refuses shutdown()")
@pytest.mark.parametrize("how", ["sock.close()", "os.close(sock.detach())", "os.close(number)"])
def test_a_socket_closed_by_its_owner_while_accepting_is_paused(kind, how):
    """libuv would end the process if it were given the descriptor again."""
    result = run_script(
        kind,
        f"""
        import socket
        reports = []

        async def main():
            sock = socket.create_server(("127.0.0.1", 0))
            number = sock.fileno()
            await loop.create_server(asyncio.Protocol, sock=sock)
            sock.shutdown(socket.SHUT_RDWR)
            while not reports:
                await asyncio.sleep(0.005)
            {how}
            while len(reports) < 2:
                await asyncio.sleep(0.005)
            await asyncio.sleep(0.01)
            if sock.fileno() >= 0:
                sock.detach()

        loop = make_loop(KIND)
        loop.set_exception_handler(lambda where, context: reports.append(context["message"]))
        loop.run_until_complete(asyncio.wait_for(main(), 30))
        loop.close()
        print(reports)
        """,
    )
    assert result.stdout == f"{['socket.accept() failed'] * 2}\n", result.stderr


def test_close_stops_accepting_at_once(loop, run, echo):
    async def main():
        server, address = await listen(echo)
        await shut(server)
        with pytest.raises(ConnectionRefusedError):
            await connected(address)

    run(main())


def test_the_server_is_closed_in_the_callback_of_a_connection(loop, run):
    made = []

    class CloseTheServer(asyncio.Protocol):
        def connection_made(self, transport):
            made.append(transport)
            made[0].abort()
            server.close()

    async def main():
        nonlocal server
        server, address = await listen(CloseTheServer)
        clients = [socket.create_connection(address) for _ in range(3)]
        await until(lambda: made)
        await asyncio.sleep(0.02)
        for transport in made:
            transport.abort()
        for client in clients:
            client.close()
        await server.wait_closed()

    server = None
    run(main())


# asyncio goes on to believe that the number is polled, and the later server accepts nobody
@pytest.mark.only("uvloop_clone")
def test_a_listening_socket_that_its_owner_closed(loop, run, echo):
    async def main():
        sock = socket.create_server(("127.0.0.1", 0))
        number = sock.fileno()
        server = await loop.create_server(echo, sock=sock)
        sock.close()
        with contextlib.suppress(ValueError):  # what asyncio raises
            server.close()
        later, address = await listen(echo)
        assert later.sockets[0].fileno() == number  # or this test shows nothing
        await is_served(loop, echo, address)
        await shut(later)

    run(main())


def test_two_servers_side_by_side(loop, run, echo):
    async def main():
        first, one = await listen(echo)
        second, two = await listen(echo)
        for address in (one, two):
            client = await connected(address)
            await loop.sock_sendall(client, b"x")
            assert await read_exactly(client, 1) == b"x"
            client.close()
        await until(lambda: echo.open == 0)
        await shut(first)
        client = await connected(two)
        client.close()
        await asyncio.sleep(0.01)
        await shut(second)

    run(main())


def test_large_exchange_over_many_connections(loop, run, echo):
    payload = bytes(range(256)) * 2048

    async def talk(address):
        sock = await connected(address)
        sending = loop.create_task(loop.sock_sendall(sock, payload))
        assert await read_exactly(sock, len(payload)) == payload
        await sending
        sock.close()

    async def main():
        server, address = await listen(echo)
        await asyncio.gather(*(talk(address) for _ in range(20)))
        await until(lambda: echo.open == 0)
        await shut(server)

    run(main())


def test_a_burst_of_connections_is_accepted(loop, run):
    """However many come at once, and again after a pause: none waits for another to come."""

    async def main():
        made = []

        class Protocol(asyncio.Protocol):
            def connection_made(self, transport):
                made.append(transport)

        server = await loop.create_server(Protocol, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        clients = []
        for count in (1, 1, 40, 1, 7):
            for _ in range(count):
                client = socket.socket()
                client.setblocking(False)
                client.connect_ex(address)
                clients.append(client)
            await until(lambda: len(made) == len(clients), limit=30)
        assert {t.get_extra_info("sockname") for t in made} == {address}
        peers = {t.get_extra_info("peername") for t in made}
        assert peers == {client.getsockname() for client in clients}
        for transport in made:
            transport.abort()
        for client in clients:
            client.close()
        server.close()
        await server.wait_closed()

    run(main())


def test_the_address_of_a_connection_to_the_wildcard(loop, run):
    async def main():
        made = loop.create_future()

        class Protocol(asyncio.Protocol):
            def connection_made(self, transport):
                made.set_result(transport)

        server = await loop.create_server(Protocol, "0.0.0.0", 0)
        port = server.sockets[0].getsockname()[1]
        with socket.socket() as client:
            client.setblocking(False)
            client.connect_ex(("127.0.0.1", port))
            transport = await made
            assert transport.get_extra_info("sockname") == ("127.0.0.1", port)
            transport.abort()
        server.close()
        await server.wait_closed()

    run(main())
