"""What else a run opens, such as a browser or an HTTP client: closed with its execution."""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
import threading
from collections.abc import Awaitable, Callable
from typing import Any, Literal, cast, get_args

from .control import Control
from .errors import ConfigurationError, SidecarError
from .naming import cut
from .telling import Telling
from .workers import within, workers

log = logging.getLogger("execpool")

Kind = Literal["connection", "browser", "http", "file", "other"]
KINDS: tuple[str, ...] = get_args(Kind)

LONGEST_NAME = 256
"""Bytes that the sidecar takes."""
CLOSE_PATIENCE = 10.0
"""Seconds for which it is waited until what is to be awaited is closed."""

# A Selenium driver's `close` closes a window, and its `quit` the browser.
_CLOSERS = ("aclose", "quit", "close", "stop", "shutdown", "dispose")


class Tracked:
    """One resource of an execution's."""

    def __init__(self, resource: object, kind: Kind, name: str, caller: str | None) -> None:
        if kind not in KINDS:
            raise ConfigurationError(f"a resource of kind {kind!r} is none of {', '.join(KINDS)}")
        self.resource = resource
        self.kind: Kind = kind
        self.name = name
        self.caller = caller
        self.number: int | None = None
        """By which the sidecar knows it."""
        self.ttl: str | None = None
        try:
            self.loop: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        except RuntimeError:
            self.loop = None
        self._close = _closer(resource)

    def is_closed(self) -> bool:
        """Whether the app has closed it, as far as it can be asked."""
        for name in ("is_closed", "closed"):
            said = getattr(self.resource, name, None)
            if said is not None:
                try:
                    return bool(said() if callable(said) else said)
                except Exception:
                    return False
        return False

    def close(self) -> Awaitable[object] | None:
        """Closes it; answers what is to be awaited for that, if anything is."""
        closed = self._close()
        return cast("Awaitable[object]", closed) if inspect.isawaitable(closed) else None


def _closer(resource: object) -> Callable[[], object]:
    for name in _CLOSERS:
        found = getattr(resource, name, None)
        if callable(found):
            return cast("Callable[[], object]", found)
    if callable(resource):
        return cast("Callable[[], object]", resource)
    raise ConfigurationError(
        f"a {type(resource).__name__} can't be tracked: it has none of {', '.join(_CLOSERS)}, "
        "and can't be called"
    )


class Resources:
    """Those of one execution. Thread-safe."""

    def __init__(self, telling: Telling) -> None:
        self._telling = telling
        self.after_fork()

    def after_fork(self) -> None:
        """In a forked child: what is open is the parent's."""
        self._lock = threading.Lock()
        self._tracked: list[Tracked] = []
        self._is_final = False
        """Whether all were taken for the last time; the lock guards it."""

    def __len__(self) -> int:
        return len(self._tracked)

    def add(
        self, tracked: Tracked, control: Control | None, execution: str, ttl: str | None = None
    ) -> bool:
        """Tracks one, and lets the sidecar know of it; in a coroutine without waiting for that. Answers False
        where all were taken for the last time, so that nobody would close it."""
        tracked.ttl = ttl
        with self._lock:
            if self._is_final:
                return False
            self._tracked.append(tracked)
        if control is not None:
            self._telling.soon(
                lambda: self._register(tracked, control, execution),
                lambda error: self._unknown(tracked, error),
            )
        return True

    def register_again(self, control: Control, execution: str) -> None:
        """Lets a sidecar know of them that was restarted. To be called in `Telling.now`, so that none is
        registered twice."""
        with self._lock:
            tracked = list(self._tracked)
        for one in tracked:
            try:
                self._register(one, control, execution)
            except SidecarError as error:
                self._unknown(one, error)

    def release(self, taken: list[Tracked], control: Control | None, execution: str) -> None:
        """Tells the sidecar that resources are closed; in a coroutine without waiting for that."""
        if control is None or not taken:
            return
        part = functools.partial
        self._telling.all_soon(
            [(part(_release, one, control, execution), part(_not_released, one)) for one in taken]
        )

    def _register(self, tracked: Tracked, control: Control, execution: str) -> None:
        if self._is_there(tracked):
            tracked.number = control.register(
                execution, tracked.kind, cut(tracked.name, LONGEST_NAME), tracked.ttl
            )

    def _unknown(self, tracked: Tracked, error: Exception) -> None:
        if self._is_there(tracked):
            log.warning("execpool: the sidecar does not know of %s: %s", tracked.name, error)

    def _is_there(self, tracked: Tracked) -> bool:
        """Whether it was not closed before anybody was told of it."""
        with self._lock:
            return any(one is tracked for one in self._tracked)

    def take(self, resource: object) -> Tracked | None:
        """Stops tracking one."""
        with self._lock:
            for tracked in self._tracked:
                if tracked.resource is resource:
                    self._tracked.remove(tracked)
                    return tracked
        return None

    def take_last(self) -> Tracked | None:
        """Stops tracking the last one."""
        with self._lock:
            return self._tracked.pop() if self._tracked else None

    def take_all(self, *, final: bool = False) -> list[Tracked]:
        """Stops tracking; the last first. Where it is final, none can be added any more."""
        with self._lock:
            self._is_final |= final
            taken = self._tracked[::-1]
            self._tracked = []
        return taken


def _release(tracked: Tracked, control: Control, execution: str) -> None:
    if tracked.number is not None:
        control.release(execution, tracked.number)


def _not_released(tracked: Tracked, error: Exception) -> None:
    log.debug("execpool: %s is not released: %s", tracked.name, error)


def close_all(taken: list[Tracked]) -> None:
    """Closes resources where nothing can be awaited: what needs that is closed by its own loop,
    soon, if that runs, or in this thread if it does not."""
    for tracked in taken:
        if tracked.is_closed():
            continue
        try:
            waited = tracked.close()
            if waited is not None:
                _wait_elsewhere(tracked, waited)
        except Exception as error:
            _failed(tracked, error)


async def close_async(tracked: Tracked) -> None:
    """The same for one, where it can be awaited."""
    if tracked.is_closed():
        return
    try:
        waited = tracked.close()
        if waited is None:
            return
        if tracked.loop in (None, asyncio.get_running_loop()):
            await waited
        else:
            _wait_elsewhere(tracked, waited)
    except asyncio.CancelledError as error:
        # Of its own, as one raises it that awaits a task which it has cancelled, or this task's.
        if _is_cancelled():
            raise
        _failed(tracked, error)
    except Exception as error:
        _failed(tracked, error)


def _is_cancelled() -> bool:
    """Whether the task that runs is cancelled; Python 3.10 does not tell."""
    cancelling = getattr(asyncio.current_task(), "cancelling", None)
    return cancelling is None or bool(cancelling())


_closing: set[Any] = set()


def _wait_elsewhere(tracked: Tracked, waited: Awaitable[object]) -> None:
    async def wait() -> None:
        try:
            await within(CLOSE_PATIENCE, _all_of(waited))
        except (Exception, asyncio.CancelledError) as error:
            _failed(tracked, error)

    loop = tracked.loop
    if loop is not None and loop.is_running():
        task = asyncio.run_coroutine_threadsafe(wait(), loop)
        _closing.add(task)
        task.add_done_callback(_closing.discard)
    elif loop is not None and not loop.is_closed():
        loop.run_until_complete(wait())
    else:
        # Made outside of any loop: a loop in a thread of our own, as one may run in this one.
        workers.run(lambda: asyncio.run(wait())).result()


async def _all_of(waited: Awaitable[object]) -> object:
    return await waited


def _failed(tracked: Tracked, error: BaseException) -> None:
    log.warning(
        "execpool: %s (%s, tracked at %s) could not be closed: %s",
        tracked.name,
        tracked.kind,
        tracked.caller,
        str(error) or type(error).__name__,
    )
