"""uvloop's own tests pass with our package in the place of uvloop.

They are read from its source distribution, fetched from the package index for the run and stored
nowhere. Each module is one test here; what is left out is named with its reason.
"""

from __future__ import annotations

import fnmatch
import os
import pathlib
import re
import subprocess
import sys
import tarfile

import pytest

from .conftest import _loop, _option
from .pool import Pool

VERSION = "0.23.0"
MODULES = (
    "test_aiohttp",
    "test_base",
    "test_context",
    "test_dealloc",
    "test_dns",
    "test_executors",
    "test_pipes",
    "test_process",
    "test_process_spawning",
    "test_regr1",
    "test_runner",
    "test_signals",
    "test_sockets",
    "test_tcp",
    "test_udp",
    "test_unix",
)
#: Modules that are not about the loop's behaviour.
LEFT_OUT = {
    "test_cython": "calls a coroutine compiled into uvloop's extension",
    "test_fs_event": "a private method of uvloop's loop; uvloop_clone.ffi has the public way",
    "test_libuv_api": "capsules of uvloop's extension; uvloop_clone.ffi has the public way",
    "test_sourcecode": "style and type checks of uvloop's sources",
    "test_testbase": "tests uvloop's test helpers",
}
_KEPT_OPEN = "uvloop keeps a socket open that its owner has closed; asyncio does not, nor do we"
#: Single tests, as module::Class::method patterns.
EXCEPTIONS: dict[str, str] = {
    "test_base::TestBaseUV::test_thread_name_prefix_in_default_executor": (
        "the threads are named as asyncio names them"
    ),
    "test_process::Test_UV_Process::test_process_double_close": (
        "takes the pipes of a process from a mock of a function that we do not call"
    ),
    "test_process::Test_UV_Process_Delayed::test_process_delayed_stdio__paused__*": (
        "a private keyword of uvloop's, for its own tests"
    ),
    "test_runner::TestSourceCode::test_uvloop_run_2": (
        "run() takes any loop_factory, as asyncio.run() does; the refusal names uvloop"
    ),
    "test_signals::Test_UV_Signals::test_signals_no_SIGCHLD": (
        "processes are reaped without SIGCHLD: its handler is free, as in asyncio"
    ),
    "test_sockets::TestUVSockets::test_pseudosocket": (
        "get_extra_info('socket') is asyncio's TransportSocket, with its repr"
    ),
    "test_sockets::TestUVSockets::test_socket_close_loop_and_close": _KEPT_OPEN,
    "test_sockets::TestUVSockets::test_socket_recv_and_close": _KEPT_OPEN,
    "test_sockets::TestUVSockets::test_socket_recv_into_and_close": _KEPT_OPEN,
    "test_sockets::TestUVSockets::test_socket_sync_remove": (
        "asks for the epoll descriptor through a private method of uvloop's"
    ),
    "test_tcp::Test_UV_TCP::test_create_server_buffered_2": (
        "connection_lost() is given what get_buffer() raised, as in asyncio; uvloop wraps it"
    ),
    "test_tcp::Test_UV_TCP::test_tcp_handle_abort_in_connection_made": (
        "get_extra_info('socket') outlives the connection, as in asyncio"
    ),
    "test_udp::Test_UV_UDP::test_udp_sendto_dns": ("sendto() takes host names, as in asyncio"),
    "test_tcp::Test_UV_TCPSSL::test_flush_before_shutdown": (
        "reaches for uvloop's own TLS protocol object through get_extra_info()"
    ),
    "test_tcp::Test_UV_TCPSSL::test_shutdown_timeout_handler_not_set": (
        "what came before the peer's end waits for resume_reading(), as CPython's test of the same "
        "name has it; uvloop drops it"
    ),
}
if sys.version_info >= (3, 11):  # the keyword is gone from asyncio
    EXCEPTIONS["test_udp::Test_UV_UDP::test_create_datagram_endpoint_reuse_address_*"] = (
        "a keyword that asyncio has no more"
    )
if sys.version_info >= (3, 13):
    EXCEPTIONS["test_udp::Test_UV_UDP::test_create_datagram_endpoint_wrong_sock"] = (
        "the refusal reads as asyncio's does since 3.13"
    )
if (3, 13) <= sys.version_info < (3, 13, 3):
    EXCEPTIONS["test_base::TestBaseUV::test_loop_create_task_eager_start"] = (
        "a keyword that asyncio's create_task() refuses before 3.13.3"
    )
if sys.version_info >= (3, 14):
    EXCEPTIONS["test_base::TestBaseUV::test_set_task_name"] = (
        "the name goes to the task factory, as in asyncio since 3.14; uvloop calls set_name()"
    )


def _matches(test, table):
    return any(fnmatch.fnmatchcase(test, pattern) for pattern in table)


pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """The unpacked source distribution; a skip where the package index cannot be reached."""
    folder = tmp_path_factory.mktemp("uvloop")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--no-binary", "uvloop", f"uvloop=={VERSION}", "--dest", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    archives = list(folder.glob("*.tar.gz"))
    if done.returncode or not archives:
        pytest.skip(f"uvloop's source cannot be fetched: {done.stderr.strip()[-300:]}")
    with tarfile.open(archives[0]) as archive:
        if hasattr(tarfile, "data_filter"):
            archive.extractall(folder, filter="data")
        else:
            archive.extractall(folder)
    return next(path for path in folder.iterdir() if path.is_dir())


@pytest.fixture(scope="module")
def suite(source, request):
    """A worker that has uvloop's tests loaded and all of them queued."""
    config = request.config
    jobs = _option(config, "conformance_jobs", (os.cpu_count() or 1) + 1)
    pool = Pool(_loop(config), jobs, 60, "--uvloop-source", str(source))
    pool.submit(test for test in pool.plan["tests"] if _module(test) in MODULES)
    yield pool
    pool.close()


#: What may fail or pass, as the timing has it.
RACES: dict[str, str] = {}
if sys.version_info < (3, 12):
    RACES["test_unix::Test_UV_Unix::test_epollhup"] = (
        "wait_closed() does not wait for connections before 3.12, as in asyncio: the test may look "
        "before connection_lost()"
    )


def _module(test):
    return test.partition("::")[0]


def test_every_module_is_known(source):
    found = {path.stem for path in pathlib.Path(source, "tests").glob("test_*.py")}
    assert found == {*MODULES, *LEFT_OUT}


@pytest.mark.parametrize("module", MODULES)
def test_module(suite, module):
    reason = suite.plan["broken"].get(module, "")
    if reason.startswith("skipped: "):
        pytest.skip(reason)
    missing = re.search(r"ModuleNotFoundError: No module named '(OpenSSL|psutil)", reason)
    if missing:
        pytest.skip(f"the module needs {missing[1]}, which is not installed")
    assert not reason
    tests = [test for test in suite.plan["tests"] if _module(test) == module]
    assert tests
    bad, passed, loops = [], 0, 0
    for test in tests:
        result = suite.result(test)
        listed = _matches(test, EXCEPTIONS)
        passed += result["outcome"] == "passed"
        loops += result["loops"].get("ours", 0)
        if result["outcome"] == "failed" and not listed and test not in RACES:
            bad.append(f"{test}\n{result['detail']}\n{result['output']}")
        elif result["outcome"] == "passed" and listed:
            bad.append(f"{test}: listed as an exception, yet it passes")
    assert not bad, f"{len(bad)} of {len(tests)} failed:\n\n" + "\n".join(bad)
    if not passed:
        pytest.skip(f"all {len(tests)} tests were skipped")
    assert loops or module == "test_process_spawning", "no loop of ours was made"
