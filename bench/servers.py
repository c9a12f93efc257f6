"""The programs that are measured, and the database behind them: throw-away, over Unix
sockets, each in a session and so in a scheduler group of its own."""

import grp
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from http.client import HTTPConnection
from pathlib import Path

DATABASE = "bench"
USER = "bench"
SCALE = 10
POOL = 20
PATIENCE = 30.0


class CannotMeasure(Exception):
    """What is in the way, in a sentence."""


def run(*command, **options):
    """The output of a command that must succeed."""
    try:
        done = subprocess.run(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CannotMeasure(f"{command[0]}: {error}")
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip()
        raise CannotMeasure(f"{' '.join(map(str, command))} exited with {done.returncode}: {said}")
    return done.stdout


def unprivileged():
    """Whom PostgreSQL and PgBouncer run as, which refuse root."""
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        try:
            user = pwd.getpwnam(name)
        except KeyError:
            continue
        group = grp.getgrgid(user.pw_gid).gr_gid
        return {"user": user.pw_uid, "group": group, "extra_groups": []}
    raise CannotMeasure("there is no user postgres or nobody to run the servers as")


def environment():
    """Nothing that execpool or libpq reads."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
    return kept | {"LC_ALL": "C", "TZ": "UTC"}


class Server:
    """A process that is ended, and its log shown if it did not do what it should."""

    ends_with = signal.SIGTERM

    def __init__(self, name, command, root, env=None, **who):
        self.name = name
        self.command = [str(word) for word in command]
        self.log = root / f"{name}.log"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment() | (env or {}),
                cwd="/",
                start_new_session=True,
                **who,
            )

    @property
    def pid(self):
        return self.process.pid

    def make_ready(self):
        """Waits until it serves."""
        self.wait_for(self.sockets / ".s.PGSQL.5432")

    def wait_for(self, path):
        """Waits until somebody listens on a socket."""
        deadline = time.monotonic() + PATIENCE
        while True:
            self.must_live()
            with socket.socket(socket.AF_UNIX) as probe:
                try:
                    return probe.connect(str(path))
                except OSError as error:
                    if time.monotonic() > deadline:
                        raise CannotMeasure(f"{self.name} does not listen on {path}: {error}\n{self.said()}")
            time.sleep(0.05)

    def must_live(self):
        status = self.process.poll()
        if status is not None:
            raise CannotMeasure(f"{self.name} has ended with {status}:\n{self.said()}")

    def said(self):
        lines = self.log.read_text(errors="replace").splitlines()
        return "\n".join(f"    {line}" for line in lines[-15:])

    def cpu_ns(self):
        """What all its threads have used of a CPU."""
        self.must_live()
        threads = Path(f"/proc/{self.pid}/task").iterdir()
        return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads)

    def resident(self):
        self.must_live()
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise CannotMeasure(f"/proc/{self.pid}/status has no VmRSS")

    def end(self):
        if self.process.poll() is None:
            self.process.send_signal(self.ends_with)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


class Postgres(Server):
    ends_with = signal.SIGINT  # its fast shutdown

    def __init__(self, root, programs):
        self.programs = programs
        self.sockets = directory(root / "pg", owner=unprivileged())
        data = root / "data"
        directory(data, owner=unprivileged(), mode=0o700)
        run(
            programs / "initdb", "--pgdata", data, "--username", USER,
            "--auth", "trust", "--no-sync", "--encoding", "UTF8", "--locale", "C",
            env=environment(), cwd="/", **unprivileged(),
        )
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": self.sockets,
            "max_connections": 100,
            "shared_buffers": "256MB",
            "fsync": "off",
            "autovacuum": "off",
        }
        flags = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        command = [programs / "postgres", "-D", data, *flags]
        super().__init__("postgres", command, root, **unprivileged())

    def make_ready(self):
        super().make_ready()
        connection = ("--host", self.sockets, "--username", USER)
        deadline = time.monotonic() + PATIENCE
        while True:  # it listens a little before it accepts
            try:
                run(self.programs / "createdb", *connection, DATABASE, env=environment())
                break
            except CannotMeasure:
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.1)
        run(
            self.programs / "pgbench", "--initialize", "--quiet", "--scale", SCALE,
            *connection, DATABASE, env=environment(),
        )


class PgBouncer(Server):
    def __init__(self, root, program, postgres):
        self.sockets = directory(root / "pb", owner=unprivileged())
        config = self.sockets / "pgbouncer.ini"
        config.write_text(
            f"[databases]\n"
            f"{DATABASE} = host={postgres.sockets} port=5432 dbname={DATABASE} user={USER}\n"
            f"[pgbouncer]\n"
            f"pool_mode = session\n"
            f"unix_socket_dir = {self.sockets}\n"
            f"listen_port = 5432\n"
            f"auth_type = any\n"
            f"default_pool_size = {POOL}\n"
        )
        config.chmod(0o644)
        super().__init__("pgbouncer", [program, config], root, **unprivileged())


class Execpool(Server):
    def __init__(self, root, program, postgres, name="execpool", telemetry="off", env=None):
        self.sockets = directory(root / name)
        config = root / f"{name}.yaml"
        config.write_text(
            f"upstreams:\n"
            f"  - name: {DATABASE}\n"
            f"    url: postgresql://{USER}@/{DATABASE}?host={postgres.sockets}\n"
            f"listen: {{dir: {self.sockets}}}\n"
            f'telemetry: {{listen: "{telemetry}"}}\n'
            f"budget: {{size: {POOL}, overflow: 0}}\n"
            f"pool: {{size: {POOL}, overflow: 0}}\n"
        )
        super().__init__(name, [program, "run", "--config", config], root, env=env)

    def status(self):
        """What it tells of itself: GET /v1/status."""
        connection = ControlConnection(self.sockets / "control.sock")
        try:
            connection.request("GET", "/v1/status")
            answer = connection.getresponse()
            body = answer.read()
        except OSError as error:
            raise CannotMeasure(f"GET /v1/status: {error}\n{self.said()}")
        finally:
            connection.close()
        if answer.status != 200:
            raise CannotMeasure(f"GET /v1/status: {answer.status} {body.decode(errors='replace')}")
        return json.loads(body)

    def wait_until_empty(self):
        """Waits until the last session has left."""
        deadline = time.monotonic() + PATIENCE
        while (there := self.status()["sessions"]["total"]) > 0:
            if time.monotonic() > deadline:
                raise CannotMeasure(f"execpool still counts {there} sessions, whose clients have left")
            time.sleep(0.1)


class ControlConnection(HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path):
        super().__init__("localhost", timeout=PATIENCE)
        self.path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Bench:
    """All of them, for the time of a `with`; nothing is left behind."""

    def __init__(self, programs, pgbouncer, execpool, kinds=()):
        self.paths = programs, pgbouncer, execpool
        self.kinds = kinds  # of execpool, to be held against each other; else it is against PgBouncer
        self.running = []
        self.root = None

    def __enter__(self):
        # A socket's path has at most 107 bytes.
        self.root = Path(tempfile.mkdtemp(prefix="ep-bench-", dir="/tmp"))
        self.root.chmod(0o755)
        programs, pgbouncer, execpool = self.paths
        try:
            self.postgres = self.started(Postgres, programs)
            if self.kinds:
                self.sides = [self.started(kind, execpool, self.postgres) for kind in self.kinds]
            else:
                self.pgbouncer = self.started(PgBouncer, pgbouncer, self.postgres)
                self.execpool = self.started(Execpool, execpool, self.postgres)
        except BaseException:
            self.__exit__(*sys.exc_info())
            raise
        return self

    def started(self, kind, *arguments):
        server = kind(self.root, *arguments)
        self.running.append(server)
        server.make_ready()
        return server

    def __exit__(self, *_):
        for server in reversed(self.running):
            server.end()
        shutil.rmtree(self.root, ignore_errors=True)


def directory(path, owner=None, mode=0o755):
    path.mkdir()
    path.chmod(mode)
    if owner:
        os.chown(path, owner["user"], owner["group"])
    return path
