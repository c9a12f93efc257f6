"""Who opens a connection: the nearest frames outside libraries.

Cheap enough to be on always: files are told apart once, and no source is read."""

from __future__ import annotations

import os
import sys
import sysconfig
from types import FrameType
from typing import Any, cast

from .naming import cut

MOST_FRAMES = 4
"""How many of the app's frames are told."""
MOST_BYTES = 1024
_DEEPEST = 200

_OWN = os.path.dirname(os.path.abspath(__file__)) + os.sep
_STANDARD = tuple(
    path + os.sep
    for name in ("stdlib", "platstdlib")
    if (path := sysconfig.get_paths().get(name)) is not None
)
_INSTALLED = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")

# An app may itself be installed as a package: then these alone are passed over.
_PLUMBING = (
    "sqlalchemy", "psycopg", "psycopg_pool", "psycopg2", "asyncpg", "pg8000", "greenlet", "anyio",
    "starlette", "fastapi", "uvicorn", "gunicorn", "celery", "langchain_core", "langchain_community",
    "langchain_classic", "langgraph", "pydantic",
)  # fmt: skip

_APP, _LIBRARY, _PASSED_OVER = range(3)
_known: dict[str, tuple[int, str]] = {}


def caller() -> str | None:
    """`file:line function < file:line function …` of who has called into a library, the nearest
    first; None where no frame is told."""
    of_app: list[str] = []
    of_libraries: list[str] = []
    frame: FrameType | None = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]
    looked = 0
    while frame is not None and looked < _DEEPEST and len(of_app) < MOST_FRAMES:
        file = frame.f_code.co_filename
        kind, name = _known.get(file) or _classify(file, frame.f_globals.get("__name__"))
        if kind == _APP:
            of_app.append(f"{name}:{frame.f_lineno} {frame.f_code.co_name}")
        elif kind == _LIBRARY and not of_app and len(of_libraries) < MOST_FRAMES:
            of_libraries.append(f"{name}:{frame.f_lineno} {frame.f_code.co_name}")
        frame = frame.f_back or (_switched_from() if not of_app else None)
        looked += 1
    told = " < ".join(of_app or of_libraries)
    return cut(told, MOST_BYTES) or None


def _switched_from() -> FrameType | None:
    """Where the current greenlet was switched from: SQLAlchemy's asyncio runs drivers in one."""
    greenlet = cast(Any, sys.modules.get("greenlet"))
    if greenlet is None:
        return None
    parent = greenlet.getcurrent().parent
    return cast("FrameType | None", parent.gr_frame) if parent is not None else None


def _classify(file: str, module: object) -> tuple[int, str]:
    if len(_known) > 10_000:  # files made up at run time
        _known.clear()
    known = _known[file] = _look_at(file, str(module).partition(".")[0])
    return known


def _look_at(file: str, package: str) -> tuple[int, str]:
    # By its name, too: libraries may be anywhere on the path.
    if package in _PLUMBING or file.startswith(("<frozen ", _OWN)):
        return _PASSED_OVER, file
    for mark in _INSTALLED:
        if mark in file:
            return _LIBRARY, file.rpartition(mark)[2]
    if file.startswith(_STANDARD):
        return _PASSED_OVER, file
    return _APP, _short(file)


def _short(file: str) -> str:
    """A file as an import would name it."""
    roots = [os.path.abspath(path) for path in sys.path] + [os.getcwd()]
    inside = [root for root in roots if root != os.sep and file.startswith(root + os.sep)]
    return file[len(max(inside, key=len)) + 1 :] if inside else file
