"""What the tests share: loops by name, connected sockets, recording protocols, child processes."""

from __future__ import annotations

import asyncio
import asyncio.selector_events
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time

KINDS = ("asyncio", "uvloop_clone")
FOLDER = os.path.dirname(os.path.abspath(__file__))

# Before 3.11.4 asyncio's datagram transports and pipes cannot, and none can before its start.
PAUSES_ANYWHERE = "pause_reading" in vars(asyncio.selector_events._SelectorTransport)


def make_loop(kind):
    """A new loop of the named kind; the caller closes it."""
    if kind == "asyncio":
        return asyncio.SelectorEventLoop()
    import uvloop_clone

    return uvloop_clone.new_event_loop()


def open_fds():
    """The open descriptors of this process, as (number, target) pairs where /proc tells them."""
    if not os.path.isdir("/proc/self/fd"):
        return {(fd, "") for fd in map(int, os.listdir("/dev/fd"))}
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            found.add((int(name), os.readlink(f"/proc/self/fd/{name}")))
        except FileNotFoundError:  # the descriptor that listed the folder
            continue
    return found


def wait_until(condition, limit=10.0):
    """Poll `condition` (a plain callable) until it holds; whether it did within the limit."""
    end = time.monotonic() + limit
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True


async def until(condition, limit=10.0):
    """Let the loop run until `condition()` holds; AssertionError after `limit` seconds."""
    end = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < end, "the awaited condition never held"
        await asyncio.sleep(0.002)


def tcp_pair(blocking=False):
    """Two connected TCP sockets on 127.0.0.1."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        a = socket.create_connection(listener.getsockname())
        b, _ = listener.accept()
    a.setblocking(blocking)
    b.setblocking(blocking)
    return a, b


def free_port():
    """A TCP port of 127.0.0.1 on which nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def in_thread(function, *args, limit=30):
    """Run `function` in another thread; its result, or the exception it raised."""
    box = []

    def target():
        try:
            box.append((function(*args), None))
        except BaseException as exc:
            box.append((None, exc))

    thread = threading.Thread(target=target)
    thread.start()
    thread.join(limit)
    assert box, "the thread did not finish"
    result, exc = box[0]
    if exc is not None:
        raise exc
    return result


class Recorder(asyncio.Protocol):
    """Keeps what happens to it: `events` in order, `data` received, two futures for the ends."""

    def __init__(self, keep_open=False):
        self.events = []
        self.data = bytearray()
        self.transport = None
        self.keep_open = keep_open
        loop = asyncio.get_running_loop()
        self.made = loop.create_future()
        self.lost = loop.create_future()

    def connection_made(self, transport):
        self.events.append("made")
        self.transport = transport
        self.made.set_result(transport)

    def data_received(self, data):
        assert type(data) is bytes
        self.events.append("data")
        self.data += data

    def eof_received(self):
        self.events.append("eof")
        return self.keep_open

    def pause_writing(self):
        self.events.append("pause")

    def resume_writing(self):
        self.events.append("resume")

    def connection_lost(self, exc):
        self.events.append("lost")
        self.lost.set_result(exc)


class BufferedRecorder(asyncio.BufferedProtocol):
    """The same for the BufferedProtocol interface."""

    def __init__(self, size=1024, keep_open=False):
        self.events = []
        self.data = bytearray()
        self.hints = []
        self.buffer = bytearray(size)
        self.transport = None
        self.keep_open = keep_open
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport):
        self.events.append("made")
        self.transport = transport

    def get_buffer(self, sizehint):
        self.hints.append(sizehint)
        return self.buffer

    def buffer_updated(self, nbytes):
        self.events.append("data")
        self.data += self.buffer[:nbytes]

    def eof_received(self):
        self.events.append("eof")
        return self.keep_open

    def connection_lost(self, exc):
        self.events.append("lost")
        self.lost.set_result(exc)


async def attach(sock, factory=Recorder):
    """Give a connected socket to a new transport of the running loop: (transport, protocol)."""
    return await asyncio.get_running_loop().create_connection(factory, sock=sock)


async def read_exactly(sock, count):
    """`count` bytes from a plain non-blocking socket, through the running loop."""
    loop = asyncio.get_running_loop()
    data = bytearray()
    while len(data) < count:
        chunk = await loop.sock_recv(sock, min(count - len(data), 1 << 18))
        assert chunk, f"end of stream after {len(data)} of {count} bytes"
        data += chunk
    return bytes(data)


async def read_to_end(sock):
    """Everything up to the end of the stream."""
    loop = asyncio.get_running_loop()
    data = bytearray()
    while chunk := await loop.sock_recv(sock, 1 << 18):
        data += chunk
    return bytes(data)


SCRIPT_HEAD = """\
import asyncio, os, signal, sys, threading, time
sys.path.insert(0, {folder!r})
from support import make_loop
KIND = {kind!r}
"""


def script_text(kind, code):
    """The child's program: `code` below a head that gives it make_loop and KIND."""
    head = SCRIPT_HEAD.format(folder=FOLDER, kind=kind)
    return head + textwrap.dedent(code)


def run_script(kind, code, *flags, limit=60, env=None):
    """Run `code` in a fresh Python; the CompletedProcess with text output."""
    return subprocess.run(
        [sys.executable, *flags, "-c", script_text(kind, code)],
        capture_output=True,
        text=True,
        timeout=limit,
        env={**os.environ, **(env or {})},
        cwd=FOLDER,  # not the checkout, whose sources would hide the installed package
    )


def interrupt_script(kind, code, signum=signal.SIGINT, limit=60):
    """Run `code`, send it `signum` as soon as it prints "ready".

    Returns (exit status, rest of the output, errors, seconds from the signal to its end).
    """
    child = subprocess.Popen(
        [sys.executable, "-u", "-c", script_text(kind, code)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        cwd=FOLDER,
    )
    try:
        line = child.stdout.readline()
        assert line.strip() == "ready", (line, child.stderr.read())
        time.sleep(0.2)  # "ready" comes a moment before the child begins to wait
        begin = time.monotonic()
        child.send_signal(signum)
        out, err = child.communicate(timeout=limit)
        return child.returncode, out, err, time.monotonic() - begin
    finally:
        if child.poll() is None:
            child.kill()
            child.communicate()
