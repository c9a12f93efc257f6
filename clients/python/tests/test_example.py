"""The example is run as a person runs it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, SOON, eventually, short_directory

EXAMPLE = ROOT / "examples/langgraph_agent"

# Others may run it at the same time.
TEMPORARY = short_directory()
TEMPORARY.chmod(0o755)


def environment() -> dict[str, str]:
    """Without any API key."""
    kept = ("PATH", "PYTHONPATH", "EXECPOOL_PG_BIN", "PYTHONDONTWRITEBYTECODE", "LD_LIBRARY_PATH")
    own = {name: os.environ[name] for name in kept if name in os.environ}
    own["TMPDIR"] = str(TEMPORARY)
    return own | {"EXECPOOL_BIN": os.environ.get("EXECPOOL_BIN", str(ROOT / "target/debug/execpool"))}


def places() -> set[Path]:
    return set(TEMPORARY.glob("execpool-*"))


def test_it_runs_without_an_api_key_and_says_what_was_cleaned() -> None:
    before = places()
    told = subprocess.run(
        [sys.executable, EXAMPLE / "run.py"],
        capture_output=True, text=True, timeout=400, env=environment(), check=False,
    )  # fmt: skip
    assert told.returncode == 0, told.stdout + told.stderr
    assert "24 answered, 0 failed" in told.stdout
    assert "executions   24, ended: 24 deleted" in told.stdout
    leaks = re.search(r"24 connections that were opened at agent.py:(\d+) recommend, in the tool recommend", told.stdout)
    assert leaks is not None, told.stdout
    line = (EXAMPLE / "agent.py").read_text().splitlines()[int(leaks[1]) - 1]
    assert "execpool.psycopg.connect()" in line
    assert "left over in pg_stat_activity: 0" in told.stdout
    assert places() <= before


def test_it_goes_on_until_it_is_interrupted() -> None:
    before = places()
    with subprocess.Popen(
        [sys.executable, "-u", EXAMPLE / "run.py", "--forever"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment(),
        # What runs in the background of a shell is begun deaf to interrupts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as running:  # fmt: skip
        assert running.stdout is not None
        lines = iter(running.stdout.readline, "")
        top = next(line for line in lines if " top --socket " in line).split()
        seen: list[str] = []

        def has_customers() -> bool:
            # Between two rounds it has none.
            once = subprocess.run([*top, "--once"], capture_output=True, text=True, timeout=SOON)
            seen.append(once.stdout + once.stderr)
            return "customer-" in once.stdout

        try:
            assert eventually(has_customers), seen[-1]
            running.send_signal(signal.SIGINT)
            assert running.wait(2 * SOON) == 0
        finally:
            running.kill()  # who leaves this block waits for its end
    assert places() <= before


@pytest.fixture(autouse=True)
def programs() -> None:
    assert os.environ.get("EXECPOOL_PG_BIN")
