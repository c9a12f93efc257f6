"""One connect: which way it goes, and what it says of itself. What all drivers' modules share."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from . import caller, current, dsn, trace
from .errors import ExecutionEnded
from .execution import Execution
from .naming import Naming
from .settings import Settings
from .sidecar import Sidecar, expected, find


@dataclass(frozen=True)
class Connecting:
    """A connection that is about to be opened."""

    execution: Execution | None
    sidecar: Sidecar | None
    naming: Naming
    settings: Settings

    @classmethod
    def begin(
        cls, settings: Settings | None = None, execution: Execution | None = None
    ) -> Connecting:
        """In the given execution, else in the current scope's, else in none. Raises ExecutionEnded
        for a straggler, and SidecarUnavailable where the sidecar is required and absent."""
        if execution is None:
            scope = current.current_scope()
            execution = None if scope is None else scope.execution
        if execution is None:
            settings = settings or Settings.from_environment()
            sidecar = find(settings)
        else:
            settings = execution.settings
            sidecar = execution.sidecar
            _refuse_straggler(execution)
        naming = Naming(
            None if execution is None else execution.id,
            caller.caller(),
            current.current_label(),
            trace.traceparent() if sidecar is not None else None,
        )
        return cls(execution, sidecar, naming, settings)

    @classmethod
    def shared(cls, label: str) -> Connecting:
        """In the standing execution, which has no end, whichever scope is current: for what outlives
        a run. Raises SidecarUnavailable where the sidecar is required and absent."""
        settings = Settings.from_environment()
        sidecar = find(settings)
        return cls(None, sidecar, Naming("shared", caller.caller(), label, None), settings)

    def default_dsn(self) -> str | None:
        """`DATABASE_URL` as drivers read it, if it is set."""
        url = self.settings.database_url
        return dsn.scheme(url, "postgresql") if url and dsn.driver(url) else url

    def dsn(self, given: str) -> str:
        """The connection string, of any form, by which to connect with a driver of libpq's."""
        if self.sidecar is None:
            return given
        return dsn.through(self.sidecar, given)

    def libpq(self, keywords: Mapping[str, Any]) -> dict[str, Any]:
        """Parameters as libpq names them, with the names in `options`."""
        if self.sidecar is None:
            return dict(keywords)
        swapped = dsn.keywords_through(self.sidecar, keywords)
        swapped["options"] = dsn.joined(swapped.get("options"), self.naming.options())
        return swapped

    def asyncpg(self, keywords: Mapping[str, Any]) -> dict[str, Any]:
        """Parameters as asyncpg names them, with the names in `server_settings`."""
        keywords = dsn.asyncpg_keywords(keywords)
        if self.sidecar is None:
            return keywords
        swapped = dsn.keywords_through(self.sidecar, keywords)
        settings = dict(swapped.get("server_settings") or {})
        swapped["server_settings"] = settings | self.naming.parameters()
        return swapped

    def pg8000(self, keywords: Mapping[str, Any]) -> dict[str, Any]:
        """Parameters as pg8000 names them, which can say no more than the execution."""
        if self.sidecar is None:
            return dict(keywords)
        swapped = dsn.keywords_through(self.sidecar, keywords)
        host, port = swapped.pop("host"), swapped.pop("port")
        swapped["unix_sock"] = f"{host}/.s.PGSQL.{port}"
        name = self.naming.application_name(swapped.pop("application_name", None))
        return swapped if name is None else swapped | {"application_name": name}

    def opened(self, connection: object) -> None:
        """The connection is open: it is to be gone when its execution ends."""
        if self.execution is not None:
            self.execution.connections.add(connection, self.naming.caller, self.naming.label)


def let_go(cancelled: asyncio.CancelledError) -> None:
    """Of a connect that was cancelled: psycopg leaves what was half open to the collector, and the exception's
    traceback would keep it until the run has ended."""
    traceback.clear_frames(cancelled.__traceback__)


def goes_directly() -> bool:
    """Whether what is opened here and now goes to the database itself, where no sidecar limits it."""
    scope = current.current_scope()
    if scope is not None:
        return scope.execution.sidecar is None
    return not expected(Settings.from_environment())


def _refuse_straggler(execution: Execution) -> None:
    # The sidecar refuses one, too, for as long as it remembers the execution.
    if execution.has_ended and execution.is_ours:
        why = f" ({execution.ended_by})" if execution.ended_by else ""
        raise ExecutionEnded(
            f"execution {execution.id} has ended{why}, and this code still runs in it: let it end before "
            "its ExecutionScope does, or give it a scope of its own"
        )
