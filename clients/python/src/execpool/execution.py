"""An execution as this process knows it: what all scopes of one id share."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from . import resources
from .connections import Connections
from .control import Answer, Control
from .errors import (
    ExecutionEnded,
    ExecutionExists,
    InvalidExecution,
    SidecarError,
    SidecarRefused,
    SidecarUnavailable,
)
from .hold import Hold, keeper
from .resources import Resources, Tracked
from .settings import Mode, Settings
from .sidecar import Sidecar, find, used, without
from .telling import Telling
from .workers import in_loop, workers

log = logging.getLogger("execpool")

PATIENCE = 3.0
"""Seconds for which a sidecar that does not answer is taken to be about to come back."""
SETTLE = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
"""Seconds that a connection which is just being closed gets, look by look, before it counts as left
over."""
SETTLE_BLOCKING = 4
"""How many of these looks there are where an event loop stands still meanwhile."""


@dataclass(frozen=True)
class Request:
    """What an execution is to be."""

    id: str
    deadline: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    pool: Mapping[str, int] | None = None
    join: bool = False


@dataclass(frozen=True)
class Leftover:
    """A connection that was open when its execution ended."""

    caller: str | None
    """Where it was opened: `file:line function < …`."""
    label: str | None
    """What for: the tool's name, where that is known."""
    statement: str | None = None
    """Its last statement without literals, where the sidecar tells."""

    def __str__(self) -> str:
        told = f"a connection that was opened at {self.caller or 'an unknown place'}"
        if self.label:
            told += f" ({self.label})"
        return told + (f", last statement {self.statement!r}" if self.statement else "")


@dataclass(frozen=True)
class Summary:
    """What is known of an execution that has ended."""

    id: str
    reason: str
    """Why it ended: `deleted` for a scope that was left, else as the sidecar tells."""
    duration_seconds: float
    leftovers: tuple[Leftover, ...] = ()
    """Connections that were left open."""
    complete: bool = True
    """Whether nothing of it is left at the database."""
    generation: int | None = None
    queries: int | None = None
    sessions: int | None = None
    held_seconds: float | None = None
    active_seconds: float | None = None
    peak_connections: int | None = None
    sidecar: Mapping[str, Any] | None = None
    """All that the sidecar answers; None without one."""


class Execution:
    """One execution in this process. Thread-safe."""

    def __init__(self, request: Request, settings: Settings) -> None:
        self.id = request.id
        self.request = request
        self.settings = settings
        self.users = 0
        """Scopes that are in it; the registry's lock guards it."""
        self.gone = threading.Event()
        """Set when nothing of it is left."""
        self.begun = threading.Lock()
        """Held by the scope that begins it, so that others of the same id wait."""
        self.is_begun = False
        self.is_ending = False
        self.ended_by: str | None = None
        """Why the sidecar has ended it, before its scope was left."""
        self.sidecar: Sidecar | None = None
        self.control: Control | None = None
        self.created: Answer = {}
        self.is_owned = True
        """False for one that another process has begun and ends."""
        self.connections = Connections()
        self._telling = Telling()
        self.resources = Resources(self._telling)
        self.engines = 0
        self.databases = 0
        self.session_engine: object = None
        """The engine of `get_db_session`, once it was asked for."""
        self._at_end: list[Callable[[], object]] = []
        self._in_child: list[Callable[[], object]] = []
        self._hold: Hold | None = None
        self._deadline: float | None = None
        self._next_beat: deque[str | None] = deque(maxlen=1)
        """The heartbeat that waits to be told: of several, the last."""
        self._process = os.getpid()
        self._began = time.monotonic()
        self._has_said_what_it_is = False

    # ---- beginning

    def begin(self) -> None:
        """Registers it with the sidecar, or goes without. Raises as the settings ask."""
        sidecar = find(self.settings)
        if sidecar is not None:
            try:
                self._begin_with(sidecar)
            except (SidecarUnavailable, SidecarRefused) as error:
                if self.settings.mode is Mode.REQUIRED:
                    raise
                # Each has another text, as it tells ids: the kind is what is said once.
                without(self.settings, str(error), type(error).__name__)
        self._began = time.monotonic()
        self.is_begun = True

    def _begin_with(self, sidecar: Sidecar) -> None:
        control = sidecar.control
        until = time.monotonic() + PATIENCE
        while True:
            try:
                self._register(control)
                break
            except SidecarUnavailable as unavailable:
                if time.monotonic() > until or isinstance(unavailable.__cause__, PermissionError):
                    raise
            except SidecarRefused as refused:
                if time.monotonic() > until or not self._may_pass(control, refused):
                    raise self._refused(refused) from refused
                if self.request.join and refused.code == "execution_exists":
                    self.is_owned = False
                    self.joined_by(self.request)
                    break
            time.sleep(0.05)
        if self.is_owned:
            self._open_hold(control)
        self.sidecar, self.control = sidecar, control
        used(sidecar)

    def _open_hold(self, control: Control) -> None:
        hold = Hold(control, self.id, lambda: self._register_again(control), self._on_ended)
        try:
            try:
                hold.open()
            except SidecarRefused as refused:
                if refused.code != "no_such_execution":
                    raise
                raise ExecutionEnded(
                    f"{refused.detail}, before its scope was entered. Is its deadline too near?"
                ) from None
            keeper.keep(hold)
        except BaseException:
            # Nobody would end it before its deadline.
            hold.close()
            with contextlib.suppress(SidecarError):
                control.end(self.id, "its hold was not opened")
            raise
        self._hold = hold

    def _register(self, control: Control) -> None:
        asked = self.request
        self.created = control.begin(asked.id, asked.deadline, asked.labels, asked.pool)
        self._deadline_in(self.created.get("deadline_seconds"))

    def _register_again(self, control: Control) -> bool:
        """With a sidecar that was restarted: what is left of the time, and all resources. Answers whether it
        is: one that has ended meanwhile is not brought back."""

        def tell() -> bool:
            if self.has_ended:
                return False
            asked, left = self.request, None
            if self._deadline is not None:
                left = f"{max(1, round((self._deadline - time.monotonic()) * 1000))}ms"
            self.created = control.begin(asked.id, left, asked.labels, asked.pool)
            self.resources.register_again(control, self.id)
            return True

        return self._telling.now(tell)

    def _deadline_in(self, seconds: float | None) -> None:
        self._deadline = None if seconds is None else time.monotonic() + seconds

    def _may_pass(self, control: Control, refused: SidecarRefused) -> bool:
        """Whether another attempt may succeed, or we may join."""
        if refused.code != "execution_exists":
            return refused.is_passing
        if self.request.join:
            return True
        try:
            # One that nobody holds is about to end: its process was killed.
            return not control.execution(self.id).get("holds")
        except SidecarRefused:
            return True

    def _refused(self, refused: SidecarRefused) -> Exception:
        if refused.code == "execution_exists":
            return ExecutionExists(
                f"execution {self.id} is open in another process. Choose an id of its own for each "
                "run, or join that one with ExecutionScope(…, join=True)."
            )
        if refused.status in (400, 422):
            return InvalidExecution(f"execution {self.id}: {refused.detail}. {refused.hint}")
        return refused

    def _on_ended(self, reason: str, left: list[Answer]) -> None:
        if self.is_ending:
            return
        self.ended_by = reason
        log.warning(
            "execpool: execution %s was ended by the sidecar: %s. Its connections are closed, and no "
            "new one joins it.",
            self.id,
            reason,
        )
        if left:
            taken = self.resources.take_all()
            workers.run(lambda: resources.close_all(taken))

    def abandon(self) -> None:
        """It has not begun wholly, as an interrupt came: the sidecar ends what there is of it."""
        if self._hold is not None:
            keeper.drop(self._hold)
        self.gone.set()

    # ---- while it lasts

    def joined_by(self, request: Request) -> None:
        """Another scope of this process is in it now, or this one is in another process's. What it asks for
        is not done, as the sidecar does not do it for an id that is open: that is said once."""
        known = self.request if request is not self.request else Request(self.id)
        asked = [
            f"{name} {ours!r}"
            for name in ("deadline", "labels", "pool")
            if (ours := getattr(request, name)) and ours != getattr(known, name)
        ]
        if asked and not self._has_said_what_it_is:
            self._has_said_what_it_is = True
            log.warning(
                "execpool: execution %s is open already, and stays as the first scope has asked for: a later "
                "one's %s is not done. scope.heartbeat(…) moves the deadline; an id of its own makes another "
                "execution.",
                self.id,
                ", ".join(asked),
            )

    @property
    def is_ours(self) -> bool:
        """Whether this process has begun it: a forked child has not."""
        return self._process == os.getpid()

    @property
    def has_ended(self) -> bool:
        """Whether nothing may join it any more."""
        return self.is_ending or self.ended_by is not None

    def track(self, tracked: Tracked, ttl: str | None = None) -> None:
        """Closes a resource when the execution ends. Does not block a coroutine. Raises ExecutionEnded where
        nobody would close it any more."""
        control = self.control if self.ended_by is None else None
        if not self.resources.add(tracked, control, self.id, ttl) and self.is_ours:
            raise ExecutionEnded(
                f"execution {self.id} has ended: nobody would close {tracked.name}. Close it here, or track "
                "it in a scope that is still to be left"
            )

    def untrack(self, resource: object) -> bool:
        """Stops tracking a resource; answers whether it was tracked. Does not block a coroutine."""
        taken = self.resources.take(resource)
        if taken is not None:
            self.resources.release([taken], self.control, self.id)
        return taken is not None

    def heartbeat(self, extend: str | None) -> float | None:
        """Moves the deadline; answers the seconds until then, None without a deadline. Blocks; raises
        as the control API does, and ExecutionEnded for a straggler."""
        control = self.control
        return None if control is None else self._telling.now(lambda: self._beat(control, extend))

    def heartbeat_soon(self, extend: str | None) -> None:
        """The same in another thread, for who must not block. What fails is logged."""
        control = self.control
        if control is None:
            return
        if self.has_ended and self.is_ours:
            self._not_moved(self._straggles())
            return
        self._next_beat.append(extend)
        self._telling.soon(lambda: self._beat_that_waits(control), self._not_moved)

    def _beat_that_waits(self, control: Control) -> None:
        # None: one before has told it. What ends needs no deadline.
        if self._next_beat and not self.is_ending:
            self._beat(control, self._next_beat.popleft())

    def _not_moved(self, why: Exception) -> None:
        self._next_beat.clear()
        log.warning("execpool: the deadline of execution %s is not moved: %s", self.id, why)

    def _straggles(self) -> ExecutionEnded:
        return ExecutionEnded(
            f"execution {self.id} has ended ({self.ended_by or 'its scope was left'}), and its deadline is moved "
            "no more: let what beats for it end with it"
        )

    def _beat(self, control: Control, extend: str | None) -> float | None:
        if self.has_ended and self.is_ours:
            raise self._straggles()  # the sidecar goes by the id, which may be a newer run's by now
        seconds = control.heartbeat(self.id, extend).get("deadline_seconds")
        self._deadline_in(seconds)
        return seconds

    def at_end(self, act: Callable[[], object]) -> None:
        """Calls something when the execution ends, such as an engine's dispose."""
        self._at_end.append(act)

    def in_child(self, act: Callable[[], object]) -> None:
        """Calls something in a forked child, such as what forgets an engine's pooled connections: the
        parent goes on to speak on their sockets."""
        self._in_child.append(act)

    # ---- ending

    def end(self, why: str) -> Summary:
        """Ends it and waits until nothing of it is left; never raises for the sidecar's sake."""
        self.is_ending = True
        try:
            self._clean_up()
            if not self.is_ours or not self.is_owned:
                return self._leave()
            left = self._leftovers()
            for leftover in left:
                log.warning("execpool: execution %s has left %s", self.id, leftover)
            answer = self._end_at_sidecar(why)
            return self._summary(answer, left)
        finally:
            # If its end could not be told, the sidecar learns of it by this.
            if self._hold is not None:
                keeper.drop(self._hold)
            try:
                self.connections.close()
            finally:
                self.gone.set()

    async def close_resources(self) -> None:
        """Closes what is tracked, before the end, where that can be awaited."""
        closed: list[Tracked] = []
        try:
            while (last := self.resources.take_last()) is not None:
                closed.append(last)
                await resources.close_async(last)
        finally:
            self.resources.release(closed, self.control, self.id)

    def _clean_up(self) -> None:
        """Closes what is the library's to close: what is open afterwards was forgotten."""
        taken = self.resources.take_all(final=True)
        resources.close_all(taken)
        if self.ended_by is None:
            self.resources.release(taken, self.control, self.id)
        for act in reversed(self._at_end):
            try:
                act()
            except Exception as error:
                log.warning("execpool: execution %s is not cleaned up wholly: %s", self.id, error)
        self._at_end.clear()
        self._in_child.clear()
        self.session_engine = None

    def _leave(self) -> Summary:
        """It is another process's: what was opened here is closed, and it lives on."""
        left = tuple(Leftover(one.caller, one.label) for one in self.connections.still_open())
        self.connections.close()
        return Summary(self.id, "left", time.monotonic() - self._began, left)

    def _leftovers(self) -> tuple[Leftover, ...]:
        if self.control is None:
            opened = self.connections.still_open()
            return tuple(Leftover(one.caller, one.label) for one in opened)
        if self.ended_by is not None:
            return ()
        try:
            sessions = self.control.sessions(self.id)
            seen = {session["id"] for session in sessions}
            for pause in SETTLE[:SETTLE_BLOCKING] if in_loop() else SETTLE:
                # What is known to be open here says none. Of what else there is, one may be on its way.
                if len(sessions) <= len(self.connections.still_open()):
                    break
                time.sleep(pause)
                sessions = [one for one in self.control.sessions(self.id) if one["id"] in seen]
        except (SidecarUnavailable, SidecarRefused) as error:
            log.debug("execpool: leftovers of execution %s are not known: %s", self.id, error)
            return ()
        return tuple(
            Leftover(one.get("caller"), one.get("label"), one.get("statement")) for one in sessions
        )

    def _end_at_sidecar(self, why: str) -> Answer | None:
        control = self.control
        if control is None:
            return None
        if self.ended_by is not None:
            return self._ended_before(control)
        until = time.monotonic() + PATIENCE
        while True:
            try:
                # What is still to be told of it comes first.
                return self._telling.now(lambda: control.end(self.id, why))
            except SidecarRefused as refused:
                if refused.code == "no_such_execution":
                    return None  # it was restarted, and nothing of it is left
                error: Exception = refused
            except SidecarUnavailable as unavailable:
                error = unavailable
            if time.monotonic() > until:
                log.warning(
                    "execpool: the end of execution %s could not be told to the sidecar, which ends "
                    "it by itself as its hold is closed: %s",
                    self.id,
                    error,
                )
                return None
            time.sleep(0.1)

    def _ended_before(self, control: Control) -> Answer | None:
        """The sidecar has ended it, and told so when nothing of it was left. Its id may be another
        run's by now, which is none of ours to end."""
        try:
            ended = control.ended(self.id)
        except SidecarError as error:
            log.debug("execpool: of execution %s no more is known: %s", self.id, error)
            return None
        if ended is None or ended.get("generation") != self.created.get("generation"):
            return None
        return ended | {"complete": not ended.get("leftovers")}

    def _summary(self, answer: Answer | None, left: tuple[Leftover, ...]) -> Summary:
        if answer is None:
            return Summary(
                self.id, self.ended_by or "deleted", time.monotonic() - self._began, left
            )
        if not answer.get("complete", True):
            log.warning(
                "execpool: of execution %s the backends %s are still there; the sidecar ends them",
                self.id,
                answer.get("remaining_pids"),
            )
        return Summary(
            id=self.id,
            reason=str(answer.get("reason")),
            duration_seconds=float(answer.get("duration_seconds") or 0.0),
            leftovers=left,
            complete=bool(answer.get("complete", True)),
            generation=answer.get("generation"),
            queries=answer.get("queries"),
            sessions=answer.get("sessions_joined"),
            held_seconds=answer.get("held_seconds"),
            active_seconds=answer.get("active_seconds"),
            peak_connections=answer.get("peak_connections"),
            sidecar=answer,
        )

    def after_fork(self) -> None:
        """In a forked child: it is named by what connects, and left to the parent."""
        self.gone = threading.Event()
        self.begun = threading.Lock()
        self.connections.after_fork()
        self._telling.after_fork()
        self.resources.after_fork()
        for act in self._in_child:
            try:
                act()
            except Exception as error:
                log.warning("execpool: execution %s is not let go by a fork: %s", self.id, error)
        self._in_child, self._at_end = [], []
        self.session_engine = None
        self._hold = None
