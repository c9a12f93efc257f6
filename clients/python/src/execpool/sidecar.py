"""Where the sidecar is, if it is there."""

from __future__ import annotations

import logging
import os
import re
import stat
import threading
from dataclasses import dataclass

from .control import Control
from .errors import SidecarUnavailable
from .settings import Mode, Settings

log = logging.getLogger("execpool")

CONTROL = "control.sock"
DEFAULT_PORT = 5432
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
        self._said: set[str] = set()
        self._met: set[str] = set()

    def meet(self, directory: str) -> None:
        with self._lock:
            self._met.add(directory)

    def has_met(self, directory: str) -> bool:
        with self._lock:
            return directory in self._met

    def say_once(self, what: str, sentence: str, *words: object) -> None:
        with self._lock:
            if what in self._said:
                return
            self._said.add(what)
        log.warning(sentence, *words)

    def after_fork(self) -> None:
        self._lock = threading.Lock()


memory = _Memory()
os.register_at_fork(after_in_child=memory.after_fork)


def find(settings: Settings) -> Sidecar | None:
    """The sidecar that connections go through; None where they go directly to the database.

    One that was there once is taken to come back. Raises SidecarUnavailable where it is required
    and absent."""
    if settings.mode is Mode.OFF:
        return None
    sidecar = Sidecar(settings.directory)
    if sidecar.is_there():
        memory.meet(sidecar.directory)
        return sidecar
    if memory.has_met(sidecar.directory):
        return sidecar
    without(settings, "its sockets are not there", "absent")
    return None


def without(settings: Settings, why: str, kind: str) -> None:
    """Says once for each kind of reason that connections go directly to the database; raises where
    they may not."""
    if settings.mode is Mode.REQUIRED:
        raise SidecarUnavailable(
            f"the execpool sidecar is required (EXECPOOL=required), and in {settings.directory} {why}. "
            "Look whether its container runs, or name its directory in EXECPOOL_DIR."
        )
    memory.say_once(
        f"{kind} {settings.directory}",
        "execpool: no sidecar in %s (%s): connections go directly to the database, and are "
        "cleaned up within this process alone. EXECPOOL=off silences this, EXECPOOL=required "
        "makes it an error.",
        settings.directory,
        why,
    )
