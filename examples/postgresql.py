"""PostgreSQL with asyncpg: queries, parameters, a transaction, a pool, and notifications.

The server is the one on 127.0.0.1, port PGPORT (5432 if unset); PGUSER, PGPASSWORD and
PGDATABASE say as whom and where (`postgres` if unset). Only a temporary table is made, so
nothing is left behind.

Needs: asyncpg, PostgreSQL
"""

import asyncio
import os

import asyncpg

import uvloop_clone

SERVER = {
    "host": "127.0.0.1",
    "port": int(os.environ.get("PGPORT", "5432")),
    "user": os.environ.get("PGUSER", "postgres"),
    "password": os.environ.get("PGPASSWORD"),
    "database": os.environ.get("PGDATABASE", "postgres"),
}


async def one_connection() -> None:
    connection = await asyncpg.connect(**SERVER)
    try:
        await connection.execute("create temporary table bird (name text, grams int)")
        await connection.executemany(
            "insert into bird values ($1, $2)", [("wren", 9), ("robin", 18), ("swan", 9000)]
        )
        rows = await connection.fetch("select name from bird where grams < $1 order by 1", 100)
        print("small birds:", [row["name"] for row in rows])

        try:
            async with connection.transaction():
                await connection.execute("delete from bird")
                raise RuntimeError("changed my mind")
        except RuntimeError as error:
            print(error, "- still there:", await connection.fetchval("select count(*) from bird"))

        try:
            await connection.fetch("select * from fish")
        except asyncpg.UndefinedTableError:
            print("there is no table of fish")

        heard: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        await connection.add_listener("song", lambda c, pid, channel, text: heard.set_result(text))
        await connection.execute("select pg_notify('song', 'tweet')")
        print("heard:", await asyncio.wait_for(heard, 5))
    finally:
        await connection.close()


async def pool_of_connections() -> None:
    async with asyncpg.create_pool(**SERVER, min_size=3, max_size=3) as pool:

        async def square(number: int) -> int:
            return await pool.fetchval("select $1::int * $1::int from pg_sleep(0.02)", number)

        print("squares:", await asyncio.gather(*(square(n) for n in range(1, 8))))


async def main() -> None:
    await one_connection()
    await pool_of_connections()


if __name__ == "__main__":
    uvloop_clone.run(main())
