"""What the ledger costs: the share of a run's sending time that its one thread spends in the ledger.

    python -m benchmarks.ledger [--events 2000000] [--rounds 3]

At Mixpanel's limits, which is the throughput that a user has, and with them lifted, at more than ten times
that: there the share is as large as it gets, most of all where each event's id is made here, since a sample
of these goes into the ledger, to tell how many rows are identical.

It is measured inside each run: two runs, one with and one without a ledger, differ by more than the bar for
other reasons. What counts is all that the run's own thread does for the ledger: look what is settled, begin
an attempt, take and write down what became of its blocks, hand it over when it is complete. Completions are
made durable in a thread of their own; of these only the CPU counts. What the run waits for the last one,
when nothing is sent any more, is not in it: some milliseconds. On a machine with other work the share comes
out too high.
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
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, Final

from benchmarks.bars import Bar, run_bars, table
from benchmarks.generate import Shape, repeat_input
from benchmarks.measure import UNLIMITED, RunFailed, run_measured, running_sink, write_config

MOST_PERCENT: Final = 1.0  # of the throughput that a user has
# What it must not come to where nothing is waited for: 1.2 to 1.4 %, and 3.5 %, on two cores.
MOST_PERCENT_LIFTED: Final = 2.0
MOST_PERCENT_LIFTED_MADE: Final = 5.0
AT_LIMIT_EVENTS: Final = 500_000  # some 17 seconds
PARTS: Final = ("open", "take", "settle", "hand over", "commit")
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
            cpu, wall = time.thread_time(), time.perf_counter()
            try:
                return function(*arguments, **named)
            finally:
                self.wall_s += time.perf_counter() - wall
                self.cpu_s += time.thread_time() - cpu
                self.calls += 1

        return call


def measure_here(config: str) -> dict[str, Any]:
    """Runs a backfill in this process and returns what its ledger took."""
    from pipelines.attempt import Attempt
    from pipelines.command import run
    from pipelines.ledger import Ledger
    from transforms.commit_outcomes import Commits

    methods: Mapping[str, Sequence[tuple[type, str]]] = {
        "open": [(Ledger, "settled_blocks"), (Ledger, "earlier_sends"), (Ledger, "open_attempt")],
        "take": [(Attempt, "take"), (Attempt, "is_complete"), (Ledger, "too_many_errors")],
        "settle": [(Attempt, "settle")],
        "hand over": [(Commits, "add"), (Commits, "finished")],
        "commit": [(Attempt, "commit")],
    }
    spent = {name: Spent() for name in methods}
    for name, timed in methods.items():
        for owner, method in timed:
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
    """Runs several times at either pace and yields the shares that the ledger takes."""
    bars, rows = [], []
    for name, most, is_lifted, with_ids in (
        ("at Mixpanel's limits", MOST_PERCENT, False, True),
        ("at these, ids made here", MOST_PERCENT, False, False),
        ("limits lifted", MOST_PERCENT_LIFTED, True, True),
        ("lifted, ids made here", MOST_PERCENT_LIFTED_MADE, True, False),
    ):
        count, limits = (events, UNLIMITED) if is_lifted else (min(events, AT_LIMIT_EVENTS), {})
        found = [_run(cache, count, limits, with_ids) for _ in range(rounds if is_lifted else 1)]
        rows += [_row(name, each) for each in found]
        share = statistics.median(_share(each) for each in found)
        bars.append(Bar(f"ledger, share of the time, {name}", share, "%", most=most, digits=2))
    heads = ["pace", "events/s", *(f"{name}, µs" for name in PARTS), "commit CPU, µs"]
    print(table([*heads, "own thread %", "commit CPU %", "all %"], rows))
    print(f"load {os.getloadavg()[0]:.1f}")
    yield from bars


def _run(cache: Path, events: int, limits: Mapping[str, float], with_ids: bool) -> Mapping[str, Any]:
    """Returns what one run in a process of its own tells.

    Raises:
        RunFailed: if not everything arrived.
    """
    shape = Shape(min(events, 1_000_000), with_ids=with_ids)
    times = max(1, events // shape.events)
    source = f"{repeat_input(cache, shape, times)}/*"
    with tempfile.TemporaryDirectory(dir=cache) as state, running_sink() as sink:
        config = write_config(Path(state), source, sink.url, limits=limits)
        told = run_measured(["-m", "benchmarks.ledger", HERE, str(config)], {"BENCH_TOKEN": "benchmark"})
    found: Mapping[str, Any] = json.loads(told.output)
    if found["code"] or found["events"] != times * shape.events:
        raise RunFailed(f"not everything arrived: {found}")
    return found


def _own_share(found: Mapping[str, Any]) -> float:
    """Returns the percentage of the sending time that the run's own thread spends in the ledger."""
    return float(100 * sum(found[name][1] for name in PARTS if name != "commit") / found["seconds"])


def _commit_share(found: Mapping[str, Any]) -> float:
    return float(100 * found["commit"][2] / found["seconds"])


def _share(found: Mapping[str, Any]) -> float:
    """Returns the ledger's percentage of the time in which a run sent."""
    return _own_share(found) + _commit_share(found)


def _row(pace: str, found: Mapping[str, Any]) -> list[str]:
    calls, _, commit_cpu_s = found["commit"]
    return [
        pace,
        f"{found['events'] / found['seconds']:,.0f}",
        *(f"{found[name][0]:,} × {_each_us(found[name]):,.1f}" for name in PARTS),
        f"{1e6 * commit_cpu_s / max(1, calls):,.0f}",
        f"{_own_share(found):.2f}",
        f"{_commit_share(found):.2f}",
        f"{_share(found):.2f}",
    ]


def _each_us(spent: Sequence[float]) -> float:
    calls, wall_s, _ = spent
    return 1e6 * wall_s / max(1, calls)


def main() -> int:
    """Measures; returns 1 if the bar is missed."""
    if sys.argv[1:2] == [HERE]:
        print(json.dumps(measure_here(sys.argv[2])))
        return 0
    return run_bars(__doc__, "events", 2_000_000, measure_ledger)


if __name__ == "__main__":
    sys.exit(main())
