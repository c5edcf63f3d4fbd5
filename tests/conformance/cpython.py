"""Which classes of CPython's ``test.test_asyncio`` are run, by module.

This file is also the collector's address: pytest names each test
``tests/conformance/cpython.py::<module>::<Class>::<method>``.

Left out on purpose are the classes that cannot say anything about a loop from elsewhere: those of
Windows, the second and third selector of a class that is already run once, and those that drive the
private transports or watchers of asyncio with a mock in the place of the loop.
"""

from __future__ import annotations

import fnmatch

PACKAGE = "test.test_asyncio"

#: module -> (classes to run, classes to leave out); shell patterns on class names.
MODULES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    # ``EventLoopTests`` is built from the mixins by binding.py.
    "test_events": (
        ("EventLoopTests", "Handle*", "Timer*", "AbstractEventLoop*", "Policy*", "Test*", "Unix*"),
        (),
    ),
    "test_sock_lowlevel": (("@selector",), ()),
    "test_server": (("*",), ()),
    "test_server_context": (("*",), ()),
    "test_buffered_proto": (("*",), ()),
    "test_sendfile": (("@selector",), ()),
    "test_ssl": (("*",), ()),
    "test_sslproto": (("*",), ()),
    "test_unix_events": (
        ("TestFunctional", "TestFork", "SelectorEventLoopUnixSocketTests"),
        (),
    ),
    "test_streams": (("*",), ()),
    # ``SubprocessTests`` is built from the mixin by binding.py.
    "test_subprocess": (("*",), ()),
    "test_tasks": (("*",), ()),
    "test_futures": (("*",), ()),
    "test_locks": (("*",), ()),
    "test_queues": (("*",), ()),
    "test_runners": (("*",), ()),
    "test_taskgroups": (("*",), ()),
    "test_timeouts": (("*",), ()),
    "test_waitfor": (("*",), ()),
    "test_threads": (("*",), ()),
    "test_context": (("*",), ()),
    "test_eager_task_factory": (("*",), ()),
    "test_free_threading": (("*",), ()),
}

#: One class per selector, the same tests in each: the first one that exists is taken.
SELECTOR_CLASSES = ("EPollEventLoopTests", "KqueueEventLoopTests", "SelectEventLoopTests")
NEVER = ("*Proactor*", "*Iocp*")


def selected(module: str, names: list[str]) -> list[str]:
    """The classes to run among ``names``, in their order, for a module of ``PACKAGE``."""
    wanted, unwanted = MODULES[module]
    if "@selector" in wanted:
        return next(([name] for name in SELECTOR_CLASSES if name in names), [])
    return [
        name
        for name in names
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in wanted)
        and not any(fnmatch.fnmatchcase(name, pattern) for pattern in (*unwanted, *NEVER))
    ]
