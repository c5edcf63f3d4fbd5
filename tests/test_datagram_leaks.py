"""Datagram and pipe transports leave no descriptor, object or memory behind."""

import asyncio
import os
import warnings

import pytest
from support import make_loop, until
from test_datagram import Datagrams, end, endpoint, name_of
from test_leaks import Growth
from test_pipes_read import Reader, reading
from test_pipes_write import Writer, writing

pytestmark = [pytest.mark.leaks, pytest.mark.only("uvloop_clone")]


async def one_endpoint(server, got):
    got.received.clear()
    client, protocol = await endpoint(remote_addr=name_of(server))
    client.sendto(b"x" * 100)
    await until(lambda: got.received)
    await end(protocol)


async def one_endpoint_refused(server, got):
    client, protocol = await endpoint(Datagrams)
    client.sendto(b"x", name_of(client))
    client.sendto(b"x" * 70000, name_of(server))
    assert protocol.failures
    client.abort()
    await protocol.lost


async def one_pipe(server, got):
    r, w = os.pipe()
    _, reader = await reading(os.fdopen(r, "rb", 0), Reader)
    transport, writer = await writing(os.fdopen(w, "wb", 0), Writer)
    transport.write(b"x" * 100_000)
    transport.close()
    await reader.lost
    await writer.lost


async def one_pipe_broken(server, got):
    r, w = os.pipe()
    transport, writer = await writing(os.fdopen(w, "wb", 0), Writer)
    transport.write(b"x" * 200_000)
    os.close(r)
    assert isinstance(await writer.lost, BrokenPipeError)


@pytest.mark.parametrize(
    "work",
    [one_endpoint, one_endpoint_refused, one_pipe, one_pipe_broken],
    ids=lambda f: f.__name__,
)
def test_two_thousand(kind, work):
    loop = make_loop(kind)

    async def repeat(count):
        server, got = await endpoint()
        for _ in range(count):
            await work(server, got)
        await end(got)

    try:
        Growth(lambda count: loop.run_until_complete(repeat(count)), 200, 2000).check()
    finally:
        loop.run_until_complete(asyncio.sleep(0.01))
        loop.close()


def test_loops_with_unclosed_transports(kind):
    """What the end of a loop finds open is closed with it."""

    async def leave():
        await endpoint()
        r, w = os.pipe()
        await reading(os.fdopen(r, "rb", 0), Reader)
        await writing(os.fdopen(w, "wb", 0), Writer)

    def work(count):
        for _ in range(count):
            loop = make_loop(kind)
            loop.run_until_complete(leave())
            loop.close()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # one that is kept keeps its transport
        Growth(work, 20, 200).check()
