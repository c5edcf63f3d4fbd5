"""HTTPS with aiohttp: a server with a certificate of its own, a client that checks it.

A client that does not know the authority behind the certificate refuses to talk.

Needs: aiohttp, trustme
"""

import asyncio
import ssl

import aiohttp
import trustme
from aiohttp import web

import uvloop_clone


async def greet(request: web.Request) -> web.Response:
    assert request.secure
    return web.Response(text=f"hello over {request.scheme} " + "." * 100_000)


async def main() -> None:
    authority = trustme.CA()
    server_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(server_context)
    client_context = ssl.create_default_context()
    authority.configure_trust(client_context)

    app = web.Application()
    app.router.add_get("/", greet)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=server_context).start()
    url = f"https://127.0.0.1:{runner.addresses[0][1]}/"

    async with aiohttp.ClientSession() as session:

        async def fetch() -> str:
            async with session.get(url, ssl=client_context) as answer:
                return (await answer.text()).rstrip(".")

        print(await asyncio.gather(*(fetch() for _ in range(3))))
        try:
            async with session.get(url):
                print("connected without knowing the authority")
        except aiohttp.ClientConnectorCertificateError:
            print("an unknown authority is not trusted")
        connector = aiohttp.TCPConnector(ssl=client_context)
        async with aiohttp.ClientSession(connector=connector) as checked:
            async with checked.get(url) as answer:
                print("status:", answer.status, "-", len(await answer.read()), "bytes")
    await runner.cleanup()


if __name__ == "__main__":
    uvloop_clone.run(main())
