"""Builds the C extension, uvloop_clone._core, and where cffi can be imported the bridge to libuv,
uvloop_clone._ffi; everything else is in pyproject.toml.

Environment variables:
    LIBUV_PREFIX           where libuv lies (include/uv.h, lib/libuv.*) instead of asking pkg-config
    UVLOOP_CLONE_WERROR    1: a compiler warning fails the build
    UVLOOP_CLONE_DEBUG     1: -O0, and the assertions of CPython's headers
    UVLOOP_CLONE_SANITIZE  1: AddressSanitizer and UndefinedBehaviorSanitizer
    MAKEFLAGS              -jN bounds the compilers that run side by side (default: one per CPU)
"""

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

LIBUV_MINIMUM = (1, 40)
FFI_NAME = "uvloop_clone._ffi"
FFI_BUILDER = Path("csrc", "ffi", "build.py")
INSTALL_HINT = (
    "install it with 'apt-get install gcc pkg-config libuv1-dev python3-dev' (Debian, Ubuntu), "
    "'dnf install gcc pkgconf-pkg-config libuv-devel python3-devel' (Fedora) or "
    "'xcode-select --install; brew install pkg-config libuv' (macOS)"
)


def switched_on(name):
    return os.environ.get(name, "") not in ("", "0")


def missing(what, hint=""):
    """What ends the build with one line: SystemExit is shown without a traceback."""
    return SystemExit(f"error: uvloop_clone needs {what}: {INSTALL_HINT}{hint}")


def header_version(include):
    """(major, minor) that the libuv headers in the folder `include` declare, or None."""
    header = Path(include, "uv", "version.h")
    if not header.is_file():
        return None
    numbers = dict(re.findall(r"#define UV_VERSION_(MAJOR|MINOR)\s+(\d+)", header.read_text()))
    return int(numbers["MAJOR"]), int(numbers["MINOR"])


def find_libuv():
    """(compiler arguments, linker arguments) for libuv."""
    wanted = "libuv >= " + ".".join(map(str, LIBUV_MINIMUM))
    elsewhere = ", or set LIBUV_PREFIX to the folder that holds its include/ and lib/"
    prefix = os.environ.get("LIBUV_PREFIX")
    if prefix:
        version = header_version(Path(prefix, "include"))
        if version is None or version < LIBUV_MINIMUM:
            found = f"which LIBUV_PREFIX={prefix} does not hold"
            raise missing(f"{wanted} with its headers, {found}", elsewhere)
        return [f"-I{prefix}/include"], [f"-L{prefix}/lib", f"-Wl,-rpath,{prefix}/lib", "-luv"]

    tool = shutil.which(os.environ.get("PKG_CONFIG", "pkg-config"))
    if tool is None:
        raise missing(f"pkg-config to find {wanted}", elsewhere)
    minimum = ".".join(map(str, LIBUV_MINIMUM))

    def ask(*query):
        return subprocess.run([tool, *query, "libuv"], capture_output=True, text=True)

    if ask(f"--atleast-version={minimum}").returncode:
        raise missing(f"{wanted} with its headers", elsewhere)
    return shlex.split(ask("--cflags").stdout), shlex.split(ask("--libs").stdout)


def compiler():
    """The compiler's command line as distutils finds it."""
    return shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")


def check_tools():
    if not shutil.which(compiler()[0]):
        raise missing(f"a C compiler ({compiler()[0]})")
    if not Path(sysconfig.get_path("include"), "Python.h").is_file():
        raise missing(f"the headers of Python {sys.version_info[0]}.{sys.version_info[1]}")


def jobs():
    """How many compilers may run side by side."""
    asked = re.search(r"-j\s*(\d+)", os.environ.get("MAKEFLAGS", ""))
    return max(1, int(asked[1])) if asked else os.cpu_count() or 1


def variant():
    return "-".join(
        word
        for word, name in (("debug", "UVLOOP_CLONE_DEBUG"), ("sanitize", "UVLOOP_CLONE_SANITIZE"))
        if switched_on(name)
    )


def arguments():
    """(compiler arguments, linker arguments) of this build."""
    compile_args = ["-std=c11", "-Wall", "-Wextra", "-fvisibility=hidden"]
    compile_args.append("-Wno-missing-field-initializers")  # {NULL}, which clang warns of
    link_args = []
    if switched_on("UVLOOP_CLONE_WERROR"):
        compile_args.append("-Werror")
    if switched_on("UVLOOP_CLONE_DEBUG"):
        compile_args += ["-O0", "-g", "-UNDEBUG"]
    elif not switched_on("UVLOOP_CLONE_SANITIZE"):
        compile_args.append("-O3")
        if sys.platform == "linux":
            compile_args.append("-fno-plt")  # calls into libpython and libuv take no detour
    if switched_on("UVLOOP_CLONE_SANITIZE"):
        sanitizers = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
        if "clang" in Path(compiler()[0]).name:
            sanitizers.append("-shared-libasan")  # its default fits executables only
        if not switched_on("UVLOOP_CLONE_DEBUG"):
            compile_args.append("-O1")
        compile_args += ["-g", "-fno-omit-frame-pointer", *sanitizers]
        link_args += sanitizers
    return compile_args, link_args


class BuildCore(build_ext):
    """Compiles the many small files side by side, and only those that changed."""

    def finalize_options(self):
        super().finalize_options()
        # A folder per kind of build: objects of one are never linked into another, and an
        # editable install, which asks for a throw-away folder, keeps its objects too.
        tag = "-".join(filter(None, (sys.implementation.cache_tag, *sys.abiflags, variant())))
        self.build_temp = str(Path("build", f"objects-{sysconfig.get_platform()}-{tag}"))

    def run(self):
        check_tools()
        self.libuv = find_libuv()
        super().run()

    def build_extension(self, ext):
        compile_args, link_args = arguments()
        if ext.name == FFI_NAME:  # cffi writes it, and its warnings are not ours to mend
            source = Path(self.build_temp, "_ffi.c")
            load_ffi_builder().write_source(source, compiler(), self.libuv[0])
            ext.sources = [str(source)]
            compile_args = [arg for arg in compile_args if not arg.startswith("-W")]
        self.compile_changed(ext, compile_args + self.libuv[0])
        ext.extra_link_args = link_args + self.libuv[1]
        # Linking costs little, and what lies there may come from another kind of build.
        Path(self.get_ext_fullpath(ext.name)).unlink(missing_ok=True)
        super().build_extension(ext)

    def compile_changed(self, ext, compile_args):
        """Make objects of the sources of ``ext``; what has not changed is not compiled again."""
        settings = self.record_settings(
            ext, [self.compiler.compiler_so, self.include_dirs, compile_args]
        )
        newest_header = max(os.path.getmtime(path) for path in [*ext.depends, settings])

        def compile_one(source):
            [target] = self.compiler.object_filenames([source], output_dir=self.build_temp)
            newest = max(newest_header, os.path.getmtime(source))
            if self.force or not os.path.exists(target) or os.path.getmtime(target) < newest:
                self.compiler.compile(
                    [source],
                    output_dir=self.build_temp,
                    include_dirs=ext.include_dirs,
                    extra_postargs=compile_args,
                )
            return target

        with ThreadPoolExecutor(jobs()) as pool:
            ext.extra_objects = list(pool.map(compile_one, ext.sources))
        ext.sources = []

    def record_settings(self, ext, settings):
        """A file that is written anew, so that all objects are, when the settings change."""
        path = Path(self.build_temp, f"settings-{ext.name}.txt")
        text = repr(settings) + "\n"
        if not path.exists() or path.read_text() != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return str(path)


def load_ffi_builder():
    spec = importlib.util.spec_from_file_location("uvloop_clone_ffi_build", FFI_BUILDER)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def sources(pattern):
    return sorted(path.as_posix() for path in Path("csrc").rglob(pattern))


extensions = [
    Extension(
        "uvloop_clone._core",
        sources("*.c"),
        include_dirs=["csrc"],
        depends=[*sources("*.h"), "setup.py"],
    )
]
if importlib.util.find_spec("cffi") is not None:
    extensions.append(Extension(FFI_NAME, [], depends=[*sources("ffi/*"), "setup.py"]))

setup(
    ext_modules=extensions,
    cmdclass={"build_ext": BuildCore},
)
