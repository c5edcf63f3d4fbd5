"""subprocess_exec and subprocess_shell: arguments, Popen's keywords, failures to start."""

import asyncio
import os
import pathlib
import signal
import subprocess
import sys

import pytest
from support import open_fds

pytestmark = pytest.mark.core

PIPE = asyncio.subprocess.PIPE


async def output_of(*command, **options):
    """What the program writes to its standard output; it must end well."""
    process = await asyncio.create_subprocess_exec(*command, stdout=PIPE, **options)
    out, _ = await process.communicate()
    assert process.returncode == 0
    return out


async def shell_output(command, **options):
    process = await asyncio.create_subprocess_shell(command, stdout=PIPE, **options)
    out, _ = await process.communicate()
    assert process.returncode == 0
    return out


def start(loop, way, **options):
    if way == "exec":
        return loop.subprocess_exec(asyncio.SubprocessProtocol, "/bin/true", **options)
    return loop.subprocess_shell(asyncio.SubprocessProtocol, "true", **options)


# -- what is refused ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "way, options, text",
    [
        ("exec", {"universal_newlines": True}, "universal_newlines must be False"),
        ("exec", {"shell": True}, "shell must be False"),
        ("exec", {"bufsize": 1}, "bufsize must be 0"),
        ("exec", {"text": True}, "text must be False"),
        ("exec", {"encoding": "utf-8"}, "encoding must be None"),
        ("exec", {"errors": "strict"}, "errors must be None"),
        ("shell", {"universal_newlines": True}, "universal_newlines must be False"),
        ("shell", {"shell": False}, "shell must be True"),
        ("shell", {"bufsize": 4096}, "bufsize must be 0"),
        ("shell", {"text": 1}, "text must be False"),
        ("shell", {"encoding": ""}, "encoding must be None"),
        ("shell", {"errors": "ignore"}, "errors must be None"),
    ],
)
def test_unsupported_options(loop, run, way, options, text):
    async def main():
        with pytest.raises(ValueError) as caught:
            await start(loop, way, **options)
        assert str(caught.value) == text

    run(main())


def test_the_first_wrong_option_is_named(loop, run):
    async def main():
        with pytest.raises(ValueError, match="shell must be False"):
            await start(loop, "exec", shell=True, bufsize=5, text=True)

    run(main())


@pytest.mark.parametrize("command", [["ls"], None, 5, pathlib.Path("/bin/ls")])
def test_shell_command_must_be_text(loop, run, command):
    async def main():
        with pytest.raises(ValueError, match="cmd must be a string"):
            await loop.subprocess_shell(asyncio.SubprocessProtocol, command)

    run(main())


def test_factory_is_not_called_for_wrong_options(loop, run):
    async def main():
        with pytest.raises(ValueError):
            await loop.subprocess_exec(lambda: 1 / 0, "/bin/true", text=True)

    run(main())


@pytest.mark.parametrize("options", [{"no_such_keyword": 1}, {"stdin": "text"}, {"cwd": 5}])
def test_what_popen_refuses(loop, run, options):
    async def main():
        before = open_fds()
        with pytest.raises((TypeError, AttributeError)):
            await start(loop, "exec", **options)
        assert open_fds() == before

    run(main())


# -- programs that cannot be started -------------------------------------------------------------


def test_no_such_program(loop, run):
    async def main():
        before = open_fds()
        with pytest.raises(FileNotFoundError) as caught:
            await asyncio.create_subprocess_exec("/no/such/program", stdin=PIPE, stdout=PIPE)
        assert caught.value.filename == "/no/such/program"
        with pytest.raises(FileNotFoundError):
            await asyncio.create_subprocess_exec("no-such-program-anywhere")
        assert open_fds() == before

    run(main())


def test_no_permission(loop, run, tmp_path):
    path = tmp_path / "plain"
    path.write_text("text")

    async def main():
        with pytest.raises(PermissionError) as caught:
            await asyncio.create_subprocess_exec(str(path), stdout=PIPE)
        assert caught.value.filename == str(path)

    run(main())


def test_not_a_program(loop, run, tmp_path):
    path = tmp_path / "noise"
    path.write_bytes(b"\x00\x01\x02")
    path.chmod(0o755)

    async def main():
        with pytest.raises(OSError, match="Exec format error"):
            await asyncio.create_subprocess_exec(str(path))

    run(main())


def test_missing_working_folder(loop, run, tmp_path):
    missing = str(tmp_path / "missing")

    async def main():
        with pytest.raises(FileNotFoundError) as caught:
            await asyncio.create_subprocess_exec("/bin/true", cwd=missing)
        assert caught.value.filename == missing

    run(main())


def test_failing_preexec_fn(loop, run):
    def fail():
        raise ValueError("no")

    async def main():
        with pytest.raises(subprocess.SubprocessError, match="Exception occurred in preexec_fn"):
            await asyncio.create_subprocess_exec("/bin/true", preexec_fn=fail)

    run(main())


def test_failures_leave_no_zombie(loop, run, no_child):
    async def main():
        for _ in range(5):
            with pytest.raises(FileNotFoundError):
                await asyncio.create_subprocess_exec("/no/such/program", stdout=PIPE)
        assert no_child()

    run(main())


# -- programs and arguments ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        ("echo", "a b", "c"),
        ("/bin/echo", "a b", "c"),
        (b"/bin/echo", b"a b", "c"),
        (pathlib.Path("/bin/echo"), "a b", pathlib.Path("c")),
    ],
)
def test_exec(loop, run, command):
    async def main():
        assert await output_of(*command) == b"a b c\n"

    run(main())


@pytest.mark.parametrize("command", ["echo $((6 * 7))", b"echo $((6 * 7))"])
def test_shell(loop, run, command):
    async def main():
        assert await shell_output(command) == b"42\n"

    run(main())


def test_executable(loop, run):
    async def main():
        assert await output_of("another name", "-c", "echo $0", executable="/bin/sh") == (
            b"another name\n"
        )

    run(main())


# -- Popen's keywords ----------------------------------------------------------------------------


def test_env(loop, run):
    async def main():
        assert await output_of("/usr/bin/env", env={"ONLY": "this"}) == b"ONLY=this\n"

    run(main())


def test_environment_is_inherited(loop, run, monkeypatch):
    monkeypatch.setenv("HANDED_DOWN", "yes")

    async def main():
        assert await shell_output("echo $HANDED_DOWN") == b"yes\n"

    run(main())


@pytest.mark.parametrize("kind_of_path", [str, pathlib.Path, os.fsencode])
def test_cwd(loop, run, tmp_path, kind_of_path):
    async def main():
        out = await output_of("/bin/pwd", "-P", cwd=kind_of_path(str(tmp_path)))
        assert out.decode().strip() == str(tmp_path.resolve())

    run(main())


def test_pass_fds(loop, run):
    read_end, write_end = os.pipe()

    async def main():
        await output_of(
            "/bin/sh", "-c", f"echo through >/dev/fd/{write_end}", pass_fds=(write_end,)
        )
        assert os.read(read_end, 100) == b"through\n"

    run(main())
    os.close(read_end)
    os.close(write_end)


@pytest.mark.parametrize("close_fds, there", [(True, b"no\n"), (False, b"yes\n")])
def test_close_fds(loop, run, close_fds, there):
    read_end, write_end = os.pipe()
    os.set_inheritable(write_end, True)

    async def main():
        command = f"if [ -e /dev/fd/{write_end} ]; then echo yes; else echo no; fi"
        assert await shell_output(command, close_fds=close_fds) == there

    run(main())
    os.close(read_end)
    os.close(write_end)


def test_own_descriptors_are_not_inherited(loop, run):
    """Nor are the other children's pipes: the end of their input would never come."""

    async def main():
        first = await asyncio.create_subprocess_exec(
            "/bin/cat", stdin=PIPE, stdout=PIPE, close_fds=False
        )
        second = await asyncio.create_subprocess_exec(
            "/bin/cat", stdin=PIPE, stdout=PIPE, close_fds=False
        )
        assert (await first.communicate(b"1"))[0] == b"1"
        assert (await second.communicate(b"2"))[0] == b"2"

    run(main())


def test_preexec_fn(loop, run):
    def prepare():
        os.environb[b"PREPARED"] = b"yes"
        os.chdir("/")

    async def main():
        assert await output_of("/bin/pwd", preexec_fn=prepare) == b"/\n"

    run(main())


def test_start_new_session(loop, run):
    async def main():
        process = await asyncio.create_subprocess_exec(
            "/bin/cat", stdin=PIPE, start_new_session=True
        )
        assert os.getsid(process.pid) == process.pid
        await process.communicate(b"")

    run(main())


@pytest.mark.skipif(sys.version_info < (3, 11), reason="new in Python 3.11")
def test_process_group(loop, run):
    async def main():
        process = await asyncio.create_subprocess_exec("/bin/cat", stdin=PIPE, process_group=0)
        assert os.getpgid(process.pid) == process.pid != os.getpgid(0)
        await process.communicate(b"")

    run(main())


def test_umask(loop, run):
    async def main():
        assert int(await shell_output("umask", umask=0o27), 8) == 0o27

    run(main())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
def test_user_and_groups(loop, run):
    async def main():
        out = await shell_output(
            "id -u; id -g; id -G", user=65534, group=65534, extra_groups=[65533]
        )
        assert out.split() == [b"65534", b"65534", b"65534", b"65533"]

    run(main())


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux alone can tell")
def test_pipesize(loop, run):
    import fcntl

    async def main():
        process = await asyncio.create_subprocess_exec(
            "/bin/cat", stdin=PIPE, stdout=PIPE, pipesize=8192
        )
        pipe = process._transport.get_pipe_transport(1).get_extra_info("pipe")
        assert fcntl.fcntl(pipe.fileno(), fcntl.F_GETPIPE_SZ) == 8192
        assert (await process.communicate(b"x" * 100_000))[0] == b"x" * 100_000

    run(main())


@pytest.mark.parametrize("restore, ignored", [(True, False), (False, True)])
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_restore_signals(loop, run, restore, ignored):
    async def main():
        out = await output_of("/bin/cat", "/proc/self/status", restore_signals=restore)
        mask = next(line for line in out.splitlines() if line.startswith(b"SigIgn:"))
        assert bool(int(mask.split()[1], 16) >> (signal.SIGPIPE - 1) & 1) == ignored

    run(main())


def test_signals_are_not_blocked(loop, run):
    """The loop's own signal handling is not handed down."""

    async def main():
        loop.add_signal_handler(signal.SIGUSR1, lambda: None)
        process = await asyncio.create_subprocess_exec("/bin/sleep", "100")
        process.send_signal(signal.SIGUSR1)
        assert await process.wait() == -signal.SIGUSR1
        loop.remove_signal_handler(signal.SIGUSR1)

    run(main())


# -- the Popen object behind it -------------------------------------------------------------------


def test_extra_info(loop, run):
    async def main():
        transport, _ = await start(loop, "exec")
        popen = transport.get_extra_info("subprocess")
        assert isinstance(popen, subprocess.Popen)
        assert popen.pid == transport.get_pid()
        assert transport.get_extra_info("nothing", "default") == "default"
        await transport._wait()
        assert popen.returncode == 0
        transport.close()

    run(main())


def test_replaced_popen(loop, run, monkeypatch):
    """Tests of others do this."""

    def refuse(*args, **kwargs):
        raise ZeroDivisionError

    async def main():
        monkeypatch.setattr(subprocess, "Popen", refuse)
        with pytest.raises(ZeroDivisionError):
            await start(loop, "exec")

    run(main())


def test_audit_event(loop, run):
    """The event that subprocess raises for whoever audits this process."""
    seen = []

    def hook(event, args):
        if event == "subprocess.Popen" and active:
            seen.append(args[:2])

    active = True
    sys.addaudithook(hook)

    async def main():
        await output_of("/bin/echo", "x")

    run(main())
    active = False
    assert seen == [("/bin/echo", ["/bin/echo", "x"])]
