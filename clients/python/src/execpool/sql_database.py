"""LangChain's `SQLDatabase` in the current scope."""

from __future__ import annotations

import asyncio
import logging
import opcode
import sys
from collections.abc import Generator
from types import FrameType
from typing import Any, NoReturn, cast

from . import current, dsn
from .settings import Settings
from .workers import in_loop

log = logging.getLogger("execpool")


def create_execution_scoped_sql_database(url: str | None = None, **kwargs: Any) -> Any:
    """LangChain's `SQLDatabase` on an engine of the current scope, for `url` or `DATABASE_URL`; None,
    with a logged error, where the database can't be reached. Takes what `SQLDatabase` takes.

    `await create_…()` and the plain call answer the same; awaited it does not block the event loop
    while it connects. A plain call in a coroutine that fails answers something false that can be
    awaited: ask `if not database`."""
    if _is_awaited(sys._getframe(1)):  # pyright: ignore[reportPrivateUsage]
        return asyncio.to_thread(_create, url, kwargs)
    database = _create(url, kwargs)
    if database is None and in_loop():
        return _Unreachable()
    return database


def _create(url: str | None, kwargs: dict[str, Any]) -> object | None:
    from .sqlalchemy import create_execution_scoped_engine

    scope = current.current_scope()
    engine = None
    try:
        engine = create_execution_scoped_engine(url)
        database = _class()(engine, **kwargs)
    except Exception as error:
        if engine is not None:
            engine.dispose()
        if isinstance(error, (TypeError, ImportError)):
            raise  # a wrong argument or a missing package, and no database
        where = url or Settings.from_environment().database_url or "no DATABASE_URL"
        log.error(
            "execpool: no SQLDatabase for execution %s: %s can't be reached: %s",
            "none" if scope is None else scope.id,
            dsn.redacted(where),
            error,
        )
        return None
    if scope is not None:
        scope.execution.databases += 1
    return cast(object, database)


_made: dict[type, type] = {}


def _class() -> Any:
    """LangChain's class, an object of which may be awaited besides."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        from langchain_community.utilities import SQLDatabase

    known = cast(type, SQLDatabase)
    if known not in _made:

        def wait(self: object) -> Generator[Any, None, object]:
            yield from ()
            return self

        members = {"__await__": wait, "__module__": known.__module__, "__doc__": known.__doc__}
        _made[known] = type(known.__name__, (known,), members)
    return _made[known]


class _Unreachable:
    """A database that can't be reached: false, equal to None, and None once it is awaited."""

    def __bool__(self) -> bool:
        return False

    def __eq__(self, other: object) -> bool:
        return other is None or isinstance(other, _Unreachable)

    def __hash__(self) -> int:
        return hash(None)

    def __await__(self) -> Generator[Any, None, None]:
        yield from ()

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(
            f"there is no SQLDatabase to ask for {name}: the database could not be reached, as the "
            "log says"
        )


_GET_AWAITABLE = opcode.opmap["GET_AWAITABLE"]
_SKIPPED = {opcode.opmap.get("CACHE", 0), opcode.opmap["EXTENDED_ARG"]}


def _is_awaited(frame: FrameType) -> bool:
    """Whether what the frame's current call answers is awaited at once. Where that is not seen the
    answer is still right, and the loop waits for the connect."""
    code = frame.f_code.co_code
    at = frame.f_lasti + 2
    while at < len(code) and code[at] in _SKIPPED:
        at += 2
    return at < len(code) and code[at] == _GET_AWAITABLE
