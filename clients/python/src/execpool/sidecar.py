"""Where the sidecar is, if it is there."""

from __future__ import annotations

import logging
import os
import re
import stat
import threading
import time
from dataclasses import dataclass

from .control import Control
from .errors import SidecarUnavailable
from .settings import Mode, Settings

log = logging.getLogger("execpool")

CONTROL = "control.sock"
DEFAULT_PORT = 5432
SAY_AGAIN = 60.0
"""Seconds for which the same is not said again, as a sidecar may come and go."""
_SOCKET = re.compile(r"^\.s\.PGSQL\.(\d+)$")


@dataclass(frozen=True)
class Sidecar:
    """The sidecar whose sockets are in a directory."""

    directory: str

    @property
    def control(self) -> Control:
        """Its control API."""
        return Control(os.path.join(self.directory, CONTROL))

    @property
    def port(self) -> int:
        """The number in the name of its PostgreSQL socket."""
        try:
            names = os.listdir(self.directory)
        except OSError:
            return DEFAULT_PORT
        found = [int(match[1]) for name in names if (match := _SOCKET.match(name))]
        return min(found, default=DEFAULT_PORT)

    def is_there(self) -> bool:
        """Whether its control socket exists; that says not that anybody listens."""
        try:
            return stat.S_ISSOCK(os.stat(os.path.join(self.directory, CONTROL)).st_mode)
        except OSError:
            return False


class _Memory:
    """What this process has said already, and which sidecars it has met."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._said: dict[tuple[str, str], float] = {}
        """When it was said of a directory that its sidecar is done without, for each kind of reason."""
        self._without: set[tuple[str, str]] = set()
        """Of these, those of which nothing else was said since."""
        self._met: set[str] = set()

    def meet(self, directory: str) -> None:
        with self._lock:
            self._met.add(directory)

    def done_without(self, directory: str, kind: str) -> bool:
        """Answers whether that is to be said: once, and then once after each time that it was used."""
        now, key = time.monotonic(), (directory, kind)
        with self._lock:
            if key in self._without or now - self._said.get(key, -SAY_AGAIN) < SAY_AGAIN:
                return False
            self._said[key] = now
            self._without.add(key)
            return True

    def used(self, directory: str, *kinds: str) -> bool:
        """Answers whether that is to be said: something else was said before, of these kinds or of any."""
        if not self._without:
            return False
        with self._lock:
            over = {one for one in self._without if one[0] == directory and (not kinds or one[1] in kinds)}
            self._without -= over
            return bool(over)

    def has_met(self, directory: str) -> bool:
        with self._lock:
            return directory in self._met

    def after_fork(self) -> None:
        self._lock = threading.Lock()


memory = _Memory()
os.register_at_fork(after_in_child=memory.after_fork)


def find(settings: Settings) -> Sidecar | None:
    """The sidecar that connections go through; None where they go directly to the database.

    It is looked for each time, which costs a microsecond: one that comes later than the app is used from
    then on. One that was there once is taken to come back. Raises SidecarUnavailable where it is required
    and absent."""
    if settings.mode is Mode.OFF:
        return None
    sidecar = Sidecar(settings.directory)
    if sidecar.is_there():
        memory.meet(sidecar.directory)
        used(sidecar, _ABSENT)
        return sidecar
    if memory.has_met(sidecar.directory):
        return sidecar
    without(settings, "its sockets are not there", _ABSENT)
    return None


_ABSENT = "absent"


def expected(settings: Settings) -> bool:
    """Whether what connects later is to go through the sidecar. One that is required need not be there yet,
    as an app's container may start first: who connects before it is gets SidecarUnavailable."""
    return settings.mode is Mode.REQUIRED or find(settings) is not None


def used(sidecar: Sidecar, *kinds: str) -> None:
    """Says so of a sidecar that was done without before, for these kinds of reasons, or for any."""
    if memory.used(sidecar.directory, *kinds):
        log.warning(
            "execpool: the sidecar in %s is there now: new scopes and connections go through it. What was "
            "opened directly before stays so until it is closed.",
            sidecar.directory,
        )


def without(settings: Settings, why: str, kind: str) -> None:
    """Says that connections go directly to the database: once for each kind of reason, and again if the
    sidecar was used meanwhile. Raises where they may not."""
    if settings.mode is Mode.REQUIRED:
        raise SidecarUnavailable(
            f"the execpool sidecar is required (EXECPOOL=required), and in {settings.directory} {why}. "
            "Look whether its container runs, or name its directory in EXECPOOL_DIR."
        )
    if memory.done_without(settings.directory, kind):
        log.warning(
            "execpool: no sidecar in %s (%s): connections go directly to the database, and are "
            "cleaned up within this process alone. EXECPOOL=off silences this, EXECPOOL=required "
            "makes it an error.",
            settings.directory,
            why,
        )
