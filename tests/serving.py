"""What the tests of connections and servers share: an echo, and short ways to ask and to end."""

import asyncio
import socket

import pytest
from support import until


def has_ipv6():
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="no IPv6 on this machine")


class Echo(asyncio.Protocol):
    """Sends back what comes in; keeps the instances in `all`."""

    def __init__(self, instances=None):
        self.lost = asyncio.get_running_loop().create_future()
        if instances is not None:
            instances.append(self)

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(data)

    def connection_lost(self, exc):
        self.lost.set_result(exc)


def port_of(server):
    return server.sockets[0].getsockname()[1]


async def ask(transport, protocol, message=b"ping"):
    """Send a message and wait for its echo."""
    before = len(protocol.data)
    transport.write(message)
    await until(lambda: len(protocol.data) >= before + len(message))
    return bytes(protocol.data[before:])


async def hang_up(transport, protocol):
    transport.close()
    return await asyncio.wait_for(protocol.lost, 10)


async def shut(server):
    server.close()
    await asyncio.wait_for(server.wait_closed(), 10)


def resolving_to(monkeypatch, *ports):
    def resolve(host, port, *args, **kwargs):
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", p)) for p in ports]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)


async def can_connect(loop, host, port):
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    with sock:
        sock.setblocking(False)
        try:
            await loop.sock_connect(sock, (host, port))
        except ConnectionRefusedError:
            return False
        return True
