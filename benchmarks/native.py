"""The C programs: compiled once with ``cc`` into a cache folder, found there afterwards."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

SOURCES = Path(__file__).resolve().parent / "c"
INSTALL = {
    "cc": "a C compiler (Debian: gcc, Fedora: gcc, macOS: xcode-select --install)",
    "libuv": "libuv's headers (Debian: libuv1-dev, Fedora: libuv-devel, macOS: brew install libuv)",
    "openssl": "OpenSSL's headers (Debian: libssl-dev, Fedora: openssl-devel, "
    "macOS: brew install openssl)",
}
NEEDS = {
    "client": ("openssl",),
    "certificate": ("openssl",),
    "echo_uv": ("libuv",),
    "echo_tls": ("libuv", "openssl"),
    "sleeps": (),
}


class Unable(Exception):
    """A work cannot be done here; the text says why."""


def cache_folder() -> Path:
    """Where built programs live: ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base) / "uvloop_clone-benchmarks"


def _flags(package: str) -> list[str]:
    """Compiler and linker flags for libuv or openssl."""
    prefix = os.environ.get("LIBUV_PREFIX")
    if package == "libuv" and prefix:
        return [f"-I{prefix}/include", f"-L{prefix}/lib", f"-Wl,-rpath,{prefix}/lib", "-luv"]
    tool = shutil.which("pkg-config") or shutil.which("pkgconf")
    if tool:
        found = subprocess.run(
            [tool, "--cflags", "--libs", package], capture_output=True, text=True, check=False
        )
        if found.returncode == 0:
            return found.stdout.split()
    return ["-luv"] if package == "libuv" else ["-lssl", "-lcrypto"]


def _compile(compiler: str, source: Path, flags: list[str], target: Path) -> str:
    """Compile; returns the compiler's complaint, empty when all is well."""
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = target.with_name(f"{target.name}.{os.getpid()}")
    command = [compiler, "-O2", "-g", "-std=c11", str(source), "-o", str(fresh), *flags]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        return done.stderr.strip() or "the compiler failed"
    os.replace(fresh, target)
    return ""


@cache
def program(name: str, tls: bool = True) -> str:
    """Path of a C program, built when needed. Raises Unable with what to install."""
    compiler = shutil.which(os.environ.get("CC", "cc")) or shutil.which("gcc")
    if compiler is None:
        raise Unable(f"no C compiler: install {INSTALL['cc']}")
    source = SOURCES / f"{name}.c"
    needs = NEEDS[name] if tls else ()
    flags = [flag for need in needs for flag in _flags(need)]
    if "openssl" in NEEDS[name] and not tls:
        flags.append("-DNO_TLS")
    mark = hashlib.sha256(source.read_bytes() + repr((compiler, flags)).encode()).hexdigest()[:16]
    target = cache_folder() / f"{name}-{mark}"
    if target.exists():
        return str(target)
    complaint = _compile(compiler, source, flags, target)
    if complaint:
        for need, header in (("libuv", "uv.h"), ("openssl", "openssl/")):
            if need in needs and header in complaint and "No such file" in complaint:
                raise Unable(f"{name}.c needs {INSTALL[need]}")
        raise Unable(f"{name}.c does not compile: {complaint.splitlines()[0]}")
    return str(target)


def client(tls: bool) -> str:
    """The load client; without TLS it is also built where OpenSSL's headers are missing."""
    try:
        return program("client")
    except Unable:
        if tls:
            raise
        return program("client", tls=False)


@cache
def certificate() -> tuple[str, str]:
    """Paths of a self-signed certificate and its key, made on first use."""
    cert, key = cache_folder() / "certificate.pem", cache_folder() / "key.pem"
    if not (cert.exists() and key.exists()):
        maker = program("certificate")
        subprocess.run([maker, str(cert), str(key)], check=True)
    return str(cert), str(key)
