"""add_reader, add_writer and their counterparts."""

import asyncio
import contextvars
import gc
import os
import socket
import weakref

import pytest
from support import until

pytestmark = pytest.mark.core

var = contextvars.ContextVar("var", default="unset")


def fill(sock):
    """Write until the kernel takes no more."""
    total = 0
    try:
        while True:
            total += sock.send(b"x" * 65536)
    except BlockingIOError:
        return total


def drain(sock):
    total = 0
    try:
        while chunk := sock.recv(65536):
            total += len(chunk)
    except BlockingIOError:
        pass
    return total


def test_a_reader_is_called(loop, run, sockets):
    a, b = sockets
    seen = []

    async def main():
        loop.add_reader(a, lambda *args: seen.append((a.recv(10), args)), 1, 2)
        await asyncio.sleep(0.01)
        assert seen == []
        b.send(b"one")
        await until(lambda: seen)
        b.send(b"two")
        await until(lambda: len(seen) == 2)
        assert loop.remove_reader(a) is True

    run(main())
    assert seen == [(b"one", (1, 2)), (b"two", (1, 2))]


def test_a_reader_is_called_again_while_data_is_left(loop, run, sockets):
    a, b = sockets
    seen = []

    async def main():
        b.send(b"abc")
        loop.add_reader(a, lambda: seen.append(a.recv(1)))
        await until(lambda: len(seen) == 3)
        loop.remove_reader(a)

    run(main())
    assert seen == [b"a", b"b", b"c"]


def test_a_reader_is_called_at_the_end_of_the_stream(loop, run, sockets):
    a, b = sockets
    done = []

    async def main():
        loop.add_reader(a, lambda: (done.append(a.recv(1)), loop.remove_reader(a)))
        b.close()
        await until(lambda: done)

    run(main())
    assert done == [b""]


def test_a_writer_is_called_when_there_is_room(loop, run, sockets):
    a, b = sockets
    seen = []

    async def main():
        sent = fill(a)
        assert loop.add_writer(a, seen.append, 1) is None
        await asyncio.sleep(0.02)
        assert seen == []
        received = 0
        while received < sent:
            received += drain(b)
        await until(lambda: seen)
        assert loop.remove_writer(a) is True
        count = len(seen)
        await asyncio.sleep(0.01)
        assert len(seen) == count

    run(main())


def test_both_directions(loop, run, sockets):
    a, b = sockets
    seen = []

    async def main():
        loop.add_reader(a, lambda: seen.append(("read", a.recv(10))))
        loop.add_writer(a, lambda: (seen.append("write"), loop.remove_writer(a)))
        await until(lambda: seen == ["write"])
        b.send(b"data")
        await until(lambda: len(seen) == 2)
        assert loop.remove_writer(a) is False
        assert loop.remove_reader(a) is True

    run(main())
    assert seen == ["write", ("read", b"data")]


def test_removing_one_direction_keeps_the_other(loop, run, sockets):
    a, b = sockets
    reads, writes = [], []

    async def main():
        loop.add_reader(a, lambda: reads.append(a.recv(10)))
        loop.add_writer(a, writes.append, 1)
        await until(lambda: writes)
        loop.remove_writer(a)
        b.send(b"1")
        await until(lambda: reads == [b"1"])
        loop.add_writer(a, writes.append, 2)
        loop.remove_reader(a)
        await until(lambda: 2 in writes)
        b.send(b"2")
        await asyncio.sleep(0.02)
        assert reads == [b"1"]
        loop.remove_writer(a)

    run(main())


def test_a_new_callback_replaces_the_old(loop, run, sockets):
    a, b = sockets
    seen = []

    async def main():
        loop.add_reader(a, lambda: seen.append(("old", a.recv(10))))
        loop.add_reader(a, lambda: seen.append(("new", a.recv(10))))
        b.send(b"x")
        await until(lambda: seen)
        assert loop.remove_reader(a) is True
        assert loop.remove_reader(a) is False

    run(main())
    assert seen == [("new", b"x")]


def test_the_replaced_callback_is_freed(loop, sockets):
    class Callback:
        def __call__(self):
            raise AssertionError

    a, _b = sockets
    old, new = Callback(), Callback()
    refs = weakref.ref(old), weakref.ref(new)
    loop.add_reader(a, old)
    loop.add_reader(a, new)
    del old, new
    assert refs[0]() is None and refs[1]() is not None
    loop.remove_reader(a)
    assert refs[1]() is None


def test_removed_inside_its_own_callback(loop, run, sockets):
    a, b = sockets
    seen = []

    def once():
        seen.append(a.recv(1))
        seen.append(loop.remove_reader(a))

    async def main():
        loop.add_reader(a, once)
        b.send(b"many bytes")
        await until(lambda: seen)
        await asyncio.sleep(0.02)

    run(main())
    assert seen == [b"m", True]


def test_removed_by_the_callback_of_another(loop, run, sockets):
    """Both are ready in the same poll; the first to run takes the other away."""
    a, b = sockets
    seen = []

    def take_away(own, other):
        seen.append(own)
        loop.remove_reader(own)
        loop.remove_reader(other)

    async def main():
        a.send(b"x")
        b.send(b"x")
        loop.add_reader(a, take_away, a, b)
        loop.add_reader(b, take_away, b, a)
        await until(lambda: seen)
        await asyncio.sleep(0.02)

    run(main())
    assert len(seen) == 1


def test_closed_inside_its_own_callback(loop, run):
    a, b = socket.socketpair()
    seen = []

    def once():
        loop.remove_reader(a)
        a.close()
        seen.append(1)

    async def main():
        loop.add_reader(a, once)
        b.send(b"x")
        await until(lambda: seen)
        b.close()

    run(main())


@pytest.mark.parametrize("how", ["number", "object"])
def test_numbers_and_objects(loop, run, sockets, how):
    a, b = sockets
    seen = []

    class HasFileno:
        def fileno(self):
            return a.fileno()

    async def main():
        loop.add_reader(a.fileno() if how == "number" else HasFileno(), lambda: seen.append(1))
        b.send(b"x")
        await until(lambda: seen)
        # whatever names the descriptor will do
        assert loop.remove_reader(a) is True
        loop.add_writer(HasFileno(), lambda: seen.append(2))
        await until(lambda: 2 in seen)
        assert loop.remove_writer(a.fileno()) is True

    run(main())


def test_pipes(loop, run):
    r, w = os.pipe()
    seen = []

    async def main():
        loop.add_reader(r, lambda: seen.append(os.read(r, 10)))
        loop.add_writer(w, lambda: (os.write(w, b"piped"), loop.remove_writer(w)))
        await until(lambda: seen)
        loop.remove_reader(r)

    run(main())
    os.close(r)
    os.close(w)
    assert seen == [b"piped"]


def test_context(loop, run, sockets):
    a, _b = sockets
    seen = []

    async def main():
        token = var.set("registered")
        loop.add_writer(a, lambda: (seen.append(var.get()), loop.remove_writer(a)))
        var.reset(token)
        await until(lambda: seen)

    run(main())
    assert seen == ["registered"]


def test_a_failing_callback_is_reported_and_stays(loop, run, sockets, errors):
    a, b = sockets

    def fail():
        a.recv(1)
        raise ZeroDivisionError

    async def main():
        loop.add_reader(a, fail)
        b.send(b"ab")
        await until(lambda: len(errors) == 2)
        loop.remove_reader(a)

    run(main())
    assert [type(exc) for exc in errors.exceptions] == [ZeroDivisionError] * 2
    assert all(context["message"].startswith("Exception in callback") for context in errors)


@pytest.mark.parametrize("exception", [SystemExit, KeyboardInterrupt])
def test_an_exit_leaves_the_loop(loop, sockets, exception):
    a, b = sockets

    def leave():
        loop.remove_reader(a)
        raise exception

    b.send(b"x")
    loop.add_reader(a, leave)
    with pytest.raises(exception):
        loop.run_forever()
    assert loop.run_until_complete(asyncio.sleep(0, 1)) == 1


def test_many_descriptors(loop, run):
    pairs = [socket.socketpair() for _ in range(100)]
    seen = set()

    async def main():
        for i, (a, _) in enumerate(pairs):
            loop.add_reader(a, lambda i=i, a=a: (a.recv(10), seen.add(i)))
        for _, b in reversed(pairs):
            b.send(b"x")
        await until(lambda: len(seen) == 100)
        for a, _ in pairs:
            assert loop.remove_reader(a)

    run(main())
    for a, b in pairs:
        a.close()
        b.close()


def test_a_number_used_again_after_a_close_without_remove(loop, run):
    """The user closed a watched socket; a new one with its number is watched correctly."""
    seen = []

    async def main():
        a, b = socket.socketpair()
        loop.add_reader(a, seen.append, "first")
        number = a.fileno()
        loop.remove_reader(number)
        a.close()
        c, d = socket.socketpair()
        loop.add_reader(c, lambda: seen.append(c.recv(10)))
        d.send(b"second")
        await until(lambda: seen)
        loop.remove_reader(c)
        for sock in (b, c, d):
            sock.close()

    run(main())
    assert seen == [b"second"]


def test_a_watched_file_that_nobody_else_holds_stays_open(loop, run):
    came = loop.create_future()

    def watch():
        a, b = socket.socketpair()
        loop.add_reader(a, lambda: came.done() or came.set_result(None))
        return a.fileno(), b

    number, b = watch()
    gc.collect()
    with b:
        b.send(b"x")
        run(asyncio.wait_for(came, 10))
        assert loop.remove_reader(number)


def test_removing_a_file_that_was_closed_before(loop, run):
    a, b = socket.socketpair()

    async def main():
        loop.add_reader(a, print)
        await asyncio.sleep(0)
        a.close()
        assert loop.remove_reader(a)
        with pytest.raises(ValueError):
            loop.remove_reader(a)

    with b:
        run(main())


@pytest.mark.only("uvloop_clone")
def test_a_replaced_callback_whose_repr_fails(loop, turns, errors):
    """Debug mode keeps what a cancelled handle looked like. asyncio raises, the new one is set."""

    class Unprintable:
        def __repr__(self):
            raise ZeroDivisionError("repr")

        def __call__(self):
            raise AssertionError("it was replaced")

    near, far = socket.socketpair()
    seen = []
    with near, far:
        near.setblocking(False)
        loop.set_debug(True)
        loop.add_reader(near, Unprintable())
        loop.add_reader(near, lambda: seen.append(near.recv(1)))
        far.send(b"x")
        turns(2)
        loop.remove_reader(near)
    assert seen == [b"x"]
    assert [type(context["exception"]) for context in errors] == [ZeroDivisionError]
