"""A run that is cancelled leaves nothing behind, whenever that comes."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable
from typing import Any

import execpool
import execpool.asyncpg
import execpool.psycopg
import pytest
from conftest import SOON, Postgres, Sidecar, eventually, eventually_here
from execpool import ExecutionScope
from execpool.control import Control
from execpool.registry import registry
from execpool.sqlalchemy import create_execution_scoped_async_engine
from sqlalchemy import text

POINTS = 200


async def run(name: str, tool: str, then: float = 0.01) -> None:
    """An agent's run, which waits for the database and for others - `then` for so long - and leaks."""
    async with ExecutionScope(name) as scope:
        scope.track(lambda: asyncio.sleep(0.001), kind="other")
        leaked = await execpool.asyncpg.connect()
        await leaked.fetchval("SELECT pg_sleep(0.01)")
        async with ExecutionScope(f"{name}-{tool}"):
            async with await execpool.psycopg.connect_async() as connection:
                await connection.execute("SELECT pg_sleep(0.01)")
            async with create_execution_scoped_async_engine().connect() as opened:
                await opened.execute(text("SELECT count(*) FROM orders"))
                await asyncio.sleep(0.01)
        await asyncio.sleep(then)


def test_cancelled_at_two_hundred_points_nothing_is_left(
    sidecar: Sidecar, postgres: Postgres
) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)

    async def one(number: int) -> str:
        task = asyncio.create_task(run(f"c-{number}", "tool"))
        await asyncio.sleep(chance.random() * 0.35)
        task.cancel()
        # Cancelled once more amid its end, now and then.
        if chance.random() < 0.3:
            await asyncio.sleep(chance.random() * 0.02)
            task.cancel()
        try:
            await task
            return "done"
        except asyncio.CancelledError:
            # What the run waited for is over with the run: not later, in the background.
            assert f"c-{number}" not in [one.id for one in registry.open()]
            return "cancelled"

    async def main() -> list[str]:
        results: list[str] = []
        # How many are done before depends on the machine.
        while results.count("cancelled") < POINTS and len(results) < 10 * POINTS:
            begin = len(results)
            results += await asyncio.gather(*(one(n) for n in range(begin, begin + 8)))
        return results

    results = asyncio.run(main())
    assert results.count("cancelled") >= POINTS, results
    assert sidecar.executions() == [] and registry.open() == []
    assert eventually(lambda: not postgres.backends())


@pytest.mark.parametrize("call", ["heartbeat", "begin"])
def test_a_cancellation_is_none_the_less_one_where_the_sidecar_fails_meanwhile(
    sidecar: Sidecar, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    asked, go = threading.Event(), threading.Event()

    def fails(*_: object) -> None:
        asked.set()
        go.wait(SOON)
        raise execpool.SidecarRefused(500, "broken", "it is broken", "")

    async def beats() -> None:
        async with ExecutionScope("fails", deadline=600) as scope:
            monkeypatch.setattr(Control, "heartbeat", fails)
            while True:
                try:
                    await scope.heartbeat_async()
                except execpool.SidecarError:
                    pass  # as an app does that logs it, and goes on
                await asyncio.sleep(600)

    async def begins() -> None:
        monkeypatch.setattr(Control, "begin", fails)
        async with ExecutionScope("fails"):
            pass

    async def main() -> None:
        task = asyncio.create_task(beats() if call == "heartbeat" else begins())
        assert await asyncio.to_thread(asked.wait, SOON)
        task.cancel()
        await asyncio.sleep(0.05)
        go.set()
        await asyncio.wait([task], timeout=SOON)
        assert task.cancelled()

    asyncio.run(main())


def test_a_cancellation_as_resources_are_closed_is_one_though_leaving_fails(
    sidecar: Sidecar, monkeypatch: pytest.MonkeyPatch
) -> None:
    closing: list[bool] = []
    leave = registry.leave

    def fails(*arguments: Any) -> None:
        leave(*arguments)
        raise OSError("the disk of the log is full")

    async def takes_for_ever() -> None:
        closing.append(True)
        await asyncio.sleep(600)

    async def run() -> None:
        async with ExecutionScope("left-badly") as scope:
            scope.track(takes_for_ever)
            monkeypatch.setattr(registry, "leave", fails)

    async def main() -> None:
        task = asyncio.create_task(run())
        assert await eventually_here(lambda: closing)
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as told:
            await task
        assert isinstance(told.value.__cause__, OSError) and task.cancelled()

    asyncio.run(main())


def test_a_cancellation_as_it_begins_is_one_though_leaving_fails(
    sidecar: Sidecar, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, go = threading.Event(), threading.Event()
    begin, leave = Control.begin, registry.leave

    def begins(*arguments: Any) -> Any:
        asked.set()
        go.wait(SOON)
        return begin(*arguments)

    def fails(*arguments: Any) -> None:
        leave(*arguments)
        raise OSError("the disk of the log is full")

    async def run() -> None:
        async with ExecutionScope("begins-badly"):
            pass

    async def main() -> None:
        monkeypatch.setattr(Control, "begin", begins)
        monkeypatch.setattr(registry, "leave", fails)
        task = asyncio.create_task(run())
        assert await asyncio.to_thread(asked.wait, SOON)
        task.cancel()
        await asyncio.sleep(0)
        go.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())


def test_a_cancellation_that_comes_as_the_last_resource_is_closed_is_not_lost(sidecar: Sidecar) -> None:
    went_on: list[bool] = []

    async def run() -> None:
        task = asyncio.current_task()
        assert task is not None

        async def closes() -> None:
            await asyncio.sleep(0)
            # It is to be delivered when all is closed, and nobody knows yet.
            asyncio.get_running_loop().call_soon(task.cancel)

        async with ExecutionScope("just-closed") as scope:
            scope.track(closes)
        went_on.append(True)

    async def main() -> None:
        with pytest.raises(asyncio.CancelledError):
            await asyncio.create_task(run())

    asyncio.run(main())
    assert went_on == []


def test_an_interrupt_as_resources_are_closed_ends_the_run(sidecar: Sidecar) -> None:
    async def interrupted() -> None:
        raise KeyboardInterrupt

    async def main() -> None:
        async with ExecutionScope("interrupted") as scope:
            scope.track(interrupted)

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(main())
    assert registry.open() == [] and sidecar.executions() == []


@pytest.mark.parametrize("by", ["psycopg", "sqlalchemy"])
def test_a_connect_that_is_cancelled_leaves_nothing_for_its_traceback_to_keep(
    sidecar: Sidecar, postgres: Postgres, warnings: Callable[[], list[str]], by: str
) -> None:
    kept: list[BaseException] = []

    async def connects() -> Any:
        if by == "psycopg":
            return await execpool.psycopg.connect_async()
        url = postgres.url.replace("postgresql:", "postgresql+psycopg:")
        return await create_execution_scoped_async_engine(url).connect()

    async def main() -> None:
        async with ExecutionScope("cancelled-connects"):
            for number in range(40):
                task = asyncio.create_task(connects())
                await asyncio.sleep(number / 2000)
                task.cancel()
                try:
                    await (await task).close()
                except asyncio.CancelledError as error:
                    kept.append(error)

    asyncio.run(main())
    assert kept and warnings() == []


def test_a_time_out_is_a_time_out_and_not_swallowed(sidecar: Sidecar) -> None:
    async def main() -> str:
        try:
            await asyncio.wait_for(run("timed", "out", 600), 0.05)
        except asyncio.TimeoutError:
            return "timeout"
        return "none"

    assert asyncio.run(main()) == "timeout"
    assert sidecar.executions() == []


def test_a_cancelled_group_of_tasks_leaves_nothing(sidecar: Sidecar) -> None:
    async def fails() -> None:
        await asyncio.sleep(0.05)
        raise execpool.ExecpoolError("enough")

    async def main() -> None:
        tasks = [asyncio.create_task(run(f"g-{i}", "t", 600)) for i in range(5)]
        try:
            await asyncio.gather(fails(), *tasks)
        except execpool.ExecpoolError:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        assert sidecar.executions() == []

    asyncio.run(main())
