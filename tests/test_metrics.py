"""loop.metrics() and its exporter."""

import asyncio
import gc
import os
import socket
import struct
import time
import weakref

import pytest
from serving import Echo, port_of, shut
from support import tcp_pair, until

import uvloop_clone

pytestmark = [pytest.mark.core, pytest.mark.only("uvloop_clone")]


def test_of_a_new_loop(loop):
    found = loop.metrics()
    assert isinstance(found, uvloop_clone.Metrics)
    assert found == (0,) * len(found)


def test_callbacks_and_turns(loop, turns):
    for _ in range(5):
        loop.call_soon(int)
    loop.call_soon(int).cancel()
    assert loop.metrics().ready == 6
    before = loop.metrics()
    turns(3)
    after = loop.metrics()
    assert after.ready == 0
    assert after.callbacks - before.callbacks >= 5
    assert after.turns - before.turns >= 3
    assert after.polls > before.polls


def test_timers(loop):
    timers = [loop.call_later(1000, int) for _ in range(3)]
    timers[0].cancel()
    assert loop.metrics().timers == 2


def test_busy_and_idle_time(loop, run):
    async def main():
        before = loop.metrics()
        await asyncio.sleep(0.05)
        slept = loop.metrics()
        assert slept.idle_time - before.idle_time >= 0.04
        end = time.perf_counter() + 0.05
        while time.perf_counter() < end:
            pass
        worked = loop.metrics()
        assert worked.busy_time - slept.busy_time >= 0.05
        assert worked.idle_time == slept.idle_time

    run(main())
    before = loop.metrics()
    time.sleep(0.01)  # not in a run: neither
    assert loop.metrics() == before


def test_asked_by_another_thread_while_it_waits(loop, run):
    def watch():
        before = loop.metrics()
        time.sleep(0.05)
        after = loop.metrics()
        return after.idle_time - before.idle_time, after.busy_time - before.busy_time

    async def main():
        idle, busy = await asyncio.to_thread(watch)
        assert idle > 0.03
        assert busy < 0.03

    run(main())


def test_what_is_open_and_what_went_over_it(loop, run):
    async def main():
        before = loop.metrics()
        server = await loop.create_server(Echo, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(server))
        writer.write(b"x" * 1000)
        await reader.readexactly(1000)
        now = loop.metrics()
        assert (now.servers, now.streams) == (1, 2)
        assert now.bytes_sent - before.bytes_sent == 2000
        assert now.bytes_received - before.bytes_received == 2000
        writer.close()
        await writer.wait_closed()
        await until(lambda: loop.metrics().streams == 0)
        await shut(server)
        assert loop.metrics().servers == 0

    run(main())


@pytest.mark.skipif(not hasattr(socket, "AF_NETLINK"), reason="netlink is Linux's")
def test_datagrams_of_the_socket_module(loop, run):
    """Of a family, or to an address, that only it knows."""

    async def main():
        got = []

        class Peer(asyncio.DatagramProtocol):
            def datagram_received(self, data, address):
                got.append(data)

        sock = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM)
        sock.bind((0, 0))
        netlink, _ = await loop.create_datagram_endpoint(Peer, sock=sock)
        # A question that the kernel answers: RTM_GETLINK, a dump of all.
        netlink.sendto(struct.pack("=IHHIIBxHiII", 32, 18, 0x301, 1, 0, 0, 0, 0, 0, 0))
        await until(lambda: got)
        before = loop.metrics()
        assert (before.bytes_sent, before.bytes_received) == (32, sum(map(len, got)))
        got.clear()
        inet, _ = await loop.create_datagram_endpoint(Peer, local_addr=("127.0.0.1", 0))
        inet.sendto(b"12345", ("localhost", inet.get_extra_info("sockname")[1]))
        await until(lambda: b"12345" in got)
        now = loop.metrics()
        assert now.bytes_sent - before.bytes_sent == 5
        assert now.bytes_received - before.bytes_received == sum(map(len, got))
        netlink.close()
        inet.close()
        await until(lambda: loop.metrics().datagrams == 0)

    run(main())


def test_datagrams(loop, run):
    async def main():
        got = []

        class Peer(asyncio.DatagramProtocol):
            def datagram_received(self, data, address):
                got.append(data)

        one, _ = await loop.create_datagram_endpoint(Peer, local_addr=("127.0.0.1", 0))
        other, _ = await loop.create_datagram_endpoint(
            Peer, remote_addr=one.get_extra_info("sockname")
        )
        other.sendto(b"12345")
        await until(lambda: got)
        now = loop.metrics()
        assert now.datagrams == 2
        assert (now.bytes_sent, now.bytes_received) == (5, 5)
        one.close()
        other.close()
        await until(lambda: loop.metrics().datagrams == 0)

    run(main())


def test_pipes(loop, run):
    async def main():
        read_fd, write_fd = os.pipe()
        read_end, write_end = os.fdopen(read_fd, "rb", 0), os.fdopen(write_fd, "wb", 0)
        reader = asyncio.StreamReader()
        source, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), read_end
        )
        sink, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, write_end)
        sink.write(b"1234567")
        assert await reader.readexactly(7) == b"1234567"
        now = loop.metrics()
        assert (now.pipes, now.bytes_sent, now.bytes_received) == (2, 7, 7)
        sink.close()
        source.close()
        await until(lambda: loop.metrics().pipes == 0)

    run(main())


def test_watched_descriptors(loop):
    a, b = tcp_pair()
    with a, b:
        loop.add_reader(a, int)
        loop.add_writer(a, int)
        loop.add_reader(b, int)
        assert loop.metrics().descriptors == 2
        for sock in (a, b):
            loop.remove_reader(sock)
        loop.remove_writer(a)
        assert loop.metrics().descriptors == 0


def test_of_a_closed_loop(new_loop):
    loop = new_loop()
    loop.call_soon(int)
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    assert loop.metrics().callbacks >= 1
    assert loop.metrics()[5:12] == (0,) * 7


def test_open_telemetry(new_loop):
    pytest.importorskip("opentelemetry.sdk.metrics")
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    from uvloop_clone.otel import instrument

    collected = InMemoryMetricReader()
    provider = MeterProvider([collected])

    def observed():
        data = collected.get_metrics_data()
        return {
            (metric.name, *sorted(point.attributes.items())): point.value
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
            for point in metric.data.data_points
        }

    loop = new_loop()
    instrument(loop, provider.get_meter("test"), {"loop": "main"})
    loop.call_later(1000, int)
    loop.run_until_complete(asyncio.sleep(0.01))
    found, name = observed(), ("loop", "main")
    assert found["asyncio.eventloop.timers", name] == 1
    assert found["asyncio.eventloop.callbacks", name] == loop.metrics().callbacks
    assert found["asyncio.eventloop.time", name, ("state", "idle")] == loop.metrics().idle_time
    assert found["asyncio.eventloop.open", ("kind", "stream"), name] == 0
    assert len(found) == 14
    loop.close()
    assert observed() == {}
    ref = weakref.ref(loop)
    del loop
    gc.collect()
    assert ref() is None
    provider.shutdown()
