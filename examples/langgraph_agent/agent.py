"""A support agent on LangGraph: what you would write yourself. The two lines that have to do with
execpool are marked.

The model is scripted, so that no API key is needed; put a ChatOpenAI or a ChatAnthropic in its place."""

from __future__ import annotations

from typing import Any

import execpool.psycopg
from execpool import create_execution_scoped_sql_database, get_db_session
from execpool.langgraph import ExecutionCallback  # execpool
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from sqlalchemy import text

# ---- tools


@tool
def find_order(customer: int) -> str:
    """The newest order of a customer: a session that is closed on every path."""
    with get_db_session() as session:
        newest = text("SELECT item FROM orders WHERE customer = :customer ORDER BY id DESC LIMIT 1")
        return str(session.execute(newest, {"customer": customer}).scalar_one())


@tool
def count_orders(customer: int) -> str:
    """How many orders a customer has: LangChain's SQLDatabase."""
    database = create_execution_scoped_sql_database()
    if not database:
        return "the database can't be reached"
    return str(database.run(f"SELECT count(*) FROM orders WHERE customer = {int(customer)}"))


_cache: list[Any] = []


@tool
def recommend(customer: int) -> str:
    """Something that others bought. It leaks: its connection is kept, within a transaction, for
    nothing. Without execpool it would be PostgreSQL's for as long as the process lives."""
    connection = execpool.psycopg.connect()
    _cache.append(connection)
    others = "SELECT item FROM orders WHERE customer <> %s ORDER BY random() LIMIT 1"
    row = connection.execute(others, [customer]).fetchone()
    return str(row[0]) if row else "nothing"


TOOLS = [find_order, count_orders, recommend]

# ---- the model


class ScriptedModel(BaseChatModel):
    """Calls one tool after the other for the customer it is asked about, then sums up."""

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def _generate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        asked = max(at for at, one in enumerate(messages) if one.type == "human")
        answers = [one.content for one in messages[asked:] if isinstance(one, ToolMessage)]
        if len(answers) < len(TOOLS):
            name = TOOLS[len(answers)].name
            customer = int(str(messages[asked].content).split()[-1])
            call = {"name": name, "args": {"customer": customer}, "id": f"call-{len(answers)}"}
            said = AIMessage("", tool_calls=[call])
        else:
            said = AIMessage(f"Your last order was {answers[0]}. You may like: {answers[2]}.")
        return ChatResult(generations=[ChatGeneration(message=said)])


# ---- the graph


def build(checkpointer: Any) -> Any:
    """The agent: the model, its tools, and back, until the model calls none."""
    model = ScriptedModel()

    def ask(state: MessagesState) -> dict[str, Any]:
        return {"messages": [model.invoke(state["messages"])]}

    async def ask_async(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await model.ainvoke(state["messages"])]}

    builder = StateGraph(MessagesState)
    builder.add_node("model", RunnableLambda(ask, afunc=ask_async))
    builder.add_node("tools", ToolNode(TOOLS))
    builder.add_edge(START, "model")
    builder.add_conditional_edges("model", tools_condition)
    builder.add_edge("tools", "model")
    graph = builder.compile(checkpointer)
    return graph.with_config(
        callbacks=[ExecutionCallback(deadline="5m", labels={"agent": "support"})]  # execpool
    )
