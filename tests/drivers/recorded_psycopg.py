"""What an app does with psycopg, to be recorded: the same on every run."""

import sys

import psycopg
from psycopg.types.json import Jsonb

INSERT = "INSERT INTO items (a, b, c, d, f) VALUES (%s, %s, %s, %s, 'happy')"


def row(number):
    return number, f"item {number}", Jsonb({"n": number}), [number, -number]


with psycopg.connect(sys.argv[1], application_name="recorded") as connection:
    connection.execute("TRUNCATE items")
    for number in range(7):  # a statement is prepared once it was used five times
        connection.execute(INSERT, row(number))
    connection.commit()

    with connection.cursor() as cursor:
        cursor.executemany(INSERT + " RETURNING a", map(row, range(7, 12)), returning=True)
        with cursor.copy("COPY items (a, b) FROM STDIN") as copy:
            for number in range(12, 20):
                copy.write_row((number, "x" * number))
        with cursor.copy("COPY items (a, b) TO STDOUT (FORMAT binary)") as copy:
            list(copy)
    connection.commit()

    with connection.cursor("by_name", binary=True) as cursor:
        cursor.itersize = 6
        cursor.execute("SELECT a, b, c, d, e, f FROM items ORDER BY a")
        list(cursor)

    with connection.pipeline():
        for number in range(3):
            connection.execute("UPDATE items SET e = %b WHERE a = %s", (b"\0\1", number))
        connection.execute("SELECT count(*) FROM items")
    try:
        with connection.transaction(), connection.pipeline():
            connection.execute("SELECT 1 / %s", (0,))
            connection.execute("SELECT 'skipped'")
    except psycopg.errors.DivisionByZero:
        pass
    try:
        connection.execute("SELECT nothing")
    except psycopg.errors.UndefinedColumn:
        connection.rollback()
    connection.execute("DO $$ BEGIN RAISE NOTICE 'noted'; END $$")
    connection.execute("SET LOCAL TimeZone = 'Asia/Tokyo'")
    connection.commit()

print("[]")
