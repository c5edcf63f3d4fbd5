"""Datagram transports: sending, buffering, errors, contexts, closing."""

import asyncio
import contextvars
import gc
import socket
import sys
import warnings

import pytest
from support import PAUSES_ANYWHERE, until
from test_datagram import HERE, Datagrams, end, endpoint, name_of

pytestmark = pytest.mark.core

var = contextvars.ContextVar("var", default="unset")
HEADER = 8 if sys.version_info >= (3, 13) else 0


# ---- sendto ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data", [b"abc", bytearray(b"abc"), memoryview(b"abc"), memoryview(b"xabc")[1:]]
)
def test_kinds_of_data(loop, run, data):
    async def main():
        server, got = await endpoint()
        client, protocol = await endpoint(remote_addr=name_of(server))
        assert client.sendto(data) is None
        client.sendto(data, None)
        client.sendto(data=data, addr=name_of(server))
        await until(lambda: len(got.received) == 3)
        assert got.received == [(b"abc", name_of(client))] * 3
        await end(got, protocol)

    run(main())


@pytest.mark.parametrize("data", ["text", 5, None, [b"a"], object()])
def test_data_that_is_none(loop, run, data):
    async def main():
        transport, protocol = await endpoint()
        with pytest.raises(TypeError, match="data argument must be a bytes-like object, not '"):
            transport.sendto(data, name_of(transport))
        await end(protocol)

    run(main())


def test_arguments(loop, run):
    async def main():
        transport, protocol = await endpoint()
        for args, kwargs in [
            ((), {}),
            ((b"a", None, 3), {}),
            ((b"a",), {"data": b"b"}),
            ((b"a",), {"address": None}),
        ]:
            with pytest.raises(TypeError):
                transport.sendto(*args, **kwargs)
        await end(protocol)

    run(main())


def test_another_address_than_the_endpoint_has(loop, run):
    async def main():
        server, got = await endpoint()
        name = name_of(server)
        client, protocol = await endpoint(remote_addr=name)
        with pytest.raises(ValueError) as info:
            client.sendto(b"x", ("127.0.0.1", 1))
        assert str(info.value) == f"Invalid address: must be None or {name}"
        client.sendto(b"equal", (name[0], name[1]))
        await until(lambda: got.received)
        await end(got, protocol)

    run(main())


@pytest.mark.parametrize("address", [None, "text", ("127.0.0.1",), ("127.0.0.1", "port"), 7])
def test_addresses_that_cannot_be(loop, run, errors, address):
    """What the socket module refuses with TypeError ends the transport."""

    async def main():
        transport, protocol = await endpoint()
        transport.sendto(b"x", address)
        assert transport.is_closing()
        assert isinstance(await protocol.lost, TypeError)

    run(main())
    assert errors.messages == ["Fatal write error on datagram transport"]
    assert isinstance(errors.exceptions[0], TypeError)


def test_a_port_out_of_range(loop, run, errors):
    async def main():
        transport, protocol = await endpoint()
        transport.sendto(b"x", ("127.0.0.1", 70000))
        assert isinstance(await protocol.lost, OverflowError)

    run(main())


def test_equal_addresses_in_many_objects(loop, run):
    async def main():
        server, got = await endpoint()
        host, port = name_of(server)
        client, protocol = await endpoint()
        for i in range(200):
            client.sendto(b"%d" % i, ("".join(host), port))
            client.sendto(b"%d" % i, name_of(server))
            if i % 20 == 0:
                await until(lambda i=i: len(got.received) == 2 * (i + 1))
        await until(lambda: len(got.received) == 400)
        assert [data for data, _ in got.received[::2]] == [b"%d" % i for i in range(200)]
        await end(got, protocol)

    run(main())


# ---- errors ------------------------------------------------------------------------------


def closed_port():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(HERE)
        return sock.getsockname()


def test_nobody_listens(loop, run):
    """The ICMP answer comes as ConnectionRefusedError; the transport lives on."""

    async def main():
        transport, protocol = await endpoint(remote_addr=closed_port())
        transport.sendto(b"x")
        await until(lambda: protocol.failures)
        assert [type(exc) for exc in protocol.failures] == [ConnectionRefusedError]
        assert not transport.is_closing()
        transport.sendto(b"again")
        await until(lambda: len(protocol.failures) == 2)
        await end(protocol)

    run(main())


def test_a_listener_that_comes_back(loop, run):
    async def main():
        address = closed_port()
        transport, protocol = await endpoint(remote_addr=address)
        transport.sendto(b"x")
        await until(lambda: protocol.failures)
        _, got = await endpoint(local_addr=address)
        transport.sendto(b"y")
        await until(lambda: got.received)
        await end(protocol, got)

    run(main())


def test_callbacks_that_fail(loop, run, errors):
    """They are reported; the transport lives on."""

    class Failing(Datagrams):
        def datagram_received(self, data, addr):
            super().datagram_received(data, addr)
            raise ZeroDivisionError

        def error_received(self, exc):
            super().error_received(exc)
            raise LookupError

    async def main():
        transport, protocol = await endpoint(Failing)
        other, second = await endpoint()
        for _ in range(3):
            other.sendto(b"x", name_of(transport))
        await until(lambda: len(protocol.received) == 3)
        with pytest.raises(LookupError):  # a failure of sendto() itself is told inside it
            transport.sendto(b"x" * 70000, name_of(other))
        assert not transport.is_closing()
        refused, third = await endpoint(Failing, remote_addr=closed_port())
        refused.sendto(b"x")
        await until(lambda: third.failures)
        await end(protocol, second, third)

    run(main())
    kinds = [type(exc) for exc in errors.exceptions]
    assert kinds == [ZeroDivisionError] * 3 + [LookupError]
    assert all(text.startswith("Exception in callback") for text in errors.messages)


def test_connection_made_and_lost_that_fail(loop, run, errors):
    class Failing(Datagrams):
        def connection_made(self, transport):
            super().connection_made(transport)
            raise ZeroDivisionError

        def connection_lost(self, exc):
            super().connection_lost(exc)
            raise LookupError

    async def main():
        transport, protocol = await endpoint(Failing)
        sock = transport.get_extra_info("socket")
        transport.close()
        await protocol.lost
        await asyncio.sleep(0)
        assert sock.fileno() == -1

    run(main())
    assert [type(exc) for exc in errors.exceptions] == [ZeroDivisionError, LookupError]


def test_keyboard_interrupt_leaves_the_loop(loop, run):
    class Interrupted(Datagrams):
        def datagram_received(self, data, addr):
            super().datagram_received(data, addr)
            if data == b"stop":
                raise KeyboardInterrupt

    async def main():
        return await endpoint(Interrupted)

    async def rest():
        await until(lambda: len(protocol.received) == 3)
        await end(protocol)

    transport, protocol = run(main())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for data in (b"a", b"stop", b"b"):
            sock.sendto(data, name_of(transport))
        with pytest.raises(KeyboardInterrupt):
            loop.run_forever()
        assert [data for data, _ in protocol.received] == [b"a", b"stop"]
        run(rest())
    assert [data for data, _ in protocol.received] == [b"a", b"stop", b"b"]


# ---- reading -----------------------------------------------------------------------------


@pytest.fixture
def pauses(kind):
    """Skips where asyncio's datagram transport cannot pause reading."""
    if kind == "asyncio" and not PAUSES_ANYWHERE:
        pytest.skip("datagram transports pause reading since 3.11.4")


def test_pause_and_resume_reading(pauses, loop, run):
    """Nothing is lost, whenever the pause comes."""

    class Pausing(Datagrams):
        def datagram_received(self, data, addr):
            super().datagram_received(data, addr)
            if len(self.received) == 3:
                self.transport.pause_reading()

    async def main():
        transport, protocol = await endpoint(Pausing)
        assert transport.is_reading()
        other, second = await endpoint()
        for i in range(10):
            other.sendto(b"%d" % i, name_of(transport))
        await until(lambda: len(protocol.received) == 3)
        await asyncio.sleep(0.02)
        assert len(protocol.received) == 3
        assert not transport.is_reading()
        transport.pause_reading()
        transport.resume_reading()
        transport.resume_reading()
        assert transport.is_reading()
        await until(lambda: len(protocol.received) == 10)
        assert [data for data, _ in protocol.received] == [b"%d" % i for i in range(10)]
        await end(protocol, second)

    run(main())


def test_paused_and_resumed_at_once(pauses, loop, run):
    class Toggling(Datagrams):
        def datagram_received(self, data, addr):
            super().datagram_received(data, addr)
            self.transport.pause_reading()
            self.transport.resume_reading()

    async def main():
        transport, protocol = await endpoint(Toggling)
        other, second = await endpoint()
        for i in range(30):
            other.sendto(b"%d" % i, name_of(transport))
        await until(lambda: len(protocol.received) == 30)
        assert [data for data, _ in protocol.received] == [b"%d" % i for i in range(30)]
        await end(protocol, second)

    run(main())


@pytest.mark.parametrize("how", ["close", "abort"])
def test_nothing_comes_after_the_end(loop, run, how):
    class Closing(Datagrams):
        def datagram_received(self, data, addr):
            super().datagram_received(data, addr)
            if len(self.received) == 2:
                getattr(self.transport, how)()

    async def main():
        transport, protocol = await endpoint(Closing)
        other, second = await endpoint()
        for i in range(10):
            other.sendto(b"%d" % i, name_of(transport))
        assert await protocol.lost is None
        await asyncio.sleep(0.02)
        assert len(protocol.received) == 2
        await end(second)

    run(main())


def test_a_transport_in_place_of_another(loop, run):
    """A callback closes its transport and opens another, which gets its descriptor number."""
    made = []

    class Replacing(Datagrams):
        def datagram_received(self, data, addr):
            super().datagram_received(data, addr)
            self.transport.abort()

        def connection_lost(self, exc):
            super().connection_lost(exc)
            loop.call_soon(lambda: made.append(loop.create_task(endpoint())))

    async def main():
        other, second = await endpoint()
        for _ in range(20):
            made.clear()
            transport, protocol = await endpoint(Replacing)
            other.sendto(b"x", name_of(transport))
            await until(lambda: made)
            replaced, third = await made[0]
            other.sendto(b"y", name_of(replaced))
            await until(lambda third=third: third.received)
            await end(third)
        await end(second)

    run(main())


def test_descriptors_of_transports_are_taken(loop, run):
    async def main():
        transport, protocol = await endpoint()
        fd = transport.get_extra_info("socket").fileno()
        for method in (loop.add_reader, loop.add_writer):
            with pytest.raises(RuntimeError, match="is used by transport"):
                method(fd, print)
        await end(protocol)

    run(main())


# ---- writing -----------------------------------------------------------------------------


@pytest.fixture
def full(tmp_path, monkeypatch):
    """The path of a Unix datagram socket that is full, and the socket."""
    monkeypatch.chdir(tmp_path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.bind("peer")
    sock.setblocking(False)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as filler:
        filler.setblocking(False)
        filler.connect("peer")
        with pytest.raises(BlockingIOError):
            for _ in range(10000):
                filler.send(b"filler")
    yield sock
    sock.close()


def drain(sock):
    found = []
    while True:
        try:
            data = sock.recv(1 << 18)
        except BlockingIOError:
            return found
        if data != b"filler":
            found.append(data)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems drop instead of waiting")
def test_the_buffer(kind, loop, run, full):
    if kind == "asyncio" and sys.version_info[:2] == (3, 13):
        pytest.skip("asyncio of 3.13 counts headers in and never out")

    async def main():
        transport, protocol = await endpoint(remote_addr="peer", family=socket.AF_UNIX)
        assert transport.get_write_buffer_limits() == (16 * 1024, 64 * 1024)
        changing = bytearray(b"2" * 1000)
        transport.sendto(b"1" * 1000)
        transport.sendto(changing)
        changing[:] = b"x" * 1000
        assert transport.get_write_buffer_size() == 2 * (1000 + HEADER)
        assert "write=<polling" in repr(transport)
        assert protocol.events == ["made"]
        transport.set_write_buffer_limits(high=2500)
        assert protocol.events == ["made"]
        transport.sendto(b"3" * 1000)
        assert protocol.events == ["made", "pause"]
        transport.sendto(b"4" * 1000)
        found = []

        def collect():
            found.extend(drain(full))
            return len(found) == 4

        await until(collect)
        assert found == [b"%d" % i * 1000 for i in (1, 2, 3, 4)]
        await until(lambda: protocol.events[-1] == "resume")
        assert transport.get_write_buffer_size() == 0
        assert protocol.events == ["made", "pause", "resume"]
        await end(protocol)

    run(main())


@pytest.mark.skipif(sys.platform != "linux", reason="other systems drop instead of waiting")
def test_close_sends_what_waits(loop, run, full):
    async def main():
        transport, protocol = await endpoint(remote_addr="peer", family=socket.AF_UNIX)
        transport.sendto(b"1")
        transport.sendto(b"2")
        transport.close()
        assert transport.is_closing()
        await asyncio.sleep(0.02)
        assert not protocol.lost.done()
        found = []

        def collect():
            found.extend(drain(full))
            return len(found) == 2

        await until(collect)
        assert found == [b"1", b"2"]
        assert await protocol.lost is None

    run(main())


@pytest.mark.skipif(sys.platform != "linux", reason="other systems drop instead of waiting")
def test_abort_drops_what_waits(loop, run, full):
    async def main():
        transport, protocol = await endpoint(remote_addr="peer", family=socket.AF_UNIX)
        transport.sendto(b"1")
        transport.close()
        transport.abort()
        assert await protocol.lost is None
        assert drain(full) == []

    run(main())


@pytest.mark.skipif(sys.platform != "linux", reason="other systems drop instead of waiting")
def test_what_waits_meets_an_error(loop, run, full):
    """The receiver goes away: each datagram that waited is an error of its own."""

    async def main():
        transport, protocol = await endpoint(remote_addr="peer", family=socket.AF_UNIX)
        transport.sendto(b"1")
        transport.sendto(b"2")
        full.close()
        await until(lambda: len(protocol.failures) >= 2)
        assert type(protocol.failures[0]) is ConnectionRefusedError
        assert all(isinstance(exc, OSError) for exc in protocol.failures)
        await until(lambda: "write=<idle" in repr(transport))
        await end(protocol)

    run(main())


def test_limits(loop, run):
    async def main():
        transport, protocol = await endpoint()
        transport.set_write_buffer_limits(low=100)
        assert transport.get_write_buffer_limits() == (100, 400)
        transport.set_write_buffer_limits(high=100, low=1)
        assert transport.get_write_buffer_limits() == (1, 100)
        with pytest.raises(ValueError, match=r"high \(1\) must be >= low \(2\) must be >= 0"):
            transport.set_write_buffer_limits(high=1, low=2)
        await end(protocol)

    run(main())


def test_sent_before_it_is_closed(loop, run):
    async def main():
        server, got = await endpoint()
        for how in ("close", "abort"):
            got.received.clear()
            client, protocol = await endpoint(remote_addr=name_of(server))
            for _ in range(20):
                client.sendto(b"x")
            getattr(client, how)()
            await protocol.lost
            await until(lambda: len(got.received) == 20)
        await end(got)

    run(main())


def test_sent_when_sendto_returns(loop, run):
    async def main():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind(HERE)
            sock.settimeout(5)
            transport, protocol = await endpoint(remote_addr=sock.getsockname())
            transport.sendto(b"x")
            assert sock.recv(10) == b"x"
            await end(protocol)

    run(main())


def test_writes_after_the_end(loop, run, caplog):
    async def main():
        server, got = await endpoint()
        client, protocol = await endpoint(remote_addr=name_of(server))
        client.close()
        for _ in range(8):
            client.sendto(b"x")
        assert [r.getMessage() for r in caplog.records if r.name == "asyncio"] == [
            "socket.send() raised exception."
        ] * 4
        await protocol.lost
        await asyncio.sleep(0.01)
        client.sendto(b"x")
        await asyncio.sleep(0.01)
        assert got.received == []
        await end(got)

    run(main())


def test_close_twice(loop, run):
    async def main():
        transport, protocol = await endpoint()
        transport.close()
        transport.close()
        transport.abort()
        assert transport.is_closing()
        await protocol.lost
        transport.close()
        await asyncio.sleep(0)
        assert protocol.events == ["made", "lost"]
        assert transport.get_protocol() is None

    run(main())


# ---- contexts, nested runs, warnings -----------------------------------------------------


def test_contexts(loop, run):
    seen = []
    made = []

    class Seeing(Datagrams):
        def __init__(self):
            super().__init__()
            made.append(self)

        def connection_made(self, transport):
            super().connection_made(transport)
            seen.append(("made", var.get()))

        def datagram_received(self, data, addr):
            super().datagram_received(data, addr)
            seen.append(("received", var.get()))

        def connection_lost(self, exc):
            seen.append(("lost", var.get()))
            super().connection_lost(exc)

    async def main():
        var.set("maker")
        transport, protocol = await endpoint(Seeing)
        var.set("later")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"x", name_of(transport))
            await until(lambda: protocol.received)

    async def close(protocol):
        protocol.transport.close()
        await protocol.lost

    run(main())
    run(close(made[0]))
    assert seen[:2] == [("made", "maker"), ("received", "maker")]


@pytest.mark.only("uvloop_clone")
def test_a_nested_run_gets_the_rest_of_a_batch(loop, run):
    """datagram_received() may run the loop until a datagram has come that was read with its own."""
    loop.allow_nested()

    class Nesting(Datagrams):
        def datagram_received(self, data, addr):
            super().datagram_received(data, addr)
            if data == b"0":
                loop.run_until_complete(asyncio.wait_for(until(self.has_three), 5))
                self.events.append("nested")

        def has_three(self):
            return len(self.received) >= 3

    async def main():
        transport, protocol = await endpoint(Nesting)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            for i in range(5):
                sock.sendto(b"%d" % i, name_of(transport))
            await until(lambda: protocol.events == ["made", "nested"])
            await until(lambda: len(protocol.received) == 5)
        assert [data for data, _ in protocol.received] == [b"%d" % i for i in range(5)]
        await end(protocol)

    run(main())


def test_unclosed(kind, new_loop):
    """The loop's end leaves a ResourceWarning and a closed socket."""
    loop = new_loop()

    async def main():
        transport, _ = await endpoint()
        return transport.get_extra_info("socket").fileno(), name_of(transport)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fd, name = loop.run_until_complete(main())
        loop.close()
        del loop
        gc.collect()
    texts = [str(w.message) for w in caught if w.category is ResourceWarning]
    assert len([t for t in texts if t.startswith("unclosed transport <") and f"fd={fd}" in t]) == 1
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(name)  # free again


def test_used_after_the_loop_was_closed(pauses, kind, new_loop):
    loop = new_loop()

    async def main():
        transport, _ = await endpoint()
        return transport

    transport = loop.run_until_complete(main())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        loop.close()
        assert transport.sendto(b"x", name_of(transport)) is None
        transport.pause_reading()
        assert f"fd={transport.get_extra_info('socket').fileno()}" in repr(transport)
        del transport
        gc.collect()


def test_debug_log(pauses, loop, run, caplog):
    loop.set_debug(True)

    async def main():
        with caplog.at_level("DEBUG", logger="asyncio"):
            transport, protocol = await endpoint()
            client, second = await endpoint(remote_addr=name_of(transport))
            transport.pause_reading()
            transport.resume_reading()
        await end(protocol, second)

    run(main())
    texts = [record.getMessage() for record in caplog.records]
    assert any(t.startswith("Datagram endpoint local_addr=('127.0.0.1', 0) rem") for t in texts)
    assert any(t.startswith("Datagram endpoint remote_addr=('127.0.0.1', ") for t in texts)
    assert any(t.endswith("pauses reading") for t in texts)
    assert any(t.endswith("resumes reading") for t in texts)
