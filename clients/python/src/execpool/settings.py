"""What the environment says: `EXECPOOL`, `EXECPOOL_DIR` and `DATABASE_URL`."""

from __future__ import annotations

import enum
import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from .errors import ConfigurationError

DEFAULT_DIRECTORY = "/run/execpool"


class Mode(enum.Enum):
    """Whether the sidecar is used."""

    REQUIRED = "required"
    """Without the sidecar nothing connects."""
    OPTIONAL = "optional"
    """Where the sidecar is absent, connections go directly to the database."""
    OFF = "off"
    """The sidecar is not looked for."""


@dataclass(frozen=True)
class Settings:
    """How this process reaches its database."""

    mode: Mode = Mode.OPTIONAL
    directory: str = DEFAULT_DIRECTORY
    """Where the sidecar's sockets are."""
    database_url: str | None = field(default=None, repr=False)
    """The database's own URL, which may have a password: no repr, and so no traceback, shows it."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        """Reads `EXECPOOL`, `EXECPOOL_DIR` and `DATABASE_URL`; an empty one counts as absent."""
        word = environment.get("EXECPOOL") or Mode.OPTIONAL.value
        try:
            mode = Mode(word.strip().lower())
        except ValueError:
            allowed = ", ".join(mode.value for mode in Mode)
            raise ConfigurationError(f"EXECPOOL={word!r} is none of {allowed}") from None
        directory = environment.get("EXECPOOL_DIR") or DEFAULT_DIRECTORY
        # A secret's file often ends with a line's end.
        url = (environment.get("DATABASE_URL") or "").strip()
        return cls(mode, directory.rstrip("/") or "/", url or None)

    def url(self, given: str | None = None) -> str:
        """The database's URL: the given one, else `DATABASE_URL`."""
        url = given or self.database_url
        if url is None:
            raise ConfigurationError(
                "no database is named: set DATABASE_URL, or give the URL to the call"
            )
        return url
