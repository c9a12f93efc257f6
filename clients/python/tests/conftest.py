"""A real PostgreSQL, and the built execpool in front of it.

`EXECPOOL_PG_BIN` is the directory of PostgreSQL's programs, `EXECPOOL_BIN` the sidecar; both are set by
`make test`. By hand: `eval "$(scripts/setup --find)"` and `cargo build` first."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import ctypes
import logging
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

SOURCES = Path(__file__).resolve().parents[1] / "src"
# Installed or not: these sources are tried, in this process and in those that tests start.
sys.path.insert(0, str(SOURCES))
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(SOURCES), *filter(None, [os.environ.get("PYTHONPATH")])]
)

ROOT = SOURCES.parents[2]
PASSWORD = "pa:s/s@w%rd"
MAX_CONNECTIONS = 40

SOON = 60.0
"""Seconds for which a test waits for what comes at once on a machine that does not stall."""


def eventually(look: Callable[[], Any], within: float = SOON) -> Any:
    """Waits until what is looked at is true; answers it, or what it was at last."""
    until = time.monotonic() + within
    while True:
        seen = look()
        if seen or time.monotonic() > until:
            return seen
        time.sleep(0.02)


async def eventually_here(look: Callable[[], Any], within: float = SOON) -> Any:
    """The same for what this event loop brings about."""
    until = time.monotonic() + within
    while not (seen := look()) and time.monotonic() <= until:
        await asyncio.sleep(0.02)
    return seen


_made: list[Path] = []


def short_directory() -> Path:
    """A directory that goes when the tests are over; a socket's path has at most 107 bytes."""
    _made.append(Path(tempfile.mkdtemp(prefix="ep-py-", dir="/tmp")))
    return _made[-1]


def _remove_all(owner: int) -> None:
    # A forked child that ends has made none of them.
    if os.getpid() == owner:
        for directory in _made:
            shutil.rmtree(directory, ignore_errors=True)


# Not by a hook of pytest's: for it this module is another one than for tests that import it.
atexit.register(_remove_all, os.getpid())


# Looked up here: between a fork and its exec nothing may be imported, as another thread may be at it.
_prctl = ctypes.CDLL(None).prctl


def _die_with_parent() -> None:
    """To be started from the main thread alone: it is that thread's end which kills."""
    _prctl(1, signal.SIGKILL)


class Postgres:
    """A throw-away server with a database `app`, owned by a role `app` that has a password."""

    def __init__(self) -> None:
        self.ignored: set[int] = set()
        """Backends of sidecars that are none of the test's."""
        self.programs = Path(os.environ["EXECPOOL_PG_BIN"])
        self.directory = short_directory()
        # PostgreSQL refuses root.
        self.user = None
        if os.getuid() == 0:
            self.user = pwd.getpwnam("postgres")
            os.chown(self.directory, self.user.pw_uid, self.user.pw_gid)
        data = self.directory / "data"
        self._run("initdb", "-D", str(data), "-U", "postgres", "-A", "trust", "-N")
        (data / "pg_hba.conf").write_text(
            "local all all trust\nhost all app 127.0.0.1/32 scram-sha-256\n"
        )
        # The port may be another's by the time that it starts.
        assert any(self._starts(data) for _ in range(3)), self.log()
        with self.admin() as admin:
            # The password has to be known before the database is.
            admin.execute(f"CREATE ROLE app LOGIN PASSWORD '{PASSWORD}'")
            admin.execute("CREATE DATABASE app OWNER app")
        with psycopg.connect(self.local("app"), autocommit=True) as app:
            app.execute("CREATE TABLE orders (id int PRIMARY KEY, item text)")
            app.execute("INSERT INTO orders VALUES (1, 'tea'), (2, 'salt')")

    def _starts(self, data: Path) -> bool:
        self.port = free_port()
        with (self.directory / "log").open("a") as log:
            self.server = subprocess.Popen(
                [
                    self.programs / "postgres", "-D", str(data), "-k", str(self.directory),
                    "-p", str(self.port), "-c", "listen_addresses=127.0.0.1",
                    "-c", f"max_connections={MAX_CONNECTIONS}",
                    "-c", "fsync=off", "-c", "superuser_reserved_connections=3",
                ],
                stdout=subprocess.DEVNULL, stderr=log, cwd="/", start_new_session=True,
                preexec_fn=_die_with_parent, **self._as_user(),
            )  # fmt: skip
        eventually(lambda: self.server.poll() is not None or self._answers())
        return self.server.poll() is None

    def log(self) -> str:
        return (self.directory / "log").read_text()

    def told(self) -> str:
        """What has become of it, for who wonders why a test has failed."""
        status = self.server.poll()
        life = "runs" if status is None else f"has ended by {status}, and nobody has asked it to"
        try:
            last = "\n".join(self.log().splitlines()[-20:])
        except OSError as error:
            last = str(error)
        return f"It {life}, on port {self.port} of {self.directory}:\n{last}"

    def _as_user(self) -> dict[str, Any]:
        return {} if self.user is None else {"user": self.user.pw_uid, "group": self.user.pw_gid}

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [self.programs / program, *arguments],
            check=True, stdout=subprocess.DEVNULL, cwd="/", **self._as_user(),
        )  # fmt: skip

    def _answers(self) -> bool:
        try:
            self.admin().close()
            return True
        except psycopg.OperationalError:
            return False

    def local(self, user: str, database: str = "app") -> str:
        return f"host={self.directory} port={self.port} user={user} dbname={database}"

    @property
    def url(self) -> str:
        """The database's own URL, as an app has it."""
        return f"postgresql://app:pa%3As%2Fs%40w%25rd@127.0.0.1:{self.port}/app?sslmode=prefer"

    def admin(self) -> psycopg.Connection[Any]:
        return psycopg.connect(self.local("postgres", "postgres"), autocommit=True)

    def backends(self) -> list[int]:
        """Backends of the app's, through the sidecar or not; the sidecar's monitor is none."""
        with self.admin() as admin:

            def look() -> list[list[Any]]:
                rows = admin.execute(
                    "SELECT pid, application_name, state FROM pg_stat_activity WHERE usename = 'app'"
                ).fetchall()
                # One that is just starting has neither a state nor a name: it may be the monitor's.
                return [] if any(state is None for _, _, state in rows) else [rows]

            found = eventually(look)
            assert found, "a backend does not get beyond its start"
            named = {pid for pid, name, _ in found[0] if name != "execpool monitor"}
            return sorted(named - self.ignored)

    def stop(self) -> None:
        self.server.send_signal(signal.SIGINT)
        self.server.wait(SOON)
        shutil.rmtree(self.directory, ignore_errors=True)


def free_port() -> int:
    """One that nobody is given who asks the kernel for any."""
    while True:
        with socket.socket() as taken, contextlib.suppress(OSError):
            taken.bind(("127.0.0.1", random.randrange(10_000, 32_768)))
            return int(taken.getsockname()[1])


class Sidecar:
    """The built execpool, in a directory of its own."""

    def __init__(self, postgres: Postgres, more: str = "", listen: str = "") -> None:
        self.directory = short_directory()
        self.config = self.directory / "config.yaml"
        url = f"postgresql://app@/app?host={postgres.directory}&port={postgres.port}"
        self.config.write_text(
            f"upstreams:\n- {{name: app, url: '{url}'}}\n"
            f"listen: {{dir: '{self.directory}'{listen}}}\ntelemetry: {{listen: off}}\n"
            # A wait for a connection is not to end because the machine stalls.
            f"pool: {{timeout: 120s}}\n{more}"
        )
        self.log = self.directory / "log"
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        binary = os.environ.get("EXECPOOL_BIN", str(ROOT / "target/debug/execpool"))
        self.process = subprocess.Popen(
            [binary, "run", "--config", str(self.config)],
            stdout=subprocess.DEVNULL, stderr=open(self.log, "a"),
            env={"PATH": os.environ["PATH"]}, start_new_session=True, preexec_fn=_die_with_parent,
        )  # fmt: skip
        assert eventually(self._answers), self.log.read_text()

    def _answers(self) -> bool:
        assert self.process is not None and self.process.poll() is None, self.log.read_text()
        try:
            status = self.control.execution("shared")
            return bool(status)
        except Exception:
            return False

    @property
    def control(self) -> Any:
        from execpool.control import Control

        return Control(str(self.directory / "control.sock"))

    def status(self) -> dict[str, Any]:
        return self.control._ask("GET", "/v1/status")

    def executions(self) -> list[str]:
        """Those that have not ended, but for the standing one."""
        found = self.control._request("GET", "/v1/executions")
        found = found.get("executions", found) if isinstance(found, dict) else found
        return [one["id"] for one in found if one["id"] != "shared" and one["state"] == "active"]

    def shared_backends(self) -> set[int]:
        """Those that the standing execution keeps for connections that name none."""
        pools = self.control.execution("shared")["pools"]
        return {pid for pool in pools for pid in pool["server_pids"]}

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def terminate(self) -> None:
        assert self.process is not None
        self.process.terminate()
        self.process.wait(SOON)

    def stop(self) -> None:
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    server = Postgres()
    _servers.append(server)
    yield server
    _servers.remove(server)
    server.stop()


_servers: list[Postgres] = []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failed test says how its PostgreSQL is: many a failure elsewhere begins there."""
    report = yield
    if report.failed:
        report.sections += [("PostgreSQL", server.told()) for server in _servers]
    return report


@pytest.fixture(scope="session")
def shared_sidecar(postgres: Postgres) -> Iterator[Sidecar]:
    sidecar = Sidecar(postgres)
    yield sidecar
    sidecar.stop()


@pytest.fixture
def sidecar(
    shared_sidecar: Sidecar, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Sidecar]:
    """The sidecar, with the environment of an app beside it. Nothing may be left afterwards."""
    surround(monkeypatch, shared_sidecar, postgres)
    postgres.ignored = set(postgres.backends())
    yield shared_sidecar
    postgres.ignored = set()
    assert eventually(lambda: shared_sidecar.executions() == []), shared_sidecar.executions()
    left = lambda: set(postgres.backends()) - shared_sidecar.shared_backends()  # noqa: E731
    assert eventually(lambda: not left()), left()


@pytest.fixture
def own_sidecar(postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sidecar]:
    """A sidecar that the test may kill."""
    sidecar = Sidecar(postgres)
    surround(monkeypatch, sidecar, postgres)
    yield sidecar
    sidecar.stop()


def surround(monkeypatch: pytest.MonkeyPatch, sidecar: Sidecar, postgres: Postgres) -> None:
    monkeypatch.setenv("EXECPOOL_DIR", str(sidecar.directory))
    monkeypatch.setenv("DATABASE_URL", postgres.url)
    monkeypatch.setenv("EXECPOOL", "required")


@pytest.fixture
def direct(postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> Iterator[Postgres]:
    """No sidecar, as on a development machine. Nothing may be left afterwards."""
    monkeypatch.setenv("EXECPOOL_DIR", "/tmp/execpool-is-not-here")
    monkeypatch.setenv("DATABASE_URL", postgres.url)
    monkeypatch.delenv("EXECPOOL", raising=False)
    postgres.ignored = set(postgres.backends())
    yield postgres
    left = eventually(lambda: not postgres.backends()) or postgres.backends()
    postgres.ignored = set()
    assert left is True


@pytest.fixture(autouse=True)
def in_no_scope() -> Iterator[None]:
    """A test that fails may leave its scope current: the next one is not to fail for that."""
    from execpool import current

    yield
    current.scope.set(None)


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library waits some seconds for a sidecar that does not answer, and looks for half a second whether a
    goodbye is still on its way: a machine that stalls takes longer."""
    from execpool import control, execution

    monkeypatch.setattr(control.Control.__init__, "__defaults__", (SOON,))
    monkeypatch.setattr(control, "END_TIMEOUT", SOON)
    monkeypatch.setattr(execution, "PATIENCE", SOON)
    monkeypatch.setattr(execution, "SETTLE", (*execution.SETTLE, *[0.3] * 20))


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """What execpool has logged as a warning or worse."""
    caplog.set_level(logging.DEBUG, "execpool")

    def told() -> list[str]:
        records = [one for one in caplog.records if one.name == "execpool"]
        return [one.getMessage() for one in records if one.levelno >= logging.WARNING]

    return told
