"""Threads that begin in the scope of who begins them, as asyncio's tasks do by themselves."""

from __future__ import annotations

import contextvars
import functools
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar, cast

from . import current

T = TypeVar("T")

_MARK = "_execpool_follows"

_submits: contextvars.ContextVar[bool] = contextvars.ContextVar("execpool_submits", default=False)
"""Whether an executor may be starting a thread: that serves whoever comes, and stays in no scope."""


def instrument() -> None:
    """From now on a `threading.Thread`, and what is submitted to a `ThreadPoolExecutor`, runs in the
    scope of who has started or submitted it. Calling it again changes nothing."""
    if hasattr(threading.Thread, _MARK):
        return
    start, submit = threading.Thread.start, ThreadPoolExecutor.submit

    @functools.wraps(start)
    def start_in_scope(self: threading.Thread) -> None:
        if not _submits.get() and current.current_scope() is not None:
            self.run = _in_scope(self.run)  # type: ignore[method-assign]
        start(self)

    @functools.wraps(cast("Callable[..., Any]", submit))
    def submit_in_scope(
        self: ThreadPoolExecutor, fn: Callable[..., T], /, *args: Any, **kwargs: Any
    ) -> Future[T]:
        if current.current_scope() is not None:
            fn = _in_scope(fn)
        token = _submits.set(True)
        try:
            return submit(self, fn, *args, **kwargs)
        finally:
            _submits.reset(token)

    setattr(threading.Thread, _MARK, True)
    threading.Thread.start = start_in_scope  # type: ignore[method-assign]
    ThreadPoolExecutor.submit = submit_in_scope  # type: ignore[method-assign, assignment]


def _in_scope(function: Callable[..., T]) -> Callable[..., T]:
    scope, label = current.current_scope(), current.current_label()

    def run(*args: Any, **kwargs: Any) -> T:
        if scope is None:
            return function(*args, **kwargs)
        if label is None:
            return scope.run(function, *args, **kwargs)
        with current.label(label):
            return scope.run(function, *args, **kwargs)

    return run
