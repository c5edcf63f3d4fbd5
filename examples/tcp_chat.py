"""A chat room over TCP: what one guest writes, all the others read.

The room is a set of writers. Guests come and go one after the other, so that what each of
them reads is the same at every run.
"""

import asyncio

import uvloop_clone


class Room:
    def __init__(self) -> None:
        self.guests: dict[str, asyncio.StreamWriter] = {}
        self.visits: set[asyncio.Task] = set()

    async def say(self, text: str, sender: str) -> None:
        for name, writer in self.guests.items():
            if name != sender:
                writer.write(text.encode() + b"\n")
                await writer.drain()

    async def welcome(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.visits.add(asyncio.current_task())
        name = (await reader.readline()).decode().strip()
        if name in self.guests:
            writer.write(b"that name is taken\n")
        else:
            self.guests[name] = writer
            others = ", ".join(guest for guest in self.guests if guest != name) or "nobody"
            writer.write(f"welcome {name}, here: {others}\n".encode())
            await self.say(f"* {name} came in", name)
            while line := await reader.readline():
                await self.say(f"{name}: {line.decode().strip()}", name)
            del self.guests[name]
            await self.say(f"* {name} left", name)
        writer.close()
        await writer.wait_closed()


class Guest:
    def __init__(self, name: str) -> None:
        self.name = name

    async def enter(self, port: int) -> str:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", port)
        self.say(self.name)
        return await self.hear()

    def say(self, text: str) -> None:
        self.writer.write(text.encode() + b"\n")

    async def hear(self) -> str:
        line = await asyncio.wait_for(self.reader.readline(), timeout=5)
        return f"[{self.name}] {line.decode().strip()}"

    async def leave(self) -> None:
        self.writer.close()
        await self.writer.wait_closed()


async def main() -> None:
    room = Room()
    server = await asyncio.start_server(room.welcome, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    ann, ben, cleo = Guest("Ann"), Guest("Ben"), Guest("Cleo")
    async with server:
        print(await ann.enter(port))
        print(await ben.enter(port))
        print(await ann.hear())
        print(await cleo.enter(port))
        print(await ann.hear())
        print(await ben.hear())

        impostor = Guest("Ann")
        print(await impostor.enter(port))
        await impostor.leave()

        ann.say("tea, anybody?")
        print(await ben.hear())
        print(await cleo.hear())
        ben.say("yes please")
        print(await ann.hear())
        print(await cleo.hear())

        await ben.leave()
        print(await ann.hear())
        print(await cleo.hear())
        await ann.leave()
        print(await cleo.hear())
        await cleo.leave()
        await asyncio.gather(*room.visits)
        print("the room is empty:", not room.guests)


if __name__ == "__main__":
    uvloop_clone.run(main())
