"""The URL for drivers that execpool has no module for."""

from __future__ import annotations

from . import dsn
from .connecting import Connecting


def database_url(url: str | None = None) -> str:
    """`url`, or `DATABASE_URL`, as it is to be given to a driver here and now: where there is a
    sidecar, by its socket and in the current scope. For libpq's drivers, node-postgres and pgx;
    asyncpg takes the execution by `execpool.asyncpg.connect`."""
    connecting = Connecting.begin()
    given = connecting.settings.url(url)
    if connecting.sidecar is None or not dsn.is_postgres(given):
        return given
    options = connecting.naming.options()
    swapped = connecting.dsn(given)
    return dsn.with_options(swapped, options) if options else swapped


