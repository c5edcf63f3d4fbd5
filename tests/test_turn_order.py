"""What one turn runs, and in which order: ready callbacks, what the poll brought, due timers."""

from __future__ import annotations

import asyncio
import os
import select
import socket
import time

import pytest
from serving import port_of, shut
from support import Recorder, attach, tcp_pair, until
from tls_peer import client_context, server_context


@pytest.fixture
def pair():
    near, far = tcp_pair()
    with near, far:
        yield near, far


def test_a_reader_comes_between_the_ready_and_what_they_schedule(loop, turns, pair):
    near, far = pair
    order = []

    def first():
        order.append("ready")
        loop.call_soon(order.append, "scheduled")

    def reader():
        near.recv(10)
        order.append("reader")
        loop.remove_reader(near)

    loop.add_reader(near, reader)
    loop.call_later(0, order.append, "timer")
    loop.call_soon(first)
    far.send(b"x")
    time.sleep(0.01)
    turns(1)
    assert order == ["ready", "reader", "timer"]
    turns(1)
    assert order == ["ready", "reader", "timer", "scheduled"]


def test_a_protocol_is_called_after_what_was_ready(loop, run, turns, pair):
    near, far = pair
    order = []

    class Protocol(Recorder):
        def data_received(self, data):
            order.append("data")

    transport, _ = run(loop.create_connection(Protocol, sock=near))
    far.send(b"x")
    time.sleep(0.01)
    loop.call_soon(order.append, "ready")
    turns(1)
    assert order == ["ready", "data"]
    transport.close()
    turns(2)


def test_a_chain_of_callbacks_keeps_its_order_while_the_loop_polls(loop, run, pair):
    near, far = pair
    order = []

    def step(name, left):
        order.append(name)
        if left:
            loop.call_soon(step, name, left - 1)

    def reader():
        near.recv(1)

    async def main():
        loop.add_reader(near, reader)
        far.send(b"x" * 50)
        for name in "abc":
            loop.call_soon(step, name, 100)
        await asyncio.sleep(0.05)
        loop.remove_reader(near)

    run(main())
    assert order == ["a", "b", "c"] * 101


def test_what_is_sent_arrives_within_two_turns(loop, run, pair):
    """Programs wait for it in turns of sleep(0), and count them."""
    near, far = pair

    async def main():
        sender, _ = await loop.create_connection(Recorder, sock=near)
        receiver, protocol = await loop.create_connection(Recorder, sock=far)
        for count in range(1, 9):
            sender.write(b"x")
            for _ in range(3):
                await asyncio.sleep(0)
            assert len(protocol.data) == count
        sender.abort()
        receiver.abort()

    run(main())


class DatagramRecorder(asyncio.DatagramProtocol):
    def __init__(self):
        self.events = []

    def datagram_received(self, data, addr):
        self.events.append("datagram")


async def turns_until(condition):
    """How many turns of sleep(0) it takes."""
    for count in range(30):
        if condition():
            return count
        await asyncio.sleep(0)
    raise AssertionError("it never came")


@pytest.mark.parametrize("over", ["plain", "tls"])
@pytest.mark.parametrize(
    "data", [b"x", bytes(10_000), bytearray(10_000)], ids=["small", "large", "copied"]
)
def test_what_is_written_arrives_within_three_turns(loop, run, over, data):
    async def main():
        accepted = []

        def accept():
            accepted.append(Recorder())
            return accepted[0]

        contexts = (None, None) if over == "plain" else (server_context(), client_context())
        server = await loop.create_server(accept, "127.0.0.1", 0, ssl=contexts[0])
        sender, protocol = await loop.create_connection(
            Recorder, "127.0.0.1", port_of(server), ssl=contexts[1]
        )
        await until(lambda: accepted and accepted[0].made.done())
        await asyncio.sleep(0.02)  # TLS has more to say after its handshake
        received = accepted[0].data
        for busy in range(1, 9):
            for _ in range(busy):
                await asyncio.sleep(0)
            received.clear()
            sender.write(data)
            assert await turns_until(lambda: len(received) == len(data)) <= 3
        sender.abort()
        await asyncio.gather(protocol.lost, accepted[0].lost)
        await shut(server)

    run(main())


@pytest.fixture
def many():
    pairs = [socket.socketpair() for _ in range(6)]
    for pair in pairs:
        for sock in pair:
            sock.setblocking(False)
    yield pairs
    for pair in pairs:
        for sock in pair:
            sock.close()


@pytest.mark.skipif(not hasattr(select, "epoll"), reason="tells the order of arrival")
def test_what_is_written_to_many_leaves_in_the_order_of_writing(loop, run, many):
    async def main():
        transports = [(await attach(near))[0] for near, _ in many]
        with select.epoll() as arrivals:
            for _, far in many:
                arrivals.register(far, select.EPOLLIN | select.EPOLLET)
            for transport in transports:
                transport.write(b"x")
            await asyncio.sleep(0.01)
            order = [fd for fd, _ in arrivals.poll(0)]
        assert order == [far.fileno() for _, far in many]
        for transport in transports:
            transport.abort()

    run(main())


@pytest.mark.parametrize("first", [(0,), (5,), (2, 3), (5, 0, 3), range(6)], ids=str)
def test_some_of_many_are_sent_before_the_others(loop, run, many, first):
    async def main():
        ends = [await attach(near) for near, _ in many]
        for transport, _ in ends:
            transport.write(b"x")
        for index in first:
            ends[index][0].get_write_buffer_size()  # what is asked for is sent before
        for transport, _ in ends:
            transport.write(b"y")
        for index in first:
            ends[index][0].close()
        await asyncio.sleep(0.01)
        assert [far.recv(10) for _, far in many] == [b"xy"] * len(many)
        for transport, _ in ends:
            transport.close()
        await asyncio.gather(*(protocol.lost for _, protocol in ends))

    run(main())


@pytest.mark.parametrize("what", ["write_eof", "close of a pipe", "sock_sendto", "host name"])
@pytest.mark.parametrize("busy", [1, 2, 3, 4])
def test_what_is_done_to_the_other_end_is_met_soon(loop, run, sockets, what, busy):
    """Within four turns of sleep(0), as with asyncio, which polls before each."""

    async def some_turns():
        await asyncio.sleep(0.005)
        for _ in range(busy):
            await asyncio.sleep(0)

    async def main():
        near, far = sockets
        if what == "close of a pipe":
            reading, writing = os.pipe()
            near, far = os.fdopen(writing, "wb", 0), os.fdopen(reading, "rb", 0)
            act, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, near)
            other, protocol = await loop.connect_read_pipe(Recorder, far)
            await some_turns()
            act.close()
        elif what == "write_eof":
            act, _ = await attach(near)
            other, protocol = await attach(far)
            await some_turns()
            act.write_eof()
        else:
            other, protocol = await loop.create_datagram_endpoint(
                DatagramRecorder, local_addr=("127.0.0.1", 0)
            )
            address = other.get_extra_info("sockname")
            act, _ = await loop.create_datagram_endpoint(
                asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0)
            )
            await some_turns()
            if what == "host name":
                act.sendto(b"x", ("localhost", address[1]))
            else:
                with socket.socket(type=socket.SOCK_DGRAM) as sock:
                    sock.setblocking(False)
                    if hasattr(loop, "sock_sendto"):
                        await loop.sock_sendto(sock, b"x", address)
                    else:  # newer than this Python
                        sock.sendto(b"x", address)
        assert await turns_until(lambda: {"eof", "datagram"} & set(protocol.events)) <= 4
        for transport in (act, other):
            if not transport.is_closing():
                transport.close()
        await asyncio.sleep(0.01)

    run(main())


@pytest.mark.parametrize("what", ["resume_reading", "add_reader"])
def test_what_is_there_arrives_within_two_turns_of_watching(loop, run, pair, what):
    near, far = pair

    async def main():
        transport, protocol = await loop.create_connection(Recorder, sock=far.dup())
        came = []
        for count in range(1, 9):
            transport.pause_reading()
            for _ in range(count):  # wherever the loop is in its series of turns
                await asyncio.sleep(0)
            near.send(b"x")
            if what == "resume_reading":
                transport.resume_reading()
            else:
                loop.add_reader(far, lambda: came.append(far.recv(1)))
            for _ in range(3):
                await asyncio.sleep(0)
            assert len(protocol.data) + len(came) == count
            if what == "add_reader":
                loop.remove_reader(far)
        transport.abort()

    run(main())


def test_an_answer_comes_behind_what_was_scheduled_before(loop, run, pair):
    """asyncio polls before a turn: what is written in it is met by the next one's poll."""
    near, far = pair
    order = []

    class Peer(asyncio.Protocol):
        def data_received(self, data):
            order.append("data")

    async def main():
        sender, _ = await loop.create_connection(asyncio.Protocol, sock=near)
        receiver, _ = await loop.create_connection(Peer, sock=far)

        def schedule_and_write():
            loop.call_soon(order.append, "soon")
            sender.write(b"x")

        for turns in range(40):  # wherever the loop is in its series of turns
            order.clear()
            for _ in range(turns % 20):
                await asyncio.sleep(0)
            loop.call_soon(schedule_and_write)
            while len(order) < 2:
                await asyncio.sleep(0)
            assert order == ["soon", "data"]
        sender.abort()
        receiver.abort()

    run(main())
