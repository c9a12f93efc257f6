"""The matrix with psycopg 3, synchronous."""

import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import psycopg
from psycopg.pq import DiagnosticField, ExecStatus
from psycopg.types.enum import EnumInfo, register_enum
from psycopg.types.json import Jsonb
from psycopg_pool import ConnectionPool

from matrix import (
    ARRAYS,
    COPIED,
    NESTED,
    REPORTED,
    SCHEMA,
    SLEEPING,
    Matrix,
    Mood,
    big_text,
    digest,
    until,
)

URL = sys.argv[1]
seen = Matrix()


def one(connection, sql, *values):
    return connection.execute(sql, values or None).fetchone()[0]


def status(connection):
    return connection.info.transaction_status.name


def failing(connection, sql, *values):
    """The SQLSTATE of a statement that must fail, and the status after it."""
    try:
        connection.execute(sql, values or None)
    except psycopg.Error as error:
        return [error.sqlstate, status(connection)]
    sys.exit(f"did not fail: {sql}")


def startup():
    options = "-c statement_timeout=4321 -c TimeZone=Asia/Tokyo -c my.setting=x\\ y"
    with psycopg.connect(URL, options=options, autocommit=True) as connection:
        names = ["statement_timeout", "TimeZone", "my.setting", "application_name"]
        shown = {name: one(connection, f"SHOW {name}") for name in names}
        reported = connection.info.parameter_status("TimeZone")
        seen.see("startup", {"shown": shown, "reported": reported}, "4321ms")


def parameter_status(connection):
    def reported():
        return {name: connection.info.parameter_status(name) for name in REPORTED}

    first = reported()
    connection.execute("SET TimeZone = 'Asia/Kolkata'; SET application_name = 'renamed'")
    connection.execute("SET client_encoding = 'LATIN1'")
    changed = reported()
    connection.execute("RESET ALL")
    observed = {"first": first, "changed": changed, "reset": reported()}
    seen.see("parameter_status", observed, "Asia/Kolkata")


def prepared_six_times(connection):
    doubled = [one(connection, "SELECT %s::int * 2", i) for i in range(6)]
    by_name = [one(connection, "SELECT 'now', %s::text", "x") for _ in range(6)]
    prepared = one(connection, "SELECT count(*) FROM pg_prepared_statements")
    at_once = connection.execute("SELECT %s + 1", (41,), prepare=True).fetchall()
    connection.execute("DEALLOCATE ALL")
    after = one(connection, "SELECT count(*) FROM pg_prepared_statements")
    observed = {"doubled": doubled, "by_name": by_name, "prepared": prepared}
    seen.see("prepared_six_times", {**observed, "at_once": at_once, "after": after}, "10")


def types(connection):
    register_enum(EnumInfo.fetch(connection, "matrix.mood"), connection, Mood)
    insert = "INSERT INTO matrix.item VALUES (%s, %s, %s) RETURNING mood"
    moods = [one(connection, insert, i, m.name, m).name for i, m in enumerate(Mood)]
    wrong = failing(connection, "SELECT 'angry'::matrix.mood")
    seen.see("enum", {"moods": moods, "wrong": wrong}, "22P02")

    sql = "SELECT %s::int[], %s::text[], '{{1,2},{3,4}}'::int[], '{}'::int[]"
    values = (ARRAYS["numbers"], ARRAYS["texts"])
    binary = connection.execute(sql, values, binary=True).fetchone()
    seen.see("array", [connection.execute(sql, values).fetchone(), binary], "[3, 4]")

    row = connection.execute("SELECT %s::jsonb, %s::jsonb->'a'->2", [Jsonb(NESTED)] * 2)
    seen.see("jsonb", row.fetchone(), "åß∂")


def copy(connection):
    with connection.cursor() as cursor:
        with cursor.copy("COPY matrix.copied FROM STDIN") as into:
            for row in COPIED:
                into.write_row(row)
        tag = cursor.statusmessage
        with cursor.copy("COPY (TABLE matrix.copied ORDER BY id) TO STDOUT") as out:
            text = b"".join(bytes(part) for part in out)
        with cursor.copy("COPY (TABLE matrix.copied ORDER BY id) TO STDOUT (FORMAT binary)") as out:
            binary = b"".join(bytes(part) for part in out)
        with cursor.copy("COPY matrix.copied FROM STDIN (FORMAT binary)") as into:
            into.write(binary)
        total = one(connection, "SELECT count(*) FROM matrix.copied")
        try:
            with cursor.copy("COPY matrix.copied FROM STDIN") as into:
                into.write(b"1\tgood\nbad\tbad\n")
        except psycopg.Error as error:
            wrong = [error.sqlstate, status(connection)]
        try:
            with cursor.copy("COPY matrix.copied FROM STDIN") as into:
                into.write(b"1\tgood\n")
                raise ValueError("given up")
        except ValueError:
            given_up = status(connection)
    observed = {"tag": tag, "text": digest(text), "binary": digest(binary)}
    observed |= {"total": total, "wrong": wrong, "given_up": given_up}
    seen.see("copy", observed, "COPY 2000")


def one_megabyte(connection):
    text = big_text()
    back = one(connection, "SELECT %s::text", text)
    server = one(connection, "SELECT encode(sha256(%s::text::bytea), 'hex')", text)
    rows = connection.execute("SELECT %s::text FROM generate_series(1, 3)", (text,)).fetchall()
    observed = {"back": digest(back), "server": server, "rows": [digest(r[0]) for r in rows]}
    seen.see("one_megabyte", observed, "1048576")


def error_in_transaction():
    with psycopg.connect(URL) as connection:
        states = [status(connection)]
        one(connection, "SELECT 1")
        states.append(status(connection))
        connection.execute("INSERT INTO matrix.item VALUES (100, 'lost', 'sad')")
        failed = failing(connection, "SELECT 1 / 0")
        refused = failing(connection, "SELECT 1")
        connection.rollback()
        states.append(status(connection))
        lost = one(connection, "SELECT count(*) FROM matrix.item WHERE id = 100")
        with connection.transaction():
            failed_inside = failing(connection, "SELECT 'x'::int")
            raise psycopg.Rollback()
        # Here the block above has rolled back to its savepoint.
        states.append(status(connection))
        connection.commit()
        states.append(status(connection))
    observed = {"states": states, "failed": failed, "refused": refused}
    observed |= {"lost": lost, "failed_inside": failed_inside}
    seen.see("error_in_transaction", observed, "25P02")


def error_fields(connection):
    try:
        connection.execute("INSERT INTO matrix.item VALUES (1, 'twice', 'ok')")
    except psycopg.errors.UniqueViolation as error:
        diag = error.diag
        observed = {
            name: getattr(diag, name)
            for name in dir(diag)
            if not name.startswith("_") and isinstance(getattr(diag, name), str)
        }
    several = connection.execute("SELECT 1; SELECT 2, 3; SELECT 4 WHERE false")
    results = [several.fetchall()]
    while several.nextset():
        results.append(several.fetchall())
    empty = connection.execute("").statusmessage
    seen.see("error_fields", {"unique": observed, "several": results, "empty": empty}, "23505")


def notices(connection):
    heard = []
    connection.add_notice_handler(
        lambda d: heard.append([d.severity, d.sqlstate, d.message_primary, d.message_hint])
    )
    connection.execute("DO $$ BEGIN RAISE NOTICE 'one' USING HINT = 'two'; END $$")
    connection.execute("DO $$ BEGIN RAISE WARNING 'three' USING ERRCODE = 'XX123'; END $$")
    seen.see("notices", heard, "XX123")


def server_side_cursor():
    with psycopg.connect(URL) as connection:
        with connection.cursor("walk") as cursor:
            cursor.itersize = 100
            cursor.execute("SELECT generate_series(1, 1000)")
            first, rest = cursor.fetchmany(10), sum(row[0] for row in cursor)
            open_cursors = one(connection, "SELECT count(*) FROM pg_cursors WHERE name = 'walk'")
        with connection.cursor("jump", scrollable=True) as cursor:
            cursor.execute("SELECT generate_series(1, 1000)")
            cursor.scroll(500)
            jumped = cursor.fetchone()
            cursor.scroll(-2)
            back = cursor.fetchone()
        observed = {"first": first, "rest": rest, "open": open_cursors}
        seen.see("server_side_cursor", {**observed, "jumped": jumped, "back": back}, "501")


def notify(listener, sender):
    listener.execute("LISTEN channel")
    sender_pid = one(sender, "SELECT pg_backend_pid()")
    sender.execute("SELECT pg_notify('channel', 'first'), pg_notify('channel', %s)", ("x" * 7000,))
    heard = list(listener.notifies(timeout=60, stop_after=2))
    listener.execute("UNLISTEN *")
    observed = [[n.channel, digest(n.payload), n.pid == sender_pid] for n in heard]
    seen.see("notify", observed, "7000")


def cancel(victim, other):
    pid = one(victim, "SELECT pg_backend_pid()")
    outcome = []
    sleeper = threading.Thread(
        target=lambda: outcome.append(failing(victim, "SELECT pg_sleep(60)"))
    )
    sleeper.start()
    until(lambda: one(other, SLEEPING.format(pid=pid)) == 1)
    victim.cancel_safe(timeout=60)
    sleeper.join()
    same = one(victim, "SELECT pg_backend_pid()") == pid
    seen.see("cancel", {"outcome": outcome, "same_backend": same}, "57014")


def pipeline_with_error(connection):
    connection.execute("CREATE TABLE matrix.quotient (q int)")
    outcomes = []
    for divisors in [(1, 2, 0, 4), (4, 5)]:
        try:
            with connection.pipeline():
                for divisor in divisors:
                    connection.execute("INSERT INTO matrix.quotient VALUES (100 / %s)", (divisor,))
            outcomes.append("done")
        except psycopg.Error as error:
            outcomes.append(error.sqlstate)
    rows = connection.execute("SELECT q FROM matrix.quotient ORDER BY q").fetchall()
    raw = raw_pipeline(connection.pgconn, [(1, 0, 2), (4, 5)])
    seen.see("pipeline_with_error", [outcomes, rows, raw, status(connection)], "22012")


def raw_pipeline(pgconn, segments):
    """Every result of a pipeline with a Sync after each segment, as libpq has them."""
    pgconn.enter_pipeline_mode()
    for divisors in segments:
        for divisor in divisors:
            pgconn.send_query_params(b"SELECT 100 / $1::int", [str(divisor).encode()])
        pgconn.pipeline_sync()
    until(lambda: pgconn.flush() == 0)
    results = []
    while sum(result[0] == "PIPELINE_SYNC" for result in results) < len(segments):
        if result := pgconn.get_result():
            name = ExecStatus(result.status).name
            value = result.get_value(0, 0) if name == "TUPLES_OK" else None
            sqlstate = result.error_field(DiagnosticField.SQLSTATE)
            results.append([name, str(value or sqlstate)])
    pgconn.exit_pipeline_mode()
    return results


def default_pool():
    def work(pool, number):
        with pool.connection() as connection:
            return one(connection, "SELECT %s::int", number)

    with ConnectionPool(URL) as pool, ThreadPoolExecutor(8) as workers:
        answers = list(workers.map(lambda number: work(pool, number), range(40)))
        size = pool.get_stats()["pool_size"]
    seen.see("default_pool", {"answers": answers, "size": size}, "39")


def main():
    with (
        psycopg.connect(URL, autocommit=True) as connection,
        psycopg.connect(URL, autocommit=True) as other,
    ):
        connection.execute(SCHEMA)
        startup()
        parameter_status(connection)
        prepared_six_times(connection)
        types(connection)
        copy(connection)
        one_megabyte(connection)
        error_in_transaction()
        error_fields(connection)
        notices(connection)
        server_side_cursor()
        notify(connection, other)
        cancel(connection, other)
        pipeline_with_error(connection)
        default_pool()
    seen.print()


main()
