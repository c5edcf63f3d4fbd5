"""Every example prints exactly what it should, and nothing on stderr.

Each one runs in a process of its own: on the standard loop (a stand-in for the package that
has asyncio behind it, which shows that the expectation is asyncio's own behaviour), on our
loop as a script, and on our loop handed to `python -m uvloop_clone`.
"""

import importlib.util
import json
import os
import pathlib
import re
import subprocess
import sys
import types

import pytest

EXAMPLES = pathlib.Path(__file__).resolve().parent.parent / "examples"

# What the examples use of the package, on the standard loop.
STAND_IN = """
import asyncio, sys

class Loop(asyncio.SelectorEventLoop):
    pass

def new_event_loop():
    return Loop()

def install():
    asyncio.set_event_loop(Loop())

def run(main, *, debug=None):
    if sys.version_info >= (3, 12):
        return asyncio.run(main, debug=debug, loop_factory=Loop)
    return asyncio.run(main, debug=debug)
"""

# Writes down each loop of the standard library that an example makes.
WATCH = """
import asyncio.base_events, os
_init = asyncio.base_events.BaseEventLoop.__init__
def _watched(self, *args, **kwargs):
    with open(os.environ["STANDARD_LOOPS"], "a") as file:
        file.write(type(self).__qualname__ + "\\n")
    _init(self, *args, **kwargs)
asyncio.base_events.BaseEventLoop.__init__ = _watched
"""


# What the examples with libuv's own handles need; they have no meaning on another loop.
BRIDGE = ("cffi", "uvloop_clone._ffi")


def load_runner() -> types.ModuleType:
    spec = importlib.util.spec_from_file_location("examples_run_all", EXAMPLES / "run_all.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


run_all = load_runner()


def skip_where_missing(example: pathlib.Path) -> None:
    if reason := run_all.missing(run_all.needs(example)):
        pytest.skip(reason)


def path_with(folder: pathlib.Path) -> str:
    """PYTHONPATH with `folder` in front."""
    return os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))


def marked(example: pathlib.Path) -> "tuple[pytest.MarkDecorator, ...]":
    """`core` for an example that needs nothing but Python, `service` for the database's."""
    needed = run_all.needs(example)
    if "PostgreSQL" in needed:
        return (pytest.mark.service,)
    everywhere = all(need.startswith("Python ") or need in BRIDGE for need in needed)
    return (pytest.mark.core,) if everywhere else ()


each_example = pytest.mark.parametrize(
    "example",
    [pytest.param(path, id=path.stem, marks=marked(path)) for path in run_all.examples()],
)


@each_example
def test_on_the_standard_loop(example: pathlib.Path, tmp_path: pathlib.Path) -> None:
    if set(BRIDGE) & set(run_all.needs(example)):
        pytest.skip("hangs libuv's handles on our loop")
    skip_where_missing(example)
    (tmp_path / "uvloop_clone.py").write_text(STAND_IN)
    fault = run_all.run(example, environment={"PYTHONPATH": path_with(tmp_path)})
    assert not fault, fault


@each_example
@pytest.mark.parametrize("how", ["script", "runner"])
def test_on_our_loop(example: pathlib.Path, how: str, tmp_path: pathlib.Path) -> None:
    skip_where_missing(example)
    (tmp_path / "sitecustomize.py").write_text(WATCH)
    loops = tmp_path / "loops"
    fault = run_all.run(
        example, how, {"PYTHONPATH": path_with(tmp_path), "STANDARD_LOOPS": str(loops)}
    )
    assert not fault, fault
    if (how, example.stem) == ("script", "notebook"):
        return  # the notebook client, which is not on our loop, makes loops as it pleases
    assert not loops.exists(), f"made loops of the standard library: {loops.read_text()}"


@each_example
def test_has_an_expectation(example: pathlib.Path) -> None:
    assert run_all.expectation(example).read_text(encoding="utf-8").strip()


def test_every_expectation_has_an_example() -> None:
    expected = {path.stem for path in (EXAMPLES / "expected").iterdir()}
    assert expected == {example.stem for example in run_all.examples()}


def test_every_notebook_is_run_by_a_script() -> None:
    notebooks = {path.stem for path in EXAMPLES.glob("*.ipynb")}
    assert notebooks
    assert notebooks <= {example.stem for example in run_all.examples()}


def test_notebooks_are_stored_without_output() -> None:
    for path in EXAMPLES.glob("*.ipynb"):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            assert not cell.get("outputs") and cell.get("execution_count") is None


@each_example
def test_explains_itself_and_uses_the_package(example: pathlib.Path) -> None:
    text = example.read_text(encoding="utf-8")
    assert re.match(r'"""\S.{20,}', text), "no docstring that says what it shows"
    assert re.search(r"uvloop_clone\.(run|install|new_event_loop)\b", text)


def test_the_index_names_every_example() -> None:
    index = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    linked = set(re.findall(r"\]\((\w+\.py)\)", index))
    assert linked == {example.name for example in run_all.examples()}


class TestTheRunner:
    """`run_all.py` itself: it must notice what goes wrong."""

    @pytest.fixture
    def folder(self, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
        """An empty folder of examples, with the standard loop behind the package's name."""
        (tmp_path / "stand_in").mkdir()
        (tmp_path / "stand_in" / "uvloop_clone.py").write_text(STAND_IN)
        monkeypatch.setenv("PYTHONPATH", path_with(tmp_path / "stand_in"))
        (tmp_path / "expected").mkdir()
        (tmp_path / "run_all.py").write_text((EXAMPLES / "run_all.py").read_text())
        return tmp_path

    def add(self, folder: pathlib.Path, name: str, code: str, expected: str) -> None:
        (folder / f"{name}.py").write_text(code)
        (folder / "expected" / f"{name}.txt").write_text(expected)

    def start(self, folder: pathlib.Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, str(folder / "run_all.py"), *arguments],
            capture_output=True,
            text=True,
            timeout=120,
        )

    def test_counts_and_reasons(self, folder: pathlib.Path) -> None:
        self.add(folder, "good", "print(1)", "1\n")
        self.add(folder, "wrong", "print(2)", "1\n")
        self.add(folder, "loud", "import sys; print(1); print('oh', file=sys.stderr)", "1\n")
        self.add(folder, "leaves", "import sys; print(1); sys.exit(3)", "1\n")
        self.add(folder, "future", '"""Later.\n\nNeeds: Python 9.9\n"""', "1\n")
        self.add(folder, "lacks", '"""More.\n\nNeeds: json, no_such_package\n"""', "1\n")
        done = self.start(folder)
        assert done.returncode == 1
        assert done.stdout.splitlines()[-1] == "1 passed, 3 failed, 2 skipped"
        assert "expected:\n1\nprinted:\n2\n" in done.stdout
        assert "on stderr:\noh\n" in done.stdout
        assert "exit status 3" in done.stdout
        assert "needs Python 9.9 or later" in done.stdout
        assert "needs the package no_such_package" in done.stdout

    def test_success_and_choice(self, folder: pathlib.Path) -> None:
        self.add(folder, "good", "print(1)", "1\n")
        self.add(folder, "wrong", "print(2)", "1\n")
        done = self.start(folder, "-k", "good", "-v")
        assert done.returncode == 0
        assert done.stdout == "passed  good.py\n1 passed, 0 failed, 0 skipped\n"

    def test_unclosed_resources_are_noticed(self, folder: pathlib.Path) -> None:
        self.add(folder, "leak", "import socket; s = socket.socket(); del s; print(1)", "1\n")
        done = self.start(folder)
        assert done.stdout.splitlines()[-1] == "0 passed, 1 failed, 0 skipped"
        assert "ResourceWarning" in done.stdout

    def test_missing_expectation_fails(self, folder: pathlib.Path) -> None:
        (folder / "new.py").write_text("print(1)")
        done = self.start(folder)
        assert done.returncode == 1
        assert done.stdout.splitlines()[-1] == "0 passed, 1 failed, 0 skipped"
        assert "no file" in done.stdout
