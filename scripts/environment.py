"""What run_examples.py and run_tests.py share: system packages and the virtual environment.

Needs nothing but a bare Python. Every step looks first and does nothing where nothing is to do.
"""

import contextlib
import hashlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path

import postgresql

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
VERSION = "{}.{}".format(*sys.version_info[:2])

if sys.version_info < (3, 10):  # noqa: UP036
    sys.exit(f"uvloop_clone needs Python 3.10 or later; {sys.executable} is {VERSION}")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A script's background jobs begin so, and their children would; examples are sent Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def say(text):
    print(f"== {text}", flush=True)


def run(command, **keywords):
    """Run `command` with its output in sight; where it fails, end with its status."""
    print("+ " + shlex.join(map(str, command)), flush=True)
    status = subprocess.run(command, cwd=ROOT, **keywords).returncode
    if status:
        sys.exit(status if status > 0 else 128 - status)


# System packages ---------------------------------------------------------------------------------


def has_command(*names):
    return lambda: all(map(shutil.which, names))


def has_compiler():
    compiler = os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc"
    return shutil.which(shlex.split(compiler)[0]) is not None


def has_python_headers():
    return Path(sysconfig.get_path("include"), "Python.h").is_file()


def has_libc_headers():
    return sys.platform != "linux" or Path("/usr/include/stdio.h").is_file()


def has_venv():
    """Debian ships Python without the module that puts pip into a new environment."""
    with contextlib.suppress(ImportError):
        import ensurepip  # noqa: F401
        import venv  # noqa: F401

        return True
    return False


def has_libuv():
    if os.environ.get("LIBUV_PREFIX"):
        return True  # setup.py checks what lies there
    tool = shutil.which(os.environ.get("PKG_CONFIG", "pkg-config"))
    return bool(tool) and not subprocess.run([tool, "--atleast-version=1.40", "libuv"]).returncode


# (what, is it there?, Debian and Ubuntu, Fedora, Homebrew); None: nothing to install there
BUILD_NEEDS = [
    ("a C compiler", has_compiler, "gcc", "gcc", None),
    ("the C library's headers", has_libc_headers, "libc6-dev", "glibc-devel", None),
    ("pkg-config", has_command("pkg-config"), "pkg-config", "pkgconf-pkg-config", "pkg-config"),
    ("libuv's headers", has_libuv, "libuv1-dev", "libuv-devel", "libuv"),
    ("Python's headers", has_python_headers, f"python{VERSION}-dev", "python3-devel", None),
    ("Python's venv module", has_venv, f"python{VERSION}-venv", "python3", None),
]
SERVICE_NEEDS = [
    ("the openssl command", has_command("openssl"), "openssl", "openssl", "openssl"),
    ("PostgreSQL", postgresql.program_folder, "postgresql", "postgresql-server", "postgresql"),
]
MANAGERS = {  # command: (column of the tables above, arguments that install, needs root)
    "apt-get": (2, ["install", "-y", "--no-install-recommends"], True),
    "dnf": (3, ["install", "-y", "-q"], True),
    "brew": (4, ["install"], False),
}


def root_prefix():
    """What to put before a command that needs root, or None where it is not to be had."""
    if os.geteuid() == 0:
        return []
    sudo = shutil.which("sudo")
    if sudo and not subprocess.run([sudo, "-n", "true"], capture_output=True).returncode:
        return [sudo, "-n"]
    return None


def install_system_packages(needs, optional=False):
    """Install what is missing of `needs`, or name it and, unless it is `optional`, end."""
    absent = [need for need in needs if not need[1]()]
    if not absent:
        return
    what = ", ".join(need[0] for need in absent)
    manager = next(filter(shutil.which, MANAGERS), None)
    if manager is None:
        hint = "with this system's package manager"
    else:
        column, arguments, needs_root = MANAGERS[manager]
        packages = [need[column] for need in absent if need[column]]
        hint = "with: " + shlex.join(["sudo", manager, *arguments, *packages][not needs_root :])
        prefix = root_prefix() if needs_root else []
        if prefix is not None and packages:
            say(f"installing what this system lacks: {what}")
            if manager == "apt-get":
                subprocess.run([*prefix, manager, "update", "-qq"], stdin=subprocess.DEVNULL)
            install = [*prefix, "env", "DEBIAN_FRONTEND=noninteractive", manager, *arguments]
            subprocess.run([*install, *packages], stdin=subprocess.DEVNULL)
            absent = [need for need in absent if not need[1]()]
            what = ", ".join(need[0] for need in absent)
    if not absent:
        return
    message = f"this system lacks {what}; install {hint}"
    if not optional:
        sys.exit(f"error: {message}")
    say(f"{message}; what needs it is skipped")


# The virtual environment -------------------------------------------------------------------------


def fingerprint():
    """Changes whenever the package must be built or its requirements be looked at again."""
    digest = hashlib.sha256()
    variables = ("CC", "CFLAGS", "LIBUV_PREFIX", "UVLOOP_CLONE_DEBUG", "UVLOOP_CLONE_SANITIZE")
    digest.update(repr([sys.version, *map(os.environ.get, variables)]).encode())
    files = [ROOT / "pyproject.toml", ROOT / "setup.py", *(ROOT / "csrc").rglob("*.[ch]*")]
    for path in sorted(files):
        digest.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def virtual_environment(*extras):
    """Build the package into .venv (made where it is missing); the path of its Python.

    What the examples and the tests require comes along. The install is an editable one: Python
    files are taken from the checkout, C files are built again when they change.
    """
    python = VENV / "bin" / "python"
    stamp = VENV / "uvloop_clone-installed.json"
    done = {}
    with contextlib.suppress(OSError, ValueError):
        done = json.loads(stamp.read_text())
    if done.get("python") != sys.version or not works(python):
        say(f"making {VENV.name} for Python {VERSION}")
        done = {}
        run([sys.executable, "-m", "venv", "--clear", VENV])
    state = {
        "python": sys.version,
        "fingerprint": fingerprint(),
        "extras": sorted({"test", *extras, *done.get("extras", [])}),
    }
    if done != state or not works(python, "import uvloop_clone"):
        say(f"building uvloop_clone and installing it into {VENV.name}")
        stamp.unlink(missing_ok=True)
        run([python, "-m", "pip", "install", "-q", "-e", f".[{','.join(state['extras'])}]"])
        stamp.write_text(json.dumps(state, indent=1))
    return python


def works(python, code=""):
    if not os.access(python, os.X_OK):
        return False
    return not subprocess.run([python, "-c", code], cwd=VENV, capture_output=True).returncode
