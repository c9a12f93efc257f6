"""The executions that are open in this process, by id: scopes of one id share one."""

from __future__ import annotations

import _thread
import contextlib
import logging
import os
import threading

from .execution import Execution, Request, Summary
from .settings import Settings

log = logging.getLogger("execpool")

PATIENCE = 20.0
"""Seconds for which the end of the one before is waited for."""


class Registry:
    """Thread-safe. A forked child begins with an empty one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[str, Execution] = {}
        self._outlived: set[Execution] = set()
        """Those that the sidecar has ended, whose scopes are not left yet, and whose id is begun anew."""

    def enter(self, request: Request, settings: Settings) -> Execution:
        """Begins an execution, or joins the one of that id that is open here. One that the sidecar has
        ended is open no more: its id is begun anew, while its scopes are still to be left."""
        while True:
            with self._lock:
                execution = self._open.get(request.id)
                if execution is not None and execution.ended_by is not None and not execution.is_ending:
                    self._outlived.add(execution)
                    execution = None
                if execution is None:
                    execution = self._open[request.id] = Execution(request, settings)
                is_ending = execution.is_ending
                if not is_ending:
                    execution.users += 1
            if is_ending:
                execution.gone.wait(PATIENCE)
                self._remove(execution)
                continue
            try:
                with execution.begun:
                    if not execution.is_begun:
                        execution.begin()
                if request is not execution.request:
                    execution.joined_by(request)
            except BaseException:
                self._leave(execution)
                raise
            return execution

    def leave(self, execution: Execution, why: str) -> Summary | None:
        """Leaves an execution; the last one ends it, and gets its summary."""
        if not self._leave(execution):
            return None
        try:
            return execution.end(why)
        finally:
            self._remove(execution)

    def forget(self, execution: Execution) -> None:
        """A scope was collected that was never left. The collector may have come amid anything, so that no
        lock may be asked for here: nor by `threading`, which has one to start a thread."""
        if not execution.is_ours:
            return  # a forked child's copy
        with contextlib.suppress(RuntimeError):  # the interpreter is about to end
            _thread.start_new_thread(self._leave_forgotten, (execution,))

    def _leave_forgotten(self, execution: Execution) -> None:
        log.warning(
            "execpool: a scope of execution %s was entered and never left, and nothing knows of it any more: "
            "it ends now. Enter it by `with`.",
            execution.id,
        )
        self.leave(execution, "its scope was forgotten")

    def open(self) -> list[Execution]:
        """Those that are open now."""
        with self._lock:
            return [one for one in self._open.values() if one.is_begun and not one.is_ending]

    def _leave(self, execution: Execution) -> bool:
        with self._lock:
            execution.users -= 1
            is_last = execution.users == 0
            if is_last:
                execution.is_ending = True
                if not execution.is_begun:
                    self._open.pop(execution.id, None)
                    execution.abandon()
        return is_last

    def _remove(self, execution: Execution) -> None:
        with self._lock:
            if self._open.get(execution.id) is execution:
                del self._open[execution.id]
            self._outlived.discard(execution)

    def after_fork(self) -> None:
        for execution in (*self._open.values(), *self._outlived):
            execution.after_fork()
        self._lock = threading.Lock()
        self._open, self._outlived = {}, set()


registry = Registry()
os.register_at_fork(after_in_child=registry.after_fork)
