"""The control API, asked over its Unix socket with the standard library's HTTP client."""

from __future__ import annotations

import http.client
import json
import os
import socket
import weakref
from collections.abc import Mapping
from typing import Any, cast
from urllib.parse import quote, urlencode

from .errors import SidecarRefused, SidecarUnavailable

Answer = dict[str, Any]

TIMEOUT = 5.0
"""Seconds within which the sidecar answers what needs no database."""
END_TIMEOUT = 15.0
"""The same for the end of an execution, which it waits 5 s for."""


_streams: weakref.WeakSet[socket.socket] = weakref.WeakSet()
"""Streams that hold executions, whoever has them in hand."""


def _close_streams() -> None:
    """In a forked child: they are the parent's, and no copy of them may outlive it."""
    for held in list(_streams):
        held.close()


os.register_at_fork(after_in_child=_close_streams)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("execpool", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = _connect(self._path, self.timeout)


def _connect(path: str, timeout: float | None) -> socket.socket:
    connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connected.settimeout(timeout)
        connected.connect(path)
    except BaseException:
        connected.close()
        raise
    return connected


class Control:
    """The sidecar's control API. Each call is a connection of its own; calls are thread-safe.

    What fails raises SidecarUnavailable or SidecarRefused."""

    def __init__(self, path: str, timeout: float = TIMEOUT) -> None:
        self.path = path
        self._timeout = timeout

    def begin(
        self,
        execution: str,
        deadline: str | None = None,
        labels: Mapping[str, str] | None = None,
        pool: Mapping[str, int] | None = None,
    ) -> Answer:
        """Begins an execution, or adopts the implicit one of that id."""
        asked: Answer = {"id": execution}
        if deadline is not None:
            asked["deadline"] = deadline
        if labels:
            asked["labels"] = dict(labels)
        if pool:
            asked["pool"] = dict(pool)
        return self._ask("POST", "/v1/executions", asked)

    def end(self, execution: str, reason: str) -> Answer:
        """Ends an execution; answers its summary when nothing of it is left, after 5 s at most."""
        return self._ask("DELETE", _path(execution, reason=reason[:512]), timeout=END_TIMEOUT)

    def status(self) -> Answer:
        """The budget, the upstreams, the counts."""
        return self._ask("GET", "/v1/status")

    def executions(self, ended: bool = False) -> list[Answer]:
        """All executions; with those that have ended lately, if they are asked for."""
        answer = self._request("GET", f"/v1/executions?{urlencode({'ended': str(ended).lower()})}")
        if isinstance(answer, dict):
            answer = cast(Answer, answer).get("executions", [])
        return cast("list[Answer]", answer)

    def execution(self, execution: str) -> Answer:
        """An execution that has not ended."""
        return self._ask("GET", _path(execution))

    def ended(self, execution: str) -> Answer | None:
        """What is kept of the last of that id that has ended; None if nothing is."""
        try:
            return self._ask("GET", _path(execution, ended="true"))
        except SidecarRefused as refused:
            if refused.code == "no_such_execution":
                return None
            raise

    def heartbeat(self, execution: str, extend: str | None = None) -> Answer:
        """Moves the deadline: to so long from now, or by its original length from now."""
        asked = {} if extend is None else {"extend": extend}
        return self._ask("POST", _path(execution, "/heartbeat"), asked)

    def sessions(self, execution: str) -> list[Answer]:
        """The sessions of an execution."""
        answer = self._request("GET", f"/v1/sessions?{urlencode({'execution': execution})}")
        if isinstance(answer, dict):
            answer = cast(Answer, answer).get("sessions", [])
        return cast("list[Answer]", answer)

    def register(self, execution: str, kind: str, name: str, ttl: str | None = None) -> int:
        """Registers a resource of the app's; answers its number."""
        asked = {"kind": kind, "name": name} | ({} if ttl is None else {"ttl": ttl})
        return int(self._ask("POST", _path(execution, "/resources"), asked)["id"])

    def release(self, execution: str, resource: int) -> None:
        """Releases a resource."""
        self._request("DELETE", _path(execution, f"/resources/{resource}"))

    def stats(self) -> Answer:
        """The pod's counts in the shape of `ExecutionConnectionManager.get_stats()`."""
        return cast(Answer, self.debug_status()["data"]["connection_stats"])

    def debug_status(self) -> Answer:
        """The same with the time, in the shape of home-made debug endpoints."""
        return self._ask("GET", "/api/memory/debug/connections/status")

    def debug_cleanup(self) -> Answer:
        """Has leftovers of ended executions logged and removed; answers as `debug_status`."""
        return self._ask("POST", "/api/memory/debug/connections/cleanup")

    def open_hold(self, execution: str) -> tuple[socket.socket, bytes]:
        """Opens a stream that holds an execution: the socket, which has no time-out, and what was
        read beyond the answer's head."""
        asked = f"GET {_path(execution, '/hold')} HTTP/1.0\r\nHost: execpool\r\n\r\n"
        try:
            held = _connect(self.path, self._timeout)
        except OSError as error:
            raise self._unavailable(error) from error
        _streams.add(held)
        try:
            try:
                held.sendall(asked.encode())
                head, rest = _read_head(held)
            except OSError as error:
                raise self._unavailable(error) from error
            said = head.split(b" ", 2)
            if len(said) < 2 or not said[1].isdigit():
                raise SidecarRefused(0, "unknown_answer", "its answer is not HTTP", "")
            status = int(said[1])
            if status != 200:
                raise _refused(status, rest + _read_all(held))
            held.settimeout(None)
            return held, rest
        except BaseException:
            held.close()
            raise

    def _ask(
        self, method: str, path: str, asked: Answer | None = None, timeout: float | None = None
    ) -> Answer:
        answer = self._request(method, path, asked, timeout)
        if not isinstance(answer, dict):
            raise SidecarRefused(200, "unknown_answer", f"{path} is not answered by an object", "")
        return cast(Answer, answer)

    def _request(
        self, method: str, path: str, asked: Answer | None = None, timeout: float | None = None
    ) -> object:
        connection = _UnixConnection(self.path, timeout or self._timeout)
        try:
            body = None if asked is None else json.dumps(asked)
            connection.request(method, path, body, {"Connection": "close"})
            response = connection.getresponse()
            status, text = response.status, response.read()
        except (OSError, http.client.HTTPException) as error:
            raise self._unavailable(error) from error
        finally:
            connection.close()
        if status >= 400:
            raise _refused(status, text)
        try:
            return cast(object, json.loads(text)) if text else None
        except ValueError:
            raise SidecarRefused(status, "unknown_answer", "its answer is not JSON", "") from None

    def _unavailable(self, error: Exception) -> SidecarUnavailable:
        if isinstance(error, PermissionError):
            return SidecarUnavailable(
                f"the execpool sidecar's socket {self.path} may not be opened by user {os.geteuid()} with "
                f"the groups {sorted({os.getegid(), *os.getgroups()})}: let the app run in the socket's "
                "group (in a pod: fsGroup), or look at listen.mode and listen.group."
            )
        why = str(error) or type(error).__name__
        return SidecarUnavailable(
            f"the execpool sidecar does not answer at {self.path}: {why}. "
            "Look whether its container runs, and whether EXECPOOL_DIR is its directory."
        )


def _path(execution: str, rest: str = "", **query: str) -> str:
    path = f"/v1/executions/{quote(execution, safe='')}{rest}"
    return f"{path}?{urlencode(query)}" if query else path


def _refused(status: int, text: bytes) -> SidecarRefused:
    try:
        problem = json.loads(text)
        said = {name: str(problem.get(name) or "") for name in ("code", "detail", "hint")}
    except (ValueError, AttributeError):
        said = {"code": "unknown", "detail": text[:200].decode(errors="replace"), "hint": ""}
    return SidecarRefused(status, **said)


def _read_head(held: socket.socket) -> tuple[bytes, bytes]:
    read = b""
    while b"\r\n\r\n" not in read:
        more = held.recv(4096)
        if not more:
            raise ConnectionResetError("it has closed the connection")
        read += more
    head, _, rest = read.partition(b"\r\n\r\n")
    return head, rest


def _read_all(held: socket.socket) -> bytes:
    read = b""
    try:
        while more := held.recv(4096):
            read += more
    except OSError:
        pass
    return read
