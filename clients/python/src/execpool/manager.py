"""What is open in this process, in the shape that home-made managers of executions have."""

from __future__ import annotations

from typing import TypedDict, cast

from .registry import registry
from .settings import Settings
from .sidecar import find


class Counts(TypedDict):
    """Of one execution."""

    sql_engines: int
    sql_databases: int
    custom_connections: int


class Stats(TypedDict):
    """Of all executions that are open."""

    active_executions: int
    total_tracked_connections: int
    executions: dict[str, Counts]


class ExecutionConnectionManager:
    """Counts of the executions that are open."""

    def get_stats(self) -> Stats:
        """Those of this process: engines and SQLDatabases that were made in each, and what it
        tracks."""
        executions = {
            one.id: Counts(
                sql_engines=one.engines,
                sql_databases=one.databases,
                custom_connections=len(one.resources),
            )
            for one in registry.open()
        }
        return _stats(executions)

    def get_pod_stats(self) -> Stats:
        """Those of the whole pod, as the sidecar counts: `sql_engines` are sessions, `sql_databases`
        server connections, `custom_connections` what is registered. Without a sidecar, as
        `get_stats`."""
        sidecar = find(Settings.from_environment())
        if sidecar is None:
            return self.get_stats()
        return cast(Stats, sidecar.control.stats())


def _stats(executions: dict[str, Counts]) -> Stats:
    total = sum(
        counts["sql_engines"] + counts["sql_databases"] + counts["custom_connections"]
        for counts in executions.values()
    )
    return Stats(
        active_executions=len(executions),
        total_tracked_connections=total,
        executions=executions,
    )
