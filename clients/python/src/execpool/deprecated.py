"""What apps call that once cleaned up by hand."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Generator
from typing import Any


class _Nothing:
    """What was nothing to do: may be awaited, and need not be."""

    def __await__(self) -> Generator[Any, None, None]:
        yield from ()


_once = threading.Lock()


def close_database_connections() -> _Nothing:
    """Does nothing, and says so once: an ExecutionScope closes what was opened in it."""
    if _once.acquire(blocking=False):
        warnings.warn(
            "close_database_connections() does nothing: wrap the run in `with ExecutionScope(id):`, "
            "which closes its connections when it is left",
            DeprecationWarning,
            stacklevel=2,
        )
    return _Nothing()
