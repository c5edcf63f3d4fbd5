"""Sockets of your own on the loop: `sock_accept`, `sock_connect`, `sock_recv`, `sock_sendall`."""

import asyncio
import socket

import uvloop_clone


async def serve_one(listener: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    connection, _ = await loop.sock_accept(listener)
    with connection:
        while data := await loop.sock_recv(connection, 1024):
            await loop.sock_sendall(connection, data[::-1])


async def main() -> None:
    loop = asyncio.get_running_loop()
    with socket.socket() as listener, socket.socket() as client:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.setblocking(False)
        client.setblocking(False)
        serving = asyncio.create_task(serve_one(listener))

        await loop.sock_connect(client, listener.getsockname())
        for word in (b"drawer", b"stressed"):
            await loop.sock_sendall(client, word)
            print(word.decode(), "comes back as", (await loop.sock_recv(client, 1024)).decode())

        buffer = bytearray(8)
        await loop.sock_sendall(client, b"live")
        count = await loop.sock_recv_into(client, buffer)
        print("into a buffer:", count, "bytes,", bytes(buffer[:count]).decode())
        client.shutdown(socket.SHUT_WR)
        await serving
        print("the end of the stream:", await loop.sock_recv(client, 1024))


if __name__ == "__main__":
    uvloop_clone.run(main())
