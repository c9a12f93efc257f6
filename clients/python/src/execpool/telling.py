"""What the sidecar is told of an execution, one after the other: by who may wait, or by a thread for
who must not, as a coroutine, which would block its event loop for as long as the sidecar hangs."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import TypeVar

from .errors import ExecpoolError, SidecarUnavailable
from .workers import in_loop, workers

log = logging.getLogger("execpool")

T = TypeVar("T")

Failed = Callable[[ExecpoolError], object]
"""Logs it. Raises nothing."""


class Telling:
    """That of one execution. Thread-safe."""

    def __init__(self) -> None:
        self.after_fork()

    def after_fork(self) -> None:
        """In a forked child: what waits is the parent's to tell."""
        self._turn = threading.RLock()
        """Held while something is told: so all of it keeps its order."""
        self._waiting: deque[tuple[Callable[[], object], Failed]] = deque()
        self._lock = threading.Lock()
        self._is_coming = False
        """Whether a thread is on its way; the lock guards it."""

    def now(self, act: Callable[[], T]) -> T:
        """Tells it, after all that waits. Blocks; raises what telling it raises."""
        with self._turn:
            self._tell_what_waits()
            return act()

    def soon(self, act: Callable[[], object], failed: Failed) -> None:
        """Tells it: before this returns where that may block, and in another thread where an event
        loop runs in this one. Never raises: `failed` is told by what it fails. Where the sidecar does not
        answer, neither does it what comes after, and each attempt may take seconds: that fails untried."""
        self.all_soon([(act, failed)])

    def all_soon(self, acts: Sequence[tuple[Callable[[], object], Failed]]) -> None:
        """The same for several, one after the other."""
        self._waiting.extend(acts)
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
        gone: SidecarUnavailable | None = None
        while self._waiting:
            act, failed = self._waiting.popleft()
            try:
                if gone is None:
                    act()
                else:
                    failed(gone)
            except SidecarUnavailable as error:
                gone = error
                failed(error)
            except ExecpoolError as error:
                failed(error)
            except Exception:
                log.exception("execpool: telling the sidecar stumbles, and goes on")
