"""The matrix with psycopg 3 on asyncio."""

import asyncio
import sys

import psycopg
from psycopg.types.enum import EnumInfo, register_enum
from psycopg.types.json import Jsonb
from psycopg_pool import AsyncConnectionPool

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

URL = sys.argv[1]
seen = Matrix()


async def connect(**arguments):
    return await psycopg.AsyncConnection.connect(URL, **arguments)


async def rows(connection, sql, *values, **arguments):
    return await (await connection.execute(sql, values or None, **arguments)).fetchall()


async def one(connection, sql, *values):
    return (await rows(connection, sql, *values))[0][0]


def status(connection):
    return connection.info.transaction_status.name


async def failing(connection, sql, *values):
    """The SQLSTATE of a statement that must fail, and the status after it."""
    try:
        await connection.execute(sql, values or None)
    except psycopg.Error as error:
        return [error.sqlstate, status(connection)]
    sys.exit(f"did not fail: {sql}")


async def startup():
    options = "-c statement_timeout=4321 -c TimeZone=Asia/Tokyo -c my.setting=x\\ y"
    async with await connect(options=options, autocommit=True) as connection:
        names = ["statement_timeout", "TimeZone", "my.setting", "application_name"]
        shown = {name: await one(connection, f"SHOW {name}") for name in names}
        reported = connection.info.parameter_status("TimeZone")
        seen.see("startup", {"shown": shown, "reported": reported}, "4321ms")


async def parameter_status(connection):
    def reported():
        return {name: connection.info.parameter_status(name) for name in REPORTED}

    first = reported()
    await connection.execute("SET TimeZone = 'Asia/Kolkata'; SET application_name = 'renamed'")
    await connection.execute("SET client_encoding = 'LATIN1'")
    changed = reported()
    await connection.execute("RESET ALL")
    observed = {"first": first, "changed": changed, "reset": reported()}
    seen.see("parameter_status", observed, "Asia/Kolkata")


async def prepared_six_times(connection):
    doubled = [await one(connection, "SELECT %s::int * 2", i) for i in range(6)]
    prepared = await one(connection, "SELECT count(*) FROM pg_prepared_statements")
    at_once = await rows(connection, "SELECT %s + 1", 41, prepare=True)
    await connection.execute("DEALLOCATE ALL")
    after = await one(connection, "SELECT count(*) FROM pg_prepared_statements")
    observed = {"doubled": doubled, "prepared": prepared, "at_once": at_once, "after": after}
    seen.see("prepared_six_times", observed, "10")


async def types(connection):
    register_enum(await EnumInfo.fetch(connection, "matrix.mood"), connection, Mood)
    insert = "INSERT INTO matrix.item VALUES (%s, %s, %s) RETURNING mood"
    moods = [(await one(connection, insert, i, m.name, m)).name for i, m in enumerate(Mood)]
    wrong = await failing(connection, "SELECT 'angry'::matrix.mood")
    seen.see("enum", {"moods": moods, "wrong": wrong}, "22P02")

    sql = "SELECT %s::int[], %s::text[], '{{1,2},{3,4}}'::int[], '{}'::int[]"
    values = (ARRAYS["numbers"], ARRAYS["texts"])
    text = await rows(connection, sql, *values)
    seen.see("array", [text, await rows(connection, sql, *values, binary=True)], "[3, 4]")

    value = Jsonb(NESTED)
    seen.see("jsonb", await rows(connection, "SELECT %s::jsonb, %s::jsonb->'a'->2", value, value), "åß∂")


async def copy(connection):
    async with connection.cursor() as cursor:
        async with cursor.copy("COPY matrix.copied FROM STDIN") as into:
            for row in COPIED:
                await into.write_row(row)
        tag = cursor.statusmessage
        taken = {}
        for form in ["text", "binary"]:
            sql = f"COPY (TABLE matrix.copied ORDER BY id) TO STDOUT (FORMAT {form})"
            async with cursor.copy(sql) as out:
                taken[form] = b"".join([bytes(part) async for part in out])
        async with cursor.copy("COPY matrix.copied FROM STDIN (FORMAT binary)") as into:
            await into.write(taken["binary"])
        total = await one(connection, "SELECT count(*) FROM matrix.copied")
        try:
            async with cursor.copy("COPY matrix.copied FROM STDIN") as into:
                await into.write(b"1\tgood\nbad\tbad\n")
        except psycopg.Error as error:
            wrong = [error.sqlstate, status(connection)]
        try:
            async with cursor.copy("COPY matrix.copied FROM STDIN") as into:
                await into.write(b"1\tgood\n")
                raise ValueError("given up")
        except ValueError:
            given_up = status(connection)
    observed = {form: digest(data) for form, data in taken.items()}
    observed |= {"tag": tag, "total": total, "wrong": wrong, "given_up": given_up}
    seen.see("copy", observed, "COPY 2000")


async def one_megabyte(connection):
    text = big_text()
    back = await one(connection, "SELECT %s::text", text)
    server = await one(connection, "SELECT encode(sha256(%s::text::bytea), 'hex')", text)
    three = await rows(connection, "SELECT %s::text FROM generate_series(1, 3)", text)
    observed = {"back": digest(back), "server": server, "rows": [digest(r[0]) for r in three]}
    seen.see("one_megabyte", observed, "1048576")


async def error_in_transaction():
    async with await connect() as connection:
        states = [status(connection)]
        await one(connection, "SELECT 1")
        states.append(status(connection))
        await connection.execute("INSERT INTO matrix.item VALUES (100, 'lost', 'sad')")
        failed = await failing(connection, "SELECT 1 / 0")
        refused = await failing(connection, "SELECT 1")
        await connection.rollback()
        states.append(status(connection))
        lost = await one(connection, "SELECT count(*) FROM matrix.item WHERE id = 100")
        async with connection.transaction():
            failed_inside = await failing(connection, "SELECT 'x'::int")
            raise psycopg.Rollback()
        # Here the block above has rolled back to its savepoint.
        states.append(status(connection))
        await connection.commit()
        states.append(status(connection))
    observed = {"states": states, "failed": failed, "refused": refused}
    observed |= {"lost": lost, "failed_inside": failed_inside}
    seen.see("error_in_transaction", observed, "25P02")


async def error_fields(connection):
    try:
        await connection.execute("INSERT INTO matrix.item VALUES (1, 'twice', 'ok')")
    except psycopg.errors.UniqueViolation as error:
        diag = error.diag
        observed = {
            name: getattr(diag, name)
            for name in dir(diag)
            if not name.startswith("_") and isinstance(getattr(diag, name), str)
        }
    several = await connection.execute("SELECT 1; SELECT 2, 3; SELECT 4 WHERE false")
    results = [await several.fetchall()]
    while several.nextset():
        results.append(await several.fetchall())
    seen.see("error_fields", {"unique": observed, "several": results}, "23505")


async def notices(connection):
    heard = []
    connection.add_notice_handler(
        lambda d: heard.append([d.severity, d.sqlstate, d.message_primary, d.message_hint])
    )
    await connection.execute("DO $$ BEGIN RAISE NOTICE 'one' USING HINT = 'two'; END $$")
    await connection.execute("DO $$ BEGIN RAISE WARNING 'three' USING ERRCODE = 'XX123'; END $$")
    seen.see("notices", heard, "XX123")


async def server_side_cursor():
    async with await connect() as connection:
        async with connection.cursor("walk") as cursor:
            cursor.itersize = 100
            await cursor.execute("SELECT generate_series(1, 1000)")
            first = await cursor.fetchmany(10)
            rest = sum([row[0] async for row in cursor])
            is_open = await one(connection, "SELECT count(*) FROM pg_cursors WHERE name = 'walk'")
        async with connection.cursor("jump", scrollable=True) as cursor:
            await cursor.execute("SELECT generate_series(1, 1000)")
            await cursor.scroll(500)
            jumped = await cursor.fetchone()
    observed = {"first": first, "rest": rest, "open": is_open, "jumped": jumped}
    seen.see("server_side_cursor", observed, "501")


async def notify(listener, sender):
    await listener.execute("LISTEN channel")
    sender_pid = await one(sender, "SELECT pg_backend_pid()")
    sql = "SELECT pg_notify('channel', 'first'), pg_notify('channel', %s)"
    await sender.execute(sql, ("x" * 7000,))
    heard = [n async for n in listener.notifies(timeout=60, stop_after=2)]
    await listener.execute("UNLISTEN *")
    observed = [[n.channel, digest(n.payload), n.pid == sender_pid] for n in heard]
    seen.see("notify", observed, "7000")


async def cancel(victim, other):
    pid = await one(victim, "SELECT pg_backend_pid()")

    async def sleeps():
        return await one(other, SLEEPING.format(pid=pid)) == 1

    sleeper = asyncio.create_task(failing(victim, "SELECT pg_sleep(60)"))
    await until_async(sleeps)
    await victim.cancel_safe(timeout=60)
    outcome = await sleeper

    # Cancelling the task must cancel the query, too.
    sleeper = asyncio.create_task(victim.execute("SELECT pg_sleep(60)"))
    await until_async(sleeps)
    sleeper.cancel()
    [by_task] = await asyncio.gather(sleeper, return_exceptions=True)
    same = await one(victim, "SELECT pg_backend_pid()") == pid
    observed = {"outcome": outcome, "by_task": type(by_task).__name__, "same_backend": same}
    seen.see("cancel", observed, "57014")


async def pipeline_with_error(connection):
    await connection.execute("CREATE TABLE matrix.quotient (q int)")
    sql = "INSERT INTO matrix.quotient VALUES (100 / %s)"
    outcomes = []
    for divisors in [(1, 2, 0, 4), (4, 5)]:
        try:
            async with connection.pipeline():
                for divisor in divisors:
                    await connection.execute(sql, (divisor,))
            outcomes.append("done")
        except psycopg.Error as error:
            outcomes.append(error.sqlstate)
    ended = await rows(connection, "SELECT q FROM matrix.quotient ORDER BY q")
    seen.see("pipeline_with_error", [outcomes, ended, status(connection)], "22012")


async def default_pool():
    async def work(pool, number):
        async with pool.connection() as connection:
            return await one(connection, "SELECT %s::int", number)

    async with AsyncConnectionPool(URL) as pool:
        answers = await asyncio.gather(*[work(pool, number) for number in range(40)])
        size = pool.get_stats()["pool_size"]
    seen.see("default_pool", {"answers": answers, "size": size}, "39")


async def main():
    async with (
        await connect(autocommit=True) as connection,
        await connect(autocommit=True) as other,
    ):
        await connection.execute(SCHEMA)
        await startup()
        await parameter_status(connection)
        await prepared_six_times(connection)
        await types(connection)
        await copy(connection)
        await one_megabyte(connection)
        await error_in_transaction()
        await error_fields(connection)
        await notices(connection)
        await server_side_cursor()
        await notify(connection, other)
        await cancel(connection, other)
        await pipeline_with_error(connection)
        await default_pool()
    seen.print()


asyncio.run(main())
