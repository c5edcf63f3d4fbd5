"""sock_recv, sock_recv_into, sock_recvfrom, sock_recvfrom_into."""

import array
import asyncio
import socket
import sys

import pytest
from support import attach, run_script

pytestmark = pytest.mark.core

# the datagram calls are new in 3.11
needs_datagram_calls = pytest.mark.skipif(
    sys.version_info < (3, 11), reason="sock_recvfrom and its kin are new in 3.11"
)


@pytest.fixture
def udp():
    """Two bound, non-blocking UDP sockets."""
    made = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
    for sock in made:
        sock.bind(("127.0.0.1", 0))
        sock.setblocking(False)
    yield made
    for sock in made:
        sock.close()


def test_recv_what_is_there(loop, run, pair):
    a, b = pair()
    b.send(b"data")
    data = run(loop.sock_recv(a, 100))
    assert data == b"data" and type(data) is bytes


def test_recv_waits(loop, run, pair):
    a, b = pair()

    async def main():
        task = asyncio.ensure_future(loop.sock_recv(a, 100))
        await asyncio.sleep(0.02)
        assert not task.done()
        b.send(b"late")
        assert await task == b"late"

    run(main())


def test_recv_right_after_what_emptied_the_stream(loop, run, pair):
    """Whatever came in between is received, however the loop finds out."""
    a, b = pair()

    async def main():
        for size in (100, 1 << 20):
            waiting = asyncio.ensure_future(loop.sock_recv(a, size))
            await asyncio.sleep(0)
            b.send(b"first")
            assert await waiting == b"first"
            b.send(b"second")
            assert await loop.sock_recv(a, 3) == b"sec"
            assert await loop.sock_recv(a, size) == b"ond"

    run(main())


@pytest.mark.only("uvloop_clone")
@pytest.mark.parametrize("into", [False, True])
def test_an_emptied_stream_is_not_asked_again_in_the_same_turn(loop, run, pair, into):
    a, b = pair()

    def receive(size):
        return loop.sock_recv_into(a, bytearray(size)) if into else loop.sock_recv(a, size)

    async def turn(size, wait):
        waiting = asyncio.ensure_future(receive(size))
        await asyncio.sleep(0)
        b.send(b"abcd")
        await waiting
        b.send(b"more")
        if wait:
            await asyncio.sleep(0.001)  # the loop polls: what was known is no longer
        again = receive(4)
        try:
            assert asyncio.isfuture(again.send(None))
        except StopIteration:
            return "received"
        again.close()
        a.recv(100)
        return "waits"

    async def main():
        assert await turn(100, wait=False) == "waits"
        assert await turn(4, wait=False) == "received"
        assert await turn(100, wait=True) == "received"

    run(main())


@pytest.mark.only("uvloop_clone")
def test_a_datagram_says_nothing_about_the_next(loop, run, udp):
    a, b = udp

    async def main():
        waiting = asyncio.ensure_future(loop.sock_recv(a, 100))
        await asyncio.sleep(0)
        b.sendto(b"one", a.getsockname())
        b.sendto(b"two", a.getsockname())
        assert await waiting == b"one"
        with pytest.raises(StopIteration) as caught:
            loop.sock_recv(a, 100).send(None)
        assert caught.value.value == b"two"

    run(main())


def test_recv_takes_at_most_the_number_asked_for(loop, run, pair):
    a, b = pair()
    b.send(b"abcdef")

    async def main():
        assert await loop.sock_recv(a, 2) == b"ab"
        assert await loop.sock_recv(a, 1) == b"c"
        assert await loop.sock_recv(a, 100) == b"def"

    run(main())


def test_recv_at_the_end_of_the_stream(loop, run, pair):
    a, b = pair()

    async def main():
        task = asyncio.ensure_future(loop.sock_recv(a, 100))
        await asyncio.sleep(0.01)
        b.close()
        assert await task == b""
        assert await loop.sock_recv(a, 100) == b""

    run(main())


def test_recv_of_nothing(loop, run, pair):
    a, b = pair()
    b.send(b"x")
    assert run(loop.sock_recv(a, 0)) == b""
    assert run(loop.sock_recv(a, 1)) == b"x"


def test_recv_of_nothing_does_not_wait(loop, run, pair):
    a, _b = pair()
    assert run(loop.sock_recv(a, 0), limit=5) == b""
    assert run(loop.sock_recv_into(a, bytearray()), limit=5) == 0


def test_recv_of_a_large_size(loop, run, pair):
    a, b = pair()
    b.send(b"x")
    assert run(loop.sock_recv(a, 1 << 22)) == b"x"


@pytest.mark.parametrize("size, exception", [(-1, ValueError), ("1", TypeError), (None, TypeError)])
def test_recv_with_a_wrong_size(loop, run, pair, size, exception):
    a, _b = pair()
    with pytest.raises(exception):
        run(loop.sock_recv(a, size))


def test_recv_reset(loop, run, pair):
    a, b = pair()
    b.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    async def main():
        task = asyncio.ensure_future(loop.sock_recv(a, 10))
        await asyncio.sleep(0.01)
        b.close()
        with pytest.raises(ConnectionResetError):
            await task

    run(main())


def buffers():
    writable = bytearray(8)
    yield "bytearray", bytearray(8)
    yield "memoryview", memoryview(writable)
    yield "array", array.array("i", [0, 0])
    yield "wide memoryview", memoryview(array.array("d", [0.0]))


@pytest.mark.parametrize("name", [name for name, _ in buffers()])
def test_recv_into(loop, run, pair, name):
    a, b = pair()
    buffer = dict(buffers())[name]

    async def main():
        b.send(b"abc")
        assert await loop.sock_recv_into(a, buffer) == 3
        assert bytes(memoryview(buffer).cast("B"))[:3] == b"abc"
        task = asyncio.ensure_future(loop.sock_recv_into(a, buffer))
        await asyncio.sleep(0.01)
        b.send(b"0123456789")
        assert await task == 8
        assert bytes(memoryview(buffer).cast("B")) == b"01234567"
        assert await loop.sock_recv(a, 10) == b"89"
        b.close()
        assert await loop.sock_recv_into(a, buffer) == 0

    run(main())


def test_recv_into_lets_the_buffer_go(loop, run, pair):
    a, b = pair()
    buffer = bytearray(8)

    async def main():
        b.send(b"abc")
        await loop.sock_recv_into(a, buffer)
        buffer.extend(b"it can be resized again")
        task = asyncio.ensure_future(loop.sock_recv_into(a, buffer))
        await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait([task])
        buffer.clear()

    run(main())


@pytest.mark.parametrize("buffer", [b"read only", memoryview(b"read only"), "text", 5, None])
def test_recv_into_what_cannot_be_written(loop, run, pair, buffer):
    a, b = pair()
    b.send(b"x")
    with pytest.raises(TypeError):
        run(loop.sock_recv_into(a, buffer))
    assert run(loop.sock_recv(a, 1)) == b"x"


@needs_datagram_calls
def test_recvfrom(loop, run, udp):
    a, b = udp

    async def main():
        b.sendto(b"one", a.getsockname())
        assert await loop.sock_recvfrom(a, 100) == (b"one", b.getsockname())
        task = asyncio.ensure_future(loop.sock_recvfrom(a, 100))
        await asyncio.sleep(0.02)
        assert not task.done()
        b.sendto(b"two", a.getsockname())
        assert await task == (b"two", b.getsockname())

    run(main())


@needs_datagram_calls
def test_recvfrom_cuts_what_is_too_long(loop, run, udp):
    a, b = udp
    b.sendto(b"long text", a.getsockname())
    assert run(loop.sock_recvfrom(a, 4)) == (b"long", b.getsockname())


@needs_datagram_calls
def test_recvfrom_an_empty_datagram(loop, run, udp):
    a, b = udp
    b.sendto(b"", a.getsockname())
    assert run(loop.sock_recvfrom(a, 4)) == (b"", b.getsockname())


@needs_datagram_calls
@pytest.mark.parametrize("name", ["bytearray", "memoryview"])
def test_recvfrom_into(loop, run, udp, name):
    a, b = udp
    buffer = dict(buffers())[name]

    async def main():
        b.sendto(b"abc", a.getsockname())
        assert await loop.sock_recvfrom_into(a, buffer) == (3, b.getsockname())
        assert bytes(memoryview(buffer).cast("B"))[:3] == b"abc"
        task = asyncio.ensure_future(loop.sock_recvfrom_into(a, buffer, 2))
        await asyncio.sleep(0.01)
        b.sendto(b"xyz", a.getsockname())
        assert await task == (2, b.getsockname())
        assert bytes(memoryview(buffer).cast("B"))[:3] == b"xyc"

    run(main())


@needs_datagram_calls
def test_recvfrom_into_more_than_the_buffer_holds(loop, run, udp):
    a, b = udp
    b.sendto(b"abc", a.getsockname())
    with pytest.raises(ValueError):
        run(loop.sock_recvfrom_into(a, bytearray(4), 5))


def waiting_calls(loop, sock):
    yield "sock_recv", lambda: loop.sock_recv(sock, 10)
    yield "sock_recv_into", lambda: loop.sock_recv_into(sock, bytearray(10))
    if sys.version_info >= (3, 11):
        yield "sock_recvfrom", lambda: loop.sock_recvfrom(sock, 10)
        yield "sock_recvfrom_into", lambda: loop.sock_recvfrom_into(sock, bytearray(10))


def test_cancel_leaves_no_watcher(loop, run, pair):
    async def main():
        a, b = pair()
        for name, call in waiting_calls(loop, a):
            task = asyncio.ensure_future(call())
            await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await asyncio.sleep(0)
            assert loop.remove_reader(a) is False, name
            b.send(b"x")
            assert await loop.sock_recv(a, 10) == b"x", name

    run(main())


def test_a_finished_wait_leaves_no_watcher(loop, run, pair):
    async def main():
        a, b = pair()
        for name, call in waiting_calls(loop, a):
            task = asyncio.ensure_future(call())
            await asyncio.sleep(0.01)
            b.send(b"x")
            await task
            await asyncio.sleep(0)
            assert loop.remove_reader(a) is False, name

    run(main())


def test_a_timeout(loop, run, pair):
    async def main():
        a, b = pair()
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(loop.sock_recv(a, 10), 0.02)
        b.send(b"x")
        assert await loop.sock_recv(a, 10) == b"x"

    run(main())


def test_debug_mode_refuses_blocking_sockets(loop, run, pair):
    a, _b = pair()
    a.setblocking(True)
    loop.set_debug(True)

    async def main():
        for name, call in waiting_calls(loop, a):
            with pytest.raises(ValueError, match="the socket must be non-blocking"):
                await call()
            assert name

    run(main())


def test_a_socket_with_a_timeout_is_blocking_too(loop, run, pair):
    a, _b = pair()
    a.settimeout(5)
    loop.set_debug(True)
    with pytest.raises(ValueError, match="the socket must be non-blocking"):
        run(loop.sock_recv(a, 10))


@pytest.mark.parametrize(
    "call, printed",
    [("sock_recv(a, 10)", "b'data'\n"), ("sock_recv_into(a, bytearray(10))", "4\n")],
    ids=["recv", "recv_into"],
)
def test_a_blocking_socket_stops_no_other_thread(kind, call, printed):
    """In a child, which would be stopped with all its threads, the sending one too."""
    code = f"""
    import socket

    a, b = socket.socketpair()
    threading.Timer(0.05, b.send, [b"data"]).start()
    loop = make_loop(KIND)
    print(loop.run_until_complete(loop.{call}))
    """
    assert run_script(kind, code, limit=30).stdout == printed


def test_closed_loop(new_loop, pair):
    a, b = pair()
    loop = new_loop()
    loop.close()
    for name, call in waiting_calls(loop, a):
        with pytest.raises(RuntimeError, match="Event loop is closed"):
            call().send(None)
        assert name
    b.send(b"here")
    with pytest.raises(StopIteration) as caught:
        loop.sock_recv(a, 10).send(None)
    assert caught.value.value == b"here"


def test_closed_sockets(loop, run, pair):
    a, _b = pair()
    a.close()

    async def main():
        for name, call in waiting_calls(loop, a):
            with pytest.raises(OSError):
                await call()
            assert name

    run(main())


def test_tls_sockets_are_refused(loop, run):
    import ssl

    context = ssl.create_default_context()
    with socket.socket() as plain:
        with context.wrap_socket(
            plain, server_hostname="localhost", do_handshake_on_connect=False
        ) as sock:
            sock.setblocking(False)

            async def main():
                for name, call in waiting_calls(loop, sock):
                    with pytest.raises(TypeError, match="Socket cannot be of type SSLSocket"):
                        await call()
                    assert name

            run(main())


@pytest.mark.parametrize("thing", [None, 5, "text", object()])
def test_what_is_no_socket(loop, run, thing):
    with pytest.raises((TypeError, AttributeError)):
        run(loop.sock_recv(thing, 10))


def test_awaited_in_every_way(loop, run, pair):
    """The call gives something that create_task, gather, wait_for and plain await take."""
    a, b = pair()

    async def main():
        b.send(b"1")
        assert await loop.sock_recv(a, 1) == b"1"
        b.send(b"2")
        assert await loop.create_task(loop.sock_recv(a, 1)) == b"2"
        b.send(b"3")
        assert await asyncio.gather(loop.sock_recv(a, 1)) == [b"3"]
        b.send(b"4")
        assert await asyncio.wait_for(loop.sock_recv(a, 1), 10) == b"4"
        task = loop.create_task(loop.sock_recv(a, 1), name="reader")
        await asyncio.sleep(0.01)
        b.send(b"5")
        assert await task == b"5"

    run(main())


def test_many_waits_in_a_row(loop, run, pair):
    a, b = pair()

    async def main():
        for i in range(300):
            task = asyncio.ensure_future(loop.sock_recv(a, 10))
            if i % 2:
                await asyncio.sleep(0)
            b.send(b"%d" % i)
            assert await task == b"%d" % i

    run(main())


@pytest.mark.only("uvloop_clone")
@pytest.mark.parametrize("into", [False, True])
def test_cancelling_loses_nothing_that_came(loop, run, pair, into):
    """asyncio has received it by then; here it is received when the task goes on."""
    a, b = pair()
    signal, trigger = pair()

    async def main():
        buffer = bytearray(4)
        call = loop.sock_recv_into(a, buffer) if into else loop.sock_recv(a, 100)
        task = asyncio.ensure_future(call)
        await asyncio.sleep(0.001)
        loop.add_reader(signal, task.cancel)
        b.send(b"data")
        trigger.send(b"!")
        await asyncio.wait([task])
        loop.remove_reader(signal)
        assert task.cancelled() and buffer == bytes(4)
        assert await loop.sock_recv(a, 100) == b"data"

    run(main())


@needs_datagram_calls
@pytest.mark.only("uvloop_clone")
@pytest.mark.parametrize("into", [False, True])
def test_cancelling_loses_no_datagram(loop, run, pair, udp, into):
    a, b = udp
    signal, trigger = pair()

    async def main():
        buffer = bytearray(4)
        call = loop.sock_recvfrom_into(a, buffer) if into else loop.sock_recvfrom(a, 100)
        task = asyncio.ensure_future(call)
        await asyncio.sleep(0.001)
        loop.add_reader(signal, task.cancel)
        b.sendto(b"data", a.getsockname())
        trigger.send(b"!")
        await asyncio.wait([task])
        loop.remove_reader(signal)
        assert task.cancelled() and buffer == bytes(4)
        assert await loop.sock_recvfrom(a, 100) == (b"data", b.getsockname())

    run(main())


def test_closed_before_the_task_goes_on(loop, run, pair):
    a, b = pair()
    signal, trigger = pair()

    async def main():
        task = asyncio.ensure_future(loop.sock_recv(a, 100))
        await asyncio.sleep(0.001)

        def close():
            loop.remove_reader(signal)
            a.close()

        loop.add_reader(signal, close)
        b.send(b"data")
        trigger.send(b"!")
        await asyncio.wait([task], timeout=5)
        if task.exception() is None:
            assert task.result() == b"data"  # asyncio was faster
        else:
            assert isinstance(task.exception(), OSError)

    run(main())


class Shouting(socket.socket):
    """Its methods are to be called, not what they call."""

    def recv(self, *args):
        return super().recv(*args).upper()

    def recv_into(self, buffer, *args):
        count = super().recv_into(buffer, *args)
        buffer[:count] = buffer[:count].upper()
        return count


def test_methods_of_a_subclass(loop, run, pair):
    a, b = pair()
    buffer = bytearray(4)

    async def main():
        with Shouting(fileno=a.detach()) as sock:
            sock.setblocking(False)
            for call in (loop.sock_recv(sock, 4), loop.sock_recv_into(sock, buffer)):
                task = asyncio.ensure_future(call)
                await asyncio.sleep(0.001)
                b.send(b"data")
                assert await task in (b"DATA", 4)
            assert buffer == b"DATA"
            b.send(b"data")
            assert await loop.sock_recv(sock, 4) == b"DATA"

    run(main())


@pytest.mark.skipif(sys.version_info < (3, 11), reason="here it still has these methods")
def test_the_socket_of_a_transport(loop, run, pair):
    """It has no such methods, and the transport's data is not to be taken."""
    a, b = pair()

    async def main():
        transport, protocol = await attach(a)
        transport.pause_reading()
        b.send(b"data")
        with pytest.raises(AttributeError, match="no attribute 'recv'"):
            await loop.sock_recv(transport.get_extra_info("socket"), 4)
        transport.close()
        await protocol.lost

    run(main(), limit=5)
