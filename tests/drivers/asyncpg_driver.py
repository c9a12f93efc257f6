"""The matrix with asyncpg."""

import asyncio
import io
import json
import sys

import asyncpg

from matrix import (
    ARRAYS,
    COPIED,
    NESTED,
    REPORTED,
    SCHEMA,
    SLEEPING,
    Matrix,
    big_text,
    digest,
    until_async,
)

URL = sys.argv[1]
seen = Matrix()


async def failing(connection, sql, *values):
    """The SQLSTATE of a statement that must fail, and the status after it."""
    try:
        await connection.fetch(sql, *values)
    except asyncpg.PostgresError as error:
        return [error.sqlstate, connection.is_in_transaction()]
    sys.exit(f"did not fail: {sql}")


async def startup():
    settings = {"statement_timeout": "4321", "TimeZone": "Asia/Tokyo", "my.setting": "x y"}
    connection = await asyncpg.connect(URL, server_settings={**settings, "application_name": "matrix"})
    names = ["statement_timeout", "TimeZone", "my.setting", "application_name"]
    shown = {name: await connection.fetchval(f"SHOW {name}") for name in names}
    reported = connection.get_settings().TimeZone
    await connection.close()
    seen.see("startup", {"shown": shown, "reported": reported}, "4321ms")


async def parameter_status(connection):
    def reported():
        settings = connection.get_settings()
        return {name: getattr(settings, name, None) for name in REPORTED}

    first = reported()
    await connection.execute("SET TimeZone = 'Asia/Kolkata'; SET application_name = 'renamed'")
    changed = reported()
    await connection.execute("RESET ALL")
    observed = {"first": first, "changed": changed, "reset": reported()}
    observed["version"] = str(connection.get_server_version())
    seen.see("parameter_status", observed, "Asia/Kolkata")


async def prepared_six_times(connection):
    statement = await connection.prepare("SELECT $1::int * 2")
    doubled = [await statement.fetchval(i) for i in range(6)]
    # asyncpg keeps the statements of fetchval in a cache of its own.
    cached = [await connection.fetchval("SELECT $1::text || 'x'", str(i)) for i in range(6)]
    prepared = await connection.fetchval("SELECT count(*) FROM pg_prepared_statements")
    kinds = [attribute.type.name for attribute in statement.get_attributes()]
    await connection.execute("CREATE TABLE matrix.changing AS SELECT 1 AS a")
    before = await connection.fetch("SELECT * FROM matrix.changing")
    await connection.execute("ALTER TABLE matrix.changing ADD COLUMN b text")
    after = await connection.fetch("SELECT * FROM matrix.changing")
    observed = {"doubled": doubled, "cached": cached, "prepared": prepared, "kinds": kinds}
    observed |= {"before": list(map(dict, before)), "after": list(map(dict, after))}
    seen.see("prepared_six_times", observed, "10")


async def types(connection):
    insert = "INSERT INTO matrix.item VALUES ($1, $2, $3) RETURNING mood"
    moods = ["sad", "ok", "happy"]
    back = [await connection.fetchval(insert, i, mood, mood) for i, mood in enumerate(moods)]
    listed = await connection.fetchval("SELECT array_agg(mood ORDER BY mood) FROM matrix.item")
    wrong = await failing(connection, "SELECT $1::matrix.mood", "angry")
    seen.see("enum", {"moods": back, "listed": listed, "wrong": wrong}, "22P02")

    sql = "SELECT $1::int[], $2::text[], '{{1,2},{3,4}}'::int[], '{}'::int[]"
    row = await connection.fetchrow(sql, ARRAYS["numbers"], ARRAYS["texts"])
    seen.see("array", list(row), "[3, 4]")

    await connection.set_type_codec(
        "jsonb", encoder=json.dumps, decoder=json.loads, schema="pg_catalog"
    )
    row = await connection.fetchrow("SELECT $1::jsonb, $1::jsonb->'a'->2", NESTED)
    seen.see("jsonb", list(row), "åß∂")


async def copy(connection):
    tag = await connection.copy_records_to_table("copied", schema_name="matrix", records=COPIED)
    query = "SELECT * FROM matrix.copied ORDER BY id"
    text, binary = io.BytesIO(), io.BytesIO()
    await connection.copy_from_query(query, output=text)
    await connection.copy_from_query(query, output=binary, format="binary")
    text.seek(0)
    await connection.copy_to_table("copied", schema_name="matrix", source=text)
    total = await connection.fetchval("SELECT count(*) FROM matrix.copied")
    try:
        source = io.BytesIO(b"1\tgood\nbad\tbad\n")
        await connection.copy_to_table("copied", schema_name="matrix", source=source)
    except asyncpg.PostgresError as error:
        wrong = [error.sqlstate, connection.is_in_transaction()]
    observed = {"tag": tag, "text": digest(text.getvalue()), "binary": digest(binary.getvalue())}
    seen.see("copy", {**observed, "total": total, "wrong": wrong}, "COPY 2000")


async def one_megabyte(connection):
    text = big_text()
    back = await connection.fetchval("SELECT $1::text", text)
    server = await connection.fetchval("SELECT encode(sha256($1::text::bytea), 'hex')", text)
    rows = await connection.fetch("SELECT $1::text FROM generate_series(1, 3)", text)
    observed = {"back": digest(back), "server": server, "rows": [digest(r[0]) for r in rows]}
    seen.see("one_megabyte", observed, "1048576")


async def error_in_transaction(connection):
    transaction = connection.transaction()
    states = [connection.is_in_transaction()]
    await transaction.start()
    states.append(connection.is_in_transaction())
    await connection.execute("INSERT INTO matrix.item VALUES (100, 'lost', 'sad')")
    failed = await failing(connection, "SELECT 1 / 0")
    refused = await failing(connection, "SELECT 1")
    await transaction.rollback()
    states.append(connection.is_in_transaction())
    lost = await connection.fetchval("SELECT count(*) FROM matrix.item WHERE id = 100")
    async with connection.transaction():
        try:
            async with connection.transaction():
                await connection.execute("SELECT 'x'::int")
        except asyncpg.PostgresError as error:
            inside = [error.sqlstate, await connection.fetchval("SELECT 'outer lives'")]
    states.append(connection.is_in_transaction())
    observed = {"states": states, "failed": failed, "refused": refused}
    seen.see("error_in_transaction", {**observed, "lost": lost, "inside": inside}, "25P02")


async def error_fields(connection):
    try:
        await connection.execute("INSERT INTO matrix.item VALUES (1, 'twice', 'ok')")
    except asyncpg.UniqueViolationError as error:
        observed = error.as_dict()
    seen.see("error_fields", observed, "23505")


async def notices(connection):
    heard = []

    def listen(_, message):
        heard.append(message.as_dict())

    connection.add_log_listener(listen)
    await connection.execute("DO $$ BEGIN RAISE NOTICE 'one' USING HINT = 'two'; END $$")
    await connection.execute("DO $$ BEGIN RAISE WARNING 'three' USING ERRCODE = 'XX123'; END $$")
    connection.remove_log_listener(listen)

    async def all_heard():
        return len(heard) == 2

    await until_async(all_heard)
    seen.see("notices", heard, "XX123")


async def server_side_cursor(connection):
    async with connection.transaction():
        cursor = await connection.cursor("SELECT generate_series(1, 1000)")
        first = [row[0] for row in await cursor.fetch(10)]
        skipped = await cursor.forward(490)
        jumped = (await cursor.fetchrow())[0]
        query = "SELECT generate_series($1::int, 1000)"
        rest = sum([row[0] async for row in connection.cursor(query, 1, prefetch=100)])
    observed = {"first": first, "skipped": skipped, "jumped": jumped, "rest": rest}
    seen.see("server_side_cursor", observed, "501")


async def notify(listener, sender):
    heard = []
    sender_pid = await sender.fetchval("SELECT pg_backend_pid()")

    def hear(_, pid, channel, payload):
        heard.append([channel, digest(payload), pid == sender_pid])

    async def all_heard():
        return len(heard) == 2

    await listener.add_listener("channel", hear)
    sql = "SELECT pg_notify('channel', 'first'), pg_notify('channel', $1)"
    await sender.fetch(sql, "x" * 7000)
    await until_async(all_heard)
    await listener.remove_listener("channel", hear)
    seen.see("notify", heard, "7000")


async def cancel(victim, other):
    pid = await victim.fetchval("SELECT pg_backend_pid()")

    async def sleeps():
        return await other.fetchval(SLEEPING.format(pid=pid)) == 1

    sleeper = asyncio.create_task(victim.execute("SELECT pg_sleep(60)"))
    await until_async(sleeps)
    sleeper.cancel()
    [by_task] = await asyncio.gather(sleeper, return_exceptions=True)
    same = await victim.fetchval("SELECT pg_backend_pid()") == pid

    timed_out = None
    try:
        await victim.fetchval("SELECT pg_sleep(60)", timeout=2)
    except asyncio.TimeoutError as error:
        timed_out = [type(error).__name__, await victim.fetchval("SELECT 'still here'")]
    sleeper = asyncio.create_task(failing(victim, "SELECT pg_sleep(60)"))
    await until_async(sleeps)
    await other.fetchval("SELECT pg_cancel_backend($1)", pid)
    observed = {"by_task": type(by_task).__name__, "same_backend": same, "timed_out": timed_out}
    seen.see("cancel", {**observed, "by_server": await sleeper}, "57014")


async def pipeline_with_error(connection):
    # asyncpg pipelines the executions of executemany before one Sync.
    await connection.execute("CREATE TABLE matrix.quotient (q int)")
    sql = "INSERT INTO matrix.quotient VALUES (100 / $1::int)"
    outcomes = []
    for divisors in [(1, 2, 0, 4), (4, 5)]:
        try:
            await connection.executemany(sql, [(divisor,) for divisor in divisors])
            outcomes.append("done")
        except asyncpg.PostgresError as error:
            outcomes.append(error.sqlstate)
    rows = await connection.fetch("SELECT q FROM matrix.quotient ORDER BY q")
    ended = [outcomes, [row[0] for row in rows], connection.is_in_transaction()]
    seen.see("pipeline_with_error", ended, "22012")


async def default_pool():
    async with asyncpg.create_pool(URL) as pool:
        work = [pool.fetchval("SELECT $1::int", number) for number in range(40)]
        answers = await asyncio.gather(*work)
        size = pool.get_size()
    seen.see("default_pool", {"answers": answers, "size": size}, "39")


async def main():
    connection, other = await asyncpg.connect(URL), await asyncpg.connect(URL)
    await connection.execute(SCHEMA)
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
    await cancel(connection, other)
    await pipeline_with_error(connection)
    await connection.close()
    await other.close()
    await default_pool()
    seen.print()


asyncio.run(main())
