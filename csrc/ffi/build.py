"""Writes the C source of uvloop_clone._ffi from libuv.cdef. Used by setup.py where cffi is there.

libuv.cdef names all that this project knows of libuv; what the installed headers lack is left
out, so that one list serves every libuv.
"""

import re
import subprocess
from pathlib import Path

from cffi import FFI

CDEF = Path(__file__).with_name("libuv.cdef")

PREAMBLE = """\
#include <uv.h>

static uintptr_t
uvloop_clone_libuv_address(void)
{
    return (uintptr_t)&uv_loop_init;
}
"""


def statements(text):
    """The declarations in `text`, one by one: what ends in a semicolon outside of braces."""
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.S)
    depth = start = 0
    for at, char in enumerate(text):
        depth += (char == "{") - (char == "}")
        if char == ";" and depth == 0:
            yield text[start : at + 1].strip()
            start = at + 1


def known_names(compiler, arguments):
    """Every word of the headers that <uv.h> stands for, macros included."""
    done = subprocess.run(
        [*compiler, *arguments, "-E", "-dD", "-"],
        input="#include <uv.h>\n",
        capture_output=True,
        text=True,
        check=True,
    )
    return set(re.findall(r"\w+", done.stdout))


def declarations(known):
    """libuv.cdef without what refers to anything of libuv's that is not in `known`."""
    kept = []
    for statement in statements(CDEF.read_text(encoding="utf-8")):
        if statement.startswith("typedef enum"):
            statement = re.sub(
                r"\b(UV_\w+),", lambda found: found[0] if found[1] in known else "", statement
            )
        if known.issuperset(re.findall(r"\b(?:uv|UV)_\w+", statement)):
            kept.append(statement)
    return "\n".join(kept)


def write_source(target, compiler, arguments):
    """Write the module's C source to `target` unless that says the same already."""
    builder = FFI()
    builder.cdef(declarations(known_names(compiler, arguments)))
    builder.set_source("uvloop_clone._ffi", PREAMBLE)
    Path(target).parent.mkdir(parents=True, exist_ok=True)
    builder.emit_c_code(str(target))
