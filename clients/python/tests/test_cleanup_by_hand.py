"""`test_connection_cleanup.py` can be run by hand, with a sidecar and without, and tells the truth."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from conftest import Postgres, Sidecar

PROGRAM = Path(__file__).parent / "test_connection_cleanup.py"


def run(program: Path = PROGRAM) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, program], capture_output=True, text=True, timeout=300, cwd="/"
    )


def test_by_hand_with_a_sidecar(sidecar: Sidecar) -> None:
    told = run()
    assert told.returncode == 0, told.stdout + told.stderr
    assert told.stdout.count("ok ") == 3 and "through the sidecar" in told.stdout


def test_by_hand_without_one(direct: Postgres) -> None:
    told = run()
    assert told.returncode == 0, told.stdout + told.stderr
    assert told.stdout.count("ok ") == 3 and "without a sidecar" in told.stdout


def test_it_fails_where_nothing_is_cleaned_up(direct: Postgres, tmp_path: Path) -> None:
    broken = tmp_path / "broken.py"
    sabotage = (
        "import execpool.connections\nexecpool.connections.Connections.close = lambda self: None\n"
    )
    program = PROGRAM.read_text().replace("import execpool\n", f"import execpool\n{sabotage}", 1)
    assert "within: float = 30.0" in program
    broken.write_text(program.replace("within: float = 30.0", "within: float = 1.0"))
    told = run(broken)
    assert told.returncode == 1 and "FAILED" in told.stdout and "still there" in told.stdout
    os.unlink(broken)
