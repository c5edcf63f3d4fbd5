"""A TCP echo pair with streams: `start_server` on one side, `open_connection` on the other."""

import asyncio

import uvloop_clone


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while line := await reader.readline():
        writer.write(b"echo: " + line)
        await writer.drain()
    writer.close()
    await writer.wait_closed()


async def client(port: int, name: str) -> list[str]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answers = []
    for word in ("hello", "how are you", "bye"):
        writer.write(f"{word}, says {name}\n".encode())
        await writer.drain()
        answers.append((await reader.readline()).decode().rstrip())
    writer.write_eof()
    assert await reader.read() == b""  # the server saw the end and closed
    writer.close()
    await writer.wait_closed()
    return answers


async def large_message(port: int) -> None:
    message = bytes(range(97, 123)) * 40_000 + b"\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=len(message) + 100)
    writer.write(message)
    await writer.drain()
    prefix = await reader.readexactly(6)
    body = await reader.readuntil(b"\n")
    writer.write_eof()
    assert await reader.read() == b""
    print(f"{len(message)} bytes came back whole:", prefix == b"echo: " and body == message)
    writer.close()
    await writer.wait_closed()


async def main() -> None:
    server = await asyncio.start_server(echo, "127.0.0.1", 0, limit=2**21)
    port = server.sockets[0].getsockname()[1]
    async with server:
        for answers in await asyncio.gather(*(client(port, name) for name in ("Ann", "Ben"))):
            print("\n".join(answers))
        await large_message(port)
    print("serving:", server.is_serving())
    try:
        await asyncio.open_connection("127.0.0.1", port)
    except ConnectionRefusedError:
        print("nobody answers any more")


if __name__ == "__main__":
    uvloop_clone.run(main())
