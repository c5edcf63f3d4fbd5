"""create_unix_connection() and create_unix_server()."""

import asyncio
import errno
import os
import pathlib
import socket
import ssl
import sys

import pytest
from serving import Echo, ask, hang_up, shut
from support import Recorder

pytestmark = pytest.mark.core

CONTEXT = ssl.create_default_context()


@pytest.mark.parametrize("form", [str, os.fsencode, pathlib.Path])
def test_unix(loop, run, path, form):
    async def main():
        server = await loop.create_unix_server(Echo, form(path))
        transport, protocol = await loop.create_unix_connection(Recorder, form(path))
        assert isinstance(transport, asyncio.Transport)
        assert transport.get_extra_info("peername") == path
        assert await ask(transport, protocol) == b"ping"
        await hang_up(transport, protocol)
        assert server.sockets[0].family == socket.AF_UNIX
        await shut(server)

    run(main())


@pytest.mark.skipif(sys.platform != "linux", reason="abstract names are Linux's")
@pytest.mark.parametrize("form", [str, os.fsencode])
def test_unix_abstract_name(loop, run, form):
    name = form(f"\0uvloop-clone-test-{os.getpid()}")

    async def main():
        server = await loop.create_unix_server(Echo, name)
        with pytest.raises(OSError, match="is already in use") as caught:
            await loop.create_unix_server(Echo, name)
        assert caught.value.errno == errno.EADDRINUSE
        transport, protocol = await loop.create_unix_connection(Recorder, name)
        assert await ask(transport, protocol) == b"ping"
        await hang_up(transport, protocol)
        await shut(server)

    run(main())


def test_unix_stale_file_gives_way(loop, run, path):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path)

    async def main():
        server = await loop.create_unix_server(Echo, path)
        transport, protocol = await loop.create_unix_connection(Recorder, path)
        await hang_up(transport, protocol)
        await shut(server)

    run(main())


def test_unix_other_file_stays(loop, run, path):
    pathlib.Path(path).write_text("precious")

    async def main():
        with pytest.raises(OSError, match="is already in use") as caught:
            await loop.create_unix_server(Echo, path)
        assert caught.value.errno == errno.EADDRINUSE

    run(main())
    assert pathlib.Path(path).read_text() == "precious"


@pytest.mark.skipif(sys.version_info < (3, 13), reason="cleanup_socket is newer than this Python")
@pytest.mark.parametrize("cleanup", [True, False, None])
def test_unix_cleanup(loop, run, path, cleanup):
    async def main():
        options = {} if cleanup is None else {"cleanup_socket": cleanup}
        server = await loop.create_unix_server(Echo, path, **options)
        assert os.path.exists(path)
        await shut(server)
        assert os.path.exists(path) is (cleanup is False)

    run(main())


@pytest.mark.skipif(sys.version_info < (3, 13), reason="cleanup_socket is newer than this Python")
def test_unix_cleanup_leaves_a_newer_servers_file(loop, run, path):
    async def main():
        first = await loop.create_unix_server(Echo, path)
        second = await loop.create_unix_server(Echo, path)
        await shut(first)
        assert os.path.exists(path)
        await shut(second)
        assert not os.path.exists(path)

    run(main())


@pytest.mark.skipif(sys.version_info < (3, 13), reason="cleanup_socket is newer than this Python")
def test_unix_cleanup_of_a_file_that_is_gone(loop, run, path):
    async def main():
        server = await loop.create_unix_server(Echo, path)
        os.unlink(path)
        await shut(server)

    run(main())


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="the file is removed since then")
def test_unix_file_stays_on_older_pythons(loop, run, path):
    async def main():
        server = await loop.create_unix_server(Echo, path)
        await shut(server)
        assert os.path.exists(path)

    run(main())


def test_unix_given_sockets(loop, run, path):
    async def main():
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        server = await loop.create_unix_server(Echo, sock=listener)
        client = socket.socket(socket.AF_UNIX)
        client.connect(path)
        transport, protocol = await loop.create_unix_connection(Recorder, sock=client)
        assert await ask(transport, protocol) == b"ping"
        await hang_up(transport, protocol)
        await shut(server)

    run(main())


def test_unix_failing_factory_leaves_the_socket_to_its_owner(loop, run, sockets):
    a, b = sockets

    def factory():
        raise ZeroDivisionError

    async def main():
        with pytest.raises(ZeroDivisionError):
            await loop.create_unix_connection(factory, sock=a)
        await loop.sock_sendall(b, b"still open")
        assert await loop.sock_recv(a, 100) == b"still open"

    run(main())


def test_unix_nobody_there(loop, run, path):
    async def main():
        with pytest.raises(FileNotFoundError):
            await loop.create_unix_connection(Recorder, path)
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(path)
        with pytest.raises(ConnectionRefusedError):
            await loop.create_unix_connection(Recorder, path)

    run(main())


def test_unix_folder_that_is_not_there(loop, run, path):
    async def main():
        with pytest.raises(FileNotFoundError):
            await loop.create_unix_server(Echo, path + "/deep/socket")

    run(main())


def test_unix_path_too_long(loop, run, path):
    async def main():
        with pytest.raises(OSError, match="AF_UNIX path too long"):
            await loop.create_unix_server(Echo, path + "x" * 200)
        with pytest.raises(OSError, match="AF_UNIX path too long"):
            await loop.create_unix_connection(Recorder, path + "x" * 200)

    run(main())


@pytest.mark.parametrize(
    ("how", "options", "error", "text"),
    [
        ("create_unix_connection", {}, ValueError, "no path and sock were specified"),
        ("create_unix_connection", {"path": 5}, TypeError, "PathLike"),
        (
            "create_unix_connection",
            {"path": "x", "server_hostname": "y"},
            ValueError,
            "server_hostname is only meaningful with ssl",
        ),
        (
            "create_unix_connection",
            {"path": "x", "ssl": CONTEXT},
            ValueError,
            "you have to pass server_hostname when using ssl",
        ),
        (
            "create_unix_connection",
            {"path": "x", "ssl_handshake_timeout": 1},
            ValueError,
            "ssl_handshake_timeout is only meaningful with ssl",
        ),
        ("create_unix_server", {}, ValueError, "path was not specified, and no sock specified"),
        ("create_unix_server", {"path": 5}, TypeError, "PathLike"),
        ("create_unix_server", {"path": "x", "ssl": True}, TypeError, "must be an SSLContext"),
        (
            "create_unix_server",
            {"path": "x", "ssl_handshake_timeout": 1},
            ValueError,
            "ssl_handshake_timeout is only meaningful with ssl",
        ),
    ],
)
def test_unix_wrong_arguments(loop, run, how, options, error, text):
    async def main():
        with pytest.raises(error, match=text):
            await getattr(loop, how)(Echo, **options)

    run(main())


@pytest.mark.parametrize("how", ["create_unix_connection", "create_unix_server"])
def test_unix_wrong_sockets(loop, run, how):
    async def main():
        with socket.socket(socket.AF_UNIX) as sock:
            with pytest.raises(ValueError, match="can not be specified at the same time"):
                await getattr(loop, how)(Echo, "x", sock=sock)
        for wrong in (
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM),
            socket.socket(socket.AF_INET, socket.SOCK_STREAM),
        ):
            with wrong, pytest.raises(ValueError, match="A UNIX Domain Stream Socket was expected"):
                await getattr(loop, how)(Echo, sock=wrong)

    run(main())
