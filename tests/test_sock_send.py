"""sock_sendall and sock_sendto."""

import array
import asyncio
import socket
import sys

import pytest
from support import attach, read_exactly, run_script, tcp_pair

pytestmark = pytest.mark.core

needs_datagram_calls = pytest.mark.skipif(
    sys.version_info < (3, 11), reason="sock_sendto is new in 3.11"
)

LARGE = bytes(range(256)) * 4096 * 8  # 8 MiB: more than the kernel takes at once


def test_sendall(loop, run, pair):
    a, b = pair()

    async def main():
        assert await loop.sock_sendall(a, b"data") is None
        assert await loop.sock_recv(b, 100) == b"data"

    run(main())


@pytest.mark.parametrize(
    "data",
    [
        b"bytes",
        bytearray(b"bytearray"),
        memoryview(b"memoryview"),
        memoryview(b"every second one"[::-1]).toreadonly(),
        b"",
    ],
    ids=["bytes", "bytearray", "memoryview", "strided", "empty"],
)
def test_sendall_of_any_buffer(loop, run, pair, data):
    a, b = pair()
    expected = bytes(data)

    async def main():
        await loop.sock_sendall(a, data)
        assert await read_exactly(b, len(expected)) == expected

    run(main())


# asyncio counts items where it should count bytes, and waits for ever after a wide buffer
@pytest.mark.only("uvloop_clone")
@pytest.mark.parametrize(
    "data",
    [array.array("i", [1, 2, 3]), memoryview(array.array("d", [1.5, 2.5]))],
    ids=["array", "memoryview"],
)
def test_sendall_of_wide_items(loop, run, pair, data):
    a, b = pair()
    expected = data.tobytes()

    async def main():
        await loop.sock_sendall(a, data)
        assert await read_exactly(b, len(expected)) == expected

    run(main())


@pytest.mark.parametrize("make", [bytes, bytearray, memoryview])
def test_sendall_of_much(loop, run, pair, make):
    a, b = pair()

    async def main():
        task = loop.create_task(loop.sock_sendall(a, make(LARGE)))
        await asyncio.sleep(0.02)
        assert not task.done()
        assert await read_exactly(b, len(LARGE)) == LARGE
        await task

    run(main())


@pytest.mark.only("uvloop_clone")
def test_sendall_of_much_in_wide_items(loop, run, pair):
    a, b = pair()
    data = memoryview(LARGE).cast("Q")

    async def main():
        task = loop.create_task(loop.sock_sendall(a, data))
        assert await read_exactly(b, len(LARGE)) == LARGE
        await task

    run(main())


@pytest.mark.parametrize("data", ["text", 5, None, [1]])
def test_sendall_of_what_is_no_buffer(loop, run, pair, data):
    a, _b = pair()
    with pytest.raises(TypeError):
        run(loop.sock_sendall(a, data))


def test_sendall_to_a_closed_peer(loop, run, pair):
    a, b = pair()
    b.close()

    async def main():
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            for _ in range(100):
                await loop.sock_sendall(a, b"x" * 65536)
                await asyncio.sleep(0.001)

    run(main())


def test_a_peer_that_goes_while_sendall_waits(loop, run, pair):
    a, b = pair()

    async def main():
        task = loop.create_task(loop.sock_sendall(a, LARGE))
        await asyncio.sleep(0.02)
        b.close()
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            await task
        await asyncio.sleep(0)
        assert loop.remove_writer(a) is False

    run(main())


def test_cancel_of_sendall_leaves_no_watcher(loop, run, pair):
    a, _b = pair()

    async def main():
        task = loop.create_task(loop.sock_sendall(a, LARGE))
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0)
        assert loop.remove_writer(a) is False

    run(main())


def test_sendall_lets_the_buffer_go(loop, run, pair):
    a, b = pair()
    data = bytearray(LARGE)

    async def main():
        task = loop.create_task(loop.sock_sendall(a, data))
        assert await read_exactly(b, len(LARGE)) == LARGE
        await task
        data.clear()

    run(main())


def test_both_directions_of_one_socket_at_once(loop, run, pair):
    a, b = pair()

    async def main():
        sends = [loop.create_task(loop.sock_sendall(s, LARGE)) for s in (a, b)]
        reads = [loop.create_task(read_exactly(s, len(LARGE))) for s in (a, b)]
        assert await asyncio.gather(*reads) == [LARGE, LARGE]
        await asyncio.gather(*sends)

    run(main())


def test_debug_mode_refuses_blocking_sockets(loop, run):
    a, b = tcp_pair(blocking=True)
    loop.set_debug(True)
    try:
        with pytest.raises(ValueError, match="the socket must be non-blocking"):
            run(loop.sock_sendall(a, b"x"))
    finally:
        a.close()
        b.close()


def test_a_blocking_socket_stops_no_other_thread(kind):
    """In a child, which would be stopped with all its threads, the receiving one too."""
    code = """
    import socket

    a, b = socket.socketpair()

    def receive():
        left = 1 << 23
        while left:
            left -= len(b.recv(1 << 20))
        print("received")

    threading.Timer(0.05, receive).start()
    loop = make_loop(KIND)
    loop.run_until_complete(loop.sock_sendall(a, bytes(1 << 23)))
    """
    assert run_script(kind, code, limit=30).stdout == "received\n"


def test_closed_loop(new_loop, pair):
    a, _b = pair()
    loop = new_loop()
    loop.close()
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        loop.sock_sendall(a, LARGE).send(None)


def test_send_of_a_subclass(loop, run, pair):
    class Shouting(socket.socket):
        def send(self, data, *args):
            return super().send(bytes(data[:3]).upper(), *args)

    a, b = pair()

    async def main():
        with Shouting(fileno=a.detach()) as sock:
            sock.setblocking(False)
            await loop.sock_sendall(sock, b"abcdefgh")
            assert await read_exactly(b, 8) == b"ABCDEFGH"

    run(main())


def test_send_of_a_subclass_that_takes_nothing(loop, run, pair):
    """It waits, as it does for a full socket, and others go on."""

    class Hesitant(socket.socket):
        calls = 0

        def send(self, data, *args):
            self.calls += 1
            return super().send(data, *args) if hurry else 0

    hurry = []
    a, b = pair()

    async def main():
        with Hesitant(fileno=a.detach()) as sock:
            sock.setblocking(False)
            loop.call_later(0.01, hurry.append, True)
            await loop.sock_sendall(sock, b"data")
            assert await read_exactly(b, 4) == b"data"
            assert sock.calls > 1

    run(main())


@pytest.mark.skipif(sys.version_info < (3, 11), reason="here it still has this method")
def test_the_socket_of_a_transport(loop, run, pair):
    """It has no send(), and nothing is to get between the transport's data."""
    a, b = pair()

    async def main():
        transport, protocol = await attach(a)
        with pytest.raises(AttributeError, match="no attribute 'send'"):
            await loop.sock_sendall(transport.get_extra_info("socket"), b"data")
        with pytest.raises(BlockingIOError):
            b.recv(10)
        transport.close()
        await protocol.lost

    run(main())


def test_closed_sockets(loop, run, pair):
    a, _b = pair()
    a.close()
    with pytest.raises(OSError):
        run(loop.sock_sendall(a, b"x"))


def test_tls_sockets_are_refused(loop, run):
    import ssl

    context = ssl.create_default_context()
    with socket.socket() as plain:
        with context.wrap_socket(
            plain, server_hostname="localhost", do_handshake_on_connect=False
        ) as sock:
            sock.setblocking(False)
            with pytest.raises(TypeError, match="Socket cannot be of type SSLSocket"):
                run(loop.sock_sendall(sock, b"x"))


@pytest.fixture
def udp():
    made = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
    for sock in made:
        sock.bind(("127.0.0.1", 0))
        sock.setblocking(False)
    yield made
    for sock in made:
        sock.close()


@needs_datagram_calls
@pytest.mark.parametrize("make", [bytes, bytearray, memoryview])
def test_sendto(loop, run, udp, make):
    a, b = udp

    async def main():
        assert await loop.sock_sendto(a, make(b"datagram"), b.getsockname()) == 8
        assert await loop.sock_recvfrom(b, 100) == (b"datagram", a.getsockname())
        assert await loop.sock_sendto(a, make(b""), b.getsockname()) == 0
        assert await loop.sock_recvfrom(b, 100) == (b"", a.getsockname())

    run(main())


@needs_datagram_calls
def test_sendto_unix(loop, run, tmp_path):
    a = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    b = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    with a, b:
        a.bind(str(tmp_path / "a"))
        b.bind(str(tmp_path / "b"))
        a.setblocking(False)
        b.setblocking(False)

        async def main():
            await loop.sock_sendto(a, b"x", str(tmp_path / "b"))
            assert await loop.sock_recvfrom(b, 100) == (b"x", str(tmp_path / "a"))

        run(main())


@needs_datagram_calls
def test_sendto_ipv6(loop, run):
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    a = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    b = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    with a, b:
        for sock in (a, b):
            sock.bind(("::1", 0))
            sock.setblocking(False)

        async def main():
            await loop.sock_sendto(a, b"six", b.getsockname())
            assert await loop.sock_recvfrom(b, 100) == (b"six", a.getsockname())

        run(main())


@needs_datagram_calls
def test_sendto_too_much(loop, run, udp):
    a, b = udp
    with pytest.raises(OSError, match="Message too long"):
        run(loop.sock_sendto(a, bytes(100_000), b.getsockname()))


@needs_datagram_calls
def test_sendto_that_waits_for_room(loop, run, tmp_path):
    """Unix datagrams block the sender as soon as the receiver's queue is full."""
    a, b = (socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(2))
    with a, b:
        b.bind(str(tmp_path / "b"))
        a.setblocking(False)
        b.setblocking(False)

        async def main():
            sent = 0
            try:
                while True:
                    a.sendto(b"x" * 1000, b.getsockname())
                    sent += 1
            except BlockingIOError:
                assert sent
            task = loop.create_task(loop.sock_sendto(a, b"last", b.getsockname()))
            await asyncio.sleep(0.02)
            assert not task.done()
            for _ in range(sent):
                await loop.sock_recv(b, 2000)
            assert await task == 4
            assert await loop.sock_recv(b, 2000) == b"last"

        run(main())


@needs_datagram_calls
def test_sendto_with_wrong_arguments(loop, run, udp):
    a, b = udp
    with pytest.raises(TypeError):
        run(loop.sock_sendto(a, "text", b.getsockname()))
    with pytest.raises(TypeError):
        run(loop.sock_sendto(a, b"x", "no address"))
    with pytest.raises(TypeError):
        run(loop.sock_sendto(a, b"x", None))


@needs_datagram_calls
def test_sendto_in_debug_mode_with_a_blocking_socket(loop, run, udp):
    a, b = udp
    a.setblocking(True)
    loop.set_debug(True)
    with pytest.raises(ValueError, match="the socket must be non-blocking"):
        run(loop.sock_sendto(a, b"x", b.getsockname()))
