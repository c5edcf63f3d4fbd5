"""``python -m uvloop_clone``: what a script and the shell see is what ``python`` gives."""

import os
import pathlib
import pty
import select
import signal
import subprocess
import sys
import textwrap
import time
import zipfile

import pytest

ENVIRONMENT = {k: v for k, v in os.environ.items() if k != "PYTHONASYNCIODEBUG"}
OURS = [sys.executable, "-m", "uvloop_clone"]
PLAIN = [sys.executable]


@pytest.fixture
def folder(tmp_path):
    """A folder to run in; ``folder.write(name, code)`` puts a file there."""

    class Folder:
        path = tmp_path

        def write(self, name, code):
            file = tmp_path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(textwrap.dedent(code))
            return file

        def run(self, start, *arguments, stdin=None, flags=(), limit=60, **environment):
            command = [start[0], *flags, *start[1:], *map(str, arguments)]
            return subprocess.run(
                command,
                cwd=tmp_path,
                input=stdin,
                capture_output=True,
                text=True,
                timeout=limit,
                env={**ENVIRONMENT, **environment},
            )

        def same(self, *arguments, **options):
            """Run it on plain Python and on ours; all that can be seen must be the same."""
            plain = self.run(PLAIN, *arguments, **options)
            ours = self.run(OURS, *arguments, **options)
            assert ours.stdout == plain.stdout
            assert without_runpy(ours.stderr) == without_runpy(plain.stderr)
            assert ours.returncode == plain.returncode
            return ours

    return Folder()


def without_runpy(text):
    """`text` without the lines of runpy, which plain Python's -m shows and ours does not."""
    return "\n".join(
        line
        for line in text.splitlines()
        if "<frozen runpy>" not in line
        and "runpy.py" not in line
        and "_run_code(" not in line
        and "return _run_code" not in line
        and "exec(code, run_globals)" not in line
    )


LOOP = """
import asyncio
async def main():
    print(type(asyncio.get_running_loop()).__module__)
asyncio.run(main())
"""


# -- the loop in force ---------------------------------------------------------------------------


def test_script_runs_on_our_loop(folder):
    done = folder.run(OURS, folder.write("script.py", LOOP))
    assert (done.returncode, done.stdout, done.stderr) == (0, "uvloop_clone\n", "")


def test_module_runs_on_our_loop(folder):
    folder.write("thing.py", LOOP)
    assert folder.run(OURS, "-m", "thing").stdout == "uvloop_clone\n"


def test_code_runs_on_our_loop(folder):
    assert folder.run(OURS, "-c", LOOP).stdout == "uvloop_clone\n"


def test_standard_input_runs_on_our_loop(folder):
    assert folder.run(OURS, "-", stdin=LOOP).stdout == "uvloop_clone\n"


def test_current_loop_outside_a_coroutine(folder):
    code = """
    import asyncio
    loop = asyncio.get_event_loop()
    print(loop.run_until_complete(asyncio.sleep(0, type(loop).__module__)))
    loop.close()
    """
    done = folder.run(OURS, folder.write("script.py", code), flags=["-W", "error"])
    assert (done.stdout, done.stderr) == ("uvloop_clone\n", "")


@pytest.mark.parametrize("option", [["-X", "debug"], ["-Xdebug"]])
def test_debug(folder, option):
    code = """
    import asyncio
    async def main():
        print(asyncio.get_running_loop().get_debug())
    asyncio.run(main())
    """
    script = folder.write("script.py", code)
    assert folder.run(OURS, *option, script).stdout == "True\n"
    assert folder.run(OURS, script).stdout == "False\n"


# -- what the code finds -------------------------------------------------------------------------

LOOK = """
'''doc'''
import sys
keep = sorted(set(globals()) - {"sys"})
print(keep)
print(__name__, __doc__, __package__)
print(type(__loader__), __loader__ and getattr(__loader__, "path", 0))
print(__spec__ and (__spec__.name, __spec__.origin), globals().get("__file__"))
print(sys.argv, sys.path[:2], __builtins__)
main = sys.modules["__main__"]
print(main.__name__, vars(main) is globals())
class Here: pass
print(Here, Here.__module__)
"""


def test_script_sees_what_plain_python_shows(folder):
    folder.write("script.py", LOOK)
    folder.same("script.py", "a", "-b", "--c=d")


def test_script_in_another_folder(folder):
    folder.write("far/script.py", LOOK + "import beside")
    folder.write("far/beside.py", "print(__file__)")
    folder.same("far/script.py")
    folder.same("./far/../far/script.py", "x")


def test_script_through_a_link(folder):
    real = folder.write("real/script.py", LOOK)
    os.symlink(real, folder.path / "link.py")
    folder.same("link.py")


def test_module(folder):
    folder.write("thing.py", LOOK)
    folder.same("-m", "thing", "a", "-c")


def test_module_in_a_package(folder):
    folder.write("package/__init__.py", "print('package', __name__)")
    folder.write("package/thing.py", "from . import __name__ as name\nprint(name)\n" + LOOK)
    folder.same("-m", "package.thing")


def test_package(folder):
    folder.write("package/__init__.py", "import sys; print(sys.argv)")
    folder.write("package/__main__.py", LOOK)
    folder.same("-m", "package", "a")


def test_folder_with_a_main(folder):
    folder.write("app/__main__.py", "import beside\n" + LOOK)
    folder.write("app/beside.py", "print(__name__)")
    folder.same("app", "a")


def test_archive_with_a_main(folder):
    with zipfile.ZipFile(folder.path / "app.zip", "w") as archive:
        archive.writestr("__main__.py", "import sys; print(__name__, sys.argv, sys.path[0])")
    folder.same("app.zip", "a")


def test_code(folder):
    folder.same("-c", LOOK, "a", "-m", "b")


def test_code_written_to_the_option(folder):
    folder.same("-cprint(1)")


def test_standard_input(folder):
    folder.same("-", "a", stdin=LOOK)


def test_compiled_file(folder):
    import py_compile

    source = folder.write("script.py", "print(__name__, __file__)")
    py_compile.compile(str(source), str(folder.path / "compiled.pyc"))
    folder.same("compiled.pyc")


def test_coding_line(folder):
    (folder.path / "latin.py").write_bytes(b"# coding: latin-1\nprint(ascii('\xe9'))\n")
    folder.same("latin.py")


def test_future_statements_are_the_scripts_own(folder):
    folder.write("script.py", "def f(x: 1): pass\nprint(f.__annotations__)")
    folder.same("script.py")


@pytest.mark.skipif(sys.version_info < (3, 11), reason="-P is newer than this Python")
def test_safe_path(folder):
    folder.write("script.py", "import sys; print(sys.path)")
    folder.same("script.py", flags=["-P"])


def test_dataclass_and_pickle_find_main(folder):
    code = """
    import dataclasses, pickle
    @dataclasses.dataclass
    class Point:
        x: int
    print(pickle.loads(pickle.dumps(Point(1))))
    """
    folder.write("script.py", code)
    folder.same("script.py")


# -- how it ends ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "code",
    [
        "raise SystemExit",
        "raise SystemExit(3)",
        "raise SystemExit('message')",
        "import sys; sys.exit(None)",
        "import sys; sys.exit([1])",
        "exit(9)",
        "import os; os._exit(4)",
        "1/0",
        "raise ValueError('x') from KeyError('y')",
        "try:\n    1/0\nexcept ZeroDivisionError:\n    raise KeyError(1)",
        "def f():\n    raise OSError(2, 'no')\nf()",
        "x = (",
        "  x",
        "import nothing_of_that_name",
        "import atexit; atexit.register(print, 'at exit'); 1/0",
        "import asyncio\nasync def main():\n    1/0\nasyncio.run(main())",
        "import sys; sys.excepthook = lambda *a: print(a[0], a[2].tb_lineno)\n1/0",
        "import threading; threading.Thread(target=print, args=('thread',)).start(); 1/0",
        "class E(BaseException): pass\nraise E('base')",
    ],
)
def test_end(folder, code):
    folder.write("script.py", code)
    ours = folder.run(OURS, "script.py")
    plain = folder.run(PLAIN, "script.py")
    assert ours.returncode == plain.returncode
    assert ours.stdout == plain.stdout
    if "asyncio.run" not in code:  # the frames of asyncio's own loop are not ours
        assert ours.stderr == plain.stderr
    assert "uvloop_clone" not in ours.stderr
    assert "runpy" not in ours.stderr


def test_error_in_a_module(folder):
    folder.write("thing.py", "def f():\n    1/0\nf()\n")
    done = folder.same("-m", "thing")
    assert "runpy" not in done.stderr
    assert done.returncode == 1


def test_error_in_code(folder):
    folder.same("-c", "1/0")


def test_error_in_standard_input(folder):
    done = folder.same("-", stdin="def f():\n    1/0\nf()\n")
    assert done.returncode == 1


def test_error_while_a_package_is_imported(folder):
    folder.write("package/__init__.py", "1/0")
    folder.write("package/__main__.py", "")
    done = folder.run(OURS, "-m", "package")
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr
    assert "_script.py" not in done.stderr


@pytest.mark.parametrize(
    "arguments", [["nothing.py"], ["-m", "nothing"], ["-m", "nothing.at.all"], ["empty"]]
)
def test_nothing_there(folder, arguments):
    (folder.path / "empty").mkdir()
    folder.same(*arguments)


def test_package_without_main(folder):
    folder.write("package/__init__.py", "")
    folder.same("-m", "package")


@pytest.mark.parametrize("arguments", [["-X", "other", "x.py"], ["-c"], ["-m"], ["-X"], ["-Q"]])
def test_wrong_usage(folder, arguments):
    done = folder.run(OURS, *arguments)
    assert done.returncode == 2
    assert "usage:" in done.stderr


def test_help_and_version(folder):
    done = folder.run(OURS, "--help")
    assert done.returncode == 0
    assert done.stdout.startswith("usage: python -m uvloop_clone")
    done = folder.run(OURS, "-V")
    assert done.returncode == 0
    assert done.stdout.startswith("uvloop_clone ")


@pytest.mark.parametrize("start", [PLAIN, OURS], ids=["python", "ours"])
def test_interrupt(folder, start):
    code = """
    import asyncio
    async def main():
        print("ready", flush=True)
        await asyncio.sleep(100)
    asyncio.run(main())
    """
    script = folder.write("script.py", code)
    child = subprocess.Popen(
        [*start, script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        cwd=folder.path,
    )
    try:
        assert child.stdout.readline() == "ready\n"
        time.sleep(0.2)
        child.send_signal(signal.SIGINT)
        _, errors = child.communicate(timeout=30)
    finally:
        if child.poll() is None:
            child.kill()
            child.communicate()
    assert child.returncode == -signal.SIGINT
    assert errors.strip().endswith("KeyboardInterrupt")
    assert "destroyed" not in errors
    assert "_script.py" not in errors


# -- multiprocessing -----------------------------------------------------------------------------

POOL = """
import asyncio, multiprocessing, sys
from concurrent.futures import ProcessPoolExecutor

print("imported as", __name__, flush=True)

def square(x):
    loop = asyncio.new_event_loop()
    try:
        return x * x, type(loop).__module__, sys.argv[1:]
    finally:
        loop.close()

async def main():
    context = multiprocessing.get_context(sys.argv[1])
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        print(await asyncio.get_running_loop().run_in_executor(pool, square, 7))

if __name__ == "__main__":
    asyncio.run(main())
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_process_pool(folder, method):
    folder.write("script.py", POOL)
    done = folder.run(OURS, "script.py", method, flags=["-W", "ignore::DeprecationWarning"])
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[-1] == f"(49, 'uvloop_clone', [{method!r}])"
    assert lines[0] == "imported as __main__"
    assert lines[1:-1] == ([] if method == "fork" else ["imported as __mp_main__"])


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_process_pool_of_a_module(folder, method):
    folder.write("package/__init__.py", "")
    folder.write("package/thing.py", POOL)
    done = folder.run(OURS, "-m", "package.thing", method)
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1] == f"(49, 'uvloop_clone', [{method!r}])"


def test_process_pool_by_default(folder):
    code = """
    from concurrent.futures import ProcessPoolExecutor
    import asyncio
    def cube(x):
        return x ** 3
    async def main():
        loop = asyncio.get_running_loop()
        with ProcessPoolExecutor(2) as pool:
            print(await asyncio.gather(*(loop.run_in_executor(pool, cube, i) for i in range(4))))
    if __name__ == "__main__":
        asyncio.run(main())
    """
    folder.write("script.py", code)
    done = folder.run(OURS, "script.py", flags=["-W", "ignore::DeprecationWarning"])
    assert (done.stdout, done.stderr) == ("[0, 1, 8, 27]\n", "")


def test_plain_process_and_queue(folder):
    code = """
    import multiprocessing
    def work(queue):
        queue.put(__name__)
    if __name__ == "__main__":
        for method in ("spawn", "forkserver"):
            context = multiprocessing.get_context(method)
            queue = context.Queue()
            process = context.Process(target=work, args=(queue,))
            process.start()
            print(queue.get(timeout=30))
            process.join()
    """
    folder.write("script.py", code)
    folder.same("script.py")


# -- the REPL ------------------------------------------------------------------------------------


def test_repl_awaits_at_top_level(folder):
    done = folder.run(
        OURS,
        stdin="import asyncio\nawait asyncio.sleep(0, 'slept')\nx = 6\nx * 7\n"
        "type(asyncio.get_running_loop()).__module__\n",
    )
    assert done.returncode == 0
    assert "'slept'" in done.stdout
    assert "42" in done.stdout
    assert "'uvloop_clone'" in done.stdout


def test_repl_has_asyncio_and_a_main(folder):
    done = folder.run(OURS, stdin="asyncio.sleep\n__name__\n")
    assert "<function sleep" in done.stdout
    assert "'__main__'" in done.stdout


def test_repl_goes_on_after_an_error(folder):
    done = folder.run(OURS, stdin="1/0\nasync def f():\n  {}['k']\n\nawait f()\n'still here'\n")
    assert done.returncode == 0
    assert "ZeroDivisionError" in done.stderr
    assert "KeyError: 'k'" in done.stderr
    assert "_repl.py" not in done.stderr
    assert "futures" not in done.stderr
    assert "'still here'" in done.stdout


def test_repl_goes_on_after_a_syntax_error(folder):
    done = folder.run(OURS, stdin="1 +\n'still here'\n")
    assert "SyntaxError" in done.stderr
    assert "'still here'" in done.stdout


@pytest.mark.parametrize(
    ("leave", "status"),
    [("exit()", 0), ("exit(3)", 3), ("raise SystemExit(4)", 4), ("import sys; sys.exit('bye')", 1)],
)
def test_repl_exit_status(folder, leave, status):
    done = folder.run(OURS, stdin=leave + "\n'not reached'\n")
    assert done.returncode == status
    assert "not reached" not in done.stdout


def test_repl_exit_from_a_coroutine(folder):
    done = folder.run(OURS, stdin="async def f():\n  exit(5)\n\nawait f()\n'not reached'\n")
    assert done.returncode == 5
    assert "not reached" not in done.stdout


def test_repl_keeps_context_variables(folder):
    done = folder.run(
        OURS, stdin="import contextvars\nv = contextvars.ContextVar('v')\n_ = v.set(8)\nv.get()\n"
    )
    assert "\n>>> >>> >>> >>> 8" in "\n" + done.stdout.replace("import asyncio\n", "\n")


def test_repl_tasks_go_on_between_statements(folder):
    done = folder.run(
        OURS,
        stdin="t = asyncio.ensure_future(asyncio.sleep(0.01, 'in the background'))\n"
        "await asyncio.sleep(0.1)\nt.result()\n",
    )
    assert "'in the background'" in done.stdout


def test_repl_runs_the_startup_file(folder):
    startup = folder.write("startup.py", "from_startup = 'yes'")
    done = folder.run(OURS, stdin="from_startup\n", PYTHONSTARTUP=str(startup))
    assert "'yes'" in done.stdout


def test_repl_interrupt_on_a_terminal(folder):
    controller, terminal = pty.openpty()
    child = subprocess.Popen(
        OURS,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
        cwd=folder.path,
        env={**ENVIRONMENT, "TERM": "dumb", "PYTHON_BASIC_REPL": "1"},
    )
    os.close(terminal)
    seen = b""

    def expect(text, limit=30):
        nonlocal seen
        end = time.monotonic() + limit
        while text not in seen:
            left = end - time.monotonic()
            assert left > 0, seen
            if select.select([controller], [], [], left)[0]:
                seen += os.read(controller, 4096)
        seen = seen.partition(text)[2]

    try:
        expect(b"import asyncio")
        expect(b">>> ")
        os.write(controller, b"print('beg' + 'in') or await asyncio.sleep(100)\n")
        expect(b"\nbegin")
        time.sleep(0.3)
        child.send_signal(signal.SIGINT)
        expect(b"KeyboardInterrupt")
        os.write(controller, b"'still ' + 'here'\n")
        expect(b"'still here'")
        os.write(controller, b"exit(6)\n")
        assert child.wait(30) == 6
    finally:
        if child.poll() is None:
            child.kill()
            child.wait()
        os.close(controller)


def test_the_package_can_be_run_from_a_checkout_of_something_else(folder):
    # A file named like a module of the package must not get in its way.
    folder.write("runner.py", "raise SystemExit('the wrong module')")
    folder.write("script.py", LOOP)
    assert folder.run(OURS, "script.py").stdout == "uvloop_clone\n"
    assert pathlib.Path(folder.path, "script.py").exists()
