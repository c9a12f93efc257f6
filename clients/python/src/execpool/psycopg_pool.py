"""In the place of psycopg_pool's pools: a connection is opened when it is asked for, in the scope of
who asks, and closed when it is given back. The sidecar keeps connections, and limits them; a client
that waited here would get one of another execution's."""

from __future__ import annotations

import asyncio
import inspect
import time
from typing import Any

import psycopg.errors
import psycopg_pool
from psycopg import AsyncConnection, Connection, OperationalError
from psycopg.pq import TransactionStatus

from .connecting import goes_directly
from .errors import SidecarUnavailable
from .limit import Limit
from .psycopg import connected, connected_async

__all__ = ["AsyncConnectionPool", "ConnectionPool"]

_DEFAULT_SIZE = 4
_PAUSE = 0.2
"""Seconds between two attempts of `wait`."""


def _limit(min_size: int, max_size: int | None) -> Limit:
    """The pool's own limit, which counts without a sidecar."""
    return Limit(max_size or max(min_size, _DEFAULT_SIZE))


def _not_ready(pool: str, timeout: float, error: Exception) -> psycopg_pool.PoolTimeout:
    return psycopg_pool.PoolTimeout(f"{pool} got no connection for {timeout} s: {error}")


# An OperationalError like others before psycopg 3.2.
_ConnectionTimeout: type[OperationalError] = getattr(
    psycopg.errors, "ConnectionTimeout", psycopg_pool.PoolTimeout
)


class ConnectionPool(psycopg_pool.NullConnectionPool[Connection[Any]]):
    """`psycopg_pool.ConnectionPool`, in scopes. `min_size` has no effect, and `max_size` none where
    there is a sidecar."""

    def __init__(
        self,
        conninfo: str = "",
        *,
        min_size: int = 0,
        max_size: int | None = None,
        open: bool | None = True,
        **options: Any,
    ) -> None:
        self._room = _limit(min_size, max_size)
        options.setdefault("num_workers", 1)
        super().__init__(conninfo, min_size=0, max_size=0, open=open, **options)

    def getconn(self, timeout: float | None = None) -> Connection[Any]:
        """A connection of the current scope; it is given back by `putconn`."""
        self._check_open_getconn()
        timeout = self.timeout if timeout is None else timeout
        until = time.monotonic() + timeout
        if not goes_directly():
            return self._open_one(until)
        try:
            self._room.wait(timeout)
        except TimeoutError:
            raise psycopg_pool.PoolTimeout(f"all connections of {self.name} are in use") from None
        connection = None
        try:
            connection = self._open_one(until)
            return connection
        finally:
            self._room.opened(connection)

    def wait(self, timeout: float = 30.0) -> None:
        """Waits until a connection can be had: it is made, past `max_size`, and closed."""
        until = time.monotonic() + timeout
        while True:
            self._check_open_getconn()
            try:
                self.putconn(self._open_one(until))
                return
            except (OperationalError, SidecarUnavailable) as error:
                if time.monotonic() > until:
                    self.close()
                    raise _not_ready(self.name, timeout, error) from error
            time.sleep(_PAUSE)

    def putconn(self, conn: Connection[Any]) -> None:
        """Gives a connection back: what it has open is rolled back."""
        try:
            if not conn.closed and conn.pgconn.transaction_status != TransactionStatus.IDLE:
                conn.rollback()
        except Exception:
            pass  # it is closed all the same
        finally:
            conn.close()

    def _open_one(self, until: float) -> Connection[Any]:
        kwargs = dict(self.kwargs() if callable(self.kwargs) else self.kwargs or {})
        conninfo = self.conninfo() if callable(self.conninfo) else self.conninfo
        try:
            connection = connected(self.connection_class, conninfo, kwargs, until)
        except _ConnectionTimeout as error:
            raise psycopg_pool.PoolTimeout(str(error)) from None
        try:
            if self._configure is not None:
                self._configure(connection)
            return connection
        except BaseException:
            connection.close()
            raise


class AsyncConnectionPool(psycopg_pool.AsyncNullConnectionPool[AsyncConnection[Any]]):
    """`psycopg_pool.AsyncConnectionPool`, in scopes, likewise."""

    def __init__(
        self,
        conninfo: str = "",
        *,
        min_size: int = 0,
        max_size: int | None = None,
        open: bool | None = None,
        **options: Any,
    ) -> None:
        self._room = _limit(min_size, max_size)
        options.setdefault("num_workers", 1)
        super().__init__(conninfo, min_size=0, max_size=0, open=open, **options)

    async def getconn(self, timeout: float | None = None) -> AsyncConnection[Any]:
        """A connection of the current scope; it is given back by `putconn`. Cancel safe."""
        self._check_open_getconn()
        timeout = self.timeout if timeout is None else timeout
        until = time.monotonic() + timeout
        if not goes_directly():
            return await self._open_one(until)
        try:
            await self._room.wait_async(timeout)
        except TimeoutError:
            raise psycopg_pool.PoolTimeout(f"all connections of {self.name} are in use") from None
        connection = None
        try:
            connection = await self._open_one(until)
            return connection
        finally:
            self._room.opened(connection)

    async def wait(self, timeout: float = 30.0) -> None:
        """Waits until a connection can be had: it is made, past `max_size`, and closed. Cancel safe."""
        until = time.monotonic() + timeout
        while True:
            self._check_open_getconn()
            try:
                await self.putconn(await self._open_one(until))
                return
            except (OperationalError, SidecarUnavailable) as error:
                if time.monotonic() > until:
                    await self.close()
                    raise _not_ready(self.name, timeout, error) from error
            await asyncio.sleep(_PAUSE)

    async def putconn(self, conn: AsyncConnection[Any]) -> None:
        """Gives a connection back: what it has open is rolled back."""
        try:
            if not conn.closed and conn.pgconn.transaction_status != TransactionStatus.IDLE:
                await conn.rollback()
        except Exception:
            pass  # it is closed all the same
        finally:
            await conn.close()

    async def _open_one(self, until: float) -> AsyncConnection[Any]:
        kwargs = dict(await _asked(self.kwargs) or {})
        conninfo = await _asked(self.conninfo)
        try:
            connection = await connected_async(self.connection_class, conninfo, kwargs, until)
        except _ConnectionTimeout as error:
            raise psycopg_pool.PoolTimeout(str(error)) from None
        try:
            if self._configure is not None:
                await self._configure(connection)
            return connection
        except BaseException:
            await connection.close()
            raise


async def _asked(given: Any) -> Any:
    """What was given, or what the function answers that was given, awaited where it is to be."""
    told = given() if callable(given) else given
    return await told if inspect.isawaitable(told) else told
