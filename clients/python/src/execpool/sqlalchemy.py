"""SQLAlchemy: engines whose connections belong to the execution that asks for them."""

from __future__ import annotations

import asyncio
import functools
import importlib.util
import logging
import os
import threading
import weakref
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVar, cast

import sqlalchemy
from sqlalchemy import Engine, event
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import (
    AssertionPool,
    NullPool,
    Pool,
    PoolProxiedConnection,
    SingletonThreadPool,
    StaticPool,
)

from . import caller, current, dsn
from .connecting import Connecting, let_go
from .connections import drivers_own, weakly
from .errors import ConfigurationError
from .execution import Execution
from .settings import Settings
from .sidecar import expected

log = logging.getLogger("execpool")

E = TypeVar("E", Engine, AsyncEngine)

SEEDS: dict[str, Any] = {
    "pool_size": 2,
    "max_overflow": 3,
    "pool_timeout": 20,
    "pool_recycle": 1800,
    "pool_pre_ping": True,
}
"""How an engine pools that is made in a scope without a sidecar."""

_POOLING = frozenset({*SEEDS, "pool_use_lifo", "poolclass"})
_ON_RETURN = {"pool_reset_on_return": "commit"}


def _asyncpg(connecting: Connecting, keywords: dict[str, Any]) -> dict[str, Any]:
    words = connecting.asyncpg(keywords)
    return words if connecting.sidecar is not None else dsn.certificates_in_dsn(words)


_KEYWORDS: dict[str, Callable[[Connecting, dict[str, Any]], dict[str, Any]]] = {
    "psycopg": Connecting.libpq,
    "psycopg_async": Connecting.libpq,
    "psycopg2": Connecting.libpq,
    "psycopg2cffi": Connecting.libpq,
    "asyncpg": _asyncpg,
    "pg8000": Connecting.pg8000,
}

_MARK = "_execpool_connects"


# ---- engines that are there


def instrument(engine: E) -> E:
    """Puts connections of an existing engine, such as an app's global one, into the scopes of those
    who ask for them; answers the engine.

    Where there is a sidecar, the engine's pool becomes a NullPool, as a connection that it kept
    would stay with the execution that opened it: now, or as soon as a sidecar comes that is not there
    yet. What can't be so is logged, and why."""
    own = _own(engine)
    why_not = _why_not(own)
    if why_not is not None:
        log.warning("execpool: an engine for %s is left as it is: %s", own.url, why_not)
        return engine
    if hasattr(own.dialect, _MARK):
        return engine
    settings = Settings.from_environment()
    if isinstance(own.pool, NullPool):
        _connect_in_scope(own, settings, None)
    elif not expected(settings):
        _keep_until_sidecar(own, settings)
    else:
        old = own.pool
        _keep_none(own, settings)
        old.dispose()
    return engine


def _own(engine: Engine | AsyncEngine) -> Engine:
    return engine.sync_engine if isinstance(engine, AsyncEngine) else engine


def _why_not(engine: Engine) -> str | None:
    if engine.dialect.name != "postgresql":
        return "its database is no PostgreSQL"
    if engine.dialect.driver not in _KEYWORDS:
        return f"it connects by {engine.dialect.driver}, and not by one of {', '.join(_KEYWORDS)}"
    creator = cast(Any, engine.pool)._creator
    if getattr(creator, "__module__", None) != "sqlalchemy.engine.create":
        return "it connects by a creator of its own: connect there by execpool.psycopg.connect"
    if isinstance(engine.pool, (StaticPool, SingletonThreadPool, AssertionPool)):
        kind = type(engine.pool).__name__
        return f"its {kind} is meant to keep the one connection: make it with poolclass=NullPool"
    return None


def _keep_none(engine: Engine, settings: Settings) -> None:
    """The pool that was there is still to be disposed of."""
    _connect_in_scope(engine, settings, None)
    engine.pool = _without_keeping(engine.pool)


def _without_keeping(pool: Pool) -> NullPool:
    old = cast(Any, pool)
    return NullPool(
        old._creator,
        echo=old.echo,
        logging_name=old._orig_logging_name,
        reset_on_return=old._reset_on_return,
        _dispatch=old.dispatch,
        dialect=old._dialect,
    )


def _connect_in_scope(engine: Engine, settings: Settings, execution: Execution | None) -> None:
    """Every connect of the engine, by whatever way SQLAlchemy comes to it, goes through here."""

    def lent(connection: Any, record: Any, _: object) -> None:
        opened_in = execution or _place()[1]
        if opened_in is not None:
            _tell_pool(opened_in, connection, record)

    setattr(engine.dialect, _MARK, True)
    _name_connects(engine, settings, execution)
    event.listen(engine, "checkout", lent)


def _name_connects(engine: Engine, settings: Settings, execution: Execution | None) -> None:
    dialect = cast(Any, engine.dialect)
    connect_as_before = dialect.connect
    keywords = _KEYWORDS[dialect.driver]

    def connect(*args: Any, **parameters: Any) -> Any:
        connecting = Connecting.begin(settings, execution)
        try:
            connection = connect_as_before(*args, **keywords(connecting, parameters))
        except asyncio.CancelledError as error:
            let_go(error)
            raise
        connecting.opened(connection)
        return connection

    dialect.connect = connect


def _tell_pool(execution: Execution, connection: Any, record: Any) -> None:
    """The pool is to know of a connection that the scope's end closes, and not to stumble over it
    when the app's object is collected."""
    known, own = weakref.ref(record), weakly(drivers_own(connection))

    def closed() -> None:
        there = known()
        if there is not None and drivers_own(there.dbapi_connection) is own() is not None:
            there.invalidate()

    execution.connections.tell(connection, closed)


def _lend_in_scope(engine: Engine) -> None:
    """What a pool has lent within a scope is to come back by its end."""

    def lent(connection: Any, record: Any, _: object) -> None:
        scope = current.current_scope()
        if scope is None:
            return
        connections = scope.execution.connections
        if not connections.knows(connection):  # one that was opened in this scope is known by its connect
            connections.add(connection, caller.caller(), current.current_label())
        _tell_pool(scope.execution, connection, record)
        record.info[_MARK] = scope.execution

    def returned(connection: Any, record: Any) -> None:
        execution = record.info.pop(_MARK, None)
        if execution is not None and connection is not None:
            execution.connections.forget(connection)

    setattr(engine.dialect, _MARK, True)
    event.listen(engine, "checkout", lent)
    event.listen(engine, "checkin", returned)


# ---- engines whose sidecar may still come


def _keep_until_sidecar(engine: Engine, settings: Settings) -> None:
    """Without a sidecar a pool stays. Each time that it is asked for a connection it looks whether one has
    come, as an app's container may start first."""
    _lend_in_scope(engine)
    late = _Late(engine, settings)
    setattr(engine.dialect, _LATE, late)
    late.look(engine)
    event.listen(engine, "engine_disposed", late.look)


_LATE = "_execpool_late"


class _Late:
    """An engine whose sidecar is not there yet: what all pools share that it has, one after the other, as
    `dispose` of an engine makes another one. They find it by their dialect. Thread-safe."""

    def __init__(self, engine: Engine, settings: Settings) -> None:
        self._engine = engine
        self._settings = settings
        self.has_switched = False
        """Whether the sidecar has come, and connects go through it; the lock guards it."""
        self.after_fork()
        _lates.add(self)

    def after_fork(self) -> None:
        """In a forked child: another thread of the parent's may have held the lock."""
        self.lock = threading.Lock()

    def look(self, _: Engine) -> None:
        """The engine's pool looks from now on; or keeps none, where the sidecar has come."""
        with self.lock:
            pool = cast(Any, self._engine.pool)
            if self.has_switched:
                if not isinstance(pool, NullPool):
                    self._engine.pool = _without_keeping(pool)
            elif not isinstance(pool, _Looks):
                # Of the class, so that a pool that is made of this one looks, too.
                pool.__class__ = _looking(cast(Any, type(pool)))
                pool._dialect = self._engine.dialect
                pool.made_in = os.getpid()

    def is_over(self) -> bool:
        """Whether who asks here and now is to go through the sidecar."""
        return _sidecar_of(self._settings, _place()[1])

    def switch(self, asked: _Looks) -> Pool:
        """From the pool that was asked to one that keeps none; answers the engine's pool."""
        with self.lock:
            if not self.has_switched:
                _name_connects(self._engine, self._settings, None)
                self.has_switched = True
            is_first = self._engine.pool is asked
            if is_first:
                self._engine.pool = _without_keeping(asked)
        if is_first and asked.made_in == os.getpid():
            asked.dispose()
        return self._engine.pool

    def is_past(self, pool: Pool) -> bool:
        """Whether it is the engine's no more."""
        return self._engine.pool is not pool


_lates: weakref.WeakSet[_Late] = weakref.WeakSet()


def _after_fork() -> None:
    for late in list(_lates):
        late.after_fork()


os.register_at_fork(after_in_child=_after_fork)


class _Looks(Pool):
    """What a pool of any kind does besides, until the sidecar comes."""

    asking = 0
    """How many wait for a connection of this pool; the lock guards it."""
    made_in: int
    """The process. What a forked child has of it is the parent's: its sockets are not to be closed there."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.made_in = os.getpid()

    @property
    def _late(self) -> _Late:
        return cast(_Late, getattr(cast(Any, self)._dialect, _LATE))

    def connect(self) -> PoolProxiedConnection:
        late = self._late
        if late.is_over():
            return late.switch(self).connect()
        with late.lock:
            self.asking += 1
        try:
            return super().connect()
        finally:
            with late.lock:
                self.asking -= 1

    def _do_return_conn(self, record: Any) -> None:
        super()._do_return_conn(record)
        if not self._late.has_switched or self.asking or self.made_in != os.getpid():
            return
        # It was lent before, and nobody asks here any more. A connection that was detached is not here, and
        # an asynchronous one comes so from the collector, where nothing can be closed.
        if record.dbapi_connection is not None and self._late.is_past(self):
            self.dispose()


@functools.cache
def _looking(kind: Any) -> type[Pool]:
    """A kind of pool that looks; it logs as the kind itself does."""
    told = {name: getattr(kind, name) for name in ("__module__", "__qualname__", "__doc__")}
    return type(kind.__name__, (_Looks, kind), told)


# ---- engines that are made in a scope


def create_execution_scoped_engine(url: str | None = None, **kwargs: Any) -> Engine:
    """An engine whose connections belong to the current scope, from whichever thread; disposed of
    when it ends. For `url`, or `DATABASE_URL`.

    Its connections commit on return. Where there is a sidecar it keeps none, and arguments about
    pooling have no effect; else it pools 2 + 3. Outside of a scope its connections belong to the
    scope of those who ask for them."""
    return _create(url, kwargs)


def _create(url: str | None, kwargs: dict[str, Any], *, looks: bool = True) -> Engine:
    """`looks`: whether the engine lives so long that a sidecar may come meanwhile."""
    settings, execution = _place()
    url = settings.url(url)
    if not dsn.is_postgres(url):
        engine = sqlalchemy.create_engine(url, **kwargs)
    else:
        usual = _ON_RETURN | SEEDS | kwargs
        if _sidecar_of(settings, execution):
            usual = {name: value for name, value in usual.items() if name not in _POOLING}
            usual["poolclass"] = NullPool
        elif "poolclass" in kwargs:
            usual = _ON_RETURN | kwargs
        url = dsn.scheme(url, f"postgresql+{_sync_driver(dsn.driver(url))}")
        engine = sqlalchemy.create_engine(url, **usual)
        if execution is None and not expected(settings) and not isinstance(engine.pool, NullPool):
            # What it pools is lent to one scope after the other.
            if looks:
                _keep_until_sidecar(engine, settings)
            else:
                _lend_in_scope(engine)
        else:
            _connect_in_scope(engine, settings, execution)
    if execution is not None:
        execution.engines += 1
        if not isinstance(engine.pool, NullPool):  # which has nothing to dispose of
            execution.at_end(engine.dispose)
            execution.in_child(lambda: engine.dispose(close=False))
    return engine


def create_execution_scoped_async_engine(url: str | None = None, **kwargs: Any) -> AsyncEngine:
    """The same for asyncio. It keeps no connection, with a sidecar or without."""
    settings, execution = _place()
    url = settings.url(url)
    url = dsn.scheme(url, f"postgresql+{_async_driver(dsn.driver(url))}")
    usual = {name: value for name, value in kwargs.items() if name not in _POOLING}
    engine = create_async_engine(url, **(_ON_RETURN | usual | {"poolclass": NullPool}))
    _connect_in_scope(engine.sync_engine, settings, execution)
    if execution is not None:
        execution.engines += 1
    return engine


def _place() -> tuple[Settings, Execution | None]:
    scope = current.current_scope()
    if scope is None:
        return Settings.from_environment(), None
    return scope.execution.settings, scope.execution


def _sidecar_of(settings: Settings, execution: Execution | None) -> bool:
    return expected(settings) if execution is None else execution.sidecar is not None


def _sync_driver(wanted: str | None) -> str:
    return _driver(wanted, ("psycopg", "psycopg2", "pg8000", "psycopg2cffi"))


def _async_driver(wanted: str | None) -> str:
    return _driver(wanted, ("asyncpg", "psycopg"))


def _driver(wanted: str | None, known: tuple[str, ...]) -> str:
    if wanted in known:
        return wanted
    for name in known:
        if importlib.util.find_spec(name) is not None:
            return name
    raise ConfigurationError(f"SQLAlchemy needs one of the drivers {', '.join(known)}: install one")


# ---- sessions


@contextmanager
def get_db_session(engine: Engine | None = None, **kwargs: Any) -> Generator[Session, None, None]:
    """A session that is closed on every path, and rolled back where an exception leaves it. What is
    not committed by then is gone.

    Without an engine it is one of the current scope's, the same for all sessions of it."""
    made = None
    if engine is None:
        engine, made = _engine_for_sessions()
    session = Session(engine, **kwargs)
    try:
        yield session
    except BaseException:
        session.rollback()
        raise
    finally:
        session.close()
        if made is not None:
            made.dispose()


@asynccontextmanager
async def get_async_db_session(
    engine: AsyncEngine | None = None, **kwargs: Any
) -> AsyncGenerator[AsyncSession, None]:
    """The same for asyncio."""
    made = None if engine is not None else create_execution_scoped_async_engine()
    session = AsyncSession(engine or made, **kwargs)
    try:
        yield session
    except BaseException:
        await session.rollback()
        raise
    finally:
        await session.close()
        if made is not None:
            await made.dispose()


def _engine_for_sessions() -> tuple[Engine, Engine | None]:
    """The engine, and the same if it is to be disposed of after use."""
    _, execution = _place()
    if execution is None:
        engine = _create(None, {}, looks=False)
        return engine, engine
    with execution.begun:
        if execution.session_engine is None:
            execution.session_engine = create_execution_scoped_engine()
        return cast(Engine, execution.session_engine), None
