"""Which scope is current, and which label: context variables, so that asyncio's tasks and
`asyncio.to_thread` inherit them."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from .scope import ExecutionScope

P = ParamSpec("P")
R = TypeVar("R")

scope: contextvars.ContextVar[ExecutionScope | None] = contextvars.ContextVar(
    "execpool_scope", default=None
)
_label: contextvars.ContextVar[str | None] = contextvars.ContextVar("execpool_label", default=None)


@dataclass(frozen=True)
class Within:
    """What a framework knows of the code that runs: in which of its runs it is."""

    scope: ExecutionScope | None
    """The scope of that run, if it has one of its own."""
    label: str | None
    """What the code is for, such as the name of the tool that runs."""
    outer_scope: ExecutionScope | None
    """What `scope` was as the run began: what has been set since then, within the run, counts more."""
    outer_label: str | None
    """The same of the label."""


frameworks: list[Callable[[], Within | None]] = []
"""Those that keep track of runs by themselves, as LangChain does: each is asked."""


def within() -> Within | None:
    """What the first framework says that knows of the code that runs."""
    for ask in frameworks:
        found = ask()
        if found is not None:
            return found
    return None


def current_scope() -> ExecutionScope | None:
    """The scope in which this code runs.

    A task or thread that outlives the scope it was begun in stays in it, and can't connect any
    more. Who has entered the scope is in the outer one after its end, even where the end came in
    another context, as that of an abandoned asynchronous generator does."""
    found = scope.get()
    run = within()
    if run is not None and run.scope is not None and run.outer_scope is found:
        found = run.scope
    if found is None or not found.is_left:
        return found
    here = _here()
    while found is not None and found.is_left and found.entered_by == here:
        found = found.outer
        scope.set(found)
    return found


def current_label() -> str | None:
    """What connections that are opened here are for."""
    found = _label.get()
    run = within()
    if run is not None and run.label is not None and run.outer_label == found:
        return run.label
    return found


def given_label() -> str | None:
    """The label that `label()` has set, and no framework."""
    return _label.get()


@contextmanager
def label(text: str) -> Generator[None, None, None]:
    """Connections that are opened meanwhile are told to be for this, such as a tool's name."""
    token = _label.set(text)
    try:
        yield
    finally:
        _label.reset(token)


def bind(function: Callable[P, R]) -> Callable[P, R]:
    """The function as it would run here: in this scope, whichever thread calls it.

    A thread of `threading` or of an executor begins in no scope:
    `executor.submit(execpool.bind(work), …)` takes this one along."""
    context = contextvars.copy_context()

    @functools.wraps(function)
    def bound(*args: P.args, **kwargs: P.kwargs) -> R:
        return context.copy().run(function, *args, **kwargs)

    return bound


def _here() -> object:
    """The task that runs, else the thread."""
    try:
        task = asyncio.current_task()
    except RuntimeError:
        task = None
    return id(task) if task is not None else -threading.get_ident()


def here() -> object:
    """Who runs: to be compared with another answer."""
    return _here()
