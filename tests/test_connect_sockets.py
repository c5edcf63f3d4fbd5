"""create_connection() and connect_accepted_socket() with sockets, and what they refuse."""

import asyncio
import errno
import socket
import ssl
import sys

import pytest
from serving import Echo, can_connect, hang_up, port_of, shut
from support import Recorder, run_script, tcp_pair, until

pytestmark = pytest.mark.core

CONTEXT = ssl.create_default_context()


def test_connected_socket(loop, run, pair):
    async def main():
        a, b = pair()
        a.setblocking(True)
        transport, protocol = await loop.create_connection(Recorder, sock=a)
        assert not a.getblocking()
        await loop.sock_sendall(b, b"hello")
        await until(lambda: protocol.data == b"hello")
        await hang_up(transport, protocol)

    run(main())


def test_unix_socket_pair(loop, run):
    async def main():
        a, b = socket.socketpair()
        with b:
            transport, protocol = await loop.create_connection(Recorder, sock=a)
            b.send(b"hello")
            await until(lambda: protocol.data == b"hello")
            await hang_up(transport, protocol)

    run(main())


def test_a_descriptor_number_that_is_used_again(loop, run):
    """A closed socket's number is the next one's: what was polled for it must not be believed."""

    async def main():
        server = await loop.create_server(Echo, "127.0.0.1", 0)
        numbers = set()
        for _ in range(5):
            assert await can_connect(loop, "127.0.0.1", port_of(server))
            a, b = tcp_pair()
            numbers.add(a.fileno())
            called = loop.create_future()
            loop.add_writer(a, called.set_result, None)
            await called
            loop.remove_writer(a)
            a.close()
            b.close()
        assert len(numbers) < 5  # or this test shows nothing
        await shut(server)

    run(main(), limit=10)


# asyncio lets both transports read and write it
@pytest.mark.only("uvloop_clone")
@pytest.mark.parametrize("how", ["create_connection", "connect_accepted_socket"])
@pytest.mark.parametrize("options", [{}, {"ssl": CONTEXT, "server_hostname": "localhost"}])
@pytest.mark.parametrize("make", [tcp_pair, socket.socketpair])
def test_the_socket_of_a_transport(loop, run, make, how, options):
    """It is refused to a second one, and the first keeps it."""
    if how == "connect_accepted_socket" and options:
        options = {"ssl": ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)}

    async def main():
        a, b = make()
        with b:
            b.setblocking(False)
            transport, protocol = await loop.create_connection(Recorder, sock=a)
            assert loop.metrics().streams == 1
            with pytest.raises(RuntimeError, match=r"File descriptor \d+ is used by transport"):
                await getattr(loop, how)(asyncio.Protocol, sock=a, **options)
            assert loop.metrics().streams == 1
            with pytest.raises(RuntimeError, match=r"File descriptor \d+ is used by transport"):
                loop.add_reader(a, print)
            transport.write(b"asked")
            assert await loop.sock_recv(b, 10) == b"asked"
            await loop.sock_sendall(b, b"answered")
            await until(lambda: protocol.data == b"answered")
            await hang_up(transport, protocol)
            assert loop.metrics().streams == 0

    run(main())


@pytest.mark.only("uvloop_clone")  # asyncio does not count itself among a socket's users
def test_a_socket_that_cannot_be_held(loop, run, errors):
    """Its own exception comes out, and nobody is left to be told of anything else."""

    class Failing(socket.socket):
        @property
        def _io_refs(self):
            raise ZeroDivisionError

        @_io_refs.setter
        def _io_refs(self, count):
            pass

    async def main():
        a, b = socket.socketpair()
        with b:
            with pytest.raises(ZeroDivisionError):
                await loop.create_connection(asyncio.Protocol, sock=Failing(fileno=a.detach()))
            await asyncio.sleep(0)
            assert loop.metrics().streams == 0
            assert b.recv(1) == b""

    run(main())
    assert not errors


@pytest.mark.parametrize("how", ["create_connection", "connect_accepted_socket"])
def test_a_failing_factory_leaves_the_socket_to_its_owner(loop, run, pair, how):
    def factory():
        raise ZeroDivisionError

    async def main():
        a, b = pair()
        with pytest.raises(ZeroDivisionError):
            await getattr(loop, how)(factory, sock=a)
        await loop.sock_sendall(b, b"still open")
        assert await loop.sock_recv(a, 100) == b"still open"

    run(main())


@pytest.mark.parametrize("how", ["create_connection", "connect_accepted_socket"])
def test_closed_socket(loop, run, pair, how):
    """Refused before there is a protocol."""
    made = []

    async def main():
        a, _ = pair()
        a.close()
        with pytest.raises(OSError) as info:
            await getattr(loop, how)(lambda: made.append(Recorder()), sock=a)
        assert info.value.errno == errno.EBADF

    run(main())
    assert made == []


@pytest.mark.only("uvloop_clone")
@pytest.mark.parametrize("paused", [False, True])
def test_the_owner_closes_the_socket(kind, paused):
    """The descriptor is the transport's up to its end: libuv aborts where one that it polls goes.

    asyncio's transport fails with what it tries next.
    """
    result = run_script(
        kind,
        f"""
        import socket
        from support import attach, read_exactly, read_to_end, tcp_pair, until
        paused = {paused}

        async def main():
            a, b = tcp_pair()
            transport, protocol = await attach(a)
            if paused:
                transport.pause_reading()
                await asyncio.sleep(0.01)
            a.close()
            await asyncio.sleep(0.01)
            transport.pause_reading()
            transport.resume_reading()
            await loop.sock_sendall(b, b"data")
            await until(lambda: protocol.data == b"data")
            transport.write(b"answer")
            assert await read_exactly(b, 6) == b"answer"
            transport.close()
            assert await protocol.lost is None
            assert await read_to_end(b) == b""
            assert a.fileno() == -1
            b.close()

        loop = make_loop(KIND)
        loop.run_until_complete(asyncio.wait_for(main(), 30))
        loop.close()
        print("closed")
        """,
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "closed\n", "")


@pytest.mark.parametrize(
    ("arguments", "options", "error", "text"),
    [
        ((), {}, ValueError, "host and port was not specified and no sock specified"),
        (("127.0.0.1", 1), {"server_hostname": "x"}, ValueError, "server_hostname is only"),
        (("127.0.0.1", 1), {"ssl_handshake_timeout": 1}, ValueError, "ssl_handshake_timeout is"),
        (("127.0.0.1", 1), {"ssl_shutdown_timeout": 1}, ValueError, "ssl_shutdown_timeout is"),
        ((None, 1), {"ssl": CONTEXT}, ValueError, "You must set server_hostname"),
        (("", 1), {"ssl": CONTEXT}, ValueError, "You must set server_hostname"),
        (("127.0.0.1", 1), {"local_addr": 5}, TypeError, None),
        (("127.0.0.1", 1), {"nothing": 5}, TypeError, "nothing"),
        (("127.0.0.1", 1, 2), {}, TypeError, "positional argument"),
    ],
)
def test_wrong_arguments(loop, run, arguments, options, error, text):
    if "ssl_shutdown_timeout" in options and sys.version_info < (3, 11):
        pytest.skip("ssl_shutdown_timeout is newer than this Python")

    async def main():
        with pytest.raises(error, match=text):
            await loop.create_connection(Recorder, *arguments, **options)

    run(main())


def test_socket_and_host(loop, run, pair):
    async def main():
        a, _ = pair()
        with pytest.raises(ValueError, match="can not be specified at the same time"):
            await loop.create_connection(Recorder, "127.0.0.1", 1, sock=a)

    run(main())


def test_tls_with_a_socket_and_no_name(loop, run, pair):
    async def main():
        a, _ = pair()
        with pytest.raises(ValueError, match="You must set server_hostname"):
            await loop.create_connection(Recorder, sock=a, ssl=CONTEXT)

    run(main())


@pytest.mark.parametrize("how", ["create_connection", "create_server", "connect_accepted_socket"])
def test_datagram_socket(loop, run, how):
    async def main():
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            with pytest.raises(ValueError, match="A Stream Socket was expected"):
                await getattr(loop, how)(Recorder, sock=sock)

    run(main())


@pytest.mark.parametrize("how", ["create_connection", "create_server", "connect_accepted_socket"])
def test_tls_socket(loop, run, how):
    async def main():
        a, b = tcp_pair()
        with b, CONTEXT.wrap_socket(a, do_handshake_on_connect=False, server_hostname="x") as sock:
            with pytest.raises(TypeError, match="Socket cannot be of type SSLSocket"):
                await getattr(loop, how)(Recorder, sock=sock)

    run(main())


def test_connect_on_a_closed_loop(new_loop):
    loop = new_loop()
    loop.close()
    coro = loop.create_connection(Recorder, "127.0.0.1", 1)
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        loop.run_until_complete(coro)
    coro.close()


# -- connect_accepted_socket ---------------------------------------------------------------------


def test_accepted_socket(loop, run):
    async def main():
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen(1)
            client = socket.create_connection(listener.getsockname())
            accepted, address = listener.accept()
        with client:
            transport, protocol = await loop.connect_accepted_socket(Recorder, accepted)
            assert transport.get_extra_info("peername") == address
            client.sendall(b"hello")
            await until(lambda: protocol.data == b"hello")
            await hang_up(transport, protocol)

    run(main())


@pytest.mark.parametrize("option", ["ssl_handshake_timeout", "ssl_shutdown_timeout"])
def test_accepted_socket_with_timeout_but_no_tls(loop, run, pair, option):
    if option == "ssl_shutdown_timeout" and sys.version_info < (3, 11):
        pytest.skip("ssl_shutdown_timeout is newer than this Python")

    async def main():
        a, _ = pair()
        with pytest.raises(ValueError, match=f"{option} is only meaningful with ssl"):
            await loop.connect_accepted_socket(Recorder, a, **{option: 1})

    run(main())
