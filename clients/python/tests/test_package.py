"""The package is typed through and through, and installs from its wheel with nothing besides."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
from conftest import Sidecar

PACKAGE = Path(__file__).resolve().parents[1]
SOURCES = PACKAGE / "src/execpool"


def run(*command: str | Path, **options: object) -> str:
    told = subprocess.run(  # type: ignore[call-overload]
        command, cwd=PACKAGE, capture_output=True, text=True, timeout=900, **options
    )
    assert told.returncode == 0, told.stdout + told.stderr
    return str(told.stdout)


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What mypy knows of libraries already."""
    return tmp_path_factory.mktemp("mypy")


def test_mypy_has_nothing_to_say(cache: Path) -> None:
    run(sys.executable, "-m", "mypy", "--cache-dir", cache)


def test_mypy_has_nothing_to_say_of_an_app(tmp_path: Path, cache: Path) -> None:
    """As an app sees the types: what is wrong there is found, and what is right is not."""
    app = tmp_path / "app.py"
    right = """
import execpool
from execpool import ExecutionScope
from execpool.sqlalchemy import instrument
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

engine = instrument(create_engine("postgresql://h/d"))
other: AsyncEngine = instrument(create_async_engine("postgresql+asyncpg://h/d"))
with ExecutionScope("run", deadline="10m", labels={"a": "b"}) as scope:
    name: str = scope.id
    closed: list[int] = scope.track([1], kind="other")

@ExecutionScope()
async def call(word: str) -> int:
    with execpool.get_db_session(engine) as session:
        session.commit()
    return len(word)

async def main() -> int:
    async with ExecutionScope() as scope:
        return await call("a")

total: int = execpool.ExecutionConnectionManager().get_stats()["total_tracked_connections"]
"""
    mypy = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(cache), str(app)]
    environment = os.environ | {"MYPYPATH": str(PACKAGE / "src")}
    app.write_text(right)
    told = subprocess.run(mypy, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert told.returncode == 0, told.stdout
    app.write_text(right.replace('await call("a")', "await call(7)").replace('kind="other"', 'kind="x"'))
    told = subprocess.run(mypy, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert told.stdout.count("error:") == 2 + told.stdout.count("[no-any-return]"), told.stdout


def test_pyright_has_nothing_to_say() -> None:
    told = run(sys.executable, "-m", "pyright", "--pythonpath", sys.executable, "--warnings")
    assert "0 errors, 0 warnings" in told


def test_the_wheel_installs_and_works_in_a_clean_environment(
    sidecar: Sidecar, tmp_path: Path
) -> None:
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path)
    (wheel,) = tmp_path.glob("execpool-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "execpool/py.typed" in names and not any("test" in name for name in names)
    assert {Path(name).name for name in names if name.endswith(".py")} == {
        path.name for path in SOURCES.glob("*.py")
    }
    venv.create(tmp_path / "clean", with_pip=True, symlinks=True)
    python = tmp_path / "clean/bin/python"
    run(python, "-m", "pip", "install", "--quiet", "--no-index", wheel)
    # Nothing but the standard library is there: scopes work all the same.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    program = (
        "import execpool, sys\n"
        "with execpool.ExecutionScope('clean') as scope: print(scope.uses_sidecar, scope.url)\n"
        "print(scope.summary.complete, 'sqlalchemy' in sys.modules, execpool.__file__)\n"
    )
    told = run(python, "-I", "-c", program, env=environment).splitlines()
    assert told[0].startswith("True postgresql://app@/app?host=") and "clean" in told[1]
    assert told[1].startswith("True False ")


@pytest.mark.parametrize("minor", [10, 11, 12, 13, 14])
def test_its_syntax_and_imports_are_those_of_every_python_it_names(minor: int) -> None:
    """With each python3.N that is there: the core, which needs no more than the standard library."""
    python = _python(minor)
    if python is None:
        pytest.skip(f"there is no python3.{minor}")
    program = (
        "import execpool, asyncio\n"
        "@execpool.ExecutionScope()\n"
        "async def run(): return execpool.current_scope().id\n"
        "assert asyncio.run(run()).startswith('run-')\n"
        "import execpool.sql_database as s, sys\n"
        "def seen(): return s._is_awaited(sys._getframe(1))\n"
        "async def main():\n"
        "    class A:\n"
        "        def __await__(self): yield from (); return None\n"
        "    got = []\n"
        "    def ask(*a, **k): got.append(s._is_awaited(sys._getframe(1))); return A()\n"
        "    await ask(); await ask(1, k=2); ask(); x = ask(); await x; [await ask() for _ in 'a']\n"
        "    assert got == [True, True, False, False, True], got\n"
        "asyncio.run(main())\n"
        "async def closes_and_is_cancelled():\n"
        "    task = asyncio.current_task()\n"
        "    async def closes():\n"
        "        await asyncio.sleep(0)\n"
        "        asyncio.get_running_loop().call_soon(task.cancel)\n"
        "    async with execpool.ExecutionScope() as scope: scope.track(closes)\n"
        "async def cancelled():\n"
        "    task = asyncio.create_task(closes_and_is_cancelled())\n"
        "    await asyncio.wait([task])\n"
        "    assert task.cancelled()\n"
        "asyncio.run(cancelled())\n"
    )
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(PACKAGE / "src"), "EXECPOOL": "off"}
    run(python, "-W", "error", "-c", program, env=environment)


def _python(minor: int) -> str | None:
    for name in (f"python3.{minor}", *Path.home().glob(f".pyenv/versions/3.{minor}.*/bin/python")):
        try:
            told = subprocess.run([name, "--version"], capture_output=True, text=True)
        except OSError:
            continue
        if told.returncode == 0 and told.stdout.startswith(f"Python 3.{minor}."):
            return str(name)
    return None


def test_the_version_is_the_projects() -> None:
    cargo = (PACKAGE.parents[1] / "Cargo.toml").read_text()
    project = (PACKAGE / "pyproject.toml").read_text()
    init = (SOURCES / "__init__.py").read_text()
    found = [re.search(r'^(?:__)?version(?:__)? = "(.*)"', text, re.M) for text in (cargo, project, init)]
    assert len({match and match[1] for match in found}) == 1
