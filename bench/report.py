"""What was measured, as text."""

import platform
import statistics
from pathlib import Path

MEGABYTE = 1_000_000


def machine():
    """The CPU, the kernel, and how busy they were before we began."""
    model = "unknown CPU"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    cores = sum(1 for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("processor"))
    load = Path("/proc/loadavg").read_text().split()[0]
    autogroup = Path("/proc/sys/kernel/sched_autogroup_enabled")
    grouped = autogroup.read_text().strip() if autogroup.exists() else "absent"
    return (
        f"{model}, {cores} cores, Linux {platform.release()}, "
        f"sched_autogroup_enabled {grouped}, load {load} before the start"
    )


def spread(values, digits):
    low, high = min(values), max(values)
    return f"{statistics.median(values):.{digits}f} ({low:.{digits}f}–{high:.{digits}f})"


def table(rows):
    """Lines with columns of one width; the first column is text, the others are figures."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:])]
        yield "  ".join(cells).rstrip()


def bounds(ours, theirs):
    """The lowest and the highest ratio of a round."""
    rounds = [mine / other for mine, other in zip(ours, theirs)]
    return min(rounds), max(rounds)


def ratio(ours, theirs):
    """The ratio of the medians."""
    return statistics.median(ours) / statistics.median(theirs)


def system_calls(case, side, counts):
    """A line: calls for one transaction, and the frequent ones by name."""
    known = sorted(counts.items(), key=lambda entry: -entry[1])
    frequent = ", ".join(f"{call} {count:.2f}" for call, count in known if count >= 0.05)
    return f"  {case!s:20}  {side:9}  {sum(counts.values()):5.2f}: {frequent}"


class Verdicts:
    """Which claims hold."""

    def __init__(self):
        self.lines = []
        self.missed = 0

    def judge(self, claim, measured, holds):
        self.missed += not holds
        self.lines.append(f"{'holds ' if holds else 'MISSED'}  {claim}: {measured}")
