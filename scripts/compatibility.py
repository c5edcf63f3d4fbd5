"""Writes docs/compatibility.md: what of asyncio's interface our loop and uvloop have, by Python.

    python scripts/compatibility.py probe PYTHON.json       what the running Python shows
    python scripts/compatibility.py page PYTHON.json...     the page, from one file of each Python

`probe` looks at the installed packages (uvloop where it is): which public methods there are,
whether inspect.signature() gives asyncio's parameters, and whether a call ends in
NotImplementedError.
"""

import asyncio
import importlib
import importlib.metadata
import inspect
import json
import os
import socket
import subprocess
import sys
import tempfile
from asyncio import base_events, base_subprocess, selector_events, sslproto, unix_events
from pathlib import Path

LOOPS = ("uvloop_clone", "uvloop")
THEIRS = {
    "Loop": asyncio.SelectorEventLoop,
    "Server": base_events.Server,
    "Handle": asyncio.Handle,
    "TimerHandle": asyncio.TimerHandle,
    "Stream transport": selector_events._SelectorSocketTransport,
    "TLS transport": sslproto._SSLProtocolTransport,
    "Datagram transport": selector_events._SelectorDatagramTransport,
    "Read pipe transport": unix_events._UnixReadPipeTransport,
    "Write pipe transport": unix_events._UnixWritePipeTransport,
    "Subprocess transport": base_subprocess.BaseSubprocessTransport,
}
PAGE = Path(__file__).resolve().parent.parent / "docs" / "compatibility.md"


def public_methods(owner):
    return sorted(
        name
        for name in dir(owner)
        if not name.startswith("_") and callable(getattr(owner, name, None))
    )


def shown(default):
    """A default in comparable form: nothing, a plain object() that marks, or a repr."""
    return "" if default is inspect.Parameter.empty else repr(default).split(" at 0x")[0]


def parameters(function):
    """{name: kind and default} without self; None where there is no signature."""
    try:
        found = list(inspect.signature(function).parameters.values())[1:]
    except (TypeError, ValueError):
        return None
    return {each.name: f"{each.kind.name} {shown(each.default)}" for each in found}


async def collect(loop, certificate):
    """An object of each kind, made by the running loop: {kind: its class}."""
    import ssl

    found = {"Loop": type(loop), "Handle": type(loop.call_soon(int))}
    timer = loop.call_later(60, int)
    found["TimerHandle"] = type(timer)
    timer.cancel()
    close = []
    server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
    found["Server"] = type(server)
    transport, _ = await loop.create_connection(asyncio.Protocol, *server.sockets[0].getsockname())
    found["Stream transport"] = type(transport)
    close += [transport, server]
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        secure = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0, ssl=context)
        client = ssl.create_default_context()
        client.check_hostname = False
        client.verify_mode = ssl.CERT_NONE
        transport, _ = await loop.create_connection(
            asyncio.Protocol, *secure.sockets[0].getsockname(), ssl=client
        )
        found["TLS transport"] = type(transport)
        close += [transport, secure]
    transport, _ = await loop.create_datagram_endpoint(
        asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0)
    )
    found["Datagram transport"] = type(transport)
    close.append(transport)
    read, write = os.pipe()
    transport, _ = await loop.connect_read_pipe(asyncio.Protocol, os.fdopen(read, "rb", 0))
    found["Read pipe transport"] = type(transport)
    close.append(transport)
    transport, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, os.fdopen(write, "wb", 0))
    found["Write pipe transport"] = type(transport)
    close.append(transport)
    transport, _ = await loop.subprocess_exec(asyncio.SubprocessProtocol, "true")
    found["Subprocess transport"] = type(transport)
    close.append(transport)
    for each in close:
        each.close()
    await asyncio.sleep(0.1)
    return found


def refuses(loop, name, arguments):
    """Whether a call ends in NotImplementedError; any other end is an answer."""
    try:
        result = getattr(loop, name)(*arguments)
        if inspect.isawaitable(result):
            loop.run_until_complete(asyncio.wait_for(result, 5))
    except NotImplementedError:
        return True
    except BaseException:
        return False
    return False


def refused_methods(loop):
    """Methods of the loop that are there and say NotImplementedError to a wrong or empty call."""
    with socket.socket() as sock, tempfile.TemporaryFile() as file:
        sock.setblocking(False)
        calls = {
            "sock_recvfrom": (sock, 1),
            "sock_recvfrom_into": (sock, bytearray(1)),
            "sock_sendto": (sock, b"", ("127.0.0.1", 9)),
            "sock_sendfile": (sock, file),
            "sendfile": (
                type("Open", (asyncio.Transport,), {"is_closing": lambda self: False})(),
                file,
            ),
            "getnameinfo": (("127.0.0.1", 9),),
            "shutdown_default_executor": (),
            "shutdown_asyncgens": (),
            "create_datagram_endpoint": (asyncio.DatagramProtocol,),
            "subprocess_exec": (asyncio.SubprocessProtocol, ""),
            "subprocess_shell": (asyncio.SubprocessProtocol, 7),
            "create_unix_server": (asyncio.Protocol,),
            "create_unix_connection": (asyncio.Protocol,),
            "start_tls": (asyncio.Transport(), asyncio.Protocol(), None),
        }
        return sorted(name for name, args in calls.items() if refuses(loop, name, args))


def make_certificate(folder):
    """(certificate, key) files by the openssl command; None where there is none."""
    names = [str(Path(folder, name)) for name in ("certificate.pem", "key.pem")]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += ["-subj", "/CN=localhost", "-out", names[0], "-keyout", names[1]]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return names


def probe_loop(module, certificate):
    loop = module.new_event_loop()
    loop.set_exception_handler(lambda loop, context: None)
    try:
        classes = loop.run_until_complete(asyncio.wait_for(collect(loop, certificate), 30))
        refused = refused_methods(loop)
    finally:
        loop.close()
    return {
        "version": importlib.metadata.version(module.__name__),
        "refused": refused,
        "classes": {
            kind: {name: parameters(getattr(cls, name)) for name in public_methods(cls)}
            for kind, cls in classes.items()
        },
    }


def probe(path):
    answer = {
        "python": "{}.{}".format(*sys.version_info),
        "asyncio": {
            kind: {name: parameters(getattr(cls, name)) for name in public_methods(cls)}
            for kind, cls in THEIRS.items()
        },
    }
    with tempfile.TemporaryDirectory() as folder:
        certificate = make_certificate(folder)
        for name in LOOPS:
            try:
                module = importlib.import_module(name)
            except ImportError:
                continue
            answer[name] = probe_loop(module, certificate)
    Path(path).write_text(json.dumps(answer, indent=1, sort_keys=True) + "\n")


# -- the page ------------------------------------------------------------------------------------

HEAD = """\
# Compatibility

Every public method of asyncio's loop, transports, `Server` and handles on Unix, and every
parameter of each, beside ours and uvloop's, as the running code shows them. Written by
`scripts/compatibility.py`:

    python scripts/compatibility.py probe PYTHON.json     # with each Python
    python scripts/compatibility.py page *.json           # writes this page

asyncio is the measure: `SelectorEventLoop` and its own transports in the same Python.

- `yes`: the method is there, with asyncio's parameters, kinds and defaults
- `differs`: it is there, `inspect.signature()` gives other parameters (see below)
- `hidden`: it is there, `inspect.signature()` gives nothing
- `refuses`: it is there and raises `NotImplementedError`
- `no`: it is not there; `-`: asyncio has none in this Python

"""


def verdict(probe, loop, kind, name):
    """One cell of the table."""
    theirs = probe["asyncio"].get(kind, {})
    if name not in theirs:
        return "-"
    if loop not in probe or kind not in probe[loop]["classes"]:
        return "?"
    ours = probe[loop]["classes"][kind]
    if name not in ours:
        return "no"
    if kind == "Loop" and name in probe[loop]["refused"]:
        return "refuses"
    if ours[name] is None:
        return "hidden"
    return "yes" if list(ours[name].items()) == list(theirs[name].items()) else "differs"


def difference(theirs, ours):
    """What `ours` lacks of asyncio's parameters, has besides or has in another way."""
    parts = []
    for text, names in (
        ("lacks", [name for name in theirs if name not in ours]),
        ("adds", [name for name in ours if name not in theirs]),
        ("other kind or default", [n for n in ours if n in theirs and ours[n] != theirs[n]]),
    ):
        if names:
            parts.append(f"{text} " + ", ".join(f"`{name}`" for name in names))
    return "; ".join(parts) or "other order"


def page(paths):
    probes = [json.loads(Path(path).read_text()) for path in paths]
    probes.sort(key=lambda each: [int(part) for part in each["python"].split(".")])
    versions = [each["python"] for each in probes]
    lines, notes = [], {}
    totals = {loop: [0] * len(probes) for loop in LOOPS}
    count = [0] * len(probes)
    lines.append("| | " + " | ".join(f"{v} ours | {v} uvloop" for v in versions) + " |")
    lines.append("|---|" + "---|" * (2 * len(versions)))
    for kind in THEIRS:
        lines.append(f"| **{kind}** |" + " |" * (2 * len(versions)))
        for name in sorted({name for each in probes for name in each["asyncio"][kind]}):
            cells = []
            for at, each in enumerate(probes):
                count[at] += name in each["asyncio"][kind]
                for loop in LOOPS:
                    cell = verdict(each, loop, kind, name)
                    cells.append(cell)
                    totals[loop][at] += cell == "yes"
                    if cell == "differs":
                        told = difference(
                            each["asyncio"][kind][name], each[loop]["classes"][kind][name]
                        )
                        notes.setdefault((loop, kind, name, told), []).append(each["python"])
            lines.append(f"| `{name}` | " + " | ".join(cells) + " |")
    summary = ["| methods as asyncio's | " + " | ".join(versions) + " |"]
    summary.append("|---|" + "---|" * len(versions))
    for loop in LOOPS:
        release = {each[loop]["version"] for each in probes if loop in each}
        cells = [
            f"{totals[loop][at]} of {count[at]}" if loop in each else "not installed"
            for at, each in enumerate(probes)
        ]
        summary.append(f"| {loop} {', '.join(sorted(release))} | " + " | ".join(cells) + " |")
    text = HEAD + "\n".join(summary) + "\n\n## Methods\n\n" + "\n".join(lines) + "\n"
    text += "\n## Parameters that differ\n"
    for loop in LOOPS:
        text += f"\n### {loop}\n\n"
        told = [
            f"- {kind} `{name}` ({', '.join(pythons)}): {what}"
            for (which, kind, name, what), pythons in notes.items()
            if which == loop
        ]
        text += "\n".join(told or ["None."]) + "\n"
    PAGE.write_text(text)
    print(f"{PAGE.name}: {len(lines)} rows, Python {', '.join(versions)}")


if __name__ == "__main__":
    if len(sys.argv) == 3 and sys.argv[1] == "probe":
        probe(sys.argv[2])
    elif len(sys.argv) > 2 and sys.argv[1] == "page":
        page(sys.argv[2:])
    else:
        sys.exit(__doc__)
