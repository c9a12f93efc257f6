"""What an app does with asyncpg, to be recorded: the same on every run."""

import asyncio
import json
import sys

import asyncpg

INSERT = "INSERT INTO items (a, b, c, d, f) VALUES ($1, $2, $3, $4, $5)"


def row(number):
    return number, f"item {number}", json.dumps({"n": number}), [number, -number], "sad"


async def main():
    connection = await asyncpg.connect(sys.argv[1], server_settings={"application_name": "recorded"})
    await connection.execute("TRUNCATE items; SELECT 1")
    for number in range(3):
        await connection.execute(INSERT, *row(number))
    await connection.executemany(INSERT, [row(number) for number in range(3, 9)])
    await connection.copy_records_to_table(
        "items", records=[(number, "x" * number) for number in range(9, 20)], columns=["a", "b"]
    )
    received = []

    async def take(data):
        received.append(data)

    await connection.copy_from_query("SELECT a, b FROM items", output=take)
    async with connection.transaction():
        cursor = connection.cursor("SELECT * FROM items ORDER BY a", prefetch=4)
        [each async for each in cursor]
        try:
            async with connection.transaction():
                await connection.fetchval("SELECT 1 / $1::int", 0)
        except asyncpg.DivisionByZeroError:
            pass
        await connection.fetchval("SELECT count(*) FROM items WHERE f = $1", "sad")
    try:
        await connection.fetch("SELECT nothing")
    except asyncpg.UndefinedColumnError:
        pass
    statement = await connection.prepare("SELECT d FROM items WHERE a = $1")
    await statement.fetchrow(2)
    await connection.reset()
    await connection.close()


asyncio.run(main())
print("[]")
