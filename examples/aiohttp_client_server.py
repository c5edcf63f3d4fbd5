"""An aiohttp server and client in one program, both on our loop, over 127.0.0.1.

Shows concurrent requests, a page that fails, one that is too slow, and a port where nobody
listens.

Needs: aiohttp
"""

import asyncio
import socket

import aiohttp
from aiohttp import web

import uvloop_clone


async def page(request: web.Request) -> web.Response:
    name = request.match_info["name"]
    await asyncio.sleep(0.05)
    return web.Response(text=f"This is the page about {name}. " * len(name))


async def total(request: web.Request) -> web.Response:
    order = await request.json()
    return web.json_response({"total": sum(order.values()), "items": len(order)})


async def slow(request: web.Request) -> web.Response:
    await asyncio.sleep(30)
    return web.Response(text="too late")


async def start() -> tuple[web.AppRunner, str]:
    app = web.Application()
    app.add_routes(
        [web.get("/page/{name}", page), web.post("/total", total), web.get("/slow", slow)]
    )
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    return runner, f"http://{host}:{port}"


async def fetch(session: aiohttp.ClientSession, url: str) -> str:
    path = "/" + url.split("/", 3)[3]
    try:
        async with session.get(url, timeout=aiohttp.ClientTimeout(total=0.5)) as answer:
            answer.raise_for_status()
            return f"{path}: {len(await answer.text())} characters"
    except aiohttp.ClientResponseError as error:
        return f"{path}: status {error.status}"
    except aiohttp.ClientConnectorError:
        return f"{path}: nobody listens there"
    except asyncio.TimeoutError:
        return f"{path}: no answer in time"


async def main() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound but not listening: connections are refused
        closed = f"http://127.0.0.1:{unused.getsockname()[1]}/closed"

        runner, base = await start()
        async with aiohttp.ClientSession() as session:
            urls = [f"{base}/page/{name}" for name in ("bees", "honey", "wax")]
            urls += [f"{base}/missing", f"{base}/slow", closed]
            for line in await asyncio.gather(*(fetch(session, url) for url in urls)):
                print(line)
            async with session.post(f"{base}/total", json={"pen": 3, "ink": 8}) as answer:
                print("posted:", await answer.json())
        await runner.cleanup()


if __name__ == "__main__":
    uvloop_clone.run(main())
