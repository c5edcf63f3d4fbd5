"""Unix stream sockets: connecting and listening by path."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl as ssl_module
import sys
from asyncio.log import logger
from collections.abc import Callable
from typing import Any, TypeVar

from ._connect import ConnectMixin, check_timeouts
from ._server import Server
from ._signatures import since
from ._sockets import remove_stale_socket

__all__ = ("UnixMixin",)

_Protocol = TypeVar("_Protocol", bound=asyncio.BaseProtocol)
_Path = str | bytes | os.PathLike[str] | os.PathLike[bytes]

# Since 3.13 closing a server takes its socket file away.
_CLEANS_UP = sys.version_info >= (3, 13)


def _is_abstract(path: str | bytes) -> bool:
    """Whether a socket name is one without a file (Linux)."""
    return path[:1] in ("", "\0", b"", b"\0")


def _check_unix_stream(sock: socket.socket) -> None:
    if sock.family != socket.AF_UNIX or sock.type != socket.SOCK_STREAM:
        raise ValueError(f"A UNIX Domain Stream Socket was expected, got {sock!r}")


def _bind_path(path: str | bytes) -> socket.socket:
    """A socket bound to `path`; a socket file that is there already gives way."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if path[0] not in (0, "\0"):
            remove_stale_socket(path)
        sock.bind(path)
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            raise OSError(errno.EADDRINUSE, f"Address {path!r} is already in use") from None
        raise
    except BaseException:
        sock.close()
        raise
    return sock


def _file_identity(sock: socket.socket) -> tuple[str | bytes, int, int] | None:
    """Path, device and inode of a bound socket's file, or None."""
    path = sock.getsockname()
    if _is_abstract(path):
        return None
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return path, found.st_dev, found.st_ino


def _remove_file(path: str | bytes, device: int, inode: int) -> None:
    """Remove the file unless another one has taken its name."""
    try:
        found = os.stat(path)
        if (found.st_dev, found.st_ino) == (device, inode):
            os.unlink(path)
    except FileNotFoundError:
        return
    except OSError as error:
        logger.error("Unable to clean up listening UNIX socket %r: %r", path, error)


class UnixMixin(ConnectMixin):
    """create_unix_connection and create_unix_server."""

    @since(ssl_shutdown_timeout=(3, 11))
    async def create_unix_connection(
        self,
        protocol_factory: Callable[[], _Protocol],
        path: _Path | None = None,
        *,
        ssl: bool | ssl_module.SSLContext | None = None,
        sock: socket.socket | None = None,
        server_hostname: str | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
    ) -> tuple[asyncio.Transport, _Protocol]:
        """Open a stream to a Unix socket's `path`, or over `sock`; return (transport, protocol).

        As :meth:`asyncio.loop.create_unix_connection`. Raises ValueError for arguments that do not
        go together, OSError when nobody answers there.
        """
        assert server_hostname is None or isinstance(server_hostname, str)
        if ssl:
            if server_hostname is None:
                raise ValueError("you have to pass server_hostname when using ssl")
        elif server_hostname is not None:
            raise ValueError("server_hostname is only meaningful with ssl")
        check_timeouts(ssl, ssl_handshake_timeout, ssl_shutdown_timeout)
        given = sock is not None
        if path is not None:
            if sock is not None:
                raise ValueError("path and sock can not be specified at the same time")
            name = os.fspath(path)
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                sock.setblocking(False)
                await self.sock_connect(sock, name)
            except BaseException:
                sock.close()
                raise
        elif sock is None:
            raise ValueError("no path and sock were specified")
        else:
            _check_unix_stream(sock)
        return await self._open_stream(
            sock,
            protocol_factory,
            ssl,
            given=given,
            server_hostname=server_hostname,
            handshake_timeout=ssl_handshake_timeout,
            shutdown_timeout=ssl_shutdown_timeout,
        )

    @since(ssl_shutdown_timeout=(3, 11), cleanup_socket=(3, 13))
    async def create_unix_server(
        self,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        path: _Path | None = None,
        *,
        sock: socket.socket | None = None,
        backlog: int = 100,
        ssl: ssl_module.SSLContext | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
        start_serving: bool = True,
        cleanup_socket: bool = _CLEANS_UP,
    ) -> Server:
        """Listen on a Unix socket's `path` (a leading NUL: an abstract name), or on a bound `sock`.

        As :meth:`asyncio.loop.create_unix_server`. Raises ValueError or TypeError for arguments
        that do not go together, OSError when the path cannot be bound. With `cleanup_socket` the
        file is removed when the server closes.
        """
        if isinstance(ssl, bool):
            raise TypeError("ssl argument must be an SSLContext or None")
        check_timeouts(ssl, ssl_handshake_timeout, ssl_shutdown_timeout)
        if path is not None:
            if sock is not None:
                raise ValueError("path and sock can not be specified at the same time")
            sock = _bind_path(os.fspath(path))
        elif sock is None:
            raise ValueError("path was not specified, and no sock specified")
        else:
            _check_unix_stream(sock)
        sock.setblocking(False)
        server = Server(
            self,
            [sock],
            protocol_factory,
            ssl,
            backlog,
            ssl_handshake_timeout,
            ssl_shutdown_timeout,
            _closing_file(_file_identity(sock)) if cleanup_socket else None,
        )
        if start_serving:
            server._start_serving()
            await asyncio.sleep(0)
        return server


def _closing_file(identity: tuple[Any, int, int] | None) -> Callable[[socket.socket], None] | None:
    """What a server does with its listening socket at the end: close it, then remove its file."""
    if identity is None:
        return None

    def close(sock: socket.socket) -> None:
        sock.close()
        _remove_file(*identity)

    return close
