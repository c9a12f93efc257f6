"""What a run tracks is closed with it, and the sidecar knows of it meanwhile."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import Callable

import execpool
import pytest
from conftest import Postgres, Sidecar, eventually, eventually_here
from execpool import ExecutionScope
from execpool.control import Control
from execpool.telling import Telling
from execpool.workers import workers


class Browser:
    def __init__(self, closed: list[str], name: str = "browser") -> None:
        self.closed_list, self.name = closed, name

    def close(self) -> None:
        self.closed_list.append(self.name)


class AsyncClient:
    def __init__(self, closed: list[str]) -> None:
        self.closed_list = closed
        self.is_closed = False

    async def aclose(self) -> None:
        await asyncio.sleep(0.01)
        self.is_closed = True
        self.closed_list.append("client")


def test_they_are_closed_at_the_end_the_last_first(sidecar: Sidecar) -> None:
    closed: list[str] = []
    with ExecutionScope("resources") as scope:
        first = execpool.track(Browser(closed, "first"), kind="browser", name="checkout page")
        assert isinstance(first, Browser)
        scope.track(Browser(closed, "second"))
        scope.track(lambda: closed.append("third"), kind="file", ttl="10m")
        seen = sidecar.control.execution("resources")["registered"]
        assert [(one["kind"], one["name"].split(":")[0]) for one in seen] == [
            ("browser", "checkout page"),
            ("other", "Browser at test_resources.py"),
            ("file", "function at test_resources.py"),
        ]
        assert seen[2]["expires_in_seconds"] > 300
        stats = execpool.ExecutionConnectionManager().get_stats()
        assert stats["executions"]["resources"]["custom_connections"] == 3
        pod = execpool.ExecutionConnectionManager().get_pod_stats()
        assert pod["executions"]["resources"]["custom_connections"] == 3
    assert closed == ["third", "second", "first"]
    # They were closed before the end, and are no leftovers.
    assert scope.summary is not None and scope.summary.sidecar is not None
    assert set(scope.summary.sidecar["resources_left"].values()) == {0}


def test_a_browser_is_quit_and_not_only_its_window_closed(direct: Postgres) -> None:
    closed: list[str] = []

    class Driver(Browser):
        def quit(self) -> None:
            self.closed_list.append("quit")

    with ExecutionScope("selenium") as scope:
        scope.track(Driver(closed), kind="browser")
    assert closed == ["quit"]


def test_one_that_is_untracked_is_the_apps(sidecar: Sidecar) -> None:
    closed: list[str] = []
    with ExecutionScope("untracked") as scope:
        browser = scope.track(Browser(closed))
        assert scope.untrack(browser) and not scope.untrack(browser)
        assert sidecar.control.execution("untracked")["registered"] == []
    assert closed == []


def test_what_must_be_awaited_is(sidecar: Sidecar) -> None:
    closed: list[str] = []

    async def main() -> None:
        async with ExecutionScope("awaited") as scope:
            scope.track(AsyncClient(closed), kind="http")
            done = scope.track(AsyncClient(closed), kind="http")
            await done.aclose()
        assert closed == ["client", "client"]
        with ExecutionScope("not-awaited") as scope:
            scope.track(AsyncClient(closed), kind="http")
        assert await eventually_here(lambda: closed == ["client"] * 3)

    asyncio.run(main())
    with ExecutionScope("no-loop") as scope:
        scope.track(AsyncClient(closed), kind="http")
    assert closed == ["client"] * 4


def test_one_that_takes_for_ever_is_left_when_the_run_is_cancelled_and_the_others_are_closed(
    sidecar: Sidecar,
) -> None:
    closed: list[str] = []
    closing: list[bool] = []

    async def takes_for_ever() -> None:
        closing.append(True)
        await asyncio.sleep(600)

    async def run() -> None:
        async with ExecutionScope("for-ever") as scope:
            scope.track(AsyncClient(closed), kind="http")
            scope.track(Browser(closed), kind="browser")
            scope.track(takes_for_ever, kind="other")

    async def main() -> None:
        task = asyncio.create_task(run())
        assert await eventually_here(lambda: closing)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await eventually_here(lambda: len(closed) == 2)

    asyncio.run(main())
    assert sorted(closed) == ["browser", "client"]


def test_releasing_them_does_not_block_the_loop_while_the_sidecar_stands_still(
    own_sidecar: Sidecar,
) -> None:
    async def main() -> float:
        loop, gaps = asyncio.get_running_loop(), [0.0]

        async def tick() -> None:
            while True:
                before = loop.time()
                await asyncio.sleep(0.01)
                gaps.append(loop.time() - before)

        ticking = asyncio.create_task(tick())
        assert own_sidecar.process is not None
        async with ExecutionScope("released") as scope:
            scope.track(lambda: None, kind="other")
            own_sidecar.process.send_signal(signal.SIGSTOP)
            loop.call_later(1.5, own_sidecar.process.send_signal, signal.SIGCONT)
            # Were the loop blocked, nobody would let the sidecar go on: it would be given up after a minute.
        ticking.cancel()
        return max(gaps)

    assert asyncio.run(main()) < 30


def test_a_sidecar_that_hangs_does_not_keep_a_loop_waiting_and_hears_all_in_order(
    own_sidecar: Sidecar,
) -> None:
    process = own_sidecar.process
    assert process is not None
    closed: list[str] = []

    async def main() -> float:
        async with ExecutionScope("hangs", deadline=60) as scope:
            process.send_signal(signal.SIGSTOP)
            began = time.monotonic()
            for number in range(50):
                browser = scope.track(Browser(closed, str(number)), name=f"page {number}")
                if number % 2:
                    assert scope.untrack(browser)
            assert scope.heartbeat("7m") is None and scope.heartbeat("9m") is None
            took = time.monotonic() - began
            process.send_signal(signal.SIGCONT)
            # Asked for after all of that, and so answered after it.
            assert 560 < (await scope.heartbeat_async("10m") or 0) <= 600
            seen = own_sidecar.control.execution("hangs")
            names = [one["name"] for one in seen["registered"]]
            assert names == [f"page {number}" for number in range(0, 50, 2)]
            assert seen["deadline_seconds"] > 540
            late = scope.track(Browser(closed, "late"))
            assert scope.untrack(late)
        assert scope.summary is not None and scope.summary.sidecar is not None
        assert set(scope.summary.sidecar["resources_left"].values()) == {0}
        return took

    # Each of them would wait for a minute.
    assert asyncio.run(main()) < 30
    assert len(closed) == 25


def test_what_waits_to_be_told_comes_first_and_what_fails_hinders_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    telling, told, coming = Telling(), list[int](), list[Callable[[], object]]()
    # The thread that is to tell it is late.
    monkeypatch.setattr(workers, "run", coming.append)

    def soon(act: Callable[[], object]) -> None:
        telling.soon(act, lambda error: pytest.fail(str(error)))

    async def main() -> None:
        soon(lambda: told.append(1))
        soon(lambda: 1 // 0)
        soon(lambda: told.append(2))

    asyncio.run(main())
    assert told == [] and len(coming) == 1
    assert telling.now(lambda: told.append(3) or "done") == "done" and told == [1, 2, 3]
    assert "stumbles" in caplog.text
    coming.pop()()
    asyncio.run(main())
    assert told == [1, 2, 3] and len(coming) == 1
    soon(lambda: told.append(4))  # who may block does not wait for the thread
    assert told == [1, 2, 3, 1, 2, 4]


@pytest.mark.parametrize("how", ["untracked in a coroutine", "closed by the end"])
def test_a_scope_with_much_to_tell_is_left_soon_though_the_sidecar_hangs(
    own_sidecar: Sidecar, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    process, closed = own_sidecar.process, list[str]()
    assert process is not None
    scope = ExecutionScope("much")

    async def untrack(browsers: list[Browser]) -> None:
        for browser in browsers:
            assert scope.untrack(browser)

    with scope:
        browsers = [scope.track(Browser(closed)) for _ in range(200)]
        monkeypatch.setattr(scope.execution.control, "_timeout", 0.3)
        monkeypatch.setattr("execpool.control.END_TIMEOUT", 0.3)
        monkeypatch.setattr("execpool.execution.PATIENCE", 0.1)
        process.send_signal(signal.SIGSTOP)
        if how == "untracked in a coroutine":
            asyncio.run(untrack(browsers))
        began = time.monotonic()
    took = time.monotonic() - began
    process.send_signal(signal.SIGCONT)
    assert took < 30, took  # and not 0.3 s for each


def test_what_comes_after_one_that_the_sidecar_does_not_answer_fails_untried() -> None:
    telling, told, failed = Telling(), list[int](), list[str]()

    def hangs() -> None:
        told.append(1)
        raise execpool.SidecarUnavailable("it hangs")

    telling.all_soon([(hangs, lambda error: failed.append(str(error)))] * 3)
    assert told == [1] and failed == ["it hangs"] * 3
    telling.soon(lambda: told.append(2), lambda error: failed.append(str(error)))
    assert told == [1, 2] and len(failed) == 3


def test_what_is_tracked_as_the_end_comes_is_closed_or_refused(direct: Postgres) -> None:
    """Between the end's look at what is tracked and anything that is tracked later nothing gets lost."""
    closed: list[str] = []
    asked: list[bool] = []
    with ExecutionScope("ends") as scope:
        known = scope.execution.resources.take_all

        def take_all(**final: bool) -> object:
            taken = known(**final)
            with pytest.raises(execpool.ExecutionEnded, match="nobody would close"):
                # By a thread that has looked before whether the execution ends.
                scope.execution.is_ending = False
                try:
                    scope.track(Browser(closed, "late"))
                finally:
                    scope.execution.is_ending = True
            asked.append(True)
            return taken

        scope.execution.resources.take_all = take_all  # type: ignore[method-assign, assignment]
        scope.track(Browser(closed))
    assert asked and closed == ["browser"]


def test_what_the_sidecar_is_not_told_in_a_coroutine_is_logged(
    own_sidecar: Sidecar, warnings: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("execpool.execution.PATIENCE", 0.1)
    closed: list[str] = []

    async def main() -> None:
        async with ExecutionScope("unheard", deadline=60) as scope:
            own_sidecar.kill()
            scope.track(Browser(closed), name="a page")
            scope.heartbeat("2m")
            with pytest.raises(execpool.SidecarUnavailable):
                await scope.heartbeat_async("2m")

    asyncio.run(main())
    assert closed == ["browser"]
    assert any("does not know of a page" in warning for warning in warnings())
    assert any("deadline of execution unheard is not moved" in warning for warning in warnings())
    # Where nothing runs that must not wait, a failure is raised.
    own_sidecar.start()
    with ExecutionScope("heard", deadline=60) as scope:
        with pytest.raises(execpool.InvalidExecution, match="heartbeat 'soon'"):
            scope.heartbeat("soon")
        sidecar_ends = own_sidecar.control.end("heard", "")
        # As its hold has told so already, or has not.
        with pytest.raises((execpool.SidecarRefused, execpool.ExecutionEnded)):
            scope.heartbeat("1m")
        assert sidecar_ends["complete"]


def test_one_that_fails_to_close_hinders_nobody(
    sidecar: Sidecar, warnings: Callable[[], list[str]]
) -> None:
    closed: list[str] = []

    def fails() -> None:
        raise OSError("no such window")

    with ExecutionScope("fails") as scope:
        scope.track(Browser(closed))
        scope.track(fails, kind="browser")
    assert closed == ["browser"]
    (warning,) = warnings()
    assert "no such window" in warning and "test_resources.py" in warning


@pytest.mark.skipif(sys.version_info < (3, 11), reason="a task does not tell whether it is cancelled")
def test_one_whose_closing_is_cancelled_of_its_own_does_not_cancel_the_run(
    sidecar: Sidecar, warnings: Callable[[], list[str]]
) -> None:
    closed: list[str] = []

    async def stops() -> None:
        inner = asyncio.create_task(asyncio.sleep(600))
        await asyncio.sleep(0)
        inner.cancel()
        await inner

    async def main() -> str:
        async with ExecutionScope("stops") as scope:
            scope.track(Browser(closed))
            scope.track(stops, name="a client")
        return "went on"

    assert asyncio.run(main()) == "went on"
    with ExecutionScope("stops") as scope:
        scope.track(Browser(closed))
        scope.track(stops, name="a client")
    assert closed == ["browser"] * 2
    assert ["a client" in told and "CancelledError" in told for told in warnings()] == [True] * 2


def test_one_that_takes_for_ever_does_not_keep_who_can_not_await_it(
    sidecar: Sidecar, warnings: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("execpool.resources.CLOSE_PATIENCE", 0.1)
    loop = asyncio.new_event_loop()

    async def track(scope: ExecutionScope) -> None:
        scope.track(lambda: asyncio.sleep(3600), name="of a loop that stands still")

    with ExecutionScope("waits") as scope:
        scope.track(lambda: asyncio.sleep(3600), name="of none")
        loop.run_until_complete(track(scope))
    assert ["TimeoutError" in told for told in warnings()] == [True] * 2
    loop.close()


def test_what_can_not_be_closed_or_is_of_no_kind_is_refused(sidecar: Sidecar) -> None:
    with ExecutionScope("refused") as scope:
        with pytest.raises(execpool.ConfigurationError, match="can't be tracked"):
            scope.track(7)
        with pytest.raises(execpool.InvalidExecution, match="ttl 'soon'"):
            scope.track(Browser([]), ttl="soon")
        scope.track(Browser([]), name="ü" * 300, ttl=600)
        (seen,) = sidecar.control.execution("refused")["registered"]
        assert seen["name"] == "ü" * 128 and 300 < seen["expires_in_seconds"] <= 600
        with pytest.raises(execpool.ConfigurationError, match="none of connection, browser"):
            scope.track(Browser([]), kind="window")  # type: ignore[arg-type]


def test_what_nobody_would_close_is_not_tracked(
    sidecar: Sidecar, warnings: Callable[[], list[str]]
) -> None:
    closed: list[str] = []
    with ExecutionScope("over") as scope:
        scope.heartbeat("100ms")
        assert eventually(lambda: scope.execution.ended_by)
        # Its scope is still to be left, and closes what is tracked.
        scope.track(Browser(closed))
    assert closed == ["browser"]
    with pytest.raises(execpool.ExecutionEnded, match="nobody would close Browser at test_resources.py"):
        scope.track(Browser(closed))
    assert not any("does not know" in warning for warning in warnings())


def test_outside_of_a_scope_nothing_is_tracked_and_without_a_sidecar_it_is(direct: Postgres) -> None:
    closed: list[str] = []
    execpool.track(Browser(closed))
    with ExecutionScope("direct") as scope:
        scope.track(Browser(closed))
        pod = execpool.ExecutionConnectionManager().get_pod_stats()
        assert pod["executions"] == {
            "direct": {"sql_engines": 0, "sql_databases": 0, "custom_connections": 1}
        }
    assert closed == ["browser"]


def test_close_database_connections_does_nothing_and_warns_once() -> None:
    import subprocess
    import sys

    program = (
        "import asyncio, execpool\n"
        "execpool.close_database_connections()\n"
        "async def main(): assert await execpool.close_database_connections() is None\n"
        "asyncio.run(main())\n"
    )
    run = subprocess.run(
        [sys.executable, "-W", "always", "-c", program], capture_output=True, text=True, check=True
    )
    assert run.stderr.count("DeprecationWarning") == 1 and "ExecutionScope(id)" in run.stderr
    assert "never awaited" not in run.stderr
