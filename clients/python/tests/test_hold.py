"""An execution lives while its process does, through time-outs and restarts of the sidecar."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import execpool
import execpool.psycopg
import psycopg
import pytest
from conftest import SOON, Postgres, Sidecar, eventually
from execpool import ExecutionScope
from execpool.control import Control
from execpool.hold import Hold, Keeper, keeper
from execpool.resources import Tracked

HERE = Path(__file__).parent


def dies(scope: ExecutionScope) -> None:
    """Its deadline passes: not one that it is entered with, which may pass before on a slow machine."""
    scope.heartbeat("1ms")
    assert eventually(lambda: scope.execution.ended_by == "deadline")


def works() -> bool:
    try:
        with execpool.psycopg.connect() as connection:
            return connection.execute("SELECT 1").fetchone() == (1,)
    except psycopg.OperationalError:
        return False


def test_a_killed_process_leaves_nothing(sidecar: Sidecar, postgres: Postgres) -> None:
    program = (
        "import execpool, execpool.psycopg, time\n"
        "scope = execpool.ExecutionScope('victim').__enter__()\n"
        "leaked = execpool.psycopg.connect(); leaked.execute('SELECT 1')\n"
        "print('there', flush=True); time.sleep(60)\n"
    )
    victim = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert victim.stdout is not None and victim.stdout.readline() == b"there\n"
    assert sidecar.executions() == ["victim"]
    # While it lives, nothing ends it.
    time.sleep(3)
    assert sidecar.executions() == ["victim"]
    victim.kill()
    victim.wait()
    assert eventually(lambda: sidecar.executions() == [])
    ended = eventually(lambda: sidecar.control.ended("victim"))
    assert ended is not None and ended["reason"] == "hold_lost"


def test_it_survives_a_sidecar_that_stands_still_and_every_default_time_out(
    own_sidecar: Sidecar, monkeypatch: pytest.MonkeyPatch
) -> None:
    socket.setdefaulttimeout(0.5)
    try:
        with ExecutionScope("patient"):
            assert own_sidecar.process is not None
            own_sidecar.process.send_signal(signal.SIGSTOP)
            time.sleep(4)
            own_sidecar.process.send_signal(signal.SIGCONT)
            time.sleep(3)
            seen = own_sidecar.control.execution("patient")
            assert seen["holds"] == 1 and seen["generation"] == 1 and works()
    finally:
        socket.setdefaulttimeout(None)


@pytest.mark.parametrize("how", ["kill", "terminate"])
def test_a_restart_of_the_sidecar_is_survived(
    own_sidecar: Sidecar, postgres: Postgres, warnings: Callable[[], list[str]], how: str
) -> None:
    with ExecutionScope("steady", deadline="10m", labels={"agent": "a"}) as scope:
        scope.track(lambda: None, kind="browser", name="a page")
        assert scope.heartbeat("5m") is not None
        before = execpool.psycopg.connect()
        before.execute("SELECT 1")
        if how == "terminate":
            before.close()
        stop = {"kill": own_sidecar.kill, "terminate": own_sidecar.process.send_signal}[how]  # type: ignore[union-attr]
        if how == "kill":
            stop()  # type: ignore[call-arg]
        else:
            # It waits for holds to go, up to its grace: a second signal is immediate.
            stop(signal.SIGTERM)  # type: ignore[call-arg]
            time.sleep(0.5)
            stop(signal.SIGTERM)  # type: ignore[call-arg]
            own_sidecar.process.wait(SOON)  # type: ignore[union-attr]
        own_sidecar.start()
        assert eventually(lambda: _seen(own_sidecar, "steady").get("holds") == 1)
        seen = _seen(own_sidecar, "steady")
        assert seen["kind"] == "explicit" and seen["labels"] == {"agent": "a"}
        # What is left of its time, and not as long again.
        assert 200 < seen["deadline_seconds"] < 300  # type: ignore[operator]
        names = lambda: [one["name"] for one in _seen(own_sidecar, "steady")["registered"]]  # type: ignore[attr-defined]  # noqa: E731
        assert eventually(lambda: names() == ["a page"])
        assert works()
        time.sleep(2.5)  # the hold's grace
        assert own_sidecar.executions() == ["steady"]
        leaked = execpool.psycopg.connect()
        leaked.execute("SELECT 1")
    assert any("registered again" in warning for warning in warnings())
    assert scope.summary is not None and scope.summary.complete and len(scope.summary.leftovers) == 1
    assert own_sidecar.executions() == []


def test_a_connection_that_comes_before_the_hold_after_a_restart_does_not_cost_its_deadline(
    own_sidecar: Sidecar, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = Keeper._open_again
    go = threading.Event()

    def later(self: Keeper, hold: Hold) -> None:
        if go.is_set():
            kept(self, hold)
        else:
            time.sleep(0.01)

    monkeypatch.setattr(Keeper, "_open_again", later)
    with ExecutionScope("raced", deadline="10m", labels={"agent": "a"}) as scope:
        scope.track(lambda: None, kind="browser", name="a page")
        own_sidecar.kill()
        own_sidecar.start()
        with execpool.psycopg.connect() as first:
            first.execute("SELECT 1")
            assert _seen(own_sidecar, "raced")["kind"] == "implicit"
            go.set()
            assert eventually(lambda: _seen(own_sidecar, "raced").get("registered"))
            seen = _seen(own_sidecar, "raced")
            assert seen["kind"] == "explicit" and seen["labels"] == {"agent": "a"}
            assert 500 < seen["deadline_seconds"] < 600  # type: ignore[operator]
            assert seen["holds"] == 1


def _seen(sidecar: Sidecar, execution: str) -> dict[str, object]:
    try:
        return dict(sidecar.control.execution(execution))
    except execpool.SidecarError:
        return {}


def test_a_scope_that_is_left_while_the_sidecar_is_away_ends_with_a_warning(
    own_sidecar: Sidecar, warnings: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("execpool.execution.PATIENCE", 0.3)
    with pytest.raises(KeyError), ExecutionScope("orphan") as scope:
        own_sidecar.kill()
        raise KeyError
    assert scope.summary is not None and scope.summary.reason == "deleted"
    assert any("could not be told" in warning for warning in warnings())
    # One that was there is taken to come back: nothing goes past it.
    with pytest.raises(execpool.SidecarUnavailable):
        ExecutionScope("next").__enter__()
    with pytest.raises(psycopg.OperationalError, match=str(own_sidecar.directory)):
        execpool.psycopg.connect()
    own_sidecar.start()
    with ExecutionScope("next"):
        assert works()


def test_a_scope_that_is_left_during_a_restart_waits_for_it(
    own_sidecar: Sidecar, warnings: Callable[[], list[str]]
) -> None:
    scope = ExecutionScope("restart")
    contextvars.copy_context().run(scope.__enter__)
    own_sidecar.kill()
    with ThreadPoolExecutor(1) as pool:
        leaving = pool.submit(scope.__exit__, None, None, None)
        time.sleep(0.5)
        assert not leaving.done()
        own_sidecar.start()
        leaving.result(SOON)
    assert scope.summary is not None
    assert not any("could not be told" in warning for warning in warnings())
    assert eventually(lambda: own_sidecar.executions() == [])


def test_a_deadline_ends_it_and_the_scope_says_why(
    sidecar: Sidecar, warnings: Callable[[], list[str]]
) -> None:
    closed: list[str] = []
    with ExecutionScope("late", deadline="10m") as scope:
        scope.track(lambda: closed.append("browser"), kind="browser")
        leaked = execpool.psycopg.connect(autocommit=True)
        leaked.execute("SELECT 1")
        dies(scope)
        with pytest.raises(execpool.ExecutionEnded, match="deadline"):
            execpool.psycopg.connect()
        assert eventually(lambda: closed == ["browser"])
        with pytest.raises(psycopg.OperationalError):
            leaked.execute("SELECT 1")
    assert scope.summary is not None and scope.summary.reason == "deadline"
    assert any("was ended by the sidecar: deadline" in warning for warning in warnings())
    assert closed == ["browser"]


def test_an_id_whose_run_the_sidecar_has_ended_is_begun_anew_by_who_is_not_in_it(
    sidecar: Sidecar,
) -> None:
    with ExecutionScope("hung") as hung:
        dies(hung)
        # Code of the dead run does not bring it back, and is told so as it enters.
        with pytest.raises(execpool.ExecutionEnded, match="hung has ended .deadline."):
            ExecutionScope("hung").__enter__()
        with ThreadPoolExecutor(1) as pool:
            again = ExecutionScope("hung", deadline="10m")
            pool.submit(again.__enter__).result()
            assert sidecar.control.execution("hung")["generation"] == 2
            with pytest.raises(execpool.ExecutionEnded):
                execpool.psycopg.connect()
            assert pool.submit(works).result()
            third = ExecutionScope("hung")
            pool.submit(third.__enter__).result()
            assert third.execution is again.execution is not hung.execution
            # The end of the first is none of theirs.
            hung.__exit__(None, None, None)
            assert sidecar.control.execution("hung")["generation"] == 2
            assert pool.submit(works).result()
            pool.submit(third.__exit__, None, None, None).result()
            pool.submit(again.__exit__, None, None, None).result()
    assert hung.summary is not None and hung.summary.reason == "deadline"
    assert hung.summary.generation == 1 and hung.summary.complete
    assert again.summary is not None and again.summary.reason == "deleted"
    assert again.summary.generation == 2 and sidecar.executions() == []


def test_a_dead_run_does_not_move_the_deadline_of_the_one_that_has_its_id_by_now(
    sidecar: Sidecar, warnings: Callable[[], list[str]]
) -> None:
    with ExecutionScope("beats") as dead:
        dies(dead)
        alive = ExecutionScope("beats", deadline="1m")
        contextvars.Context().run(alive.__enter__)
        with pytest.raises(execpool.ExecutionEnded, match="beats has ended .deadline."):
            dead.heartbeat("1h")

        async def in_a_coroutine() -> None:
            assert dead.heartbeat("1h") is None
            with pytest.raises(execpool.ExecutionEnded):
                await dead.heartbeat_async("1h")

        asyncio.run(in_a_coroutine())
        assert any("of execution beats is not moved: " in warning for warning in warnings())
        assert float(sidecar.control.execution("beats")["deadline_seconds"]) <= 60
        contextvars.Context().run(alive.__exit__, None, None, None)


def test_a_scope_that_is_left_as_a_restarted_sidecar_is_told_of_it_is_not_brought_back(
    own_sidecar: Sidecar, monkeypatch: pytest.MonkeyPatch, warnings: Callable[[], list[str]]
) -> None:
    again, ended, ending = threading.Event(), Control.ended, Control.end
    kept = Keeper._open_again
    # The keeper comes late.
    monkeypatch.setattr(Keeper, "_open_again", lambda *_: time.sleep(0.01))

    def asks(self: Control, execution: str) -> object:
        answer = ended(self, execution)
        again.set()
        return answer

    def ends(self: Control, execution: str, reason: str) -> object:
        # The keeper is about to register it, and waits until this is told.
        monkeypatch.setattr(Control, "ended", asks)
        monkeypatch.setattr(Keeper, "_open_again", kept)
        assert again.wait(SOON)
        time.sleep(0.2)
        return ending(self, execution, reason)

    with ExecutionScope("gone") as scope:
        own_sidecar.kill()
        own_sidecar.start()
        monkeypatch.setattr(Control, "end", ends)
    assert scope.summary is not None
    time.sleep(0.5)
    assert own_sidecar.executions() == []
    assert not any("registered again" in warning for warning in warnings())


def test_the_end_of_a_dead_run_leaves_alone_what_another_process_has_begun_by_its_id(
    sidecar: Sidecar,
) -> None:
    with ExecutionScope("twice") as scope:
        dies(scope)
        sidecar.control.begin("twice")
        held, _ = sidecar.control.open_hold("twice")
    assert scope.summary is not None and scope.summary.generation == 1
    assert sidecar.executions() == ["twice"]
    sidecar.control.end("twice", "")
    held.close()


def test_a_forked_child_leaves_alone_what_its_parents_dead_run_has(sidecar: Sidecar) -> None:
    with ExecutionScope("outlived") as first:
        dies(first)
        second = ExecutionScope("outlived")
        contextvars.Context().run(second.__enter__)
        read, write = os.pipe()
        first.execution.resources._tracked.append(Tracked(lambda: os.write(write, b"x"), "other", "", None))
        child = os.fork()
        if child == 0:
            status = 1
            try:
                first.__exit__(None, None, None)
                status = 0
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
        os.set_blocking(read, False)
        with pytest.raises(BlockingIOError):
            os.read(read, 1)
        second.__exit__(None, None, None)


def test_a_heartbeat_moves_the_deadline(sidecar: Sidecar) -> None:
    with ExecutionScope("beats", deadline=60) as scope:
        assert 300 < (scope.heartbeat("10m") or 0) <= 600
        assert 30 < (scope.heartbeat() or 0) <= 60
    assert ExecutionScope("x", deadline=60)._request.deadline == "60000ms"


def test_a_hundred_holds_take_one_thread(sidecar: Sidecar) -> None:
    import threading

    scopes = [ExecutionScope(f"many-{i}").__enter__() for i in range(100)]
    names = [thread.name for thread in threading.enumerate()]
    assert names.count("execpool-hold") == 1
    assert len(sidecar.executions()) == 100
    for scope in reversed(scopes):
        scope.__exit__(None, None, None)
    assert eventually(lambda: not keeper._holds)


# ---- processes


def test_a_forked_child_does_not_hold_what_is_its_parents(sidecar: Sidecar) -> None:
    program = HERE / "programs" / "fork_holds.py"
    parent = subprocess.Popen([sys.executable, program], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert sidecar.executions() == ["parent"]
    parent.kill()
    parent.wait()
    try:
        # The child lives on, and has no copy of the stream.
        os.kill(child, 0)
        assert eventually(lambda: sidecar.executions() == [])
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_forked_child_connects_in_the_scope_and_does_not_end_it(
    sidecar: Sidecar, warnings: Callable[[], list[str]]
) -> None:
    with ExecutionScope("forks") as scope:
        kept = execpool.psycopg.connect()
        kept.execute("SELECT 1")
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            status = 1
            try:
                said = "works" if works() else "fails"
                with ExecutionScope("childs-own"):
                    own = sorted(sidecar.executions())
                # What the parent has open is not closed, and its execution is not ended.
                scope.__exit__(None, None, None)
                os.write(write, f"{said} {own} {scope.summary and scope.summary.reason}".encode())
                status = 0
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
        assert os.read(read, 1000).decode() == "works ['childs-own', 'forks'] left"
        assert sidecar.executions() == ["forks"]
        assert kept.execute("SELECT 2").fetchone() == (2,)
        kept.close()
        time.sleep(2.5)
        assert sidecar.executions() == ["forks"]
    assert scope.summary is not None and scope.summary.leftovers == ()


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing_runs_scopes_in_its_children(sidecar: Sidecar, method: str) -> None:
    import multiprocessing

    from programs.job import job

    context = multiprocessing.get_context(method)
    with ExecutionScope("boss"), context.Pool(3) as pool:
        told = pool.map(job, [f"{method}-{i}" for i in range(6)])
        assert told == [[f"{method}-{i}", 1] for i in range(6)]
        assert sidecar.executions() == ["boss"]


def test_the_thread_goes_on_after_a_fork(sidecar: Sidecar, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "execpool")
    with ExecutionScope("before"):
        child = os.fork()
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)
        time.sleep(2.5)
        assert sidecar.executions() == ["before"]
        with ExecutionScope("after"):
            time.sleep(2.5)
            assert sorted(sidecar.executions()) == ["after", "before"]
