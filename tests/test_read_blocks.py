"""Read blocks: the objects handed out are used again, but only when nobody holds them."""

import asyncio
import hashlib
import os
import random

import pytest
from support import attach

pytestmark = pytest.mark.core

BLOCKS = [os.urandom(1 << 20) for _ in range(4)]
SIZE = 24 << 20


async def send(sock):
    """Sends SIZE bytes; returns their digest."""
    loop = asyncio.get_running_loop()
    digest, sent = hashlib.sha256(), 0
    while sent < SIZE:
        block = BLOCKS[sent // len(BLOCKS[0]) % len(BLOCKS)]
        await loop.sock_sendall(sock, block)
        digest.update(block)
        sent += len(block)
    return digest.digest()


class Keeper(asyncio.Protocol):
    """Keeps every `every`th chunk with its hash, and gives the others up."""

    def __init__(self, every):
        self.every = every
        self.count = self.size = 0
        self.kept = []
        self.digest = hashlib.sha256()
        self.largest = 0
        self.lost = asyncio.get_running_loop().create_future()

    def data_received(self, data):
        assert type(data) is bytes
        self.digest.update(data)
        self.size += len(data)
        self.largest = max(self.largest, len(data))
        self.count += 1
        if self.count % self.every == 0:
            self.kept.append((data, hash(data), hashlib.sha256(data).digest(), len(data)))

    def connection_lost(self, exc):
        self.lost.set_result(exc)

    def check(self):
        for data, hashed, digest, size in self.kept:
            assert len(data) == size
            assert hashlib.sha256(data).digest() == digest
            assert hash(data) == hashed == hash(bytes(bytearray(data)))


@pytest.mark.parametrize("every", [1, 2, 3, 10**9])
def test_what_is_kept_stays_as_it_is(loop, run, pair, every):
    a, b = pair()

    async def main():
        _, protocol = await attach(a, lambda: Keeper(every))
        digest = await send(b)
        b.close()
        await protocol.lost
        assert protocol.size == SIZE
        assert protocol.digest.digest() == digest
        assert protocol.largest >= 1 << 16
        protocol.check()

    run(main())


SIZES = [1, 479, 480, 481, 599, 1000, 4095, 4096, 4097, 5119, 5120, 5121, 9000, 10_000, 12_500]
SIZES += [12_501, 40_000, 65_535, 65_536, 104_857, 104_858, 131_071, 131_072, 131_073, 250_000]


@pytest.mark.parametrize("every", [1, 2, 7, 10**9])
@pytest.mark.parametrize("repeats", [1, 10])
def test_messages_of_all_sizes(loop, run, pair, every, repeats):
    """Whatever came before it, each message arrives whole, and what is kept does not change."""
    a, b = pair()
    sizes = SIZES * 4
    random.Random(every).shuffle(sizes)

    async def main():
        _, protocol = await attach(a, lambda: Keeper(every))
        sent, total = hashlib.sha256(), 0
        for size in sizes:
            for _ in range(repeats):
                start = random.randrange(len(BLOCKS[0]) - size)
                message = BLOCKS[0][start : start + size]
                sent.update(message)
                total += size
                await loop.sock_sendall(b, message)
                while protocol.size < total:
                    await asyncio.sleep(0)
        b.close()
        await protocol.lost
        assert protocol.digest.digest() == sent.digest()
        protocol.check()

    run(main())


@pytest.mark.only("uvloop_clone")
@pytest.mark.parametrize("size", [480, 1000, 4096, 10_000, 60_000])
def test_messages_of_one_size_use_one_object(loop, run, pair, size):
    a, b = pair()
    places, others = [], []

    class Echo(asyncio.Protocol):
        def connection_made(self, transport):
            self.transport = transport

        def data_received(self, data):
            places.append(id(data))
            self.transport.write(data)

    async def main():
        await attach(a, Echo)
        for _ in range(50):
            await loop.sock_sendall(b, bytes(size))
            left = size
            while left:
                left -= len(await loop.sock_recv(b, left))
            # Takes what memory was given back, the block's too if it was.
            others.extend(map(bytes, range(size - 64, 2 * size, max(16, size // 32))))
        b.close()
        assert len(places) >= 50
        assert len(set(places[5:])) <= 2 * len(places) / 50

    run(main())


@pytest.mark.only("uvloop_clone")
def test_what_is_given_up_is_read_into_again(loop, run, pair):
    a, b = pair()
    places = []

    class Protocol(Keeper):
        def data_received(self, data):
            super().data_received(data)
            if len(data) >= 1 << 16:
                places.append(id(data))

    async def main():
        _, protocol = await attach(a, lambda: Protocol(10**9))
        await send(b)
        b.close()
        await protocol.lost
        assert len(places) > 20
        assert len(set(places[2:])) <= 16

    run(main())


def test_several_connections_at_once(loop, run, pair):
    """What one connection's tasks hold is not another's to write to."""

    async def main():
        tasks, digests = [], []

        async def receive(sock):
            digest, size, former = hashlib.sha256(), 0, b""
            while data := await loop.sock_recv(sock, 1 << 18):
                digest.update(data)
                size += len(data)
                check = hashlib.sha256(former).digest()
                await asyncio.sleep(0)
                assert hashlib.sha256(former).digest() == check
                former = data
            assert size == SIZE
            return digest.digest()

        async def give(sock):
            digests.append(await send(sock))
            sock.close()

        for _ in range(3):
            a, b = pair()
            tasks += [loop.create_task(receive(a)), loop.create_task(give(b))]
        got = await asyncio.gather(*tasks)
        assert [digest for digest in got if digest] == digests[:1] * 3

    run(main())


def test_sock_recv_gives_no_more_than_asked_for(loop, run, pair):
    a, b = pair()

    async def main():
        sending = loop.create_task(send(b))
        left = SIZE
        for size in (1 << 17, (1 << 17) + 1, 1 << 16, (1 << 16) - 1, 1 << 20, 5):
            for _ in range(8):
                data = await loop.sock_recv(a, size)
                assert 0 < len(data) <= size
                left -= len(data)
        while left:
            left -= len(await loop.sock_recv(a, 1 << 19))
        await sending

    run(main())
