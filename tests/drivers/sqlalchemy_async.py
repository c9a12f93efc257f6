"""The matrix with SQLAlchemy's asyncio engine on asyncpg, with its default pool."""

import asyncio
import io
import sys

from sqlalchemy import ARRAY, Column, Enum, Integer, MetaData, Table, Text
from sqlalchemy import cast, exc, func, insert, literal, select, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine

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
    until_async,
)

# SQLAlchemy hands what follows the ? to asyncpg.connect, which takes settings apart.
GIVEN = make_url(sys.argv[1]).set(drivername="postgresql+asyncpg")
URL = GIVEN.difference_update_query(["application_name"])
NAME = {"application_name": GIVEN.query["application_name"]}
seen = Matrix()


metadata = MetaData(schema="matrix")
item = Table(
    "item",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", Text),
    Column("mood", Enum(Mood, name="mood", schema="matrix")),
)


def engine(**settings):
    return create_async_engine(URL, connect_args={"server_settings": {**NAME, **settings}})


async def driver(connection):
    """asyncpg's connection, for what SQLAlchemy leaves to it."""
    return (await connection.get_raw_connection()).driver_connection


async def in_transaction(connection):
    return (await driver(connection)).is_in_transaction()


async def failing(connection, statement):
    """The error of a statement that must fail, and the status after it."""
    try:
        await connection.execute(statement)
    except exc.DBAPIError as error:
        return [type(error).__name__, error.orig.sqlstate, await in_transaction(connection)]
    sys.exit(f"did not fail: {statement}")


async def startup():
    settings = {"statement_timeout": "4321", "TimeZone": "Asia/Tokyo", "my.setting": "x y"}
    own = engine(**settings)
    async with own.connect() as connection:
        names = ["statement_timeout", "TimeZone", "my.setting", "application_name"]
        shown = {name: await connection.scalar(text(f"SHOW {name}")) for name in names}
        level = await connection.get_isolation_level()
    await own.dispose()
    seen.see("startup", {"shown": shown, "level": level}, "4321ms")


async def parameter_status(connection):
    raw = await driver(connection)

    def reported():
        settings = raw.get_settings()
        return {name: getattr(settings, name, None) for name in REPORTED}

    first = reported()
    await connection.execute(text("SET LOCAL TimeZone = 'Asia/Kolkata'"))
    changed = reported()
    await connection.rollback()
    observed = {"first": first, "changed": changed, "after": reported()}
    seen.see("parameter_status", observed, "Asia/Kolkata")


async def prepared_six_times(connection):
    doubled = [await connection.scalar(select(cast(i, Integer) * 2)) for i in range(6)]
    prepared = await connection.scalar(text("SELECT count(*) FROM pg_prepared_statements"))
    await connection.commit()
    seen.see("prepared_six_times", {"doubled": doubled, "prepared": prepared}, "10")


async def types(connection):
    rows = [{"id": i, "name": mood.name, "mood": mood} for i, mood in enumerate(Mood)]
    await connection.execute(insert(item), rows)
    query = select(item.c.mood).order_by(item.c.mood)
    moods = [mood.name for mood in await connection.scalars(query)]
    await connection.commit()
    wrong = await failing(connection, text("SELECT 'angry'::matrix.mood"))
    await connection.rollback()
    seen.see("enum", {"moods": moods, "wrong": wrong}, "22P02")

    numbers = literal(ARRAYS["numbers"], ARRAY(Integer))
    texts = literal(ARRAYS["texts"], ARRAY(Text))
    query = select(numbers, texts, text("'{{1,2},{3,4}}'::int[]"))
    seen.see("array", list((await connection.execute(query)).one()), "[3, 4]")

    value = literal(NESTED, JSONB)
    row = (await connection.execute(select(value, func.jsonb_extract_path(value, "a", "2")))).one()
    await connection.commit()
    seen.see("jsonb", list(row), "åß∂")


async def copy(connection):
    # By way of asyncpg: SQLAlchemy has no COPY of its own.
    raw = await driver(connection)
    tag = await raw.copy_records_to_table("copied", schema_name="matrix", records=COPIED)
    out = io.BytesIO()
    await raw.copy_from_query("SELECT * FROM matrix.copied ORDER BY id", output=out)
    total = await connection.scalar(text("SELECT count(*) FROM matrix.copied"))
    await connection.commit()
    seen.see("copy", {"tag": tag, "text": digest(out.getvalue()), "total": total}, "2000")


async def one_megabyte(connection):
    back = await connection.scalar(select(literal(big_text())))
    server = text("SELECT encode(sha256(CAST(:text AS text)::bytea), 'hex')")
    server = await connection.scalar(server, {"text": big_text()})
    await connection.commit()
    seen.see("one_megabyte", {"back": digest(back), "server": server}, "1048576")


async def error_in_transaction(connection):
    states = [await in_transaction(connection)]
    await connection.execute(insert(item).values(id=100, name="lost", mood=Mood.sad))
    states.append(await in_transaction(connection))
    failed = await failing(connection, text("SELECT 1 / 0"))
    refused = await failing(connection, text("SELECT 1"))
    await connection.rollback()
    states.append(await in_transaction(connection))
    lost = await connection.scalar(text("SELECT count(*) FROM matrix.item WHERE id = 100"))
    savepoint = await connection.begin_nested()
    inside = await failing(connection, text("SELECT CAST('x' AS int)"))
    await savepoint.rollback()
    states.append(await in_transaction(connection))
    await connection.commit()
    states.append(await in_transaction(connection))
    observed = {"states": states, "failed": failed, "refused": refused}
    seen.see("error_in_transaction", {**observed, "lost": lost, "inside": inside}, "25P02")


async def error_fields(connection):
    try:
        await connection.execute(insert(item).values(id=1, name="twice", mood=Mood.ok))
    except exc.IntegrityError as error:
        # SQLAlchemy wraps asyncpg's error, which has the fields.
        observed = error.orig.__cause__.as_dict()
    await connection.rollback()
    seen.see("error_fields", observed, "23505")


async def notices(connection):
    heard = []
    raw = await driver(connection)

    def listen(_, message):
        heard.append(message.as_dict())

    async def all_heard():
        return len(heard) == 2

    raw.add_log_listener(listen)
    await connection.execute(text("DO $$ BEGIN RAISE NOTICE 'one' USING HINT = 'two'; END $$"))
    await connection.execute(
        text("DO $$ BEGIN RAISE WARNING 'three' USING ERRCODE = 'XX123'; END $$")
    )
    await connection.commit()
    await until_async(all_heard)
    raw.remove_log_listener(listen)
    seen.see("notices", heard, "XX123")


async def server_side_cursor(connection):
    result = await connection.stream(text("SELECT generate_series(1, 1000)"))
    scalars = result.scalars()
    first = await scalars.fetchmany(10)
    rest = sum([value async for value in scalars])
    await connection.commit()
    seen.see("server_side_cursor", {"first": first, "rest": rest}, "500445")


async def notify(listener, sender):
    # By way of asyncpg: SQLAlchemy has no notifications of its own.
    heard = []
    raw = await driver(listener)
    sender_pid = await sender.scalar(text("SELECT pg_backend_pid()"))

    def hear(_, pid, channel, payload):
        heard.append([channel, digest(payload), pid == sender_pid])

    async def all_heard():
        return len(heard) == 2

    await raw.add_listener("channel", hear)
    sql = "SELECT pg_notify('channel', 'first'), pg_notify('channel', :long)"
    await sender.execute(text(sql), {"long": "x" * 7000})
    await sender.commit()
    await until_async(all_heard)
    await raw.remove_listener("channel", hear)
    seen.see("notify", heard, "7000")


async def cancel(victim, other):
    pid = await victim.scalar(text("SELECT pg_backend_pid()"))

    async def sleeps():
        async with other.begin():
            return await other.scalar(text(SLEEPING.format(pid=pid))) == 1

    async def gone():
        return not await sleeps()

    await other.commit()
    # The way that asyncio offers: cancelling the task cancels the query.
    sleeper = asyncio.create_task(victim.execute(text("SELECT pg_sleep(60)")))
    await until_async(sleeps)
    sleeper.cancel()
    [by_task] = await asyncio.gather(sleeper, return_exceptions=True)
    await until_async(gone)
    seen.see("cancel", {"by_task": type(by_task).__name__, "gone": True}, "CancelledError")


async def pipeline_with_error(connection):
    # Many parameter sets for one statement go through asyncpg's pipelined executemany.
    await connection.execute(text("CREATE TABLE matrix.quotient (q int)"))
    await connection.commit()
    sql = text("INSERT INTO matrix.quotient VALUES (100 / CAST(:divisor AS int))")
    outcomes = []
    for divisors in [(1, 2, 0, 4), (4, 5)]:
        try:
            await connection.execute(sql, [{"divisor": divisor} for divisor in divisors])
            await connection.commit()
            outcomes.append("done")
        except exc.DBAPIError as error:
            outcomes.append([error.orig.sqlstate, await in_transaction(connection)])
            await connection.rollback()
    rows = await connection.scalars(text("SELECT q FROM matrix.quotient ORDER BY q"))
    seen.see("pipeline_with_error", [outcomes, list(rows.all())], "22012")


async def default_pool():
    own = engine()

    async def work(number):
        async with own.connect() as connection:
            return await connection.scalar(select(cast(number, Integer)))

    answers = await asyncio.gather(*[work(number) for number in range(40)])
    observed = {"answers": answers, "out": own.pool.checkedout()}
    await own.dispose()
    seen.see("default_pool", observed, "39")


async def main():
    own = engine()
    async with own.connect() as connection, own.connect() as other:
        for statement in filter(str.strip, SCHEMA.split(";")):
            await connection.execute(text(statement))
        await connection.commit()
        await startup()
        await parameter_status(connection)
        await prepared_six_times(connection)
        await types(connection)
        await copy(connection)
        await one_megabyte(connection)
        await error_in_transaction(connection)
        await error_fields(connection)
        await notices(connection)
        await server_side_cursor(connection)
        await notify(connection, other)
        async with own.connect() as victim:
            await cancel(victim, other)
        await pipeline_with_error(connection)
    await own.dispose()
    await default_pool()
    seen.print()


asyncio.run(main())
