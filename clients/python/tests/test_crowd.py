"""A hundred runs at once on a database that takes forty connections."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import execpool
import execpool.asyncpg
import execpool.psycopg
import pytest
import sqlalchemy
from conftest import MAX_CONNECTIONS, Postgres, Sidecar
from execpool import ExecutionScope
from sqlalchemy import text

RUNS = 100


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_hundred_runs_that_leak_at_their_end_meet_no_error(
    sidecar: Sidecar, postgres: Postgres
) -> None:
    assert MAX_CONNECTIONS == 40
    engine = execpool.sqlalchemy.instrument(
        sqlalchemy.create_engine(postgres.url.replace("postgresql:", "postgresql+psycopg:"))
    )
    leaked: list[Any] = []

    async def run(number: int) -> int:
        async with ExecutionScope(f"crowd-{number}") as scope:
            database = await execpool.create_execution_scoped_sql_database()
            rows = await asyncio.to_thread(database.run, "SELECT item FROM orders ORDER BY id")
            assert rows == "[('tea',), ('salt',)]"
            connection = await execpool.asyncpg.connect()
            await connection.fetch("SELECT pg_sleep(0.01)")
            await connection.close()

            def forget() -> None:
                leaked.append(engine.connect())
                leaked[-1].execute(text("SELECT 1"))

            await asyncio.to_thread(forget)
        assert scope.summary is not None and scope.summary.complete
        return len(scope.summary.leftovers)

    async def main() -> list[int]:
        return await asyncio.gather(*(run(number) for number in range(RUNS)))

    assert asyncio.run(main()) == [1] * RUNS


def test_threads_that_open_more_than_their_share_are_told_which_limit(
    sidecar: Sidecar, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pool of one: the second connection waits for the first, and gets it."""
    with ExecutionScope("small", pool={"size": 1, "overflow": 0}):
        first = execpool.psycopg.connect(autocommit=True)
        first.execute("SELECT 1")
        giving_back = threading.Timer(0.3, first.close)
        giving_back.start()
        with execpool.psycopg.connect(autocommit=True) as second:
            assert second.execute("SELECT 1").fetchone() == (1,)
        giving_back.join()
