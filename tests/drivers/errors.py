"""Says each line of its input to the database by one driver, and prints how the last one failed, as
Python prints an exception that nobody catches. Before that, `ok` for each that did not fail.

    errors.py DRIVER URL
"""

import asyncio
import json
import sys
import traceback

DRIVER, URL = sys.argv[1:]


async def lines():
    """The input, read beside the event loop, which goes on as in an app."""
    while line := await asyncio.to_thread(sys.stdin.readline):
        yield line
        print("ok", flush=True)


async def psycopg():
    import psycopg

    connection = psycopg.connect(URL, autocommit=True)
    async for line in lines():
        connection.execute(line)


async def psycopg_on_asyncio():
    import psycopg

    connection = await psycopg.AsyncConnection.connect(URL, autocommit=True)
    async for line in lines():
        await connection.execute(line)


async def asyncpg():
    import asyncpg

    connection = await asyncpg.connect(URL)
    async for line in lines():
        await connection.execute(line)


async def sqlalchemy_on_psycopg():
    from sqlalchemy import create_engine, text

    engine = create_engine(URL.replace("postgresql:", "postgresql+psycopg:"))
    with engine.connect() as connection:
        async for line in lines():
            connection.execute(text(line.strip()))


async def sqlalchemy_on_asyncpg():
    import asyncpg
    from sqlalchemy import text
    from sqlalchemy.ext.asyncio import create_async_engine

    async def creator():
        return await asyncpg.connect(URL)

    engine = create_async_engine("postgresql+asyncpg://", async_creator=creator)
    async with engine.connect() as connection:
        async for line in lines():
            await connection.execute(text(line.strip()))


try:
    asyncio.run(globals()[DRIVER]())
except Exception as error:
    print(json.dumps("".join(traceback.format_exception_only(error))), flush=True)
