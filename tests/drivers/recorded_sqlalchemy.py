"""What an app does with SQLAlchemy over psycopg, to be recorded: the same on every run."""

import sys

from sqlalchemy import create_engine, text
from sqlalchemy.exc import IntegrityError

engine = create_engine(
    sys.argv[1].replace("postgresql://", "postgresql+psycopg://"), pool_size=1, pool_pre_ping=True
)
INSERT = text("INSERT INTO items (a, b) VALUES (:a, :b)")

with engine.begin() as connection:
    connection.execute(text("TRUNCATE items"))
    connection.execute(INSERT, [{"a": number, "b": "x" * number} for number in range(8)])
with engine.connect() as connection:
    streamed = {"stream_results": True, "max_row_buffer": 3}
    list(connection.execute(text("SELECT a, b FROM items ORDER BY a"), execution_options=streamed))
    connection.rollback()
    try:
        connection.execute(INSERT, {"a": 1, "b": "twice"})
    except IntegrityError:
        connection.rollback()
    with connection.begin(), connection.begin_nested():
        connection.execute(text("UPDATE items SET b = :b WHERE a = :a"), {"a": 1, "b": "new"})
with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
    connection.execute(text("SELECT count(*) FROM items"))
engine.dispose()
print("[]")
