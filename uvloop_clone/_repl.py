"""The REPL of ``python -m uvloop_clone``: statements may await, on one loop of ours."""

from __future__ import annotations

import ast
import asyncio
import code
import concurrent.futures
import contextvars
import inspect
import os
import site
import sys
import threading
import types
import warnings
from typing import Any

from .loop import Loop, new_event_loop

__all__ = ("repl",)


class _Console(code.InteractiveConsole):
    """Reads and compiles in a thread of its own; what it compiles runs in the loop's thread."""

    def __init__(self, names: dict[str, Any], loop: Loop) -> None:
        super().__init__(names, filename="<stdin>")
        self.compile.compiler.flags |= ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        self.loop = loop
        self.context = contextvars.copy_context()
        self.status: Any = 0
        self.awaited: asyncio.Future[Any] | None = None
        self.interrupted = False

    def runcode(self, code: types.CodeType) -> None:
        """Run one statement on the loop and wait for its end."""
        ended: concurrent.futures.Future[Any] = concurrent.futures.Future()
        self.loop.call_soon_threadsafe(self._start, code, ended, context=self.context)
        error = ended.exception()
        if isinstance(error, SystemExit):
            self._leave(error)
        elif error is not None:
            if self.interrupted:
                self.write("\nKeyboardInterrupt\n")
                return
            try:
                raise error
            except BaseException:
                self.showtraceback()  # without this frame

    def _start(self, code: types.CodeType, ended: concurrent.futures.Future[Any]) -> None:
        """In the loop's thread: run the statement, or make its coroutine a task."""
        self.awaited = None
        self.interrupted = False
        try:
            result = types.FunctionType(code, self.locals)()
            if not inspect.iscoroutine(result):
                ended.set_result(result)
                return
            if sys.version_info >= (3, 11):
                self.awaited = self.loop.create_task(result, context=self.context)
            else:
                self.awaited = self.loop.create_task(result)
        except BaseException as error:
            self.interrupted = isinstance(error, KeyboardInterrupt)
            user_frames = error.__traceback__ and error.__traceback__.tb_next
            ended.set_exception(error.with_traceback(user_frames))
        else:
            self.awaited.add_done_callback(lambda task: self._pass_on(task, ended))

    @staticmethod
    def _pass_on(task: asyncio.Future[Any], ended: concurrent.futures.Future[Any]) -> None:
        if task.cancelled():
            ended.set_exception(asyncio.CancelledError())
            return
        error = task.exception()
        if error is not None:
            ended.set_exception(error)
        else:
            ended.set_result(task.result())

    def interrupt(self) -> None:
        """Ctrl-C has left the loop: the statement that is awaited ends with it."""
        self.interrupted = True
        if self.awaited is not None and not self.awaited.done():
            self.awaited.cancel()

    def _leave(self, leaving: SystemExit) -> None:
        self.status = leaving.code
        self.loop.call_soon_threadsafe(self.loop.stop)
        raise leaving


def _read_statements(console: _Console) -> None:
    """Body of the reading thread."""
    try:
        _run_startup_file(console)
        banner = (
            f"uvloop_clone REPL {sys.version} on {sys.platform}\n"
            'Use "await" directly instead of "asyncio.run()".\n'
            'Type "help", "copyright", "credits" or "license" for more information.\n'
            f"{getattr(sys, 'ps1', '>>> ')}import asyncio"
        )
        console.interact(
            banner="" if sys.flags.quiet else banner, exitmsg="exiting asyncio REPL..."
        )
    except SystemExit as leaving:
        console.status = leaving.code
    finally:
        warnings.filterwarnings(
            "ignore", message=r"^coroutine .* was never awaited$", category=RuntimeWarning
        )
        console.loop.call_soon_threadsafe(console.loop.stop)


def _run_startup_file(console: _Console) -> None:
    path = os.environ.get("PYTHONSTARTUP")
    if not path or sys.flags.ignore_environment:
        return
    try:
        with open(path, "rb") as file:
            exec(compile(file.read(), path, "exec"), console.locals)
    except SystemExit:
        raise
    except BaseException:
        console.showtraceback()


def _enable_completion(names: dict[str, Any]) -> None:
    """Line editing and completion of the user's names, where Python has readline."""
    hook = getattr(sys, "__interactivehook__", None)
    if hook is None:
        return
    hook()
    if hook is not getattr(site, "register_readline", None):
        return
    try:
        import readline
        import rlcompleter
    except ImportError:
        return
    readline.set_completer(rlcompleter.Completer(names).complete)


def repl(module: types.ModuleType) -> Any:
    """Run the REPL in the namespace of `module`; return the exit status."""
    module.__dict__["asyncio"] = asyncio
    loop = new_event_loop()
    asyncio.set_event_loop(loop)
    console = _Console(module.__dict__, loop)
    _enable_completion(module.__dict__)
    threading.Thread(
        target=_read_statements, args=(console,), name="Interactive thread", daemon=True
    ).start()
    while True:
        try:
            loop.run_forever()
        except KeyboardInterrupt:
            console.interrupt()
        else:
            break
    loop.close()
    return console.status
