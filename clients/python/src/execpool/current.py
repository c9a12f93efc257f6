"""Which scope is current, and which label: context variables, so that asyncio's tasks and
`asyncio.to_thread` inherit them."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from .scope import ExecutionScope

P = ParamSpec("P")
R = TypeVar("R")

scope: contextvars.ContextVar[ExecutionScope | None] = contextvars.ContextVar(
    "execpool_scope", default=None
)
_label: contextvars.ContextVar[str | None] = contextvars.ContextVar("execpool_label", default=None)


def current_scope() -> ExecutionScope | None:
    """The scope in which this code runs.

    A task or thread that outlives the scope it was begun in stays in it, and can't connect any
    more. Who has entered the scope is in the outer one after its end, even where the end came in
    another context, as that of an abandoned asynchronous generator does."""
    found = scope.get()
    if found is None or not found.is_left:
        return found
    here = _here()
    while found is not None and found.is_left and found.entered_by == here:
        found = found.outer
        scope.set(found)
    return found


def current_label() -> str | None:
    """What connections that are opened here are for."""
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
