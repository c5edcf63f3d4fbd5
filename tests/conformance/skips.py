"""Tests of CPython that no loop but asyncio's own can pass, each with its reason.

A pattern names ``module::Class::method`` in shell style. The table holds twenty tests at most and
none for what our loop merely lacks.
"""

from __future__ import annotations

import sys

_SOCKET = "puts a mock in the place of the socket module inside asyncio's own loop"
_TURN = "counts calls of BaseEventLoop._run_once, a private method, by replacing it"

_SERVER = "counts a connection through the private Server._attach()"

SKIPS: dict[str, str] = {
    "test_events::EventLoopTests::test_create_server_multiple_hosts_ipv4": _SOCKET,
    "test_events::EventLoopTests::test_create_server_multiple_hosts_ipv6": _SOCKET,
    "test_events::EventLoopTests::test_timeout_rounding": _TURN,
    "test_ssl::TestSSL::test_remote_shutdown_receives_trailing_data_on_slow_socket": (
        "replaces the private socket and write method of asyncio's selector transport"
    ),
    "test_sslproto::SslProtoHandshakeTests::test_connection_lost_when_busy": (
        "calls the private BaseSelectorEventLoop._make_socket_transport with a mock of a socket"
    ),
    "test_sslproto::*::test_create_connection_ssl_failed_certificate_no_cycles": (
        "replaces a method of asyncio.sslproto.SSLProtocol to get at its transport"
    ),
    "test_tasks::CoroutineGatherTests::test_issue46672": (
        "replaces a method of asyncio.base_events.BaseEventLoop and asks the loop whether it is it"
    ),
    "test_unix_events::SelectorEventLoopUnixSocketTests::test_create_unix_server_bind_error": (
        "puts a mock in the place of the socket module inside asyncio.unix_events"
    ),
}

if sys.version_info[:2] == (3, 12):  # later ones open a connection instead
    SKIPS["test_server::TestServer2::test_wait_closed_basic"] = _SERVER
    SKIPS["test_server::TestServer2::test_wait_closed_race"] = _SERVER

#: Tests that pass without a loop of ours, by their own design.
OTHER_LOOPS: dict[str, str] = {}
