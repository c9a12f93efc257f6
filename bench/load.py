"""What is run against a pooler, and what that costs it."""

import os
import re
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from servers import DATABASE, USER, CannotMeasure, environment, run


@dataclass(frozen=True)
class Case:
    protocol: str
    clients: int

    def __str__(self):
        return f"{self.protocol}, {self.clients} client{'s' if self.clients > 1 else ''}"


CASES = [Case(protocol, clients) for protocol in ("simple", "prepared") for clients in (1, 8)]


@dataclass(frozen=True)
class Sample:
    """One run of pgbench."""

    transactions: int
    per_second: float
    cpu_us: float  # of the pooler, for one transaction


def pgbench(program, server, case, seconds):
    """Runs it; tells how many transactions there were, and how many in a second."""
    command = pgbench_command(program, server.sockets, case, seconds)
    said = run(*command, env=environment(), timeout=seconds + 60)
    transactions = re.search(r"number of transactions actually processed: (\d+)", said)
    per_second = re.search(r"^tps = ([\d.]+)", said, re.MULTILINE)
    failed = re.search(r"number of failed transactions: (\d+)", said)
    if not transactions or not per_second or int(transactions[1]) == 0:
        raise CannotMeasure(f"pgbench tells no transactions:\n{said}")
    if failed and int(failed[1]) > 0:
        raise CannotMeasure(f"transactions failed:\n{said}")
    return int(transactions[1]), float(per_second[1])


def pgbench_command(program, sockets, case, seconds):
    return [
        program, "--select-only", "--no-vacuum", "--protocol", case.protocol,
        "--client", case.clients, "--jobs", 1, "--time", seconds,
        "--host", sockets, "--port", 5432, "--username", USER, DATABASE,
    ]


def sample(program, server, case, seconds):
    before = server.cpu_ns()
    transactions, per_second = pgbench(program, server, case, seconds)
    # What follows the clients' goodbye belongs to it.
    time.sleep(0.2)
    used = server.cpu_ns() - before
    return Sample(transactions, per_second, used / transactions / 1000)


class Strace:
    """Counts the system calls of a process, for the time of a `with`."""

    def __init__(self, server, root):
        self.pid = server.pid
        self.out = root / "strace.out"

    @staticmethod
    def missing():
        """Why it cannot be used, if so."""
        if shutil.which("strace") is None:
            return "strace is not installed"
        scope = Path("/proc/sys/kernel/yama/ptrace_scope")
        if os.geteuid() != 0 and scope.exists() and scope.read_text().strip() != "0":
            return "only root may trace here (kernel.yama.ptrace_scope)"
        return None

    def __enter__(self):
        self.process = subprocess.Popen(
            ["strace", "-c", "-f", "-o", str(self.out), "-p", str(self.pid)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        # It says so when it has attached, and why when it can't.
        first = self.process.stderr.readline()
        if "attached" not in first:
            self.process.kill()
            self.process.wait()
            raise CannotMeasure(f"strace: {first.strip()}")
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGINT)
        self.process.communicate(timeout=30)

    def counts(self):
        """The calls by name."""
        counts = {}
        for line in self.out.read_text().splitlines():
            # % time, seconds, usecs/call, calls, errors (if any), name
            words = line.split()
            if len(words) in (5, 6) and words[3].isdigit() and words[-1] != "total":
                counts[words[-1]] = int(words[3])
        if not counts:
            raise CannotMeasure(f"strace counted nothing:\n{self.out.read_text()}")
        return counts


def system_calls(program, server, case, seconds, root):
    """The system calls for one transaction, by name. No times: tracing distorts them."""
    with Strace(server, root) as strace:
        transactions, _ = pgbench(program, server, case, seconds)
    return {name: count / transactions for name, count in strace.counts().items()}
