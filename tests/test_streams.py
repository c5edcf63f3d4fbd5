"""asyncio's StreamReader and StreamWriter over our transports, which feed and read them in C.

Most tests run over a plain connection and over TLS.

What holds for asyncio's own loop has to hold here, private attributes included: programs look at
them, and replace methods.
"""

import asyncio
import contextlib
import gc
import os
import select
import socket
import struct
import warnings

import pytest
from support import make_loop, run_script, tcp_pair, until
from tls_peer import Peer, TLSSocket, client_context, server_context

pytestmark = pytest.mark.core


plain_only = pytest.mark.parametrize("connected", ["plain"], indirect=True)


async def streams(sock, limit=2**16, reader_class=asyncio.StreamReader, **options):
    """(reader, writer) over a socket, as start_server() makes them."""
    loop = asyncio.get_running_loop()
    reader = reader_class(limit=limit, loop=loop)
    made = loop.create_future()

    def connected(*pair):
        made.set_result(pair)

    protocol = asyncio.StreamReaderProtocol(reader, connected, loop=loop)
    await loop.connect_accepted_socket(lambda: protocol, sock, **options)
    assert protocol._client_connected_cb is connected
    return await made


async def tls_streams(sock, other, **options):
    """(reader, writer, other end): the same over TLS."""
    peer = Peer(other, client_context(), False)
    making = streams(sock, ssl=server_context(), **options)
    pair, _ = await asyncio.gather(making, peer.handshake())
    return *pair, TLSSocket(peer)


@pytest.fixture(params=["plain", "tls"])
def connected(request, run, pair):
    """Runs `test(reader, writer, other end)`, then closes."""

    def run_it(test, **options):
        a, b = pair()
        b.setblocking(False)

        async def main():
            other = b
            if request.param == "tls":
                reader, writer, other = await tls_streams(a, b, **options)
            else:
                reader, writer = await streams(a, **options)
            try:
                await test(reader, writer, other)
            finally:
                if other is not b:
                    other.close()  # TLS waits for both ends' goodbye
                writer.close()
                await asyncio.wait_for(asyncio.wait([asyncio.ensure_future(closed(writer))]), 5)

        run(main())

    return run_it


async def closed(writer):
    with contextlib.suppress(OSError):
        await writer.wait_closed()


@pytest.mark.only("uvloop_clone")
def test_the_fast_path_is_taken(connected):
    async def test(reader, writer, other):
        assert type(reader) is not asyncio.StreamReader
        assert isinstance(reader, asyncio.StreamReader)
        assert isinstance(writer, asyncio.StreamWriter)
        assert isinstance(writer.transport.get_protocol(), asyncio.StreamReaderProtocol)
        for thing in (reader, writer, writer.transport.get_protocol()):
            assert "_feed" in vars(thing)

    connected(test)


# ---- reading -----------------------------------------------------------------------------


def test_read(connected):
    async def test(reader, writer, other):
        waiting = asyncio.ensure_future(reader.read(100))
        await asyncio.sleep(0)
        other.send(b"first")
        assert await waiting == b"first"
        other.send(b"second")
        await until(lambda: reader._buffer)
        assert await reader.read(3) == b"sec"
        assert await reader.read(n=100) == b"ond"
        assert await reader.read(0) == b""
        other.send(b"rest")
        other.close()
        assert await reader.read() == b"rest"
        assert await reader.read(10) == b""
        assert reader.at_eof()

    connected(test)


def test_pieces_of_one_packet(connected):
    """The first read may take the packet as it came; the others take parts of it."""

    async def test(reader, writer, other):
        other.send(b"one\ntwo\nthree|four||fivesix")
        assert await reader.readline() == b"one\n"
        assert [line async for line in lines(reader, 1)] == [b"two\n"]
        assert await reader.readuntil(b"|") == b"three|"
        assert await reader.readuntil(separator=b"||") == b"four||"
        assert await reader.readexactly(4) == b"five"
        assert await reader.readexactly(n=2) == b"si"
        assert reader._buffer == b"x"
        assert await reader.read(5) == b"x"

    connected(test)


async def lines(reader, count):
    async for line in reader:
        yield line
        count -= 1
        if not count:
            return


@pytest.mark.parametrize("cut", range(1, 12))
def test_separator_across_packets(connected, cut):
    async def test(reader, writer, other):
        data = b"aab--a--\r\n!"
        reading = asyncio.ensure_future(reader.readuntil(b"-\r\n"))
        other.send(data[:cut])
        await asyncio.sleep(0.005)
        other.send(data[cut:])
        assert await reading == b"aab--a--\r\n"
        assert await reader.read(10) == b"!"

    connected(test)


def test_exact_amount_over_packets(connected):
    async def test(reader, writer, other):
        reading = asyncio.ensure_future(reader.readexactly(300_000))
        sent = await send_all(other, bytes(range(250)) * 1300)
        data = await reading
        assert data == sent[:300_000]
        assert await reader.readexactly(25_000) == sent[300_000:]

    connected(test)


async def send_all(other, data):
    if isinstance(other, TLSSocket):
        await other.peer.send(data)
    else:
        await asyncio.get_running_loop().sock_sendall(other, data)
    return data


async def receive(other, size):
    if isinstance(other, TLSSocket):
        return await other.peer.receive(size)
    data = b""
    while len(data) < size:
        data += await asyncio.get_running_loop().sock_recv(other, size - len(data))
    return data


def test_end_within(connected):
    async def test(reader, writer, other):
        other.send(b"begun")
        other.close()
        with pytest.raises(asyncio.IncompleteReadError) as caught:
            await reader.readexactly(10)
        assert (caught.value.partial, caught.value.expected) == (b"begun", 10)
        assert await reader.readline() == b""
        with pytest.raises(asyncio.IncompleteReadError) as caught:
            await reader.readuntil()
        assert caught.value.partial == b""

    connected(test)


def test_last_line_without_an_end(connected):
    async def test(reader, writer, other):
        other.send(b"a\nb")
        other.close()
        assert [line async for line in reader] == [b"a\n", b"b"]

    connected(test)


def test_limit(connected):
    async def test(reader, writer, other):
        other.send(b"12345678\n.")
        with pytest.raises(asyncio.LimitOverrunError, match="longer than limit") as caught:
            await reader.readuntil()
        assert caught.value.consumed == 8
        with pytest.raises(ValueError, match="longer than limit"):
            await reader.readline()
        assert await reader.readexactly(1) == b"."
        other.send(b"123456789")
        with pytest.raises(asyncio.LimitOverrunError, match="not found"):
            await reader.readuntil(b"\n")
        with pytest.raises(ValueError, match="not found"):
            await reader.readline()
        other.send(b"1234567\n")
        assert await reader.readline() == b"1234567\n"

    connected(test, limit=7)


@pytest.mark.parametrize(
    "call, error",
    [
        (lambda reader: reader.readexactly(-1), ValueError),
        (lambda reader: reader.readuntil(b""), ValueError),
        (lambda reader: reader.read("1"), TypeError),
    ],
)
def test_bad_arguments(connected, call, error):
    async def test(reader, writer, other):
        with pytest.raises(error):
            await call(reader)

    connected(test)


@pytest.mark.parametrize("name", ["read", "readexactly", "readuntil", "readline", "feed_data"])
def test_wrong_calls(connected, name):
    async def test(reader, writer, other):
        with pytest.raises(TypeError):
            getattr(reader, name)(*range(20))
        with pytest.raises(TypeError, match="keyword argument"):
            getattr(reader, name)(other=1)

    connected(test)


def test_second_reader(connected):
    async def test(reader, writer, other):
        waiting = asyncio.ensure_future(reader.readline())
        await asyncio.sleep(0)
        for call, name in ((reader.read(1), "read"), (reader.readline(), "readuntil")):
            with pytest.raises(RuntimeError, match=f"^{name}.. called while another coroutine"):
                await call
        other.send(b"x\n")
        assert await waiting == b"x\n"

    connected(test)


# ---- cancelling --------------------------------------------------------------------------


def test_cancelled_read_loses_nothing(connected):
    async def test(reader, writer, other):
        waiting = asyncio.ensure_future(reader.readexactly(4))
        await asyncio.sleep(0)
        assert asyncio.isfuture(reader._waiter)
        other.send(b"ab")
        await until(lambda: reader._buffer)
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert reader._waiter is None
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(reader.readexactly(3), 0.005)
        other.send(b"cd")
        assert await reader.readexactly(4) == b"abcd"

    connected(test)


def test_data_for_a_cancelled_read(connected):
    """The waiter is cancelled, its task did not run yet, and data comes."""

    async def test(reader, writer, other):
        waiting = asyncio.ensure_future(reader.read(10))
        await asyncio.sleep(0)
        waiting.cancel()
        reader.feed_data(b"came")
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert await reader.read(10) == b"came"

    connected(test)


@pytest.mark.parametrize(
    "call",
    [
        lambda reader: reader.read(10),
        lambda reader: reader.readexactly(2),
        lambda reader: reader.readline(),
    ],
    ids=["read", "readexactly", "readline"],
)
def test_exception_right_behind_data(connected, call):
    """Whoever waited gets what came before it; the next one gets the exception."""

    async def test(reader, writer, other):
        waiting = asyncio.ensure_future(call(reader))
        await asyncio.sleep(0)
        reader.feed_data(b"x\n")
        reader.set_exception(KeyError("later"))
        assert await waiting == b"x\n"
        with pytest.raises(KeyError, match="later"):
            await call(reader)

    connected(test)


@pytest.mark.parametrize("task_class", [asyncio.Task, asyncio.tasks._PyTask])
def test_exceptions_that_readline_catches(connected, task_class):
    """Those of readuntil(), set by somebody else while it waits."""

    async def test(reader, writer, other):
        loop = asyncio.get_running_loop()
        for exc, seen in (
            (asyncio.IncompleteReadError(b"partial", None), b"partial"),
            (asyncio.LimitOverrunError("too long", 3), ValueError),
            (KeyError("else"), KeyError),
        ):
            waiting = task_class(reader.readline(), loop=loop)
            await asyncio.sleep(0)
            reader.feed_data(b"abcdef")
            await asyncio.sleep(0)
            reader.set_exception(exc)
            if isinstance(seen, bytes):
                assert await waiting == seen
            else:
                with pytest.raises(seen) as caught:
                    await waiting
                assert type(caught.value) is seen
            reader.set_exception(None)
        writer.close()

    connected(test)


def test_exception_right_behind_the_end(connected):
    async def test(reader, writer, other):
        waiting = asyncio.ensure_future(reader.read(10))
        await asyncio.sleep(0)
        reader.feed_eof()
        reader.set_exception(KeyError("later"))
        assert await waiting == b""

    connected(test)


# ---- between the packet and the coroutine that waits for it ------------------------------


@pytest.fixture
def between(connected, pair):
    """Runs `act(reader, writer, task)` when data has come and the reading task has not gone on.

    Then `test(reader, writer, task, other end)`.
    """

    def run_it(act, test):
        signal, trigger = pair()
        signal.setblocking(False)

        async def main(reader, writer, other):
            loop = asyncio.get_running_loop()
            task = asyncio.ensure_future(reader.read(100))
            await asyncio.sleep(0.001)
            acted = loop.create_future()

            def ready():
                loop.remove_reader(signal)
                assert not task.done()
                acted.set_result(act(reader, writer, task))

            loop.add_reader(signal, ready)
            other.send(b"data")  # found first by the poll that finds both
            trigger.send(b"!")
            await acted
            await test(reader, writer, task, other)

        connected(main)

    return run_it


def another_protocol_and_back(transport):
    protocol = transport.get_protocol()
    transport.set_protocol(asyncio.Protocol())
    transport.set_protocol(protocol)


@pytest.mark.parametrize(
    "act",
    [
        lambda reader, writer, task: writer.close(),
        lambda reader, writer, task: writer.transport.abort(),
        lambda reader, writer, task: writer.transport.pause_reading(),
        lambda reader, writer, task: another_protocol_and_back(writer.transport),
        lambda reader, writer, task: setattr(reader, "_transport", None),
        lambda reader, writer, task: setattr(reader, "read", None),
        lambda reader, writer, task: reader.feed_eof(),
    ],
    ids=["close", "abort", "pause", "protocol", "transport", "method", "eof"],
)
def test_what_came_before_is_read(between, act):
    async def test(reader, writer, task, other):
        assert await asyncio.wait_for(task, 5) == b"data"

    between(act, test)


def test_cancelled_after_data_came(between):
    async def test(reader, writer, task, other):
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.wait_for(reader.read(100), 5) == b"data"
        other.send(b"more")
        assert await asyncio.wait_for(reader.read(100), 5) == b"more"

    between(lambda reader, writer, task: task.cancel(), test)


def test_cancelled_after_data_came_and_not_read_again(between):
    async def test(reader, writer, task, other):
        await asyncio.wait([task])
        await until(lambda: reader._buffer == b"data")

    between(lambda reader, writer, task: task.cancel(), test)


def test_another_reads_what_came(between):
    """The one that was woken for it then waits for more, or ends with nothing, as asyncio's."""
    taken = []

    def act(reader, writer, task):
        try:
            reader.read(100).send(None)
        except StopIteration as exc:
            taken.append(exc.value)

    async def test(reader, writer, task, other):
        assert taken == [b"data"]
        other.send(b"more")
        assert (await asyncio.wait_for(task, 5) or await reader.read(100)) == b"more"

    between(act, test)


def test_fed_by_hand_after_data_came(between):
    """What came before it is before it."""

    async def test(reader, writer, task, other):
        assert await task == b"data by hand"

    between(lambda reader, writer, task: reader.feed_data(b" by hand"), test)


def test_two_readers_in_turn(connected):
    """The second asks until it may, before the first one goes on; each packet wakes one of them."""

    async def test(reader, writer, other):
        async def insist():
            while True:
                try:
                    return await reader.read(100)
                except RuntimeError:  # the first one waits
                    await asyncio.sleep(0)

        tasks = [asyncio.ensure_future(reader.read(100)), asyncio.ensure_future(insist())]
        await asyncio.sleep(0.001)
        other.send(b"first")
        await asyncio.wait(tasks, timeout=5, return_when=asyncio.FIRST_COMPLETED)
        other.send(b"second")
        got = set(await asyncio.wait_for(asyncio.gather(*tasks), 5)) - {b""}
        if len(got) == 1:
            got.add(await asyncio.wait_for(reader.read(100), 5))
        assert got == {b"first", b"second"}

    connected(test)


@plain_only
@pytest.mark.only("uvloop_clone")
def test_data_is_left_to_the_coroutine(between):
    """It is read when the task goes on, one connection after the other."""

    def act(reader, writer, task):
        sock = writer.get_extra_info("socket")
        assert select.select([sock], [], [], 0)[0]
        assert reader._buffer == b"data"  # whoever looks there finds it
        assert not select.select([sock], [], [], 0)[0]

    async def test(reader, writer, task, other):
        assert await task == b"data"

    between(act, test)


def test_reset_while_waiting(connected):
    async def test(reader, writer, other):
        task = asyncio.ensure_future(reader.read(100))
        await asyncio.sleep(0.001)
        sock = other.peer.sock if isinstance(other, TLSSocket) else other
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(task, 5)

    connected(test)


def test_written_before_waiting(connected):
    """It leaves before other tasks go on."""

    async def test(reader, writer, other):
        async def talk():
            writer.write(b"question")
            return await reader.read(100)

        async def look():
            return other.recv(100)

        talking, looking = asyncio.ensure_future(talk()), asyncio.ensure_future(look())
        assert await looking == b"question"
        other.send(b"answer")
        assert await talking == b"answer"

    connected(test)


@pytest.mark.parametrize("how", ["plain", "tls"])
def test_a_protocol_that_its_callback_gives_up(kind, how):
    code = f"""
    from test_streams import *
    from serving import port_of
    def connected(reader, writer):
        protocol = writer._protocol
        writer.transport.set_protocol(asyncio.Protocol())
        protocol._stream_writer = None
        print("given up")
    async def main():
        server, client = (server_context(), client_context()) if {how == "tls"} else (None, None)
        server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=server)
        _, writer = await asyncio.open_connection("127.0.0.1", port_of(server), ssl=client)
        await asyncio.sleep(0.05)
        writer.transport.abort()
        server.close()
        await asyncio.sleep(0.01)
    loop = make_loop(KIND)
    loop.run_until_complete(main())
    loop.close()
    print("survived")
    """
    env = {"PYTHONMALLOC": os.environ.get("PYTHONMALLOC", "debug")}  # a sanitizer's is its own
    done = run_script(kind, code, env=env)
    assert (done.returncode, done.stdout) == (0, "given up\nsurvived\n"), done.stderr


@plain_only
def test_written_with_an_end_before_waiting(connected):
    async def test(reader, writer, other):
        writer.write(b"all")
        writer.write_eof()
        task = asyncio.ensure_future(reader.read(100))
        await asyncio.sleep(0.001)
        assert other.recv(100) == b"all" and other.recv(100) == b""
        other.send(b"answer")
        assert await task == b"answer"

    connected(test)


# ---- private attributes ------------------------------------------------------------------


def test_buffer_shows_what_came(connected):
    async def test(reader, writer, other):
        other.send(b"abc")
        await until(lambda: len(reader._buffer) == 3)
        buffer = reader._buffer
        assert type(buffer) is bytearray
        assert repr(reader).startswith("<StreamReader 3 bytes")
        assert await reader.read(2) == b"ab"
        assert buffer == b"c"
        other.send(b"def")
        await until(lambda: len(buffer) == 4)
        assert buffer is reader._buffer
        buffer[:1] = b"C"
        assert await reader.read(10) == b"Cdef"
        reader._buffer = bytearray(b"other")
        assert await reader.readexactly(5) == b"other"

    connected(test)


def test_attributes_may_be_set(connected):
    async def test(reader, writer, other):
        assert (reader._eof, reader._paused, reader._exception) == (False, False, None)
        assert reader._transport is writer.transport
        assert reader._limit == 2**16
        reader._limit = 3
        other.send(b"12345678")
        await until(lambda: reader._paused)
        assert not writer.transport.is_reading()
        assert await reader.readexactly(5) == b"12345"
        assert not reader._paused
        assert writer.transport.is_reading()
        reader._limit = float("inf")
        other.send(b"90\n")
        assert await reader.readline() == b"67890\n"
        reader._eof = True
        assert reader.at_eof()
        assert await reader.read(1) == b""

    connected(test)


def test_transport_of_another_connection(connected, pair):
    """The reader pauses and resumes it; the writer writes to its own."""
    c, d = pair()

    async def test(reader, writer, other):
        _, second = await streams(c)
        reader._transport = second.transport
        writer.write(b"for its own peer")
        await writer.drain()
        receiving = receive(other, len(b"for its own peer"))
        assert await asyncio.wait_for(receiving, 5) == b"for its own peer"
        with pytest.raises(BlockingIOError):
            d.recv(100)
        reader._transport = writer.transport
        second.close()
        await closed(second)

    connected(test)


def test_fed_by_hand(connected):
    async def test(reader, writer, other):
        waiting = asyncio.ensure_future(reader.readline())
        await asyncio.sleep(0)
        reader.feed_data(b"by ")
        reader.feed_data(b"")
        reader.feed_data(bytearray(b"hand\n"))
        reader.feed_data(memoryview(b"!"))
        assert await waiting == b"by hand\n"
        reader.feed_eof()
        assert await reader.read(5) == b"!"
        with pytest.raises(AssertionError, match="feed_data after feed_eof"):
            reader.feed_data(b"more")

    connected(test)


def test_exception(connected):
    async def test(reader, writer, other):
        waiting = asyncio.ensure_future(reader.read(1))
        await asyncio.sleep(0)
        reader.set_exception(KeyError("told"))
        for call in (waiting, reader.read(1), reader.readline(), writer.drain()):
            with pytest.raises(KeyError, match="told"):
                await call
        assert isinstance(reader.exception(), KeyError)

    connected(test)


# ---- back-pressure -----------------------------------------------------------------------


def test_paused_above_twice_the_limit(connected):
    async def test(reader, writer, other):
        data = bytes(range(256)) * 4000
        sending = asyncio.ensure_future(send_all(other, data))
        await until(lambda: reader._paused)
        assert not writer.transport.is_reading()
        got = bytearray()
        while len(got) < len(data):
            got += await reader.read(700)
        assert got == data
        await sending
        assert writer.transport.is_reading()

    connected(test, limit=1000)


def test_drain_waits(loop, connected):
    async def test(reader, writer, other):
        if isinstance(other, TLSSocket) and isinstance(loop, asyncio.BaseEventLoop):
            pytest.skip("asyncio's TLS leaves the first write, be it large, to the transport below")
        await writer.drain()
        writer.write(b"x" * (1 << 24))
        draining = asyncio.ensure_future(writer.drain())
        helping = asyncio.ensure_future(writer.transport.get_protocol()._drain_helper())
        await asyncio.sleep(0.01)
        assert not draining.done() and not helping.done()
        assert writer.transport.get_protocol()._paused
        assert await receive(other, 1 << 24) == b"x" * (1 << 24)
        await asyncio.wait_for(asyncio.gather(draining, helping), 5)
        assert not writer.transport.get_protocol()._paused

    connected(test)


def test_drain_after_the_end(connected):
    async def test(reader, writer, other):
        protocol = writer.transport.get_protocol()
        writer.transport.abort()
        if isinstance(other, TLSSocket):  # told a turn later
            await until(lambda: protocol._connection_lost)
        with pytest.raises(ConnectionResetError, match="Connection lost"):
            await writer.drain()
        with pytest.raises(ConnectionResetError, match="Connection lost"):
            await writer.drain()

    connected(test)


# ---- what is replaced is called ----------------------------------------------------------


def test_methods_of_the_instance(connected):
    async def test(reader, writer, other):
        fed, written, drained = [], [], []
        reader.feed_data = fed.append
        writer.write = written.append

        async def drain():
            drained.append(1)

        writer.drain = drain
        other.send(b"abc")
        await until(lambda: fed)
        writer.write(b"x")
        await writer.drain()
        assert (fed, written, drained) == ([b"abc"], [b"x"], [1])
        del reader.feed_data
        other.send(b"def")
        assert await reader.read(9) == b"def"

    connected(test)


def test_readuntil_of_the_instance(connected):
    async def test(reader, writer, other):
        async def readuntil(separator=b"\n"):
            return b"mine"

        reader.readuntil = readuntil
        assert await reader.readline() == b"mine"

    connected(test)


def test_methods_of_the_class(connected, monkeypatch):
    async def test(reader, writer, other):
        seen = []
        feed_data = asyncio.StreamReader.feed_data

        def fed(self, data):
            seen.append(data)
            feed_data(self, data)

        async def read(self, n=-1):
            return b"patched"

        async def drain(self):
            seen.append("drained")

        other.send(b"1")
        assert await reader.read(5) == b"1"
        with monkeypatch.context() as patch:
            patch.setattr(asyncio.StreamReader, "feed_data", fed)
            patch.setattr(asyncio.StreamReader, "read", read)
            patch.setattr(asyncio.StreamWriter, "drain", drain)
            other.send(b"2")
            await until(lambda: seen)
            assert await reader.read(5) == b"patched"
            await writer.drain()
            assert seen == [b"2", "drained"]
        other.send(b"3")
        await until(lambda: len(reader._buffer) == 2)
        assert await reader.read(5) == b"23"
        assert seen == [b"2", "drained"]

    connected(test)


def test_protocol_methods(connected):
    async def test(reader, writer, other):
        protocol = writer.transport.get_protocol()
        seen = []
        protocol.data_received = seen.append
        other.send(b"abc")
        await until(lambda: seen)
        assert seen == [b"abc"] and not reader._buffer

    connected(test)


def test_another_protocol(connected):
    async def test(reader, writer, other):
        class Mine(asyncio.Protocol):
            got = b""

            def data_received(self, data):
                self.got += data

        former, mine = writer.transport.get_protocol(), Mine()
        writer.transport.set_protocol(mine)
        other.send(b"abc")
        await until(lambda: mine.got == b"abc")
        writer.transport.set_protocol(former)
        other.send(b"def")
        assert await reader.read(9) == b"def"

    connected(test)


def test_another_class(connected):
    class Mine(asyncio.StreamReader):
        def feed_data(self, data):
            super().feed_data(data.upper())

    class MyProtocol(asyncio.StreamReaderProtocol):
        def eof_received(self):
            super().eof_received()
            return False

    async def test(reader, writer, other):
        other.send(b"old")
        await until(lambda: reader._buffer)
        reader.__class__ = Mine
        writer._protocol.__class__ = MyProtocol
        other.send(b"new")
        await until(lambda: len(reader._buffer) == 6)
        assert await reader.read(9) == b"oldNEW"
        assert vars(reader)["_limit"] == 2**16
        writer.write(b"x")
        await writer.drain()
        assert await receive(other, 1) == b"x"
        other.close()
        assert await reader.read(9) == b""
        await until(writer.is_closing)

    connected(test)


def test_another_class_while_a_read_waits(connected):
    class Mine(asyncio.StreamReader):
        pass

    async def test(reader, writer, other):
        task = asyncio.ensure_future(reader.read(9))
        await asyncio.sleep(0.001)
        reader.__class__ = Mine
        other.close()
        assert await asyncio.wait_for(task, 5) == b""

    connected(test)


def test_subclass(connected):
    class Mine(asyncio.StreamReader):
        def feed_data(self, data):
            super().feed_data(data.upper())

    async def test(reader, writer, other):
        assert type(reader) is Mine
        other.send(b"abc\n")
        assert await reader.readline() == b"ABC\n"
        writer.write(b"x")
        await writer.drain()

    connected(test, reader_class=Mine)


# ---- the awaitables ----------------------------------------------------------------------


def test_calls_are_coroutines(connected):
    async def test(reader, writer, other):
        for call in (reader.read(1), reader.readline(), writer.drain()):
            assert asyncio.iscoroutine(call)
            assert "coroutine object" in repr(call)
            call.close()
        other.send(b"ab\ncd\n")
        line = asyncio.create_task(reader.readline())
        drained = asyncio.create_task(writer.drain())
        assert await asyncio.gather(line, drained) == [b"ab\n", None]
        read = reader.readline()
        with pytest.raises(StopIteration) as caught:
            read.send(None)
        assert caught.value.value == b"cd\n"
        with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
            read.send(None)

    connected(test)


def test_steps_by_hand(connected):
    async def test(reader, writer, other):
        read = reader.read(9)
        future = read.send(None)
        assert future is reader._waiter and asyncio.isfuture(future)
        with pytest.raises(KeyError):
            read.throw(KeyError("thrown"))
        assert reader._waiter is None
        read = reader.read(9)
        read.send(None)
        with pytest.raises(RuntimeError, match="await wasn't used with future"):
            read.send(None)
        read = reader.read(9)
        read.send(None)
        read.close()
        assert reader._waiter is None

    connected(test)


def test_never_awaited(connected):
    async def test(reader, writer, other):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            reader.read(1)
            writer.drain()
            gc.collect()
        assert [str(warning.message) for warning in caught] == [
            "coroutine 'StreamReader.read' was never awaited",
            "coroutine 'StreamWriter.drain' was never awaited",
        ]

    connected(test)


# ---- life --------------------------------------------------------------------------------


def test_reader_is_gone(run, pair):
    """As in asyncio, what comes for nobody is dropped."""
    a, b = pair()
    b.setblocking(False)

    async def main():
        reader, writer = await streams(a)
        writer._reader = None
        del reader
        gc.collect()
        b.send(b"for nobody")
        await asyncio.sleep(0.01)
        writer.write(b"alive")
        await writer.drain()
        assert await asyncio.get_running_loop().sock_recv(b, 10) == b"alive"
        writer.close()
        await writer.wait_closed()

    run(main())


def test_open_connection(run):
    async def serve(reader, writer):
        while line := await reader.readline():
            writer.write(line)
            await writer.drain()
        writer.close()

    async def main():
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        for i in range(100):
            writer.write(b"%d\n" % i)
            await writer.drain()
            assert await reader.readline() == b"%d\n" % i
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()

    run(main())


@pytest.mark.leaks
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_nothing_is_left(tls):
    loop = make_loop("uvloop_clone")

    async def connection():
        a, b = tcp_pair()
        reader, writer, other = await tls_streams(a, b) if tls else (*await streams(a), b)
        other.send(b"x" * 3000 + b"\nrest")
        await reader.readline()
        writer.write(b"x")
        await writer.drain()
        other.close()
        writer.close()
        await closed(writer)

    def count():
        gc.collect()
        return len(gc.get_objects())

    for _ in range(20):
        loop.run_until_complete(connection())
    before = count()
    for _ in range(200):
        loop.run_until_complete(connection())
    assert count() - before < 50
    loop.close()
