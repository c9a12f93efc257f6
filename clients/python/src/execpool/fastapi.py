"""FastAPI: an execution for each request, as a middleware or a dependency, and the counts of what is open.

    app.add_middleware(ExecutionMiddleware, deadline="1m")   # every request
    app.include_router(debug_router())

    @app.post("/ask")
    async def ask(scope: Annotated[ExecutionScope, Depends(execution)]) -> str: ...   # this one alone"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any

from fastapi import APIRouter
from fastapi.requests import HTTPConnection

from .checks import Duration, checked_duration, checked_labels, checked_pool
from .scope import ExecutionScope
from .starlette import DEBUG, KEY, ExecutionMiddleware, cleanup, debug_routes, request_id, status

__all__ = [
    "ExecutionMiddleware",
    "RequestExecution",
    "debug_router",
    "debug_routes",
    "execution",
    "request_id",
]


class RequestExecution:
    """A dependency: the request's execution, which its middleware has begun, or one that begins here and
    ends as the middleware's does. `Depends(RequestExecution(deadline="1m"))`.

    Of a websocket it is one execution for as long as that lasts."""

    def __init__(
        self,
        *,
        deadline: Duration | None = None,
        labels: Mapping[str, str] | None = None,
        pool: Mapping[str, int] | None = None,
        make_id: Callable[[Mapping[str, Any]], str] = request_id,
    ) -> None:
        # As they would fail in each request.
        self._deadline = checked_duration("deadline", deadline)
        self._labels = checked_labels(labels)
        self._pool = checked_pool(pool)
        self._make_id = make_id

    async def __call__(self, connection: HTTPConnection) -> AsyncGenerator[ExecutionScope, None]:
        """What FastAPI calls."""
        begun = connection.scope.get(KEY)
        if begun is not None:
            yield begun
            return
        scope = ExecutionScope(
            self._make_id({"method": "WEBSOCKET", **connection.scope}),
            deadline=self._deadline,
            labels=self._labels,
            pool=self._pool,
        )
        async with scope:
            connection.scope[KEY] = scope
            yield scope


execution = RequestExecution()
"""The dependency with no options: `Depends(execution)`."""


def debug_router(**options: Any) -> APIRouter:
    """`GET /api/memory/debug/connections/status` and `POST …/cleanup`: what is open, of the whole pod
    where there is a sidecar, else of this process. `options` are APIRouter's, such as
    `dependencies=[Depends(admins_only)]`: they tell ids of executions, so keep them from the public."""
    router = APIRouter(prefix=DEBUG, **options)
    router.add_api_route("/status", status, methods=["GET"], response_model=None)
    router.add_api_route("/cleanup", cleanup, methods=["POST"], response_model=None)
    return router
