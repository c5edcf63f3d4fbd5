"""Back-pressure: a fast writer is told to pause until the slow reader has caught up.

`drain` waits while the transport holds more than its high-water mark; the protocol behind a
transport hears `pause_writing` and `resume_writing` for the same reason.
"""

import asyncio

import uvloop_clone


class Sender(asyncio.Protocol):
    def __init__(self) -> None:
        self.events: list[str] = []
        self.may_write = asyncio.Event()
        self.lost = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.may_write.set()

    def pause_writing(self) -> None:
        self.events.append("pause")
        self.may_write.clear()

    def resume_writing(self) -> None:
        self.events.append("resume")
        self.may_write.set()

    def connection_lost(self, exc: "Exception | None") -> None:
        self.lost.set()


async def main() -> None:
    received: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    go_on = asyncio.Event()

    async def slow_reader(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await go_on.wait()
        count = 0
        while block := await reader.read(2**16):
            count += len(block)
        writer.close()
        await writer.wait_closed()
        received.set_result(count)

    server = await asyncio.start_server(slow_reader, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        loop = asyncio.get_running_loop()
        transport, sender = await loop.create_connection(Sender, "127.0.0.1", port)
        transport.set_write_buffer_limits(high=2**16, low=2**14)
        print("water marks:", transport.get_write_buffer_limits())

        sent, block = 0, bytes(2**18)
        while sender.may_write.is_set():
            transport.write(block)
            sent += len(block)
            await asyncio.sleep(0)
        print("told to pause:", sender.events == ["pause"])
        print("bytes are waiting:", transport.get_write_buffer_size() > 0)

        go_on.set()
        await asyncio.wait_for(sender.may_write.wait(), 5)
        print("told to resume:", sender.events[:2] == ["pause", "resume"])
        transport.write_eof()
        print("every byte arrived:", await asyncio.wait_for(received, 5) == sent)
        await sender.lost.wait()


if __name__ == "__main__":
    uvloop_clone.run(main())
