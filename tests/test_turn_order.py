"""What one turn runs, and in which order: ready callbacks, what the poll brought, due timers."""

from __future__ import annotations

import asyncio
import time

import pytest
from support import Recorder, tcp_pair


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
