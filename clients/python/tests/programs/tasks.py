"""A Celery app whose tasks are runs that leak."""

import os
from typing import Any

import execpool
import execpool.sqlalchemy
import sqlalchemy
from celery import Celery

broker = os.environ["TASKS_FOLDER"]
app = Celery("tasks", broker="filesystem://", backend=f"file://{broker}/results")
app.conf.broker_transport_options = {
    "data_folder_in": f"{broker}/data",
    "data_folder_out": f"{broker}/data",
    "control_folder": f"{broker}/control",
}
# A global engine, made in the parent of the prefork pool.
engine = execpool.sqlalchemy.instrument(
    sqlalchemy.create_engine(
        os.environ["DATABASE_URL"].replace("postgresql:", "postgresql+psycopg:")
    )
)
with engine.connect() as connection:
    connection.execute(sqlalchemy.text("SELECT 1"))


@app.task  # type: ignore[untyped-decorator]
def work(number: int) -> list[Any]:
    with execpool.ExecutionScope(f"celery-{number}") as run:
        leaked = engine.connect()
        found = leaked.execute(sqlalchemy.text("SELECT 1")).scalar()
    assert run.summary is not None
    return [os.getpid(), found, len(run.summary.leftovers)]
