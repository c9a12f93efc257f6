"""The connections that were opened in an execution within this process, of any driver.

They are known by what drivers have in common, and only weakly: one that the app forgets is
collected as if nobody watched."""

from __future__ import annotations

import asyncio
import logging
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

log = logging.getLogger("execpool")


@dataclass(frozen=True)
class Opened:
    """A connection, and where it was opened."""

    reference: Callable[[], object | None]
    caller: str | None
    label: str | None
    loop: asyncio.AbstractEventLoop | None
    """The loop that it lives on, if it does."""
    told: list[Callable[[], object]] = field(default_factory=list[Callable[[], object]])
    """Who else is to know that it is closed, such as SQLAlchemy's pool."""


class Connections:
    """Those of one execution. Thread-safe."""

    def __init__(self) -> None:
        self.after_fork()

    def after_fork(self) -> None:
        """In a forked child: what is open is the parent's, and is not to be touched."""
        self._lock = threading.Lock()
        self._opened: dict[int, Opened] = {}

    def add(self, connection: object, caller: str | None, label: str | None) -> None:
        """Remembers an open connection, until it is forgotten or collected."""
        own = drivers_own(connection)
        key = id(own)
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            loop = None
        reference = weakly(own, lambda _: self._opened.pop(key, None))
        with self._lock:
            self._opened[key] = Opened(reference, caller, label, loop)

    def knows(self, connection: object) -> bool:
        """Whether it remembers that one."""
        own = drivers_own(connection)
        with self._lock:
            opened = self._opened.get(id(own))
        return opened is not None and opened.reference() is own

    def forget(self, connection: object) -> None:
        """It was given back in order."""
        with self._lock:
            self._opened.pop(id(drivers_own(connection)), None)

    def tell(self, connection: object, closed: Callable[[], object]) -> None:
        """Calls something after it has closed a connection that it knows: the last that was given, as
        a pool says it anew each time it lends the connection. It must not keep the connection."""
        with self._lock:
            opened = self._opened.get(id(drivers_own(connection)))
            if opened is not None:
                opened.told[:] = [closed]

    def still_open(self) -> list[Opened]:
        """Those that were not closed."""
        with self._lock:
            opened = list(self._opened.values())
        return [one for one in opened if _is_open(one.reference())]

    def close(self) -> None:
        """Closes those that are open."""
        for one in self.still_open():
            connection = one.reference()
            if connection is None:
                continue
            try:
                _close(connection, one.loop)
                for closed in one.told:
                    _on(one.loop, closed)
            except Exception as error:
                log.debug("execpool: a connection of %s is not closed: %s", one.caller, error)
        with self._lock:
            self._opened.clear()


def weakly(it: object, collected: Callable[[object], object] | None = None) -> Callable[[], object | None]:
    """What answers it until it is collected; for ever, where it can't be known weakly."""
    try:
        return weakref.ref(it, collected)
    except TypeError:
        return lambda: it


def drivers_own(connection: object) -> Any:
    """What SQLAlchemy wraps on asyncio, unwrapped."""
    return cast(Any, getattr(connection, "_connection", None) or connection)


def _is_open(connection: object | None) -> bool:
    if connection is None:
        return False
    own = drivers_own(connection)
    is_closed = getattr(own, "is_closed", None)  # asyncpg
    if callable(is_closed):
        return not is_closed()
    closed = getattr(own, "closed", None)  # psycopg, psycopg2
    if closed is not None:
        return not closed
    if hasattr(own, "_usock"):  # pg8000
        return own._usock is not None
    return True


def _close(connection: object, loop: asyncio.AbstractEventLoop | None) -> None:
    own = drivers_own(connection)
    if callable(terminate := getattr(own, "terminate", None)):  # asyncpg
        _on(loop, terminate)
    elif (pgconn := getattr(own, "pgconn", None)) is not None:  # psycopg
        if int(pgconn.transaction_status) == 1:  # at work: its own thread sees the end
            own.cancel()
        if loop is not None:
            _on(loop, pgconn.finish)
        else:
            own.close()
    else:
        own.close()


def _on(loop: asyncio.AbstractEventLoop | None, act: Callable[[], object]) -> None:
    if loop is None or loop.is_closed():
        act()
        return
    try:
        here = asyncio.get_running_loop() is loop
    except RuntimeError:
        here = False
    if here or not loop.is_running():
        act()
    else:
        loop.call_soon_threadsafe(act)
