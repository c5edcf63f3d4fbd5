"""Reference counts of a debug build of Python: no workload may leave references behind.

Each workload runs on a fresh loop, 200 times after a warm-up; one forgotten reference in each run
would be 200 in the end.
"""

import asyncio
import gc
import os
import signal
import socket
import sys

import pytest
import serving
import test_tls_leaks
from support import make_loop, tcp_pair

from uvloop_clone import _tls

pytestmark = [
    pytest.mark.leaks,
    pytest.mark.skipif(
        not hasattr(sys, "gettotalrefcount"), reason="only debug builds of Python count"
    ),
]

WARM_UP = 30
RUNS = 200
NOISE = RUNS // 2  # of the interpreter's own caches, whatever the number of runs
ATTEMPTS = 3  # such noise comes and goes; what is forgotten shows each time


class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(data)


class BufferedEcho(asyncio.BufferedProtocol):
    def connection_made(self, transport):
        self.transport = transport
        self.buffer = bytearray(4096)

    def get_buffer(self, sizehint):
        return self.buffer

    def buffer_updated(self, nbytes):
        self.transport.writelines([self.buffer[:1], self.buffer[1:nbytes]])


class Client(asyncio.Protocol):
    def __init__(self, expected):
        self.expected = expected
        self.done = asyncio.get_running_loop().create_future()
        self.lost = asyncio.get_running_loop().create_future()

    def data_received(self, data):
        self.expected -= len(data)
        if self.expected == 0:
            self.done.set_result(None)

    def connection_lost(self, exc):
        self.lost.set_result(exc)


async def nothing():
    """A loop is made, runs and is closed."""


async def callbacks():
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    calls = []
    for count in range(7):
        loop.call_soon(calls.append, count)
        loop.call_soon(lambda *args: calls.append(args), *range(count))
    loop.call_soon(callback=calls.clear).cancel()
    loop.call_soon_threadsafe(calls.append, "threadsafe")
    with pytest.raises(TypeError):
        loop.call_soon(calls.append, nonsense=1)
    loop.call_soon(done.set_result, None)
    await done
    assert len(calls) == 15
    for method in ("call_soon", "call_later"):
        handle = getattr(loop, method)(*[0][method == "call_soon" :], calls.append, object())
        repr(handle)
        handle.get_context()
        handle.cancel()


async def timers():
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    handles = [loop.call_later(3600 + n, print, n) for n in range(200)]
    assert sorted(handles)[0] is handles[0]
    assert handles[0] == handles[0] != handles[1]
    for handle in handles[:150]:
        handle.cancel()
    loop.call_at(loop.time(), done.set_result, None)
    await done
    await asyncio.sleep(0.0001)
    with pytest.raises(TypeError):
        loop.call_later("soon", print)


async def tasks():
    loop = asyncio.get_running_loop()

    async def work(number):
        await asyncio.sleep(0)
        return number

    assert await asyncio.gather(*map(work, range(10))) == list(range(10))
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(loop.create_future(), 0.0005)
    task = loop.create_task(work(1), name="named")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    loop.set_task_factory(lambda loop, coro, **kwargs: asyncio.Task(coro, loop=loop, **kwargs))
    assert await loop.create_task(work(2)) == 2
    loop.set_task_factory(None)


async def failures():
    loop = asyncio.get_running_loop()
    seen = []
    loop.set_exception_handler(lambda loop, context: seen.append(context["message"]))
    loop.call_soon(lambda: 1 / 0)
    loop.call_later(0, lambda: [][0])
    await asyncio.sleep(0.001)
    assert len(seen) == 2
    loop.set_exception_handler(None)


async def generators():
    async def count():
        for number in range(3):
            yield number

    left = count()
    assert await left.__anext__() == 0
    assert [number async for number in count()] == [0, 1, 2]
    await asyncio.get_running_loop().shutdown_asyncgens()


async def executor():
    loop = asyncio.get_running_loop()
    assert await loop.run_in_executor(None, abs, -1) == 1
    with pytest.raises(ZeroDivisionError):
        await loop.run_in_executor(None, divmod, 1, 0)
    assert await asyncio.to_thread(int, "7") == 7
    await loop.shutdown_default_executor()


async def signals():
    loop = asyncio.get_running_loop()
    got = loop.create_future()
    loop.add_signal_handler(signal.SIGUSR1, got.set_result, None)
    os.kill(os.getpid(), signal.SIGUSR1)
    await got
    loop.remove_signal_handler(signal.SIGUSR1)


async def watchers():
    loop = asyncio.get_running_loop()
    a, b = tcp_pair()
    with a, b:
        ready, writable = loop.create_future(), loop.create_future()
        loop.add_reader(a, lambda: ready.done() or ready.set_result(a.recv(10)))
        loop.add_writer(b, lambda: writable.done() or writable.set_result(None))
        await writable
        b.send(b"x")
        assert await ready == b"x"
        loop.add_reader(a, print)
        assert loop.remove_reader(a)
        assert loop.remove_writer(b)
        assert not loop.remove_writer(b)
        with pytest.raises(ValueError):
            loop.add_reader("no file", print)


async def sockets():
    loop = asyncio.get_running_loop()
    with socket.socket() as listener, socket.socket() as a:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.setblocking(False)
        a.setblocking(False)
        _, (b, _) = await asyncio.gather(
            loop.sock_connect(a, listener.getsockname()), loop.sock_accept(listener)
        )
        with b:
            big = bytes(1_000_000)
            sending = asyncio.ensure_future(loop.sock_sendall(a, big))
            got, buffer = 0, bytearray(65536)
            while got < len(big):
                got += await loop.sock_recv_into(b, buffer)
            await sending
            waiting = asyncio.ensure_future(loop.sock_recv(b, 10))
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
    with socket.socket(type=socket.SOCK_DGRAM) as a, socket.socket(type=socket.SOCK_DGRAM) as b:
        for sock in (a, b):
            sock.bind(("127.0.0.1", 0))
            sock.setblocking(False)
        await loop.sock_sendto(a, b"one", b.getsockname())
        assert await loop.sock_recvfrom(b, 10) == (b"one", a.getsockname())
        await loop.sock_sendto(a, b"two", b.getsockname())
        assert await loop.sock_recvfrom_into(b, bytearray(10)) == (3, a.getsockname())


async def refused():
    loop = asyncio.get_running_loop()
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        with pytest.raises(ConnectionRefusedError):
            await loop.create_connection(asyncio.Protocol, *sock.getsockname())
        with pytest.raises(TypeError):
            await loop.create_connection(asyncio.Protocol, nonsense=1)


async def echo_on(server, connect, *address):
    """One connection to `server`: small and large messages, then its end."""
    try:
        transport, protocol = await connect(lambda: Client(500_003), *address)
        transport.write(b"abc")
        transport.write(bytearray(200_000))
        transport.writelines([b"x" * 100_000, memoryview(bytes(200_000))])
        assert transport.get_extra_info("socket") is not None
        assert transport.get_extra_info("nothing", 7) == 7
        transport.set_write_buffer_limits(high=1000)
        transport.get_write_buffer_limits()
        repr(transport)
        with pytest.raises(TypeError):
            transport.write("text")
        await protocol.done
        transport.pause_reading()
        transport.resume_reading()
        transport.close()
        await protocol.lost
    finally:
        server.close()
        await asyncio.wait_for(server.wait_closed(), 10)


async def tcp():
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Echo, "127.0.0.1", 0)
    await echo_on(server, loop.create_connection, *server.sockets[0].getsockname())


async def tcp_buffered():
    loop = asyncio.get_running_loop()
    server = await loop.create_server(BufferedEcho, "127.0.0.1", 0)
    await echo_on(server, loop.create_connection, *server.sockets[0].getsockname())


async def unix():
    loop = asyncio.get_running_loop()
    path = f"\0refcounts-{os.getpid()}"
    server = await loop.create_unix_server(Echo, path)
    await echo_on(server, loop.create_unix_connection, path)


async def streams():
    async def handle(reader, writer):
        while line := await reader.readline():
            writer.write(line.upper())
            await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(b"line\n")
    assert await reader.readline() == b"LINE\n"
    writer.write_eof()
    assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()
    server.close()
    await server.wait_closed()


async def on_tls_server(work, *, portable=False):
    """One of test_tls_leaks' connections."""
    pytest.importorskip("trustme")
    loop = asyncio.get_running_loop()
    chosen = _tls.engine.choose(loop)
    if portable:
        _tls.engine.choose(loop, "portable")
    try:
        server = await loop.create_server(
            serving.Echo, "127.0.0.1", 0, ssl=test_tls_leaks.contexts()["server"]
        )
        await work(serving.port_of(server))
        await asyncio.sleep(0.001)
        server.close()
        await asyncio.wait_for(server.wait_closed(), 10)
    finally:
        if portable:
            _tls.engine.choose(loop, chosen)


async def tls():
    await on_tls_server(test_tls_leaks.one_talk)


async def tls_portable():
    await on_tls_server(test_tls_leaks.one_talk, portable=True)


async def tls_aborted():
    await on_tls_server(test_tls_leaks.one_abort)


async def tls_refused():
    await on_tls_server(test_tls_leaks.one_refused_certificate)


async def tls_ended():
    await on_tls_server(test_tls_leaks.one_end_without_a_goodbye)


async def tls_upgraded():
    await on_tls_server(test_tls_leaks.one_upgrade)


async def sendfile():
    loop = asyncio.get_running_loop()
    a, b = tcp_pair()
    transport, _ = await loop.create_connection(lambda: Client(1), sock=a)
    with b, open(__file__, "rb") as file:
        assert await loop.sendfile(transport, file, 10, 1000) == 1000
        assert len(await loop.sock_recv(b, 2000)) == 1000
        assert await loop.sock_sendfile(b, file, 0, 100) == 100
        transport.abort()
        with pytest.raises(RuntimeError):
            await loop.sendfile(transport, file)
    await asyncio.sleep(0.001)


async def aborted():
    loop = asyncio.get_running_loop()
    a, b = tcp_pair()
    with b:
        transport, protocol = await loop.create_connection(lambda: Client(1), sock=a)
        transport.write(bytes(10_000_000))
        transport.abort()
        assert await protocol.lost is None


async def datagrams():
    loop = asyncio.get_running_loop()
    got = loop.create_future()

    class Receiver(asyncio.DatagramProtocol):
        def datagram_received(self, data, address):
            got.set_result((data, address))

    receiver, _ = await loop.create_datagram_endpoint(Receiver, local_addr=("127.0.0.1", 0))
    address = receiver.get_extra_info("sockname")
    sender, _ = await loop.create_datagram_endpoint(Receiver, remote_addr=address)
    sender.sendto(b"one")
    assert await got == (b"one", sender.get_extra_info("sockname"))
    with pytest.raises(TypeError):
        sender.sendto("text")
    sender.close()
    receiver.abort()
    await asyncio.sleep(0.001)


async def pipes():
    loop = asyncio.get_running_loop()
    r, w = os.pipe()
    reader, protocol = await loop.connect_read_pipe(lambda: Client(200_001), os.fdopen(r, "rb", 0))
    writer, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, os.fdopen(w, "wb", 0))
    writer.write(b"x")
    writer.write(bytes(200_000))
    await protocol.done
    writer.close()
    await protocol.lost
    reader.close()


async def processes():
    process = await asyncio.create_subprocess_exec("true", stdin=asyncio.subprocess.PIPE)
    assert await process.wait() == 0
    process = await asyncio.create_subprocess_shell("cat", stdin=-1, stdout=-1)
    assert (await process.communicate(b"text"))[0] == b"text"


WORKLOADS = [
    nothing,
    callbacks,
    timers,
    tasks,
    failures,
    generators,
    executor,
    signals,
    watchers,
    sockets,
    refused,
    tcp,
    tcp_buffered,
    unix,
    streams,
    tls,
    tls_portable,
    tls_aborted,
    tls_refused,
    tls_ended,
    tls_upgraded,
    sendfile,
    aborted,
    datagrams,
    pipes,
    processes,
]


def total():
    for _ in range(3):
        gc.collect()
    return sys.gettotalrefcount()


def growth(workload, debug=False):
    """References that RUNS runs leave behind; noisy measures are taken again."""

    def repeat(count):
        for _ in range(count):
            loop = make_loop("uvloop_clone")
            loop.set_debug(debug)
            loop.run_until_complete(workload())
            loop.close()

    repeat(WARM_UP)
    for _ in range(ATTEMPTS):
        before = total()
        repeat(RUNS)
        grown = total() - before
        if grown < NOISE:
            break
    return grown


def test_the_measure_sees_a_leak():
    kept = []

    async def leak():
        kept.append(object())

    assert growth(leak) >= RUNS


@pytest.mark.timeout(300)
@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda workload: workload.__name__)
def test_no_reference_is_left(workload):
    assert growth(workload) < NOISE


@pytest.mark.timeout(300)
@pytest.mark.parametrize("workload", [callbacks, timers, tasks, failures], ids=lambda w: w.__name__)
def test_no_reference_is_left_in_debug_mode(workload, caplog):
    caplog.set_level("CRITICAL", logger="asyncio")
    assert growth(workload, debug=True) < NOISE
