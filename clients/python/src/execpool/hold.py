"""Streams that hold executions: while one is open the execution lives, and the process's death
closes it.

One daemon thread reads all of them. A stream that breaks is opened again; where the sidecar was
restarted meanwhile, and so has forgotten the execution, it is registered again first."""

from __future__ import annotations

import contextvars
import json
import logging
import os
import selectors
import socket
import threading
import time
from collections.abc import Callable
from typing import Any, cast

from .control import Answer, Control
from .errors import SidecarError, SidecarRefused, SidecarUnavailable

log = logging.getLogger("execpool")

FIRST_PAUSE = 0.02
LONGEST_PAUSE = 1.0
"""Seconds between two attempts to open a stream again."""


class Hold:
    """The stream of one execution. Its owner makes it and gives it to the keeper."""

    def __init__(
        self,
        control: Control,
        execution: str,
        register: Callable[[], bool],
        on_ended: Callable[[str, list[Answer]], None],
    ) -> None:
        self.control = control
        self.execution = execution
        self.register = register
        """Registers the execution anew with a sidecar that does not know it; False: it has ended."""
        self.on_ended = on_ended
        """Is told, in the keeper's thread, why the sidecar has ended it, and what was left."""
        self.socket: socket.socket | None = None
        self.is_wanted = True
        self._unread = b""
        self._left: list[Answer] = []
        self.pause = FIRST_PAUSE
        self.next_attempt = 0.0

    def open(self) -> None:
        """Opens the stream; raises as the control API does."""
        self.socket, self._unread = self.control.open_hold(self.execution)
        self._left = []

    def read(self, more: bytes) -> str | None:
        """Takes what has come; answers why the execution has ended, once that is told."""
        *lines, self._unread = (self._unread + more).split(b"\n")
        for line in lines:
            if not line.startswith(b"{"):
                continue
            told = cast("dict[str, Any]", json.loads(line))
            if told.get("event") == "resources_left":
                self._left = list(told.get("resources") or [])
            elif told.get("event") == "ended":
                return str(told.get("reason") or "unknown")
        return None

    def end(self, reason: str) -> None:
        self.is_wanted = False
        self.on_ended(reason, self._left)

    def close(self) -> None:
        if self.socket is not None:
            self.socket.close()
            self.socket = None


class Keeper:
    """The thread that keeps the streams of this process open."""

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._holds: set[Hold] = set()
        self._thread: threading.Thread | None = None
        self._wake: socket.socket | None = None

    def keep(self, hold: Hold) -> None:
        """Keeps an open stream from now on. Raises RuntimeError where no thread can be started."""
        with self._lock:
            if self._thread is None:
                self._begin()
            self._holds.add(hold)
        self._nudge()

    def _begin(self) -> None:
        asleep, wake = socket.socketpair()
        wake.setblocking(False)
        thread = threading.Thread(target=self._run, args=(asleep,), name="execpool-hold", daemon=True)
        try:
            # In no scope, whichever is current: it outlives them.
            contextvars.Context().run(thread.start)
        except BaseException:
            asleep.close()
            wake.close()
            raise
        self._thread, self._wake = thread, wake

    def drop(self, hold: Hold) -> None:
        """Lets a stream go. The thread closes it, as it may be reading."""
        hold.is_wanted = False
        self._nudge()

    def after_fork(self) -> None:
        """In a forked child: the streams are the parent's. `control` has closed the copies."""
        for hold in self._holds:
            hold.is_wanted = False
        if self._wake is not None:
            self._wake.close()
        self._reset()

    def _nudge(self) -> None:
        wake = self._wake
        if wake is not None:
            try:
                wake.send(b"\0")
            except OSError:  # full: it will wake anyhow
                pass

    def _run(self, asleep: socket.socket) -> None:
        # Not epoll: what it knows is shared with forked children.
        poll = getattr(selectors, "PollSelector", selectors.SelectSelector)
        selector = cast(selectors.BaseSelector, poll())
        selector.register(asleep, selectors.EVENT_READ)
        while True:
            try:
                self._turn(selector, asleep)
            except Exception:
                log.exception("execpool: the thread that holds executions stumbles, and goes on")
                time.sleep(LONGEST_PAUSE)

    def _turn(self, selector: selectors.BaseSelector, asleep: socket.socket) -> None:
        with self._lock:
            self._holds -= {hold for hold in self._holds if self._settle(selector, hold)}
            attempts = [hold.next_attempt for hold in self._holds if hold.socket is None]
        wait = max(0.0, min(attempts) - time.monotonic()) if attempts else None
        for key, _ in selector.select(wait):
            if key.fileobj is asleep:
                asleep.recv(4096)
            else:
                self._read(selector, cast(Hold, key.data))
        now = time.monotonic()
        with self._lock:
            holds = list(self._holds)
        for hold in holds:
            if hold.is_wanted and hold.socket is None and hold.next_attempt <= now:
                self._open_again(hold)

    def _settle(self, selector: selectors.BaseSelector, hold: Hold) -> bool:
        """Begins to read a new stream; answers whether one is done with."""
        known = selector.get_map()
        if hold.is_wanted and hold.socket is not None and hold.socket.fileno() not in known:
            selector.register(hold.socket, selectors.EVENT_READ, hold)
        if not hold.is_wanted:
            self._close(selector, hold)
        return not hold.is_wanted

    def _read(self, selector: selectors.BaseSelector, hold: Hold) -> None:
        if hold.socket is None or not hold.is_wanted:
            return
        try:
            more = hold.socket.recv(65536, socket.MSG_DONTWAIT)
        except (BlockingIOError, TimeoutError, InterruptedError):
            return
        except OSError:
            more = b""
        ended = hold.read(more)
        if ended is None and more:
            return
        self._close(selector, hold)
        if ended is None or ended == "shutdown":
            # The sidecar went away; another one comes.
            hold.next_attempt, hold.pause = time.monotonic(), FIRST_PAUSE
        else:
            hold.end(ended)

    def _close(self, selector: selectors.BaseSelector, hold: Hold) -> None:
        if hold.socket is not None and hold.socket.fileno() in selector.get_map():
            selector.unregister(hold.socket)
        hold.close()

    def _open_again(self, hold: Hold) -> None:
        try:
            hold.open()
            self._adopt(hold)
            return
        except SidecarRefused as refused:
            if refused.code == "no_such_execution":
                self._register_again(hold)
        except SidecarUnavailable:
            pass
        hold.next_attempt = time.monotonic() + hold.pause
        hold.pause = min(hold.pause * 2, LONGEST_PAUSE)

    def _adopt(self, hold: Hold) -> None:
        """A connection may have come before, and begun an implicit execution of that id with a sidecar
        that was restarted: it has neither deadline nor labels."""
        try:
            if hold.control.execution(hold.execution).get("kind") != "implicit":
                return
            if hold.register():
                _say_registered(hold)
        except SidecarError:
            hold.close()
            raise

    def _register_again(self, hold: Hold) -> None:
        try:
            ended = hold.control.ended(hold.execution)
            if ended is not None and ended.get("reason") not in (None, "shutdown"):
                hold.end(str(ended["reason"]))
                return
            if hold.register() and hold.is_wanted:
                hold.open()
                _say_registered(hold)
        except SidecarError as error:
            log.debug("execpool: execution %s is not registered again yet: %s", hold.execution, error)


def _say_registered(hold: Hold) -> None:
    log.warning(
        "execpool: execution %s is registered again: the sidecar was restarted. Its "
        "connections were closed; new ones join it.",
        hold.execution,
    )


keeper = Keeper()
os.register_at_fork(after_in_child=keeper.after_fork)
