"""TCP: connecting out, listening, and adopting accepted sockets."""

from __future__ import annotations

import asyncio
import builtins
import collections.abc
import errno
import itertools
import os
import socket
import ssl as ssl_module
import sys
from asyncio import staggered
from asyncio.log import logger
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from ._server import Server
from ._signatures import since
from ._sockets import SocketsMixin, set_reuse_port
from ._tls import TLSMixin, refuse_tls_socket

__all__ = ("ConnectMixin",)

_Protocol = TypeVar("_Protocol", bound=asyncio.BaseProtocol)
_SSL = bool | ssl_module.SSLContext | None
_AddressInfo = tuple[Any, Any, int, str, Any]

# A socket made non-blocking by the system call that makes it.
_NONBLOCK: int = getattr(socket, "SOCK_NONBLOCK", 0)
# What a program replaces that wants its connections made in its own way.
_socket_class, _socket_connect = socket.socket, socket.socket.connect
# A host's address that this machine does not have is passed over, and a server needs one at least.
_SKIPS_UNAVAILABLE = sys.version_info >= (3, 12, 2)
# Errors of bind() are told with their numbers.
_TELLS_NUMBERS = sys.version_info >= (3, 12, 5)


def check_timeouts(tls: object, handshake_timeout: object, shutdown_timeout: object) -> None:
    """Raise ValueError for a TLS timeout without TLS."""
    if not tls:
        if handshake_timeout is not None:
            raise ValueError("ssl_handshake_timeout is only meaningful with ssl")
        if shutdown_timeout is not None:
            raise ValueError("ssl_shutdown_timeout is only meaningful with ssl")


def _check_stream(sock: socket.socket) -> None:
    if sock.type != socket.SOCK_STREAM:
        raise ValueError(f"A Stream Socket was expected, got {sock!r}")


def _check_one_given(
    host: object, port: object, sock: socket.socket | None, if_neither: str
) -> None:
    """Raise ValueError or TypeError unless there is an address or a stream socket, and not both."""
    if sock is not None:
        refuse_tls_socket(sock)
    if host is not None or port is not None:
        if sock is not None:
            raise ValueError("host/port and sock can not be specified at the same time")
    elif sock is None:
        raise ValueError(if_neither)
    else:
        _check_stream(sock)


def _name_of_server(tls: object, host: str | None, server_hostname: str | None) -> str | None:
    """The name that TLS asks for, by default the host's. Raises ValueError for TLS without a name,
    and for a name without TLS."""
    if not tls:
        if server_hostname is not None:
            raise ValueError("server_hostname is only meaningful with ssl")
        return None
    if server_hostname is not None:
        return server_hostname
    # An empty name is the caller's way to say that no name is to be checked.
    if not host:
        raise ValueError("You must set server_hostname when using ssl without a host")
    return host


def _hosts_to_serve(host: str | Iterable[str | None] | None) -> list[str | None]:
    """What create_server() was given as `host`, as a list; None stands for everywhere."""
    if host == "":
        return [None]
    if isinstance(host, str) or not isinstance(host, collections.abc.Iterable):
        return [host]
    return list(host)


def _stream_socket(family: int, type: int, proto: int) -> socket.socket:
    sock = socket.socket(family, type | _NONBLOCK, proto)
    if not _NONBLOCK:
        sock.setblocking(False)
    return sock


def _connects_as_ever(loop: SocketsMixin) -> bool:
    """Whether nobody has replaced what connects a socket."""
    return (
        socket.socket is _socket_class
        and _socket_class.connect is _socket_connect
        and getattr(loop.sock_connect, "__func__", None) is SocketsMixin.sock_connect
    )


def _log_connected(
    host: object, port: object, transport: asyncio.Transport, protocol: asyncio.BaseProtocol
) -> None:
    view = transport.get_extra_info("socket")
    logger.debug("%r connected to %s:%r: (%r, %r)", view, host, port, transport, protocol)


def _interleave(infos: Sequence[_AddressInfo], first: int) -> list[_AddressInfo]:
    """Take families in turn, after `first` addresses of the first family."""
    by_family: dict[int, list[_AddressInfo]] = {}
    for info in infos:
        by_family.setdefault(info[0], []).append(info)
    queues = list(by_family.values())
    head = queues[0][: first - 1]
    del queues[0][: first - 1]
    turns = itertools.chain.from_iterable(itertools.zip_longest(*queues))
    return head + [info for info in turns if info is not None]


def _bind_failure(error: OSError, address: object) -> OSError:
    text = str(error) if _TELLS_NUMBERS else error.strerror or str(error)
    return OSError(
        error.errno, f"error while attempting to bind on address {address!r}: {text.lower()}"
    )


def _bind_local(sock: socket.socket, family: int, locals_: Sequence[_AddressInfo]) -> None:
    """Bind to the first local address of `family` that can be had."""
    failure: OSError | None = None
    for local_family, _, _, _, address in locals_:
        if local_family != family:
            continue
        try:
            sock.bind(address)
            return
        except OSError as error:
            failure = _bind_failure(error, address)
    try:
        raise failure or OSError(f"no matching local address with {family=} found")
    finally:
        del failure


def _combined(failures: list[OSError], all_errors: bool) -> BaseException:
    """The one exception that tells why no address could be reached."""
    group: Any = vars(builtins).get("ExceptionGroup")  # Python 3.10 has none
    if all_errors and group is not None:
        error: BaseException = group("create_connection failed", failures)
        return error
    if not failures:
        return TimeoutError("create_connection failed")
    texts = [str(failure) for failure in failures]
    if len(set(texts)) == 1:
        return failures[0]
    return OSError(f"Multiple exceptions: {', '.join(texts)}")


class ConnectMixin(TLSMixin, SocketsMixin):
    """create_connection, create_server and connect_accepted_socket."""

    # -- connecting --------------------------------------------------------------------------

    async def _connect_one(
        self,
        failures: list[OSError],
        info: _AddressInfo,
        locals_: Sequence[_AddressInfo] | None,
    ) -> socket.socket:
        """A socket connected to one address; an OSError is noted in `failures` and raised."""
        family, type_, proto, _, address = info
        sock = None
        try:
            sock = _stream_socket(family, type_, proto)
            if locals_ is not None:
                _bind_local(sock, family, locals_)
            await self.sock_connect(sock, address)
            return sock
        except BaseException as error:
            if sock is not None:
                sock.close()
            if isinstance(error, OSError):
                failures.append(error)
            raise
        finally:
            del failures  # an exception in the list would hold this frame, which holds the list

    async def _connect_any(
        self,
        infos: Sequence[_AddressInfo],
        locals_: Sequence[_AddressInfo] | None,
        delay: float | None,
        all_errors: bool,
    ) -> socket.socket:
        """A socket connected to the first address that answers, one by one or racing (`delay`)."""
        failures: list[OSError] = []
        try:
            if delay is None:
                for info in infos:
                    try:
                        return await self._connect_one(failures, info, locals_)
                    except OSError:
                        continue
            else:
                attempts = [
                    lambda info=info: self._connect_one(failures, info, locals_) for info in infos
                ]
                race: Any = staggered.staggered_race
                sock: socket.socket | None = (await race(attempts, delay, loop=self))[0]
                if sock is not None:
                    return sock
            raise _combined(failures, all_errors)
        finally:
            failures = []

    @since(ssl_shutdown_timeout=(3, 11), all_errors=(3, 12))
    async def create_connection(
        self,
        protocol_factory: Callable[[], _Protocol],
        host: str | None = None,
        port: int | str | None = None,
        *,
        ssl: _SSL = None,
        family: int = 0,
        proto: int = 0,
        flags: int = 0,
        sock: socket.socket | None = None,
        local_addr: tuple[Any, ...] | None = None,
        server_hostname: str | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
        happy_eyeballs_delay: float | None = None,
        interleave: int | None = None,
        all_errors: bool = False,
    ) -> tuple[asyncio.Transport, _Protocol]:
        """Open a stream to (host, port), or over a connected `sock`; return (transport, protocol).

        As :meth:`asyncio.loop.create_connection`. Times are in seconds. Raises ValueError or
        TypeError for arguments that do not go together, :exc:`socket.gaierror`, OSError when no
        address answers (an ExceptionGroup of them all with `all_errors`), :exc:`ssl.SSLError`.
        """
        server_hostname = _name_of_server(ssl, host, server_hostname)
        check_timeouts(ssl, ssl_handshake_timeout, ssl_shutdown_timeout)
        neither = "host and port was not specified and no sock specified"
        _check_one_given(host, port, sock, neither)
        given = sock is not None
        if sock is None:
            infos: Sequence[_AddressInfo] | None = None
            if host is not None:  # the usual literal: without a coroutine
                infos = self._resolve_literal(host, port, family, socket.SOCK_STREAM, proto, flags)
            if not infos:
                infos = await self._resolve((host, port), socket.SOCK_STREAM, family, proto, flags)
            single = len(infos) == 1 and local_addr is None and not all_errors
            opening = None
            if single and not ssl and _connects_as_ever(self):
                opening = self._connect_stream(protocol_factory, infos[0])
            if opening is not None:
                made = await opening
            elif single:
                sock = await self._connect_one([], infos[0], None)
            else:
                locals_ = None
                if local_addr is not None:
                    locals_ = await self._resolve(
                        local_addr, socket.SOCK_STREAM, family, proto, flags
                    )
                if interleave is None and happy_eyeballs_delay is not None:
                    interleave = 1
                if interleave:
                    infos = _interleave(infos, interleave)
                sock = await self._connect_any(infos, locals_, happy_eyeballs_delay, all_errors)
        if sock is not None:
            made = await self._open_stream(
                sock,
                protocol_factory,
                ssl,
                given=given,
                server_hostname=server_hostname,
                handshake_timeout=ssl_handshake_timeout,
                shutdown_timeout=ssl_shutdown_timeout,
            )
        if self.get_debug():
            _log_connected(host, port, *made)
        return made

    async def _open_stream(
        self,
        sock: socket.socket,
        protocol_factory: Callable[[], _Protocol],
        tls: _SSL,
        *,
        given: bool,
        **tls_options: Any,
    ) -> tuple[asyncio.Transport, _Protocol]:
        """Transport and protocol over a connected socket, once the protocol has been told."""
        waiter: asyncio.Future[None] = self.create_future()
        try:
            sock.setblocking(False)
            protocol = protocol_factory()
            if tls:
                context = None if isinstance(tls, bool) else tls
                transport = self._tls_transport(sock, protocol, context, waiter, **tls_options)
            else:
                transport = self._stream_transport(sock, protocol, waiter)
        except BaseException:
            if not given:  # the caller's own stays the caller's
                sock.close()
            raise
        try:
            await waiter
        except BaseException:
            transport.close()
            raise
        finally:
            del waiter  # its exception holds this frame
        return transport, protocol

    @since(ssl_shutdown_timeout=(3, 11))
    async def connect_accepted_socket(
        self,
        protocol_factory: Callable[[], _Protocol],
        sock: socket.socket,
        *,
        ssl: _SSL = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
    ) -> tuple[asyncio.Transport, _Protocol]:
        """Serve a connection that was accepted elsewhere; return (transport, protocol).

        As :meth:`asyncio.loop.connect_accepted_socket`. Raises ValueError when `sock` is no stream
        socket or a TLS timeout comes without `ssl`, TypeError for a TLS socket.
        """
        _check_stream(sock)
        check_timeouts(ssl, ssl_handshake_timeout, ssl_shutdown_timeout)
        refuse_tls_socket(sock)
        transport, protocol = await self._open_stream(
            sock,
            protocol_factory,
            ssl,
            given=True,
            server_side=True,
            server_hostname="",
            handshake_timeout=ssl_handshake_timeout,
            shutdown_timeout=ssl_shutdown_timeout,
        )
        if self.get_debug():
            view = transport.get_extra_info("socket")
            logger.debug("%r handled: (%r, %r)", view, transport, protocol)
        return transport, protocol

    # -- listening ---------------------------------------------------------------------------

    @since(ssl_shutdown_timeout=(3, 11), keep_alive=(3, 13))
    async def create_server(
        self,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        host: str | Iterable[str | None] | None = None,
        port: int | str | None = None,
        *,
        family: int = socket.AF_UNSPEC,
        flags: int = socket.AI_PASSIVE,
        sock: socket.socket | None = None,
        backlog: int = 100,
        ssl: ssl_module.SSLContext | None = None,
        reuse_address: bool | None = None,
        reuse_port: bool | None = None,
        keep_alive: bool | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
        start_serving: bool = True,
    ) -> Server:
        """Listen on `port` of each `host` (None: everywhere), or on a bound `sock`.

        As :meth:`asyncio.loop.create_server`. Raises ValueError or TypeError for arguments that do
        not go together, :exc:`socket.gaierror`, OSError when an address cannot be bound.
        """
        if isinstance(ssl, bool):
            raise TypeError("ssl argument must be an SSLContext or None")
        check_timeouts(ssl is not None, ssl_handshake_timeout, ssl_shutdown_timeout)
        _check_one_given(host, port, sock, "Neither host/port nor sock were specified")
        if sock is not None:
            sockets = [sock]
        else:
            if reuse_address is None:
                reuse_address = os.name == "posix" and sys.platform != "cygwin"
            found = await asyncio.gather(
                *(
                    self._resolve((each, port), socket.SOCK_STREAM, family, 0, flags)
                    for each in _hosts_to_serve(host)
                )
            )
            sockets = self._bind_all(
                list(dict.fromkeys(itertools.chain.from_iterable(found))),
                reuse_address,
                bool(reuse_port),
                bool(keep_alive),
            )
        for listener in sockets:
            listener.setblocking(False)
        server = Server(
            self,
            sockets,
            protocol_factory,
            ssl,
            backlog,
            ssl_handshake_timeout,
            ssl_shutdown_timeout,
        )
        if start_serving:
            server._start_serving()
            await asyncio.sleep(0)
        if self.get_debug():
            logger.info("%r is serving", server)
        return server

    def _bind_all(
        self,
        infos: Sequence[_AddressInfo],
        reuse_address: bool,
        reuse_port: bool,
        keep_alive: bool,
    ) -> list[socket.socket]:
        """A bound socket for each address. Raises OSError, and leaves none open then."""
        sockets: list[socket.socket] = []
        try:
            for family, type_, proto, _, address in infos:
                try:
                    sock = _stream_socket(family, type_, proto)
                except OSError:  # a family that this machine does not speak
                    if self.get_debug():
                        logger.warning(
                            "create_server() failed to create socket.socket(%r, %r, %r)",
                            family,
                            type_,
                            proto,
                            exc_info=True,
                        )
                    continue
                sockets.append(sock)
                if reuse_address:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, True)
                if reuse_port and family in (socket.AF_INET, socket.AF_INET6):
                    set_reuse_port(sock)
                if keep_alive:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, True)
                if family == socket.AF_INET6:
                    # IPv4 has a listener of its own.
                    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, True)
                try:
                    sock.bind(address)
                except OSError as error:
                    if error.errno == errno.EADDRNOTAVAIL and _SKIPS_UNAVAILABLE:
                        sockets.pop().close()
                        if self.get_debug():
                            logger.warning(_bind_failure(error, address).strerror)
                        continue
                    raise _bind_failure(error, address) from None
            if not sockets and _SKIPS_UNAVAILABLE:
                raise OSError(f"could not bind on any address out of {[i[4] for i in infos]!r}")
        except BaseException:
            for sock in sockets:
                sock.close()
            raise
        return sockets
