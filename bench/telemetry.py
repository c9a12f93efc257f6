"""What measuring costs: execpool with telemetry beside execpool without, in turn.

`make bench-telemetry` finds what this needs, builds execpool and runs it. Both are the same program
in front of the same database. One is told OTEL_SDK_DISABLED=true; the other serves /metrics, which is
scraped, and exports over OTLP to a port where something listens and answers nothing.

What counts is the thread on which sessions live: its time on a CPU, for one transaction.
"""

import argparse
import http.client
import os
import signal
import socket
import statistics
import sys
import threading
import time
from pathlib import Path

import report
from load import CASES, pgbench
from servers import Bench, CannotMeasure, Execpool

LIMIT = 1.03
SCRAPE = 5.0  # seconds; three times as often as usual


def main():
    wanted = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        missed = measure(wanted)
    except CannotMeasure as reason:
        sys.exit(f"bench: {reason}")
    except KeyboardInterrupt:
        sys.exit(130)
    if wanted.strict and missed:
        sys.exit(1)


def arguments():
    parser = argparse.ArgumentParser(prog="make bench-telemetry", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10, help="rounds, in each of which every case is run on both sides")
    parser.add_argument("--seconds", type=int, default=3, help="how long pgbench runs each time")
    parser.add_argument("--cpu", type=int, help="run everything on this CPU alone: much less noise")
    parser.add_argument("--strict", action="store_true", help="exit 1 if it costs more than the limit")
    parser.add_argument("--execpool", type=Path, required=True, help=argparse.SUPPRESS)
    return parser.parse_args()


class Measured(Execpool):
    """Telemetry as it is meant: scraped, and exported."""

    def __init__(self, root, program, postgres):
        self.port = free_port()
        self.collector = socket.create_server(("127.0.0.1", 0))
        super().__init__(
            root,
            program,
            postgres,
            name="on",
            telemetry=f"127.0.0.1:{self.port}",
            env={
                "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{self.collector.getsockname()[1]}",
                "OTEL_METRIC_EXPORT_INTERVAL": str(int(SCRAPE * 1000)),
            },
        )

    def scrape(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        connection.request("GET", "/metrics")
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        if answer.status != 200:
            raise CannotMeasure(f"/metrics: {answer.status} {text}")
        return text


class Unmeasured(Execpool):
    def __init__(self, root, program, postgres):
        super().__init__(root, program, postgres, name="off", env={"OTEL_SDK_DISABLED": "true"})


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def data_ns(server):
    """What the thread of the data plane has used of a CPU."""
    server.must_live()
    for task in Path(f"/proc/{server.pid}/task").iterdir():
        if (task / "comm").read_text().strip() == "data":
            return int((task / "schedstat").read_text().split()[0])
    raise CannotMeasure(f"{server.name} has no thread named data")


def sample(program, server, case, seconds):
    before = data_ns(server)
    transactions, _ = pgbench(program, server, case, seconds)
    time.sleep(0.2)
    return (data_ns(server) - before) / transactions / 1000


def measure(wanted):
    if wanted.cpu is not None:
        os.sched_setaffinity(0, {wanted.cpu})
    programs = Path(os.environ["EXECPOOL_PG_BIN"])
    print(f"machine   {report.machine()}")
    print(f"CPUs      {'all' if wanted.cpu is None else f'{wanted.cpu} alone (--cpu)'}")
    print(f"rounds    {wanted.rounds} of {wanted.seconds} s, in turn; the first of a round alternates\n", flush=True)
    with Bench(programs, None, wanted.execpool, kinds=(Measured, Unmeasured)) as bench:
        return compare(wanted, programs / "pgbench", *bench.sides)


def compare(wanted, program, on, off):
    stop = threading.Event()
    scraper = threading.Thread(target=scrape_until, args=(stop, on))
    scraper.start()
    try:
        samples = {(case, side.name): [] for case in CASES for side in (on, off)}
        for case in CASES:  # not counted: caches, connections
            for side in (on, off):
                sample(program, side, case, 1)
        for number in range(wanted.rounds):
            for case in CASES:
                for side in (on, off) if number % 2 == 0 else (off, on):
                    samples[case, side.name].append(sample(program, side, case, wanted.seconds))
            print(f"bench: round {number + 1} of {wanted.rounds} done", file=sys.stderr, flush=True)
    finally:
        stop.set()
        scraper.join()
    counted = [line for line in on.scrape().splitlines() if line.startswith("db_client_operation_duration_seconds_count")]
    if not counted:
        raise CannotMeasure("/metrics tells no operation: nothing was measured")
    return verdict(samples)


def scrape_until(stop, server):
    while not stop.wait(SCRAPE):
        server.scrape()


def verdict(samples):
    rows = [["CPU of the data plane for one transaction, µs: median (min–max)", "on", "off", "ratio", "of rounds"]]
    missed = False
    paired = []
    for case in CASES:
        on, off = samples[case, "on"], samples[case, "off"]
        ratios = [mine / other for mine, other in zip(on, off)]
        paired += ratios
        low, high = min(ratios), max(ratios)
        rows.append(
            [str(case), report.spread(on, 2), report.spread(off, 2), f"{statistics.median(ratios):.3f}", f"{low:.2f}–{high:.2f}"]
        )
        missed |= statistics.median(ratios) > LIMIT
    print("\n".join(report.table(rows)))
    print(f"\nall cases: {statistics.median(paired):.3f} × (median of {len(paired)} pairs); at most {LIMIT} is the claim")
    print("claim holds" if not missed else "claim MISSED, or too noisy to decide: see --cpu")
    return missed


if __name__ == "__main__":
    main()
