"""A sidecar that comes after the app has started: it is used from then on, and that is said."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from typing import Any

import execpool
import execpool.asyncpg
import execpool.caller
import execpool.psycopg
import execpool.sqlalchemy
import pytest
import sqlalchemy
from conftest import SOON, Postgres, Sidecar, eventually, short_directory
from execpool import ExecutionScope
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool, QueuePool

SIZE = 2


@pytest.fixture
def late(
    postgres: Postgres, shared_sidecar: Sidecar, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], None]:
    """An app's environment whose sidecar is not there; what it answers brings it."""
    directory = short_directory() / "execpool"
    monkeypatch.setenv("EXECPOOL_DIR", str(directory))
    monkeypatch.setenv("DATABASE_URL", postgres.url)
    monkeypatch.delenv("EXECPOOL", raising=False)
    return lambda: directory.symlink_to(shared_sidecar.directory)


def made_by_instrument(postgres: Postgres, driver: str) -> sqlalchemy.Engine:
    url = postgres.url.replace("postgresql:", f"postgresql+{driver}:").partition("?")[0]
    engine = sqlalchemy.create_engine(url, pool_size=SIZE, max_overflow=0, pool_timeout=SOON)
    return execpool.sqlalchemy.instrument(engine)


def made_by_us(postgres: Postgres, driver: str) -> sqlalchemy.Engine:
    url = postgres.url.replace("postgresql:", f"postgresql+{driver}:").partition("?")[0]
    return execpool.create_execution_scoped_engine(url, pool_size=SIZE, max_overflow=0)


def ask(connection: Any) -> Any:
    return connection.execute(text("SELECT pg_backend_pid()")).scalar()


def sessions_of(sidecar: Sidecar, execution: str) -> int:
    try:
        return int(sidecar.control.execution(execution)["sessions"])
    except execpool.SidecarRefused:
        return 0


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2", "pg8000"])
@pytest.mark.parametrize("make", [made_by_instrument, made_by_us])
def test_a_global_engine_goes_through_it_from_then_on(
    late: Callable[[], None], postgres: Postgres, shared_sidecar: Sidecar, make: Any, driver: str,
    warnings: Callable[[], list[str]],
) -> None:  # fmt: skip
    engine = make(postgres, driver)
    assert isinstance(engine.pool, QueuePool)
    before = engine.connect()
    ask(before)
    engine.connect().close()
    engine.dispose()
    with engine.connect() as connection:
        ask(connection)
    assert isinstance(engine.pool, QueuePool)
    postgres.ignored = set(postgres.backends())
    directly = len(postgres.ignored)
    with ExecutionScope("began-without") as scope, engine.connect() as connection:
        ask(connection)
        late()
        assert not scope.uses_sidecar
        # What has begun without it stays so.
        ask(connection)
    with ExecutionScope("began-with") as scope:
        assert scope.uses_sidecar
        for _ in range(3 * SIZE):
            with engine.connect() as connection:
                ask(connection)
                # The goodbye of the one before may be on its way.
                assert eventually(lambda: sessions_of(shared_sidecar, "began-with") == 1)
        leaked = engine.connect()
        ask(leaked)
    assert isinstance(engine.pool, NullPool)
    assert scope.summary is not None and len(scope.summary.leftovers) == 1
    # What was idle is closed, and what was lent when it is given back.
    before.close()
    left = lambda: set(postgres.backends()) | (postgres.ignored & _alive(postgres))  # noqa: E731
    assert directly >= 2 and eventually(lambda: not left() - shared_sidecar.shared_backends())
    with engine.connect() as connection:  # in `shared`
        ask(connection)
    postgres.ignored = set()
    told = [warning for warning in warnings() if "idecar in" in warning]
    assert len(told) == 2 and "no sidecar in" in told[0] and "is there now" in told[1], told


def _alive(postgres: Postgres) -> set[int]:
    with postgres.admin() as admin:
        return {row[0] for row in admin.execute("SELECT pid FROM pg_stat_activity")}


def test_an_asynchronous_engine_likewise(
    late: Callable[[], None], postgres: Postgres, shared_sidecar: Sidecar
) -> None:
    url = postgres.url.partition("?")[0].replace("postgresql:", "postgresql+asyncpg:")

    async def main() -> None:
        engine = execpool.sqlalchemy.instrument(create_async_engine(url, pool_size=SIZE))
        before = await engine.connect()
        await before.execute(text("SELECT 1"))
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 1"))
        late()
        async with ExecutionScope("async-late") as scope, engine.connect() as connection:
            await connection.execute(text("SELECT 1"))
            assert scope.uses_sidecar
            assert await asyncio.to_thread(sessions_of, shared_sidecar, "async-late") == 1
        await before.close()
        assert isinstance(engine.pool, NullPool)
        await engine.dispose()

    postgres.ignored = set(postgres.backends())
    asyncio.run(main())
    assert eventually(lambda: set(postgres.backends()) <= shared_sidecar.shared_backends())
    postgres.ignored = set()


def test_who_waits_for_a_pool_as_it_comes_is_served(
    late: Callable[[], None], postgres: Postgres, shared_sidecar: Sidecar
) -> None:
    engine = made_by_instrument(postgres, "psycopg")
    taken = [engine.connect() for _ in range(SIZE)]
    failed: list[BaseException] = []

    def run(number: int) -> None:
        try:
            with ExecutionScope(f"waits-{number}"), engine.connect() as connection:
                ask(connection)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
    for thread in threads[:4]:
        thread.start()
    assert eventually(lambda: getattr(engine.pool, "asking", 0) == 4)
    late()
    for thread in threads[4:]:
        thread.start()
    assert eventually(lambda: isinstance(engine.pool, NullPool))
    for connection in taken:
        connection.close()
    for thread in threads:
        thread.join(2 * SOON)
    assert failed == [] and not any(thread.is_alive() for thread in threads)
    assert isinstance(engine.pool, NullPool)


class Own(QueuePool):
    """As an app has it, or a library."""

    def recreate(self) -> QueuePool:
        return Own(self._creator, pool_size=SIZE, _dispatch=self.dispatch, dialect=self._dialect)


@pytest.mark.parametrize("kind", [QueuePool, Own])
def test_an_engine_whose_pool_is_made_anew_looks_on_and_logs_as_its_kind_does(
    late: Callable[[], None], postgres: Postgres, shared_sidecar: Sidecar, kind: type[QueuePool]
) -> None:
    url = postgres.url.replace("postgresql:", "postgresql+psycopg:")
    engine = execpool.sqlalchemy.instrument(sqlalchemy.create_engine(url, poolclass=kind))
    for _ in range(3):
        made = type(engine.pool)
        assert (made.__module__, made.__name__) == (kind.__module__, kind.__name__)
        assert isinstance(engine.pool, kind)
        with engine.connect() as connection:
            ask(connection)
        engine.dispose()
    late()
    with ExecutionScope("made-anew"), engine.connect() as connection:
        ask(connection)
        assert eventually(lambda: sessions_of(shared_sidecar, "made-anew") == 1)
        assert isinstance(engine.pool, NullPool)


def test_engines_share_the_class_of_their_pools(late: Callable[[], None], postgres: Postgres) -> None:
    one, other = made_by_instrument(postgres, "psycopg"), made_by_us(postgres, "psycopg2")
    assert type(one.pool) is type(other.pool) is not QueuePool
    with execpool.get_db_session() as session:
        # An engine for this session alone does not live until a sidecar comes.
        assert type(session.get_bind().pool) is QueuePool  # type: ignore[union-attr]
        assert ask(session) == ask(session)


@pytest.mark.parametrize("look", ["as it is disposed", "as it is asked"])
def test_an_engine_that_is_disposed_as_it_comes_switches_once(
    late: Callable[[], None], postgres: Postgres, monkeypatch: pytest.MonkeyPatch, look: str
) -> None:
    engine = made_by_instrument(postgres, "psycopg")
    made = engine.pool.recreate()  # by `dispose` in another thread, which then waits
    late()
    seen = 0
    known = execpool.caller.caller

    def counted() -> str | None:
        nonlocal seen
        seen += 1
        return known()

    with ExecutionScope("disposed"):
        with engine.connect() as connection:
            ask(connection)
        assert isinstance(engine.pool, NullPool)
        engine.pool = made
        if look == "as it is disposed":
            engine.dispatch.engine_disposed(engine)
            assert isinstance(engine.pool, NullPool)
        monkeypatch.setattr(execpool.caller, "caller", counted)
        with engine.connect() as connection:
            ask(connection)
        # It is named, and its place looked for, once.
        assert isinstance(engine.pool, NullPool) and seen == 1


def test_a_forked_child_that_meets_the_sidecar_leaves_its_parents_pool_alone(
    late: Callable[[], None], postgres: Postgres
) -> None:
    engine = made_by_instrument(postgres, "psycopg")
    lent = [engine.raw_connection() for _ in range(SIZE)]
    pids = {one.driver_connection.info.backend_pid for one in lent}  # type: ignore[union-attr]
    lent[1].close()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            engine.dispose(close=False)
            late()
            with ExecutionScope("child"), engine.connect() as connection:
                ask(connection)
                assert isinstance(engine.pool, NullPool)
            lent[0].close()
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    assert pids <= _alive(postgres)
    lent[0].close()
    engine.dispose()


def test_pools_are_limited_by_themselves_only_until_it_comes(
    late: Callable[[], None], postgres: Postgres
) -> None:
    import psycopg_pool

    with execpool.psycopg.ConnectionPool(max_size=1, timeout=SOON) as pool:
        first = pool.getconn()
        with pytest.raises(psycopg_pool.PoolTimeout):
            pool.getconn(0.2)
        pool.putconn(first)

        async def on_asyncio() -> None:
            async with execpool.asyncpg.create_pool(max_size=1) as pool:
                first = await pool.acquire()
                with pytest.raises(TimeoutError):
                    await pool.acquire(timeout=0.2)
                late()
                async with ExecutionScope("unlimited"):
                    try:
                        others = [await pool.acquire(timeout=SOON) for _ in range(2)]
                        for connection in [first, *others]:
                            await pool.release(connection)
                    finally:
                        pool.terminate()

        asyncio.run(on_asyncio())
        with ExecutionScope("unlimited-too"):
            both = [pool.getconn(), pool.getconn()]
            for connection in both:
                pool.putconn(connection)


def test_a_checkpointer_goes_through_it_with_its_next_checkpoint(
    late: Callable[[], None], postgres: Postgres, shared_sidecar: Sidecar
) -> None:
    from execpool.langgraph import async_postgres_saver, postgres_saver

    config: Any = {"configurable": {"thread_id": "1"}}

    def checkpointers() -> int:
        sessions = shared_sidecar.control.sessions("shared")
        return sum(one.get("label") == "checkpointer" for one in sessions)

    async def main() -> None:
        with postgres_saver() as saver:
            async with async_postgres_saver() as other:
                saver.setup()
                saver.get_tuple(config)
                await other.aget_tuple(config)
                assert checkpointers() == 0
                late()
                saver.get_tuple(config)
                await other.aget_tuple(config)
                assert await asyncio.to_thread(eventually, lambda: checkpointers() == 2)

    asyncio.run(main())
    assert eventually(lambda: set(postgres.backends()) <= shared_sidecar.shared_backends())


def test_where_it_is_required_an_app_starts_before_it_and_connects_after(
    late: Callable[[], None], postgres: Postgres, shared_sidecar: Sidecar, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EXECPOOL", "required")
    engines = [made_by_instrument(postgres, "psycopg"), made_by_us(postgres, "psycopg")]
    assert all(isinstance(engine.pool, NullPool) for engine in engines)
    with execpool.psycopg.ConnectionPool() as pool:
        asyncs = execpool.asyncpg.create_pool()
        for attempt in (engines[0].connect, engines[1].connect, pool.getconn):
            with pytest.raises(execpool.SidecarUnavailable, match="EXECPOOL=required"):
                attempt()
        with pytest.raises(execpool.SidecarUnavailable, match="EXECPOOL=required"):
            asyncio.run(asyncs.fetchval("SELECT 1"))
        late()
        with ExecutionScope("after-all"):
            for engine in engines:
                with engine.connect() as connection:
                    ask(connection)
                    assert eventually(lambda: sessions_of(shared_sidecar, "after-all") == 1)
            pool.putconn(pool.getconn())
            assert asyncio.run(asyncs.fetchval("SELECT 1")) == 1


def test_where_it_is_required_a_pool_waits_for_it(
    late: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    import psycopg_pool

    monkeypatch.setenv("EXECPOOL", "required")
    with execpool.psycopg.ConnectionPool() as pool:
        with pytest.raises(psycopg_pool.PoolTimeout, match="EXECPOOL=required"):
            pool.wait(0.3)
    comes = threading.Timer(0.5, late)
    comes.start()
    with execpool.psycopg.ConnectionPool() as pool:
        pool.wait(SOON)

    async def on_asyncio() -> None:
        async with execpool.psycopg.AsyncConnectionPool(open=False) as pool:
            await pool.wait(SOON)

    asyncio.run(on_asyncio())


def test_a_connection_outside_of_any_scope_goes_through_it_and_says_so(
    late: Callable[[], None], postgres: Postgres, warnings: Callable[[], list[str]]
) -> None:
    def host() -> str:
        with execpool.psycopg.connect() as connection:
            return connection.info.host

    before = host()
    late()
    assert before == "127.0.0.1" and host() == host() == os.environ["EXECPOOL_DIR"]
    no_longer, there = warnings()
    assert "no sidecar in" in no_longer and "is there now" in there


def test_one_that_comes_and_goes_is_not_told_of_each_time(
    late: Callable[[], None], warnings: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from execpool import sidecar
    from execpool.settings import Settings

    late()
    settings = Settings.from_environment()
    there = sidecar.find(settings)
    assert there is not None and warnings() == []
    for _ in range(5):
        sidecar.without(settings, "it refuses", "SidecarRefused")
        sidecar.used(there)
    assert len(warnings()) == 2
    monkeypatch.setattr(sidecar, "SAY_AGAIN", 0.0)
    sidecar.without(settings, "it refuses", "SidecarRefused")
    sidecar.find(settings)  # which tells nothing of whether it refuses
    assert len(warnings()) == 3
    sidecar.used(there)
    assert len(warnings()) == 4
