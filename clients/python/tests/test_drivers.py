"""Connections of every driver belong to the scope in which they are asked for."""

from __future__ import annotations

import asyncio
import gc
import io
import threading
import weakref
from collections.abc import Callable
from typing import Any

import execpool
import execpool.asyncpg
import execpool.psycopg
import execpool.sqlalchemy
import psycopg_pool
import pytest
import sqlalchemy
from conftest import SOON, Postgres, Sidecar, eventually
from execpool import ExecutionScope
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool, StaticPool


def executions(sidecar: Sidecar) -> list[str]:
    """Those of the sessions that are open now."""
    sessions = sidecar.control._request("GET", "/v1/sessions")
    sessions = sessions.get("sessions", sessions) if isinstance(sessions, dict) else sessions
    return sorted(one["execution"] for one in sessions)


def in_use(sidecar: Sidecar, expected: list[str]) -> bool:
    """Whether sessions of these executions are open; a goodbye may be on its way."""
    return bool(eventually(lambda: executions(sidecar) == expected))


def url_of(postgres: Postgres, driver: str) -> str:
    url = postgres.url.replace("postgresql:", f"postgresql+{driver}:")
    # These two know no sslmode.
    return url.partition("?")[0] if driver in ("asyncpg", "pg8000") else url


# ---- SQLAlchemy


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2", "pg8000"])
def test_a_global_engine_serves_each_scope_its_own_connections(
    sidecar: Sidecar, postgres: Postgres, driver: str
) -> None:
    engine = sqlalchemy.create_engine(url_of(postgres, driver), pool_size=5)
    assert execpool.sqlalchemy.instrument(engine) is engine
    execpool.sqlalchemy.instrument(engine)
    assert isinstance(engine.pool, NullPool)

    def run(name: str) -> None:
        with ExecutionScope(name) as scope:
            for _ in range(2):
                with engine.connect() as connection:
                    assert connection.execute(text("SELECT count(*) FROM orders")).scalar() == 2
                    assert name in executions(sidecar)
            leaked.append(engine.connect())
            leaked[-1].execute(text("SELECT 1"))
        assert scope.summary is not None and scope.summary.sessions == 3
        (left,) = scope.summary.leftovers
        if driver != "pg8000":  # which can say no more than the execution
            assert left.caller is not None and " run" in left.caller

    leaked: list[Any] = []
    threads = [threading.Thread(target=run, args=(f"{driver}-{i}",)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(leaked) == 4
    engine.dispose()
    assert isinstance(engine.pool, NullPool)


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
def test_a_global_asynchronous_engine_likewise(
    sidecar: Sidecar, postgres: Postgres, driver: str
) -> None:
    async def main() -> None:
        engine = execpool.sqlalchemy.instrument(create_async_engine(url_of(postgres, driver)))

        async def run(name: str) -> None:
            async with ExecutionScope(name) as scope:
                for _ in range(2):
                    async with engine.connect() as connection:
                        await connection.execute(text("SELECT * FROM orders"))
                        assert name in await asyncio.to_thread(executions, sidecar)
            assert scope.summary is not None and scope.summary.sessions == 2
            assert scope.summary.leftovers == ()

        await asyncio.gather(*(run(f"{driver}-{i}") for i in range(6)))
        await engine.dispose()

    asyncio.run(main())


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2", "pg8000", "async psycopg", "async asyncpg"])
def test_a_scope_that_lasts_keeps_no_connection_that_is_closed_and_no_engine(
    sidecar: Sidecar, postgres: Postgres, driver: str
) -> None:
    kind, _, name = driver.rpartition(" ")
    url = url_of(postgres, name)

    async def ask() -> None:
        engine = execpool.create_execution_scoped_async_engine(url)
        for _ in range(5):
            async with engine.connect() as connection:
                await connection.execute(text("SELECT 1"))
        await engine.dispose()

    with ExecutionScope("lasts") as scope:
        if kind:
            asyncio.run(ask())
        else:
            engine = execpool.create_execution_scoped_engine(url)
            for _ in range(5):
                with engine.connect() as connection:
                    connection.execute(text("SELECT 1"))
            gone = weakref.ref(engine)
            del engine, connection
        gc.collect()
        assert scope.execution.connections._opened == {}
        assert kind or gone() is None


def test_what_an_engine_was_made_with_stays(sidecar: Sidecar, postgres: Postgres) -> None:
    from sqlalchemy import event

    engine = sqlalchemy.create_engine(
        url_of(postgres, "psycopg"),
        connect_args={"application_name": "mine", "options": "-c geqo=off"},
        pool_reset_on_return="commit",
    )
    seen: list[str] = []
    event.listen(engine, "connect", lambda *_: seen.append("connect"))
    event.listen(engine, "checkout", lambda *_: seen.append("checkout"))
    execpool.sqlalchemy.instrument(engine)
    event.listen(engine, "do_connect", lambda *_: seen.append("do_connect"))
    with ExecutionScope("kept"), engine.connect() as connection:
        (session,) = sidecar.control.sessions("kept")
        assert session["application_name"] == "mine"
        assert connection.execute(text("SHOW geqo")).scalar() == "off"
    assert seen == ["do_connect", "connect", "checkout"]
    assert engine.pool._reset_on_return.name == "reset_commit"


def test_outside_of_any_scope_an_engine_shares_the_standing_execution(
    sidecar: Sidecar, postgres: Postgres
) -> None:
    engine = execpool.sqlalchemy.instrument(sqlalchemy.create_engine(url_of(postgres, "psycopg")))
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))
        assert in_use(sidecar, ["shared"])


def test_an_engine_that_can_not_be_is_told_why_not(
    sidecar: Sidecar, postgres: Postgres, warnings: Callable[[], list[str]]
) -> None:
    url = url_of(postgres, "psycopg")
    for engine, why in (
        (sqlalchemy.create_engine("sqlite://"), "no PostgreSQL"),
        (sqlalchemy.create_engine(url, poolclass=StaticPool), "StaticPool"),
        (sqlalchemy.create_engine(url, creator=lambda: None), "creator of its own"),
    ):
        pool = engine.pool
        execpool.sqlalchemy.instrument(engine)
        assert engine.pool is pool and why in warnings()[-1]
        assert "hunter" not in warnings()[-1] and "w%25rd" not in warnings()[-1]


def test_an_engine_of_a_scope_commits_on_return_and_belongs_to_it_from_any_thread(
    sidecar: Sidecar, postgres: Postgres
) -> None:
    with ExecutionScope("scoped") as scope:
        engine = execpool.create_execution_scoped_engine(pool_size=7)
        assert isinstance(engine.pool, NullPool)

        def work() -> None:
            connection = engine.connect()
            connection.execute(text("CREATE TABLE returned (id int)"))
            assert in_use(sidecar, ["scoped"])
            # Given back without a commit: the engine commits, as its reset says. A Connection that
            # is closed rolls back first, so the pool's own connection shows it.
            connection.close()
            raw = engine.raw_connection()
            raw.cursor().execute("CREATE TABLE returned (id int)")
            raw.close()

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        with engine.begin() as connection:
            connection.execute(text("DROP TABLE returned"))
    assert scope.summary is not None and scope.summary.sessions == 3
    with pytest.raises(execpool.ExecutionEnded):
        engine.connect()


def test_a_url_of_any_driver_makes_an_engine(
    sidecar: Sidecar, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    for form in ("postgres:", "postgresql:", "postgresql+asyncpg:", "postgresql+psycopg2:"):
        monkeypatch.setenv("DATABASE_URL", postgres.url.replace("postgresql:", form))
        with ExecutionScope("forms"), execpool.create_execution_scoped_engine().connect() as opened:
            assert opened.execute(text("SELECT 1")).scalar() == 1
            assert in_use(sidecar, ["forms"])


def test_a_session_is_closed_on_every_path(sidecar: Sidecar, postgres: Postgres) -> None:
    with ExecutionScope("sessions") as scope:
        with execpool.get_db_session() as session:
            session.execute(text("INSERT INTO orders VALUES (7, 'committed')"))
            session.commit()
        with execpool.get_db_session() as session:
            session.execute(text("INSERT INTO orders VALUES (8, 'forgotten')"))
        with pytest.raises(KeyError), execpool.get_db_session() as session:
            session.execute(text("INSERT INTO orders VALUES (9, 'failed')"))
            raise KeyError
        assert in_use(sidecar, [])
        assert execpool.ExecutionConnectionManager().get_stats()["executions"]["sessions"] == {
            "sql_engines": 1,
            "sql_databases": 0,
            "custom_connections": 0,
        }

        async def on_asyncio() -> None:
            async with execpool.get_async_db_session() as session:
                found = await session.execute(text("DELETE FROM orders WHERE id > 6 RETURNING id"))
                assert [row[0] for row in found] == [7]
                await session.commit()
            with pytest.raises(KeyError):
                async with execpool.get_async_db_session() as session:
                    await session.execute(text("DELETE FROM orders"))
                    raise KeyError

        asyncio.run(on_asyncio())
    assert scope.summary is not None and scope.summary.leftovers == ()
    with execpool.get_db_session() as session:
        assert session.execute(text("SELECT count(*) FROM orders")).scalar() == 2


# ---- LangChain's SQLDatabase


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_sql_database_is_the_same_awaited_or_not(sidecar: Sidecar) -> None:
    from langchain_community.utilities import SQLDatabase

    with ExecutionScope("chain"):
        plain = execpool.create_execution_scoped_sql_database()
        assert isinstance(plain, SQLDatabase) and plain.run("SELECT item FROM orders LIMIT 1")

        async def on_asyncio() -> None:
            awaited = await execpool.create_execution_scoped_sql_database(max_string_length=5)
            called = execpool.create_execution_scoped_sql_database()
            waited = await asyncio.wait_for(_future(called), SOON)
            assert isinstance(awaited, SQLDatabase) and isinstance(waited, SQLDatabase)
            assert awaited.get_usable_table_names() == ["orders"]

        asyncio.run(on_asyncio())
        stats = execpool.ExecutionConnectionManager().get_stats()
        assert stats["executions"]["chain"]["sql_databases"] == 3
        assert stats["executions"]["chain"]["sql_engines"] == 3
        assert stats["active_executions"] == 1 and stats["total_tracked_connections"] == 6
    assert execpool.ExecutionConnectionManager().get_stats()["active_executions"] == 0


async def _future(awaitable: Any) -> Any:
    return await awaitable


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_sql_database_that_can_not_be_reached_is_none_and_an_error_in_the_log(
    sidecar: Sidecar, monkeypatch: pytest.MonkeyPatch, warnings: Callable[[], list[str]]
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://app:hunter2@localhost/nowhere")
    with ExecutionScope("unreached"):
        assert execpool.create_execution_scoped_sql_database() is None

        async def on_asyncio() -> None:
            assert await execpool.create_execution_scoped_sql_database() is None
            plain = execpool.create_execution_scoped_sql_database()
            assert not plain and plain == None  # noqa: E711
            assert (await plain) is None
            with pytest.raises(AttributeError, match="could not be reached"):
                plain.run("SELECT 1")

        asyncio.run(on_asyncio())
    assert len(warnings()) == 3
    for warning in warnings():
        assert "execution unreached" in warning and "nowhere" in warning and "hunter2" not in warning


def test_awaiting_a_sql_database_does_not_block_the_loop(
    sidecar: Sidecar, monkeypatch: pytest.MonkeyPatch
) -> None:
    import execpool.sql_database as module

    threads: list[threading.Thread] = []
    monkeypatch.setattr(module, "_create", lambda *_: threads.append(threading.current_thread()))

    async def main() -> None:
        await execpool.create_execution_scoped_sql_database()
        await execpool.create_execution_scoped_sql_database("postgresql://h/d", schema="s")
        database = await module.create_execution_scoped_sql_database(
            schema="a" * 300, max_string_length=1
        )
        assert database is None

    asyncio.run(main())
    assert len(threads) == 3 and threading.main_thread() not in threads


# ---- psycopg


def test_psycopg_takes_what_it_takes(sidecar: Sidecar, postgres: Postgres) -> None:
    from psycopg.rows import dict_row

    with ExecutionScope("psycopg"):
        for given in ({}, {"conninfo": postgres.url}, {"host": "127.0.0.1", "dbname": "app", "user": "app"}):
            with execpool.psycopg.connect(autocommit=True, row_factory=dict_row, **given) as connection:
                assert connection.autocommit
                assert connection.execute("SELECT 1 AS one").fetchone() == {"one": 1}
                assert in_use(sidecar, ["psycopg"])


def test_a_pool_of_psycopg_gives_each_scope_its_own(sidecar: Sidecar, postgres: Postgres) -> None:
    import psycopg_pool

    pool = execpool.psycopg.ConnectionPool(
        postgres.url, min_size=4, max_size=2, kwargs={"autocommit": True}, name="app"
    )
    assert isinstance(pool, psycopg_pool.ConnectionPool)

    def run(name: str) -> None:
        with ExecutionScope(name) as scope, pool.connection() as first, pool.connection() as second:
            for connection in (first, second):
                assert connection.execute("SELECT 1").fetchone() == (1,)
            assert len(sidecar.control.sessions(name)) == 2
        assert scope.summary is not None and scope.summary.leftovers == ()

    threads = [threading.Thread(target=run, args=(f"pool-{i}",)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with ExecutionScope("leaks") as scope:
        kept = pool.getconn()
        kept.execute("SELECT 1")
        pool.putconn(kept)
        assert kept.closed
        leaked = pool.getconn()
        leaked.execute("SELECT 1")
    assert scope.summary is not None and len(scope.summary.leftovers) == 1 and leaked.closed
    pool.close()
    with pytest.raises(psycopg_pool.PoolClosed):
        pool.getconn()


def test_an_asynchronous_pool_of_psycopg_likewise(sidecar: Sidecar, postgres: Postgres) -> None:
    async def main() -> None:
        async with execpool.psycopg.AsyncConnectionPool(postgres.url, open=False) as pool:

            async def run(name: str) -> None:
                async with ExecutionScope(name):
                    async with pool.connection() as connection:
                        await connection.execute("SELECT 1")
                        assert len(await asyncio.to_thread(sidecar.control.sessions, name)) == 1

            await asyncio.gather(*(run(f"apool-{i}") for i in range(10)))
            kept = await pool.getconn()
            await kept.execute("SELECT 1")
            await pool.putconn(kept)
            assert kept.closed

    asyncio.run(main())


# ---- asyncpg


def test_asyncpg_takes_what_it_takes(sidecar: Sidecar, postgres: Postgres) -> None:
    async def main() -> None:
        async with ExecutionScope("asyncpg"):
            for given in (
                {},
                {"dsn": postgres.url},
                {"dsn": url_of(postgres, "asyncpg")},
                {"host": "127.0.0.1", "user": "app", "database": "app", "ssl": "prefer"},
            ):
                connection = await execpool.asyncpg.connect(server_settings={"geqo": "off"}, **given)
                assert await connection.fetchval("SHOW geqo") == "off"
                assert in_use(sidecar, ["asyncpg"])
                await connection.close()

    asyncio.run(main())


def test_a_pool_of_asyncpg_gives_each_scope_its_own(sidecar: Sidecar, postgres: Postgres) -> None:
    prepared: list[Any] = []

    async def prepare(connection: Any) -> None:
        prepared.append(connection)

    async def main() -> None:
        async with execpool.asyncpg.create_pool(postgres.url, max_size=2, init=prepare) as pool:

            async def run(name: str) -> None:
                async with ExecutionScope(name) as scope:
                    async with pool.acquire() as connection, connection.transaction():
                        await connection.execute("SELECT 1")
                        assert len(await asyncio.to_thread(sidecar.control.sessions, name)) == 1
                    assert await pool.fetchval("SELECT 1") == 1
                    assert (await pool.fetchrow("SELECT 1 AS a, 2 AS b"))["b"] == 2
                    assert await pool.execute("SELECT 1") == "SELECT 1"
                    assert len(await pool.fetch("SELECT * FROM orders")) == 2
                assert scope.summary is not None and scope.summary.leftovers == ()

            await asyncio.gather(*(run(f"pg-{i}") for i in range(5)))
            held = await pool.acquire()
            assert pool.get_size() == 1
            await pool.release(held)
        pool = await execpool.asyncpg.create_pool()
        await pool.acquire()
        pool.terminate()
        import asyncpg

        with pytest.raises(asyncpg.InterfaceError, match="closing"):
            await pool.acquire()

    asyncio.run(main())
    assert len(prepared) == 26


# ---- any other


@pytest.mark.parametrize("place", ["sidecar", "direct"])
def test_waiting_for_a_pool_goes_where_its_connections_go(
    request: pytest.FixtureRequest, postgres: Postgres, place: str
) -> None:
    request.getfixturevalue(place)

    async def on_asyncio() -> None:
        async with ExecutionScope("awaits"), execpool.psycopg.AsyncConnectionPool(open=False) as pool:
            await pool.open(wait=True)

    # No `conninfo` is given: of itself, psycopg_pool would go to localhost, and past the sidecar.
    with ExecutionScope("waits"), execpool.psycopg.ConnectionPool(open=False) as pool:
        pool.open(wait=True)
    asyncio.run(on_asyncio())
    with execpool.psycopg.ConnectionPool(kwargs={"dbname": "absent"}, open=False) as pool:
        with pytest.raises(psycopg_pool.PoolTimeout, match="got no connection for 0.3 s: .*(absent|timeout)"):
            pool.open(wait=True, timeout=0.3)
        assert pool.closed


def test_a_pool_of_asyncpg_copies(sidecar: Sidecar, postgres: Postgres) -> None:
    async def main() -> None:
        async with ExecutionScope("copies"), execpool.asyncpg.create_pool() as pool:
            await pool.copy_records_to_table("orders", records=[(7, "rice")])
            for copy in (
                pool.copy_from_table("orders", columns=["item"], output=(seen := io.BytesIO())),
                pool.copy_from_query("SELECT $1::int", 8, output=seen),
                pool.copy_to_table("orders", source=io.BytesIO(b"8\tmilk\n")),
            ):
                assert await copy == f"COPY {3 if copy.__name__ == 'copy_from_table' else 1}"
            assert seen.getvalue() == b"tea\nsalt\nrice\n8\n"
            item = "DELETE FROM orders WHERE id = $1 RETURNING item"
            assert [row["item"] for row in await pool.fetchmany(item, [(7,), (8,)])] == ["rice", "milk"]
            pool.set_connect_args(user="app", database="absent")
            with pytest.raises(Exception, match="absent"):
                await pool.fetchval("SELECT 1")

    asyncio.run(main())


@pytest.mark.parametrize("place", ["sidecar", "direct"])
def test_a_url_of_libpqs_is_right_for_asyncpg(
    request: pytest.FixtureRequest, postgres: Postgres, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    request.getfixturevalue(place)
    url = postgres.url + "&connect_timeout=60&application_name=me&options=-c%20search_path%3Dpg_catalog"
    # As a secret's file has it.
    monkeypatch.setenv("DATABASE_URL", url + "\n")
    said = "SELECT current_setting('search_path') || current_setting('application_name')"

    async def main() -> None:
        async with ExecutionScope("libpqs"):
            connection = await execpool.asyncpg.connect()
            assert await connection.fetchval(said) == "pg_catalogme"
            await connection.close()
            engine = execpool.create_execution_scoped_async_engine()
            assert engine.dialect.driver == "asyncpg"
            async with engine.connect() as connected:
                assert (await connected.execute(text(said))).scalar() == "pg_catalogme"

    asyncio.run(main())


def test_a_url_for_any_other_driver_joins_the_scope(sidecar: Sidecar) -> None:
    import psycopg

    with ExecutionScope("urls") as scope:
        for url in (scope.url, execpool.database_url()):
            with psycopg.connect(url) as connection:
                connection.execute("SELECT 1")
                assert in_use(sidecar, ["urls"]) and "w%rd" not in url and "w%25rd" not in url
    assert "execution_id" not in execpool.database_url()


def test_an_engine_in_use_is_put_on_scopes_without_harm(
    sidecar: Sidecar, postgres: Postgres
) -> None:
    engine = sqlalchemy.create_engine(url_of(postgres, "psycopg"))
    used = engine.connect()
    used.execute(text("SELECT 1"))
    execpool.sqlalchemy.instrument(engine)
    assert used.execute(text("SELECT 2")).scalar() == 2
    used.close()
    del used
    gc.collect()
    with ExecutionScope("after"), engine.connect() as connection:
        connection.execute(text("SELECT 1"))
        assert in_use(sidecar, ["after"])
