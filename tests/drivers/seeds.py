"""An agent backend's own tests of its connection cleanup, as such a backend would write them:
one execution, several at once, and one that fails. Prints what it saw as JSON.

    seeds.py SOCKET_DIRECTORY DATABASE
"""

import http.client
import json
import re
import socket
import sys
import threading
import time

import psycopg
from sqlalchemy import create_engine, text

DIRECTORY, DATABASE = sys.argv[1:]


class Control(http.client.HTTPConnection):
    """The control socket."""

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(f"{DIRECTORY}/control.sock")


def ask(method, path, body=None):
    control = Control("execpool")
    control.request(method, path, body and json.dumps(body))
    answer = json.load(control.getresponse())
    control.close()
    return answer


class ExecutionScope:
    """All connections of an execution end with the block, whatever it forgot."""

    def __init__(self, execution_id):
        self.id = execution_id

    def __enter__(self):
        self.url = ask("POST", "/v1/executions", {"id": self.id})["url"]
        return self

    def __exit__(self, *_):
        self.ended = ask("DELETE", f"/v1/executions/{self.id}")

    def connection(self):
        return psycopg.connect(self.url, autocommit=True)

    def engine(self):
        return create_engine("postgresql+psycopg://", creator=self.connection)


def stats(method="GET", path="/api/memory/debug/connections/status"):
    """What the debug endpoint says, its shape checked to the letter."""
    answer = ask(method, path)
    assert list(answer) == ["success", "data"] and answer["success"] is True, answer
    assert sorted(answer["data"]) == ["connection_stats", "timestamp"], answer
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", answer["data"]["timestamp"]), answer
    found = answer["data"]["connection_stats"]
    wanted = ["active_executions", "executions", "total_tracked_connections"]
    assert sorted(found) == wanted, answer
    for counts in found["executions"].values():
        assert sorted(counts) == ["custom_connections", "sql_databases", "sql_engines"], answer
    total = sum(sum(counts.values()) for counts in found["executions"].values())
    assert found["total_tracked_connections"] == total, answer
    assert found["active_executions"] == len(found["executions"]), answer
    assert "shared" not in found["executions"], answer
    return found["executions"]


def left(execution_id):
    """Backends of an execution, asked outside of it."""
    sql = (
        "SELECT count(*) FROM pg_stat_activity WHERE query LIKE %s AND pid <> pg_backend_pid() "
        "AND datname = current_database()"
    )
    with psycopg.connect(f"host={DIRECTORY} dbname={DATABASE} user=app") as shared:
        return shared.execute(sql, (f"%/* {execution_id} */%",)).fetchone()[0]


def gone(execution_id):
    """How many are left of an execution that has ended. A backend goes a moment after its connection."""
    until = time.monotonic() + 60
    while count := left(execution_id):
        if time.monotonic() > until:
            break
        time.sleep(0.05)
    return count


def use(scope, forgotten):
    """Opens a connection and an engine's, queries on both, and closes neither."""
    mark = f"SELECT 1 /* {scope.id} */"
    connection = scope.connection()
    connection.execute(mark)
    engine = scope.engine()
    lent = engine.connect()
    lent.execute(text(mark))
    forgotten += [connection, engine, lent]


def single_execution():
    forgotten = []
    with ExecutionScope("single") as scope:
        use(scope, forgotten)
        inside = stats()["single"]
        before = left("single")
    return {"inside": inside, "before": before, "after": gone("single"), "listed": stats(),
            "complete": scope.ended["complete"]}


def concurrent_isolation():
    forgotten, seen, barrier = [], {}, threading.Barrier(3)

    def run(name, ends_first):
        with ExecutionScope(name) as scope:
            use(scope, forgotten)
            barrier.wait()
            if not ends_first:
                barrier.wait()
                # Another's end has not touched this one.
                seen[f"{name} before"] = left(name)
                with scope.connection() as again:
                    seen[name] = again.execute("SELECT 'works'").fetchone()[0]
        if ends_first:
            seen[f"{name} after"] = gone(name)
            barrier.wait()

    threads = [
        threading.Thread(target=run, args=(name, first))
        for name, first in [("one", True), ("two", False), ("three", False)]
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {"seen": seen, "after": [gone(name) for name in ("one", "two", "three")]}


def exception_cleanup():
    forgotten = []
    try:
        with ExecutionScope("fails") as scope:
            use(scope, forgotten)
            raise RuntimeError("the agent failed")
    except RuntimeError as error:
        return {"raised": str(error), "after": gone("fails"), "complete": scope.ended["complete"]}


print(json.dumps({
    "single": single_execution(),
    "concurrent": concurrent_isolation(),
    "exception": exception_cleanup(),
    "cleanup": stats("POST", "/api/memory/debug/connections/cleanup"),
}))
