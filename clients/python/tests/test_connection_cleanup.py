"""Whether executions are cleaned up: one alone, several at once, and one that fails.

`make test` runs this against a sidecar and a PostgreSQL of its own. By hand, and as often as you like,
it checks your own deployment, from a container of the pod:

    DATABASE_URL=postgresql://app@db/app python test_connection_cleanup.py

It opens a few connections, leaks some of them on purpose in executions of its own, and looks whether
they are gone. It reads nothing of yours and writes nothing. It needs `execpool[sqlalchemy,psycopg]`."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import TYPE_CHECKING, Any

import execpool
from execpool import ExecutionConnectionManager, ExecutionScope
from sqlalchemy import text

if TYPE_CHECKING or "pytest" in sys.modules:
    import pytest

    @pytest.fixture(autouse=True)
    def deployment(sidecar: Any) -> None:
        """The sidecar of the tests; by hand it is yours."""


async def use_database(leak: list[Any]) -> int:
    """What a tool does that forgets its connection: answers the backend's process id."""
    engine = await asyncio.to_thread(execpool.create_execution_scoped_engine)
    connection = engine.connect()
    leak.append(connection)
    return int(connection.execute(text("SELECT pg_backend_pid()")).scalar_one())


def gone(pids: set[int], within: float = 30.0) -> bool:
    """Whether the database has none of these backends any more."""
    until = time.monotonic() + within
    while True:
        with ExecutionScope(execpool.make_id("cleanup-check")):
            with execpool.create_execution_scoped_engine().connect() as connection:
                found = connection.execute(text("SELECT pid FROM pg_stat_activity")).scalars()
                left = pids & set(found)
        if not left or time.monotonic() > until:
            return not left
        time.sleep(0.1)


def counts(execution: str) -> dict[str, int] | None:
    found = ExecutionConnectionManager().get_stats()["executions"].get(execution)
    return None if found is None else dict(found)


def test_single_execution_cleanup() -> None:
    """What one execution opens is tracked while it runs, and gone when it is over."""
    execution = execpool.make_id("single")
    leak: list[Any] = []

    async def run() -> set[int]:
        with ExecutionScope(execution):
            pids = {await use_database(leak), await use_database(leak)}
            tracked = counts(execution)
            assert tracked is not None and tracked["sql_engines"] == 2, tracked
        return pids

    pids = asyncio.run(run())
    assert len(pids) == 2
    assert counts(execution) is None, "the execution is still tracked"
    assert gone(pids), f"backends {pids} are still there"


def test_concurrent_execution_isolation() -> None:
    """Executions at the same time have their own connections, and one's end is not another's."""
    executions = [execpool.make_id(f"concurrent-{number}") for number in range(3)]
    leak: list[Any] = []

    async def run(number: int, first_is_over: asyncio.Event) -> set[int]:
        async with ExecutionScope(executions[number]):
            pids = {await use_database(leak) for _ in range(number + 1)}
            connection = leak[-1]
            tracked = counts(executions[number])
            assert tracked is not None and tracked["sql_engines"] == number + 1, tracked
            if number > 0:
                await first_is_over.wait()
                assert connection.execute(text("SELECT 1")).scalar_one() == 1
        if number == 0:
            assert await asyncio.to_thread(gone, pids), f"backends {pids} are still there"
            first_is_over.set()
        return pids

    async def main() -> list[set[int]]:
        event = asyncio.Event()
        return await asyncio.gather(*(run(number, event) for number in range(3)))

    of_each = asyncio.run(main())
    pids = set().union(*of_each)
    assert len(pids) == 6, f"executions have shared a backend: {of_each}"
    assert gone(pids), f"backends {pids} are still there"


def test_cleanup_after_an_exception() -> None:
    """An execution that fails is cleaned up as one that does not, and the failure is passed on."""
    execution = execpool.make_id("fails")
    leak: list[Any] = []
    pids: set[int] = set()

    async def run() -> None:
        async with ExecutionScope(execution):
            pids.add(await use_database(leak))
            raise ValueError("the model answers nonsense")

    try:
        asyncio.run(run())
    except ValueError as error:
        assert "nonsense" in str(error)
    else:
        raise AssertionError("the exception was swallowed")
    assert counts(execution) is None, "the execution is still tracked"
    assert gone(pids), f"backends {pids} are still there"


def main() -> int:
    failed = 0
    for test in (
        test_single_execution_cleanup,
        test_concurrent_execution_isolation,
        test_cleanup_after_an_exception,
    ):
        said = (test.__doc__ or "").strip()
        try:
            test()
            print(f"ok      {said}")
        except Exception as error:
            failed += 1
            print(f"FAILED  {said}\n        {type(error).__name__}: {error}")
    with ExecutionScope(execpool.make_id("cleanup-way")) as scope:
        way = "through the sidecar" if scope.uses_sidecar else "directly, without a sidecar"
    print(f"Connections went {way}.")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
