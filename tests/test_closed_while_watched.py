"""A descriptor closed behind the loop's back must not harm the loop."""

from __future__ import annotations

import asyncio
import socket

import pytest
from support import tcp_pair


@pytest.mark.parametrize("how", ["recv", "sendall", "connect", "reader", "writer"])
def test_closed_before_the_loop_polls_it(loop, run, how):
    near, far = tcp_pair()
    buffer = b"x" * (1 << 24)

    async def wait_on_it():
        if how == "recv":
            await loop.sock_recv(near, 1)
        elif how == "sendall":
            await loop.sock_sendall(near, buffer)
        elif how == "connect":
            await loop.sock_connect(near, ("127.0.0.1", 9))

    async def main():
        nonlocal near
        if how == "connect":
            near.close()
            near = socket.socket()
            near.setblocking(False)
        if how == "reader":
            loop.add_reader(near, print)
        elif how == "writer":
            loop.add_writer(near, print)
        task = loop.create_task(wait_on_it())
        loop.call_soon(near.close)
        await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert await asyncio.sleep(0.01, "still running") == "still running"

    with near, far:
        run(main())


def test_number_used_again(loop, run):
    async def main():
        near, far = tcp_pair()
        with far:
            loop.add_reader(near.fileno(), print)
            loop.call_soon(near.close)
            await asyncio.sleep(0)
        near, far = tcp_pair()
        with near, far:
            far.send(b"hello")
            assert await loop.sock_recv(near, 10) == b"hello"

    run(main())


@pytest.mark.only("uvloop_clone")  # asyncio's selector is confused by the successor
def test_another_socket_with_the_number_is_left_alone(loop, run):
    """What waits to be sent to a socket that was closed does not go to its successor."""

    async def main():
        near, far = socket.socketpair()
        near.setblocking(False)
        number = near.fileno()
        with near, far:
            task = loop.create_task(loop.sock_sendall(near, b"secret" * 1_000_000))
            await asyncio.sleep(0.01)
            near.close()
            pair = socket.socketpair()
            first, second = sorted(pair, key=lambda sock: sock.fileno() != number)
            with first, second:
                assert first.fileno() == number
                first.setblocking(False)
                second.setblocking(False)
                other = loop.create_task(loop.sock_recv(first, 10))
                await asyncio.sleep(0.01)
                with pytest.raises(BlockingIOError):
                    second.recv(10)
                second.send(b"hello")
                assert await other == b"hello"
            with pytest.raises(OSError, match="Bad file descriptor"):
                await task

    run(main())
