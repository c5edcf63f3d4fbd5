"""All together: a polite crawler over a small site that the program serves itself.

A queue holds the pages to visit, three workers take from it, a semaphore keeps the number of
open connections at two, and the whole crawl has a time limit.
"""

import asyncio

import uvloop_clone

SITE = {
    "/": ["/about", "/blog"],
    "/about": ["/", "/people"],
    "/people": [],
    "/blog": ["/blog/1", "/blog/2", "/lost"],
    "/blog/1": ["/blog"],
    "/blog/2": ["/blog/1", "/people"],
}


class Site:
    """Answers `path` with a line of links, or with `404`, and counts who is connected."""

    def __init__(self) -> None:
        self.connected = self.most_connected = 0

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connected += 1
        self.most_connected = max(self.connected, self.most_connected)
        path = (await reader.readline()).decode().strip()
        await asyncio.sleep(0.005)
        links = SITE.get(path)
        writer.write(("404" if links is None else " ".join(links)).encode())
        self.connected -= 1
        writer.close()
        await writer.wait_closed()


class Crawler:
    def __init__(self, port: int) -> None:
        self.port = port
        self.places = asyncio.Semaphore(2)
        self.queue: asyncio.Queue[str] = asyncio.Queue()
        self.found: dict[str, str] = {}

    def visit(self, path: str) -> None:
        if path not in self.found:
            self.found[path] = "waiting"
            self.queue.put_nowait(path)

    async def fetch(self, path: str) -> str:
        async with self.places:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            writer.write(path.encode() + b"\n")
            text = (await reader.read()).decode()
            writer.close()
            await writer.wait_closed()
            return text

    async def worker(self) -> None:
        while True:
            path = await self.queue.get()
            text = await self.fetch(path)
            self.found[path] = "missing" if text == "404" else f"{len(text.split())} links"
            if text != "404":
                for link in text.split():
                    self.visit(link)
            self.queue.task_done()

    async def crawl(self) -> None:
        self.visit("/")
        workers = [asyncio.create_task(self.worker()) for _ in range(3)]
        await self.queue.join()
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)


async def main() -> None:
    site = Site()
    server = await asyncio.start_server(site.answer, "127.0.0.1", 0)
    async with server:
        crawler = Crawler(server.sockets[0].getsockname()[1])
        await asyncio.wait_for(crawler.crawl(), timeout=5)
    for path in sorted(crawler.found):
        print(f"{path}: {crawler.found[path]}")
    print("never more than two connections:", site.most_connected <= 2)


if __name__ == "__main__":
    uvloop_clone.run(main())
