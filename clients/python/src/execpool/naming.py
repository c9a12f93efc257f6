"""What a connection says of itself to the sidecar, in the forms that drivers have for it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Naming:
    """To which execution a connection belongs, and where it was opened. None is left out."""

    execution_id: str | None
    caller: str | None
    label: str | None
    traceparent: str | None

    def parameters(self) -> dict[str, str]:
        """As startup parameters, for asyncpg's `server_settings`."""
        said = {
            "execpool.execution_id": self.execution_id,
            "execpool.caller": self.caller,
            "execpool.label": self.label and self.label[:256],
            "execpool.traceparent": self.traceparent,
        }
        return {name: value for name, value in said.items() if value}

    def options(self) -> str:
        """As command-line options, for libpq's `options`."""
        return options(self.parameters())

    def application_name(self, had: str | None = None) -> str | None:
        """As `application_name`, for drivers that can set nothing else: the execution alone."""
        if self.execution_id is None:
            return had
        return f"execpool:{self.execution_id}:{had}" if had else f"execpool:{self.execution_id}"


def cut(text: str, most: int) -> str:
    """A text of that many bytes at most."""
    return text.encode(errors="replace")[:most].decode(errors="ignore")


def options(parameters: Mapping[str, str]) -> str:
    """`-c name=value …`, with a backslash before what would split or escape."""
    return " ".join(
        f"-c {name}=" + re.sub(r"([\s\\])", r"\\\1", value) for name, value in parameters.items()
    )
