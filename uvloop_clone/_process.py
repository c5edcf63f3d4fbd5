"""Child processes: subprocess_exec, subprocess_shell and the transport that they give.

subprocess.Popen starts the child, which honours every keyword it knows; the loop waits for its end
through a pidfd where the kernel has it, so that neither SIGCHLD nor a thread is needed and any
thread may run the loop. The standard streams are pipe transports of the core.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
import warnings
from asyncio.log import logger
from collections.abc import Callable
from typing import Any, TypeVar

from ._pipes import PipesMixin

__all__ = ("ProcessMixin", "SubprocessTransport")

_Protocol = TypeVar("_Protocol", bound=asyncio.SubprocessProtocol)

_pidfd_open: Callable[[int], int] | None = getattr(os, "pidfd_open", None)

# From 3.11 to 3.13 wait() goes on once the pipes are closed as well.
_WAITS_FOR_PIPES = (3, 11) <= sys.version_info < (3, 14)

_NAMES = ("stdin", "stdout", "stderr")


class _PipeProtocol(asyncio.Protocol):
    """Between the pipe transport of one standard stream and the process's own protocol."""

    def __init__(self, process: SubprocessTransport, fd: int) -> None:
        self.process: Any = process
        self.fd = fd
        self.pipe: Any = None
        self.disconnected = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.pipe = transport

    def data_received(self, data: bytes) -> None:
        self.process._call("pipe_data_received", self.fd, data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.disconnected = True
        self.process._pipe_connection_lost(self.fd, exc)
        self.process = None

    def pause_writing(self) -> None:
        self.process._protocol.pause_writing()

    def resume_writing(self) -> None:
        self.process._protocol.resume_writing()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} fd={self.fd} pipe={self.pipe!r}>"


class SubprocessTransport(asyncio.SubprocessTransport):
    """A child process and its pipes, as :class:`asyncio.SubprocessTransport`."""

    def __init__(self, loop: Any, protocol: asyncio.SubprocessProtocol, extra: Any) -> None:
        super().__init__(extra)
        self._loop = loop
        self._protocol: Any = protocol
        self._proc: Any = None
        self._pid: int | None = None
        self._pidfd = -1
        self._returncode: int | None = None
        self._closed = False
        self._connected = False
        self._finished = False
        self._pipes: dict[int, _PipeProtocol | None] = {}
        self._waiting: list[tuple[Any, ...]] = []  # calls from before connection_made
        self._exit_waiters: list[asyncio.Future[int]] = []

    # -- coming to life ----------------------------------------------------------------------

    def _start(self, args: Any, popen_options: dict[str, Any]) -> None:
        """Start the child; whatever Popen raises is raised here, and leaves nothing behind."""
        try:
            self._proc = subprocess.Popen(args, universal_newlines=False, **popen_options)
        except BaseException:
            self._closed = True
            raise
        self._pid = self._proc.pid
        self._set_extra("subprocess", self._proc)
        for fd, name in enumerate(_NAMES):
            if getattr(self._proc, name) is not None:
                self._pipes[fd] = None
        if self._loop.get_debug():
            program = args if isinstance(args, (str, bytes)) else args[0]
            logger.debug("process %r created: pid %s", program, self._pid)

    def _set_extra(self, name: str, value: object) -> None:
        extra: dict[str, Any] = self._extra  # type: ignore[attr-defined]
        extra[name] = value

    async def _connect(self) -> None:
        """Open the pipes' transports, and tell the protocol; over when it has been told."""
        loop = self._loop
        try:
            for fd in self._pipes:
                await self._connect_pipe(fd)
        except BaseException:
            # The protocol never hears of this child, whose end is awaited all the same.
            self._protocol = asyncio.SubprocessProtocol()
            self._waiting.clear()
            self._connected = True
            for fd in [fd for fd, pipe in self._pipes.items() if pipe is None]:
                getattr(self._proc, _NAMES[fd]).close()
                del self._pipes[fd]
            raise
        self._connected = True
        told = loop.create_future()
        loop.call_soon(self._protocol.connection_made, self)
        for call in self._waiting:
            loop.call_soon(*call)
        self._waiting.clear()
        loop.call_soon(_set_result, told)
        await told

    async def _connect_pipe(self, fd: int) -> None:
        loop = self._loop
        file = getattr(self._proc, _NAMES[fd])
        pipe = _PipeProtocol(self, fd)
        connect = loop.connect_write_pipe if fd == 0 else loop.connect_read_pipe
        if getattr(connect, "__func__", None) in _CONNECT:
            # What that method does, without waiting for each pipe on its own.
            make = loop._write_pipe_transport if fd == 0 else loop._read_pipe_transport
            pipe.pipe = make(file, pipe)
        else:
            await connect(lambda: pipe, file)
        self._pipes[fd] = pipe

    # -- the end of the child ----------------------------------------------------------------

    def _watch(self) -> None:
        """Have the loop notice the child's end."""
        assert self._pid is not None
        if _pidfd_open is not None:
            try:
                self._pidfd = _pidfd_open(self._pid)
            except OSError:  # an old kernel, a sandbox, or no descriptor left
                self._pidfd = -1
            else:
                self._loop.add_reader(self._pidfd, self._pidfd_ready)
                return
        threading.Thread(
            target=_wait_in_thread,
            args=(self._loop, self._pid, self._reap),
            name=f"uvloop_clone-waitpid-{self._pid}",
            daemon=True,
        ).start()

    def _pidfd_ready(self) -> None:
        self._loop.remove_reader(self._pidfd)
        self._close_pidfd()
        self._reap()

    def _close_pidfd(self) -> None:
        pidfd, self._pidfd = self._pidfd, -1
        if pidfd >= 0:
            os.close(pidfd)

    def _reap(self) -> None:
        """Fetch the exit status of the child, which has ended."""
        assert self._pid is not None
        returncode = self._proc.returncode  # the Popen object may have been asked
        if returncode is None:
            try:
                _, status = os.waitpid(self._pid, 0)
            except ChildProcessError:
                returncode = 255
                logger.warning(
                    "child process pid %d exit status already read:  will report returncode 255",
                    self._pid,
                )
            else:
                returncode = os.waitstatus_to_exitcode(status)
        self._process_exited(returncode)

    def _process_exited(self, returncode: int) -> None:
        if self._loop.get_debug():
            logger.info("%r exited with return code %r", self, returncode)
        self._returncode = returncode
        if self._proc.returncode is None:
            self._proc.returncode = returncode
        self._call("process_exited")
        if not _WAITS_FOR_PIPES:
            self._wake()
        self._try_finish()

    def _pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        self._call("pipe_connection_lost", fd, exc)
        self._try_finish()

    def _call(self, method: str, *args: object) -> None:
        """Have a method of the protocol called in the next turn."""
        call = (getattr(self._protocol, method), *args)
        if self._connected:
            self._loop.call_soon(*call)
        else:
            self._waiting.append(call)

    def _try_finish(self) -> None:
        if self._returncode is None or self._finished:
            return
        if all(pipe is not None and pipe.disconnected for pipe in self._pipes.values()):
            self._finished = True
            if self._connected:
                self._loop.call_soon(self._lose_connection)
            else:
                self._waiting.append((self._lose_connection,))

    def _lose_connection(self) -> None:
        try:
            self._protocol.connection_lost(None)
        finally:
            self._wake()
            self._loop = None
            self._proc = None
            self._protocol = None

    def _wake(self) -> None:
        waiters, self._exit_waiters = self._exit_waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(self._returncode)  # type: ignore[arg-type]

    async def _wait(self) -> int:
        """Wait for the child's end; its return code."""
        if self._returncode is None:
            waiter: asyncio.Future[int] = self._loop.create_future()
            self._exit_waiters.append(waiter)
            try:
                return await waiter
            finally:
                if waiter in self._exit_waiters:  # cancelled
                    self._exit_waiters.remove(waiter)
        return self._returncode

    # -- the transport's methods -------------------------------------------------------------

    def get_pid(self) -> int:
        """Return the child's process id."""
        return self._pid  # type: ignore[return-value]  # once it is started

    def get_returncode(self) -> int | None:
        """Return its exit status, negative for a signal; None while it runs."""
        return self._returncode

    def get_pipe_transport(self, fd: int) -> asyncio.BaseTransport | None:
        """Return the transport of the pipe to its descriptor 0, 1 or 2, or None."""
        pipe = self._pipes.get(fd)
        return None if pipe is None else pipe.pipe

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Switch to another protocol."""
        self._protocol = protocol

    def get_protocol(self) -> Any:
        """Return the protocol in force."""
        return self._protocol

    def is_closing(self) -> bool:
        """Return True after close()."""
        return self._closed

    def send_signal(self, signal: int) -> None:
        """Send a signal; ProcessLookupError once the connection is lost."""
        if self._proc is None:
            raise ProcessLookupError
        if self._returncode is None:
            with contextlib.suppress(ProcessLookupError):  # somebody else has reaped it
                os.kill(self._proc.pid, signal)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def close(self) -> None:
        """Close the pipes, and kill the child if it runs."""
        if self._closed:
            return
        self._closed = True
        loop = self._loop
        if loop is not None and not loop.is_closed():
            for pipe in self._pipes.values():
                if pipe is not None and pipe.pipe is not None:
                    pipe.pipe.close()
        if self._proc is None or self._returncode is not None or self._proc.poll() is not None:
            return
        if loop is not None and loop.get_debug():
            logger.warning("Close running child process: kill %r", self)
        # It may have ended just now, or run as another user.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            self._proc.kill()

    def __repr__(self) -> str:
        info = [f"uvloop_clone.{type(self).__name__}"]
        if self._closed:
            info.append("closed")
        if self._pid is None:
            info.append("not started")
        elif self._returncode is None:
            info.append(f"pid={self._pid} running")
        else:
            info.append(f"pid={self._pid} returncode={self._returncode}")
        for fd, pipe in self._pipes.items():
            if pipe is not None:
                info.append(f"{_NAMES[fd]}={pipe.pipe!r}")
        return f"<{' '.join(info)}>"

    def __del__(self, _warn: Callable[..., None] = warnings.warn) -> None:
        if not self._closed:
            _warn(f"unclosed transport {self!r}", ResourceWarning, source=self)
            self.close()
        self._close_pidfd()


def _set_result(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _wait_in_thread(loop: Any, pid: int, reap: Callable[[], None]) -> None:
    """Wait for the child without a pidfd; it stays to be reaped by the loop's own thread."""
    # Somebody else may have reaped it, which the loop finds out as well.
    with contextlib.suppress(ChildProcessError):
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    try:
        loop.call_soon_threadsafe(reap)
    except RuntimeError:
        logger.warning("Loop %r that handles pid %r is closed", loop, pid)


if sys.version_info < (3, 14):
    from asyncio import PidfdChildWatcher, ThreadedChildWatcher

    _OUR_WAY = (type(None), PidfdChildWatcher, ThreadedChildWatcher)

    def _child_watcher() -> Any:
        """The policy's child watcher, if it was given one that waits in another way than we do."""
        watcher: Any = getattr(asyncio.get_event_loop_policy(), "_watcher", None)
        return None if type(watcher) in _OUR_WAY else watcher

else:

    def _child_watcher() -> Any:
        """There are none any more."""
        return None


_CONNECT = (PipesMixin.connect_read_pipe, PipesMixin.connect_write_pipe)


class ProcessMixin(PipesMixin):
    """subprocess_exec and subprocess_shell."""

    async def subprocess_exec(
        self,
        protocol_factory: Callable[[], _Protocol],
        program: Any,
        *args: Any,
        stdin: Any = subprocess.PIPE,
        stdout: Any = subprocess.PIPE,
        stderr: Any = subprocess.PIPE,
        universal_newlines: bool = False,
        shell: bool = False,
        bufsize: int = 0,
        encoding: str | None = None,
        errors: str | None = None,
        text: bool | None = None,
        **kwargs: Any,
    ) -> tuple[asyncio.SubprocessTransport, _Protocol]:
        """Start `program` with `args`; return (transport, protocol).

        As :meth:`asyncio.loop.subprocess_exec`; `kwargs` are those of :class:`subprocess.Popen`.
        Raises ValueError for what asyncio does not support (text mode, buffers, a shell), and what
        Popen raises: OSError when the program cannot be started.
        """
        _check(universal_newlines, shell, False, bufsize, text, encoding, errors)
        protocol = protocol_factory()
        label = f"execute program {program!r}" if self.get_debug() else None
        options = dict(kwargs, shell=False, stdin=stdin, stdout=stdout, stderr=stderr, bufsize=0)
        return await self._subprocess(protocol, (program, *args), label, options), protocol

    async def subprocess_shell(
        self,
        protocol_factory: Callable[[], _Protocol],
        cmd: str | bytes,
        *,
        stdin: Any = subprocess.PIPE,
        stdout: Any = subprocess.PIPE,
        stderr: Any = subprocess.PIPE,
        universal_newlines: bool = False,
        shell: bool = True,
        bufsize: int = 0,
        encoding: str | None = None,
        errors: str | None = None,
        text: bool | None = None,
        **kwargs: Any,
    ) -> tuple[asyncio.SubprocessTransport, _Protocol]:
        """Have the shell run `cmd`; return (transport, protocol).

        As :meth:`asyncio.loop.subprocess_shell`, and otherwise as :meth:`subprocess_exec`.
        """
        if not isinstance(cmd, (bytes, str)):
            raise ValueError("cmd must be a string")
        _check(universal_newlines, shell, True, bufsize, text, encoding, errors)
        protocol = protocol_factory()
        label = f"run shell command {cmd!r}" if self.get_debug() else None
        options = dict(kwargs, shell=True, stdin=stdin, stdout=stdout, stderr=stderr, bufsize=0)
        return await self._subprocess(protocol, cmd, label, options), protocol

    async def _subprocess(
        self,
        protocol: asyncio.SubprocessProtocol,
        args: Any,
        label: str | None,
        options: dict[str, Any],
    ) -> SubprocessTransport:
        """Start the child and connect its pipes; `label` describes it in the debug log."""
        if label is not None:
            logger.debug("%s%s", label, _streams_text(options))
        watcher = _child_watcher()
        if watcher is None:
            transport = SubprocessTransport(self, protocol, options.pop("extra", None))
            transport._start(args, options)
            transport._watch()
        else:
            with watcher as entered:
                if sys.version_info < (3, 12):
                    watcher = entered
                if not watcher.is_active():
                    raise RuntimeError(
                        "asyncio.get_child_watcher() is not activated, "
                        "subprocess support is not installed."
                    )
                transport = SubprocessTransport(self, protocol, options.pop("extra", None))
                transport._start(args, options)
                watcher.add_child_handler(transport._pid, self._child_exited, transport)
        try:
            await transport._connect()
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException:
            transport.close()
            await transport._wait()
            raise
        if label is not None:
            logger.info("%s: %r", label, transport)
        return transport

    def _child_exited(self, pid: int, returncode: int, transport: SubprocessTransport) -> None:
        """Called by a child watcher, in any thread."""
        self.call_soon_threadsafe(transport._process_exited, returncode)


def _check(
    universal_newlines: object,
    shell: object,
    wants_shell: bool,
    bufsize: int,
    text: object,
    encoding: object,
    errors: object,
) -> None:
    """Raise ValueError for what asyncio refuses."""
    if universal_newlines:
        raise ValueError("universal_newlines must be False")
    if bool(shell) is not wants_shell:
        raise ValueError(f"shell must be {wants_shell}")
    if bufsize != 0:
        raise ValueError("bufsize must be 0")
    if text:
        raise ValueError("text must be False")
    if encoding is not None:
        raise ValueError("encoding must be None")
    if errors is not None:
        raise ValueError("errors must be None")


def _streams_text(options: dict[str, Any]) -> str:
    """The three standard streams, for the debug log."""
    texts: list[str] = []
    for name in _NAMES:
        value = options[name]
        if name == "stdout" and value is not None and options["stderr"] == subprocess.STDOUT:
            name = "stdout=stderr"
        elif name == "stderr" and texts and texts[-1].startswith(" stdout=stderr="):
            continue
        if value is not None:
            text = {subprocess.PIPE: "<pipe>", subprocess.STDOUT: "<stdout>"}.get(value)
            texts.append(f" {name}={text or repr(value)}")
    return "".join(texts)
