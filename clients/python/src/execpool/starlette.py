"""Starlette: an execution for each request, and the counts of what is open.

    app.add_middleware(ExecutionMiddleware, deadline="1m")
    app.routes.extend(debug_routes())

Of what runs outside of requests, such as a task that outlives its request, nothing is in the
request's execution: it needs an ExecutionScope of its own."""

from __future__ import annotations

import datetime
import logging
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from .checks import Duration, checked_duration, checked_labels, checked_pool
from .control import Answer
from .errors import SidecarRefused, SidecarUnavailable
from .manager import ExecutionConnectionManager
from .scope import ExecutionScope, make_id
from .settings import Settings
from .sidecar import find

__all__ = ["DEBUG", "ExecutionMiddleware", "debug_routes", "request_id"]

log = logging.getLogger("execpool")

Asgi = MutableMapping[str, Any]
"""ASGI's scope, which is none of ours."""
Receive = Callable[[], Awaitable[Asgi]]
Send = Callable[[Asgi], Awaitable[None]]
App = Callable[[Asgi, Receive, Send], Awaitable[None]]

KEY = "execpool.scope"
"""Under which a request's ExecutionScope is found in ASGI's scope."""

DEBUG = "/api/memory/debug/connections"
"""Where the counts of what is open are served."""


def request_id(request: Mapping[str, Any]) -> str:
    """`METHOD_PATH_RANDOM`, of ASGI's scope: what an id must not have becomes `_`."""
    return make_id(request["method"], request["path"].strip("/"))


class ExecutionMiddleware:
    """An execution for each HTTP request: it begins before the app is called, and ends when the
    response is sent wholly - streamed ones, too - and its background tasks have run, or when the app
    has failed. It waits until nothing of it is left.

    Websockets and the app's lifespan pass through: they last too long for one execution, so that
    each message, or whatever is one run there, takes an ExecutionScope. So do requests for which
    `skip` is true of ASGI's scope, such as probes.

    Where the sidecar is required and does not answer, the request fails by SidecarUnavailable."""

    def __init__(
        self,
        app: App,
        *,
        deadline: Duration | None = None,
        labels: Mapping[str, str] | None = None,
        pool: Mapping[str, int] | None = None,
        make_id: Callable[[Mapping[str, Any]], str] = request_id,
        skip: Callable[[Mapping[str, Any]], bool] | None = None,
        settings: Settings | None = None,
    ) -> None:
        self.app = app
        # As they would fail in each request.
        self._deadline = checked_duration("deadline", deadline)
        self._labels = checked_labels(labels)
        self._pool = checked_pool(pool)
        self._make_id = make_id
        self._skip = skip
        self._settings = settings

    async def __call__(self, scope: Asgi, receive: Receive, send: Send) -> None:
        # One that is mounted within another has its request's execution already.
        passes = scope["type"] != "http" or KEY in scope
        if passes or (self._skip is not None and self._skip(scope)):
            await self.app(scope, receive, send)
            return
        execution = ExecutionScope(
            self._make_id(scope),
            deadline=self._deadline,
            labels=self._labels,
            pool=self._pool,
            settings=self._settings,
        )
        async with execution:
            scope[KEY] = execution
            await self.app(scope, receive, send)


def debug_routes() -> list[Route]:
    """`GET /api/memory/debug/connections/status` and `POST …/cleanup`: what is open, of the whole pod
    where there is a sidecar, else of this process. They tell ids of executions: keep them from the public."""
    return [
        Route(f"{DEBUG}/status", status, methods=["GET"]),
        Route(f"{DEBUG}/cleanup", cleanup, methods=["POST"]),
    ]


async def status(request: Request) -> JSONResponse:
    """How much is open in each execution."""
    return await _answered(_status)


async def cleanup(request: Request) -> JSONResponse:
    """Logs and removes what is left of executions that have ended - never a live session - and
    answers as `status`."""
    return await _answered(_cleanup)


async def _answered(ask: Callable[[], Answer]) -> JSONResponse:
    try:
        return JSONResponse(await run_in_threadpool(ask))
    except SidecarUnavailable as error:
        return JSONResponse({"success": False, "error": str(error)}, 503)
    except SidecarRefused as error:
        return JSONResponse({"success": False, "error": str(error)}, error.status)


def _status() -> Answer:
    sidecar = find(Settings.from_environment())
    return _of_this_process() if sidecar is None else sidecar.control.debug_status()


def _cleanup() -> Answer:
    sidecar = find(Settings.from_environment())
    if sidecar is not None:
        return sidecar.control.debug_cleanup()
    answer = _of_this_process()
    # Within a process nothing is left of an execution that has ended.
    log.info("execpool: open in this process: %s", answer["data"]["connection_stats"])
    return answer


def _of_this_process() -> Answer:
    now = datetime.datetime.now(datetime.timezone.utc)
    return {
        "success": True,
        "data": {
            "connection_stats": ExecutionConnectionManager().get_stats(),
            "timestamp": now.strftime("%Y-%m-%dT%H:%M:%S"),
        },
    }
