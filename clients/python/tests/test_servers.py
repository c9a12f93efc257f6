"""Servers that fork: gunicorn, uvicorn's workers, Celery's prefork pool."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import SOON, Postgres, Sidecar, _die_with_parent, eventually, free_port, short_directory

HERE = Path(__file__).parent


@contextmanager
def started(*command: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    log = short_directory() / "log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *command], cwd=HERE, stdout=output, stderr=output,
            env=os.environ | environment,
            start_new_session=True, preexec_fn=_die_with_parent,
        )  # fmt: skip
    try:
        yield process
    except BaseException:
        print(log.read_text())
        raise
    finally:
        process.terminate()
        try:
            process.wait(SOON)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def get(port: int, path: str = "/", timeout: float = SOON) -> list[int]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=timeout) as answer:
        return list(json.load(answer))


def answers(port: int) -> bool:
    try:
        return bool(get(port))
    except OSError:
        return False


def gunicorn(port: int) -> list[str]:
    return ["gunicorn", "--preload", "-w", "2", "-b", f"127.0.0.1:{port}", "-t", "300", "programs.web:wsgi"]


def uvicorn(port: int) -> list[str]:
    return ["uvicorn", "--workers", "2", "--port", str(port), "--log-level", "warning", "programs.web:asgi"]


@pytest.mark.parametrize("server", [gunicorn, uvicorn])
def test_each_request_is_a_run_and_leaves_nothing(
    sidecar: Sidecar, postgres: Postgres, server: Callable[[int], list[str]]
) -> None:
    port = free_port()
    with started(*server(port)) as process:
        assert eventually(lambda: answers(port))
        with ThreadPoolExecutor(8) as pool:
            told = list(pool.map(lambda _: get(port), range(40)))
            workers = {pid for pid, _ in told}

            def both() -> bool:
                # One may begin later than the other.
                told.extend(pool.map(lambda _: get(port), range(8)))
                workers.update(pid for pid, _ in told)
                return len(workers) > 1

            assert len(workers) > 1 or eventually(both)
        assert all(leftovers == 1 for _, leftovers in told)
        assert len(workers) == 2 and process.pid not in workers
        assert sidecar.executions() == []

        # A worker that is killed amid a request: its run ends, the others go on.
        with ThreadPoolExecutor(1) as pool:
            hanging = pool.submit(get, port, "/hang", 2 * SOON)
            (run,) = eventually(sidecar.executions)
            (session,) = eventually(lambda: sidecar.control.sessions(run))
            worker = session["peer"]["pid"]
            assert worker in workers
            os.kill(worker, signal.SIGKILL)
            assert eventually(lambda: sidecar.executions() == [])
            with pytest.raises(Exception):  # noqa: B017, PT011
                hanging.result()
        ended = eventually(lambda: sidecar.control.ended(run))
        assert ended is not None and ended["reason"] == "hold_lost"
        assert eventually(lambda: answers(port))


def test_tasks_of_celerys_prefork_pool_are_runs(sidecar: Sidecar, postgres: Postgres) -> None:
    broker = short_directory()
    for folder in ("data", "control", "results"):
        (broker / folder).mkdir()
    command = (
        "celery", "-A", "programs.tasks", "worker", "-P", "prefork", "-c", "2", "-l", "warning",
        "--without-gossip", "--without-mingle", "--without-heartbeat",
    )  # fmt: skip
    client = (
        "from programs.tasks import work\n"
        "told = []\n"
        # One of the two may begin later than the other.
        "while len(told) < 240 and len({one[0] for one in told}) < 2:\n"
        "    results = [work.delay(len(told) + n) for n in range(12)]\n"
        "    told += [r.get(timeout=180) for r in results]\n"
        "import json; print(json.dumps(told))\n"
    )
    with started(*command, TASKS_FOLDER=str(broker), C_FORCE_ROOT="1"):
        told = subprocess.run(
            [sys.executable, "-c", client], capture_output=True, text=True, timeout=400, cwd=HERE,
            env=os.environ | {"TASKS_FOLDER": str(broker)},
        )  # fmt: skip
        assert told.returncode == 0, told.stderr
        results = json.loads(told.stdout)
        assert [result[1:] for result in results] == [[1, 1]] * len(results) != []
        assert len({result[0] for result in results}) == 2
        time.sleep(2.5)
        assert sidecar.executions() == []
