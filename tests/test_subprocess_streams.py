"""Subprocesses: standard streams, the protocol's callbacks, flow control."""

import asyncio
import socket
import sys

import pytest
from support import open_fds, until

pytestmark = pytest.mark.core

PIPE = asyncio.subprocess.PIPE
DEVNULL = asyncio.subprocess.DEVNULL
STDOUT = asyncio.subprocess.STDOUT
LARGE = bytes(range(256)) * (1 << 14)  # 4 MiB: pipes hold 64 KiB


class Recorder(asyncio.SubprocessProtocol):
    """Keeps what happens to it, in order."""

    def __init__(self):
        self.events = []
        self.data = {1: bytearray(), 2: bytearray()}
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport):
        self.transport = transport
        self.events.append("made")

    def pipe_data_received(self, fd, data):
        assert type(data) is bytes
        self.data[fd] += data
        if self.events[-1] != ("data", fd):
            self.events.append(("data", fd))

    def pipe_connection_lost(self, fd, exc):
        self.events.append(("pipe lost", fd, exc))

    def process_exited(self):
        self.events.append(("exited", self.transport.get_returncode()))

    def connection_lost(self, exc):
        self.events.append("lost")
        self.lost.set_result(exc)

    def pause_writing(self):
        self.events.append("pause")

    def resume_writing(self):
        self.events.append("resume")


# -- through asyncio's streams --------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"", b"hello", LARGE], ids=["nothing", "little", "much"])
def test_communicate(loop, run, data):
    async def main():
        process = await asyncio.create_subprocess_exec("/bin/cat", stdin=PIPE, stdout=PIPE)
        assert await process.communicate(data) == (data, None)
        assert process.returncode == 0

    run(main())


@pytest.mark.skipif(sys.version_info < (3, 12), reason="leaves stdin open before Python 3.12")
def test_communicate_without_input(loop, run):
    async def main():
        process = await asyncio.create_subprocess_exec("/bin/cat", stdin=PIPE, stdout=PIPE)
        assert await process.communicate() == (b"", None)

    run(main())


def test_both_outputs(loop, run):
    async def main():
        process = await asyncio.create_subprocess_shell(
            "echo out; echo err >&2; exit 3", stdout=PIPE, stderr=PIPE
        )
        assert await process.communicate() == (b"out\n", b"err\n")
        assert process.returncode == 3

    run(main())


def test_errors_into_the_output(loop, run):
    async def main():
        process = await asyncio.create_subprocess_shell(
            "echo out; echo err >&2", stdout=PIPE, stderr=STDOUT
        )
        assert await process.communicate() == (b"out\nerr\n", None)
        assert process.stderr is None

    run(main())


def test_conversation(loop, run):
    async def main():
        process = await asyncio.create_subprocess_shell(
            'while read line; do echo "<$line>"; done', stdin=PIPE, stdout=PIPE
        )
        for number in range(20):
            process.stdin.write(b"%d\n" % number)
            assert await process.stdout.readline() == b"<%d>\n" % number
        process.stdin.close()
        await process.stdin.wait_closed()
        assert await process.stdout.read() == b""
        assert await process.wait() == 0

    run(main())


def test_write_eof(loop, run):
    async def main():
        process = await asyncio.create_subprocess_exec("/bin/cat", stdin=PIPE, stdout=PIPE)
        assert process.stdin.can_write_eof()
        process.stdin.write(b"the end")
        process.stdin.write_eof()
        assert await process.stdout.read() == b"the end"
        await process.wait()

    run(main())


def test_nothing_from_devnull(loop, run):
    async def main():
        process = await asyncio.create_subprocess_exec("/bin/cat", stdin=DEVNULL, stdout=PIPE)
        assert await process.communicate() == (b"", None)
        process = await asyncio.create_subprocess_shell(
            "echo out; echo err >&2", stdout=DEVNULL, stderr=PIPE
        )
        assert await process.communicate() == (None, b"err\n")

    run(main())


@pytest.mark.parametrize("by_number", [False, True])
def test_files(loop, run, tmp_path, by_number):
    (tmp_path / "in").write_bytes(b"from a file")

    async def main():
        with open(tmp_path / "in", "rb") as source, open(tmp_path / "out", "wb") as target:
            process = await asyncio.create_subprocess_exec(
                "/bin/cat",
                stdin=source.fileno() if by_number else source,
                stdout=target.fileno() if by_number else target,
            )
            assert process.stdin is process.stdout is process.stderr is None
            assert await process.wait() == 0
            assert not source.closed
            assert not target.closed
        assert (tmp_path / "out").read_bytes() == b"from a file"

    run(main())


def test_socket_as_output(loop, run):
    ours, theirs = socket.socketpair()

    async def main():
        process = await asyncio.create_subprocess_exec("/bin/echo", "hello", stdout=theirs)
        assert await process.wait() == 0
        assert ours.recv(100) == b"hello\n"

    run(main())
    ours.close()
    theirs.close()


def test_inherited_streams(loop, run, capfd):
    async def main():
        process = await asyncio.create_subprocess_shell("echo out; echo err >&2")
        assert await process.wait() == 0

    run(main())
    assert capfd.readouterr() == ("out\n", "err\n")


def test_stdin_can_be_opened_again(loop, run):
    """It is a pipe: a socket could not be."""

    async def main():
        process = await asyncio.create_subprocess_exec(
            "/bin/cat", "/dev/stdin", stdin=PIPE, stdout=PIPE
        )
        return await process.communicate(b"again")

    if type(loop).__module__.startswith("asyncio") and sys.version_info < (3, 12):
        pytest.skip("asyncio before 3.12 gives a socket")
    assert run(main()) == (b"again", None)


def test_limit(loop, run):
    async def main():
        process = await asyncio.create_subprocess_exec(
            "/bin/sh", "-c", "head -c 100000 /dev/zero", stdout=PIPE, limit=1000
        )
        with pytest.raises(ValueError, match=r"chunk exceed the limit|longer than limit"):
            await process.stdout.readline()
        process.stdout._transport.resume_reading()
        await process.communicate()

    run(main())


def test_reading_late(loop, run):
    """What the child wrote before its end is all there."""

    async def main():
        process = await asyncio.create_subprocess_exec("/bin/echo", "hello", stdout=PIPE)
        await asyncio.sleep(0.1)
        assert await process.stdout.read() == b"hello\n"
        assert await process.wait() == 0

    run(main())


def test_back_pressure(loop, run):
    """A reader that does not read stops the child."""

    async def main():
        process = await asyncio.create_subprocess_exec(
            "/bin/sh", "-c", "head -c 5000000 /dev/zero; echo done >&2", stdout=PIPE, stderr=PIPE
        )
        await asyncio.sleep(0.2)
        assert len(process.stdout._buffer) < 1_000_000
        assert not process.stderr._buffer
        out, err = await process.communicate()
        assert len(out) == 5_000_000
        assert err == b"done\n"

    run(main())


def test_drain(loop, run):
    async def main():
        process = await asyncio.create_subprocess_shell(
            "sleep 0.2; exec cat >/dev/null", stdin=PIPE
        )
        process.stdin.write(LARGE)
        assert process.stdin.transport.get_write_buffer_size() > 0
        await asyncio.wait_for(process.stdin.drain(), 10)
        process.stdin.close()
        assert await process.wait() == 0

    run(main())


def test_broken_pipe(loop, run):
    async def main():
        process = await asyncio.create_subprocess_shell("exec <&-; sleep 0.1", stdin=PIPE)
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            while True:
                process.stdin.write(LARGE)
                await process.stdin.drain()
        assert await process.wait() == 0

    run(main())


def test_communicate_with_a_child_that_does_not_read(loop, run):
    async def main():
        process = await asyncio.create_subprocess_exec("/bin/true", stdin=PIPE, stdout=PIPE)
        assert await process.communicate(LARGE) == (b"", None)
        assert process.returncode == 0

    run(main())


def test_closed_reader_is_noticed_without_writing(loop, run):
    async def main():
        transport, protocol = await loop.subprocess_exec(
            Recorder, "/bin/sh", "-c", "exec <&-; exec sleep 100", stdout=None, stderr=None
        )
        await until(lambda: ("pipe lost", 0, None) in protocol.events)
        assert transport.get_pipe_transport(0).is_closing()
        transport.close()
        await protocol.lost

    run(main())


# -- the protocol ---------------------------------------------------------------------------------


def test_order_of_callbacks(loop, run):
    async def main():
        transport, protocol = await loop.subprocess_shell(Recorder, "cat; exit 5", stderr=None)
        assert protocol.events == ["made"]
        assert protocol.transport is transport
        assert isinstance(transport, asyncio.SubprocessTransport)
        transport.get_pipe_transport(0).write(b"hello")
        await until(lambda: protocol.data[1] == b"hello")
        transport.get_pipe_transport(0).close()
        assert await protocol.lost is None
        assert protocol.events[:2] == ["made", ("data", 1)]
        assert sorted(map(str, protocol.events[2:-1])) == [
            "('exited', 5)",
            "('pipe lost', 0, None)",
            "('pipe lost', 1, None)",
        ]
        assert protocol.events[-1] == "lost"
        assert transport.get_returncode() == 5
        transport.close()

    run(main())


def test_end_without_pipes(loop, run):
    async def main():
        transport, protocol = await loop.subprocess_exec(
            Recorder, "/bin/true", stdin=None, stdout=None, stderr=None
        )
        await protocol.lost
        assert protocol.events == ["made", ("exited", 0), "lost"]
        transport.close()

    run(main())


def test_pipes_outlive_the_child(loop, run):
    """connection_lost waits for a grandchild that holds the output."""

    async def main():
        transport, protocol = await loop.subprocess_shell(
            Recorder, "(sleep 0.3; echo late) & echo early", stdin=None, stderr=None
        )
        await until(lambda: ("exited", 0) in protocol.events)
        assert not protocol.lost.done()
        await protocol.lost
        assert protocol.data[1] == b"early\nlate\n"
        assert protocol.events[-2:] == [("pipe lost", 1, None), "lost"]
        transport.close()

    run(main())


def test_get_pipe_transport(loop, run):
    async def main():
        transport, protocol = await loop.subprocess_exec(
            Recorder, "/bin/cat", stdin=PIPE, stdout=PIPE, stderr=DEVNULL
        )
        stdin, stdout = transport.get_pipe_transport(0), transport.get_pipe_transport(1)
        assert isinstance(stdin, asyncio.WriteTransport)
        assert isinstance(stdout, asyncio.ReadTransport)
        assert transport.get_pipe_transport(2) is None
        assert transport.get_pipe_transport(7) is None
        popen = transport.get_extra_info("subprocess")
        assert stdin.get_extra_info("pipe") is popen.stdin
        assert stdout.get_extra_info("pipe") is popen.stdout
        stdin.close()
        await protocol.lost
        transport.close()

    run(main())


def test_flow_control_reaches_the_protocol(loop, run):
    async def main():
        transport, protocol = await loop.subprocess_shell(
            Recorder, "sleep 0.1; exec cat >/dev/null", stdout=None, stderr=None
        )
        transport.get_pipe_transport(0).write(LARGE)
        assert protocol.events == ["made", "pause"]
        await until(lambda: protocol.events == ["made", "pause", "resume"])
        transport.get_pipe_transport(0).close()
        await protocol.lost
        transport.close()

    run(main())


def test_pause_reading(loop, run):
    async def main():
        transport, protocol = await loop.subprocess_exec(
            Recorder, "/bin/cat", stdin=PIPE, stdout=PIPE, stderr=None
        )
        transport.get_pipe_transport(1).pause_reading()
        transport.get_pipe_transport(0).write(b"data")
        await asyncio.sleep(0.05)
        assert protocol.data[1] == b""
        transport.get_pipe_transport(1).resume_reading()
        await until(lambda: protocol.data[1] == b"data")
        transport.get_pipe_transport(0).close()
        await protocol.lost
        transport.close()

    run(main())


def test_set_protocol(loop, run):
    async def main():
        transport, first = await loop.subprocess_exec(
            Recorder, "/bin/cat", stdin=PIPE, stdout=PIPE, stderr=None
        )
        assert transport.get_protocol() is first
        second = Recorder()
        second.events.append("put in place")
        second.transport = transport
        transport.set_protocol(second)
        assert transport.get_protocol() is second
        transport.get_pipe_transport(0).write(b"data")
        transport.get_pipe_transport(0).close()
        await second.lost
        assert second.data[1] == b"data"
        assert first.events == ["made"]
        transport.close()

    run(main())


@pytest.mark.parametrize("method", ["pipe_data_received", "process_exited", "pipe_connection_lost"])
def test_failing_callbacks_are_reported(loop, run, errors, method):
    class Failing(Recorder):
        pass

    def fail(self, *args):
        raise ZeroDivisionError

    setattr(Failing, method, fail)

    async def main():
        transport, protocol = await loop.subprocess_exec(Failing, "/bin/echo", "x", stderr=None)
        await protocol.lost
        transport.close()

    run(main())
    assert errors
    assert {type(exc) for exc in errors.exceptions} == {ZeroDivisionError}
    assert all(message.startswith("Exception in callback") for message in errors.messages)


def test_failing_connection_made_is_reported(loop, run, errors):
    class Failing(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            raise ZeroDivisionError

    async def main():
        transport, protocol = await loop.subprocess_exec(Failing, "/bin/true", stdin=None)
        await protocol.lost
        transport.close()

    run(main())
    assert [type(exc) for exc in errors.exceptions] == [ZeroDivisionError]


def test_overridden_connect_read_pipe(loop, run):
    """A loop whose method was replaced is asked through it."""
    asked = []
    original = loop.connect_read_pipe

    async def connect(factory, pipe):
        asked.append(pipe)
        return await original(factory, pipe)

    loop.connect_read_pipe = connect

    async def main():
        process = await asyncio.create_subprocess_exec("/bin/echo", "x", stdout=PIPE)
        assert await process.communicate() == (b"x\n", None)

    run(main())
    assert len(asked) == 1


def test_failing_connect_read_pipe(loop, run, no_child):
    async def connect(factory, pipe):
        raise ZeroDivisionError

    async def main():
        before = open_fds()
        original, loop.connect_read_pipe = loop.connect_read_pipe, connect
        with pytest.raises(ZeroDivisionError):
            await asyncio.create_subprocess_exec("/bin/cat", stdin=PIPE, stdout=PIPE)
        loop.connect_read_pipe = original
        await until(lambda: open_fds() <= before and no_child())

    if type(loop).__module__.startswith("asyncio"):
        pytest.skip("asyncio waits for ever for the child that it never tells of its end")
    run(main())


def test_debug_log(loop, run, caplog):
    caplog.set_level("DEBUG", logger="asyncio")

    async def main():
        loop.set_debug(True)
        process = await asyncio.create_subprocess_exec(
            "/bin/echo", "secret", stdin=DEVNULL, stdout=PIPE, stderr=STDOUT
        )
        await process.communicate()
        process = await asyncio.create_subprocess_shell("true", stderr=PIPE)
        await process.communicate()

    run(main())
    text = caplog.text
    assert f"execute program '/bin/echo' stdin={DEVNULL} stdout=stderr=<pipe>\n" in text
    assert "process '/bin/echo' created: pid" in text
    assert "execute program '/bin/echo': <" in text
    assert "run shell command 'true' stderr=<pipe>\n" in text
    assert "exited with return code 0" in text
    assert "secret" not in text
