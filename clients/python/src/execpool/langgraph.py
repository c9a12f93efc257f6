"""LangGraph: an execution for each run of a graph, and checkpointers beside all of them.

    with execpool.langgraph.postgres_saver() as checkpointer:
        checkpointer.setup()
        graph = builder.compile(checkpointer).with_config(callbacks=[ExecutionCallback()])
        graph.invoke(state, {"configurable": {"thread_id": "42"}})

A checkpoint outlives the run that has written it, and so does the checkpointer: its connections are
the standing execution's, `shared`, whichever scope asks."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVar

import psycopg_pool
from langgraph.checkpoint.postgres import PostgresSaver
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from psycopg import AsyncConnection, Connection
from psycopg.rows import dict_row

from .connecting import Connecting
from .langchain import ExecutionCallback, ToolLabels, execution_id
from .psycopg import prepared
from .settings import Settings
from .sidecar import find

__all__ = [
    "ExecutionCallback",
    "ToolLabels",
    "async_postgres_saver",
    "execution_id",
    "postgres_saver",
]

LABEL = "checkpointer"
"""For what these connections are told to be."""
MAX_IDLE = 30.0
"""Seconds for which the checkpointer's connection is kept that nothing uses: less than a session may be
idle until it is taken for a leak (`session.leak_after`)."""

Row = TypeVar("Row")


class SharedConnection(Connection[Row]):
    """A connection of the standing execution, whichever scope is current."""

    is_direct = False
    """Whether it goes past a sidecar that was not there."""

    @classmethod
    def connect(cls, conninfo: str = "", **kwargs: Any) -> Any:
        """As psycopg's."""
        connecting = Connecting.shared(LABEL)
        connection: Any = super().connect("", **prepared(connecting, conninfo, kwargs))
        connection.is_direct = connecting.sidecar is None
        return connection


class SharedAsyncConnection(AsyncConnection[Row]):
    """The same for asyncio."""

    is_direct = False

    @classmethod
    async def connect(cls, conninfo: str = "", **kwargs: Any) -> Any:
        """As psycopg's."""
        connecting = Connecting.shared(LABEL)
        connection: Any = await super().connect("", **prepared(connecting, conninfo, kwargs))
        connection.is_direct = connecting.sidecar is None
        return connection


def _check(connection: SharedConnection[Any]) -> None:
    """Whether a connection that was kept is still of use. Raises where it is not, and leaves it closed: the
    pool makes another."""
    if _goes_past(connection):
        connection.close()
    psycopg_pool.ConnectionPool.check_connection(connection)


async def _check_async(connection: SharedAsyncConnection[Any]) -> None:
    if _goes_past(connection):
        await connection.close()
    await psycopg_pool.AsyncConnectionPool.check_connection(connection)


def _goes_past(connection: SharedConnection[Any] | SharedAsyncConnection[Any]) -> bool:
    """Whether it goes past a sidecar that has come since then."""
    return connection.is_direct and find(Settings.from_environment()) is not None


# A saver uses one connection at a time. It keeps that one while it is at work: so a checkpoint waits for
# none of the runs that wait, with a full budget, for their checkpoint.
_POOL: dict[str, Any] = {
    "name": "execpool checkpointer",
    "kwargs": {"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row},
    "min_size": 0,
    "max_size": 1,
    "max_idle": MAX_IDLE,
    "num_workers": 1,
    "open": False,
}


@contextmanager
def postgres_saver(url: str | None = None, **options: Any) -> Generator[PostgresSaver, None, None]:
    """LangGraph's `PostgresSaver`, for `url` or `DATABASE_URL`. `options` are the saver's, such as
    `serde`. Call `setup()` on it once, as LangGraph says."""
    pool: psycopg_pool.ConnectionPool[Any] = psycopg_pool.ConnectionPool(
        url or "", connection_class=SharedConnection[Any], check=_check, **_POOL
    )
    with pool:
        yield PostgresSaver(pool, **options)


@asynccontextmanager
async def async_postgres_saver(
    url: str | None = None, **options: Any
) -> AsyncGenerator[AsyncPostgresSaver, None]:
    """LangGraph's `AsyncPostgresSaver`, likewise."""
    pool: psycopg_pool.AsyncConnectionPool[Any] = psycopg_pool.AsyncConnectionPool(
        url or "", connection_class=SharedAsyncConnection[Any], check=_check_async, **_POOL
    )
    async with pool:
        yield AsyncPostgresSaver(pool, **options)
