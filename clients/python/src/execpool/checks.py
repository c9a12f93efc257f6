"""What an app says of an execution, checked as the sidecar does: so a mistake is found on a development
machine without one, too. Each raises InvalidExecution."""

# Not every app has its types checked.
# pyright: reportUnnecessaryIsInstance=false

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping

from .errors import InvalidExecution

Duration = str | float | datetime.timedelta
"""`"10m"`, a number of seconds, or a timedelta."""

LONGEST_DURATION_MS = 100 * 365 * 86_400_000
"""A century."""
MOST_CONNECTIONS = 1_000_000
MOST_LABELS = 64
LONGEST_LABEL = 1024

_ID = re.compile(r"(?!\.)[A-Za-z0-9_@.-]{1,128}")
_DURATION = re.compile(r"(?:[0-9]+(?:ms|s|m|h|d))+")
_PART = re.compile(r"([0-9]+)(ms|s|m|h|d)")
_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def checked_id(text: object) -> str:
    """An execution's id."""
    if callable(text):
        raise InvalidExecution(
            "a decorator is written with brackets: @ExecutionScope(), or with an execution id in them"
        )
    if not isinstance(text, str) or not _ID.fullmatch(text):
        raise InvalidExecution(
            f"an execution id is 1 to 128 of A-Z a-z 0-9 _ @ . - and does not begin with a dot: {text!r} "
            "is none; execpool.make_id(…) makes one"
        )
    if text == "shared" or text.startswith("session-"):
        raise InvalidExecution(
            f"the execution id {text!r} is the sidecar's own: choose one that is neither `shared` nor "
            "begins with `session-`"
        )
    return text


def checked_duration(what: str, given: Duration | None) -> str | None:
    """A duration as the sidecar takes it; `what` is its name."""
    if given is None:
        return None
    if isinstance(given, datetime.timedelta):
        given = given.total_seconds()
    if isinstance(given, (int, float)):
        if not 0 < given < float("inf"):
            raise InvalidExecution(f"a {what} of {given} s is not above 0, or has no end: leave it out")
        # Before it is counted in milliseconds, which may be too many for a float.
        if given > LONGEST_DURATION_MS / 1000:
            raise _too_long(what, "so many seconds")
        return f"{max(1, round(given * 1000))}ms"
    if not isinstance(given, str) or not _DURATION.fullmatch(given):
        raise InvalidExecution(
            f"the {what} {given!r} is no number of seconds, no timedelta, and no text of numbers with their "
            'units ms, s, m, h or d, such as "20s" or "1m30s"'
        )
    if not re.search("[1-9]", given):
        raise InvalidExecution(f"a {what} of {given} is not above 0: leave it out")
    parts = _PART.findall(given)
    # So many digits are too long by themselves, and Python may refuse to read them.
    longest = max(len(number.lstrip("0")) for number, _ in parts)
    if longest > 13 or sum(int(number) * _MS[unit] for number, unit in parts) > LONGEST_DURATION_MS:
        raise _too_long(what, given)
    return given


def _too_long(what: str, given: str) -> InvalidExecution:
    return InvalidExecution(f"a {what} of {given[:40]} is over a century: leave it out, and there is none")


def checked_labels(given: Mapping[str, str] | None) -> dict[str, str]:
    """What the app wants to remember an execution by."""
    if given is not None and not isinstance(given, Mapping):
        raise InvalidExecution(f'labels are a mapping such as {{"agent": "sales"}}, and not {given!r}')
    labels = dict(given or {})
    if len(labels) > MOST_LABELS:
        raise InvalidExecution(f"there are {len(labels)} labels, and {MOST_LABELS} at most may be")
    for name, value in labels.items():
        for text in (name, value):
            if not isinstance(text, str):
                raise InvalidExecution(f"of the label {name!r}: {text!r} is no text: write str({text!r})")
            if len(text.encode(errors="replace")) > LONGEST_LABEL:
                raise InvalidExecution(f"the label {name[:40]!r} is over {LONGEST_LABEL} bytes")
    return labels


def checked_pool(given: Mapping[str, int] | None) -> dict[str, int] | None:
    """An execution's share."""
    if given is None:
        return None
    least = {"size": 1, "overflow": 0}
    if not isinstance(given, Mapping) or not least.keys() >= given.keys():
        raise InvalidExecution(f'a pool is such as {{"size": 4, "overflow": 0}}, and not {given!r}')
    for name, value in given.items():
        if type(value) is not int or not least[name] <= value <= MOST_CONNECTIONS:
            raise InvalidExecution(
                f"a pool's {name} is a whole number from {least[name]} to {MOST_CONNECTIONS}, and not {value!r}"
            )
    return dict(given)
