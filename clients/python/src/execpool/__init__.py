"""execpool for Python: database connections that end with the run that opened them.

    from execpool import ExecutionScope

    with ExecutionScope("run-42", deadline="10m", labels={"agent": "sales"}) as scope:
        ...

An *execution* is one run of the app. Connections that are made in its scope belong to it, go through
the execpool sidecar where that is there, and are gone when the scope is left. Where it is absent they
go directly to the database, and are cleaned up within the process.

| module | what is in it |
|---|---|
| `scope` | `ExecutionScope`, `track` |
| `sqlalchemy` | `instrument(engine)`, engines and sessions of a scope |
| `psycopg`, `asyncpg` | `connect` and pools |
| `sql_database` | LangChain's `SQLDatabase` |
| `langchain`, `langgraph` | a scope for each run, tools' names, checkpointers |
| `starlette`, `fastapi` | a scope for each request, the debug endpoints |
| `threads` | threads that begin in the scope of who begins them |
| `manager` | counts of what is open |

Further in: `execution` (what all scopes of one id share), `registry` (those that are open), `hold` (the
stream that ties an execution to this process), `control` (the sidecar's API), `telling` (who asks it, in
which order), `checks` (what is asked), `connecting` (one connect), `dsn`, `caller`, `trace`, `naming`
(what a connection says of itself), `settings`.

`EXECPOOL` is `optional` (the default), `required` or `off`; `EXECPOOL_DIR` is the sidecar's directory,
`/run/execpool` by default; `DATABASE_URL` is the database's own URL."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .current import bind, current_scope, label
from .deprecated import close_database_connections
from .errors import (
    ConfigurationError,
    ExecpoolError,
    ExecutionEnded,
    ExecutionExists,
    InvalidExecution,
    SidecarError,
    SidecarRefused,
    SidecarUnavailable,
)
from .execution import Leftover, Summary
from .manager import ExecutionConnectionManager
from .scope import ExecutionScope, make_id, track
from .sql_database import create_execution_scoped_sql_database
from .url import database_url

if TYPE_CHECKING:
    from . import asyncpg as asyncpg
    from . import psycopg as psycopg
    from . import sqlalchemy as sqlalchemy
    from . import threads as threads
    from .sqlalchemy import (
        create_execution_scoped_async_engine,
        create_execution_scoped_engine,
        get_async_db_session,
        get_db_session,
    )

__all__ = [
    "ConfigurationError",
    "ExecpoolError",
    "ExecutionConnectionManager",
    "ExecutionEnded",
    "ExecutionExists",
    "ExecutionScope",
    "InvalidExecution",
    "Leftover",
    "SidecarError",
    "SidecarRefused",
    "SidecarUnavailable",
    "Summary",
    "bind",
    "close_database_connections",
    "create_execution_scoped_async_engine",
    "create_execution_scoped_engine",
    "create_execution_scoped_sql_database",
    "current_scope",
    "database_url",
    "get_async_db_session",
    "get_db_session",
    "label",
    "make_id",
    "track",
]

__version__ = "0.1.0"

# Drivers are extras: a module that needs one is imported by who asks for it.
_MODULES = frozenset({"asyncpg", "psycopg", "sqlalchemy", "threads"})
_OF_SQLALCHEMY = frozenset(
    {
        "create_execution_scoped_async_engine",
        "create_execution_scoped_engine",
        "get_async_db_session",
        "get_db_session",
    }
)


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    if name in _OF_SQLALCHEMY:
        return getattr(importlib.import_module(f"{__name__}.sqlalchemy"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
