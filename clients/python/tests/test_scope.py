"""A scope is an execution from its beginning to its end, however it ends."""

from __future__ import annotations

import asyncio
import contextvars
import datetime
import gc
import threading
import types
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import execpool
import execpool.asyncpg
import execpool.psycopg
import pytest
from conftest import SOON, Postgres, Sidecar, eventually
from execpool import ExecutionScope, current_scope
from execpool.control import Control
from execpool.hold import Hold, Keeper
from execpool.registry import registry
from execpool.workers import Workers

WHERE = "SELECT current_setting('application_name')"


def line_of(text: str) -> int:
    """The first line of this file that has it."""
    with open(__file__, encoding="utf-8") as lines:
        return next(number for number, line in enumerate(lines, 1) if text in line)


def execution_of(sidecar: Sidecar) -> list[str]:
    """The executions of the sessions that are open now."""
    sessions = sidecar.control._request("GET", "/v1/sessions")
    sessions = sessions.get("sessions", sessions) if isinstance(sessions, dict) else sessions
    return sorted(one["execution"] for one in sessions)


def test_a_scope_is_an_execution_and_its_end_leaves_nothing(
    sidecar: Sidecar, postgres: Postgres, warnings: Callable[[], list[str]]
) -> None:
    with ExecutionScope("run-1", deadline="10m", labels={"agent": "sales"}) as scope:
        seen = sidecar.control.execution("run-1")
        assert seen["kind"] == "explicit" and seen["labels"] == {"agent": "sales"}
        assert 300 < seen["deadline_seconds"] <= 600 and seen["holds"] == 1
        leaked = execpool.psycopg.connect()
        assert leaked.execute("SELECT item FROM orders WHERE id = 1").fetchone() == ("tea",)
        assert len(postgres.backends()) == 1
    assert postgres.backends() == []
    summary = scope.summary
    assert summary is not None and summary.complete and summary.reason == "deleted"
    assert summary.queries == 2 and summary.peak_connections == 1
    (left,) = summary.leftovers
    line = line_of("leaked = execpool.psycopg.connect()")
    assert left.caller is not None and left.caller.startswith(f"test_scope.py:{line} test_a_scope_is")
    assert any(f"test_scope.py:{line}" in warning for warning in warnings())
    assert leaked.closed


def test_what_was_closed_in_order_is_no_leftover(
    sidecar: Sidecar, warnings: Callable[[], list[str]]
) -> None:
    for turn in range(20):
        with ExecutionScope(f"tidy-{turn}") as scope, execpool.psycopg.connect() as connection:
            connection.execute("SELECT 1")
        assert scope.summary is not None and scope.summary.leftovers == ()
    assert warnings() == []


def test_a_goodbye_that_is_long_on_its_way_is_no_leftover(
    sidecar: Sidecar, monkeypatch: pytest.MonkeyPatch, warnings: Callable[[], list[str]]
) -> None:
    asks, looks = Control.sessions, list[int]()

    def sessions(self: Control, execution: str) -> list[dict[str, Any]]:
        looks.append(1)
        late = [{"id": 0, "caller": "late.py:1 closed"}] if len(looks) < 7 else []
        return asks(self, execution) + late

    monkeypatch.setattr(Control, "sessions", sessions)
    with ExecutionScope("goodbyes") as scope:
        pass
    assert scope.summary is not None and scope.summary.leftovers == () and warnings() == []
    # What is known to be open is not waited for.
    monkeypatch.setattr("execpool.execution.SETTLE", (3600,))
    with ExecutionScope("no-goodbye") as scope:
        leaked = execpool.psycopg.connect()
    assert leaked.closed and len(scope.summary.leftovers) == 1


def test_an_exception_ends_it_and_passes(sidecar: Sidecar, postgres: Postgres) -> None:
    with pytest.raises(ZeroDivisionError), ExecutionScope("fails") as scope:
        execpool.psycopg.connect().execute("SELECT 1")
        raise ZeroDivisionError
    assert postgres.backends() == []
    assert scope.summary is not None and scope.summary.sidecar is not None
    assert scope.summary.sidecar["reason_text"] == "its scope was left by ZeroDivisionError"


def test_without_an_id_one_is_made_up(sidecar: Sidecar) -> None:
    with ExecutionScope() as scope:
        assert sidecar.executions() == [scope.id] and scope.id.startswith("run-")


@pytest.mark.parametrize("bad", ["", ".a", "a b", "ä", "a" * 129, "shared", "session-1", "a/b", "a\n"])
def test_an_id_that_can_not_be_is_refused_at_once(bad: str) -> None:
    with pytest.raises(execpool.InvalidExecution, match="execution id"):
        ExecutionScope(bad)


def test_an_id_is_made_of_any_parts() -> None:
    made = execpool.make_id("ann@example.com", "thread/7", "ü" * 200)
    ExecutionScope(made)
    assert made.startswith("ann@example.com_thread_7_") and len(made) <= 128
    assert made != execpool.make_id("ann@example.com", "thread/7", "ü" * 200)
    for parts in (("session-7", "x"), ("..session-7",), ("session-" * 30,), (".",), ()):
        ExecutionScope(execpool.make_id(*parts))


def test_what_the_sidecar_does_not_take_is_said(sidecar: Sidecar) -> None:
    with pytest.raises(execpool.InvalidExecution, match="deadline"):
        ExecutionScope("odd", deadline="soon").__enter__()
    with pytest.raises(execpool.InvalidExecution, match="above 0"):
        ExecutionScope("odd", deadline=0)
    with pytest.raises(execpool.InvalidExecution, match="no end"):
        ExecutionScope("odd", deadline=float("inf"))


@pytest.mark.parametrize("mode", ["required", "optional"])
def test_a_deadline_that_passes_as_it_is_entered_is_told_and_nothing_goes_past_the_sidecar(
    sidecar: Sidecar, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    opens = Hold.open

    def late(self: Hold) -> None:
        assert eventually(lambda: "brief" not in sidecar.executions())
        opens(self)

    monkeypatch.setattr(Hold, "open", late)
    monkeypatch.setenv("EXECPOOL", mode)
    with pytest.raises(execpool.ExecutionEnded, match="brief has ended: its deadline passed"):
        ExecutionScope("brief", deadline="1ms").__enter__()
    assert registry.open() == []


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"deadline": "soon"}, "deadline 'soon'"),
    ({"deadline": "10"}, "deadline '10'"),
    ({"deadline": "10 m"}, "deadline '10 m'"),
    ({"deadline": "10M"}, "deadline '10M'"),
    ({"deadline": ""}, "deadline ''"),
    ({"deadline": "0s"}, "not above 0"),
    ({"deadline": "-5s"}, "deadline '-5s'"),
    ({"deadline": b"10m"}, "deadline b'10m'"),
    ({"deadline": "999999999999999999999d"}, "over a century"),
    ({"deadline": "9" * 5000 + "ms"}, "over a century"),
    ({"deadline": "36500d1ms"}, "over a century"),
    ({"deadline": 1e306}, "over a century"),
    ({"deadline": 10**5000}, "over a century"),
    ({"deadline": datetime.timedelta.max}, "over a century"),
    ({"labels": "sales"}, "labels are a mapping"),
    ({"labels": {"user": 7}}, r"write str\(7\)"),
    ({"labels": {7: "user"}}, r"write str\(7\)"),
    ({"labels": {"a": "ä" * 513}}, "over 1024 bytes"),
    ({"labels": {str(number): "" for number in range(65)}}, "65 labels"),
    ({"pool": {"siez": 4}}, "siez"),
    ({"pool": {"size": 0}}, "size is a whole number from 1"),
    ({"pool": {"overflow": "2"}}, "overflow is a whole number from 0"),
    ({"pool": {"size": 1_000_001}}, "size is a whole number from 1 to 1000000"),
    ({"pool": {"overflow": 2_000_000}}, "overflow is a whole number from 0 to 1000000"),
    ({"pool": {"size": True}}, "and not True"),
    ({"pool": 5}, "and not 5"),
]


@pytest.mark.parametrize(("given", "told"), WRONG)
def test_a_mistake_is_told_with_a_sidecar_or_without(given: dict[str, Any], told: str) -> None:
    with pytest.raises(execpool.InvalidExecution, match=told):
        ExecutionScope("mistaken", **given)


def test_what_is_right_here_is_right_there(sidecar: Sidecar) -> None:
    longest = (datetime.timedelta(days=36500), "36500d", f"{'0' * 30}1d")
    for deadline in ("1h30m", "250ms1s", "1d", 0.5, datetime.timedelta(minutes=1), *longest):
        labels = {"a": "ä" * 512, "b" * 1024: ""} | {str(number): "" for number in range(62)}
        with ExecutionScope("right", deadline=deadline, labels=labels, pool={"size": 1, "overflow": 0}):
            assert sidecar.control.execution("right")["labels"] == labels
    with ExecutionScope("right", pool={"size": 1_000_000, "overflow": 1_000_000}) as scope:
        assert scope.uses_sidecar


def test_a_decorator_without_brackets_is_told() -> None:
    with pytest.raises(execpool.InvalidExecution, match=r"@ExecutionScope\(\)"):

        @ExecutionScope  # type: ignore[arg-type]
        def run() -> None:
            pass


def test_nested_scopes_are_executions_of_their_own(sidecar: Sidecar) -> None:
    with ExecutionScope("outer") as outer:
        with ExecutionScope("inner") as inner:
            assert current_scope() is inner and inner.outer is outer
            with execpool.psycopg.connect():
                assert eventually(lambda: execution_of(sidecar) == ["inner"])
        assert current_scope() is outer
        assert sidecar.executions() == ["outer"]
        with execpool.psycopg.connect():
            assert eventually(lambda: execution_of(sidecar) == ["outer"])
    assert current_scope() is None


def test_scopes_may_be_left_in_any_order(sidecar: Sidecar) -> None:
    def steps(name: str) -> Iterator[ExecutionScope]:
        with ExecutionScope(name) as scope:
            yield scope

    first, second = steps("first"), steps("second")
    one, other = next(first), next(second)
    first.close()
    assert current_scope() is other and one.summary is not None
    with ExecutionScope("third") as third:
        second.close()
        assert current_scope() is third
    assert current_scope() is None and sidecar.executions() == []


def test_an_object_that_is_called_and_awaited_is_in_its_scope_until_then(sidecar: Sidecar) -> None:
    class Agent:
        async def __call__(self, word: str) -> str:
            await asyncio.sleep(0)
            scope = current_scope()
            return f"{word} {scope and scope.id}"

    assert asyncio.run(ExecutionScope("agent")(Agent())("in")) == "in agent"


def test_scopes_of_one_id_share_an_execution_that_ends_with_the_last(sidecar: Sidecar) -> None:
    with ExecutionScope("same") as first:
        with ExecutionScope("same") as second:
            assert second.execution is first.execution
        assert second.summary is None and sidecar.executions() == ["same"]
    assert first.summary is not None and sidecar.executions() == []


def test_what_a_later_scope_of_an_id_asks_for_is_told_once_not_to_be_done(
    sidecar: Sidecar, warnings: Callable[[], list[str]]
) -> None:
    with ExecutionScope("asked", deadline="10m", labels={"agent": "a"}):
        for _ in range(2):
            with ExecutionScope("asked", deadline="10m", labels={"agent": "a"}), ExecutionScope("asked"):
                assert warnings() == []
        for _ in range(2):
            with ExecutionScope("asked", deadline="1h", labels={"agent": "b"}, pool={"size": 1}):
                seen = sidecar.control.execution("asked")
                assert seen["deadline_seconds"] <= 600 and seen["labels"] == {"agent": "a"}
        (told,) = warnings()
        assert "execution asked is open already" in told
        assert "deadline '1h', labels {'agent': 'b'}, pool {'size': 1} is not done" in told
    sidecar.control.begin("theirs", "10m")
    held, _ = sidecar.control.open_hold("theirs")
    with ExecutionScope("theirs", join=True), ExecutionScope("theirs", join=True, deadline="1h"):
        assert "execution theirs is open already" in warnings()[-1] and len(warnings()) == 2
    sidecar.control.end("theirs", "")
    held.close()


def test_a_scope_that_is_left_twice_does_not_end_the_run_of_another(sidecar: Sidecar) -> None:
    with ExecutionScope("shared-by-two") as first:
        second = ExecutionScope("shared-by-two").__enter__()
        second.__exit__(None, None, None)
        second.__exit__(None, None, None)
        asyncio.run(second.__aexit__(None, None, None))
        assert sidecar.executions() == ["shared-by-two"]
    summary = first.summary
    first.__exit__(None, None, None)
    assert summary is not None and first.summary is summary


def test_a_thread_that_can_not_be_started_fails_the_scope_and_leaves_nothing(
    sidecar: Sidecar, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    fresh = Keeper()
    monkeypatch.setattr("execpool.execution.keeper", fresh)
    with monkeypatch.context() as full:
        full.setattr(threading.Thread, "start", refused)
        with pytest.raises(RuntimeError, match="new thread"):
            ExecutionScope("full").__enter__()
    assert sidecar.executions() == [] and not fresh._holds
    # The next one is held again.
    with ExecutionScope("full"):
        assert eventually(lambda: sidecar.control.execution("full")["holds"] == 1)
        assert fresh._thread is not None and fresh._thread.is_alive()


def test_work_that_no_thread_can_be_started_for_runs_once(monkeypatch: pytest.MonkeyPatch) -> None:
    workers, ran, started = Workers(), [], threading.Thread.start
    stay, busy = threading.Event(), threading.Event()
    workers.run(lambda: (busy.set(), stay.wait(SOON)))
    assert busy.wait(SOON)

    def refused(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refused)
    assert workers.run(lambda: ran.append(1) or "done").result(SOON) == "done"
    monkeypatch.setattr(threading.Thread, "start", started)
    stay.set()
    assert workers.run(lambda: "next").result(SOON) == "next"
    assert ran == [1]


def test_scopes_of_one_id_in_many_threads_never_meet_a_refusal(sidecar: Sidecar) -> None:
    def run(_: int) -> None:
        with ExecutionScope("crowd"), execpool.psycopg.connect() as connection:
            connection.execute("SELECT 1")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(run, range(100)))


def test_a_scope_is_entered_once_at_a_time_and_may_be_again(sidecar: Sidecar) -> None:
    scope = ExecutionScope("again")
    with scope:
        with pytest.raises(execpool.ExecpoolError, match="entered already"):
            scope.__enter__()
    with scope:
        assert sidecar.control.execution("again")["generation"] == 2


def test_an_id_that_another_process_has_open_is_refused_unless_it_is_joined(
    sidecar: Sidecar, postgres: Postgres
) -> None:
    sidecar.control.begin("theirs")
    held, _ = sidecar.control.open_hold("theirs")
    with pytest.raises(execpool.ExecutionExists, match="open in another process"):
        ExecutionScope("theirs").__enter__()
    with ExecutionScope("theirs", join=True) as scope:
        connection = execpool.psycopg.connect()
        assert eventually(lambda: execution_of(sidecar) == ["theirs"])
    assert connection.closed and scope.summary is not None and scope.summary.reason == "left"
    assert sidecar.executions() == ["theirs"]
    sidecar.control.end("theirs", "")
    held.close()


def test_one_whose_process_was_killed_is_begun_anew_as_soon_as_it_is_gone(sidecar: Sidecar) -> None:
    sidecar.control.begin("killed")
    held, _ = sidecar.control.open_hold("killed")
    held.close()
    with ExecutionScope("killed"):
        assert sidecar.control.execution("killed")["generation"] == 2


@pytest.mark.parametrize("at", ["execpool.hold.Hold.open", "execpool.hold.Keeper.keep"])
def test_an_interrupt_while_it_begins_leaves_no_execution(
    sidecar: Sidecar, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    import importlib

    module, _, name = at.rpartition(".")
    owner = getattr(importlib.import_module("execpool.hold"), module.rpartition(".")[2])
    does = getattr(owner, name)

    def interrupted(*arguments: Any) -> None:
        if name == "keep":
            does(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(owner, name, interrupted)
        with pytest.raises(KeyboardInterrupt):
            ExecutionScope("interrupted").__enter__()
    assert eventually(lambda: sidecar.executions() == [])
    with ExecutionScope("interrupted"):
        pass


# ---- who is in it


def test_tasks_and_threads_of_asyncio_are_in_it(sidecar: Sidecar) -> None:
    async def connects() -> None:
        connection = await execpool.asyncpg.connect()
        assert eventually(lambda: execution_of(sidecar) == ["loop"])
        await connection.close()

    async def main() -> None:
        async with ExecutionScope("loop"):
            await asyncio.create_task(connects())
            assert (await asyncio.to_thread(current_scope)) is current_scope()

    asyncio.run(main())


def test_concurrent_tasks_keep_their_scopes_apart(sidecar: Sidecar) -> None:
    def servers(number: int) -> list[int]:
        return [one["server_pid"] for one in sidecar.control.sessions(f"task-{number}")]

    async def run(number: int) -> None:
        async with ExecutionScope(f"task-{number}"):
            for _ in range(3):
                connection = await execpool.asyncpg.connect()
                await asyncio.sleep(0.001)
                session = await connection.fetchval("SELECT pg_backend_pid()")
                assert await asyncio.to_thread(eventually, lambda: session in servers(number))
                await connection.close()

    async def main() -> None:
        await asyncio.gather(*(run(number) for number in range(25)))

    asyncio.run(main())


def test_a_thread_is_in_it_when_its_function_is_bound(sidecar: Sidecar) -> None:
    seen: list[object] = []
    with ExecutionScope("bound") as scope:
        for function in (
            lambda: seen.append(current_scope()),
            execpool.bind(lambda: seen.append(current_scope())),
            lambda: scope.run(lambda: seen.append(current_scope())),
        ):
            thread = threading.Thread(target=function)
            thread.start()
            thread.join()
    assert seen == [None, scope, scope]


def test_threads_follow_where_they_are_told_to(sidecar: Sidecar) -> None:
    import execpool.threads

    start, submit = threading.Thread.start, ThreadPoolExecutor.submit
    try:
        execpool.threads.instrument()
        execpool.threads.instrument()
        seen: list[object] = []
        with ExecutionScope("follows") as scope:
            thread = threading.Thread(target=lambda: seen.append(current_scope()))
            thread.start()
            thread.join()
            with ThreadPoolExecutor(1) as pool, execpool.label("tool"):
                seen.append(pool.submit(current_scope).result())
            # An executor's thread serves whoever comes.
            lasting = ThreadPoolExecutor(1)
            seen.append(lasting.submit(current_scope).result())
        seen.append(lasting.submit(current_scope).result())
        lasting.shutdown()
        assert seen == [scope, scope, scope, None]
    finally:
        threading.Thread.start, ThreadPoolExecutor.submit = start, submit  # type: ignore[method-assign]
        del threading.Thread._execpool_follows  # type: ignore[attr-defined]


def test_runs_that_begin_each_other_from_within_do_not_keep_those_before(direct: Postgres) -> None:
    known: list[weakref.ref[ExecutionScope]] = []

    async def run(number: int, before: asyncio.Task[Any] | None) -> asyncio.Task[Any] | None:
        if before is not None:
            await before
        async with ExecutionScope(f"chain-{number}") as scope:
            known.append(weakref.ref(scope))
            if number == 20:
                return None
            return asyncio.create_task(run(number + 1, asyncio.current_task()))

    async def main() -> None:
        task: asyncio.Task[Any] | None = asyncio.create_task(run(0, None))
        while task is not None:
            task = await task
            gc.collect()
            assert sum(one() is not None for one in known) < 5

    asyncio.run(main())
    assert len(known) == 21


def test_a_straggler_does_not_bring_a_dead_run_back(sidecar: Sidecar) -> None:
    async def main() -> None:
        go = asyncio.Event()

        async def straggler() -> None:
            await go.wait()
            await execpool.asyncpg.connect()

        async with ExecutionScope("dead"):
            task = asyncio.create_task(straggler())
            await asyncio.sleep(0)
        go.set()
        with pytest.raises(execpool.ExecutionEnded, match="execution dead has ended"):
            await task

    asyncio.run(main())


# ---- how it ends


def test_a_generator_that_is_closed_ends_its_scope(sidecar: Sidecar, postgres: Postgres) -> None:
    def stream() -> Iterator[int]:
        with ExecutionScope("generator"):
            execpool.psycopg.connect().execute("SELECT 1")
            yield 1
            yield 2

    steps = stream()
    assert next(steps) == 1 and sidecar.executions() == ["generator"]
    steps.close()
    assert sidecar.executions() == [] and postgres.backends() == [] and current_scope() is None


def test_a_generator_that_is_forgotten_ends_its_scope(sidecar: Sidecar) -> None:
    def stream() -> Iterator[int]:
        with ExecutionScope("forgotten"):
            yield 1

    assert next(stream()) == 1
    gc.collect()
    assert sidecar.executions() == [] and current_scope() is None


@pytest.mark.parametrize("where", ["sidecar", "direct"])
def test_a_scope_that_is_never_left_ends_as_it_is_collected(
    request: pytest.FixtureRequest, postgres: Postgres, warnings: Callable[[], list[str]], where: str
) -> None:
    request.getfixturevalue(where)
    with ExecutionScope("lost") as known:
        connection = execpool.psycopg.connect()
        contextvars.copy_context().run(ExecutionScope("lost").__enter__)
        gc.collect()
        assert eventually(lambda: known.execution.users == 1)
        # Another scope of it is still in use.
        connection.execute("SELECT 1")
        connection.close()

    def enter() -> Any:
        context = contextvars.copy_context()
        context.run(ExecutionScope("lost").__enter__)
        return context.run(execpool.psycopg.connect)

    kept = enter()
    kept.execute("SELECT 1")
    gc.collect()
    assert eventually(lambda: not registry.open() and kept.closed)
    if where == "sidecar":  # and not by its hold, which would be lost with the process
        ended = request.getfixturevalue("sidecar").control.ended("lost")
        assert ended["reason_text"] == "its scope was forgotten"
    assert sum("was entered and never left" in warning for warning in warnings()) == 2
    with ExecutionScope("lost"):
        pass


def test_an_asynchronous_generator_that_is_abandoned_ends_its_scope(sidecar: Sidecar) -> None:
    async def stream() -> AsyncIterator[int]:
        async with ExecutionScope("abandoned"):
            yield 1
            yield 2

    async def main() -> None:
        async for _ in stream():
            break
        gc.collect()
        # By a thread: the loop has to run for that.
        assert await asyncio.to_thread(eventually, lambda: sidecar.executions() == [])
        # The scope leaked to here, as a generator's does, and is over.
        assert current_scope() is None
        await (await execpool.asyncpg.connect()).close()

    asyncio.run(main())


@types.coroutine
def pause() -> Iterator[str]:
    yield "paused"


async def drive(coroutine: Coroutine[Any, Any, None], waits: int) -> None:
    """Drives a coroutine by hand, as far as `pause` or as its so-manieth wait."""
    for _ in range(waits):
        waited = coroutine.send(None)
        if waited == "paused":
            return
        if waited is None:
            await asyncio.sleep(0)
            continue
        waited._asyncio_future_blocking = False
        while not waited.done():
            await asyncio.sleep(0.002)


def test_a_coroutine_that_is_closed_ends_its_scope(sidecar: Sidecar) -> None:
    async def run() -> None:
        async with ExecutionScope("closed"):
            await pause()

    async def main() -> None:
        coroutine = run()
        await drive(coroutine, 100)
        assert sidecar.executions() == ["closed"]
        coroutine.close()
        assert sidecar.executions() == []

    asyncio.run(main())


def test_a_coroutine_that_is_closed_while_it_enters_or_leaves_ends_its_scope(
    sidecar: Sidecar,
) -> None:
    async def enters_and_leaves() -> None:
        async with ExecutionScope("closing") as scope:
            scope.track(lambda: asyncio.sleep(0.01), kind="other")

    async def main() -> None:
        # How many waits there are differs from Python to Python.
        for waits in range(6):
            coroutine = enters_and_leaves()
            try:
                await drive(coroutine, waits)
                coroutine.send(None)
            except (StopIteration, RuntimeError):
                assert waits >= 2
            coroutine.close()

    asyncio.run(main())
    assert eventually(lambda: sidecar.executions() == [])


def test_a_scope_that_is_left_in_another_context_ends(sidecar: Sidecar) -> None:
    scope = ExecutionScope("elsewhere")
    contextvars.copy_context().run(scope.__enter__)
    scope.__exit__(None, None, None)
    assert sidecar.executions() == [] and current_scope() is None


# ---- as a decorator


def test_each_call_of_a_decorated_function_is_a_run(sidecar: Sidecar) -> None:
    ids: list[str] = []

    def note() -> None:
        ids.append(sidecar.executions()[0])

    @ExecutionScope()
    def plain(word: str) -> str:
        """Says something."""
        note()
        return word

    @ExecutionScope()
    async def coroutine(word: str) -> str:
        note()
        return word

    assert plain("a") == "a" and asyncio.run(coroutine("b")) == "b" and plain("c") == "c"
    assert len(set(ids)) == 3 and plain.__doc__ == "Says something." and sidecar.executions() == []


def test_a_decorated_generator_is_in_its_scope_and_its_reader_is_not(sidecar: Sidecar) -> None:
    @ExecutionScope("steps")
    def steps() -> Iterator[object]:
        sent = yield current_scope()
        try:
            yield sent
        except KeyError:
            yield "caught"
        return "done"  # noqa: B901

    def reads() -> Iterator[object]:
        told = yield from steps()
        yield told

    generator = reads()
    scope = next(generator)
    assert isinstance(scope, ExecutionScope) and scope.id == "steps" and current_scope() is None
    assert generator.send("hello") == "hello" and current_scope() is None  # type: ignore[attr-defined]
    assert generator.throw(KeyError()) == "caught" and current_scope() is None  # type: ignore[attr-defined]
    with ExecutionScope("reader") as reader:
        assert next(generator) == "done" and current_scope() is reader
    assert sidecar.executions() == []


def test_a_decorated_asynchronous_generator_likewise(sidecar: Sidecar) -> None:
    @ExecutionScope("async-steps")
    async def steps() -> AsyncIterator[object]:
        yield current_scope()
        yield 2

    async def main() -> None:
        seen = []
        async for one in steps():
            seen.append(one)
            assert current_scope() is None
        assert isinstance(seen[0], ExecutionScope) and seen[1:] == [2]
        async for _ in steps():
            break
        gc.collect()
        assert await asyncio.to_thread(eventually, lambda: sidecar.executions() == [])

    asyncio.run(main())
    assert sidecar.executions() == []
