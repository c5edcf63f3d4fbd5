"""The Server object: serving, closing, waiting, what becomes of its connections."""

import asyncio
import sys

import pytest
from serving import Echo, ask, can_connect, hang_up, port_of, shut
from support import Recorder, until

pytestmark = pytest.mark.core

NEW_WAIT = sys.version_info >= (3, 12)  # wait_closed() waits for the connections, too


def test_is_serving(loop, run):
    async def main():
        server = await loop.create_server(Echo, "127.0.0.1", 0)
        assert server.is_serving()
        assert server.get_loop() is loop
        await shut(server)
        assert not server.is_serving()

    run(main())


def test_start_serving_later(loop, run):
    async def main():
        server = await loop.create_server(Echo, "127.0.0.1", 0, start_serving=False)
        address = server.sockets[0].getsockname()
        assert not server.is_serving()
        assert not await can_connect(loop, *address)
        await server.start_serving()
        await server.start_serving()
        assert server.is_serving()
        assert await can_connect(loop, *address)
        await shut(server)
        assert not await can_connect(loop, *address)

    run(main())


def test_close_twice(loop, run):
    async def main():
        server = await loop.create_server(Echo, "127.0.0.1", 0)
        server.close()
        server.close()
        await server.wait_closed()
        await server.wait_closed()

    run(main())


def test_close_before_serving(loop, run):
    async def main():
        server = await loop.create_server(Echo, "127.0.0.1", 0, start_serving=False)
        server.close()
        await server.wait_closed()
        assert server.sockets == ()

    run(main())


def test_open_connections_outlive_the_server(loop, run):
    async def main():
        server = await loop.create_server(Echo, "127.0.0.1", 0)
        transport, protocol = await loop.create_connection(Recorder, "127.0.0.1", port_of(server))
        assert await ask(transport, protocol) == b"ping"
        server.close()
        assert await ask(transport, protocol) == b"ping"
        await hang_up(transport, protocol)
        await asyncio.wait_for(server.wait_closed(), 10)

    run(main())


def test_wait_closed_and_open_connections(loop, run):
    async def main():
        server = await loop.create_server(Echo, "127.0.0.1", 0)
        transport, protocol = await loop.create_connection(Recorder, "127.0.0.1", port_of(server))
        await ask(transport, protocol)
        server.close()
        waiter = loop.create_task(server.wait_closed())
        await asyncio.sleep(0.05)
        assert waiter.done() is not NEW_WAIT
        await hang_up(transport, protocol)
        await asyncio.wait_for(waiter, 10)

    run(main())


@pytest.mark.skipif(not NEW_WAIT, reason="needs a connection before Python 3.12")
def test_wait_closed_waits_for_close(loop, run):
    async def main():
        server = await loop.create_server(Echo, "127.0.0.1", 0)
        waiter = loop.create_task(server.wait_closed())
        await asyncio.sleep(0.02)
        assert not waiter.done()
        server.close()
        await asyncio.wait_for(waiter, 10)

    run(main())


def test_several_wait_for_close(loop, run):
    async def main():
        server = await loop.create_server(Echo, "127.0.0.1", 0)
        transport, protocol = await loop.create_connection(Recorder, "127.0.0.1", port_of(server))
        await ask(transport, protocol)
        waiters = [loop.create_task(server.wait_closed()) for _ in range(3)]
        waiters[0].cancel()
        await asyncio.sleep(0)
        server.close()
        await hang_up(transport, protocol)
        results = await asyncio.wait_for(asyncio.gather(*waiters, return_exceptions=True), 10)
        assert isinstance(results[0], asyncio.CancelledError)
        assert results[1:] == [None, None]

    run(main())


def test_context_manager(loop, run):
    async def main():
        async with await loop.create_server(Echo, "127.0.0.1", 0) as server:
            assert server.is_serving()
            address = server.sockets[0].getsockname()
        assert not server.is_serving()
        assert not await can_connect(loop, *address)

    run(main())


def test_serve_forever_until_cancelled(loop, run):
    async def main():
        server = await loop.create_server(Echo, "127.0.0.1", 0, start_serving=False)
        address = server.sockets[0].getsockname()
        task = loop.create_task(server.serve_forever())
        await asyncio.sleep(0.01)
        assert server.is_serving()
        assert await can_connect(loop, *address)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not server.is_serving()

    run(main())


def test_close_ends_serve_forever(loop, run):
    async def main():
        server = await loop.create_server(Echo, "127.0.0.1", 0)
        task = loop.create_task(server.serve_forever())
        await asyncio.sleep(0.01)
        server.close()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main())


def test_serve_forever_twice(loop, run):
    async def main():
        server = await loop.create_server(Echo, "127.0.0.1", 0)
        task = loop.create_task(server.serve_forever())
        await asyncio.sleep(0.01)
        with pytest.raises(RuntimeError, match="is already being awaited on serve_forever"):
            await server.serve_forever()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main())


def test_serve_forever_when_closed(loop, run):
    async def main():
        server = await loop.create_server(Echo, "127.0.0.1", 0)
        await shut(server)
        with pytest.raises(RuntimeError, match="is closed"):
            await server.serve_forever()

    run(main())


@pytest.mark.parametrize("how", ["close_clients", "abort_clients"])
def test_closing_the_clients(loop, run, how):
    async def main():
        accepted = []
        server = await loop.create_server(lambda: Echo(accepted), "127.0.0.1", 0)
        if not hasattr(server, how):
            pytest.skip(f"{how} is newer than this Python")
        clients = [
            await loop.create_connection(Recorder, "127.0.0.1", port_of(server)) for _ in range(3)
        ]
        await asyncio.gather(*(ask(t, p) for t, p in clients))
        server.close()
        getattr(server, how)()
        await asyncio.wait_for(server.wait_closed(), 10)
        await asyncio.wait_for(asyncio.gather(*(p.lost for _, p in clients)), 10)
        await until(lambda: all(e.lost.done() for e in accepted))
        getattr(server, how)()

    run(main())


def test_abort_clients_sends_what_was_written_before(loop, run):
    async def main():
        accepted = []
        server = await loop.create_server(lambda: Echo(accepted), "127.0.0.1", 0)
        if not hasattr(server, "abort_clients"):
            pytest.skip("abort_clients is newer than this Python")
        transport, protocol = await loop.create_connection(Recorder, "127.0.0.1", port_of(server))
        await ask(transport, protocol, b"x")
        accepted[0].transport.write(b"bye")
        server.abort_clients()
        await asyncio.wait_for(protocol.lost, 10)
        assert protocol.data == b"xbye"
        await shut(server)

    run(main())


def test_close_clients_sends_what_is_buffered(loop, run):
    async def main():
        accepted = []
        server = await loop.create_server(lambda: Echo(accepted), "127.0.0.1", 0)
        if not hasattr(server, "close_clients"):
            pytest.skip("close_clients is newer than this Python")
        transport, protocol = await loop.create_connection(Recorder, "127.0.0.1", port_of(server))
        await ask(transport, protocol, b"x")
        transport.pause_reading()
        size = 20_000_000
        accepted[0].transport.write(bytes(size))
        server.close()
        server.close_clients()
        await asyncio.sleep(0.05)
        transport.resume_reading()
        await asyncio.wait_for(protocol.lost, 20)
        assert len(protocol.data) == size + 1

    run(main())
