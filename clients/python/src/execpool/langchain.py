"""LangChain: an execution for each run, and the names of its tools.

    graph.invoke(state, config={"callbacks": [ExecutionCallback(deadline="10m")]})
    graph = graph.with_config(callbacks=[ExecutionCallback()])  # once, for all runs

Nothing of this module sets a context variable: LangChain hands its own context to whatever a run
calls - nodes, tools, their threads and tasks - and it is asked to which run the code belongs. So who
iterates over a stream stays outside of the run's scope."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
import os
import re
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler, BaseCallbackManager
from langchain_core.runnables.config import var_child_runnable_config

from . import current
from .checks import Duration, checked_duration, checked_labels, checked_pool
from .current import Within
from .scope import ExecutionScope
from .settings import Settings

__all__ = ["ExecutionCallback", "ToolLabels", "execution_id"]

log = logging.getLogger("execpool")

REMEMBERED = 256
"""Runs that have ended and are still known, so that code which outlives its run is refused."""
MOST_KNOWN = 50_000
"""How many there may be with all that is below them before fewer are remembered."""


def execution_id(run_id: UUID, metadata: Mapping[str, Any]) -> str:
    """`THREAD_RUN`: the `thread_id` that LangGraph was given, and LangChain's own id of the run. What
    an id must not have becomes `_`."""
    thread = re.sub(r"[^A-Za-z0-9_@.-]", "_", str(metadata.get("thread_id") or "run")).lstrip(".")
    if thread.startswith("session-"):
        thread = "_" + thread
    return f"{thread[:95] or 'run'}_{run_id.hex}"


@dataclass(frozen=True)
class _Root:
    """A run that nothing else of LangChain's has begun."""

    scope: ExecutionScope | None
    outer_scope: ExecutionScope | None
    outer_label: str | None
    members: list[UUID]
    """It and all runs below it."""


@dataclass(frozen=True)
class _Run:
    """A run of LangChain's: a graph, a node, a tool."""

    root: _Root
    tool: str | None
    """The nearest tool's name, going up."""


@dataclass(frozen=True)
class _Entry:
    """The scope that is to be entered for a run, in a context of its own, as no context variable is to be
    set here."""

    scope: ExecutionScope
    run_id: UUID
    runs: _Runs

    def now(self) -> None:
        try:
            contextvars.copy_context().run(self.scope.__enter__)
        except BaseException:
            self.runs.failed(self.run_id)
            raise
        self.scope.entered_by = self.run_id

    async def awaited(self) -> None:
        _say_what_is_missing()
        try:
            await asyncio.ensure_future(self.scope.__aenter__())
        except BaseException:
            self.runs.failed(self.run_id)
            raise
        self.scope.entered_by = self.run_id


@dataclass(frozen=True)
class _Exit:
    """The scope that is to be left with a run, likewise."""

    scope: ExecutionScope
    error: BaseException | None

    def now(self) -> None:
        kind = None if self.error is None else type(self.error)
        contextvars.copy_context().run(self.scope.__exit__, kind, self.error, None)

    async def awaited(self) -> None:
        # An abandoned stream's generator is closed, and what ends the run may wait all the same.
        error = asyncio.CancelledError() if isinstance(self.error, GeneratorExit) else self.error
        kind = None if error is None else type(error)
        await asyncio.ensure_future(self.scope.__aexit__(kind, error, None))


_Step = _Entry | _Exit | None


class _EitherWay:
    """A method that answers what there is to do, as one that does it: a coroutine function for who
    awaits it, and a plain one for who does not. LangChain looks it up in a coroutine function if the
    run is asynchronous."""

    def __init__(self, decide: Callable[..., _Step]) -> None:
        self._decide = decide

    def __get__(self, handler: object, owner: type | None = None) -> Any:
        decide = cast("Callable[..., _Step]", cast(Any, self._decide).__get__(handler, owner))

        def now(*args: Any, **kwargs: Any) -> None:
            if (step := decide(*args, **kwargs)) is not None:
                step.now()

        async def awaited(*args: Any, **kwargs: Any) -> None:
            if (step := decide(*args, **kwargs)) is not None:
                await step.awaited()

        asks = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]
        return awaited if asks.f_code.co_flags & inspect.CO_COROUTINE else now


class _Runs(BaseCallbackHandler):
    """Which runs there are, and which have begun which. Thread-safe."""

    raise_error = True
    run_inline = True

    def __init__(self) -> None:
        self._known: dict[UUID, _Run] = {}
        self._over: deque[_Root] = deque()
        self.after_fork()
        _all.add(self)

    def after_fork(self) -> None:
        """In a forked child: another thread of the parent's may have held the lock."""
        self._lock = threading.Lock()

    def __copy__(self) -> _Runs:
        return self

    def __deepcopy__(self, memo: object) -> _Runs:
        return self

    def within(self, run_id: UUID | None) -> Within | None:
        """What is known of the code of a run."""
        run = None if run_id is None else self._known.get(run_id)
        if run is None:
            return None
        root = run.root
        return Within(root.scope, run.tool, root.outer_scope, root.outer_label)

    def _make(self, run_id: UUID, metadata: Mapping[str, Any]) -> ExecutionScope | None:
        """The scope for a run that nothing else has begun."""
        return None

    def _begin(
        self,
        run_id: UUID,
        parent_run_id: UUID | None,
        metadata: Mapping[str, Any] | None = None,
        tool: str | None = None,
    ) -> _Step:
        """A run begins; answers what there is to enter for it."""
        parent = None if parent_run_id is None else self._known.get(parent_run_id)
        if parent is None:
            scope = self._make(run_id, metadata or {})
            root = _Root(scope, current.scope.get(), current.given_label(), [run_id])
            self._known[run_id] = _Run(root, tool)
            return None if scope is None else _Entry(scope, run_id, self)
        with self._lock:
            parent.root.members.append(run_id)
            self._known[run_id] = _Run(parent.root, tool or parent.tool)
        return None

    def _end(self, run_id: UUID, error: BaseException | None = None) -> _Step:
        """A run is over; answers what there is to leave with it."""
        run = self._known.get(run_id)
        if run is None or run.root.members[0] != run_id:
            return None
        with self._lock:
            self._over.append(run.root)
            while len(self._over) > REMEMBERED or (self._over and len(self._known) > MOST_KNOWN):
                self._forget(self._over.popleft())
        scope = run.root.scope
        return None if scope is None else _Exit(scope, error)

    def failed(self, run_id: UUID) -> None:
        """A run could not begin."""
        self._known.pop(run_id, None)

    def _forget(self, root: _Root) -> None:
        for member in root.members:
            self._known.pop(member, None)

    # ---- what LangChain calls

    def _chain_start(
        self,
        serialized: object,
        given: object,
        /,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        metadata: dict[str, Any] | None = None,
        **_: object,
    ) -> _Step:
        return self._begin(run_id, parent_run_id, metadata)

    def _tool_start(
        self,
        serialized: dict[str, Any] | None,
        given: object,
        /,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        metadata: dict[str, Any] | None = None,
        **more: object,
    ) -> _Step:
        return self._begin(run_id, parent_run_id, metadata, _name_of_tool(serialized, more))

    def _run_end(self, output: object, /, *, run_id: UUID, **_: object) -> _Step:
        return self._end(run_id)

    def _run_error(self, error: BaseException, /, *, run_id: UUID, **_: object) -> _Step:
        return self._end(run_id, error)

    def _model_start(
        self,
        serialized: object,
        given: object,
        /,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        **_: object,
    ) -> None:
        # A model may call further runs, which belong to who has called the model.
        if parent_run_id in self._known:
            self._begin(run_id, parent_run_id)

    if not TYPE_CHECKING:
        on_chain_start = _EitherWay(_chain_start)
        on_tool_start = _EitherWay(_tool_start)
        on_chain_end = on_tool_end = _EitherWay(_run_end)
        on_chain_error = on_tool_error = _EitherWay(_run_error)
        on_llm_start = on_chat_model_start = on_retriever_start = _model_start


_all: weakref.WeakSet[_Runs] = weakref.WeakSet()


def _after_fork() -> None:
    for runs in list(_all):
        runs.after_fork()


os.register_at_fork(after_in_child=_after_fork)


class ToolLabels(_Runs):
    """Connections that are opened in a tool are told by its name. For runs in a scope of the app's
    own: `with ExecutionScope(…): graph.invoke(state, {"callbacks": [ToolLabels()]})`."""


class ExecutionCallback(_Runs):
    """An execution for each run of a graph, an agent or a chain: it begins with the run, holds what is
    opened in its nodes and tools, and ends with the run - by its result, an error, an interrupt,
    a cancellation, or a stream that is abandoned - which waits until nothing of it is left.

    One handler serves any number of runs at once, synchronous and asynchronous; a run within a run
    belongs to the outer one. Where the sidecar is required and refuses, the run raises that.

    Its id is `thread_id` and the run's id (`execution_id`), its labels are `thread_id` and the given ones.
    `deadline` and `pool` are as for `ExecutionScope`; `make_id` makes another id, such as one that has
    the user's name. On asyncio it needs Python 3.11, before which LangChain can't hand its context on."""

    def __init__(
        self,
        *,
        deadline: Duration | None = None,
        labels: Mapping[str, str] | None = None,
        pool: Mapping[str, int] | None = None,
        make_id: Callable[[UUID, Mapping[str, Any]], str] = execution_id,
        settings: Settings | None = None,
    ) -> None:
        super().__init__()
        # As they would fail in each run.
        self._deadline = checked_duration("deadline", deadline)
        self._labels = checked_labels(labels)
        self._pool = checked_pool(pool)
        self._make_id = make_id
        self._settings = settings

    def _make(self, run_id: UUID, metadata: Mapping[str, Any]) -> ExecutionScope:
        thread = metadata.get("thread_id")
        own = {} if thread is None else {"thread_id": str(thread)[:128]}
        return ExecutionScope(
            self._make_id(run_id, metadata),
            deadline=self._deadline,
            labels=own | self._labels,
            pool=self._pool,
            settings=self._settings,
        )


def _name_of_tool(serialized: dict[str, Any] | None, more: Mapping[str, object]) -> str | None:
    name = (serialized or {}).get("name") or more.get("name")
    return None if name is None else str(name)


def _within() -> Within | None:
    """What LangChain's own context says of the code that runs."""
    config = var_child_runnable_config.get()
    callbacks = None if config is None else config.get("callbacks")
    if not isinstance(callbacks, BaseCallbackManager):
        return None
    for handler in callbacks.handlers:
        if isinstance(handler, _Runs):
            found = handler.within(callbacks.parent_run_id)
            if found is not None:
                return found
    return None


_said = threading.Lock()


def _say_what_is_missing() -> None:
    if sys.version_info < (3, 11) and _said.acquire(blocking=False):
        log.warning(
            "execpool: on Python %d.%d LangChain does not hand its context to asynchronous nodes: "
            "connections that are opened there are of no execution. Use Python 3.11, or an "
            "ExecutionScope around the call.",
            *sys.version_info[:2],
        )


current.frameworks.append(_within)
