"""What the driver programs share: a record of what they observe, and the same data.

Each program takes a URL, goes through the same matrix with one driver, and prints
a JSON list of [name, observation]. What differs from run to run by its nature
(PIDs, times, names of databases) is not recorded, only what can be said about it.
"""

import asyncio
import enum
import hashlib
import json
import sys
import time

SCHEMA = """
DROP SCHEMA IF EXISTS matrix CASCADE;
CREATE SCHEMA matrix;
CREATE TYPE matrix.mood AS ENUM ('sad', 'ok', 'happy');
CREATE TABLE matrix.item (id int PRIMARY KEY, name text, mood matrix.mood);
CREATE TABLE matrix.copied (id int, name text);
"""

REPORTED = [
    "application_name",
    "client_encoding",
    "DateStyle",
    "default_transaction_read_only",
    "in_hot_standby",
    "integer_datetimes",
    "IntervalStyle",
    "is_superuser",
    "server_encoding",
    "server_version",
    "session_authorization",
    "standard_conforming_strings",
    "TimeZone",
]

NESTED = {"a": [1, 2, {"b": None}], "text": "åß∂ \" \\ '", "n": 1.5}
ARRAYS = {"numbers": [1, None, 3], "texts": ["a", None, 'quo"te', "comma,", ""]}
COPIED = [(i, None if i % 7 == 0 else f"row\t{i}\n\\") for i in range(2000)]

SLEEPING = (
    "SELECT count(*) FROM pg_stat_activity "
    "WHERE pid = {pid} AND state = 'active' AND wait_event = 'PgSleep'"
)


class Mood(enum.Enum):
    """The enum of SCHEMA."""

    sad = "sad"
    ok = "ok"
    happy = "happy"


def big_text():
    """A megabyte in which no part repeats, so that a lost or doubled part shows."""
    return "".join(f"{i:07d} " for i in range(131_072))


def digest(data):
    if isinstance(data, str):
        data = data.encode()
    return {"length": len(data), "sha256": hashlib.sha256(data).hexdigest()}


class Matrix:
    def __init__(self):
        self.observations = []

    def see(self, name, value, must_show=""):
        """Records an observation. It must show what it is there for."""
        text = json.dumps(value, ensure_ascii=False, default=str)
        if must_show not in text:
            sys.exit(f"{name} does not show {must_show}: {text}")
        self.observations.append([name, value])

    def print(self):
        json.dump(self.observations, sys.stdout, default=str)


def until(probe, seconds=60):
    """Asks until the answer is true."""
    end = time.monotonic() + seconds
    while not probe():
        if time.monotonic() > end:
            sys.exit(f"not true within {seconds} s: {probe}")
        time.sleep(0.01)


async def until_async(probe, seconds=60):
    """The same for a probe that is awaited."""
    end = time.monotonic() + seconds
    while not await probe():
        if time.monotonic() > end:
            sys.exit(f"not true within {seconds} s: {probe}")
        await asyncio.sleep(0.01)
