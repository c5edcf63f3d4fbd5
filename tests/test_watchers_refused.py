"""add_reader and add_writer: what is refused, and closed loops."""

import asyncio
import os
import socket
import tracemalloc
import weakref

import pytest
from support import attach, until

pytestmark = pytest.mark.core

ALL = ["add_reader", "add_writer", "remove_reader", "remove_writer"]


@pytest.mark.parametrize("method", ALL)
@pytest.mark.parametrize("value", [-1, "text", None, object(), 1.5, []])
def test_what_is_no_descriptor(loop, method, value):
    args = (print,) if method.startswith("add") else ()
    with pytest.raises(ValueError):
        getattr(loop, method)(value, *args)


@pytest.mark.parametrize("method", ["add_reader", "add_writer"])
def test_a_closed_descriptor(loop, method):
    r, w = os.pipe()
    os.close(r)
    os.close(w)
    with pytest.raises(OSError):
        getattr(loop, method)(r, print)


@pytest.mark.parametrize("method", ["add_reader", "add_writer"])
def test_a_large_number_costs_no_memory(loop, method):
    """Nothing is made ready for a descriptor that is not open."""
    tracemalloc.start()
    try:
        with pytest.raises(OSError):
            getattr(loop, method)(5_000_000, print)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_a_wait_without_a_descriptor(loop, run):
    """A socket of somebody's own that has none, and says that it is not ready."""

    class Bare(socket.socket):
        def recv(self, count):
            raise BlockingIOError

    async def main():
        sock = Bare()
        sock.setblocking(False)
        os.close(sock.detach())
        with pytest.raises((OSError, ValueError)):
            await loop.sock_recv(sock, 1)

    run(main())


def test_a_closed_socket(loop, sockets):
    a, _ = sockets
    a.close()
    with pytest.raises(ValueError, match="Invalid file descriptor: -1"):
        loop.add_reader(a, print)


@pytest.mark.parametrize("method", ["add_reader", "add_writer"])
def test_a_regular_file_is_refused(loop, tmp_path, method):
    with open(tmp_path / "file", "w") as file:
        with pytest.raises(PermissionError):
            getattr(loop, method)(file, print)
        # and is not remembered
        assert getattr(loop, method.replace("add", "remove"))(file) is False


@pytest.mark.parametrize("method", ["remove_reader", "remove_writer"])
def test_remove_of_what_is_not_there(loop, sockets, method):
    assert getattr(loop, method)(sockets[0]) is False
    assert getattr(loop, method)(12345) is False


@pytest.mark.parametrize("method", ["add_reader", "add_writer"])
def test_closed_loop(loop, sockets, method):
    loop.close()
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        getattr(loop, method)(sockets[0], print)


@pytest.mark.parametrize("method", ["remove_reader", "remove_writer"])
def test_remove_on_a_closed_loop(loop, sockets, method):
    loop.close()
    assert getattr(loop, method)(sockets[0]) is False


def test_close_frees_what_is_watched(loop, sockets):
    class Callback:
        def __call__(self):
            raise AssertionError

    callback = Callback()
    ref = weakref.ref(callback)
    loop.add_reader(sockets[0], callback)
    loop.add_writer(sockets[1], callback)
    del callback
    loop.close()
    assert ref() is None
    assert sockets[0].fileno() >= 0
    sockets[0].send(b"the descriptor is not closed by the loop")


@pytest.mark.parametrize("method", ALL)
def test_the_descriptor_of_a_transport_is_refused(loop, run, pair, method):
    a, _b = pair()

    async def main():
        transport, protocol = await attach(a)
        fd = transport.get_extra_info("socket").fileno()
        args = (print,) if method.startswith("add") else ()
        with pytest.raises(RuntimeError, match=r"File descriptor .* is used by transport"):
            getattr(loop, method)(fd, *args)
        with pytest.raises(RuntimeError, match=r"File descriptor .* is used by transport"):
            getattr(loop, method)(transport.get_extra_info("socket"), *args)
        transport.close()
        await protocol.lost

    run(main())


# asyncio lets them take the socket from the server, without a word
@pytest.mark.only("uvloop_clone")
@pytest.mark.parametrize("method", [*ALL, "sock_accept", "create_server", "create_connection"])
def test_the_listening_socket_of_a_server_is_refused(loop, run, method):
    match = r"File descriptor \d+ is used by server <.*Server .*>, which listens on it"

    async def main():
        with socket.create_server(("127.0.0.1", 0)) as sock:
            sock.setblocking(False)
            server = await loop.create_server(asyncio.Protocol, sock=sock)
            args = (print,) if method.startswith("add") else ()
            with pytest.raises(RuntimeError, match=match):
                if method.startswith("create"):
                    await getattr(loop, method)(asyncio.Protocol, sock=sock)
                elif method == "sock_accept":
                    await loop.sock_accept(sock)
                else:
                    getattr(loop, method)(sock, *args)
            assert (loop.metrics().servers, loop.metrics().descriptors) == (1, 0)
            with socket.socket() as client:  # the server has it still
                client.setblocking(False)
                await loop.sock_connect(client, sock.getsockname())
                await until(lambda: loop.metrics().streams == 1)
            await until(lambda: loop.metrics().streams == 0)
            server.close()

    run(main())


def test_the_number_of_a_listening_socket_is_free_again_after_its_server(loop, run):
    async def main():
        sock = socket.create_server(("127.0.0.1", 0))
        sock.setblocking(False)
        server = await loop.create_server(asyncio.Protocol, sock=sock)
        number = sock.fileno()
        server.close()
        with socket.create_server(("127.0.0.1", 0)) as other, socket.socket() as client:
            assert other.fileno() == number
            other.setblocking(False)
            accepting = loop.create_task(loop.sock_accept(other))
            client.setblocking(False)
            await loop.sock_connect(client, other.getsockname())
            (await accepting)[0].close()

    run(main())


def test_a_descriptor_number_is_free_again_after_its_transport(loop, run, pair):
    a, _b = pair()

    async def main():
        transport, protocol = await attach(a)
        transport.close()
        await protocol.lost
        await asyncio.sleep(0)
        c, d = socket.socketpair()
        seen = []
        loop.add_reader(c, lambda: seen.append(c.recv(10)))
        d.send(b"x")
        await until(lambda: seen)
        loop.remove_reader(c)
        c.close()
        d.close()

    run(main())
