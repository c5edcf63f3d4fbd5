"""`add_reader` and `add_writer`: be called when a descriptor can be read or written."""

import asyncio
import os
import socket

import uvloop_clone


async def main() -> None:
    loop = asyncio.get_running_loop()
    near, far = socket.socketpair()
    near.setblocking(False)
    far.setblocking(False)
    with near, far:
        arrived = asyncio.Event()

        def readable(label: str) -> None:
            print(f"{label} can be read: {near.recv(100).decode()}")
            arrived.set()

        def writable() -> None:
            far.send(b"a postcard")
            print("far end can be written, once is enough:", loop.remove_writer(far))

        loop.add_reader(near, readable, "near end")
        loop.add_writer(far, writable)
        await asyncio.wait_for(arrived.wait(), 5)
        print("no longer watched:", loop.remove_reader(near))
        print("nothing left to remove:", not loop.remove_reader(near))

    read_end, write_end = os.pipe()
    line: asyncio.Future[bytes] = loop.create_future()
    loop.add_reader(read_end, lambda: line.set_result(os.read(read_end, 100)))
    os.write(write_end, b"through a pipe")
    print("got:", (await asyncio.wait_for(line, 5)).decode())
    loop.remove_reader(read_end)
    os.close(read_end)
    os.close(write_end)


if __name__ == "__main__":
    uvloop_clone.run(main())
