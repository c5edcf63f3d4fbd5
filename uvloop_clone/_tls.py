"""TLS: the one place where its transports are made, and which engine serves them.

The work per packet is in C (csrc/tls/). Its direct engine calls OpenSSL on the objects of the `ssl`
module; whether that is possible is found out once, with the first TLS connection.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import threading
from asyncio import constants
from typing import Any

from . import _core
from ._signatures import since

__all__ = ("TLSMixin", "refuse_tls_socket")

_SHUTDOWN_TIMEOUT: float = getattr(constants, "SSL_SHUTDOWN_TIMEOUT", 30.0)  # 3.10 has none


def refuse_tls_socket(sock: socket.socket) -> None:
    """Raise TypeError for a socket that is wrapped in TLS already."""
    if isinstance(sock, ssl.SSLSocket):
        raise TypeError("Socket cannot be of type SSLSocket")


def _anonymous(protocol: int) -> ssl.SSLContext:
    """A context whose handshake needs no certificate: never used but in memory."""
    context = ssl.SSLContext(protocol)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("aNULL:@SECLEVEL=0")
    return context


class Engine:
    """Which engine serves new connections; `reason` says why it is not the direct one.

    The environment variable UVLOOP_CLONE_TLS=portable keeps the direct engine away.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.name: str | None = None
        self.reason: str | None = None

    def choose(self, loop: _core.Loop, wanted: str | None = None) -> str:
        """Settle on an engine; 'direct' or 'portable', as `wanted` where that is possible."""
        with self._lock:
            if self.name is None or wanted is not None:
                wanted = wanted or os.environ.get("UVLOOP_CLONE_TLS", "direct")
                self.reason = self._prove(loop) if wanted == "direct" else "it is not wanted"
                if self.reason is not None:
                    loop._forget_openssl()
                self.name = "portable" if self.reason is not None else "direct"
            return self.name

    @staticmethod
    def _prove(loop: _core.Loop) -> str | None:
        module: Any = __import__("_ssl")
        path = getattr(module, "__file__", None)
        if path is None:
            return "the ssl module is part of the interpreter"
        if not ssl.OPENSSL_VERSION.startswith("OpenSSL "):
            return f"{ssl.OPENSSL_VERSION} is not OpenSSL"
        if not (1, 1, 1) <= ssl.OPENSSL_VERSION_INFO[:3] < (4,):
            return f"{ssl.OPENSSL_VERSION} is not known"
        try:
            client = _anonymous(ssl.PROTOCOL_TLS_CLIENT)
            server = _anonymous(ssl.PROTOCOL_TLS_SERVER)
            return loop._prove_openssl(path, ssl.OPENSSL_VERSION_NUMBER, client, server)
        except (ssl.SSLError, ValueError) as exc:
            return f"the trial connection failed: {exc}"


engine = Engine()


class TLSMixin(_core.Loop):
    """TLS between a stream transport and a protocol."""

    def _tls_protocol(
        self,
        protocol: asyncio.BaseProtocol,
        context: ssl.SSLContext | None,
        waiter: asyncio.Future[None] | None,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
        handshake_timeout: float | None = None,
        shutdown_timeout: float | None = None,
        call_connection_made: bool = True,
    ) -> _core.SSLProtocol:
        """The protocol that stands between the stream transport and `protocol`.

        Raises ValueError when a timeout is not positive, or a server has no context.
        """
        if handshake_timeout is None:
            handshake_timeout = constants.SSL_HANDSHAKE_TIMEOUT
        elif handshake_timeout <= 0:
            raise ValueError(
                f"ssl_handshake_timeout should be a positive number, got {handshake_timeout}"
            )
        if shutdown_timeout is None:
            shutdown_timeout = _SHUTDOWN_TIMEOUT
        elif shutdown_timeout <= 0:
            raise ValueError(
                f"ssl_shutdown_timeout should be a positive number, got {shutdown_timeout}"
            )
        if not context:
            if server_side:
                raise ValueError("Server side SSL needs a valid SSLContext")
            context = ssl.create_default_context()
            if not server_hostname:
                context.check_hostname = False
        if engine.name is None:
            engine.choose(self)
        return self._make_tls(
            protocol,
            context,
            waiter,
            server_side,
            server_hostname if server_hostname and not server_side else None,
            handshake_timeout,
            shutdown_timeout,
            call_connection_made,
        )

    def _tls_transport(
        self,
        sock: socket.socket,
        protocol: asyncio.BaseProtocol,
        context: ssl.SSLContext | None,
        waiter: asyncio.Future[None] | None,
        **options: Any,
    ) -> asyncio.Transport:
        """A TLS transport over the connected `sock`; `options` as of :meth:`_tls_protocol`."""
        tls = self._tls_protocol(protocol, context, waiter, **options)
        transport = tls._app_transport
        assert transport is not None  # it has not begun
        self._stream_transport(sock, tls)
        return transport

    @since(ssl_shutdown_timeout=(3, 11))
    async def start_tls(
        self,
        transport: asyncio.BaseTransport,
        protocol: asyncio.BaseProtocol,
        sslcontext: ssl.SSLContext,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
    ) -> asyncio.Transport | None:
        """Put TLS on an open transport; return the transport that `protocol` is to use from now on.

        Raises TypeError when `sslcontext` is no SSLContext or the transport cannot carry TLS,
        ValueError for a timeout that is not positive, and :exc:`ssl.SSLError`, OSError or
        TimeoutError when the handshake fails; the transport is closed then.
        """
        if not isinstance(sslcontext, ssl.SSLContext):
            raise TypeError(
                f"sslcontext is expected to be an instance of ssl.SSLContext, got {sslcontext!r}"
            )
        if not getattr(transport, "_start_tls_compatible", False):
            raise TypeError(f"transport {transport!r} is not supported by start_tls()")
        stream: Any = transport
        waiter: asyncio.Future[None] = self.create_future()
        tls = self._tls_protocol(
            protocol,
            sslcontext,
            waiter,
            server_side=server_side,
            server_hostname=server_hostname,
            handshake_timeout=ssl_handshake_timeout,
            shutdown_timeout=ssl_shutdown_timeout,
            call_connection_made=False,
        )
        # Nothing may arrive before the TLS protocol's connection_made.
        stream.pause_reading()
        if server_side:
            self._hand_over_unread(protocol, tls)
        stream.set_protocol(tls)
        made = self.call_soon(tls.connection_made, stream)
        resumed = self.call_soon(stream.resume_reading)
        try:
            await waiter
        except BaseException:
            stream.close()
            made.cancel()
            resumed.cancel()
            raise
        finally:
            del waiter  # its exception holds this frame
        return tls._app_transport

    @staticmethod
    def _hand_over_unread(protocol: asyncio.BaseProtocol, tls: _core.SSLProtocol) -> None:
        """A client's hello that a StreamReader has taken already belongs to the handshake."""
        if not isinstance(protocol, asyncio.StreamReaderProtocol):
            return
        unread = getattr(getattr(protocol, "_stream_reader", None), "_buffer", None)
        if unread:
            tls._feed_early(unread)
            unread.clear()
