"""What the page for app developers says is tried, word by word: only the places are other ones."""

from __future__ import annotations

import asyncio
import importlib
import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import execpool
import execpool.psycopg
import pytest
from conftest import ROOT, SOON, Postgres, Sidecar, eventually, free_port, short_directory
from execpool import ExecutionScope

PAGE = (ROOT / "docs/app-developers.md").read_text()


def blocks(heading: str, sidecar: Sidecar | None = None) -> list[str]:
    """The code of a section."""
    section = PAGE.split(f"\n{heading}\n", 1)[1]
    section = re.split(r"\n##+ ", section, maxsplit=1)[0]
    found = re.findall(r"(?:^ {4}.*\n|^ {4}.*$|^\n(?= {4}))+", section, re.MULTILINE)
    code = [textwrap.dedent(block).strip("\n") + "\n" for block in found]
    if sidecar is not None:
        code = [block.replace("/run/execpool", str(sidecar.directory)) for block in code]
    return code


def in_run(sidecar: Sidecar, execution: str = "run-42") -> list[str]:
    """The states of the sessions of an execution."""
    return [str(one["state"]) for one in sidecar.control.sessions(execution)]


def end(sidecar: Sidecar) -> None:
    """The end of an execution that nobody has begun."""
    sidecar.control.end("run-42", "tried")


@pytest.fixture(autouse=True)
def begun(request: pytest.FixtureRequest) -> Any:
    """`run-42` is ended by the test before: it is begun anew, for as long as the test lasts."""
    if "sidecar" not in request.fixturenames:
        yield
        return
    sidecar: Sidecar = request.getfixturevalue("sidecar")
    sidecar.control.begin("run-42")
    yield
    end(sidecar)


def test_the_ten_minutes_lead_to_the_run_in_top(
    own_sidecar: Sidecar, postgres: Postgres, tmp_path: Path
) -> None:
    _, top, shell, first = blocks("## Ten minutes")
    assert "EXECPOOL_DIR=/tmp/pool" in shell
    (tmp_path / "first.py").write_text(first.replace("time.sleep(30)", "input()"))
    running = subprocess.Popen(
        [sys.executable, "first.py"], cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(ROOT / "clients/python/src")},
    )  # fmt: skip
    assert eventually(lambda: in_run(own_sidecar, "my-first-run") == ["idle_in_transaction"])
    binary = os.environ.get("EXECPOOL_BIN", str(ROOT / "target/debug/execpool"))
    command = top.replace("/tmp/pool", str(own_sidecar.directory)).split()
    seen = subprocess.run(
        [binary, *command[1:], "--once"], capture_output=True, text=True, timeout=SOON
    ).stdout
    assert "my-first-run" in seen and "first.py:6" in seen, seen
    out, log = running.communicate("\n", timeout=SOON)
    assert "first.py:6" in log and "Summary(id='my-first-run', reason='deleted'" in out
    assert postgres.backends() == []


def test_a_killed_process_ends_its_run_within_seconds(own_sidecar: Sidecar, tmp_path: Path) -> None:
    first = blocks("## Ten minutes")[-1]
    (tmp_path / "first.py").write_text(first)
    environment = os.environ | {"PYTHONPATH": str(ROOT / "clients/python/src")}
    running = subprocess.Popen([sys.executable, "first.py"], cwd=tmp_path, env=environment)
    assert eventually(lambda: in_run(own_sidecar, "my-first-run") != [])
    running.kill()
    running.wait()
    # Within seconds, and not by its deadline of ten minutes.
    assert eventually(lambda: own_sidecar.executions() == [])
    ended = eventually(lambda: own_sidecar.control.ended("my-first-run"))
    assert ended is not None and ended["reason"] == "hold_lost"


def test_psycopg_pool(sidecar: Sidecar, postgres: Postgres) -> None:
    import psycopg_pool

    named, scoped = blocks("### psycopg_pool", sidecar)
    given: dict[str, Any] = {"psycopg_pool": psycopg_pool, "execpool": execpool}
    exec(named, given)
    pool = given["pool"]
    assert pool.max_idle == 10 and pool.min_size == 0
    with pool.connection() as connection:
        connection.execute("SELECT 1")
        assert len(in_run(sidecar)) == 1
    pool.close()
    exec(scoped, given)
    with ExecutionScope("in-scope"), given["pool"].connection() as connection:
        connection.execute("SELECT 1")
        assert len(in_run(sidecar, "in-scope")) == 1 and eventually(lambda: in_run(sidecar) == [])
    given["pool"].close()


def test_sqlalchemy(sidecar: Sidecar) -> None:
    import sqlalchemy

    given: dict[str, Any] = {"sqlalchemy": sqlalchemy}
    exec(blocks("### SQLAlchemy", sidecar)[0], given)
    with given["engine"].connect() as connection:
        connection.exec_driver_sql("SELECT 1")
        assert len(in_run(sidecar)) == 1
    assert eventually(lambda: in_run(sidecar) == [])


def test_asyncpg(sidecar: Sidecar) -> None:
    async def work() -> None:
        (code,) = blocks("### asyncpg", sidecar)
        given: dict[str, Any] = {}
        exec(f"import asyncpg\nasync def make():\n{textwrap.indent(code, '    ')}    return pool", given)
        pool = await given["make"]()
        assert in_run(sidecar) == []
        async with pool.acquire() as connection:
            await connection.fetch("SELECT 1")
            assert len(in_run(sidecar)) == 1
        await pool.close()

    asyncio.run(work())


DJANGO = """
import sys, time
sys.path.insert(0, {directory!r})
import django
from django.conf import settings
{databases}
settings.configure(DATABASES=DATABASES)
django.setup()
import execpool
from django.db import connection, connections
from execpool import ExecutionScope
from execpool.settings import Settings
from execpool.sidecar import find

def is_in(execution):
    with connection.cursor() as cursor:
        cursor.execute("SELECT item FROM orders WHERE id = %s", [1])
        assert cursor.fetchone() == ("tea",)
    control = find(Settings.from_environment()).control
    # The goodbye of the one before may be on its way.
    until = time.monotonic() + {soon}
    while True:
        seen = [one for one in ("shared", "run-django") if control.sessions(one)]
        if seen == [execution]:
            return
        assert time.monotonic() < until, seen
        time.sleep(0.02)

is_in("shared")
connections.close_all()
with ExecutionScope("run-django"):
    is_in("run-django")
    connections.close_all()
is_in("shared")
print("well")
"""


def test_django(sidecar: Sidecar, tmp_path: Path) -> None:
    databases, backend = blocks("### Django", sidecar)
    (tmp_path / "scoped").mkdir()
    (tmp_path / "scoped/__init__.py").touch()
    (tmp_path / "scoped/base.py").write_text(backend)
    program = DJANGO.format(directory=str(tmp_path), databases=databases, soon=SOON)
    told = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=300,
        env=os.environ | {"PYTHONPATH": str(ROOT / "clients/python/src")},
    )  # fmt: skip
    assert told.stdout == "well\n", told.stderr


def test_a_global_engine_is_instrumented(sidecar: Sidecar, postgres: Postgres) -> None:
    from sqlalchemy import create_engine

    url = postgres.url.replace("postgresql:", "postgresql+psycopg:")
    given: dict[str, Any] = {"create_engine": create_engine, "DATABASE_URL": url}
    exec("\n".join(blocks("## Coming from a global engine")), given)
    for execution in ("one", "other"):
        with ExecutionScope(execution), given["engine"].connect() as connection:
            connection.exec_driver_sql("SELECT 1")
            assert len(in_run(sidecar, execution)) == 1


def test_langgraph(sidecar: Sidecar) -> None:
    from langgraph.graph import START, MessagesState, StateGraph
    from scripted import asked

    seen: list[str] = []

    def node(state: MessagesState) -> dict[str, Any]:
        scope = execpool.current_scope()
        assert scope is not None
        seen.append(scope.id)
        return {}

    builder = StateGraph(MessagesState)
    builder.add_node("node", node)
    builder.add_edge(START, "node")
    (code,) = blocks("## LangGraph and LangChain")
    given: dict[str, Any] = {"builder": builder, "state": asked()}
    exec(f"async def run():\n{textwrap.indent(code, '    ')}", given)
    asyncio.run(given["run"]())
    assert len(seen) == 1 and re.fullmatch(r"42_[0-9a-f]{32}", seen[0])


def test_fastapi(sidecar: Sidecar) -> None:
    from fastapi import FastAPI
    from fastapi.testclient import TestClient

    app = FastAPI()

    @app.get("/{path}")
    def path(path: str) -> str | None:
        scope = execpool.current_scope()
        return scope and scope.id

    exec("\n".join(blocks("## FastAPI and Starlette")), {"app": app})
    client = TestClient(app)
    assert client.get("/other").json().startswith("GET_other_")
    assert client.get("/healthz").json() is None
    assert client.get("/api/memory/debug/connections/status").json()["success"] is True


def test_names_that_are_told_are_there() -> None:
    """What is written as `execpool.…` or imported from it on the page and in the package's own."""
    pages = PAGE + (ROOT / "clients/python/README.md").read_text()
    told = set(re.findall(r"\bexecpool((?:\.[a-z_]+)*\.[A-Za-z_]+)\(", pages))
    told |= {f".{name}" for name in re.findall(r"`(?:await )?([a-z]+_[a-z_]+)\(", pages)}
    assert {".bind", ".langgraph.ExecutionCallback", ".get_db_session", ".make_id"} <= told
    told.remove(".create_engine")  # SQLAlchemy's own
    of_modules = [importlib.import_module(f"execpool.{name}") for name in
                  ("fastapi", "langgraph", "manager", "psycopg")]  # fmt: skip
    for name in told:
        module, _, last = name[1:].rpartition(".")
        where = [importlib.import_module(f"execpool.{module}")] if module else [execpool, *of_modules]
        found = any(hasattr(one, last) for one in where)
        assert found or hasattr(execpool.ExecutionConnectionManager, last), name


# ---- other languages, where they are: what their drivers' libraries are in is said by variables

NODE = """
{pool}
const client = await pool.connect();
const {{ rows }} = await client.query('SELECT item FROM orders WHERE id = $1', [1]);
console.log(rows[0].item);
await new Promise((resolve) => process.stdin.once('data', resolve));
client.release();
await new Promise((resolve) => setTimeout(resolve, 200));
console.log('lives');
await pool.end();
process.exit(0);
"""

PGX = """
package main

import (
	"bufio"
	"context"
	"fmt"
	"os"

	"github.com/jackc/pgx/v5/pgxpool"
)

func main() {{
	ctx := context.Background()
	{config}
	var item string
	connection, err := pool.Acquire(ctx)
	if err != nil {{
		panic(err)
	}}
	if err := connection.QueryRow(ctx, "SELECT item FROM orders WHERE id = $1", 1).Scan(&item); err != nil {{
		panic(err)
	}}
	fmt.Println(item)
	bufio.NewReader(os.Stdin).ReadString('\\n')
	connection.Release()
	fmt.Println("lives")
}}
"""

JAVA = """
import com.zaxxer.hikari.*;

public class Try {{
    public static void main(String[] arguments) throws Exception {{
        String password = "secret";
        {pool}
        try (var connection = pool.getConnection();
             var query = connection.prepareStatement("SELECT item FROM orders WHERE id = ?")) {{
            query.setInt(1, 1);
            var rows = query.executeQuery();
            rows.next();
            System.out.println(rows.getString(1));
            System.in.read();
        }}
        System.out.println("lives");
        pool.close();
    }}
}}
"""


def library(variable: str, what: str) -> str:
    found = os.environ.get(variable)
    if not found:
        pytest.skip(f"{variable} is not set: {what}")
    return found


def is_in_the_run(command: list[str], directory: Path, sidecar: Sidecar, **variables: str) -> None:
    """A program that prints what it has read, waits for a line, and gives its connection back."""
    with subprocess.Popen(
        command, cwd=directory, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, env=os.environ | variables,
    ) as program:  # fmt: skip
        assert program.stdin is not None and program.stdout is not None
        try:
            said = program.stdout.readline()
            assert said == "tea\n", program.communicate(timeout=SOON)
            assert len(in_run(sidecar)) == 1
            out, errors = program.communicate("\n", timeout=SOON)
            assert out.endswith("lives\n"), errors
        finally:
            program.kill()


@pytest.fixture
def node(tmp_path: Path) -> Path:
    """A directory in which node finds node-postgres."""
    place = library("EXECPOOL_NODE_PG", "a directory with node_modules/pg")
    (tmp_path / "node_modules").symlink_to(Path(place) / "node_modules")
    return tmp_path


def test_node_postgres(sidecar: Sidecar, node: Path) -> None:
    (pool,) = blocks("### node-postgres", sidecar)
    (node / "documented.mjs").write_text("import pg from 'pg';\n" + NODE.format(pool=pool))
    is_in_the_run(["node", "documented.mjs"], node, sidecar)


def test_an_ended_execution_does_not_end_node_with_the_handler_of_errors(
    sidecar: Sidecar, node: Path
) -> None:
    (pool,) = blocks("### node-postgres", sidecar)
    idle = """
await pool.query('SELECT 1');
console.log('idle');
await new Promise((resolve) => process.stdin.once('data', resolve));
console.log('lives');
process.exit(0);
"""
    for code, lives in ((pool, True), (pool.split("pool.on(")[0], False)):
        (node / "documented.mjs").write_text("import pg from 'pg';\n" + code + idle)
        with subprocess.Popen(
            ["node", "documented.mjs"], cwd=node, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True,
        ) as program:  # fmt: skip
            assert program.stdout is not None and program.stdout.readline() == "idle\n"
            end(sidecar)
            if lives:
                assert program.stderr is not None and "execution" in (told := program.stderr.readline()), told
                out, errors = program.communicate("\n", timeout=SOON)
                assert out == "lives\n", errors
            else:
                assert program.wait(SOON) != 0
        sidecar.control.begin("run-42")


def test_pgx(sidecar: Sidecar, tmp_path: Path) -> None:
    place = library("EXECPOOL_GO_PGX", "a directory with a go.mod that requires pgx")
    for file in ("go.mod", "go.sum"):
        shutil.copy(Path(place) / file, tmp_path)
    (config,) = blocks("### pgx", sidecar)
    check = "\nif err != nil {\n\t\tpanic(err)\n\t}\n"
    config = config.replace('10s pool_health_check_period=5s")', '10s pool_health_check_period=5s")' + check)
    (tmp_path / "main.go").write_text(PGX.format(config=config))
    go = shutil.which("go") or "/usr/local/go/bin/go"
    subprocess.run([go, "build", "-o", "documented", "."], cwd=tmp_path, check=True)
    is_in_the_run(["./documented"], tmp_path, sidecar)


def test_jdbc_with_hikari(postgres: Postgres, tmp_path: Path) -> None:
    place = library("EXECPOOL_JDBC", "a directory with the jars of pgjdbc, HikariCP and slf4j-api")
    port = free_port()
    secret = short_directory() / "secret"
    secret.write_text("secret")
    secret.chmod(0o600)
    sidecar = Sidecar(postgres, listen=f", tcp: '127.0.0.1:{port}', tcp_password_file: '{secret}'")
    try:
        (pool,) = blocks("### JDBC with HikariCP")
        (tmp_path / "Try.java").write_text(JAVA.format(pool=pool.replace("6432", str(port))))
        is_in_the_run(["java", "-cp", f"{place}/*", "Try.java"], tmp_path, sidecar)
    finally:
        sidecar.stop()
