"""A throw-away PostgreSQL with few connections, and execpool in front of it."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

MAX_CONNECTIONS = 20
BUDGET = 10
"""What execpool may have of them."""

SCHEMA = """
CREATE TABLE orders (id serial PRIMARY KEY, customer int NOT NULL, item text NOT NULL);
INSERT INTO orders (customer, item)
SELECT n % 24, (ARRAY['tea', 'salt', 'rice', 'honey'])[1 + n % 4] FROM generate_series(1, 400) AS n;
"""


class Place:
    """Both, running: where they are."""

    def __init__(self, directory: Path) -> None:
        self.database = directory / "pg"
        self.sidecar = directory / "ep"

    @property
    def url(self) -> str:
        """The database's own URL, as an app has it."""
        return f"postgresql://app@/app?host={self.database}"

    def ask(self, query: str) -> list[tuple[Any, ...]]:
        """Asks PostgreSQL itself, beside execpool."""
        admin = f"host={self.database} user=postgres dbname=app"
        with psycopg.connect(admin, autocommit=True) as connection:
            return connection.execute(query.encode()).fetchall()

    def backends(self) -> int:
        """How many connections PostgreSQL has of the app."""
        of_app = "usename = 'app' AND application_name <> 'execpool monitor'"
        return int(self.ask(f"SELECT count(*) FROM pg_stat_activity WHERE {of_app}")[0][0])


@contextmanager
def running() -> Generator[Place, None, None]:
    """Starts both; at the end nothing of them is left."""
    # A socket's path has at most 107 bytes.
    parent = tempfile.gettempdir() if len(tempfile.gettempdir()) < 40 else "/tmp"
    directory = Path(tempfile.mkdtemp(prefix="execpool-", dir=parent))
    directory.chmod(0o755)
    place = Place(directory)
    started: list[subprocess.Popen[bytes]] = []
    try:
        started.append(_postgres(place))
        _fill(place)
        started.append(_sidecar(place))
        yield place
    finally:
        for process in reversed(started):
            process.terminate()
            process.wait(60)
        shutil.rmtree(directory, ignore_errors=True)


def _postgres(place: Place) -> subprocess.Popen[bytes]:
    programs = Path(_given("EXECPOOL_PG_BIN", "PostgreSQL's directory of programs"))
    place.database.mkdir()
    user: dict[str, Any] = {}
    if os.getuid() == 0:  # PostgreSQL refuses root
        other = pwd.getpwnam("postgres")
        os.chown(place.database, other.pw_uid, other.pw_gid)
        user = {"user": other.pw_uid, "group": other.pw_gid, "extra_groups": []}
    data, log = place.database / "data", open(place.database / "log", "wb")
    initdb = [programs / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-N"]
    subprocess.run(initdb, check=True, stdout=log, stderr=log, cwd="/", **user)
    settings = [
        "listen_addresses=", f"unix_socket_directories={place.database}",
        f"max_connections={MAX_CONNECTIONS}", "fsync=off",
    ]  # fmt: skip
    arguments = [word for setting in settings for word in ("-c", setting)]
    return subprocess.Popen(
        [programs / "postgres", "-D", data, *arguments], stdout=log, stderr=log, cwd="/", **user
    )


def _fill(place: Place) -> None:
    admin = f"host={place.database} user=postgres dbname=postgres"

    def fill() -> None:
        with psycopg.connect(admin, autocommit=True) as connection:
            connection.execute("CREATE ROLE app LOGIN")
            connection.execute("CREATE DATABASE app OWNER app")

    _until(fill, psycopg.OperationalError, "PostgreSQL", place.database / "log")
    with psycopg.connect(place.url) as connection:
        connection.execute(SCHEMA)


def _sidecar(place: Place) -> subprocess.Popen[bytes]:
    place.sidecar.mkdir()
    config = place.sidecar / "config.yaml"
    config.write_text(
        f"upstreams: [{{name: app, url: '{place.url}'}}]\n"
        f"listen: {{dir: '{place.sidecar}'}}\n"
        f"budget: {{size: {BUDGET}, overflow: 0}}\n"
        "pool: {timeout: 120s}\n"  # on a slow machine, too, all customers are served
        "telemetry: {listen: 'off'}\n"
    )
    program = _given("EXECPOOL_BIN", "the built execpool")
    log = open(place.sidecar / "log", "wb")
    process = subprocess.Popen(
        [program, "run", "--config", config], stdout=log, stderr=log, env={"PATH": os.environ["PATH"]}
    )

    def connect() -> None:
        psycopg.connect(f"host={place.sidecar} user=app dbname=app").close()

    _until(connect, psycopg.OperationalError, "execpool", place.sidecar / "log")
    return process


def _until(act: Callable[[], None], fails: type[Exception], what: str, log: Path) -> None:
    until = time.monotonic() + 60
    while True:
        try:
            return act()
        except fails as error:
            if time.monotonic() > until:
                sys.exit(f"{what} does not start: {error}\n{log.read_text()}")
            time.sleep(0.05)


def _given(variable: str, what: str) -> str:
    found = os.environ.get(variable)
    if not found:
        sys.exit(f"{variable} is not set: it is {what}. `make example` sets it.")
    return found
