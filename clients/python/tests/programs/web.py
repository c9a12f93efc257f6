"""An ASGI and a WSGI app, each request of which is a run that leaks."""

import asyncio
import json
import os
from collections.abc import Callable, Iterable
from typing import Any

import execpool
import execpool.asyncpg
import execpool.psycopg
import execpool.sqlalchemy
import sqlalchemy

# A global engine, made before the workers are forked, as gunicorn --preload does.
engine = execpool.sqlalchemy.instrument(
    sqlalchemy.create_engine(
        os.environ["DATABASE_URL"].replace("postgresql:", "postgresql+psycopg:")
    )
)
with engine.connect() as connection:
    connection.execute(sqlalchemy.text("SELECT 1"))


async def asgi(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        return
    async with execpool.ExecutionScope(execpool.make_id("asgi")) as run:
        leaked = await execpool.asyncpg.connect()
        await leaked.fetchval("SELECT 1")
        if scope["path"] == "/hang":
            await asyncio.sleep(60)
    body = json.dumps([os.getpid(), len(run.summary.leftovers) if run.summary else -1]).encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


def wsgi(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
    with execpool.ExecutionScope(execpool.make_id("wsgi")) as run:
        leaked = engine.connect()
        leaked.execute(sqlalchemy.text("SELECT 1"))
        if environ["PATH_INFO"] == "/hang":
            import time

            time.sleep(60)
    start("200 OK", [("Content-Type", "application/json")])
    return [json.dumps([os.getpid(), len(run.summary.leftovers) if run.summary else -1]).encode()]
