"""Run a user's script, module or code as ``__main__``, as plain ``python`` would, on our loop.

The code gets a ``__main__`` of its own, so that multiprocessing's children import the user's file
and not this package's; and tracebacks begin in the user's code.
"""

from __future__ import annotations

import builtins
import importlib.machinery
import importlib.util
import io
import linecache
import os
import pkgutil
import sys
import types
from collections.abc import Callable
from typing import Any

from .policy import install

__all__ = ("main",)

USAGE = """\
usage: python -m uvloop_clone [-X debug] [-c code | -m module | script | -] [args]

Run a script, module or piece of code with uvloop_clone's event loop in force;
with nothing, a REPL with top-level await.

-X debug   asyncio's debug mode (also in child processes)
-c code    run the code
-m module  run a module or package
-          run the code that standard input gives
-h         show this help
-V         show the version
"""

_FILES = {__file__}


class _Usage(Exception):
    """The command line makes no sense."""


def _program() -> str:
    return sys.orig_argv[0] if sys.orig_argv else sys.executable


def main() -> None:
    """Entry point of ``python -m uvloop_clone``; reads sys.argv."""
    try:
        command, rest = _parse(sys.argv[1:])
    except _Usage as error:
        sys.stderr.write(f"{error}\n{USAGE}")
        sys.exit(2)
    if command == "help":
        sys.stdout.write(USAGE)
        return
    if command == "version":
        from . import __version__, libuv_version

        sys.stdout.write(f"uvloop_clone {__version__} (libuv {libuv_version})\n")
        return
    install()
    _install_in_children()
    if command == "repl":
        from ._repl import repl

        sys.argv[:] = [""]
        _set_path("")
        sys.exit(repl(_new_main()))
    if command == "module":
        _run(_load_module, rest[0], rest)
    elif command == "code":
        _run(_load_code, rest[0], ["-c", *rest[1:]])
    elif rest[0] == "-":
        _run(_load_stdin, rest[0], rest)
    else:
        _run(_load_file, rest[0], rest)


def _parse(arguments: list[str]) -> tuple[str, list[str]]:
    """(what to run, its operand and arguments)."""
    while arguments:
        option = arguments[0]
        if option in ("-h", "--help", "-?"):
            return "help", []
        if option in ("-V", "--version"):
            return "version", []
        for flag, command in (("-c", "code"), ("-m", "module"), ("-X", "")):
            if not option.startswith(flag):
                continue
            if option == flag:
                if len(arguments) == 1:
                    raise _Usage(f"Argument expected for the {flag} option")
                operand, rest = arguments[1], arguments[2:]
            else:
                operand, rest = option[2:], arguments[1:]
            if command:
                return command, [operand, *rest]
            if operand != "debug":
                raise _Usage(f"Unknown option: -X {operand}")
            os.environ["PYTHONASYNCIODEBUG"] = "1"
            arguments = rest
            break
        else:
            if option.startswith("-") and option != "-":
                raise _Usage(f"Unknown option: {option}")
            return "script", arguments
    return "repl", []


# -- what the user's code finds ------------------------------------------------------------------


def _new_main() -> types.ModuleType:
    """A ``__main__`` that holds what a fresh one holds."""
    module = types.ModuleType("__main__")
    names = module.__dict__
    names["__builtins__"] = builtins
    if sys.version_info < (3, 14):
        names["__annotations__"] = {}
    sys.modules["__main__"] = module
    return module


def _set_path(entry: str) -> None:
    """Put the user's folder where the interpreter has put the current one for ``-m``."""
    if getattr(sys.flags, "safe_path", False) or (
        sys.version_info < (3, 11) and sys.flags.isolated
    ):
        return
    sys.path[0] = entry


def _load_code(text: str, module: types.ModuleType) -> types.CodeType:
    _set_path("")
    module.__loader__ = importlib.machinery.BuiltinImporter
    if sys.version_info >= (3, 13):  # tracebacks show its lines
        linecache.cache["<string>"] = (len(text), None, text.splitlines(True), "<string>")
    return compile(text, "<string>", "exec", dont_inherit=True)


def _load_stdin(_: str, module: types.ModuleType) -> types.CodeType:
    _set_path("")
    module.__loader__ = importlib.machinery.BuiltinImporter
    module.__file__ = "<stdin>"
    if sys.version_info < (3, 15):
        module.__dict__["__cached__"] = None
    source = sys.stdin.buffer.read()
    return compile(source, "<stdin>", "exec", dont_inherit=True)


def _load_file(path: str, module: types.ModuleType) -> types.CodeType:
    full = os.path.join(os.getcwd(), path)  # not normalized, as python has it
    if os.path.isdir(path) or _is_archive(path):
        _set_path(full)
        spec = importlib.machinery.PathFinder.find_spec("__main__", [full])
        if spec is None:
            sys.stderr.write(f"{sys.executable}: can't find '__main__' module in {full!r}\n")
            sys.exit(1)
        return _enter_module(spec, module)
    try:
        with io.open_code(full) as file:
            data = file.read()
    except OSError as error:
        sys.stderr.write(
            f"{_program()}: can't open file {full!r}: [Errno {error.errno}] {error.strerror}\n"
        )
        sys.exit(2)
    _set_path(os.path.dirname(os.path.realpath(full)))
    module.__file__ = full
    if sys.version_info < (3, 15):
        module.__dict__["__cached__"] = None
    if data[:4] == importlib.util.MAGIC_NUMBER:
        loader: Any = importlib.machinery.SourcelessFileLoader("__main__", full)
        module.__loader__ = loader
        code: types.CodeType = loader.get_code("__main__")
        return code
    module.__loader__ = importlib.machinery.SourceFileLoader("__main__", full)
    return compile(data, full, "exec", dont_inherit=True)


def _is_archive(path: str) -> bool:
    """Whether `path` is a file that modules can be imported from, such as a zip archive."""
    if not os.path.isfile(path):
        return False
    finder = pkgutil.get_importer(path)
    return finder is not None and not isinstance(finder, importlib.machinery.FileFinder)


def _load_module(name: str, module: types.ModuleType) -> types.CodeType:
    _set_path(os.getcwd())
    sys.argv[0] = "-m"
    code = _load_named(name, module)
    sys.argv[0] = module.__dict__["__file__"]
    return code


def _load_named(name: str, module: types.ModuleType) -> types.CodeType:
    """Code of an importable module; a package stands for its ``__main__``."""
    try:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.submodule_search_locations is not None:
            if name == "__main__" or name.endswith(".__main__"):
                raise ImportError("Cannot use package as __main__ module")
            try:
                spec = importlib.util.find_spec(name + ".__main__")
            except ImportError as error:
                raise ImportError(
                    f"{error}; {name!r} is a package and cannot be directly executed"
                ) from None
            if spec is None:
                raise ImportError(
                    f"No module named {name}.__main__; "
                    f"{name!r} is a package and cannot be directly executed"
                )
        if spec is None:
            raise ImportError(f"No module named {name}")
        return _enter_module(spec, module)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        if error.__traceback__ is not None and _from_user_code(error):
            raise
        text = str(error)
        if isinstance(error, ModuleNotFoundError):
            text = f"Error while finding module specification for {name!r} " + (
                f"({type(error).__name__}: {error})"
            )
        sys.stderr.write(f"{sys.executable}: {text}\n")
        sys.exit(1)


def _enter_module(spec: importlib.machinery.ModuleSpec, module: types.ModuleType) -> types.CodeType:
    """Give ``__main__`` the names of the module that `spec` finds, and return its code."""
    loader: Any = spec.loader
    code = loader.get_code(spec.name) if hasattr(loader, "get_code") else None
    if code is None:
        raise ImportError(f"No code object available for {spec.name}")
    module.__dict__.update(
        __file__=spec.origin,
        __doc__=None,
        __loader__=loader,
        __package__=spec.parent,
        __spec__=spec,
    )
    if sys.version_info < (3, 15):
        module.__dict__["__cached__"] = spec.cached
    return code  # type: ignore[no-any-return]


def _from_user_code(error: BaseException) -> bool:
    """Whether the exception was raised by a module that the search imported on its way."""
    trace = error.__traceback__
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        if name not in _FILES and not name.startswith("<frozen importlib"):
            return not name.startswith(os.path.dirname(importlib.util.__file__))
        trace = trace.tb_next
    return False


# -- running it ----------------------------------------------------------------------------------


def _run(
    load: Callable[[str, types.ModuleType], types.CodeType], operand: str, argv: list[str]
) -> None:
    """Load and run the user's code; what it raises leaves through the interpreter's own way out."""
    module = _new_main()
    sys.argv[:] = argv
    try:
        code = load(operand, module)
        exec(code, module.__dict__)
    except SystemExit:
        raise
    except BaseException:
        _show_user_frames_only()
        raise


def _show_user_frames_only() -> None:
    """Have the report of the exception that is on its way begin in the user's code.

    The interpreter itself deals with the exception then (exit status, signal, sys.last_exc); only
    the traceback that sys.excepthook is given is cut.
    """
    report = sys.excepthook

    def excepthook(
        kind: type[BaseException], value: BaseException, trace: types.TracebackType | None
    ) -> None:
        sys.excepthook = report
        # The frames down to ours are the interpreter's and this file's.
        seen = False
        while trace is not None:
            ours = trace.tb_frame.f_code.co_filename in _FILES
            if seen and not ours:
                break
            seen = seen or ours
            trace = trace.tb_next
        if isinstance(value, SyntaxError):
            while trace is not None and trace.tb_frame.f_code.co_filename.startswith("<frozen"):
                trace = trace.tb_next
        value.__traceback__ = trace
        report(kind, value, trace)

    sys.excepthook = excepthook


# -- multiprocessing -----------------------------------------------------------------------------


class _Installs:
    """Puts our loop in force in the process that unpickles it."""

    def __reduce__(self) -> tuple[Callable[[], None], tuple[()]]:
        return install, ()


def _install_in_children() -> None:
    """Our loop for spawned children: it travels with what multiprocessing tells them first."""
    from multiprocessing import spawn

    prepare: Callable[..., dict[str, Any]] = spawn.get_preparation_data

    def get_preparation_data(*args: Any, **kwargs: Any) -> dict[str, Any]:
        return {**prepare(*args, **kwargs), "uvloop_clone": _Installs()}

    spawn.get_preparation_data = get_preparation_data
