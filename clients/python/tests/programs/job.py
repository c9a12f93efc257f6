"""What a worker process does: a run with a scope of its own, which leaks."""

import execpool
import execpool.psycopg


def job(name: str) -> list[object]:
    with execpool.ExecutionScope(name) as scope:
        execpool.psycopg.connect().execute("SELECT 1")
        leaked = execpool.psycopg.connect()
        leaked.execute("SELECT count(*) FROM orders")
    assert scope.summary is not None and scope.summary.complete
    return [scope.id, len(scope.summary.leftovers)]
