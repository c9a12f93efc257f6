"""The caller is the nearest of the app's own frames, and telling it costs next to nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import execpool
import execpool.asyncpg
import execpool.psycopg
import pytest
from conftest import Sidecar, eventually
from execpool.caller import caller
from execpool.sqlalchemy import create_execution_scoped_async_engine, create_execution_scoped_engine
from sqlalchemy import text


def told(sidecar: Sidecar, execution: str) -> dict[str, str | None]:
    # The goodbye of the one before may be on its way.
    assert eventually(lambda: len(sidecar.control.sessions(execution)) == 1)
    (session,) = sidecar.control.sessions(execution)
    return {name: session[name] for name in ("caller", "label", "traceparent")}


def test_the_nearest_frames_are_told_first() -> None:
    def inner() -> str | None:
        return caller()

    said = inner() or ""
    nearest, outer = said.split(" < ")[:2]
    assert nearest.startswith("test_caller.py:") and nearest.endswith(" inner")
    assert outer.endswith(" test_the_nearest_frames_are_told_first")
    assert "pytest" not in said and "pluggy" not in said


def test_it_is_cheap_enough_to_be_on_always() -> None:
    def deep(levels: int) -> float:
        if levels:
            return deep(levels - 1)
        caller()
        rounds = 2000
        # Of this thread's own time: the machine's may be others'.
        began = time.thread_time_ns()
        for _ in range(rounds):
            caller()
        return (time.thread_time_ns() - began) / rounds

    best = min(deep(10) for _ in range(5))
    print(f"\ncaller(): {best:.0f} ns")
    assert best < 50_000


def test_a_library_alone_is_told_where_no_app_is() -> None:
    code = compile("def call(c):\n    return c()\n", "/x/site-packages/lib/deep.py", "exec")
    names: dict[str, Callable[[object], str]] = {}
    exec(code, names)
    said = names["call"](caller)
    assert "lib/deep.py" not in said and said.startswith("test_caller.py")


def test_every_driver_tells_caller_label_and_trace(sidecar: Sidecar) -> None:
    from opentelemetry.sdk.trace import TracerProvider

    tracer = TracerProvider().get_tracer("t")

    async def on_asyncio() -> None:
        connection = await execpool.asyncpg.connect()
        check("on_asyncio")
        await connection.close()
        async with await execpool.psycopg.connect_async():
            check("on_asyncio")
        for driver in ("asyncpg", "psycopg"):
            url = execpool.settings.Settings.from_environment().url()
            engine = create_execution_scoped_async_engine(
                url.replace("postgresql:", f"postgresql+{driver}:")
            )
            async with engine.connect() as opened:
                await opened.execute(text("SELECT 1"))
                check("on_asyncio")

    def check(function: str) -> None:
        said = told(sidecar, "told")
        assert said["caller"] is not None
        nearest = said["caller"].split(" < ")[0]
        assert nearest.startswith("test_caller.py:") and nearest.endswith(f" {function}"), nearest
        assert said["label"] == "lookup tool"
        assert said["traceparent"] == traceparent

    with execpool.ExecutionScope("told"), tracer.start_as_current_span("s") as span:
        context = span.get_span_context()
        traceparent = f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"
        with execpool.label("lookup tool"):
            with execpool.psycopg.connect():
                check("test_every_driver_tells_caller_label_and_trace")
            with create_execution_scoped_engine().connect() as opened:
                opened.execute(text("SELECT 1"))
                check("test_every_driver_tells_caller_label_and_trace")
            asyncio.run(on_asyncio())


def test_without_a_span_no_trace_is_told(sidecar: Sidecar) -> None:
    with execpool.ExecutionScope("untraced"), execpool.psycopg.connect():
        assert told(sidecar, "untraced")["traceparent"] is None


@pytest.mark.parametrize("frames", [1000])
def test_a_deep_stack_is_looked_at_to_a_bound(frames: int) -> None:
    def deep(levels: int) -> str | None:
        return deep(levels - 1) if levels else caller()

    import sys

    sys.setrecursionlimit(10_000)
    assert len((deep(frames) or "").split(" < ")) == 4
