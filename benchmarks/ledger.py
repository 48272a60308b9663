"""What the ledger costs: the share of a run's sending time that its one thread spends in the ledger.

    python -m benchmarks.ledger [--events 2000000] [--rounds 3]

With the limits lifted, so that the share is as large as it gets. It is measured inside each run: two runs,
one with and one without a ledger, differ by more than the bar for other reasons. Completions are made durable
in a thread of their own; of these only the CPU counts.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, Final

from benchmarks.bars import Bar, run_bars, table
from benchmarks.generate import Shape, repeat_input
from benchmarks.measure import RunFailed, run_measured, running_sink, write_config

MOST_PERCENT: Final = 1.0
HERE: Final = "--here"  # how the benchmark tells itself to measure, in a process of its own


@dataclass(slots=True)
class Spent:
    """Seconds in some calls, and how many there were."""

    calls: int = 0
    wall_s: float = 0.0
    cpu_s: float = 0.0

    def timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Returns the function, timed."""

        @wraps(function)
        def call(*arguments: Any, **named: Any) -> Any:
            wall, cpu = time.perf_counter(), time.thread_time()
            try:
                return function(*arguments, **named)
            finally:
                self.calls += 1
                self.wall_s += time.perf_counter() - wall
                self.cpu_s += time.thread_time() - cpu

        return call


def measure_here(config: str) -> dict[str, Any]:
    """Runs a backfill in this process and returns what its ledger took."""
    from pipelines.attempt import Attempt
    from pipelines.command import run
    from pipelines.ledger import Ledger

    methods = {"open": (Ledger, "open_attempt"), "record": (Attempt, "record"), "commit": (Attempt, "commit")}
    spent = {name: Spent() for name in methods}
    for name, (owner, method) in methods.items():
        setattr(owner, method, spent[name].timed(getattr(owner, method)))
    out = io.BytesIO()
    with contextlib.redirect_stdout(io.TextIOWrapper(out)):
        code = run(config, as_json=True)
        report = json.loads(out.getvalue())
    return {
        "code": code,
        "events": report["books"]["imported"],
        "seconds": report["rate"]["seconds"],
        "segments": report["segments"]["total"],
        **{name: [each.calls, each.wall_s, each.cpu_s] for name, each in spent.items()},
    }


def measure_ledger(cache: Path, events: int, rounds: int) -> Iterator[Bar]:
    """Runs several times and yields the share that the ledger takes."""
    shape = Shape(min(events, 1_000_000))
    times = max(1, events // shape.events)
    source = f"{repeat_input(cache, shape, times)}/*"
    rows: list[list[str]] = []
    shares: list[float] = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory(dir=cache) as state, running_sink() as sink:
            config = write_config(Path(state), source, sink.url)
            told = run_measured(["-m", "benchmarks.ledger", HERE, str(config)], {"BENCH_TOKEN": "benchmark"})
        found = json.loads(told.output)
        if found["code"] or found["events"] != times * shape.events:
            raise RunFailed(f"not everything arrived: {found}")
        spent = found["open"][1] + found["record"][1] + found["commit"][2]
        shares.append(100 * spent / found["seconds"])
        rows.append(
            [
                f"{found['events'] / found['seconds']:,.0f}",
                *(
                    f"{found[name][0]:,} × {1e3 * found[name][1] / max(1, found[name][0]):.2f}"
                    for name in ("open", "record", "commit")
                ),
                f"{1e3 * found['record'][2] / max(1, found['record'][0]):.2f}",
                f"{1e3 * found['commit'][2] / max(1, found['commit'][0]):.2f}",
                f"{100 * found['record'][1] / found['seconds']:.2f}",
                f"{100 * found['commit'][2] / found['seconds']:.2f}",
                f"{shares[-1]:.2f}",
            ]
        )
    heads = ["events/s", "open, ms", "record, ms", "commit, ms"]
    print(table([*heads, "record CPU", "commit CPU", "record %", "commit CPU %", "all %"], rows))
    print(f"load {os.getloadavg()[0]:.1f}")
    yield Bar(
        "ledger, share of the sending time", statistics.median(shares), "%", most=MOST_PERCENT, digits=2
    )


def main() -> int:
    """Measures; returns 1 if the bar is missed."""
    if sys.argv[1:2] == [HERE]:
        print(json.dumps(measure_here(sys.argv[2])))
        return 0
    return run_bars(__doc__, "events", 2_000_000, measure_ledger)


if __name__ == "__main__":
    sys.exit(main())
