"""A real LangGraph graph with a model that says what it was told to, and tools that use the database."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import execpool.asyncpg
import execpool.psycopg
from execpool import current_scope
from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import BaseTool, tool
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition


class ScriptedModel(BaseChatModel):
    """Calls the tools of its script one after the other - those of one step at once - and then says how
    many answers it has."""

    script: list[list[str]]

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **_: Any,
    ) -> ChatResult:
        last = max(at for at, one in enumerate(messages) if isinstance(one, HumanMessage))
        since = messages[last + 1 :]
        step = sum(isinstance(one, AIMessage) for one in since)
        if step < len(self.script):
            calls = [
                {"name": name, "args": {"order": 1}, "id": f"{step}-{at}", "type": "tool_call"}
                for at, name in enumerate(self.script[step])
            ]
            said = AIMessage("", tool_calls=calls)
        else:
            answers = [one.content for one in since if isinstance(one, ToolMessage)]
            said = AIMessage(f"done: {', '.join(map(str, answers))}")
        return ChatResult(generations=[ChatGeneration(message=said)])


class Seen:
    """What the tools have seen: the execution and the backend of each, and what they have leaked."""

    def __init__(self) -> None:
        self.executions: list[str | None] = []
        self.threads: set[int] = set()
        self.leaked: list[Any] = []

    def note(self) -> None:
        scope = current_scope()
        self.executions.append(None if scope is None else scope.id)
        self.threads.add(threading.get_ident())


QUERY = "SELECT item FROM orders WHERE id = "


def tools(seen: Seen) -> list[BaseTool]:
    @tool
    def look_up(order: int) -> str:
        """Asks the database, and closes its connection."""
        seen.note()
        with execpool.psycopg.connect() as connection:
            return str(connection.execute(f"{QUERY}{order}").fetchone()[0])  # type: ignore[index]

    @tool
    def look_up_carelessly(order: int) -> str:
        """Asks the database, and forgets its connection within a transaction."""
        seen.note()
        connection = execpool.psycopg.connect()
        seen.leaked.append(connection)
        return str(connection.execute(f"{QUERY}{order}").fetchone()[0])  # type: ignore[index]

    @tool
    def fail(order: int) -> str:
        """Forgets its connection and fails."""
        look_up_carelessly.func(order)  # type: ignore[attr-defined]
        raise RuntimeError("the tool has failed")

    return [look_up, look_up_carelessly, fail]


def async_tools(seen: Seen) -> list[BaseTool]:
    @tool
    async def look_up(order: int) -> str:
        """Asks the database, and closes its connection."""
        seen.note()
        connection = await execpool.asyncpg.connect()
        try:
            return str(await connection.fetchval(f"{QUERY}{order}"))
        finally:
            await connection.close()

    @tool
    async def look_up_carelessly(order: int) -> str:
        """Asks the database, and forgets its connection within a transaction."""
        seen.note()
        connection = await execpool.asyncpg.connect()
        seen.leaked.append(connection)
        await connection.execute("BEGIN")
        return str(await connection.fetchval(f"{QUERY}{order}"))

    @tool
    async def wait(order: int) -> str:
        """Forgets its connection and waits for ever."""
        await look_up_carelessly.coroutine(order)  # type: ignore[attr-defined]
        await asyncio.sleep(3600)
        return "never"

    return [look_up, look_up_carelessly, wait]


def graph(script: Sequence[Sequence[str]], tools: list[BaseTool], checkpointer: Any = None) -> Any:
    """An agent: the model, its tools, and back, until the model calls none."""
    model = ScriptedModel(script=[list(step) for step in script])

    def ask(state: MessagesState) -> dict[str, Any]:
        return {"messages": [model.invoke(state["messages"])]}

    async def ask_async(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await model.ainvoke(state["messages"])]}

    from langchain_core.runnables import RunnableLambda

    builder = StateGraph(MessagesState)
    builder.add_node("model", RunnableLambda(ask, afunc=ask_async))
    builder.add_node("tools", ToolNode(tools, handle_tool_errors=False))
    builder.add_edge(START, "model")
    builder.add_conditional_edges("model", tools_condition)
    builder.add_edge("tools", "model")
    return builder.compile(checkpointer=checkpointer)


def asked(text: str = "what was ordered?") -> dict[str, Any]:
    return {"messages": [HumanMessage(text)]}


def thread(name: str, **more: Any) -> Any:
    return {"configurable": {"thread_id": name}, **more}
