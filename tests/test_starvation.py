"""A busy chain of callbacks beside everything else: all of it makes progress."""

import asyncio
import os
import signal
import socket
import threading
import time

import pytest
from support import Recorder, attach, until

pytestmark = pytest.mark.core

SLOW = 5.0  # seconds that no single wait below may take on a loop that is fair


@pytest.fixture
def busy(loop):
    """Keeps the ready queue filled while the test runs; its value counts the callbacks."""
    count = [0]
    going = True

    def spin():
        count[0] += 1
        if going:
            loop.call_soon(spin)

    loop.call_soon(spin)
    yield count
    going = False
    if not loop.is_closed():
        loop.call_soon(loop.stop)
        loop.run_forever()


@pytest.fixture(params=[1, 50], ids=["one chain", "fifty chains"])
def chains(loop, busy, request):
    """The same with several chains."""
    going = [True]

    def spin():
        if going[0]:
            loop.call_soon(spin)

    for _ in range(request.param - 1):
        loop.call_soon(spin)
    yield busy
    going[0] = False


async def quick(awaitable):
    return await asyncio.wait_for(awaitable, SLOW)


def test_timers(loop, run, chains):
    async def main():
        for _ in range(20):
            begin = loop.time()
            await quick(asyncio.sleep(0.005))
            assert loop.time() - begin < SLOW
        assert chains[0] > 20

    run(main())


def test_a_timer_of_no_delay(loop, run, chains):
    async def main():
        for _ in range(50):
            done = loop.create_future()
            loop.call_later(0, done.set_result, None)
            await quick(done)

    run(main())


def test_sockets(loop, run, chains, pair):
    a, b = pair()

    async def main():
        for i in range(50):
            reading = loop.create_task(loop.sock_recv(a, 10))
            await asyncio.sleep(0)
            b.send(b"%d" % i)
            assert await quick(reading) == b"%d" % i

    run(main())


def test_transports(loop, run, chains, pair):
    a, b = pair()

    async def main():
        transport, protocol = await attach(a)
        for i in range(1, 51):
            b.send(b"x")
            await quick(until(lambda n=i: len(protocol.data) == n))
            transport.write(b"y")
            assert await quick(loop.sock_recv(b, 10)) == b"y"
        transport.close()
        await quick(protocol.lost)

    run(main())


def test_large_transfers(loop, run, chains, pair):
    a, b = pair()
    payload = b"z" * (1 << 23)

    async def main():
        sender, _ = await attach(a)
        receiver, protocol = await attach(b)
        sender.write(payload)
        sender.close()
        await asyncio.wait_for(protocol.lost, 20)
        assert len(protocol.data) == len(payload)
        receiver.abort()

    run(main())


def test_new_connections(loop, run, chains):
    async def main():
        server = await loop.create_server(Recorder, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        for _ in range(10):
            transport, protocol = await quick(loop.create_connection(Recorder, *address))
            transport.close()
            await quick(protocol.lost)
        await asyncio.sleep(0.02)
        server.close()
        await server.wait_closed()

    run(main())


def test_calls_from_threads(loop, run, chains):
    async def main():
        for _ in range(20):
            done = loop.create_future()
            thread = threading.Thread(
                target=loop.call_soon_threadsafe, args=(done.set_result, None)
            )
            thread.start()
            await quick(done)
            thread.join()

    run(main())


def test_executor(loop, run, chains):
    async def main():
        for i in range(10):
            assert await quick(loop.run_in_executor(None, abs, -i)) == i

    run(main())


def test_signals(loop, run, chains):
    async def main():
        for _ in range(5):
            done = loop.create_future()
            loop.add_signal_handler(signal.SIGUSR1, done.set_result, None)
            os.kill(os.getpid(), signal.SIGUSR1)
            await quick(done)
        loop.remove_signal_handler(signal.SIGUSR1)

    run(main())


def test_tasks_that_sleep_for_nothing(loop, run):
    """Many tasks in sleep(0) circles are no hindrance to a timer and a socket."""
    a, b = socket.socketpair()
    a.setblocking(False)

    async def main():
        going = True

        async def circle():
            while going:
                await asyncio.sleep(0)

        circles = [loop.create_task(circle()) for _ in range(20)]
        await quick(asyncio.sleep(0.02))
        b.send(b"x")
        assert await quick(loop.sock_recv(a, 1)) == b"x"
        going = False
        await asyncio.gather(*circles)

    run(main())
    a.close()
    b.close()


def test_the_chain_is_not_starved_by_sockets(loop, run, busy, pair):
    """The other way round: a flood of data leaves the ready queue its turns."""
    a, b = pair()

    async def main():
        transport, protocol = await attach(a)
        stop = threading.Event()

        def flood():
            b.setblocking(True)
            b.settimeout(20)
            while not stop.is_set():
                b.send(b"f" * 65536)

        thread = threading.Thread(target=flood)
        thread.start()
        before = busy[0]
        begin = time.monotonic()
        await quick(asyncio.sleep(0.2))
        assert time.monotonic() - begin < SLOW
        assert busy[0] - before > 20
        assert len(protocol.data) > 0
        stop.set()
        await asyncio.sleep(0)
        while thread.is_alive():
            await asyncio.sleep(0.005)
        transport.abort()
        await protocol.lost

    run(main())


@pytest.mark.parametrize(("pause", "bound"), [(0, 17), (0.0005, 5)], ids=["short", "long"])
def test_turns_that_a_socket_waits(loop, run, pair, pause, bound):
    """So many turns pass at most between the arrival of data and its delivery."""
    a, b = pair()
    turns = 0
    waited = []

    class Protocol(asyncio.Protocol):
        def data_received(self, data):
            waited.append(turns - sent)

    def spin():
        nonlocal turns
        turns += 1
        if pause:
            time.sleep(pause)
        if len(waited) == asked:
            if asked == 100:
                done.set_result(None)
                return
            ask()
        loop.call_soon(spin)

    def ask():
        nonlocal asked, sent
        asked += 1
        sent = turns
        b.send(b"x")

    async def main():
        transport, _ = await loop.create_connection(Protocol, sock=a)
        await asyncio.sleep(0.01)
        loop.call_soon(spin)
        await asyncio.wait_for(done, 20)
        transport.abort()

    done = loop.create_future()
    asked = sent = 0
    run(main())
    assert len(waited) == 100
    assert max(waited) <= bound
