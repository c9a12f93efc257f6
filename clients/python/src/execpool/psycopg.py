"""psycopg: connections and pools whose connections belong to the execution that asks for them."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import psycopg
import psycopg.conninfo
from psycopg import AsyncConnection, Connection

from .connecting import Connecting, let_go

if TYPE_CHECKING:
    from .psycopg_pool import AsyncConnectionPool, ConnectionPool

__all__ = ["AsyncConnectionPool", "ConnectionPool", "connect", "connect_async"]

_OWN = frozenset({"autocommit", "prepare_threshold", "context", "row_factory", "cursor_factory"})


def connect(conninfo: str = "", **kwargs: Any) -> Connection[Any]:
    """`psycopg.connect`, in the current scope. Takes and raises what that does; without a
    `conninfo` and a host it goes where `DATABASE_URL` says."""
    return connected(Connection[Any], conninfo, kwargs)


async def connect_async(conninfo: str = "", **kwargs: Any) -> AsyncConnection[Any]:
    """`psycopg.AsyncConnection.connect`, likewise."""
    return await connected_async(AsyncConnection[Any], conninfo, kwargs)


def connected(
    connection_class: type[Connection[Any]],
    conninfo: str,
    kwargs: dict[str, Any],
    until: float | None = None,
) -> Connection[Any]:
    """A connection of that class, opened in the current scope; by then on the monotonic clock."""
    connecting = Connecting.begin()
    connection = connection_class.connect("", **prepared(connecting, conninfo, kwargs, until))
    connecting.opened(connection)
    return connection


async def connected_async(
    connection_class: type[AsyncConnection[Any]],
    conninfo: str,
    kwargs: dict[str, Any],
    until: float | None = None,
) -> AsyncConnection[Any]:
    """A connection of that class, opened in the current scope; by then on the monotonic clock."""
    connecting = Connecting.begin()
    try:
        connection = await connection_class.connect("", **prepared(connecting, conninfo, kwargs, until))
    except asyncio.CancelledError as error:
        let_go(error)
        raise
    connecting.opened(connection)
    return connection


def prepared(
    connecting: Connecting, conninfo: str, kwargs: dict[str, Any], until: float | None = None
) -> dict[str, Any]:
    """What psycopg is given for a connection that is about to be opened."""
    words = {name: value for name, value in kwargs.items() if name not in _OWN}
    rest = {name: value for name, value in kwargs.items() if name in _OWN}
    if not conninfo and "host" not in words and "service" not in words:
        conninfo = connecting.default_dsn() or ""
    # psycopg reads URLs and lists of key=value alike, as libpq does.
    given = psycopg.conninfo.conninfo_to_dict(conninfo, **words)
    if until is not None:
        given["connect_timeout"] = _seconds(given.get("connect_timeout"), until)
    return connecting.libpq(given) | rest


def _seconds(asked: Any, until: float) -> Any:
    """The time that a connect has: what is left, or what was asked for if that is less. libpq gives it no
    less than 2 s."""
    left = max(1, round(min(until - time.monotonic(), 2**31 - 1)))
    try:
        return asked if 0 < float(asked or 0) < left else left
    except ValueError:
        return asked  # which psycopg refuses


def __getattr__(name: str) -> Any:
    if name in ("ConnectionPool", "AsyncConnectionPool"):
        from . import psycopg_pool

        return getattr(psycopg_pool, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
