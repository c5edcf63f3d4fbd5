"""The two TLS engines: which one serves, that they agree, and that neither outlives its memory."""

import asyncio
import gc
import os
import ssl
import subprocess
import sys
import weakref
from pathlib import Path

import pytest
from support import Recorder, run_script, until
from tls_peer import NAME, Peer, client_context, connect, part, server_context

from uvloop_clone import _tls

pytestmark = [pytest.mark.core, pytest.mark.only("uvloop_clone")]

linked_to_openssl = pytest.mark.skipif(
    not ssl.OPENSSL_VERSION.startswith("OpenSSL ") or not hasattr(__import__("_ssl"), "__file__"),
    reason="this Python's ssl is not linked to an OpenSSL of its own",
)


def engine_of(transport):
    return transport._ssl_protocol._engine


@pytest.fixture
def choose(loop):
    """Choose an engine; afterwards the one of before is in force again."""
    before = _tls.engine.choose(loop)
    yield lambda name: _tls.engine.choose(loop, name)
    _tls.engine.choose(loop, before)


@linked_to_openssl
def test_direct_is_proven(loop, run, choose):
    assert choose("direct") == "direct", _tls.engine.reason
    assert _tls.engine.reason is None

    async def main():
        transport, protocol, peer = await connect()
        assert engine_of(transport) == "direct"
        await part(transport, protocol, peer)

    run(main())


@pytest.mark.parametrize("name", ["direct", "portable"])
def test_both_carry_data(loop, run, choose, name):
    chosen = choose(name)

    async def main():
        transport, protocol, peer = await connect()
        assert engine_of(transport) == chosen
        data = bytes(range(256)) * 4000
        transport.write(data)
        assert await peer.receive(len(data)) == data
        sending = asyncio.ensure_future(peer.send(data))
        await until(lambda: len(protocol.data) == len(data))
        await sending
        assert protocol.data == data
        await part(transport, protocol, peer)

    run(main())


def test_errors_are_the_same(loop, run, choose):
    async def broken():
        transport, protocol, peer = await connect()
        record = bytearray(peer.encrypt(b"to be broken"))
        record[-1] ^= 1
        await loop.sock_sendall(peer.sock, peer.encrypt(b"") + record)
        exc = await asyncio.wait_for(protocol.lost, 10)
        peer.sock.close()
        return type(exc), exc.args[0], exc.reason, exc.library, str(exc).split(" (_ssl")[0]

    seen = []
    for name in ("direct", "portable"):
        choose(name)
        seen.append(run(broken()))
    assert seen[0] == seen[1]
    assert seen[0][0] is ssl.SSLError


def test_errors_of_others_are_not_ours(loop, run, choose):
    """What someone leaves in OpenSSL's error queue of this thread harms no connection."""
    choose("direct")

    async def main():
        transport, protocol, peer = await connect()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        for _ in range(3):
            with pytest.raises(ssl.SSLError):
                context.load_verify_locations(cadata="no certificate")
            await peer.send(b"x")
            transport.write(b"y")
            assert await peer.receive(1) == b"y"
        await until(lambda: protocol.data == b"xxx")
        await part(transport, protocol, peer)

    run(main())


def test_a_subclassed_sslobject_is_served_through_its_methods(loop, run, choose):
    choose("direct")
    calls = []

    class Counting(ssl.SSLObject):
        def read(self, *args):
            calls.append("read")
            return super().read(*args)

        def write(self, data):
            calls.append("write")
            return super().write(data)

    async def main():
        context = client_context()
        context.sslobject_class = Counting
        transport, protocol, peer = await connect(context=context)
        assert engine_of(transport) == "portable"
        transport.write(b"written")
        assert await peer.receive(7) == b"written"
        await peer.send(b"read")
        await until(lambda: protocol.data == b"read")
        assert {"read", "write"} <= set(calls)
        await part(transport, protocol, peer)

    run(main())


def test_patched_methods_are_called(loop, run, choose, monkeypatch):
    choose("direct")
    written = []
    original = ssl.SSLObject.write

    def write(self, data):
        written.append(bytes(data))
        return original(self, data)

    monkeypatch.setattr(ssl.SSLObject, "write", write)

    async def main():
        transport, protocol, peer = await connect()
        assert engine_of(transport) == "portable"
        transport.write(b"seen")
        assert await peer.receive(4) == b"seen"
        assert b"seen" in written
        await part(transport, protocol, peer)

    run(main())


def test_the_environment_may_forbid_it(kind):
    code = """
        from uvloop_clone import _tls
        loop = make_loop(KIND)
        print(_tls.engine.choose(loop), "|", _tls.engine.reason)
        loop.close()
    """
    done = run_script(kind, code, env={"UVLOOP_CLONE_TLS": "portable"})
    assert done.stdout == "portable | it is not wanted\n", done.stderr


def test_a_proof_that_fails(loop, choose, monkeypatch):
    """Wherever the search for OpenSSL ends, the portable engine serves."""
    client, server = _tls._anonymous(ssl.PROTOCOL_TLS_CLIENT), None
    monkeypatch.setattr(_tls.ssl, "OPENSSL_VERSION", "LibreSSL 3.8.2")
    assert choose("direct") == "portable"
    assert "LibreSSL" in _tls.engine.reason
    monkeypatch.undo()
    monkeypatch.setattr(_tls.ssl, "OPENSSL_VERSION_NUMBER", 0x10101000)
    assert choose("direct") == "portable"
    monkeypatch.undo()
    monkeypatch.setattr(_tls, "_anonymous", _refused)
    assert choose("direct") == "portable"
    assert "no ciphers" in _tls.engine.reason
    monkeypatch.undo()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)  # without a certificate: no handshake
    reason = None
    try:
        reason = loop._prove_openssl(
            __import__("_ssl").__file__, ssl.OPENSSL_VERSION_NUMBER, client, server
        )
    except ssl.SSLError:
        reason = "failed"
    assert reason
    with pytest.raises(TypeError):
        loop._prove_openssl("one argument")


def _refused(protocol):
    raise ssl.SSLError("no ciphers")


@pytest.mark.parametrize("name", ["direct", "portable"])
def test_the_sslobject_may_outlive_the_connection(loop, run, choose, name):
    choose(name)

    async def main():
        transport, protocol, peer = await connect()
        ssl_object = transport.get_extra_info("ssl_object")
        await part(transport, protocol, peer)
        gone = weakref.ref(transport)
        protocol.transport = None
        del transport, protocol
        gc.collect()
        await asyncio.sleep(0)
        assert gone() is None
        assert ssl_object.version()
        assert ssl_object.cipher()
        with pytest.raises(ssl.SSLError):
            ssl_object.read(10)
        with pytest.raises(ssl.SSLError):
            ssl_object.write(b"into the void")

    run(main())


@pytest.mark.parametrize("name", ["direct", "portable"])
def test_connections_are_freed(loop, run, choose, name):
    choose(name)

    async def one():
        transport, protocol, peer = await connect()
        refs = [weakref.ref(transport), weakref.ref(protocol)]
        refs.append(weakref.ref(transport.get_extra_info("ssl_object")))
        await part(transport, protocol, peer)
        return refs

    async def main():
        refs = await one()
        for _ in range(3):
            await asyncio.sleep(0)
        gc.collect()
        assert [ref() for ref in refs] == [None] * 3

    run(main())


def test_a_transport_that_never_was(loop, run, errors):
    """What was made for a connection that then failed to come about is freed, with no warning."""

    async def main():
        protocol = Recorder()
        for _ in range(10):
            loop._tls_protocol(protocol, client_context(), None, server_hostname=NAME)
        gc.collect()

    run(main())
    assert not errors


@pytest.mark.leaks
@pytest.mark.parametrize("name", ["direct", "portable"])
def test_nothing_grows_over_many_connections(loop, run, choose, name):
    psutil = pytest.importorskip("psutil")
    choose(name)
    server_side, client_side = server_context(), client_context()
    process = psutil.Process()

    async def one():
        transport, protocol, peer = await connect(context=client_side)
        transport.write(b"x" * 1000)
        assert await peer.receive(1000) == b"x" * 1000
        await peer.send(b"y" * 20_000)
        await until(lambda: len(protocol.data) == 20_000)
        transport.abort()
        peer.sock.close()
        await asyncio.wait_for(protocol.lost, 10)

    async def served():
        from support import tcp_pair

        a, b = tcp_pair()
        peer = Peer(b, client_side, False)
        (transport, protocol), _ = await asyncio.gather(
            loop.connect_accepted_socket(Recorder, a, ssl=server_side), peer.handshake()
        )
        transport.write(b"z")
        await part(transport, protocol, peer)

    async def batch(count):
        for _ in range(count):
            await one()
            await served()
        gc.collect()

    run(batch(100), limit=300)
    objects, memory = len(gc.get_objects()), process.memory_info().rss
    run(batch(1000), limit=300)
    assert len(gc.get_objects()) - objects < 100
    assert process.memory_info().rss - memory < 3_000_000


def test_no_memory_for_a_connection(kind):
    """Whichever allocation fails, MemoryError says so."""
    pytest.importorskip("_testcapi")
    result = run_script(
        kind,
        """
        import _testcapi, ssl
        from uvloop_clone import _tls

        loop = make_loop(KIND)
        context = ssl.create_default_context()
        _tls.engine.choose(loop)

        def make():
            return loop._make_tls(
                asyncio.Protocol(), context, None, False, "name", 60.0, 30.0, True
            )

        make()
        for n in range(1, 40):
            _testcapi.set_nomemory(n, n + 1)
            try:
                make()
            except MemoryError:
                pass
            finally:
                _testcapi.remove_mem_hooks()
        loop.close()
        print("done")
        """,
        env={"PYTHONMALLOC": "debug"},
    )
    assert result.stdout == "done\n", result.stderr


@pytest.mark.slow
@pytest.mark.timeout(660)
def test_the_portable_engine_passes_the_other_tests():
    """All other tests of TLS once more, with the direct engine forbidden."""
    folder = Path(__file__).parent
    others = sorted(p for p in folder.glob("test_tls_*.py") if p != Path(__file__))
    assert others
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-m", "core", "--loop", "uvloop_clone", *others],
        env={**os.environ, "UVLOOP_CLONE_TLS": "portable"},
        capture_output=True,
        text=True,
        timeout=600,
        cwd=folder,
    )
    assert done.returncode == 0, done.stdout[-4000:]
