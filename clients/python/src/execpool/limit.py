"""How many connections a pool may have open where no sidecar limits it.

It looks at the connections themselves, as a scope's end closes what was never given back."""

from __future__ import annotations

import asyncio
import os
import threading
import time

from .connections import Connections

_LOOK = 0.02


class Limit:
    """Room for `size` connections of this process. Thread-safe."""

    def __init__(self, size: int) -> None:
        self._size = max(1, size)
        self._begin()

    def _begin(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._opening = 0
        self._open = Connections()

    def wait(self, timeout: float | None) -> None:
        """Waits for room, which is then taken; raises TimeoutError."""
        until = _until(timeout)
        while not self._take():
            if time.monotonic() > until:
                raise TimeoutError
            time.sleep(_LOOK)

    async def wait_async(self, timeout: float | None) -> None:
        """The same on asyncio. Cancel safe."""
        until = _until(timeout)
        while not self._take():
            if time.monotonic() > until:
                raise TimeoutError
            await asyncio.sleep(_LOOK)

    def opened(self, connection: object | None) -> None:
        """What room was taken for is open; None: it failed."""
        with self._lock:
            self._opening -= 1
            if connection is not None:
                self._open.add(connection, None, None)

    def _take(self) -> bool:
        if self._process != os.getpid():
            # A forked child: what is open is the parent's, and the lock may be held for ever.
            self._begin()
        with self._lock:
            if len(self._open.still_open()) + self._opening >= self._size:
                return False
            self._opening += 1
            return True


def _until(timeout: float | None) -> float:
    return float("inf") if timeout is None else time.monotonic() + timeout
