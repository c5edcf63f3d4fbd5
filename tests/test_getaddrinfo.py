"""getaddrinfo of literals: what socket.getaddrinfo() says, to the last detail, without a thread."""

import asyncio
import itertools
import socket

import pytest

pytestmark = pytest.mark.core

HOSTS = [
    "127.0.0.1",
    b"127.0.0.1",
    "0.0.0.0",
    "255.255.255.255",
    "::1",
    b"::1",
    "::",
    "0:0:0:0:0:0:0:1",
    "::ffff:1.2.3.4",
    "FE80::1",
    None,
]
PORTS = [0, 80, 65535, "80", b"80", "0080", None]
TYPES = [0, socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW]
FAMILIES = [socket.AF_UNSPEC, socket.AF_INET, socket.AF_INET6]


def outcome(call, *args, **kwargs):
    try:
        return call(*args, **kwargs)
    except (OSError, ValueError, TypeError, OverflowError) as error:
        return type(error), error.args


def check(run, loop, host, port, **how):
    async def ask():
        return await loop.getaddrinfo(host, port, **how)

    expected = outcome(socket.getaddrinfo, host, port, **how)
    found = outcome(run, ask())
    assert found == expected
    if isinstance(expected, list):
        for mine, theirs in zip(found, expected, strict=True):
            assert [type(x) for x in mine] == [type(x) for x in theirs]


@pytest.mark.parametrize("host", HOSTS, ids=repr)
def test_literals(loop, run, host):
    for port, kind, family in itertools.product(PORTS, TYPES, FAMILIES):
        check(run, loop, host, port, type=kind, family=family)


@pytest.mark.parametrize("flags", [socket.AI_PASSIVE, socket.AI_CANONNAME, socket.AI_NUMERICHOST])
@pytest.mark.parametrize("host", ["127.0.0.1", "::1", None], ids=repr)
def test_flags(loop, run, host, flags):
    for proto in (0, socket.IPPROTO_TCP, socket.IPPROTO_UDP):
        check(run, loop, host, 80, type=socket.SOCK_STREAM, proto=proto, flags=flags)


@pytest.mark.parametrize("host", ["127.0.0.01", "1.2.3.256", "127.1", "", "::1::", 5], ids=repr)
def test_what_is_no_literal_is_asked_for(loop, run, monkeypatch, host):
    asked = []

    def resolve(*args):
        asked.append(args)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", resolve)

    async def ask():
        return await loop.getaddrinfo(host, 80, type=socket.SOCK_STREAM)

    assert run(ask()) == []
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("host", "port"),
    [
        ("127.0.0.1\0.example", 80),
        (b"127.0.0.1\0.example", 80),
        ("127.0.0.1", "80\0"),
        ("127.0.0.1", "-1"),
        ("127.0.0.1", " 80"),
        ("127.0.0.1", "80x"),
        ("127.0.0.1", "99999"),
        ("127.0.0.1", 1.5),
        ("\ud800", 80),
    ],
    ids=ascii,
)
def test_bad_input(loop, run, host, port):
    check(run, loop, host, port, type=socket.SOCK_STREAM)


def test_no_thread_is_started(loop, run):
    async def ask():
        await loop.getaddrinfo("127.0.0.1", 80, type=socket.SOCK_STREAM)
        return loop._default_executor

    if type(loop).__module__.startswith("asyncio"):
        pytest.skip("asyncio asks in a thread")
    assert run(ask()) is None


def test_cancelled(loop, run):
    async def main():
        task = loop.create_task(loop.getaddrinfo("127.0.0.1", 80))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main())
