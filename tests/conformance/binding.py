"""Puts a loop in the place of asyncio's own, for the tests of CPython.

Works inside the worker process, before any test module is imported: the tests then find the loop
under every name by which they make one. Each loop made is counted, the right ones (``ours``)
apart from all others (``foreign``), so that a test that never touched the loop is seen.
"""

from __future__ import annotations

import asyncio
import asyncio.base_events
import asyncio.events
import importlib
import socket
import sys
import unittest
from typing import Any

import cpython

LOOPS = ("uvloop_clone", "uvloop", "asyncio")


class Counter:
    """How many loops were made in this process; ``clock`` counts those of ours on a fake clock."""

    def __init__(self) -> None:
        self.ours = self.foreign = self.clock = 0

    def as_dict(self) -> dict[str, int]:
        return {"ours": self.ours, "foreign": self.foreign, "clock": self.clock}


class Binding:
    """One loop implementation in force in this process."""

    def __init__(self, name: str, rename: bool) -> None:
        self.name = name
        self.counter = Counter()
        if name == "asyncio":
            self.version = sys.version.split()[0]
            self.loop_class: Any = asyncio.SelectorEventLoop
            self.policy_class: Any = None
        else:
            package = importlib.import_module(name)
            self.version = package.__version__
            self.loop_class = package.Loop
            self.policy_class = package.EventLoopPolicy
        self._count()
        if rename and self.policy_class is not None:
            self._rename()

    # -- before the test modules are imported -------------------------------------------------

    def _count(self) -> None:
        """Counts in the constructors, which no test can go round."""
        counter, ours = self.counter, self.loop_class
        base_init = asyncio.base_events.BaseEventLoop.__init__

        def count_base(loop: Any, *args: Any, **kwargs: Any) -> None:
            if self.policy_class is None:  # asyncio itself is under test
                counter.ours += 1
            else:
                counter.foreign += 1
            base_init(loop, *args, **kwargs)

        asyncio.base_events.BaseEventLoop.__init__ = count_base  # type: ignore[method-assign]
        if self.policy_class is None:
            return
        init = ours.__init__

        def count_ours(loop: Any, *args: Any, **kwargs: Any) -> None:
            counter.ours += 1
            init(loop, *args, **kwargs)

        ours.__init__ = count_ours

    def _rename(self) -> None:
        """Gives the loop and its policy asyncio's names, the private ones of 3.14 included."""
        for name in ("SelectorEventLoop", "EventLoop", "BaseEventLoop"):
            if hasattr(asyncio, name):
                setattr(asyncio, name, self.loop_class)
        for name in ("DefaultEventLoopPolicy", "_DefaultEventLoopPolicy"):
            # the lazy attribute of a later version must not be woken: it warns
            if name in vars(asyncio):
                setattr(asyncio, name, self.policy_class)
        self.enforce()

    def enforce(self) -> None:
        """Makes the loop's policy the one in force."""
        if self.policy_class is None:
            return
        put = getattr(asyncio.events, "_set_event_loop_policy", None)
        put = put or asyncio.set_event_loop_policy
        put(self.policy_class())

    @property
    def has_watchers(self) -> bool:
        """Whether this Python and the policy in force still know child watchers."""
        if not hasattr(asyncio, "ThreadedChildWatcher"):
            return False
        if self.name == "uvloop_clone":
            return True
        try:
            asyncio.get_event_loop_policy().get_child_watcher()
        except NotImplementedError:
            return False
        return True

    # -- after each import ---------------------------------------------------------------------

    def adapt(self, module: Any) -> None:
        """Builds and re-binds the classes of one test module."""
        short = module.__name__.rpartition(".")[2]
        if short == "test_events":
            module.EventLoopTests = type(
                "EventLoopTests",
                (
                    module.EventLoopTestsMixin,
                    module.SubprocessTestsMixin,
                    module.test_utils.TestCase,
                ),
                {"__module__": module.__name__, "create_event_loop": self._new_loop},
            )
        elif short == "test_subprocess":
            module.SubprocessTests = self._subprocess_class(module)
        elif short == "test_tasks":
            module.GatherTestsBase._run_loop = run_a_while
            self._bind_own_task(module)
        for cls in vars(module).values():
            if isinstance(cls, type) and issubclass(cls, unittest.TestCase):
                if hasattr(cls, "create_event_loop"):
                    cls.create_event_loop = self._new_loop  # type: ignore[attr-defined]

    def _new_loop(self) -> Any:
        loop = self.loop_class()
        if self.name == "uvloop_clone":
            # a private method that a test calls to clean up
            def stop_serving(sock: socket.socket) -> None:
                loop.remove_reader(sock)
                sock.close()

            loop._stop_serving = stop_serving
        return loop

    def _bind_own_task(self, module: Any) -> None:
        """The tests of Task once more, with the class that our create_task() makes."""
        task_class = getattr(sys.modules.get("uvloop_clone._core"), "Task", None)
        if self.name != "uvloop_clone" or task_class is None:
            return
        for kind in ("CFuture", "PyFuture"):
            name = f"OwnTask_{kind}_Tests"
            contents = {"__module__": module.__name__, "Task": task_class}
            setattr(module, name, type(name, (vars(module)[f"CTask_{kind}_Tests"],), contents))

    @staticmethod
    def _subprocess_class(module: Any) -> type:
        class SubprocessTests(
            module.SubprocessMixin,  # type: ignore[misc,name-defined]
            module.test_utils.TestCase,  # type: ignore[misc,name-defined]
        ):
            def setUp(self) -> None:
                super().setUp()
                self.loop = asyncio.new_event_loop()
                self.set_event_loop(self.loop)

        SubprocessTests.__module__ = module.__name__
        return SubprocessTests

    def adapt_utils(self, utils: Any) -> None:
        """Adapts the helpers of the suite: how a test closes a loop, the loop on a fake clock."""
        if self.policy_class is None:
            return
        if not hasattr(self.loop_class, "_default_executor"):
            stock_close = utils.TestCase.close_loop

            def close_loop(loop: Any) -> None:
                if hasattr(loop, "_default_executor"):
                    stock_close(loop)
                    return
                if not loop.is_closed():
                    loop.run_until_complete(loop.shutdown_default_executor())
                loop.close()

            utils.TestCase.close_loop = staticmethod(close_loop)
        if hasattr(utils, "DefaultEventLoopPolicy"):
            utils.DefaultEventLoopPolicy = self.policy_class
        if self.name == "uvloop_clone":
            utils.TestLoop = self._fake_clock_class()

    def _fake_clock_class(self) -> type:
        """The loop of the tests whose clock is driven by a generator, on top of ours.

        The generator is told of each new timer and answers by how much time moves on, at the end
        of the turn that made the timer. So turns are run one by one.
        """
        base, counter = self.loop_class, self.counter

        class FakeClockLoop(base):  # type: ignore[misc,valid-type]
            #: Asked for emptiness alone, after a turn that leaves nothing: ours is not visible.
            _ready = ()

            def __init__(self, gen: Any = None) -> None:
                super().__init__()
                counter.clock += 1
                self._must_finish = gen is not None
                self._gen = gen() if gen is not None else iter_once()
                next(self._gen)
                self._time = 0.0
                self._new_timers: list[float] = []
                self._stop_asked = False

            def time(self) -> float:
                return self._time

            def advance_time(self, advance: float) -> None:
                if advance:
                    self._time += advance

            def call_later(self, delay: Any, callback: Any, *args: Any, context: Any = None) -> Any:
                return self.call_at(self.time() + delay, callback, *args, context=context)

            def call_at(self, when: Any, callback: Any, *args: Any, context: Any = None) -> Any:
                self._new_timers.append(when)
                return super().call_at(when, callback, *args, context=context)

            def stop(self) -> None:
                self._stop_asked = True
                super().stop()

            def _run_once(self) -> None:
                base.call_soon(self, super().stop)
                super().run_forever()
                timers, self._new_timers = self._new_timers, []
                for when in timers:
                    self.advance_time(self._gen.send(when))

            def run_forever(self) -> None:
                try:
                    while True:
                        self._run_once()
                        if self._stop_asked:
                            return
                finally:
                    self._stop_asked = False

            def run_until_complete(self, future: Any) -> Any:
                made_here = not asyncio.isfuture(future)
                future = asyncio.ensure_future(future, loop=self)
                if made_here:
                    future._log_destroy_pending = False

                def stop_here(_future: Any) -> None:
                    self.stop()

                future.add_done_callback(stop_here)
                try:
                    self.run_forever()
                except BaseException:
                    if made_here and future.done() and not future.cancelled():
                        future.exception()  # it is about to be lost: not reported twice
                    raise
                finally:
                    future.remove_done_callback(stop_here)
                if not future.done():
                    raise RuntimeError("Event loop stopped before Future completed.")
                return future.result()

            def close(self) -> None:
                super().close()
                if self._must_finish:
                    self._must_finish = False
                    try:
                        self._gen.send(0)
                    except StopIteration:
                        return
                    raise AssertionError("Time generator is not finished")

        return FakeClockLoop

    def classes(self, module: Any) -> list[str]:
        """Names of the test classes of ``module`` to run."""
        short = module.__name__.rpartition(".")[2]
        names = [
            name
            for name, cls in vars(module).items()
            if isinstance(cls, type)
            and issubclass(cls, unittest.TestCase)
            and cls.__module__ == module.__name__
        ]
        names = cpython.selected(short, names)
        if short == "test_subprocess" and not self.has_watchers:
            names = [name for name in names if not name.endswith("WatcherTests")]
        return names


def run_a_while(_test: Any, loop: Any) -> None:
    """Runs a loop until its callbacks have come to rest, without a look at its queue."""
    for _ in range(20):
        loop.call_soon(loop.stop)
        loop.run_forever()


def iter_once() -> Any:
    """The clock generator of a test that never moves the time."""
    yield
