"""Runs the agent for many customers at once, and prints what execpool saw of it.

    run.py             once
    run.py --forever   again and again, to be looked at with `execpool top`"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from agent import build
from execpool.control import Control
from execpool.langgraph import async_postgres_saver
from langchain_core.messages import HumanMessage
from place import BUDGET, MAX_CONNECTIONS, Place, running

CUSTOMERS = 24
LOOKS = 20
"""How often a second it is looked at what is open."""


class Leftovers(logging.Handler):
    """Keeps what the library says of connections that were left open."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.where: Counter[str] = Counter()

    def emit(self, record: logging.LogRecord) -> None:
        told = record.getMessage()
        left = re.search(r"was opened at ([^<,(]+?)(?: <[^(,]*)?(?: \((\w+)\))?(?:,|$)", told)
        if left is None:
            print(told, file=sys.stderr)
            return
        where, tool = left.groups()
        self.where[where + (f", in the tool {tool}" if tool else "")] += 1


class Peaks:
    """The most of each that was seen at once."""

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()

    def look(self, place: Place, control: Control) -> None:
        status = control.status()
        now = {name: status["budget"][name] for name in ("open", "waiting")}
        now["backends"] = place.backends()
        for name, count in now.items():
            self.seen[name] = max(self.seen[name], int(count))


async def serve(graph: Any, customer: int) -> str:
    """One run: a question of one customer."""
    config = {"configurable": {"thread_id": f"customer-{customer}"}}
    question = HumanMessage(f"What did I order? I am customer {customer}")
    result = await graph.ainvoke({"messages": [question]}, config)
    return str(result["messages"][-1].content)


async def serve_all(place: Place, control: Control, peaks: Peaks) -> list[str | BaseException]:
    """A run for each customer, all at once, on one checkpointer."""
    # Synchronous tools run in the loop's default executor, which has few threads, and so does what
    # LangGraph's checkpointer writes. With a thread for each tool that may wait for a connection, no
    # checkpoint waits behind them.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(2 * CUSTOMERS))
    async with async_postgres_saver() as checkpointer:
        await checkpointer.setup()
        graph = build(checkpointer)
        runs = asyncio.gather(*(serve(graph, n) for n in range(CUSTOMERS)), return_exceptions=True)
        while not runs.done():
            await asyncio.to_thread(peaks.look, place, control)
            await asyncio.sleep(1 / LOOKS)
        return await runs


def report(
    place: Place, control: Control, answers: list[Any], peaks: Peaks, leaks: Leftovers, took: float
) -> bool:
    """Prints what there is to say; answers whether all is well."""
    failed = [one for one in answers if isinstance(one, BaseException)]
    said = [one for one in answers if isinstance(one, str)]
    print(f"{CUSTOMERS} runs at once in {took:.1f} s: {len(said)} answered, {len(failed)} failed")
    for text in said[:1] + [f"{type(error).__name__}: {error}" for error in failed[:3]]:
        print(f"  such as: {text}")

    all_ended = [one for one in control.executions(ended=True) if one["state"] == "ended"]
    ended = [one for one in all_ended if one["id"].startswith("customer-")]
    reasons = Counter(str(one["reason"]) for one in ended)
    seen = peaks.seen
    print("\nWhat execpool saw")
    print(f"  executions   {len(ended)}, ended: {', '.join(f'{n} {why}' for why, n in reasons.items())}")
    print(f"  queries      {sum(one['queries'] for one in ended)} of theirs")
    print(f"  connections  at most {seen['open']} open, of a budget of {BUDGET}; {seen['waiting']} waited")
    print(f"  PostgreSQL   at most {seen['backends']} backends, of max_connections = {MAX_CONNECTIONS}")

    print("\nWhat was cleaned up")
    for where, count in leaks.where.most_common():
        print(f"  {count} connections that were opened at {where}")
    shared = sum(len(pool["server_pids"]) for pool in control.execution("shared")["pools"])
    left = place.backends() - shared
    print(f"  left over in pg_stat_activity: {left}")
    return not failed and left == 0 and len(ended) == leaks.where.total() == CUSTOMERS


def main() -> int:
    leftovers = Leftovers()
    logger = logging.getLogger("execpool")
    logger.addHandler(leftovers)
    logger.propagate = False
    with running() as place:
        os.environ |= {
            "DATABASE_URL": place.url,
            "EXECPOOL_DIR": str(place.sidecar),
            "EXECPOOL": "required",
        }
        control = Control(str(place.sidecar / "control.sock"), timeout=60.0)
        if "--forever" in sys.argv[1:]:
            print(f"Look at it from another terminal:\n\n    {os.environ['EXECPOOL_BIN']} top --socket {place.sidecar}/control.sock\n")
            try:
                while True:
                    asyncio.run(serve_all(place, control, Peaks()))
            except KeyboardInterrupt:
                return 0
        began, peaks = time.monotonic(), Peaks()
        answers = asyncio.run(serve_all(place, control, peaks))
        return 0 if report(place, control, answers, peaks, leftovers, time.monotonic() - began) else 1


if __name__ == "__main__":
    sys.exit(main())
