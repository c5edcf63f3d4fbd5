"""Signatures and docstrings: those of asyncio's own classes in the running Python."""

import asyncio
import inspect
import os
import socket
from asyncio import base_events, base_subprocess, selector_events, sslproto, unix_events

import pytest
from support import Recorder, tcp_pair, until

import uvloop_clone
from uvloop_clone import _core, _process, _server

pytestmark = pytest.mark.core

PAIRS = {
    "Loop": (uvloop_clone.Loop, asyncio.SelectorEventLoop),
    "Server": (_server.Server, base_events.Server),
    "Handle": (_core.Handle, asyncio.Handle),
    "TimerHandle": (_core.TimerHandle, asyncio.TimerHandle),
    "StreamTransport": (_core.StreamTransport, selector_events._SelectorSocketTransport),
    "SSLTransport": (_core.SSLTransport, sslproto._SSLProtocolTransport),
    "DatagramTransport": (_core.DatagramTransport, selector_events._SelectorDatagramTransport),
    "ReadPipeTransport": (_core.ReadPipeTransport, unix_events._UnixReadPipeTransport),
    "WritePipeTransport": (_core.WritePipeTransport, unix_events._UnixWritePipeTransport),
    "SubprocessTransport": (
        _process.SubprocessTransport,
        base_subprocess.BaseSubprocessTransport,
    ),
}

# Methods of C cannot be marked for inspect.iscoroutinefunction(); what these return is awaited,
# wrapped in tasks and closed as a coroutine is.
COROUTINES_IN_C = {
    "sock_accept",
    "sock_recv",
    "sock_recv_into",
    "sock_recvfrom",
    "sock_recvfrom_into",
    "sock_sendall",
    "sock_sendto",
}

# What ours have and asyncio's have not.
MORE = {
    "Loop": {
        "allow_nested": "a loop may be entered again while it runs",
        "busy_poll_duration": "for how long a busy loop polls before it sleeps",
        "metrics": "what the loop has done and what it holds",
        "sock_recvfrom": "asyncio's since 3.11",
        "sock_recvfrom_into": "asyncio's since 3.11",
        "sock_sendto": "asyncio's since 3.11",
    },
    "Handle": {"get_context": "asyncio's since 3.12"},
    "TimerHandle": {"get_context": "asyncio's since 3.12"},
    "SSLTransport": {
        "get_read_buffer_limits": "asyncio's since 3.11",
        "get_read_buffer_size": "asyncio's since 3.11",
        "set_read_buffer_limits": "asyncio's since 3.11",
    },
    "Server": {
        "close_clients": "asyncio's since 3.13, here on each Python",
        "abort_clients": "asyncio's since 3.13, here on each Python",
    },
}

# What asyncio's have and ours have not.
LESS = {
    "max_size": "how much asyncio reads at once; a number of its implementation",
}


def public(owner):
    """The public attributes of a class, without those that say nothing of how it is used."""
    return {name for name in dir(owner) if not name.startswith("_")}


METHODS = [
    pytest.param(ours, theirs, name, id=f"{label}.{name}")
    for label, (ours, theirs) in PAIRS.items()
    for name in sorted(public(ours) & public(theirs))
    if callable(getattr(theirs, name))
]


def parameters(function):
    """(name, kind, default) of each parameter but the first, which is self."""
    found = list(inspect.signature(function).parameters.values())[1:]
    return [(each.name, each.kind.name, shown(each.default)) for each in found]


def shown(default):
    """A default in comparable form: inspect's `empty`, a plain object() that marks, or a repr."""
    return default if default is inspect.Parameter.empty else repr(default).split(" at 0x")[0]


@pytest.mark.parametrize(("ours", "theirs", "name"), METHODS)
def test_signature(ours, theirs, name):
    assert parameters(getattr(ours, name)) == parameters(getattr(theirs, name))


@pytest.mark.parametrize(("ours", "theirs", "name"), METHODS)
def test_coroutine_functions(ours, theirs, name):
    expected = inspect.iscoroutinefunction(getattr(theirs, name)) and name not in COROUTINES_IN_C
    assert inspect.iscoroutinefunction(getattr(ours, name)) == expected


@pytest.mark.parametrize("label", PAIRS)
def test_nothing_is_missing(label):
    ours, theirs = map(public, PAIRS[label])
    assert theirs - ours <= set(LESS)
    assert ours - theirs - {"slow_callback_duration"} <= set(MORE.get(label, ()))


@pytest.mark.parametrize("label", PAIRS)
def test_docstrings(label):
    ours = PAIRS[label][0]
    assert ours.__doc__
    without = {name for name in public(ours) if not inspect.getdoc(getattr(ours, name))}
    assert not without


def test_package_docstrings():
    names = [name for name in uvloop_clone.__all__ if callable(getattr(uvloop_clone, name))]
    assert names
    assert not [name for name in names if not inspect.getdoc(getattr(uvloop_clone, name))]


# -- arguments by name ---------------------------------------------------------------------------


def test_callbacks_by_name(loop, turns):
    called = []
    loop.call_soon(callback=lambda: called.append("soon"))
    loop.call_soon_threadsafe(callback=lambda: called.append("threadsafe"), context=None)
    loop.call_later(delay=0, callback=lambda: called.append("later"))
    loop.call_at(when=loop.time(), callback=lambda: called.append("at"))
    for _ in range(100):
        turns()
        if len(called) == 4:
            break
    assert sorted(called) == ["at", "later", "soon", "threadsafe"]


def test_switches_by_name(loop):
    loop.set_debug(enabled=True)
    assert loop.get_debug()
    loop.set_debug(enabled=False)

    def factory(loop, coro, **keywords):
        return asyncio.Task(coro, loop=loop, **keywords)

    loop.set_task_factory(factory=factory)
    assert loop.get_task_factory() is factory
    loop.set_task_factory(factory=None)
    future = loop.create_future()
    future.set_result(7)
    assert loop.run_until_complete(future=future) == 7


@pytest.mark.parametrize("with_factory", [False, True])
def test_create_task_by_name(loop, run, with_factory):
    async def work():
        return 5

    async def main():
        if with_factory:
            loop.set_task_factory(lambda loop, coro, **keywords: asyncio.Task(coro, loop=loop))
        assert await loop.create_task(coro=work()) == 5
        task = loop.create_task(name="named", coro=work())
        assert with_factory or task.get_name() == "named"
        assert await task == 5
        with pytest.raises(TypeError, match="coro"):
            loop.create_task(name="named")

    run(main())


def test_watchers_by_name(loop, run, pair):
    a, b = pair()

    async def main():
        readable, writable = asyncio.Event(), asyncio.Event()
        loop.add_reader(fd=a, callback=readable.set)
        loop.add_writer(a, callback=writable.set)
        b.send(b"x")
        await readable.wait()
        await writable.wait()
        assert loop.remove_reader(fd=a) is True
        assert loop.remove_writer(fd=a) is True

    run(main())


def test_sockets_by_name(loop, run, pair):
    a, b = pair()

    async def main():
        await loop.sock_sendall(sock=a, data=b"12345")
        assert await loop.sock_recv(sock=b, n=1) == b"1"
        assert await loop.sock_recv_into(b, buf=bytearray(1)) == 1
        if not hasattr(loop, "sock_recvfrom"):  # 3.10
            return
        assert (await loop.sock_recvfrom(sock=b, bufsize=1))[0] == b"3"
        assert (await loop.sock_recvfrom_into(sock=b, buf=bytearray(9), nbytes=1))[0] == 1
        assert (await loop.sock_recvfrom_into(b, buf=bytearray(9)))[0] == 1
        with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as client:
            listener.setblocking(False)
            client.setblocking(False)
            await loop.sock_connect(sock=client, address=listener.getsockname())
            accepted, _ = await loop.sock_accept(sock=listener)
            accepted.close()
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.bind(("127.0.0.1", 0))
            assert await loop.sock_sendto(sock=sock, data=b"ab", address=sock.getsockname()) == 2

    run(main())


def test_stream_by_name(loop, run):
    async def main():
        a, b = tcp_pair()
        with b:
            transport, protocol = await loop.create_connection(Recorder, sock=a)
            transport.write(data=b"12")
            transport.writelines(list_of_data=[b"3"])
            assert await loop.sock_recv(b, 10) in (b"12", b"123")
            transport.set_protocol(protocol=protocol)
            assert transport.get_extra_info(name="nothing", default=1) == 1
            transport.set_write_buffer_limits(low=1, high=2)
            transport.close()
            await protocol.lost

    run(main())


def test_datagram_by_name(loop, run):
    async def main():
        got = []

        class Receiver(asyncio.DatagramProtocol):
            def datagram_received(self, data, addr):
                got.append(data)

        transport, protocol = await loop.create_datagram_endpoint(
            Receiver, local_addr=("127.0.0.1", 0)
        )
        transport.sendto(data=b"1", addr=transport.get_extra_info(name="sockname"))
        await until(lambda: got == [b"1"])
        transport.set_protocol(protocol=protocol)
        transport.close()

    run(main())


def test_pipe_by_name(loop, run):
    async def main():
        r, w = os.pipe()
        with open(r, "rb", 0) as reader:
            pipe = os.fdopen(w, "wb", 0)
            transport, protocol = await loop.connect_write_pipe(
                protocol_factory=Recorder, pipe=pipe
            )
            transport.write(data=b"12")
            transport.writelines(list_of_data=[b"3"])
            transport.set_protocol(protocol=protocol)
            transport.close()
            await protocol.lost
            assert reader.read() == b"123"

    run(main())


@pytest.mark.parametrize(
    ("name", "arguments", "keywords", "text"),
    [
        ("set_debug", (), {}, "missing 1 required positional argument: 'enabled'"),
        ("set_debug", (), {"on": True}, "unexpected keyword argument 'on'"),
        ("set_debug", (True,), {"enabled": True}, "multiple values for argument 'enabled'"),
        ("set_debug", (True, True), {}, "takes 2 positional arguments but 3 were given"),
        ("remove_reader", (), {"file": 0}, "unexpected keyword argument 'file'"),
        ("add_reader", (0, print, 1), {"callback": print}, "multiple values for argument"),
        ("run_until_complete", (), {}, "missing 1 required positional argument: 'future'"),
        ("call_soon", (print,), {"callback": print}, "multiple values for argument"),
    ],
)
def test_wrong_calls(loop, name, arguments, keywords, text):
    with pytest.raises(TypeError, match=text):
        getattr(loop, name)(*arguments, **keywords)
