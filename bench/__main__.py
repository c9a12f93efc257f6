"""The benchmark: what execpool costs beside PgBouncer, and how much memory it takes.

scripts/bench finds what this needs, builds execpool and runs it.
"""

import argparse
import os
import shlex
import signal
import sys
import time
from pathlib import Path

import report
from load import CASES, Strace, pgbench_command, sample, system_calls
from servers import Bench, CannotMeasure, run
from sessions import Sessions, allow_descriptors

LIMIT = 1.1  # CPU for one transaction, in PgBouncer's
SESSIONS = 5000
IDLE_LIMIT = 12 * report.MEGABYTE
SESSIONS_LIMIT = 60 * report.MEGABYTE


def main():
    wanted = arguments()
    # So that what was started is ended.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        verdicts = measure(wanted)
    except CannotMeasure as reason:
        sys.exit(f"bench: {reason}")
    except KeyboardInterrupt:
        sys.exit(130)
    print("\nClaims")
    for line in verdicts.lines:
        print(f"  {line}")
    if wanted.strict and verdicts.missed:
        sys.exit(1)


def arguments():
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=positive, default=5, help="rounds, in each of which every case is run on both sides")
    parser.add_argument("--seconds", type=positive, default=5, help="how long pgbench runs each time")
    parser.add_argument("--settle", type=positive, default=30, help="seconds between load and a look at the memory")
    parser.add_argument(
        "--cpu",
        type=int,
        help="run everything on this CPU alone: with one client the times otherwise depend on where "
        "the kernel puts the three processes, by a factor of two and more",
    )
    parser.add_argument("--strict", action="store_true", help="exit 1 if a claim does not hold")
    parser.add_argument("--execpool", type=Path, required=True, help=argparse.SUPPRESS)
    return parser.parse_args()


def positive(text):
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


def measure(wanted):
    programs = Path(os.environ["EXECPOOL_PG_BIN"])
    pgbouncer = Path(os.environ["EXECPOOL_PGBOUNCER"])
    verdicts = report.Verdicts()
    allow_descriptors(SESSIONS)
    if wanted.cpu is not None:
        keep_to(wanted.cpu)
    print_place(wanted, programs, pgbouncer)
    with Bench(programs, pgbouncer, wanted.execpool) as bench:
        print_commands(wanted, programs, bench)
        cpu(wanted, programs / "pgbench", bench, verdicts)
        memory(wanted, bench, verdicts)
        calls(wanted, programs / "pgbench", bench)
    return verdicts


def keep_to(cpu):
    """Keeps this process, and so all that it starts, on one CPU."""
    try:
        os.sched_setaffinity(0, {cpu})
    except OSError as error:
        raise CannotMeasure(f"cannot run on CPU {cpu} alone: {error}")


def print_place(wanted, programs, pgbouncer):
    print(f"machine     {report.machine()}")
    print(f"execpool    {run(wanted.execpool, '--version').split()[-1]}, release build of commit {commit()}")
    print(f"PgBouncer   {run(pgbouncer, '--version').split()[1]} ({pgbouncer}), session mode")
    print(f"PostgreSQL  {run(programs / 'postgres', '--version').split()[2]}")
    print(f"CPUs        {'all' if wanted.cpu is None else f'{wanted.cpu} alone (--cpu)'}")
    print(f"rounds      {wanted.rounds} of {wanted.seconds} s, in turn; the first of a round alternates", flush=True)


def commit():
    here = Path(__file__).resolve().parent
    try:
        short = run("git", "-C", here, "rev-parse", "--short=12", "HEAD").strip()
        changed = run("git", "-C", here, "status", "--porcelain", "--untracked-files=no").strip()
    except CannotMeasure:
        return "unknown (no git)"
    return f"{short}{' with changes' if changed else ''}"


def print_commands(wanted, programs, bench):
    """The commands, with the throw-away directory as $D; each server runs by setsid."""
    pgbench = pgbench_command(programs / "pgbench", "SOCKETS", CASES[0], wanted.seconds)
    for command in (bench.postgres.command, bench.pgbouncer.command, bench.execpool.command, pgbench):
        text = shlex.join(map(str, command)).replace(str(bench.root), "$D")
        print(f"command     {text}")
    print(flush=True)


def cpu(wanted, pgbench, bench, verdicts):
    sides = (bench.execpool, bench.pgbouncer)
    samples = {(case, side.name): [] for case in CASES for side in sides}
    for case in CASES:  # a first run of each, not counted: caches, connections
        for side in sides:
            sample(pgbench, side, case, 1)
    for number in range(wanted.rounds):
        for case in CASES:
            for side in sides if number % 2 == 0 else reversed(sides):
                samples[case, side.name].append(sample(pgbench, side, case, wanted.seconds))
        say(f"round {number + 1} of {wanted.rounds} done")

    costs = [["CPU for one transaction, µs: median (min–max)", "execpool", "PgBouncer", "ratio", "of rounds"]]
    speeds = [["transactions in a second: median (min–max)", "execpool", "PgBouncer", "ratio", "of rounds"]]
    for case in CASES:
        ours, theirs = (samples[case, side.name] for side in sides)
        cost = [[one.cpu_us for one in side] for side in (ours, theirs)]
        speed = [[one.per_second for one in side] for side in (ours, theirs)]
        costs.append(row(case, *cost, digits=2))
        speeds.append(row(case, *speed, digits=0))
        measured = report.ratio(*cost)
        claim = f"CPU for one transaction at most {LIMIT} × PgBouncer's, {case}"
        low, high = report.bounds(*cost)
        noise = "; too noisy to decide, see --cpu" if low <= LIMIT < high else ""
        verdicts.judge(claim, f"{measured:.2f} × (rounds {low:.2f}–{high:.2f}{noise})", measured <= LIMIT)
    for rows in (costs, speeds):
        print("\n".join(report.table(rows)), end="\n\n", flush=True)


def row(case, ours, theirs, digits):
    low, high = report.bounds(ours, theirs)
    return [
        str(case),
        report.spread(ours, digits),
        report.spread(theirs, digits),
        f"{report.ratio(ours, theirs):.2f}",
        f"{low:.2f}–{high:.2f}",
    ]


def memory(wanted, bench, verdicts):
    execpool = bench.execpool
    say(f"waiting {wanted.settle} s for the memory at rest, and again with {SESSIONS} sessions")
    time.sleep(wanted.settle)
    idle = execpool.resident()
    with Sessions(execpool, SESSIONS):
        time.sleep(wanted.settle)
        full = execpool.resident()
        counted = execpool.status()["sessions"]["unbound"]
    execpool.wait_until_empty()
    if counted != SESSIONS:
        raise CannotMeasure(f"execpool counts {counted} unbound sessions of {SESSIONS}")

    print(f"resident memory, {wanted.settle} s after the load")
    print(f"  idle: {megabytes(idle)}")
    print(f"  with {counted} unbound sessions (/v1/status): {megabytes(full)}, {(full - idle) / counted:.0f} bytes each")
    print(f"  PgBouncer, idle, for comparison: {megabytes(bench.pgbouncer.resident())}", flush=True)
    limit = f"under {megabytes(IDLE_LIMIT)} idle"
    verdicts.judge(f"resident memory {limit}", megabytes(idle), idle < IDLE_LIMIT)
    limit = f"under {megabytes(SESSIONS_LIMIT)} with {SESSIONS} unbound sessions"
    verdicts.judge(f"resident memory {limit}", megabytes(full), full < SESSIONS_LIMIT)


def megabytes(count):
    return f"{count / report.MEGABYTE:.1f} MB"


def calls(wanted, pgbench, bench):
    title = "system calls for one transaction (strace -c -f; apart from the times above)"
    if why := Strace.missing():
        print(f"\n{title}: skipped, {why}")
        return
    lines = []
    try:
        for case in CASES:
            for side, name in ((bench.execpool, "execpool"), (bench.pgbouncer, "PgBouncer")):
                counts = system_calls(pgbench, side, case, min(wanted.seconds, 2), bench.root)
                lines.append(report.system_calls(case, name, counts))
    except CannotMeasure as reason:
        print(f"\n{title}: skipped, {reason}")
        return
    print("\n".join(["", title, *lines]))


def say(text):
    print(f"bench: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
