"""A TCP echo pair with transports and protocols, the callback style below the streams.

The loop calls `connection_made`, `data_received`, `eof_received` and `connection_lost`.
Bytes arrive in pieces of any size, so the client joins them until it has them all.
"""

import asyncio

import uvloop_clone


class EchoServer(asyncio.Protocol):
    def __init__(self, log: list[str]) -> None:
        self.log = log

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.log.append("server: connection from " + transport.get_extra_info("peername")[0])

    def data_received(self, data: bytes) -> None:
        self.transport.write(data.upper())

    def eof_received(self) -> bool:
        self.log.append("server: the client has no more to say")
        return False  # close our side too

    def connection_lost(self, exc: "Exception | None") -> None:
        self.log.append(f"server: connection lost, error {exc}")


class EchoClient(asyncio.Protocol):
    def __init__(self, message: bytes, log: list[str]) -> None:
        self.message, self.log = message, log
        self.received = bytearray()
        self.closed = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        half = len(self.message) // 2
        transport.write(self.message[:half])
        transport.writelines([self.message[half:-1], self.message[-1:]])

    def data_received(self, data: bytes) -> None:
        self.received += data
        if len(self.received) == len(self.message):
            self.log.append(f"client: got {bytes(self.received)!r}")
            self.transport.write_eof()

    def connection_lost(self, exc: "Exception | None") -> None:
        self.log.append(f"client: connection lost, error {exc}")
        self.closed.set_result(None)


async def main() -> None:
    loop = asyncio.get_running_loop()
    log: list[str] = []
    server = await loop.create_server(lambda: EchoServer(log), "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    transport, protocol = await loop.create_connection(
        lambda: EchoClient(b"some words", log), host, port
    )
    print("connected to the server's port:", transport.get_extra_info("peername")[1] == port)
    await asyncio.wait_for(protocol.closed, 5)
    print("closing:", transport.is_closing())
    server.close()
    await server.wait_closed()
    print("\n".join(sorted(log, key=lambda entry: entry.partition(":")[0])))


if __name__ == "__main__":
    uvloop_clone.run(main())
