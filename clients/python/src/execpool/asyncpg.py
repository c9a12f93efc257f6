"""asyncpg: connections and a pool whose connections belong to the execution that asks for them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator, Iterable, Sequence
from types import TracebackType
from typing import Any, cast

import asyncpg  # type: ignore[import-untyped]  # pyright: ignore[reportMissingTypeStubs]

from . import dsn as dsns
from .connecting import Connecting, goes_directly
from .limit import Limit

Connection = Any
"""asyncpg's, which has no types."""

_connect = cast("Callable[..., Awaitable[Connection]]", asyncpg.connect)  # pyright: ignore[reportUnknownMemberType]


async def connect(dsn: str | None = None, **kwargs: Any) -> Connection:
    """`asyncpg.connect`, in the current scope. Takes and raises what that does, and takes
    SQLAlchemy's form of a URL, too; without a `dsn` and a host it goes where `DATABASE_URL` says.
    Cancel safe."""
    connecting = Connecting.begin()
    if dsn is None and "host" not in kwargs and "service" not in kwargs:
        dsn = connecting.settings.database_url
    if dsn is not None:
        dsn, kwargs = dsns.for_asyncpg(dsn, kwargs)
    place, prepared = _arguments(connecting, dsn, kwargs)
    connection = await _connect(place, **prepared)
    connecting.opened(connection)
    return connection


def _arguments(
    connecting: Connecting, dsn: str | None, kwargs: dict[str, Any]
) -> tuple[str | None, dict[str, Any]]:
    if dsn is None or connecting.sidecar is None:
        return dsn, connecting.asyncpg(kwargs)
    # What the keywords say wins over the URL; the place is in the URL, unless they say one.
    prepared = connecting.asyncpg(kwargs)
    if "host" not in kwargs:
        del prepared["host"], prepared["port"]
    return connecting.dsn(dsn), prepared


class Pool:
    """In the place of `asyncpg.Pool`: a connection is opened when it is asked for, in the scope of
    who asks, and closed when it is given back, as the sidecar keeps connections and limits them.
    `min_size` has no effect, and `max_size` none where there is a sidecar."""

    def __init__(
        self,
        dsn: str | None = None,
        *,
        min_size: int = 10,
        max_size: int = 10,
        setup: Callable[[Connection], Awaitable[None]] | None = None,
        init: Callable[[Connection], Awaitable[None]] | None = None,
        **kwargs: Any,
    ) -> None:
        for name in ("max_queries", "max_inactive_connection_lifetime", "loop", "reset", "init_size"):
            kwargs.pop(name, None)
        self._connect = kwargs.pop("connect", None) or connect
        self._dsn, self._kwargs = dsn, kwargs
        self._prepare = [act for act in (init, setup) if act is not None]
        self._max_size = max_size
        self._room = Limit(max_size)
        self._lent: set[Connection] = set()
        self._closing = False

    def acquire(self, *, timeout: float | None = None) -> Acquiring:
        """A connection of the current scope: to be awaited and released, or by `async with`."""
        return Acquiring(self, timeout)

    async def release(self, connection: Connection, *, timeout: float | None = None) -> None:
        """Gives a connection back: it is closed, and what it has open is rolled back."""
        self._lent.discard(connection)
        try:
            await connection.close(timeout=timeout or 10)
        except BaseException:
            connection.terminate()
            raise

    async def open(self, timeout: float | None) -> Connection:
        """Opens a connection; `acquire` is for callers. Cancel safe."""
        if self._closing:
            raise asyncpg.InterfaceError("pool is closing")
        direct = goes_directly()
        if direct:
            await self._room.wait_async(timeout)
        connection = None
        try:
            opening = self._opened()
            connection = await (asyncio.wait_for(opening, timeout) if timeout else opening)
            return connection
        finally:
            if direct:
                self._room.opened(connection)

    async def _opened(self) -> Connection:
        connection = await self._connect(self._dsn, **self._kwargs)
        try:
            for act in self._prepare:
                await act(connection)
        except BaseException:
            connection.terminate()
            raise
        # Those that a scope's end has closed were never given back.
        self._lent = {one for one in self._lent if not one.is_closed()} | {connection}
        return connection

    async def execute(self, query: str, *args: Any, timeout: float | None = None) -> str:
        """As asyncpg's: on a connection of its own."""
        async with self.acquire() as connection:
            return cast(str, await connection.execute(query, *args, timeout=timeout))

    async def executemany(
        self, command: str, args: Iterable[Sequence[Any]], *, timeout: float | None = None
    ) -> None:
        """As asyncpg's."""
        async with self.acquire() as connection:
            await connection.executemany(command, args, timeout=timeout)

    async def fetch(
        self, query: str, *args: Any, timeout: float | None = None, record_class: Any = None
    ) -> list[Any]:
        """As asyncpg's."""
        async with self.acquire() as connection:
            found = await connection.fetch(query, *args, timeout=timeout, record_class=record_class)
            return cast("list[Any]", found)

    async def fetchrow(
        self, query: str, *args: Any, timeout: float | None = None, record_class: Any = None
    ) -> Any:
        """As asyncpg's."""
        async with self.acquire() as connection:
            return await connection.fetchrow(query, *args, timeout=timeout, record_class=record_class)

    async def fetchval(
        self, query: str, *args: Any, column: int = 0, timeout: float | None = None
    ) -> Any:
        """As asyncpg's."""
        async with self.acquire() as connection:
            return await connection.fetchval(query, *args, column=column, timeout=timeout)

    async def fetchmany(self, *args: Any, **kwargs: Any) -> Any:
        """As asyncpg's."""
        async with self.acquire() as connection:
            return await connection.fetchmany(*args, **kwargs)

    async def copy_from_table(self, *args: Any, **kwargs: Any) -> Any:
        """As asyncpg's."""
        async with self.acquire() as connection:
            return await connection.copy_from_table(*args, **kwargs)

    async def copy_from_query(self, *args: Any, **kwargs: Any) -> Any:
        """As asyncpg's."""
        async with self.acquire() as connection:
            return await connection.copy_from_query(*args, **kwargs)

    async def copy_to_table(self, *args: Any, **kwargs: Any) -> Any:
        """As asyncpg's."""
        async with self.acquire() as connection:
            return await connection.copy_to_table(*args, **kwargs)

    async def copy_records_to_table(self, *args: Any, **kwargs: Any) -> Any:
        """As asyncpg's."""
        async with self.acquire() as connection:
            return await connection.copy_records_to_table(*args, **kwargs)

    def set_connect_args(self, dsn: str | None = None, **connect_kwargs: Any) -> None:
        """As asyncpg's: where connections are opened from now on."""
        self._dsn, self._kwargs = dsn, connect_kwargs

    def get_size(self) -> int:
        """How many connections are open."""
        return sum(not connection.is_closed() for connection in self._lent)

    def get_idle_size(self) -> int:
        """None are kept."""
        return 0

    def get_min_size(self) -> int:
        """None are kept."""
        return 0

    def get_max_size(self) -> int:
        """What was asked for; where there is a sidecar, that limits."""
        return self._max_size

    def is_closing(self) -> bool:
        """Whether it was closed."""
        return self._closing

    async def expire_connections(self) -> None:
        """None are kept."""

    async def close(self) -> None:
        """Waits until all connections were given back, and gives no more."""
        self._closing = True
        while any(not connection.is_closed() for connection in self._lent):
            await asyncio.sleep(0.02)
        self._lent.clear()

    def terminate(self) -> None:
        """Closes all connections at once."""
        self._closing = True
        for connection in list(self._lent):
            connection.terminate()
        self._lent.clear()

    def __await__(self) -> Generator[Any, None, Pool]:
        return self._self().__await__()

    async def _self(self) -> Pool:
        return self

    async def __aenter__(self) -> Pool:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class Acquiring:
    """What `Pool.acquire` answers."""

    def __init__(self, pool: Pool, timeout: float | None) -> None:
        self._pool = pool
        self._timeout = timeout
        self._connection: Connection = None

    def __await__(self) -> Generator[Any, None, Connection]:
        return self._pool.open(self._timeout).__await__()

    async def __aenter__(self) -> Connection:
        self._connection = await self._pool.open(self._timeout)
        return self._connection

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._pool.release(self._connection)


def create_pool(dsn: str | None = None, **kwargs: Any) -> Pool:
    """`asyncpg.create_pool`, in scopes: to be awaited, entered, or used as it is."""
    return Pool(dsn, **kwargs)
