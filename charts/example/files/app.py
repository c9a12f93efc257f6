"""A small app with a database, as an example of what runs beside execpool.

It knows one thing, DATABASE_URL, and uses its driver as it would without execpool. Over HTTP
on PORT (8080):

    GET /healthz         the process turns; never asks the database
    GET /rows?n=10       rows that the database makes
    GET /work?seconds=5  as a request that takes a while: a query every 100 ms for so long
    GET /leak?n=5        opens sessions, queries with each, and forgets to close them: what
                         execpool is there for
    GET /forgotten       how many of these there are
    GET /queries         how many queries were ok, failed, or went well in a second attempt

A request that fails answers 500 with the driver's message. With LOAD=N it has N workers that
query all the time, a new session for each query (LOAD_SESSIONS=once: one for each worker).

At SIGTERM it goes on for LINGER seconds (0), as one that has to finish its work: requests and
workers run to the end of it, then it ends with 0. It writes a line for each query, "ok" or
"failed" and why, to standard output when QUERIES_LOG is set, and at its end how many there
were of each, and when the last one went well.

`app.py job N` makes N queries and ends: a Job.
"""

import json
import os
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import psycopg

URL = os.environ.get("DATABASE_URL", "")
LINGER = float(os.environ.get("LINGER", "0"))
ROWS = "SELECT number, number * number AS square FROM generate_series(1, %s) AS number"


class Queries:
    """What has become of the queries so far."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts = {"ok": 0, "retried": 0, "failed": 0}
        self._last_ok = 0.0
        self._is_logged = bool(os.environ.get("QUERIES_LOG"))

    def tell(self, outcome: str, why: object = "") -> None:
        with self._lock:
            self._counts[outcome] += 1
            if outcome == "ok":
                self._last_ok = time.time()
        if self._is_logged or outcome == "failed":
            say("query", outcome=outcome, why=str(why).strip())

    def counts(self) -> dict[str, float]:
        with self._lock:
            return {**self._counts, "last_ok": round(self._last_ok, 3)}


def say(event: str, **fields: object) -> None:
    """A line of JSON, at once."""
    print(json.dumps({"at": round(time.time(), 3), "event": event, **fields}), flush=True)


class App:
    """What the app has: its count of queries, and the sessions that it forgot."""

    def __init__(self) -> None:
        self.queries = Queries()
        self.forgotten: list[psycopg.Connection] = []
        self.is_over = threading.Event()

    def rows(self, n: int, connection: psycopg.Connection | None = None) -> list[list]:
        """Rows of the database. As a driver's pool would, it connects once more where the
        connection itself broke: nobody has seen an answer then."""
        for is_last in (False, True):
            try:
                if connection is not None:
                    found = connection.execute(ROWS, (n,)).fetchall()
                else:
                    with psycopg.connect(URL, autocommit=True) as own:
                        found = own.execute(ROWS, (n,)).fetchall()
            except psycopg.OperationalError as why:
                if is_last:
                    self.queries.tell("failed", why)
                    raise
                self.queries.tell("retried", why)
                connection = None
                time.sleep(0.2)
            except psycopg.Error as why:
                self.queries.tell("failed", why)
                raise
            else:
                self.queries.tell("ok")
                return [list(row) for row in found]
        raise AssertionError("the second attempt answers or raises")

    def work(self, seconds: float) -> int:
        """Queries for so long, in one session; answers how many."""
        end, done = time.monotonic() + seconds, 0
        with psycopg.connect(URL, autocommit=True) as connection:
            while time.monotonic() < end:
                self.rows(1, connection)
                done += 1
                time.sleep(0.1)
        return done

    def leak(self, n: int) -> int:
        """Sessions that hold a server connection each, for as long as the process lives."""
        for _ in range(n):
            connection = psycopg.connect(URL)
            connection.execute("SELECT 1")
            self.forgotten.append(connection)
        return len(self.forgotten)

    def load(self, keeps_session: bool) -> None:
        """A worker that queries until the app is over."""
        connection = None
        while not self.is_over.is_set():
            try:
                if keeps_session and (connection is None or connection.closed):
                    connection = psycopg.connect(URL, autocommit=True)
                self.rows(10, connection)
            except psycopg.Error:
                connection = None
                time.sleep(0.2)
            time.sleep(0.02)


class Handler(BaseHTTPRequestHandler):
    """The routes."""

    app: App

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        routes = {
            "/healthz": lambda: {"status": "ok"},
            "/rows": lambda: {"rows": self.app.rows(int(query.get("n", "10")))},
            "/work": lambda: {"queries": self.app.work(float(query.get("seconds", "5")))},
            "/leak": lambda: {"forgotten": self.app.leak(int(query.get("n", "5")))},
            "/forgotten": lambda: {"forgotten": len(self.app.forgotten)},
            "/queries": self.app.queries.counts,
        }
        if parts.path not in routes:
            self.answer(404, {"error": f"no {parts.path}; there are {' '.join(routes)}"})
            return
        try:
            self.answer(200, routes[parts.path]())
        except psycopg.Error as why:
            self.answer(500, {"error": str(why), "sqlstate": why.sqlstate})

    def answer(self, status: int, body: dict) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Requests are not logged: probes come every second."""


def serve(app: App) -> None:
    """Serves until SIGTERM and LINGER seconds more."""
    is_told = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: is_told.set())
    Handler.app = app
    server = ThreadingHTTPServer(("", int(os.environ.get("PORT", "8080"))), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    keeps_session = os.environ.get("LOAD_SESSIONS") == "once"
    workers = [
        threading.Thread(target=app.load, args=(keeps_session,))
        for _ in range(int(os.environ.get("LOAD", "0")))
    ]
    for worker in workers:
        worker.start()
    say("started", load=len(workers))
    is_told.wait()
    say("told to end", linger=LINGER)
    time.sleep(LINGER)
    app.is_over.set()
    for worker in workers:
        worker.join()
    server.shutdown()
    say("ends", **app.queries.counts())


def main() -> None:
    if not URL:
        sys.exit("app.py: DATABASE_URL is not set; say where the database is, for example "
                 "postgresql:///app?host=/run/execpool")
    app = App()
    if sys.argv[1:2] == ["job"]:
        for _ in range(int(sys.argv[2]) if len(sys.argv) > 2 else 10):
            app.rows(1)
        say("ends", **app.queries.counts())
    else:
        serve(app)


if __name__ == "__main__":
    main()
