"""How fast input is read of which no line is JSON, against the same number of bytes of good events.

    python -m benchmarks.bad_lines                     a million lines of each, three times in turns
    python -m benchmarks.bad_lines --events 200000 --rounds 1

Both are whole runs of the program with the limits lifted. The good events are checked, packed and sent to a
sink; each bad line becomes a dead letter. A rate is that of the seconds in which lines were read: Beam's
start and end are not in it. Half of the rate of good lines is the bar.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.bars import Bar
from benchmarks.generate import Shape, made_once, make_input
from benchmarks.measure import ROOT, RunFailed, Usage, run_measured, running_sink, write_config

LEAST_SHARE: Final = 0.5
NO_LIMIT: Final = {"run": {"max_errors": "100%", "allow_dead_letters": "100%"}}


@dataclass(frozen=True, slots=True)
class Run:
    """One run, and what it reported."""

    usage: Usage
    report: Mapping[str, Any]

    @property
    def lines_per_second(self) -> float:
        """Lines for each second in which some were read."""
        return float(self.report["books"]["read"] / self.report["rate"]["seconds"])


def cut_short(lines: bytes) -> bytes:
    r"""Returns lines of the same length that all end too early to be JSON.

    >>> cut_short(b'{"a":{"b":1}}\n{"a":{}}\n')
    b'{"a":{"b":1  \n{"a":{  \n'
    """
    return lines.replace(b"}}\n", b"  \n")


def make_bad_input(cache: Path, events: int) -> tuple[Path, Path]:
    """Returns a folder of good events, and one of as many bytes in which no line is JSON."""
    shape = Shape(events)
    good = make_input(cache, shape)

    def fill(unfinished: Path) -> None:
        for path in good.iterdir():
            (unfinished / path.name).write_bytes(cut_short(path.read_bytes()))

    return good, made_once(cache / f"{shape.name}-bad", fill)


def read_all(folder: Path, events: int, outcome: str) -> Run:
    """Returns a run over a folder all of whose records come to one outcome.

    Raises:
        RunFailed: if they do not.
    """
    with tempfile.TemporaryDirectory() as state, running_sink() as sink:
        config = write_config(Path(state), f"{folder}/*", sink.url, changes=NO_LIMIT)
        arguments = ["run_backfill.py", "--config", str(config), "--json"]
        usage = run_measured(arguments, {"BENCH_TOKEN": "benchmark"})
        report = json.loads(usage.output)
    books = report["books"]
    if books["read"] != events or books[outcome] != events or not books["balanced"]:
        raise RunFailed(f"{events:,} lines were to be {outcome}, but the books are {books}")
    return Run(usage, report)


def measure(cache: Path, events: int, rounds: int) -> Iterator[Bar]:
    """Yields how the rate of bad lines compares with that of good ones, and prints both."""
    good, bad = make_bad_input(cache, events)
    start_up = read_all(make_input(cache, Shape(1, files=1)), 1, "imported").usage.cpu_s
    rates, cpus = [], []
    for _ in range(rounds):
        runs = (read_all(good, events, "imported"), read_all(bad, events, "dead_lettered"))
        cpu = [(run.usage.cpu_s - start_up) / events * 1e6 for run in runs]
        for name, run, each in zip(("good", "bad"), runs, cpu, strict=True):
            told = f"{run.lines_per_second:>9,.0f} lines/s, {each:.2f} CPU-s a million"
            print(f"{name:<5}{told}, {run.usage.peak_mib:.0f} MiB", flush=True)
        rates.append(runs[1].lines_per_second / runs[0].lines_per_second)
        cpus.append(cpu[0] / cpu[1])
    yield _bar(f"rate of {events:,} bad lines", rates)
    yield _bar("the same by CPU seconds", cpus)


def _bar(name: str, shares: Sequence[float]) -> Bar:
    return Bar(name, statistics.median(shares), "× good", least=LEAST_SHARE, digits=2)


def main() -> int:
    """Measures, and returns 1 if a bar is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--events", type=int, default=1_000_000, help="lines (default: 1,000,000)")
    parser.add_argument("--rounds", type=int, default=3, help="medians are taken (default: 3)")
    parser.add_argument(
        "--folder", type=Path, default=ROOT / ".bench", help="where input is kept (default: .bench)"
    )
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    bars = list(measure(given.folder, given.events, given.rounds))
    print(*bars, sep="\n")
    return 0 if all(bar.passed for bar in bars) else 1


if __name__ == "__main__":
    sys.exit(main())
