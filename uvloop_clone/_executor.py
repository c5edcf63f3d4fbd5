"""Work that leaves the loop's thread: executors and name resolution."""

from __future__ import annotations

import asyncio
import concurrent.futures
import socket
import sys
import threading
import warnings
from asyncio.log import logger
from collections.abc import Callable

from . import _core
from ._signatures import since

TYPE_CHECKING = False  # asyncio does without typing on 3.15, and so do we
if TYPE_CHECKING:
    from typing import Any, TypeVar

    _T = TypeVar("_T")
    _AddressInfo = list[tuple[Any, Any, int, str, Any]]

__all__ = ("ExecutorMixin",)


_system_getaddrinfo = socket.getaddrinfo


def _settle(future: asyncio.Future[_T], result: _T) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[Any], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)


class ExecutorMixin(_core.Loop):
    """The default executor, and getaddrinfo and getnameinfo on it."""

    _default_executor: concurrent.futures.Executor | None = None
    _own_executor: Any = None  # that one, if the loop has made it
    _executor_shutdown_called = False

    def run_in_executor(
        self, executor: concurrent.futures.Executor | None, func: Callable[..., _T], *args: Any
    ) -> asyncio.Future[_T]:
        """Call ``func(*args)`` in `executor` (None: the default one); return a future.

        Raises RuntimeError on a closed loop, and when the default executor has been shut down.
        """
        self._check_closed()
        if self.get_debug():
            self._check_callback(func, "run_in_executor")
        if executor is None:
            if self._executor_shutdown_called:
                raise RuntimeError("Executor shutdown has been called")
            executor = self._default_executor
            if executor is None:
                from ._pool import DefaultExecutor  # not every program needs threads

                executor = self._default_executor = self._own_executor = DefaultExecutor(
                    self._handoff()
                )
        if isinstance(executor, concurrent.futures.ThreadPoolExecutor):
            from ._pool import has_plain_submit

            # Nobody looks at what is submitted, nor at its future.
            call = self._executor_call(func, args) if has_plain_submit(executor) else None
            if call is not None:  # None: the outcome is to come by replaced methods of the loop
                awaited = call.awaited
                if executor is not self._own_executor or not executor.take(call):
                    executor.submit(call).add_done_callback(call)
                return awaited
        loop: Any = self
        return asyncio.wrap_future(executor.submit(func, *args), loop=loop)

    def _executor_failed(
        self, future: asyncio.Future[Any], error: BaseException, raised: bool
    ) -> None:
        """Called by the core: the call has `raised` the `error`, or the pool refused it so."""
        if not raised and isinstance(error, concurrent.futures.CancelledError):
            future.cancel()  # the pool dropped its queue
        elif type(error) is concurrent.futures.CancelledError:
            future.set_exception(asyncio.CancelledError(*error.args))
        elif type(error) is concurrent.futures.InvalidStateError:
            future.set_exception(asyncio.InvalidStateError(*error.args))
        elif type(error) is concurrent.futures.TimeoutError:
            future.set_exception(asyncio.TimeoutError(*error.args))  # one class since 3.11
        else:
            future.set_exception(error)

    def set_default_executor(self, executor: concurrent.futures.Executor) -> None:
        """Make `executor` the one of ``run_in_executor(None, ...)``.

        Raises TypeError unless it is a ThreadPoolExecutor (Python 3.10 only warns).
        """
        if not isinstance(executor, concurrent.futures.ThreadPoolExecutor):
            if sys.version_info >= (3, 11):
                raise TypeError("executor must be ThreadPoolExecutor instance")
            warnings.warn(
                "a default executor that is no ThreadPoolExecutor is deprecated",
                DeprecationWarning,
                stacklevel=2,
            )
        self._default_executor = executor

    @since(timeout=(3, 12))
    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """Refuse further work for the default executor and wait until its threads have ended.

        `timeout`: seconds to wait; then a RuntimeWarning is given and the threads are left alone.
        """
        self._executor_shutdown_called = True
        executor = self._default_executor
        if executor is None:
            return
        ended: asyncio.Future[bool] = self.create_future()
        timer = None if timeout is None else self.call_later(timeout, _settle, ended, False)
        thread = threading.Thread(target=self._shut_executor, args=(executor, ended))
        thread.start()
        try:
            in_time = await ended
        finally:
            if timer is not None:
                timer.cancel()
        if in_time:
            thread.join()
        else:
            warnings.warn(
                f"The executor did not finishing joining its threads within {timeout} seconds.",
                RuntimeWarning,
                stacklevel=2,
            )
            executor.shutdown(wait=False)

    def _shut_executor(
        self, executor: concurrent.futures.Executor, ended: asyncio.Future[bool]
    ) -> None:
        """In a thread of its own: wait for the executor's threads, then tell the loop."""
        try:
            executor.shutdown(wait=True)
        except Exception as error:
            report: tuple[Any, ...] = (_fail, ended, error)
        else:
            report = (_settle, ended, True)
        try:
            self.call_soon_threadsafe(*report)
        except RuntimeError:
            if not self.is_closed():
                raise

    def _on_close(self) -> None:
        """Called by close(): running work is left to end by itself."""
        self._executor_shutdown_called = True
        executor = self._default_executor
        if executor is not None:
            self._default_executor = self._own_executor = None
            executor.shutdown(wait=False)

    async def getaddrinfo(
        self,
        host: bytes | str | None,
        port: bytes | str | int | None,
        *,
        family: int = 0,
        type: int = 0,
        proto: int = 0,
        flags: int = 0,
    ) -> _AddressInfo:
        """As :func:`socket.getaddrinfo`; literals are answered at once, names in the executor.

        Raises :exc:`socket.gaierror`.
        """
        if self.get_debug():
            return await self.run_in_executor(
                None, self._getaddrinfo_timed, host, port, family, type, proto, flags
            )
        resolve = socket.getaddrinfo
        if resolve is _system_getaddrinfo:  # someone's replacement sees every address
            found = self._resolve_literal(host, port, family, type, proto, flags)
            if found is not None:
                return found
        return await self.run_in_executor(None, resolve, host, port, family, type, proto, flags)

    def _getaddrinfo_timed(
        self,
        host: bytes | str | None,
        port: bytes | str | int | None,
        family: int,
        type: int,
        proto: int,
        flags: int,
    ) -> _AddressInfo:
        """getaddrinfo of debug mode, in a worker thread: logs the question and the time."""
        asked = f"{host!s}:{port!r}"
        for name, value in (("family", family), ("type", type), ("proto", proto), ("flags", flags)):
            if value:
                asked += f", {name}={value!r}"
        logger.debug("Get address info %s", asked)
        start = self.time()
        found: _AddressInfo = socket.getaddrinfo(host, port, family, type, proto, flags)
        took = self.time() - start
        logger.log(
            20 if took >= self.slow_callback_duration else 10,
            "Getting address info %s took %.3fms: %r",
            asked,
            took * 1e3,
            found,
        )
        return found

    async def getnameinfo(self, sockaddr: tuple[Any, ...], flags: int = 0) -> tuple[str, str]:
        """As :func:`socket.getnameinfo`, in the default executor. Raises :exc:`socket.gaierror`."""
        return await self.run_in_executor(None, socket.getnameinfo, sockaddr, flags)
