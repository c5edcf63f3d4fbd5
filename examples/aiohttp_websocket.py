"""A web socket between an aiohttp server and client: a guessing game in messages.

Needs: aiohttp
"""

import aiohttp
from aiohttp import web

import uvloop_clone

SECRET = 23


async def game(request: web.Request) -> web.WebSocketResponse:
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    async for message in socket:
        guess = message.json()["guess"]
        hint = "found" if guess == SECRET else "higher" if guess < SECRET else "lower"
        await socket.send_json({"hint": hint})
        if hint == "found":
            await socket.close()
    return socket


async def main() -> None:
    app = web.Application()
    app.router.add_get("/game", game)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]

    async with aiohttp.ClientSession() as session:
        async with session.ws_connect(f"http://{host}:{port}/game") as socket:
            low, high, hint = 1, 100, ""
            while hint != "found":
                guess = (low + high) // 2
                await socket.send_json({"guess": guess})
                hint = (await socket.receive_json(timeout=5))["hint"]
                print(guess, hint)
                low, high = (guess + 1, high) if hint == "higher" else (low, guess - 1)
            end = await socket.receive(timeout=5)
            print("the server closed the game:", end.type is aiohttp.WSMsgType.CLOSE)
    await runner.cleanup()


if __name__ == "__main__":
    uvloop_clone.run(main())
