"""A throw-away PostgreSQL for the database examples and tests."""

import contextlib
import glob
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

USUAL_PORT = 5432


def program_folder():
    """The folder of PostgreSQL's server programs, or None."""
    folders = glob.glob("/usr/lib/postgresql/*/bin")
    folders += glob.glob("/opt/homebrew/opt/postgresql*/bin")
    initdb = shutil.which("initdb")
    if initdb:
        folders.append(os.path.dirname(os.path.realpath(initdb)))
    usable = [f for f in folders if all(os.path.exists(f"{f}/{p}") for p in ("initdb", "postgres"))]
    return usable[-1] if usable else None


@contextlib.contextmanager
def private_server():
    """A PostgreSQL on 127.0.0.1; gives the environment that leads clients to it.

    It has its usual port where that is free, and any other otherwise. Its superuser is postgres
    and it asks for no password. Where it cannot be had the environment is empty, and clients find
    whatever server the machine itself offers.
    """
    with contextlib.ExitStack() as cleanup:
        try:
            environment = start_server(cleanup)
        except (OSError, subprocess.SubprocessError) as error:
            print(f"== no private PostgreSQL: {error}", flush=True)
            environment = {}
        yield environment


def start_server(cleanup):
    folder = program_folder()
    if folder is None:
        raise OSError("its server programs are not installed")
    data = Path(tempfile.mkdtemp(prefix="uvloop_clone-postgresql-"))
    cleanup.callback(shutil.rmtree, data, ignore_errors=True)
    log = cleanup.enter_context((data / "log").open("wb"))
    keywords = {"cwd": data, "stdin": subprocess.DEVNULL, "stdout": log, "stderr": log}
    if os.geteuid() == 0:  # the server refuses to run as root
        owner = unprivileged_account()
        os.chown(data, owner.pw_uid, owner.pw_gid)
        keywords |= {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}

    options = ["-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C", "--no-sync"]
    subprocess.run([f"{folder}/initdb", "-D", data / "db", *options], check=True, **keywords)
    port = free_port(USUAL_PORT)
    options = ["-p", str(port), "-k", data, "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"]
    server = subprocess.Popen([f"{folder}/postgres", "-D", data / "db", *options], **keywords)
    cleanup.callback(stop_server, server)
    wait_until_it_listens(server, port, data / "log")
    return {"PGHOST": "127.0.0.1", "PGPORT": str(port), "PGUSER": "postgres"}


def free_port(wanted):
    """The port `wanted` of 127.0.0.1 if nothing listens there, or another one."""
    for port in (wanted, 0):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)) as probe:
            return probe.getsockname()[1]
    raise OSError("no port is free")


def unprivileged_account():
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        return pwd.getpwnam("nobody")


def wait_until_it_listens(server, port, log):
    for _ in range(300):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        if server.poll() is not None:
            break
        time.sleep(0.1)
    raise OSError(f"it did not start: {log.read_text().strip()}")


def stop_server(server):
    server.send_signal(signal.SIGINT)  # "fast": clients are sent away
    try:
        server.wait(10)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
