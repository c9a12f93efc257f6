"""One agent of `execpool demo`, in plain psycopg or plain SQLAlchemy.

    workload.py psycopg|sqlalchemy works|forgets|idles|hangs

It knows its database by DATABASE_URL and nothing else. It says `{"ready": true}` when
its driver is loaded, begins at the first line of its input, and says what became of its
work. Some agents then live on, as a backend does; they end with their input.
"""

import json
import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

URL = os.environ["DATABASE_URL"]
TOOLS_AT_ONCE = int(os.environ["DEMO_TOOLS_AT_ONCE"])
TASKS = int(os.environ["DEMO_TASKS"])

# What the model takes to answer, with the tool's connection open meanwhile.
MODEL_CALL = 2.0

READ = "SELECT sum(abalance) FROM pgbench_accounts WHERE aid % 97 = 1"
WRITE = "INSERT INTO work VALUES (current_setting('application_name'))"
ENDLESS = "SELECT pg_sleep(600)"


def say(**what):
    print(json.dumps(what), flush=True)


class Psycopg:
    """What everybody writes with psycopg: a connection for each tool call."""

    def __init__(self):
        import psycopg

        self.connect = lambda: psycopg.connect(URL)

    def tool_call(self, _number):
        with self.connect() as connection:
            connection.execute(READ)
            connection.commit()
            time.sleep(MODEL_CALL)
            connection.execute(WRITE)

    def finish(self):
        pass

    def query(self, connection, sql):
        connection.execute(sql)


class SqlAlchemy:
    """What everybody writes with SQLAlchemy: an engine with its pool for the run."""

    def __init__(self):
        import psycopg  # noqa: F401  (the engine would load it later)
        import sqlalchemy

        url = URL.replace("postgresql://", "postgresql+psycopg://", 1)
        self.text = sqlalchemy.text
        self.engine = sqlalchemy.create_engine(url, pool_size=2, max_overflow=TOOLS_AT_ONCE - 2)
        self.connect = self.engine.connect

    def tool_call(self, _number):
        with self.engine.connect() as connection:
            connection.execute(self.text(READ))
            connection.commit()
            time.sleep(MODEL_CALL)
            connection.execute(self.text(WRITE))
            connection.commit()

    def finish(self):
        self.engine.dispose()

    def query(self, connection, sql):
        connection.execute(self.text(sql))


def in_parallel(call, count):
    """Calls it `count` times, some at once; answers the errors."""

    def caught(number):
        try:
            call(number)
        except Exception as error:
            return " ".join(str(error).split())
        return None

    with ThreadPoolExecutor(TOOLS_AT_ONCE) as tools:
        return [error for error in tools.map(caught, range(count)) if error]


def works(driver):
    """Tool calls side by side, each with a model call in the middle."""
    errors = in_parallel(driver.tool_call, TASKS)
    driver.finish()
    return errors


def forgets(driver):
    """Connections that were used once and are never closed: somebody keeps them."""

    def forget(_number):
        connection = driver.connect()
        KEPT.append(connection)
        driver.query(connection, READ)
        connection.commit()

    return in_parallel(forget, TOOLS_AT_ONCE)


def idles(driver):
    """A transaction that begins with a SELECT, as psycopg's do, and is never ended."""

    def idle(_number):
        connection = driver.connect()
        KEPT.append(connection)
        driver.query(connection, READ)

    return in_parallel(idle, TOOLS_AT_ONCE)


def hangs(driver):
    """Queries that run when the agent is killed."""

    def hang(_number):
        connection = driver.connect()
        KEPT.append(connection)
        driver.query(connection, ENDLESS)

    return in_parallel(hang, TOOLS_AT_ONCE)


KEPT = []


def end_with_the_input():
    sys.stdin.read()
    os._exit(0)


def main():
    driver = {"psycopg": Psycopg, "sqlalchemy": SqlAlchemy}[sys.argv[1]]()
    part = {"works": works, "forgets": forgets, "idles": idles, "hangs": hangs}[sys.argv[2]]
    say(ready=True)
    if not sys.stdin.readline():
        return
    threading.Thread(target=end_with_the_input, daemon=True).start()
    errors = part(driver)
    say(errors=errors)
    if errors:
        os._exit(1)
    if part is not works:
        threading.Event().wait()


main()
