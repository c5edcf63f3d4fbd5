"""The loops that are compared, and how one is made from its name."""

from __future__ import annotations

import asyncio
import importlib
import importlib.metadata
import platform
from dataclasses import dataclass

OURS = "uvloop_clone"
LIMIT = "limit"
PAIR = "+aiofastnet"


@dataclass(frozen=True)
class LoopSpec:
    """A loop that pip may have installed: its package and the factory inside it."""

    name: str
    module: str
    factory: str = "new_event_loop"


LOOPS = {
    spec.name: spec
    for spec in (
        LoopSpec(OURS, OURS),
        LoopSpec("asyncio", "asyncio", "SelectorEventLoop"),
        LoopSpec("uvloop", "uvloop"),
        LoopSpec("rloop", "rloop"),
        LoopSpec("zuvloop", "zuvloop"),
        LoopSpec("blazio", "blazio"),
        LoopSpec("zloop", "zloop"),
        LoopSpec("loopmini", "loopmini"),
    )
}

# aiofastnet replaces the networking methods of a loop; these it can patch.
PAIRED = ("asyncio", "uvloop", "rloop")


def make(name: str) -> asyncio.AbstractEventLoop:
    """A new loop for a contestant's name: ``uvloop``, or ``uvloop+aiofastnet``."""
    base, _, patch = name.partition("+")
    spec = LOOPS[base]
    loop: asyncio.AbstractEventLoop = getattr(importlib.import_module(spec.module), spec.factory)()
    if patch:
        importlib.import_module(patch).patch_loop(loop)
    return loop


def version(name: str) -> str:
    """The version of an installed loop; ImportError (or worse) where it cannot be used."""
    base, _, patch = name.partition("+")
    make(name).close()
    if patch:
        return importlib.metadata.version(patch)
    if base == "asyncio":
        return platform.python_version()
    try:
        return importlib.metadata.version(LOOPS[base].module)
    except importlib.metadata.PackageNotFoundError:
        return str(getattr(importlib.import_module(LOOPS[base].module), "__version__", "?"))
