"""The matrix with SQLAlchemy's synchronous engine on psycopg, with its default pool."""

import sys
import threading
from concurrent.futures import ThreadPoolExecutor

from sqlalchemy import ARRAY, Column, Enum, Integer, MetaData, Table, Text, create_engine
from sqlalchemy import cast, event, exc, func, insert, literal, select, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.engine import make_url

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

URL = make_url(sys.argv[1]).set(drivername="postgresql+psycopg")
seen = Matrix()


metadata = MetaData(schema="matrix")
item = Table(
    "item",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", Text),
    Column("mood", Enum(Mood, name="mood", schema="matrix")),
)


def driver(connection):
    """psycopg's connection, for what SQLAlchemy leaves to it."""
    return connection.connection.driver_connection


def status(connection):
    return driver(connection).info.transaction_status.name


def failing(connection, statement):
    """The error of a statement that must fail, and the status after it."""
    try:
        connection.execute(statement)
    except exc.DBAPIError as error:
        return [type(error).__name__, error.orig.sqlstate, status(connection)]
    sys.exit(f"did not fail: {statement}")


def startup():
    options = "-c statement_timeout=4321 -c TimeZone=Asia/Tokyo -c my.setting=x\\ y"
    engine = create_engine(URL, connect_args={"options": options})
    with engine.connect() as connection:
        names = ["statement_timeout", "TimeZone", "my.setting", "application_name"]
        shown = {name: connection.scalar(text(f"SHOW {name}")) for name in names}
        level = connection.get_isolation_level()
    engine.dispose()
    seen.see("startup", {"shown": shown, "level": level}, "4321ms")


def parameter_status(connection):
    def reported():
        return {name: driver(connection).info.parameter_status(name) for name in REPORTED}

    first = reported()
    connection.execute(text("SET LOCAL TimeZone = 'Asia/Kolkata'"))
    changed = reported()
    connection.rollback()
    version = connection.dialect.server_version_info
    observed = {"first": first, "changed": changed, "after": reported(), "version": version}
    seen.see("parameter_status", observed, "Asia/Kolkata")


def prepared_six_times(connection):
    doubled = [connection.scalar(select(cast(i, Integer) * 2)) for i in range(6)]
    prepared = connection.scalar(text("SELECT count(*) FROM pg_prepared_statements"))
    connection.commit()
    seen.see("prepared_six_times", {"doubled": doubled, "prepared": prepared}, "10")


def types(connection):
    rows = [{"id": i, "name": mood.name, "mood": mood} for i, mood in enumerate(Mood)]
    connection.execute(insert(item), rows)
    query = select(item.c.mood).order_by(item.c.mood)
    moods = [mood.name for mood in connection.scalars(query)]
    connection.commit()
    wrong = failing(connection, text("SELECT 'angry'::matrix.mood"))
    connection.rollback()
    seen.see("enum", {"moods": moods, "wrong": wrong}, "22P02")

    numbers = literal(ARRAYS["numbers"], ARRAY(Integer))
    texts = literal(ARRAYS["texts"], ARRAY(Text))
    row = connection.execute(select(numbers, texts, text("'{{1,2},{3,4}}'::int[]"))).one()
    seen.see("array", list(row), "[3, 4]")

    value = literal(NESTED, JSONB)
    row = connection.execute(select(value, func.jsonb_extract_path(value, "a", "2"))).one()
    connection.commit()
    seen.see("jsonb", list(row), "åß∂")


def copy(connection):
    # By way of psycopg: SQLAlchemy has no COPY of its own.
    with driver(connection).cursor() as cursor:
        with cursor.copy("COPY matrix.copied FROM STDIN") as into:
            for row in COPIED:
                into.write_row(row)
        with cursor.copy("COPY (TABLE matrix.copied ORDER BY id) TO STDOUT") as out:
            data = b"".join(bytes(part) for part in out)
    total = connection.scalar(text("SELECT count(*) FROM matrix.copied"))
    connection.commit()
    seen.see("copy", {"text": digest(data), "total": total}, "2000")


def one_megabyte(connection):
    back = connection.scalar(select(literal(big_text())))
    server = text("SELECT encode(sha256(CAST(:text AS text)::bytea), 'hex')")
    server = connection.scalar(server, {"text": big_text()})
    connection.commit()
    seen.see("one_megabyte", {"back": digest(back), "server": server}, "1048576")


def error_in_transaction(connection):
    states = [status(connection)]
    connection.execute(insert(item).values(id=100, name="lost", mood=Mood.sad))
    states.append(status(connection))
    failed = failing(connection, text("SELECT 1 / 0"))
    refused = failing(connection, text("SELECT 1"))
    connection.rollback()
    states.append(status(connection))
    lost = connection.scalar(text("SELECT count(*) FROM matrix.item WHERE id = 100"))
    savepoint = connection.begin_nested()
    inside = failing(connection, text("SELECT CAST('x' AS int)"))
    savepoint.rollback()
    states.append(status(connection))
    connection.commit()
    states.append(status(connection))
    observed = {"states": states, "failed": failed, "refused": refused}
    seen.see("error_in_transaction", {**observed, "lost": lost, "inside": inside}, "25P02")


def error_fields(connection):
    try:
        connection.execute(insert(item).values(id=1, name="twice", mood=Mood.ok))
    except exc.IntegrityError as error:
        diag = error.orig.diag
        observed = [diag.sqlstate, diag.constraint_name, diag.table_name, diag.message_detail]
    connection.rollback()
    seen.see("error_fields", observed, "23505")


def notices(connection):
    heard = []
    driver(connection).add_notice_handler(
        lambda d: heard.append([d.severity, d.sqlstate, d.message_primary, d.message_hint])
    )
    connection.execute(text("DO $$ BEGIN RAISE NOTICE 'one' USING HINT = 'two'; END $$"))
    connection.execute(text("DO $$ BEGIN RAISE WARNING 'three' USING ERRCODE = 'XX123'; END $$"))
    connection.commit()
    seen.see("notices", heard, "XX123")


def server_side_cursor(connection):
    streaming = connection.execution_options(stream_results=True, max_row_buffer=100)
    result = streaming.execute(text("SELECT generate_series(1, 1000)"))
    first = result.scalars().fetchmany(10)
    is_open = connection.scalar(text("SELECT count(*) FROM pg_cursors"))
    rest = sum(result.scalars())
    connection.commit()
    connection.execution_options(stream_results=False)
    seen.see("server_side_cursor", {"first": first, "open": is_open, "rest": rest}, "500445")


def notify(listener, sender):
    # By way of psycopg: SQLAlchemy has no notifications of its own.
    listener.execute(text("LISTEN channel"))
    listener.commit()
    sender_pid = sender.scalar(text("SELECT pg_backend_pid()"))
    sql = "SELECT pg_notify('channel', 'first'), pg_notify('channel', :long)"
    sender.execute(text(sql), {"long": "x" * 7000})
    sender.commit()
    raw = driver(listener)
    raw.autocommit = True
    heard = list(raw.notifies(timeout=60, stop_after=2))
    raw.autocommit = False
    seen.see("notify", [[n.channel, digest(n.payload), n.pid == sender_pid] for n in heard], "7000")


def cancel(victim, other):
    # By way of psycopg: SQLAlchemy has no cancel of its own.
    pid = victim.scalar(text("SELECT pg_backend_pid()"))
    outcome = []
    sleeper = threading.Thread(
        target=lambda: outcome.append(failing(victim, text("SELECT pg_sleep(60)")))
    )
    sleeper.start()

    def sleeps():
        with other.begin():
            return other.scalar(text(SLEEPING.format(pid=pid))) == 1

    until(sleeps)
    driver(victim).cancel_safe(timeout=60)
    sleeper.join()
    victim.rollback()
    same = victim.scalar(text("SELECT pg_backend_pid()")) == pid
    victim.commit()
    seen.see("cancel", {"outcome": outcome, "same_backend": same}, "57014")


def pipeline_with_error(connection):
    # Many parameter sets for one statement go through psycopg's pipeline.
    connection.execute(text("CREATE TABLE matrix.quotient (q int)"))
    connection.commit()
    sql = text("INSERT INTO matrix.quotient VALUES (100 / CAST(:divisor AS int))")
    outcomes = []
    for divisors in [(1, 2, 0, 4), (4, 5)]:
        try:
            connection.execute(sql, [{"divisor": divisor} for divisor in divisors])
            connection.commit()
            outcomes.append("done")
        except exc.DBAPIError as error:
            outcomes.append([error.orig.sqlstate, status(connection)])
            connection.rollback()
    rows = connection.scalars(text("SELECT q FROM matrix.quotient ORDER BY q")).all()
    connection.commit()
    seen.see("pipeline_with_error", [outcomes, list(rows)], "22012")


def default_pool():
    engine = create_engine(URL)
    resets = []
    event.listen(engine, "reset", lambda *_: resets.append(1))

    def work(number):
        with engine.connect() as connection:
            return connection.scalar(select(cast(number, Integer)))

    with ThreadPoolExecutor(8) as workers:
        answers = list(workers.map(work, range(40)))
    observed = {"answers": answers, "resets": len(resets), "out": engine.pool.checkedout()}
    engine.dispose()
    seen.see("default_pool", observed, "39")


def main():
    engine = create_engine(URL)
    with engine.connect() as connection, engine.connect() as other:
        connection.execute(text(SCHEMA))
        connection.commit()
        startup()
        parameter_status(connection)
        prepared_six_times(connection)
        types(connection)
        copy(connection)
        one_megabyte(connection)
        error_in_transaction(connection)
        error_fields(connection)
        notices(connection)
        server_side_cursor(connection)
        notify(connection, other)
        cancel(connection, other)
        pipeline_with_error(connection)
    engine.dispose()
    default_pool()
    seen.print()


main()
