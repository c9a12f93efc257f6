"""What the sidecar is told of an execution, one after the other: by who may wait, or by a thread for
who must not, as a coroutine, which would block its event loop for as long as the sidecar hangs."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import TypeVar

from .workers import in_loop, workers

log = logging.getLogger("execpool")

T = TypeVar("T")


class Telling:
    """That of one execution. Thread-safe."""

    def __init__(self) -> None:
        self.after_fork()

    def after_fork(self) -> None:
        """In a forked child: what waits is the parent's to tell."""
        self._turn = threading.RLock()
        """Held while something is told: so all of it keeps its order."""
        self._waiting: deque[Callable[[], object]] = deque()
        self._lock = threading.Lock()
        self._is_coming = False
        """Whether a thread is on its way; the lock guards it."""

    def now(self, act: Callable[[], T]) -> T:
        """Tells it, after all that waits. Blocks; raises what telling it raises."""
        with self._turn:
            self._tell_what_waits()
            return act()

    def soon(self, act: Callable[[], object]) -> None:
        """Tells it: before this returns where that may block, and in another thread where an event
        loop runs in this one. Never raises: what fails is logged by `act` itself."""
        self._waiting.append(act)
        if not in_loop():
            with self._turn:
                self._tell_what_waits()
            return
        # One thread is enough, however much there is to tell.
        with self._lock:
            comes, self._is_coming = self._is_coming, True
        if not comes:
            workers.run(self._come)

    def _come(self) -> None:
        with self._turn:
            with self._lock:
                self._is_coming = False
            self._tell_what_waits()

    def _tell_what_waits(self) -> None:
        while self._waiting:
            try:
                self._waiting.popleft()()
            except Exception:
                log.exception("execpool: telling the sidecar stumbles, and goes on")
