"""Without a sidecar the app connects directly, is told so once, and is cleaned up all the same."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import UnixStreamServer

import execpool
import execpool.asyncpg
import execpool.psycopg
import execpool.sqlalchemy
import pytest
import sqlalchemy
from conftest import SOON, Postgres, Sidecar, eventually, short_directory
from execpool import ExecutionScope
from execpool.control import Control
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import QueuePool


def test_it_is_said_once_in_a_process(direct: Postgres) -> None:
    program = """
import execpool, execpool.psycopg
for turn in range(3):
    with execpool.ExecutionScope(), execpool.psycopg.connect() as connection:
        connection.execute("SELECT 1")
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stderr.count("no sidecar in /tmp/execpool-is-not-here") == 1, run.stderr
    assert "EXECPOOL=required" in run.stderr
    environment = os.environ | {"EXECPOOL": "off"}
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment
    )
    assert run.stderr == ""


def test_required_and_absent_is_a_clear_error(
    direct: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EXECPOOL", "required")
    monkeypatch.setenv("EXECPOOL_DIR", "/tmp/execpool-is-not-there-either")
    for attempt in (
        lambda: ExecutionScope("a").__enter__(),
        execpool.psycopg.connect,
        lambda: execpool.create_execution_scoped_engine().connect(),
        lambda: asyncio.run(execpool.asyncpg.connect()),
    ):
        with pytest.raises(execpool.SidecarUnavailable, match="EXECPOOL=required.*not-there-either"):
            attempt()


def test_what_is_left_open_in_a_scope_is_told_and_closed(
    direct: Postgres, warnings: Callable[[], list[str]]
) -> None:
    async def on_asyncio() -> None:
        async with ExecutionScope("here-2") as scope:
            leaked.append(await execpool.asyncpg.connect())
            leaked.append(await execpool.psycopg.connect_async())
        assert scope.summary is not None and len(scope.summary.leftovers) == 2

    leaked: list[object] = []
    with ExecutionScope("here") as scope:
        assert not scope.uses_sidecar
        leaked.append(execpool.psycopg.connect())
        engine = execpool.create_execution_scoped_engine()
        assert isinstance(engine.pool, QueuePool) and engine.pool.size() == 2
        with engine.connect() as given_back:
            given_back.execute(text("SELECT 1"))
        leaked.append(engine.connect())
        leaked[-1].execute(text("SELECT 1"))  # type: ignore[attr-defined]
        assert len(direct.backends()) == 2
    assert eventually(lambda: not direct.backends())
    assert scope.summary is not None and len(scope.summary.leftovers) == 2
    assert all("test_direct.py:" in (left.caller or "") for left in scope.summary.leftovers)
    asyncio.run(on_asyncio())
    assert eventually(lambda: not direct.backends())
    told = [warning for warning in warnings() if "has left a connection" in warning]
    assert len(told) == 4 and all("test_direct.py:" in one for one in told)


def test_a_query_that_still_runs_is_cancelled_at_the_end(direct: Postgres) -> None:
    failed: list[BaseException] = []

    def sleep(connection: object) -> None:
        try:
            connection.execute("SELECT pg_sleep(600)")  # type: ignore[attr-defined]
        except BaseException as error:
            failed.append(error)

    def runs() -> bool:
        with direct.admin() as admin:
            asked = "SELECT FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%sleep(600)%'"
            return admin.execute(f"{asked} AND pid <> pg_backend_pid()").rowcount == 1

    with ExecutionScope("sleeps"):
        thread = threading.Thread(target=sleep, args=(execpool.psycopg.connect(),), daemon=True)
        thread.start()
        assert eventually(runs)
    thread.join(SOON)
    assert not thread.is_alive() and len(failed) == 1


def test_a_global_engine_keeps_its_pool_and_what_it_lent_is_taken_back(direct: Postgres) -> None:
    engine = sqlalchemy.create_engine(direct.url.replace("postgresql:", "postgresql+psycopg:"))
    execpool.sqlalchemy.instrument(engine)
    assert isinstance(engine.pool, QueuePool)
    with ExecutionScope("first") as first, engine.connect() as connection:
        connection.execute(text("SELECT 1"))
    assert first.summary is not None and first.summary.leftovers == ()
    pids = direct.backends()
    assert len(pids) == 1
    with ExecutionScope("second") as second:
        leaked = engine.connect()
        assert leaked.execute(text("SELECT pg_backend_pid()")).scalar() == pids[0]
    assert second.summary is not None and len(second.summary.leftovers) == 1
    assert eventually(lambda: not direct.backends())
    with engine.connect() as connection:
        assert connection.execute(text("SELECT 1")).scalar() == 1
    engine.dispose()


def test_a_global_engine_of_ours_lends_one_connection_to_one_scope_after_the_other(
    direct: Postgres, warnings: Callable[[], list[str]]
) -> None:
    engine = execpool.create_execution_scoped_engine()
    first, second = ExecutionScope("lent-1"), ExecutionScope("lent-2")
    contextvars.copy_context().run(first.__enter__)

    def ask() -> None:
        with engine.connect() as connection:
            connection.execute(text("SELECT 1"))

    first.run(ask)
    with second, engine.connect() as connection:
        pid = connection.execute(text("SELECT pg_backend_pid()")).scalar()
        # The scope in which it was opened is over, and this one is not.
        first.__exit__(None, None, None)
        assert connection.execute(text("SELECT pg_backend_pid()")).scalar() == pid
    assert first.summary is not None and first.summary.leftovers == ()
    with ExecutionScope("lent-3"):
        leaked = engine.connect()
        leaked.execute(text("SELECT 1"))
    assert any("lent-3 has left" in warning for warning in warnings()) and len(warnings()) == 1
    engine.dispose()


def test_a_connection_that_is_lent_often_is_remembered_once(direct: Postgres) -> None:
    with ExecutionScope("often") as scope:
        engine = execpool.create_execution_scoped_engine()
        for _ in range(20):
            with engine.connect():
                pass
        assert [len(one.told) for one in scope.execution.connections.still_open()] == [1]


def test_a_wrong_argument_is_no_database_that_can_not_be_reached(direct: Postgres) -> None:
    with pytest.raises(TypeError, match="include_table"):
        execpool.create_execution_scoped_sql_database(include_table=["orders"])


def test_a_forked_child_does_not_speak_on_its_parents_connections(direct: Postgres) -> None:
    def pid_of(engine: sqlalchemy.Engine | None = None) -> int:
        with execpool.get_db_session(engine) as session:
            return int(session.execute(text("SELECT pg_backend_pid()")).scalar_one())

    with ExecutionScope("forked"):
        engine = execpool.create_execution_scoped_engine()
        before = [pid_of(), pid_of(engine)]
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            status = 1
            try:
                os.write(write, f"{pid_of()} {pid_of(engine)}".encode())
                status = 0
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
        assert set(map(int, os.read(read, 100).split())).isdisjoint(before)
        # They are the parent's as before.
        assert [pid_of(), pid_of(engine)] == before


def test_a_forked_child_that_gives_back_what_its_parent_was_lent_leaves_the_parents_pool_alone(
    direct: Postgres,
) -> None:
    url = direct.url.replace("postgresql:", "postgresql+psycopg:")
    engine = execpool.sqlalchemy.instrument(sqlalchemy.create_engine(url, pool_size=3))
    lent = [engine.raw_connection() for _ in range(3)]
    for idle in lent[1:]:
        idle.close()
    before = set(direct.backends())

    def works() -> int:
        engine.dispose(close=False)  # as SQLAlchemy wants it in a child
        lent[0].close()
        with engine.connect() as connection:
            return int(connection.execute(text("SELECT pg_backend_pid()")).scalar() not in before)

    assert in_child(works) == 1
    assert set(direct.backends()) == before
    two = [engine.connect(), engine.connect()]
    assert {one.execute(text("SELECT pg_backend_pid()")).scalar() for one in two} <= before
    for one in two:
        one.close()
    lent[0].close()
    engine.dispose()


def test_a_fork_amid_a_pools_look_for_a_sidecar_leaves_the_child_no_lock(direct: Postgres) -> None:
    url = direct.url.replace("postgresql:", "postgresql+psycopg:")
    engine = execpool.sqlalchemy.instrument(sqlalchemy.create_engine(url))
    held, go = threading.Event(), threading.Event()

    def hold() -> None:
        with engine.dialect._execpool_late.lock:  # type: ignore[attr-defined]
            held.set()
            go.wait(2 * SOON)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(SOON)

    def works() -> int:
        signal.alarm(int(SOON))
        engine.dispose(close=False)
        with engine.connect() as connection:
            return int(connection.execute(text("SELECT 1")).scalar() or 0)

    try:
        assert in_child(works) == 1
    finally:
        go.set()
        thread.join()
    engine.dispose()


def in_child(act: Callable[[], int]) -> int | None:
    """What it answers in a forked child; None where it fails there."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(write, str(act()).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(write)
    with open(read) as told:
        answer = told.read()
    return int(answer) if answer else None


def test_a_forked_child_has_a_pools_room_for_itself(direct: Postgres) -> None:
    with execpool.psycopg.ConnectionPool(direct.url, max_size=1, timeout=SOON) as pool:
        taken = pool.getconn()
        child = os.fork()
        if child == 0:
            status = 1
            try:
                pool.getconn().execute("SELECT 1")
                status = 0
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
        assert taken.execute("SELECT 1").fetchone() == (1,)
        pool.putconn(taken)


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
def test_a_global_asynchronous_engine_likewise(direct: Postgres, driver: str) -> None:
    url = direct.url.partition("?")[0].replace("postgresql:", f"postgresql+{driver}:")

    async def main() -> None:
        engine = execpool.sqlalchemy.instrument(create_async_engine(url))
        async with ExecutionScope("first") as first, engine.connect() as connection:
            await connection.execute(text("SELECT 1"))
        assert first.summary is not None and first.summary.leftovers == ()
        assert len(direct.backends()) == 1
        async with ExecutionScope("second") as second:
            leaked = await engine.connect()
            await leaked.execute(text("SELECT 1"))
        assert second.summary is not None and len(second.summary.leftovers) == 1
        assert "test_direct.py" in (second.summary.leftovers[0].caller or "")
        await asyncio.sleep(0)
        assert eventually(lambda: not direct.backends())
        async with engine.connect() as connection:
            assert (await connection.execute(text("SELECT 1"))).scalar() == 1
        del leaked
        gc.collect()
        await engine.dispose()

    asyncio.run(main())


def test_an_interrupt_amid_the_end_leaves_no_connection(direct: Postgres) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), ExecutionScope("interrupted") as scope:
        leaked = execpool.psycopg.connect()
        scope.track(interrupted)
    assert leaked.closed and execpool.current_scope() is None
    with ExecutionScope("interrupted"):
        pass


def test_a_straggler_is_refused_without_a_sidecar_too(direct: Postgres) -> None:
    with ExecutionScope("gone"):
        engine = execpool.create_execution_scoped_engine()
        late = execpool.bind(execpool.psycopg.connect)
    failed: list[BaseException] = []

    def straggle() -> None:
        for attempt in (late, engine.connect):
            try:
                attempt()
            except BaseException as error:
                failed.append(error)

    thread = threading.Thread(target=straggle)
    thread.start()
    thread.join()
    assert [type(one) for one in failed] == [execpool.ExecutionEnded] * 2


def test_pools_keep_to_their_size_and_take_leaked_ones_back(direct: Postgres) -> None:
    import psycopg_pool

    with execpool.psycopg.ConnectionPool(direct.url, min_size=1, max_size=2, timeout=SOON) as pool:
        with ExecutionScope("pools"):
            taken = [pool.getconn(), pool.getconn()]
            with pytest.raises(psycopg_pool.PoolTimeout):
                pool.getconn(0.3)
            pool.putconn(taken.pop())
            taken.append(pool.getconn())
        pool.putconn(pool.getconn())

    async def on_asyncio() -> None:
        async with execpool.asyncpg.create_pool(direct.url, max_size=2) as pool:
            async with ExecutionScope("apools"):
                for _ in range(2):
                    await pool.acquire()
                with pytest.raises(TimeoutError):
                    await pool.acquire(timeout=0.2)
            assert pool.get_size() == 0
            assert await pool.fetchval("SELECT 1") == 1
            # What a scope's end has closed is not kept for ever.
            assert len(pool._lent) == 0

    asyncio.run(on_asyncio())


def test_a_pools_time_out_bounds_the_connect_too(direct: Postgres) -> None:
    import psycopg_pool

    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()  # the kernel accepts, and nobody answers
        url = f"postgresql://app@127.0.0.1:{silent.getsockname()[1]}/app"
        began = time.monotonic()
        with execpool.psycopg.ConnectionPool(url) as pool:
            for ask in (pool.getconn, pool.wait):
                with pytest.raises(psycopg_pool.PoolTimeout):
                    ask(1)

        async def on_asyncio() -> None:
            async with execpool.psycopg.AsyncConnectionPool(url, open=False) as pool:
                for ask in (pool.getconn, pool.wait):
                    with pytest.raises(psycopg_pool.PoolTimeout):
                        await ask(1)

        asyncio.run(on_asyncio())
        # What is asked for by the URL is kept, if it is less.
        with execpool.psycopg.ConnectionPool(f"{url}?connect_timeout=2") as pool:
            with pytest.raises(psycopg_pool.PoolTimeout):
                pool.getconn(600)
        # Of itself psycopg waits for 130 s.
        assert time.monotonic() - began < 120


def test_waiting_for_a_pool_does_not_wait_for_its_connections_to_be_given_back(direct: Postgres) -> None:
    import psycopg_pool

    pool = execpool.psycopg.ConnectionPool(direct.url, max_size=1, open=True)
    taken = pool.getconn()
    pool.wait(SOON)
    assert not pool.closed
    pool.putconn(taken)
    pool.close()

    async def on_asyncio() -> None:
        pool = execpool.psycopg.AsyncConnectionPool(direct.url, max_size=1, open=False)
        await pool.open()
        taken = await pool.getconn()
        await pool.wait(SOON)
        await pool.putconn(taken)
        await pool.close()
        with pytest.raises(psycopg_pool.PoolClosed):
            await pool.wait(600)

    began = time.monotonic()
    with pytest.raises(psycopg_pool.PoolClosed):
        pool.wait(600)
    asyncio.run(on_asyncio())
    assert time.monotonic() - began < 300


def test_sqlalchemys_form_of_a_url_is_one_for_asyncpg_too(
    direct: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = direct.url.replace("postgresql:", "postgresql+asyncpg:").partition("?")[0]
    url += "?ssl=prefer&prepared_statement_cache_size=0&statement_cache_size=0&command_timeout=90&timeout=90"
    monkeypatch.setenv("DATABASE_URL", f"{url}&channel_binding=prefer")

    async def main() -> None:
        for given in (url, None):
            connection = await execpool.asyncpg.connect(given)
            assert await connection.fetchval("SELECT 1") == 1
            await connection.close()
        engine = execpool.create_execution_scoped_async_engine()
        async with engine.connect() as opened:
            assert (await opened.execute(text("SELECT 1"))).scalar() == 1
        # The certificate is looked for, where it is not.
        url_of_it = direct.url.replace("prefer", "verify-ca&sslrootcert=/is-not-here/ca.pem")
        engine = execpool.create_execution_scoped_async_engine(url_of_it)
        with pytest.raises(FileNotFoundError):
            await engine.connect()

    asyncio.run(main())


def test_another_database_is_left_alone(direct: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "sqlite://")
    with ExecutionScope("sqlite"), execpool.create_execution_scoped_engine().connect() as connection:
        assert connection.execute(text("SELECT 1")).scalar() == 1
    assert execpool.database_url() == "sqlite://"


# ---- a sidecar that is there, and does not do


class Answers(BaseHTTPRequestHandler):
    """A sidecar of another time."""

    status, body = 404, b'{"code": "no_such_route", "detail": "there is no such route", "hint": ""}'

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))))
        body = self.body.replace(b"ID", asked["id"].encode())
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self) -> str:
        return "unix"

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, b'{"code": "no_such_route", "detail": "there is no such route", "hint": "Update."}'),
        (403, b'{"code": "user_not_allowed", "detail": "user 7 may not begin ID", "hint": "Ask."}'),
        (500, b"<html>"),
    ],
)
def test_one_that_is_old_or_refuses_is_an_error_or_done_without(
    direct: Postgres, monkeypatch: pytest.MonkeyPatch, warnings: Callable[[], list[str]],
    status: int, body: bytes,
) -> None:  # fmt: skip
    directory = short_directory()
    monkeypatch.setattr(Answers, "status", status)
    monkeypatch.setattr(Answers, "body", body)
    server = UnixStreamServer(str(directory / "control.sock"), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        monkeypatch.setenv("EXECPOOL_DIR", str(directory))
        with ExecutionScope("old") as scope:
            assert not scope.uses_sidecar
            assert execpool.psycopg.connect().execute("SELECT 1").fetchone() == (1,)
        with ExecutionScope("old-too"):
            pass
        assert f"({status} " in warnings()[0] and str(directory) in warnings()[0]
        assert sum("no sidecar in" in warning for warning in warnings()) == 1
        monkeypatch.setenv("EXECPOOL", "required")
        with pytest.raises(execpool.SidecarRefused) as told:
            ExecutionScope("old").__enter__()
        assert told.value.status == status
    finally:
        server.shutdown()
        server.server_close()


def test_an_answer_that_is_no_http_is_an_error_of_ours() -> None:
    directory = short_directory()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(directory / "control.sock"))
        listening.listen()

        def answer() -> None:
            for _ in range(2):
                asked, _ = listening.accept()
                with asked:
                    asked.recv(4096)
                    asked.sendall(b"hello\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        control = Control(str(directory / "control.sock"))
        for ask in (lambda: control.open_hold("a"), control.status):
            with pytest.raises(execpool.SidecarError):
                ask()
        thread.join()


@pytest.mark.skipif(os.getuid() != 0, reason="who is not root can be no one else")
def test_a_socket_that_may_not_be_opened_is_told_at_once(own_sidecar: Sidecar) -> None:
    os.chmod(own_sidecar.directory, 0o755)
    os.chmod(own_sidecar.directory / "control.sock", 0o660)
    program = (
        "import execpool, os, time\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "import execpool.execution; execpool.execution.PATIENCE = 600\n"
        "began = time.monotonic()\n"
        "try: execpool.ExecutionScope('denied').__enter__()\n"
        "except execpool.SidecarUnavailable as error: print(time.monotonic() - began < 300, error)\n"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert told.stdout.startswith("True the execpool sidecar's socket "), told
    assert "by user 65534 with the groups [65534]" in told.stdout and "fsGroup" in told.stdout


def test_a_socket_that_nobody_listens_at_is_waited_for_and_then_done_without(
    direct: Postgres, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    directory = short_directory()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(directory / "control.sock"))
    monkeypatch.setattr("execpool.execution.PATIENCE", 0.3)
    monkeypatch.setenv("EXECPOOL_DIR", str(directory))
    with ExecutionScope("dead") as scope:
        assert not scope.uses_sidecar
    monkeypatch.setenv("EXECPOOL", "required")
    with pytest.raises(execpool.SidecarUnavailable, match="does not answer at"):
        ExecutionScope("dead").__enter__()
