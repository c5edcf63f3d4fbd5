"""The two suites a worker can load: CPython's own, and uvloop's under our package's name.

A loaded suite is a plan (test ids ``module::Class::method``) and the imported modules behind it.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import importlib.util
import os
import shutil
import sys
import traceback
import unittest
from collections.abc import Callable
from typing import Any

import binding as bindings
import cpython

#: The package `uvloop` as its tests see it; they look at one private attribute of the loop.
UVLOOP_SHIM = """\
from uvloop_clone import *
from uvloop_clone import __version__

Loop._closed = property(Loop.is_closed)
"""


@dataclasses.dataclass
class Suite:
    """What was imported, and what was not: module -> traceback, or ``skipped: reason``."""

    binding: bindings.Binding
    missing: str | None = None
    plan: list[str] = dataclasses.field(default_factory=list)
    modules: dict[str, Any] = dataclasses.field(default_factory=dict)
    broken: dict[str, str] = dataclasses.field(default_factory=dict)

    def load(self, package: str, name: str) -> Any:
        """Imports one test module; None when it is not there, declines or is broken."""
        full = f"{package}.{name}"
        if importlib.util.find_spec(full) is None:
            return None
        try:
            self.modules[name] = importlib.import_module(full)
        except unittest.SkipTest as error:
            self.broken[name] = f"skipped: {error}"
        except Exception:
            self.broken[name] = traceback.format_exc()
        return self.modules.get(name)

    def add(self, name: str, classes: list[str]) -> None:
        """Plans all tests of these classes of a module."""
        for cls in classes:
            methods = unittest.defaultTestLoader.getTestCaseNames(getattr(self.modules[name], cls))
            self.plan += [f"{name}::{cls}::{method}" for method in methods]


def grant_memory() -> None:
    """Lets the tests of many TLS connections run that ask for 2.2 GB, where there is plenty."""
    if os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >= 8 << 30:
        importlib.import_module("test.support").set_memlimit("2300M")


def load_cpython(loop: str) -> Suite:
    """``test.test_asyncio`` of this interpreter, bound to the named loop."""
    suite = Suite(bindings.Binding(loop, rename=True))
    try:
        utils = importlib.import_module(f"{cpython.PACKAGE}.utils")
    except ImportError as error:
        suite.missing = f"{cpython.PACKAGE} is not shipped with {sys.executable}: {error}"
        return suite
    except unittest.SkipTest as error:
        suite.missing = f"{cpython.PACKAGE} declines to run: {error}"
        return suite
    suite.binding.adapt_utils(utils)
    grant_memory()
    for name in cpython.MODULES:
        module = suite.load(cpython.PACKAGE, name)
        if module is not None:
            suite.binding.adapt(module)
            suite.add(name, suite.binding.classes(module))
    suite.binding.enforce()
    return suite


def _free_port(find: Callable[[int], int]) -> int:
    """A free port: ``find`` looks from the same number on in every test, and they run side by side.

    The numbers lie below those that the kernel gives to connections by itself.
    """
    return find(10_000 + os.getpid() * 37 % 20_000)


def load_uvloop(loop: str, source: str, folder: str) -> Suite:
    """The tests of uvloop's unpacked source ``source``, on the named loop.

    ``folder`` receives a package ``uvloop`` that hands out our names and the test helpers of the
    source; processes that the tests start find it there too.
    """
    shutil.copytree(os.path.join(source, "tests"), os.path.join(folder, "tests"))
    paths = [folder]
    if loop == "uvloop_clone":
        shim = os.path.join(folder, "uvloop")
        os.mkdir(shim)
        with open(os.path.join(shim, "__init__.py"), "w", encoding="utf-8") as file:
            file.write(UVLOOP_SHIM)
        shutil.copy(os.path.join(source, "uvloop", "_testbase.py"), shim)
        ours = importlib.util.find_spec("uvloop_clone")
        if ours is None or ours.origin is None:
            raise ImportError("no package uvloop_clone")
        paths.append(os.path.dirname(os.path.dirname(ours.origin)))
    sys.path[:0] = paths
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)
    suite = Suite(bindings.Binding(loop, rename=False))
    helpers: Any = importlib.import_module("uvloop._testbase")
    helpers.find_free_port = functools.partial(_free_port, helpers.find_free_port)
    names = sorted(os.listdir(os.path.join(folder, "tests")))
    for name in [n[:-3] for n in names if n.startswith("test_") and n.endswith(".py")]:
        module = suite.load("tests", name)
        if module is not None:
            suite.add(
                name,
                [
                    key
                    for key, cls in vars(module).items()
                    if isinstance(cls, type)
                    and issubclass(cls, unittest.TestCase)
                    and not issubclass(cls, helpers.AIOTestCase)
                    and cls.__module__ == module.__name__
                ],
            )
    return suite
