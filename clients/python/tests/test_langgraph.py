"""A run of a graph is an execution, with no change to the graph."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import execpool
import execpool.psycopg
import pytest
from conftest import SOON, Postgres, Sidecar, eventually
from execpool import ExecutionScope, current_scope
from execpool.errors import ExecutionEnded, SidecarUnavailable
from execpool.langgraph import (
    ExecutionCallback,
    ToolLabels,
    async_postgres_saver,
    postgres_saver,
)
from langchain_core.runnables import RunnableConfig, RunnableLambda, RunnableParallel
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.func import entrypoint, task
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Command, Send, interrupt
from scripted import Seen, asked, async_tools, graph, thread, tools

CARELESS = [["look_up"], ["look_up_carelessly"]]
BOTH = [["look_up", "look_up_carelessly"]]


def last(result: dict[str, Any]) -> str:
    return str(result["messages"][-1].content)


def left(sidecar: Sidecar, postgres: Postgres) -> set[int]:
    """The backends that are of some run."""
    return set(postgres.backends()) - sidecar.shared_backends()


@pytest.fixture
def ended(sidecar: Sidecar) -> Iterator[Callable[[], list[str]]]:
    """The executions that have ended since the test began."""

    def all_ended() -> list[str]:
        found = sidecar.control._request("GET", "/v1/executions?ended=true")
        found = found["executions"] if isinstance(found, dict) else found
        return [f"{one['id']}/{one['generation']}" for one in found if one["state"] == "ended"]

    before = set(all_ended())
    yield lambda: [one for one in all_ended() if one not in before]


def test_a_run_is_an_execution_of_its_own_and_its_tools_are_in_it(
    sidecar: Sidecar, postgres: Postgres, warnings: Callable[[], list[str]]
) -> None:
    seen, run = Seen(), uuid.uuid4()
    agent = graph(CARELESS, tools(seen))
    config = thread("sales 7", run_id=run, callbacks=[ExecutionCallback(labels={"agent": "sales"})])
    assert last(agent.invoke(asked(), config)) == "done: tea, tea"
    assert seen.executions == [f"sales_7_{run.hex}"] * 2
    assert left(sidecar, postgres) == set() and seen.leaked[0].closed
    # Where it was leaked, and by which tool.
    assert any("scripted.py" in text and "look_up_carelessly" in text for text in warnings())
    summary = sidecar.control.ended(f"sales_7_{run.hex}")
    assert summary is not None and summary["state"] == "ended"
    assert current_scope() is None


def test_a_run_has_the_deadline_the_labels_and_the_pool_that_were_asked_for(
    sidecar: Sidecar,
) -> None:
    handler = ExecutionCallback(
        deadline="5m", labels={"agent": "sales"}, pool={"size": 1, "overflow": 0},
        make_id=lambda run_id, metadata: f"{metadata['thread_id']}-by-hand",
    )  # fmt: skip
    agent = graph([["look_up"]], tools(Seen())).with_config(callbacks=[handler])
    for _ in agent.stream(asked(), thread("t")):
        seen = sidecar.control.execution("t-by-hand")
        assert seen["labels"] == {"agent": "sales", "thread_id": "t"}
        assert 150 < seen["deadline_seconds"] <= 300 and seen["holds"] == 1
    assert seen["pools"][0]["size"] == 1, seen


def test_an_asynchronous_run_does_not_block_its_loop_while_the_sidecar_is_slow(
    own_sidecar: Sidecar,
) -> None:
    agent = graph([], []).with_config(callbacks=[ExecutionCallback()])

    async def ask() -> None:
        assert own_sidecar.process is not None
        own_sidecar.process.send_signal(signal.SIGSTOP)
        running = asyncio.ensure_future(agent.ainvoke(asked(), thread("t")))
        for _ in range(50):
            await asyncio.sleep(0.01)
            assert not running.done()
        own_sidecar.process.send_signal(signal.SIGCONT)
        await running

    asyncio.run(asyncio.wait_for(ask(), SOON))


def test_an_asynchronous_run_is_an_execution_of_its_own(
    sidecar: Sidecar, postgres: Postgres
) -> None:
    seen, run = Seen(), uuid.uuid4()
    agent = graph(CARELESS, async_tools(seen))

    async def ask() -> str:
        config = thread("t", run_id=run, callbacks=[ExecutionCallback()])
        answer = last(await agent.ainvoke(asked(), config))
        assert left(sidecar, postgres) == set() and current_scope() is None
        return answer

    assert asyncio.run(ask()) == "done: tea, tea"
    assert seen.executions == [f"t_{run.hex}"] * 2
    assert seen.leaked[0].is_closed()


def test_tools_in_threads_are_in_the_execution_of_their_run(sidecar: Sidecar) -> None:
    seen = Seen()
    handler = ExecutionCallback()
    # Several at once: the tools of one step run in threads. On asyncio they run in the loop's executor.
    agent = graph(BOTH, tools(seen)).with_config(callbacks=[handler])
    assert last(agent.invoke(asked(), thread("t"))) == "done: tea, tea"
    assert last(asyncio.run(agent.ainvoke(asked(), thread("t")))) == "done: tea, tea"
    assert threading.get_ident() not in seen.threads
    first, second = seen.executions[:2], seen.executions[2:]
    assert len(set(first)) == len(set(second)) == 1 and None not in first + second
    assert first[0] != second[0]


def test_threads_that_a_tool_starts_are_bound_to_its_run(sidecar: Sidecar) -> None:
    found: list[Any] = []

    def look() -> None:
        scope = current_scope()
        found.append((scope and scope.id, execpool.current.current_label()))

    @tool
    def start_threads(order: int) -> str:
        """Starts threads."""
        execpool.threads.instrument()
        look()
        for work in (execpool.bind(look), look):
            begun = threading.Thread(target=work)
            begun.start()
            begun.join()
        return "started"

    import execpool.threads

    started, submit = threading.Thread.start, ThreadPoolExecutor.submit
    try:
        agent = graph([["start_threads"]], [start_threads])
        agent.invoke(asked(), thread("t", callbacks=[ExecutionCallback()]))
    finally:
        threading.Thread.start, ThreadPoolExecutor.submit = started, submit  # type: ignore[method-assign]
        delattr(threading.Thread, "_execpool_follows")
    assert len(found) == 3 and len(set(found)) == 1
    assert found[0][0].startswith("t_") and found[0][1] == "start_threads"


def test_root_runs_at_once_keep_to_themselves(sidecar: Sidecar) -> None:
    handler = ExecutionCallback()

    def look(state: MessagesState, config: RunnableConfig) -> dict[str, Any]:
        scope = current_scope()
        assert scope is not None
        assert scope.id.startswith(config["configurable"]["thread_id"] + "_")
        with execpool.psycopg.connect() as connection:
            connection.execute("SELECT pg_sleep(0.01)")
        return {}

    builder = StateGraph(MessagesState)
    builder.add_node("look", look)
    builder.add_edge(START, "look")
    agent = builder.compile().with_config(callbacks=[handler])
    threads = [thread(f"t{at}") for at in range(10)]
    agent.batch([asked()] * 10, threads)

    async def at_once() -> None:
        await asyncio.gather(*(agent.ainvoke(asked(), one) for one in threads))

    asyncio.run(at_once())
    assert sidecar.executions() == []


def test_a_run_within_a_run_belongs_to_the_outer_one(
    sidecar: Sidecar, ended: Callable[[], list[str]]
) -> None:
    seen = Seen()
    inner = graph([["look_up_carelessly"]], tools(seen))

    @tool
    def delegate(order: int) -> str:
        """Asks another agent."""
        seen.note()
        return last(inner.invoke(asked()))

    @tool
    async def delegate_async(order: int) -> str:
        """Asks another agent."""
        seen.note()
        return last(await inner.ainvoke(asked()))

    handler = ExecutionCallback()
    config = thread("t", callbacks=[handler])
    assert last(graph([["delegate"]], [delegate]).invoke(asked(), config)) == "done: done: tea"
    agent = graph([["delegate_async"]], [delegate_async])
    assert last(asyncio.run(agent.ainvoke(asked(), config))) == "done: done: tea"
    assert len(seen.executions) == 4 and len(set(seen.executions)) == 2
    assert len(ended()) == 2


def test_who_iterates_over_a_stream_is_outside_of_its_run(sidecar: Sidecar, postgres: Postgres) -> None:
    seen = Seen()
    handler = ExecutionCallback()
    agent = graph(CARELESS, tools(seen)).with_config(callbacks=[handler])
    outside = []
    for _ in agent.stream(asked(), thread("t")):
        outside.append(current_scope())
        with execpool.psycopg.connect() as connection:
            connection.execute("SELECT 1")
    assert len(outside) == 5 and set(outside) == {None}
    assert len(set(seen.executions)) == 1 and seen.executions[0] is not None

    async def stream() -> None:
        seen = Seen()
        agent = graph(CARELESS, async_tools(seen)).with_config(callbacks=[handler])
        async for _ in agent.astream(asked(), thread("t"), stream_mode="values"):
            assert current_scope() is None
        async for _ in agent.astream_events(asked(), thread("t"), version="v2"):
            assert current_scope() is None
        assert len(set(seen.executions)) == 2 and None not in seen.executions

    asyncio.run(stream())
    assert sidecar.executions() == []


def test_an_abandoned_stream_ends_its_execution(sidecar: Sidecar, postgres: Postgres) -> None:
    handler = ExecutionCallback()
    seen = Seen()
    agent = graph([["look_up_carelessly"], ["look_up"]], tools(seen)).with_config(callbacks=[handler])
    stream = agent.stream(asked(), thread("t"))
    next(stream), next(stream)
    assert len(sidecar.executions()) == 1
    stream.close()
    assert sidecar.executions() == [] and seen.leaked[0].closed

    async def abandon() -> None:
        seen = Seen()
        agent = graph([["look_up_carelessly"], ["look_up"]], async_tools(seen))
        stream = agent.astream(asked(), thread("t", callbacks=[handler]))
        await anext(stream)
        await anext(stream)
        assert len(sidecar.executions()) == 1
        await stream.aclose()
        assert sidecar.executions() == [] and seen.leaked[0].is_closed()

    asyncio.run(abandon())


def test_a_run_that_fails_leaves_nothing_and_its_error_comes_through(
    sidecar: Sidecar, postgres: Postgres, ended: Callable[[], list[str]]
) -> None:
    agent = graph([["fail"]], tools(Seen())).with_config(callbacks=[ExecutionCallback()])
    with pytest.raises(RuntimeError, match="the tool has failed"):
        agent.invoke(asked(), thread("t"))
    assert left(sidecar, postgres) == set() and len(ended()) == 1
    with pytest.raises(RuntimeError, match="the tool has failed"):
        asyncio.run(agent.ainvoke(asked(), thread("t")))
    assert left(sidecar, postgres) == set() and len(ended()) == 2
    for one in ended():
        summary = sidecar.control.ended(one.split("/")[0])
        assert summary is not None and "RuntimeError" in str(summary), summary


def test_a_run_that_is_cancelled_leaves_nothing(sidecar: Sidecar, postgres: Postgres) -> None:
    seen = Seen()
    agent = graph([["wait"]], async_tools(seen)).with_config(callbacks=[ExecutionCallback()])

    async def cancel() -> None:
        running = asyncio.ensure_future(agent.ainvoke(asked(), thread("t")))
        while not seen.leaked:
            await asyncio.sleep(0.01)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert left(sidecar, postgres) == set() and sidecar.executions() == []

    asyncio.run(cancel())


def test_an_interrupted_run_ends_and_is_resumed_as_another(sidecar: Sidecar, postgres: Postgres) -> None:
    ids: list[str] = []
    leaked = []

    def approve(state: MessagesState) -> dict[str, Any]:
        scope = current_scope()
        assert scope is not None
        ids.append(scope.id)
        leaked.append(execpool.psycopg.connect())
        leaked[-1].execute("SELECT 1")
        answer = interrupt("may I?")
        return {"messages": [("ai", answer)]}

    builder = StateGraph(MessagesState)
    builder.add_node("approve", approve)
    builder.add_edge(START, "approve")
    agent = builder.compile(InMemorySaver()).with_config(callbacks=[ExecutionCallback()])
    waiting = agent.invoke(asked(), thread("t"))
    assert waiting["__interrupt__"][0].value == "may I?"
    assert sidecar.executions() == [] and left(sidecar, postgres) == set()
    assert last(agent.invoke(Command(resume="yes"), thread("t"))) == "yes"
    assert len(ids) == 2 and ids[0] != ids[1]
    assert all(one.closed for one in leaked)


def test_a_scope_within_a_node_counts_more_and_one_around_the_run_less(sidecar: Sidecar) -> None:
    found: list[str | None] = []

    def look() -> None:
        scope = current_scope()
        found.append(scope and scope.id)

    def node(state: MessagesState) -> dict[str, Any]:
        look()
        with ExecutionScope("within"):
            look()
        look()
        return {}

    builder = StateGraph(MessagesState)
    builder.add_node("node", node)
    builder.add_edge(START, "node")
    agent = builder.compile()
    with ExecutionScope("around"):
        agent.invoke(asked(), thread("t", callbacks=[ExecutionCallback()]))
        look()
        agent.invoke(asked(), thread("t"))
    run = found[0]
    assert run is not None and run.startswith("t_")
    assert found == [run, "within", run, "around", "around", "within", "around"]


def test_code_that_outlives_its_run_is_refused(sidecar: Sidecar) -> None:
    go, refused = threading.Event(), []

    @tool
    def leave_a_thread(order: int) -> str:
        """Starts a thread and does not wait for it."""

        def work() -> None:
            go.wait(SOON)
            try:
                execpool.psycopg.connect()
            except ExecutionEnded as error:
                refused.append(error)

        threads.append(threading.Thread(target=execpool.bind(work)))
        threads[0].start()
        return "started"

    threads: list[threading.Thread] = []
    graph([["leave_a_thread"]], [leave_a_thread]).invoke(
        asked(), thread("t", callbacks=[ExecutionCallback()])
    )
    go.set()
    threads[0].join()
    assert len(refused) == 1


def test_tasks_and_fanned_out_nodes_and_subgraphs_are_in_their_run(sidecar: Sidecar) -> None:
    seen = Seen()

    @task
    def step(order: int) -> int:
        seen.note()
        return order

    @entrypoint()
    def flow(orders: list[int]) -> list[int]:
        seen.note()
        futures = [step(order) for order in orders]
        return [future.result() for future in futures]

    assert flow.invoke([1, 2, 3], {"callbacks": [ExecutionCallback()]}) == [1, 2, 3]

    @task
    async def step_async(order: int) -> int:
        seen.note()
        return order

    @entrypoint()
    async def flow_async(orders: list[int]) -> list[int]:
        seen.note()
        return list(await asyncio.gather(*(step_async(order) for order in orders)))

    config: Any = {"callbacks": [ExecutionCallback()]}
    assert asyncio.run(flow_async.ainvoke([1, 2, 3], config)) == [1, 2, 3]

    def fan_out(state: MessagesState) -> list[Send]:
        seen.note()
        return [Send("inner", state) for _ in range(3)]

    def note(state: MessagesState) -> dict[str, Any]:
        seen.note()
        return {}

    inner = StateGraph(MessagesState)
    inner.add_node("note", note)
    inner.add_edge(START, "note")
    builder = StateGraph(MessagesState)
    builder.add_node("inner", inner.compile())
    builder.add_conditional_edges(START, fan_out, ["inner"])
    builder.compile().invoke(asked(), config)
    first, second, third = seen.executions[:4], seen.executions[4:8], seen.executions[8:]
    assert len(third) == 4 and None not in seen.executions
    assert [len(set(one)) for one in (first, second, third)] == [1, 1, 1]
    assert len(set(seen.executions)) == 3


def test_a_tool_or_a_chain_alone_is_a_run_too(sidecar: Sidecar) -> None:
    seen = Seen()
    look_up = tools(seen)[0]
    config: Any = {"callbacks": [ExecutionCallback()]}
    assert look_up.invoke({"order": 1}, config) == "tea"
    chain = RunnableParallel(one=look_up, other=look_up) | RunnableLambda(lambda both: both)
    assert chain.invoke({"order": 1}, config) == {"one": "tea", "other": "tea"}
    assert asyncio.run(chain.ainvoke({"order": 1}, config)) == {"one": "tea", "other": "tea"}
    alone, first, second = seen.executions[:1], seen.executions[1:3], seen.executions[3:]
    assert None not in seen.executions
    assert [len(set(one)) for one in (alone, first, second)] == [1, 1, 1]
    assert len(set(seen.executions)) == 3


def test_connections_are_labelled_by_their_tool(sidecar: Sidecar) -> None:
    labels: list[str | None] = []

    @tool
    def inner_tool(order: int) -> str:
        """Has a name."""
        labels.append(execpool.current.current_label())
        with execpool.psycopg.connect() as connection:
            connection.execute("SELECT 1")
            (session,) = sidecar.control.sessions(current_scope().id)  # type: ignore[union-attr]
            labels.append(session["label"])
        with execpool.label("mine"):
            labels.append(execpool.current.current_label())
        # A run within the tool is for the tool, too.
        within: RunnableLambda[int, str | None] = RunnableLambda(
            lambda _: execpool.current.current_label()
        )
        labels.append(within.invoke(order))
        return "ok"

    def node(state: MessagesState) -> dict[str, Any]:
        labels.append(execpool.current.current_label())
        return {}

    agent = graph([["inner_tool"]], [inner_tool])
    told = ["inner_tool", "inner_tool", "mine", "inner_tool"]
    with execpool.label("around"):
        agent.invoke(asked(), thread("t", callbacks=[ExecutionCallback()]))
    assert labels == told
    # In a scope of the app's own, too.
    with ExecutionScope("run-labels"):
        agent.invoke(asked(), thread("t", callbacks=[ToolLabels()]))
        assert labels == told * 2
    async def ask() -> None:
        async with ExecutionScope("run-labels"):
            await agent.ainvoke(asked(), thread("t", callbacks=[ToolLabels()]))
    asyncio.run(ask())
    assert labels == told * 3
    builder = StateGraph(MessagesState)
    builder.add_node("node", node)
    builder.add_edge(START, "node")
    builder.compile().invoke(asked(), thread("t", callbacks=[ExecutionCallback()]))
    assert labels[-1] is None


def test_connections_are_opened_under_the_current_span(sidecar: Sidecar) -> None:
    from execpool.connecting import Connecting
    from opentelemetry.sdk.trace import TracerProvider

    tracer = TracerProvider().get_tracer("test")
    told: list[tuple[str | None, int]] = []

    @tool
    def traced(order: int) -> str:
        """Is in a span."""
        with tracer.start_as_current_span("tool") as span:
            told.append((Connecting.begin().naming.traceparent, span.get_span_context().span_id))
        return "ok"

    with tracer.start_as_current_span("run") as run:
        graph([["traced"]], [traced]).invoke(asked(), thread("t", callbacks=[ExecutionCallback()]))
        traceparent, span = told[0]
        assert traceparent is not None
        assert traceparent.startswith(f"00-{run.get_span_context().trace_id:032x}-{span:016x}-")


def test_without_a_sidecar_a_run_is_cleaned_up_in_the_process(direct: Postgres) -> None:
    seen = Seen()
    handler = ExecutionCallback()
    agent = graph(CARELESS, tools(seen)).with_config(callbacks=[handler])
    assert last(agent.invoke(asked(), thread("t"))) == "done: tea, tea"
    assert seen.leaked[0].closed and eventually(lambda: not direct.backends())
    agent = graph(CARELESS, async_tools(seen)).with_config(callbacks=[handler])
    assert last(asyncio.run(agent.ainvoke(asked(), thread("t")))) == "done: tea, tea"
    assert seen.leaked[1].is_closed() and eventually(lambda: not direct.backends())
    with postgres_saver() as checkpointer:
        checkpointer.setup()
        agent = graph(CARELESS, tools(seen), checkpointer).with_config(callbacks=[handler])
        assert last(agent.invoke(asked(), thread("t"))) == "done: tea, tea"


def test_a_required_sidecar_that_is_away_fails_the_run(
    direct: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EXECPOOL", "required")
    agent = graph([], tools(Seen())).with_config(callbacks=[ExecutionCallback()])
    with pytest.raises(SidecarUnavailable, match="EXECPOOL=required"):
        agent.invoke(asked(), thread("t"))
    with pytest.raises(SidecarUnavailable, match="EXECPOOL=required"):
        asyncio.run(agent.ainvoke(asked(), thread("t")))


def test_a_checkpointer_is_in_the_shared_execution_whichever_scope_asks(
    sidecar: Sidecar, postgres: Postgres
) -> None:
    seen = Seen()
    with postgres_saver() as checkpointer, ExecutionScope("around"):
        checkpointer.setup()
        agent = graph(CARELESS, tools(seen), checkpointer)
        agent = agent.with_config(callbacks=[ExecutionCallback()])
        assert last(agent.invoke(asked(), thread("kept"))) == "done: tea, tea"
        labels = lambda: [one["label"] for one in sidecar.control.sessions("shared")]  # noqa: E731
        assert eventually(lambda: labels() == ["checkpointer"]), labels()
        assert sidecar.control.sessions("around") == []
    assert eventually(lambda: sidecar.control.sessions("shared") == [])

    async def again() -> None:
        async with async_postgres_saver() as checkpointer:
            await checkpointer.setup()
            agent = graph(CARELESS, async_tools(seen), checkpointer)
            config = thread("kept", callbacks=[ExecutionCallback()])
            result = await agent.ainvoke(asked(), config)
            # It knows what the other has kept.
            assert len(result["messages"]) == 12
            assert eventually(lambda: len(sidecar.control.sessions("shared")) == 1)

    asyncio.run(again())
    assert len(set(seen.executions)) == 2


def test_a_checkpointer_outlives_a_restart_of_the_sidecar(own_sidecar: Sidecar) -> None:
    with postgres_saver() as checkpointer:
        checkpointer.setup()
        agent = graph([["look_up"]], tools(Seen()), checkpointer)
        agent = agent.with_config(callbacks=[ExecutionCallback()])
        assert last(agent.invoke(asked(), thread("restarted"))) == "done: tea"
        own_sidecar.kill()
        own_sidecar.start()
        assert last(agent.invoke(asked(), thread("restarted"))) == "done: tea"


def test_runs_that_are_over_are_not_remembered_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("execpool.langchain.MOST_KNOWN", 1000)
    handler = ToolLabels()
    for _ in range(30):
        root = uuid.uuid4()
        handler._begin(root, None)
        for _ in range(99):
            handler._begin(uuid.uuid4(), root)
        handler._end(root)
        assert handler.within(root) is not None
    assert len(handler._known) == 1000


def test_a_fork_amid_a_handlers_work_leaves_the_child_no_lock(direct: Postgres) -> None:
    handler = ExecutionCallback()
    held, go = threading.Event(), threading.Event()

    def hold() -> None:
        with handler._lock:
            held.set()
            go.wait(2 * SOON)

    thread_of_it = threading.Thread(target=hold)
    thread_of_it.start()
    assert held.wait(SOON)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            signal.alarm(int(SOON))
            chain = RunnableLambda(lambda one: one) | RunnableLambda(lambda one: one)
            status = chain.invoke(0, {"callbacks": [handler]})
        finally:
            os._exit(status)
    try:
        assert os.waitpid(child, 0)[1] == 0
    finally:
        go.set()
        thread_of_it.join()


RUNS = 100


def test_a_hundred_threads_run_a_leaking_graph_at_once(
    sidecar: Sidecar, postgres: Postgres
) -> None:
    seen, begin = Seen(), threading.Barrier(RUNS)
    with postgres_saver() as checkpointer:
        checkpointer.setup()
        agent = graph(CARELESS, tools(seen), checkpointer)
        agent = agent.with_config(callbacks=[ExecutionCallback()])

        def run(number: int) -> str:
            begin.wait()
            return last(agent.invoke(asked(), thread(f"crowd-{number}")))

        with ThreadPoolExecutor(RUNS) as crowd:
            assert list(crowd.map(run, range(RUNS))) == ["done: tea, tea"] * RUNS
    assert len(seen.executions) == 2 * RUNS and len(set(seen.executions)) == RUNS
    assert len(seen.leaked) == RUNS and all(one.closed for one in seen.leaked)
    nothing_is_left(sidecar, postgres)


def test_a_hundred_tasks_run_a_leaking_graph_at_once(sidecar: Sidecar, postgres: Postgres) -> None:
    seen = Seen()

    async def crowd() -> list[str]:
        async with async_postgres_saver() as checkpointer:
            await checkpointer.setup()
            agent = graph(CARELESS, async_tools(seen), checkpointer)
            agent = agent.with_config(callbacks=[ExecutionCallback()])
            runs = (agent.ainvoke(asked(), thread(f"tasks-{at}")) for at in range(RUNS))
            return [last(one) for one in await asyncio.gather(*runs)]

    assert asyncio.run(crowd()) == ["done: tea, tea"] * RUNS
    assert len(seen.executions) == 2 * RUNS and len(set(seen.executions)) == RUNS
    assert len(seen.leaked) == RUNS and all(one.is_closed() for one in seen.leaked)
    nothing_is_left(sidecar, postgres)


def nothing_is_left(sidecar: Sidecar, postgres: Postgres) -> None:
    assert sidecar.executions() == []
    with postgres.admin() as admin:
        asked_for = "SELECT setting::int FROM pg_settings WHERE name = 'max_connections'"
        assert admin.execute(asked_for).fetchone() == (40,)
    assert eventually(lambda: not left(sidecar, postgres)), left(sidecar, postgres)


@pytest.mark.parametrize(
    "given", [{"deadline": "10 min"}, {"labels": {"a": 1}}, {"pool": {"sise": 3}}], ids=lambda it: next(iter(it))
)
def test_a_mistake_is_told_as_the_callback_is_made_and_not_in_each_run(given: Any) -> None:
    with pytest.raises(execpool.InvalidExecution):
        ExecutionCallback(**given)
