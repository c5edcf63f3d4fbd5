"""sock_accept and sock_connect."""

import asyncio
import contextlib
import socket

import pytest
from serving import needs_ipv6
from support import free_port

pytestmark = pytest.mark.core


@pytest.fixture
def listener():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen(16)
        sock.setblocking(False)
        yield sock


@pytest.fixture
def client():
    with socket.socket() as sock:
        sock.setblocking(False)
        yield sock


def test_connect_and_accept(loop, run, listener, client):
    async def main():
        accepting = loop.create_task(loop.sock_accept(listener))
        await asyncio.sleep(0.01)
        assert not accepting.done()
        assert await loop.sock_connect(client, listener.getsockname()) is None
        accepted, address = await accepting
        assert isinstance(accepted, socket.socket)
        assert accepted.gettimeout() == 0
        assert address == client.getsockname()
        await loop.sock_sendall(client, b"over the wire")
        assert await loop.sock_recv(accepted, 100) == b"over the wire"
        accepted.close()

    run(main())


def test_accept_of_one_who_waits_already(loop, run, listener, client):
    async def main():
        await loop.sock_connect(client, listener.getsockname())
        accepted, address = await loop.sock_accept(listener)
        assert address == client.getsockname()
        accepted.close()

    run(main())


def test_several_accepts_in_a_row(loop, run, listener):
    async def main():
        clients = [socket.create_connection(listener.getsockname()) for _ in range(5)]
        addresses = set()
        for _ in clients:
            accepted, address = await loop.sock_accept(listener)
            addresses.add(address)
            accepted.close()
        assert addresses == {client.getsockname() for client in clients}
        for client in clients:
            client.close()

    run(main())


def test_connect_refused(loop, run, client):
    with pytest.raises(ConnectionRefusedError):
        run(loop.sock_connect(client, ("127.0.0.1", free_port())))
    assert loop.remove_writer(client) is False


def test_the_text_of_a_refusal_names_the_address(loop, run, client):
    port = free_port()
    with pytest.raises(ConnectionRefusedError) as info:
        run(loop.sock_connect(client, ("127.0.0.1", port)))
    assert info.value.errno == 111 or "refused" in str(info.value)


def test_connect_twice(loop, run, listener, client):
    async def main():
        await loop.sock_connect(client, listener.getsockname())
        with pytest.raises(OSError, match="already connected"):
            for _ in range(2):  # the kernel may answer the second call with a late success
                await loop.sock_connect(client, listener.getsockname())

    run(main())


def test_connect_in_progress_can_be_cancelled(loop, run):
    """A listener whose queue is full leaves the next connect in progress."""
    with socket.socket() as full, socket.socket() as client:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        client.setblocking(False)
        fillers = []

        async def main():
            for _ in range(8):
                filler = socket.socket()
                filler.setblocking(False)
                filler.connect_ex(full.getsockname())
                fillers.append(filler)
            await asyncio.sleep(0.02)
            task = loop.create_task(loop.sock_connect(client, full.getsockname()))
            await asyncio.sleep(0.05)
            assert not task.done()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await asyncio.sleep(0)
            assert loop.remove_writer(client) is False

        run(main())
        for filler in fillers:
            filler.close()


def test_a_refused_connect_that_is_cancelled_spoils_no_later_one(loop, run, client):
    async def main():
        with socket.socket() as late:
            late.bind(("127.0.0.1", 0))
            task = loop.create_task(loop.sock_connect(client, late.getsockname()))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            late.listen(1)
            # the first refusal may still wait in the socket; nothing else may
            with contextlib.suppress(ConnectionRefusedError):
                await loop.sock_connect(client, late.getsockname())
                return
            await loop.sock_connect(client, late.getsockname())

    run(main())


def test_accept_can_be_cancelled(loop, run, listener, client):
    async def main():
        task = loop.create_task(loop.sock_accept(listener))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0)
        assert loop.remove_reader(listener) is False
        await loop.sock_connect(client, listener.getsockname())
        accepted, _ = await loop.sock_accept(listener)
        accepted.close()

    run(main())


def test_connect_resolves_a_host_name(loop, run, listener, client):
    async def main():
        await loop.sock_connect(client, ("localhost", listener.getsockname()[1]))
        assert client.getpeername() == listener.getsockname()

    run(main())


def test_connect_to_a_name_that_does_not_exist(loop, run, client):
    with pytest.raises(socket.gaierror):
        run(loop.sock_connect(client, ("no-such-host.invalid", 80)))


def test_connect_unix(loop, run, tmp_path):
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        listener.bind(path)
        listener.listen()
        listener.setblocking(False)
        client.setblocking(False)

        async def main():
            await loop.sock_connect(client, path)
            accepted, _ = await loop.sock_accept(listener)
            await loop.sock_sendall(accepted, b"unix")
            assert await loop.sock_recv(client, 10) == b"unix"
            accepted.close()

        run(main())


def test_connect_unix_to_nothing(loop, run, tmp_path):
    with socket.socket(socket.AF_UNIX) as client:
        client.setblocking(False)
        with pytest.raises(FileNotFoundError):
            run(loop.sock_connect(client, str(tmp_path / "nothing")))


def test_connect_ipv6(loop, run):
    listener = socket.socket(socket.AF_INET6)
    client = socket.socket(socket.AF_INET6)
    with listener, client:
        try:
            listener.bind(("::1", 0))
        except OSError:
            pytest.skip("this machine has no IPv6 loopback")
        listener.listen()
        listener.setblocking(False)
        client.setblocking(False)

        async def main():
            await loop.sock_connect(client, listener.getsockname()[:2])
            accepted, address = await loop.sock_accept(listener)
            assert address == client.getsockname()
            accepted.close()

        run(main())


@needs_ipv6
def test_the_scope_of_an_address_is_kept(loop, run):
    class Asked(socket.socket):
        def connect(self, address):
            self.address = address

    index, name = socket.if_nameindex()[0]

    async def main():
        with Asked(socket.AF_INET6) as sock:
            sock.setblocking(False)
            for address in ((f"fe80::1%{name}", 80), ("fe80::1", 80, 0, index)):
                await loop.sock_connect(sock, address)
                assert sock.address == ("fe80::1", 80, 0, index)

    run(main())


def test_connect_to_no_port(loop, run, listener, client):
    address = "127.0.0.1", 65536 + listener.getsockname()[1]
    with pytest.raises(OverflowError, match="port must be 0-65535"):
        run(loop.sock_connect(client, address))


def test_connect_udp(loop, run):
    a, b = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
    with a, b:
        b.bind(("127.0.0.1", 0))
        a.setblocking(False)
        run(loop.sock_connect(a, b.getsockname()))
        assert a.getpeername() == b.getsockname()


@pytest.mark.parametrize("address", [None, 5, ("127.0.0.1",), ("127.0.0.1", "text", 1, 2, 3)])
def test_connect_to_what_is_no_address(loop, run, client, address):
    with pytest.raises((TypeError, ValueError, socket.gaierror)):
        run(loop.sock_connect(client, address))


def test_debug_mode_refuses_blocking_sockets(loop, run, listener):
    loop.set_debug(True)
    listener.setblocking(True)
    with socket.socket() as client:
        with pytest.raises(ValueError, match="the socket must be non-blocking"):
            run(loop.sock_connect(client, listener.getsockname()))
    with pytest.raises(ValueError, match="the socket must be non-blocking"):
        run(loop.sock_accept(listener))


def test_accept_on_a_closed_loop(new_loop, listener):
    loop = new_loop()
    loop.close()
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        loop.sock_accept(listener).send(None)


def test_accept_of_a_subclass(loop, run, client):
    """Whatever pair it gives: the result is a tuple."""

    class Listing(socket.socket):
        def accept(self):
            return list(super().accept())

    async def main():
        with Listing() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            listener.setblocking(False)
            await loop.sock_connect(client, listener.getsockname())
            pair = await loop.sock_accept(listener)
            assert type(pair) is tuple
            accepted, address = pair
            assert address == client.getsockname()
            accepted.close()

    run(main())


def test_closed_sockets(loop, run, listener, client):
    address = listener.getsockname()
    listener.close()
    client.close()
    with pytest.raises(OSError):
        run(loop.sock_accept(listener))
    with pytest.raises(OSError):
        run(loop.sock_connect(client, address))


def test_accept_on_a_socket_that_does_not_listen(loop, run):
    with socket.socket() as sock:
        sock.setblocking(False)
        with pytest.raises(OSError, match="Invalid argument"):
            run(loop.sock_accept(sock))


def test_tls_sockets_are_refused(loop, run):
    import ssl

    context = ssl.create_default_context()
    with socket.socket() as plain:
        with context.wrap_socket(
            plain, server_hostname="localhost", do_handshake_on_connect=False
        ) as sock:
            sock.setblocking(False)
            with pytest.raises(TypeError, match="Socket cannot be of type SSLSocket"):
                run(loop.sock_connect(sock, ("127.0.0.1", 1)))
            with pytest.raises(TypeError, match="Socket cannot be of type SSLSocket"):
                run(loop.sock_accept(sock))


def test_many_connections(loop, run, listener):
    async def serve(count):
        for _ in range(count):
            sock, _ = await loop.sock_accept(listener)
            await loop.sock_sendall(sock, await loop.sock_recv(sock, 10))
            sock.close()

    async def ask(number):
        with socket.socket() as sock:
            sock.setblocking(False)
            await loop.sock_connect(sock, listener.getsockname())
            await loop.sock_sendall(sock, b"%d" % number)
            return int(await loop.sock_recv(sock, 10))

    async def main():
        serving = loop.create_task(serve(60))
        for base in range(0, 60, 10):
            answers = await asyncio.gather(*(ask(base + i) for i in range(10)))
            assert answers == list(range(base, base + 10))
        await serving

    run(main())
