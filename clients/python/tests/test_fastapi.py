"""A request is an execution, to its last byte and its last background task."""

from __future__ import annotations

import asyncio
import functools
import re
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import execpool.asyncpg
import execpool.psycopg
import httpx
import pytest
import uvicorn
from conftest import SOON, Postgres, Sidecar, eventually
from execpool import ExecutionScope, current_scope
from execpool.fastapi import ExecutionMiddleware, RequestExecution, debug_router, execution
from execpool.starlette import debug_routes
from fastapi import BackgroundTasks, Depends, FastAPI, WebSocket
from fastapi.testclient import TestClient
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

leaked: list[Any] = []


def leak() -> str | None:
    """Forgets a connection; answers the execution."""
    connection = execpool.psycopg.connect()
    connection.execute("SELECT 1")
    leaked.append(connection)
    scope = current_scope()
    return scope.id if scope else None


def application(**each: Any) -> FastAPI:
    """An app all of whose paths leak. `each` are the options of its paths: a dependency, or none."""
    app = FastAPI()
    app.state.ran = []
    app.state.go = threading.Event()

    @app.get("/async/{order}", **each)
    async def in_loop(order: int) -> str | None:
        leaked.append(connection := await execpool.asyncpg.connect())
        await connection.execute("SELECT 1")
        return await asyncio.to_thread(leak)

    @app.get("/sync", **each)
    def in_thread() -> str | None:
        return leak()

    @app.get("/stream", **each)
    async def stream() -> StreamingResponse:
        async def rows() -> AsyncIterator[str]:
            for _ in range(3):
                yield f"{await asyncio.to_thread(leak)}\n"
                await asyncio.sleep(0.05)

        return StreamingResponse(rows())

    @app.get("/background", **each)
    async def background(tasks: BackgroundTasks) -> str | None:
        def work() -> None:
            app.state.go.wait(SOON)
            app.state.ran.append(leak())

        tasks.add_task(work)
        return await asyncio.to_thread(leak)

    @app.get("/fail", **each)
    async def fail() -> None:
        leak()
        raise RuntimeError("the endpoint has failed")

    @app.websocket("/socket")
    async def talk(websocket: WebSocket) -> None:
        await websocket.accept()
        scope = current_scope()
        await websocket.send_text(str(scope and scope.id))
        await websocket.close()

    app.include_router(debug_router())
    return app


@contextmanager
def served(app: Any) -> Iterator[str]:
    """A real server of the app; its address."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="critical"))
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        try:
            assert eventually(lambda: server.started)
            yield f"127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


# Of itself it waits for 5 s.
get, post, stream = (functools.partial(act, timeout=SOON) for act in (httpx.get, httpx.post, httpx.stream))


def by_middleware() -> FastAPI:
    app = application()
    app.add_middleware(ExecutionMiddleware, deadline="1m", labels={"app": "shop"})
    return app


def by_dependency() -> FastAPI:
    each = RequestExecution(deadline="1m", labels={"app": "shop"})
    return application(dependencies=[Depends(each)])


WAYS = pytest.mark.parametrize("make", [by_middleware, by_dependency])


def is_closed(connection: Any) -> bool:
    own = getattr(connection, "is_closed", None)  # asyncpg's
    return bool(own() if own is not None else connection.closed)


def nothing_is_left(sidecar: Sidecar, postgres: Postgres) -> bool:
    """The response is there a moment before its execution has ended."""
    return eventually(
        lambda: sidecar.executions() == []
        and set(postgres.backends()) <= sidecar.shared_backends()
        and all(map(is_closed, leaked))
    )


@WAYS
def test_a_request_is_an_execution(sidecar: Sidecar, postgres: Postgres, make: Any) -> None:
    with served(make()) as at:
        ids = [get(f"http://{at}{path}").json() for path in ("/async/7", "/sync", "/sync")]
        assert nothing_is_left(sidecar, postgres)
    assert re.fullmatch(r"GET_async_7_[0-9a-f]{16}", ids[0]), ids
    assert len(set(ids)) == 3
    summary = sidecar.control.ended(ids[1])
    assert summary is not None and summary["reason"] == "deleted"


@WAYS
def test_a_streamed_response_is_in_its_execution_to_the_last_byte(
    sidecar: Sidecar, postgres: Postgres, make: Any
) -> None:
    with served(make()) as at:
        rows = get(f"http://{at}/stream").text.split()
        assert nothing_is_left(sidecar, postgres)
        assert len(rows) == 3 and len(set(rows)) == 1 and rows[0].startswith("GET_stream_")
        # A client that goes away ends it, too.
        with stream("GET", f"http://{at}/stream") as response:
            next(response.iter_lines())
        assert nothing_is_left(sidecar, postgres)


@WAYS
def test_background_tasks_are_in_the_execution_of_their_request(
    sidecar: Sidecar, postgres: Postgres, make: Any
) -> None:
    app = make()
    with served(app) as at:
        begun = get(f"http://{at}/background").json()
        assert sidecar.executions() == [begun]
        app.state.go.set()
        assert nothing_is_left(sidecar, postgres)
    assert app.state.ran == [begun]


@WAYS
def test_a_request_that_fails_leaves_nothing(sidecar: Sidecar, postgres: Postgres, make: Any) -> None:
    with served(make()) as at:
        assert get(f"http://{at}/fail").status_code == 500
        assert get(f"http://{at}/absent").status_code == 404
        assert nothing_is_left(sidecar, postgres)


@WAYS
def test_requests_at_once_keep_to_themselves(
    sidecar: Sidecar, postgres: Postgres, make: Any
) -> None:
    async def ask_at_once(at: str) -> list[str]:
        async with httpx.AsyncClient(timeout=SOON) as client:
            answers = (client.get(f"http://{at}/sync") for _ in range(60))
            return [one.json() for one in await asyncio.gather(*answers)]

    with served(make()) as at:
        assert len(set(asyncio.run(ask_at_once(at)))) == 60
        assert nothing_is_left(sidecar, postgres)


@WAYS
def test_websockets_pass_through(sidecar: Sidecar, make: Any) -> None:
    from websockets.sync.client import connect

    with served(make()) as at, connect(f"ws://{at}/socket", open_timeout=SOON) as talk:
        assert talk.recv(SOON) == "None"


def test_middleware_and_dependency_together_are_one_execution(sidecar: Sidecar) -> None:
    app = FastAPI()
    app.add_middleware(ExecutionMiddleware, skip=lambda request: request["path"] == "/healthz")

    @app.get("/")
    async def both(scope: Annotated[ExecutionScope, Depends(execution)]) -> list[Any]:
        inner = current_scope()
        seen = await asyncio.to_thread(sidecar.executions)
        return [scope.id, inner and inner.id, seen]

    @app.get("/healthz")
    def health() -> bool:
        return current_scope() is None

    with served(app) as at:
        given, current, seen = get(f"http://{at}/").json()
        assert given == current and seen == [given]
        assert get(f"http://{at}/healthz").json() is True


def test_an_app_within_an_app_is_in_one_execution(sidecar: Sidecar) -> None:
    inner, outer = FastAPI(), FastAPI()

    @inner.get("/")
    async def seen() -> list[Any]:
        scope = current_scope()
        return [scope and scope.id, await asyncio.to_thread(sidecar.executions)]

    for app in (inner, outer, outer):
        app.add_middleware(ExecutionMiddleware)
    outer.mount("/inner", inner)
    with served(outer) as at:
        current, executions = get(f"http://{at}/inner/").json()
    assert executions == [current]


def test_a_sidecar_that_is_required_and_away_fails_the_request(
    direct: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EXECPOOL", "required")
    with served(by_middleware()) as at:
        assert get(f"http://{at}/sync").status_code == 500
        answer = get(f"http://{at}/api/memory/debug/connections/status")
    assert answer.status_code in (500, 503)


def test_without_a_sidecar_requests_are_cleaned_up_in_the_process(direct: Postgres) -> None:
    for make in (by_middleware, by_dependency):
        with served(make()) as at:
            assert get(f"http://{at}/sync").json().startswith("GET_sync_")
            assert get(f"http://{at}/async/1").json().startswith("GET_async_1_")
            assert eventually(lambda: not direct.backends()), direct.backends()


COUNTS = {"sql_engines": 1, "sql_databases": 1, "custom_connections": 0}


def check_shape(look: Callable[[], httpx.Response], executions: dict[str, Any]) -> None:
    def counted() -> bool:
        return bool(look().json()["data"]["connection_stats"]["executions"] == executions)

    # A query is answered a moment before it is counted.
    assert eventually(counted), look().json()
    answer = look()
    said = answer.json()
    assert answer.status_code == 200
    assert list(said) == ["success", "data"] and said["success"] is True
    assert list(said["data"]) == ["connection_stats", "timestamp"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", said["data"]["timestamp"])
    total = sum(sum(one.values()) for one in executions.values())
    assert said["data"]["connection_stats"] == {
        "active_executions": len(executions),
        "total_tracked_connections": total,
        "executions": executions,
    }


def debug_apps() -> list[Any]:
    return [Starlette(routes=debug_routes()), by_middleware_with_probes_left_out()]


def by_middleware_with_probes_left_out() -> FastAPI:
    app = FastAPI()
    app.include_router(debug_router())
    return app


def test_the_debug_endpoints_answer_in_the_shape_that_is_known(sidecar: Sidecar) -> None:
    for app in debug_apps():
        with served(app) as at, ExecutionScope("user1_conv1"):
            connection = execpool.psycopg.connect()
            connection.execute("SELECT 1")
            url = f"http://{at}/api/memory/debug/connections"
            check_shape(lambda: get(f"{url}/status"), {"user1_conv1": COUNTS})
            check_shape(lambda: post(f"{url}/cleanup"), {"user1_conv1": COUNTS})
            assert get(f"{url}/cleanup").status_code == 405
            # No live session is touched.
            connection.execute("SELECT 1")
            connection.close()


def test_the_debug_endpoints_count_this_process_without_a_sidecar(direct: Postgres) -> None:
    for app in debug_apps():
        with served(app) as at, ExecutionScope("user1_conv1"):
            execpool.create_execution_scoped_engine()
            execpool.create_execution_scoped_sql_database()
            counts = {"sql_engines": 2, "sql_databases": 1, "custom_connections": 0}
            url = f"http://{at}/api/memory/debug/connections"
            check_shape(lambda: get(f"{url}/status"), {"user1_conv1": counts})
            check_shape(lambda: post(f"{url}/cleanup"), {"user1_conv1": counts})


def test_the_debug_endpoints_say_that_the_sidecar_is_away(own_sidecar: Sidecar) -> None:
    own_sidecar.kill()
    for app in debug_apps():
        with served(app) as at:
            answer = get(f"http://{at}/api/memory/debug/connections/status")
            assert answer.status_code == 503 and answer.json()["success"] is False
            assert "does not answer" in answer.json()["error"]


def test_starlette_alone_is_served_too(sidecar: Sidecar, postgres: Postgres) -> None:
    def endpoint(request: Request) -> JSONResponse:
        return JSONResponse(leak())

    app = Starlette(routes=[Route("/", endpoint)])
    app.add_middleware(ExecutionMiddleware)
    with served(app) as at:
        assert get(f"http://{at}/").json().startswith("GET_")
        assert nothing_is_left(sidecar, postgres)


@pytest.mark.parametrize(
    "given", [{"deadline": "10 min"}, {"labels": {"a": 1}}, {"pool": {"sise": 3}}], ids=lambda it: next(iter(it))
)
def test_a_mistake_is_told_as_the_app_starts_and_not_in_each_request(given: Any) -> None:
    with pytest.raises(execpool.InvalidExecution):
        RequestExecution(**given)
    with pytest.raises(execpool.InvalidExecution):
        ExecutionMiddleware(FastAPI(), **given)
    app = FastAPI()
    app.add_middleware(ExecutionMiddleware, **given)
    with pytest.raises(execpool.InvalidExecution), TestClient(app):
        pass
