"""`ExecutionScope`: one run of the app, whose connections end with it."""

from __future__ import annotations

import asyncio
import contextvars
import re
import uuid
import weakref
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from types import TracebackType
from typing import TypeVar

from . import caller, current
from .checks import Duration, checked_duration, checked_id, checked_labels, checked_pool
from .decorate import decorated
from .dsn import is_postgres, through, with_options
from .errors import ExecpoolError, ExecutionEnded
from .execution import Execution, Request, Summary
from .naming import Naming
from .registry import registry
from .resources import CLOSE_PATIENCE, Kind, Tracked
from .settings import Settings
from .workers import finish, in_loop, within, workers

F = TypeVar("F", bound=Callable[..., object])
T = TypeVar("T")


def make_id(*parts: object) -> str:
    """An execution id from parts such as a user's and a conversation's: what an id must not have
    becomes `_`, and what is unique stays so by a random end."""
    joined = "_".join(re.sub(r"[^A-Za-z0-9_@.-]", "_", str(part)) for part in parts)
    joined = joined[:110].lstrip(".") or "run"
    if joined.startswith("session-"):  # the sidecar's own
        joined = "_" + joined
    return f"{joined}_{uuid.uuid4().hex[:16]}"


class ExecutionScope:
    """One run of the app: connections made within belong to it, and are gone when it is left.

        with ExecutionScope("run-42", deadline="10m", labels={"agent": "sales"}) as scope:
            ...

    Also `async with`, and as a decorator of functions, coroutine functions and generators, where
    each call is a run. Without an id one is made up. Scopes of one id within a process are one
    execution, as the first of them asks for, which ends with the last of them: what another asks for besides
    is not done, and a warning says so. An id that another process has open raises ExecutionExists, unless
    `join` says that it is meant.

    `pool` is this execution's share, such as `{"size": 4, "overflow": 0}`. Without a sidecar
    `deadline`, `labels` and `pool` have no effect."""

    def __init__(
        self,
        execution_id: str | None = None,
        *,
        deadline: Duration | None = None,
        labels: Mapping[str, str] | None = None,
        pool: Mapping[str, int] | None = None,
        join: bool = False,
        settings: Settings | None = None,
    ) -> None:
        self._given_id = None if execution_id is None else checked_id(execution_id)
        self._request = Request(
            execution_id or "",
            checked_duration("deadline", deadline),
            checked_labels(labels),
            checked_pool(pool),
            join,
        )
        self._settings = settings
        self._execution: Execution | None = None
        self._token: contextvars.Token[ExecutionScope | None] | None = None
        self._never_left: weakref.finalize[[Execution], ExecutionScope] | None = None
        self.outer: ExecutionScope | None = None
        """The scope within which it was entered."""
        self.entered_by: object = None
        self.is_left = False
        self.summary: Summary | None = None
        """What has become of it, once it is left; None for one of several of one id but the last."""

    # ---- what it is

    @property
    def execution(self) -> Execution:
        """The execution; raises before the scope is entered."""
        if self._execution is None:
            raise ExecpoolError("the ExecutionScope was not entered: use it by `with`")
        return self._execution

    @property
    def id(self) -> str:
        """The execution's id."""
        return self._execution.id if self._execution else self._request.id

    execution_id = id

    @property
    def uses_sidecar(self) -> bool:
        """Whether its connections go through the sidecar."""
        return self.execution.sidecar is not None

    @property
    def url(self) -> str:
        """A PostgreSQL URL by which a driver, or another program, joins the execution; without a
        sidecar the database's own."""
        execution = self.execution
        url = execution.settings.database_url
        if execution.sidecar is None:
            return execution.settings.url()
        if url is None or not is_postgres(url):
            return str(execution.created["url"])
        naming = Naming(execution.id, caller.caller(), current.current_label(), None)
        return with_options(through(execution.sidecar, url), naming.options())

    # ---- entering and leaving

    def __enter__(self) -> ExecutionScope:
        self._enter(registry.enter(self._begin(), self._chosen()))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._leave():
            self.summary = registry.leave(self.execution, _why(kind))

    async def __aenter__(self) -> ExecutionScope:
        if not in_loop():
            raise ExecpoolError(
                "`async with ExecutionScope` needs asyncio, or anyio on it, and no loop of that runs here: "
                "with another one, such as trio, use `with ExecutionScope` in a thread"
            )
        request, settings = self._begin(), self._chosen()
        entering = workers.run(lambda: registry.enter(request, settings))
        try:
            execution, cancelled = await finish(entering)
        except GeneratorExit:
            entering.add_done_callback(_leave_at_once)
            raise
        if cancelled is not None:
            try:
                await finish(workers.run(lambda: registry.leave(execution, "cancelled as it began")))
            except Exception as failed:
                raise cancelled from failed
            raise cancelled
        self._enter(execution)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is GeneratorExit:
            # A coroutine that is being closed can't wait.
            self.__exit__(kind, error, traceback)
            return
        if not self._leave():
            return
        execution = self.execution
        cancelled: BaseException | None = None
        try:
            if execution.users == 1:
                await within(CLOSE_PATIENCE, execution.close_resources())
        except (TimeoutError, asyncio.TimeoutError):
            pass
        except asyncio.CancelledError as again:
            cancelled = again
        except BaseException as error:
            # A coroutine that is being closed, or an interrupt: there is nothing to wait for.
            self.summary = registry.leave(execution, _why(type(error)))
            raise
        leaving = workers.run(lambda: registry.leave(execution, _why(kind)))
        try:
            self.summary, later = await finish(leaving)
        except Exception as failed:
            if cancelled is None:
                raise
            # The task has to end all the same.
            raise cancelled from failed
        if cancelled or later:
            raise cancelled or later  # type: ignore[misc]

    def __call__(self, function: F) -> F:
        """Decorates a function: each call is a run. With an id, calls at the same time share it."""
        return decorated(self._fresh, function)

    def _fresh(self) -> ExecutionScope:
        asked = self._request
        return ExecutionScope(
            self._given_id,
            deadline=asked.deadline,
            labels=asked.labels,
            pool=asked.pool,
            join=asked.join,
            settings=self._settings,
        )

    def _chosen(self) -> Settings:
        return self._settings or Settings.from_environment()

    def _begin(self) -> Request:
        if self._execution is not None and not self.is_left:
            raise ExecpoolError(
                f"the ExecutionScope {self.id} is entered already: make one for each run"
            )
        asked = self._request
        chosen = self._given_id or f"run-{uuid.uuid4().hex}"
        _refuse_within_dead(chosen)
        self._request = Request(chosen, asked.deadline, asked.labels, asked.pool, asked.join)
        return self._request

    def _enter(self, execution: Execution) -> None:
        self._execution = execution
        self.is_left = False
        self.summary = None
        self.outer = current.current_scope()
        self.entered_by = current.here()
        self._token = current.scope.set(self)
        self._never_left = weakref.finalize(self, registry.forget, execution)
        self._never_left.atexit = False

    def _leave(self) -> bool:
        """Goes back to the outer scope; answers whether this one was not left before: another scope of
        that id may still be in the execution."""
        if self.is_left:
            return False
        self.is_left = True
        if self._never_left is not None:
            self._never_left.detach()
        # Left before one that was entered later: that one stays, and goes past this one as it is left.
        if self._token is not None and current.scope.get() is self:
            try:
                current.scope.reset(self._token)
            except ValueError:
                # Left in another context, as a generator is that was abandoned.
                current.scope.set(self.outer)
        self._token = None
        # Runs that begin each other from within would keep all of those before.
        while self.outer is not None and self.outer.is_left:
            self.outer = self.outer.outer
        return True

    # ---- meanwhile

    def track(
        self, resource: T, kind: Kind = "other", name: str | None = None, ttl: Duration | None = None
    ) -> T:
        """Closes a resource when the scope ends, and lets the sidecar know of it; answers it. In a
        coroutine it does not wait for the sidecar: another thread tells it, and logs what fails.

        It has a `close`, `aclose`, `stop`, `quit`, `shutdown` or `dispose`, or can be called."""
        where = caller.caller()
        name = name or f"{type(resource).__name__} at {(where or 'an unknown place').split(' < ')[0]}"
        self.execution.track(Tracked(resource, kind, name, where), checked_duration("ttl", ttl))
        return resource

    def untrack(self, resource: object) -> bool:
        """Stops tracking a resource that is closed; answers whether it was tracked."""
        return self.execution.untrack(resource)

    def heartbeat(self, extend: Duration | None = None) -> float | None:
        """Moves the deadline: to so long from now, or by its original length from now. Answers the
        seconds until then, None without a deadline. Raises ExecutionEnded for a straggler.

        In a coroutine it does not wait, and so answers None: another thread tells the sidecar, and
        logs what fails. `await scope.heartbeat_async()` answers there."""
        asked = checked_duration("heartbeat", extend)
        if not in_loop():
            return self.execution.heartbeat(asked)
        self.execution.heartbeat_soon(asked)
        return None

    async def heartbeat_async(self, extend: Duration | None = None) -> float | None:
        """The same for a coroutine that wants the answer, or the failure. Cancel safe: the deadline is
        moved all the same."""
        execution, asked = self.execution, checked_duration("heartbeat", extend)
        seconds, cancelled = await finish(workers.run(lambda: execution.heartbeat(asked)))
        if cancelled is not None:
            raise cancelled
        return seconds

    def run(self, function: Callable[..., T], *args: object, **kwargs: object) -> T:
        """Calls a function within this scope: in a thread that begins in none."""
        context = contextvars.copy_context()
        context.run(current.scope.set, self)
        return context.run(function, *args, **kwargs)


def track(
    resource: T, kind: Kind = "other", name: str | None = None, ttl: Duration | None = None
) -> T:
    """The same in the current scope. Outside of any nothing is tracked."""
    scope = current.current_scope()
    return resource if scope is None else scope.track(resource, kind, name, ttl)


def _refuse_within_dead(chosen: str) -> None:
    """Code of a run that the sidecar has ended does not bring it back by entering it once more."""
    around = current.current_scope()
    while around is not None:
        if around.id == chosen and around.execution.ended_by is not None and not around.is_left:
            raise ExecutionEnded(
                f"execution {chosen} has ended ({around.execution.ended_by}), and this code still runs in "
                "it: let it end. Code outside of it begins the id anew by an ExecutionScope of its own"
            )
        around = around.outer


def _why(kind: type[BaseException] | None) -> str:
    return "its scope was left" if kind is None else f"its scope was left by {kind.__name__}"


def _leave_at_once(entering: Future[Execution]) -> None:
    """The coroutine that entered was closed meanwhile."""
    if entering.exception() is None:
        registry.leave(entering.result(), "closed as it began")
