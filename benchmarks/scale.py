"""Measures what a second worker process brings where the CPU is the limit, not Mixpanel.

    python -m benchmarks.scale [--events 5000000] [--rounds 3]

One and two worker processes take turns over one input, with the rate limit lifted and ids made from content.
Only what lies between the first request and the last counts: starting is paid once a run. A missed bar makes
the exit code 1. On two cores nothing else may run. Where something does, the last column says what a machine
of their own would let two workers bring at most: it compares the CPU-seconds that events took, the sink's
included, without those of a start.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.bars import Bar, run_bars, table
from benchmarks.generate import Shape, repeat_input
from benchmarks.measure import Backfill, run_backfill

GAIN = 1.7
FILES = 10
TIMES = 20  # each is read: the sink counts only bodies that are new to it, and no worker is left with much
WORKERS = (1, 2)
START = Shape(20_000, files=2, with_ids=False)  # takes hardly more than a start


def run(source: Path, events: int, workers: int) -> Backfill:
    """Run a backfill with that many worker processes."""
    options = {"direct_running_mode": "multi_processing", "direct_num_workers": workers}
    return run_backfill(f"{source}/*", events, "content", beam={"options": options})


def cpu_s(run: Backfill) -> float:
    """Return what a run took of the CPU, with what it took to answer it."""
    return run.usage.cpu_s + run.sink.cpu_s


def measure(cache: Path, events: int, rounds: int) -> Iterator[Bar]:
    """Run all in turns, print the table and yield the bar."""
    shape = Shape(events // TIMES, files=FILES, with_ids=False)
    small, source = repeat_input(cache, START, 1), repeat_input(cache, shape, TIMES)
    starts = {workers: cpu_s(run(small, START.events, workers)) for workers in WORKERS}
    gains, rows = [], []
    for number in range(rounds):
        runs = {workers: run(source, shape.events * TIMES, workers) for workers in WORKERS}
        one, two = (runs[workers].sink.events_per_second for workers in WORKERS)
        took = [cpu_s(runs[workers]) - starts[workers] for workers in WORKERS]
        gains.append(two / one)
        cpu = [f"{seconds / shape.events / TIMES * 1e6:.2f}" for seconds in took]
        row = [f"{number + 1}", f"{one:,.0f}", f"{two:,.0f}", f"{two / one:.2f}"]
        rows.append([*row, *cpu, f"{WORKERS[1] * took[0] / took[1]:.2f}"])
    head = ["round", "one worker, events/s", "two", "gain", "CPU-s a million", "of two", "gain by CPU"]
    print(table(head, rows))
    yield Bar("two worker processes against one", statistics.median(gains), "x", least=GAIN, digits=2)


def main() -> int:
    """Measure, print, and return the exit code."""
    return run_bars(__doc__, "events", 5_000_000, measure)


if __name__ == "__main__":
    sys.exit(main())
