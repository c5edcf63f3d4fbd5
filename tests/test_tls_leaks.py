"""TLS connections leave no object, descriptor or memory behind, however they end."""

import asyncio
import gc
import io
import ssl
import sys
import warnings
import weakref

import pytest
from serving import Echo, ask, hang_up, port_of, shut
from support import Recorder, make_loop, tcp_pair
from test_leaks import Growth
from tls_peer import NAME, Peer, client_context, connect, server_context

pytestmark = [pytest.mark.leaks, pytest.mark.only("uvloop_clone")]

CONTEXTS = {}


def contexts():
    """One of each kind for all connections, as programs do it."""
    if not CONTEXTS:
        CONTEXTS.update(server=server_context(), client=client_context())
        CONTEXTS["stranger"] = ssl.create_default_context()
    return CONTEXTS


async def connection(port):
    return await asyncio.get_running_loop().create_connection(
        Recorder, "127.0.0.1", port, ssl=contexts()["client"], server_hostname=NAME
    )


async def one_talk(port):
    transport, protocol = await connection(port)
    await ask(transport, protocol, b"x" * 100_000)
    await hang_up(transport, protocol)


async def one_abort(port):
    transport, protocol = await connection(port)
    transport.write(b"x" * 1_000_000)
    transport.abort()
    await protocol.lost


async def one_refused_certificate(port):
    with pytest.raises(ssl.SSLCertVerificationError):
        await asyncio.get_running_loop().create_connection(
            Recorder, "127.0.0.1", port, ssl=contexts()["stranger"], server_hostname=NAME
        )
    await asyncio.sleep(0.001)


async def one_end_without_a_goodbye(port):
    loop = asyncio.get_running_loop()
    a, b = tcp_pair()
    peer = Peer(b, contexts()["client"], False)
    (_, protocol), _ = await asyncio.gather(
        loop.connect_accepted_socket(Recorder, a, ssl=contexts()["server"]), peer.handshake()
    )
    await peer.send(b"x")
    b.close()
    await protocol.lost


async def one_upgrade(port):
    """start_tls() on both ends, a file, and back-pressure."""
    loop = asyncio.get_running_loop()
    a, b = tcp_pair()
    (plain, served), (other, client) = await asyncio.gather(
        loop.create_connection(Recorder, sock=a), loop.create_connection(Recorder, sock=b)
    )
    secret, peer = await asyncio.gather(
        loop.start_tls(plain, served, contexts()["server"], server_side=True),
        loop.start_tls(other, client, contexts()["client"], server_hostname=NAME),
    )
    await loop.sendfile(secret, io.BytesIO(bytes(100_000)))
    secret.close()
    assert await client.lost is None
    await served.lost
    assert len(client.data) == 100_000
    assert peer.is_closing()


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "work",
    [one_talk, one_abort, one_refused_certificate, one_end_without_a_goodbye, one_upgrade],
    ids=lambda f: f.__name__,
)
def test_two_thousand(kind, work):
    loop = make_loop(kind)

    async def repeat(count):
        server = await loop.create_server(Echo, "127.0.0.1", 0, ssl=contexts()["server"])
        for _ in range(count // 10):
            await asyncio.gather(*(work(port_of(server)) for _ in range(10)))
        await asyncio.sleep(0.05)
        await shut(server)

    try:
        Growth(lambda count: loop.run_until_complete(repeat(count)), 200, 2000).check()
    finally:
        loop.close()


def test_loops_with_open_connections(kind):
    """What the end of a loop finds open is closed with it."""

    async def leave():
        server = await asyncio.get_running_loop().create_server(
            Echo, "127.0.0.1", 0, ssl=contexts()["server"]
        )
        transport, protocol = await connection(port_of(server))
        await ask(transport, protocol)

    def work(count):
        for i in range(count):
            loop = make_loop(kind)
            loop.run_until_complete(leave())
            loop.close()
            if i % 50 == 0:
                gc.collect()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        Growth(work, 60, 300).check()


@pytest.mark.only("asyncio", "uvloop_clone")
@pytest.mark.parametrize("stage", ["handshake", "goodbye"])
def test_a_loop_closed_while_a_timer_is_set(new_loop, monkeypatch, stage):
    """The timer and the transport hold each other, which the collector has to see."""

    async def shake_hands(context):
        loop = asyncio.get_running_loop()
        a, b = tcp_pair()
        making = loop.create_connection(Recorder, sock=a, ssl=context, server_hostname=NAME)
        task = loop.create_task(making)
        await loop.sock_recv(b, 1)  # and nobody answers
        task._log_destroy_pending = False
        return b

    async def say_goodbye(context):
        transport, _, peer = await connect(context=context)
        transport.close()
        return peer.sock

    def leave():
        loop, context = new_loop(), client_context()
        begin = shake_hands if stage == "handshake" else say_goodbye
        peer = loop.run_until_complete(begin(context))
        loop.close()
        peer.close()
        return weakref.ref(loop), weakref.ref(context)

    # the coroutine's end tries to close asyncio's transport, and pytest would keep the traceback
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        refs = leave()
        gc.collect()
    assert [ref() for ref in refs] == [None, None]
