"""Measures the real program against its bars.

    python -m benchmarks.run_benchmark            all of it, some minutes
    python -m benchmarks.run_benchmark --cpu      one part; several may be given

Each bar is printed with PASS or MISS; the exit code is 1 if one is missed. README.md says how to read it all.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.bars import Bar, table
from benchmarks.generate import Shape, make_input, make_tiny_files, make_updates, repeat_input
from benchmarks.measure import ROOT, Backfill, RunFailed, Usage, run_backfill, run_measured, write_config

STARTUP_CPU_S = 3.0
RATIO_WITH_IDS = 2.2
RATIO_WITHOUT_IDS = 1.6 * RATIO_WITH_IDS
EVENTS_PER_SECOND = 150_000
LIMIT_EVENTS_PER_SECOND = 30_000
LIMIT_SLACK = 0.03
PEAK_MIB = 350
HELP_S = 0.4
PLAN_S = 60
EVENTS_PER_SMALL_FILE = 10
SMALL_FILES_RATIO = 1.5
FULL_REQUESTS_PERCENT = 95
PROFILES_CPU_S = 12.0
PROFILES_PEAK_MIB = 500
UPDATES_PER_PROFILE = 10
GRAPH_GROWTH = 1.01  # a longer path in it is no growth


@dataclass(frozen=True, slots=True)
class Case:
    """One way to run: over which input, how ids are made, how long an answer takes."""

    name: str
    with_ids: bool = True
    gzipped: bool = False
    mode: str = "content"
    latency_ms: float = 0.0

    def shape(self, events: int) -> Shape:
        """What its input looks like."""
        return Shape(events, with_ids=self.with_ids, gzipped=self.gzipped)


WITH_IDS = Case("with ids")
SLOW_ANSWERS = Case("with ids, answers after 100 ms", latency_ms=100)
WITHOUT_IDS = Case("without ids, content", with_ids=False)
CASES = (
    WITH_IDS,
    SLOW_ANSWERS,
    WITHOUT_IDS,
    Case("without ids, line", with_ids=False, mode="line"),
    Case("with ids, gzip files", gzipped=True),
)


@dataclass(frozen=True, slots=True)
class Turn:
    """One run, with the loop's CPU over the same input just before it."""

    run: Backfill
    loop_cpu_s: float
    startup_cpu_s: float

    @property
    def cpu_s(self) -> float:
        """CPU of the run beyond its start-up."""
        return self.run.usage.cpu_s - self.startup_cpu_s

    @property
    def ratio(self) -> float:
        """How many times the loop's CPU that is."""
        return self.cpu_s / self.loop_cpu_s


def measure_cpu(cache: Path, events: int, rounds: int) -> Iterator[Bar]:
    """Run every case and the loop in turns, print the table and yield the bars."""
    turns: dict[Case, list[Turn]] = {case: [] for case in CASES}
    startups = []
    for number in range(rounds):
        startup = _startup(cache)
        startups.append(startup)
        for case in CASES:
            _tell(f"round {number + 1} of {rounds}: {case.name}")
            folder = make_input(cache, case.shape(events))
            loop = json.loads(run_measured(["-m", "benchmarks.baseline", str(folder)]).output)["cpu_s"]
            run = run_backfill(f"{folder}/*", events, case.mode, case.latency_ms)
            turns[case].append(Turn(run, loop, startup.cpu_s))
    print(_cpu_table(turns, events, startups))
    yield Bar("start-up", _median(s.cpu_s for s in startups), "CPU-s", most=STARTUP_CPU_S, digits=2)
    for case, most in ((WITH_IDS, RATIO_WITH_IDS), (WITHOUT_IDS, RATIO_WITHOUT_IDS)):
        yield Bar(f"CPU, {case.name}", _median(t.ratio for t in turns[case]), "× loop", most=most, digits=2)
    for case in (WITH_IDS, SLOW_ANSWERS):
        yield Bar(
            f"speed, {case.name}", _median(_speed(t) for t in turns[case]), "events/s", EVENTS_PER_SECOND
        )
    yield Bar(f"memory, {events:,} events", _peak(turns[WITH_IDS]), "MiB", most=PEAK_MIB)


def measure_limit(cache: Path, seconds: float) -> Iterator[Bar]:
    """Run with the default limits and yield how close the run keeps to them."""
    shape = Shape(1_000_000)
    times = max(1, round(LIMIT_EVENTS_PER_SECOND * seconds / shape.events))
    _tell(f"{times * shape.events:,} events with the default limits")
    run = run_backfill(f"{repeat_input(cache, shape, times)}/*", times * shape.events, limits={})
    least = LIMIT_EVENTS_PER_SECOND * (1 - LIMIT_SLACK)
    name = "default limits, whole run"
    yield Bar(name, run.sink.events_per_second, "events/s", least, LIMIT_EVENTS_PER_SECOND)
    busiest = run.sink.peak_events_per_second
    yield Bar("default limits, busiest minute", busiest, "events/s", most=LIMIT_EVENTS_PER_SECOND)


def measure_memory(cache: Path, events: int) -> Iterator[Bar]:
    """Run over many events and yield the peak memory."""
    shape = Shape(min(events, 1_000_000))
    times = max(1, events // shape.events)
    _tell(f"{times * shape.events:,} events")
    run = run_backfill(f"{repeat_input(cache, shape, times)}/*", times * shape.events)
    speed = run.sink.events_per_second
    cpu = run.usage.cpu_s / run.events * 1e6
    print(f"{run.events:,} events: {speed:,.0f} events/s, {cpu:.2f} CPU-s per million, start-up included")
    yield Bar(f"memory, {run.events:,} events", run.usage.peak_mib, "MiB", most=PEAK_MIB)


def measure_plan(cache: Path, objects: int) -> Iterator[Bar]:
    """Plan runs over few and over many objects and yield the time and the growth of the graph."""
    few, many = (_plan(cache, count) for count in (10, objects))
    segments, size = many["segments"], many["graph_bytes"]
    print(f"{objects:,} objects make {segments:,.0f} segments; the graph has {size:,.0f} bytes")
    yield Bar(f"planning {objects:,} objects", many["seconds"], "s", most=PLAN_S, digits=1)
    growth = many["graph_bytes"] / few["graph_bytes"]
    yield Bar("graph, against that of 10 objects", growth, "times", most=GRAPH_GROWTH, digits=3)


def measure_small_files(cache: Path, files: int, rounds: int) -> Iterator[Bar]:
    """Run over the same events in many small files and in 100 files, in turns, and yield how they compare."""
    events = files * EVENTS_PER_SMALL_FILE
    small = make_tiny_files(cache, files, events=EVENTS_PER_SMALL_FILE)
    large = make_input(cache, Shape(events, files=100))
    ratios, full = [], []
    for number in range(rounds):
        _tell(f"round {number + 1} of {rounds}: {files:,} files of {EVENTS_PER_SMALL_FILE} events")
        few = run_backfill(f"{large}/*", events)
        many = run_backfill(f"{small}/*/*", events)
        ratios.append(many.usage.cpu_s / few.usage.cpu_s)
        full.append(100 * many.sink.full / many.sink.requests)
        print(
            f"{files:,} files: {many.usage.cpu_s:.1f} CPU-s, {many.usage.peak_mib:.0f} MiB, "
            f"{many.sink.requests:,} requests; 100 files: {few.usage.cpu_s:.1f} CPU-s"
        )
    yield Bar(f"{files:,} small files", _median(ratios), "× CPU", most=SMALL_FILES_RATIO, digits=2)
    yield Bar("requests that are full", min(full), "%", least=FULL_REQUESTS_PERCENT, digits=1)


def measure_profiles(cache: Path, updates: int, rounds: int) -> Iterator[Bar]:
    """Run over updates of a tenth as many profiles and yield the CPU, the memory, and the order."""
    profiles = updates // UPDATES_PER_PROFILE
    folder = make_updates(cache, updates, profiles)
    runs = []
    for number in range(rounds):
        _tell(f"round {number + 1} of {rounds}: {updates:,} updates of {profiles:,} profiles")
        runs.append(run_backfill(f"{folder}/*", updates, kind="profiles"))
    last = runs[-1].sink
    print(
        f"{updates:,} updates: {last.events_per_second:,.0f}/s, {last.requests:,} requests, "
        f"{100 * last.full / last.requests:.0f}% of them full, {last.bytes_raw / 1e6:,.0f} MB"
    )
    name = f"{updates:,} updates"
    yield Bar(name, _median(run.usage.cpu_s for run in runs), "CPU-s", most=PROFILES_CPU_S, digits=2)
    yield Bar(f"memory, {name}", max(r.usage.peak_mib for r in runs), "MiB", most=PROFILES_PEAK_MIB)
    yield Bar("updates out of order", max(run.sink.disordered for run in runs), "updates", most=0)


def measure_help() -> Iterator[Bar]:
    """Yield how long `--help` takes."""
    times = [run_measured(["run_backfill.py", "--help"]).wall_s for _ in range(7)]
    yield Bar("run_backfill.py --help", _median(times), "s", most=HELP_S, digits=2)


def _startup(cache: Path) -> Usage:
    folder = make_input(cache, Shape(1, files=1))
    return run_backfill(f"{folder}/*", 1).usage


def _plan(cache: Path, objects: int) -> dict[str, float]:
    _tell(f"planning {objects:,} objects")
    folder = make_tiny_files(cache, objects)
    with tempfile.TemporaryDirectory() as state:
        config = write_config(Path(state), f"{folder}/*/*.json", "http://127.0.0.1:9")
        figures: dict[str, float] = json.loads(run_measured(["-m", "benchmarks.plan", str(config)]).output)
    if figures["files"] != objects:
        raise RunFailed(f"{objects:,} objects were to be planned, not {figures['files']:,.0f}")
    return figures


def _cpu_table(turns: dict[Case, list[Turn]], events: int, startups: Sequence[Usage]) -> str:
    head = ["", "events/s", "with start-up", "CPU-s/M", "loop", "ratio", "lowest", "peak MiB", "MB sent"]
    rows = [_row(case.name, events / 1e6, case_turns) for case, case_turns in turns.items()]
    cpu, wall = _median(s.cpu_s for s in startups), _median(s.wall_s for s in startups)
    startup = f"start-up: {cpu:.2f} CPU-s, {wall:.2f} s, not in CPU-s/M (CPU-seconds per million events)"
    return f"\n{table(head, rows)}\n{startup}\n"


def _row(name: str, millions: float, turns: Sequence[Turn]) -> list[str]:
    return [
        name,
        f"{_median(_speed(t) for t in turns):,.0f}",
        f"{_median(t.run.events / t.run.usage.wall_s for t in turns):,.0f}",
        f"{_median(t.cpu_s for t in turns) / millions:.2f}",
        f"{_median(t.loop_cpu_s for t in turns) / millions:.2f}",
        f"{_median(t.ratio for t in turns):.2f}",
        f"{min(t.ratio for t in turns):.2f}",
        f"{_peak(turns):.0f}",
        f"{turns[0].run.sink.bytes_sent / 1e6:.0f}",
    ]


def _speed(turn: Turn) -> float:
    return turn.run.sink.events_per_second


def _peak(turns: Sequence[Turn]) -> float:
    return max(turn.run.usage.peak_mib for turn in turns)


def _median(values: Iterator[float] | Sequence[float]) -> float:
    return statistics.median(values)


def _tell(what: str) -> None:
    print(f"… {what}", file=sys.stderr, flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cpu", action="store_true", help="CPU per event, speed and memory of every case")
    parser.add_argument("--events", type=int, default=1_000_000, help="for --cpu (default: 1,000,000)")
    parser.add_argument(
        "--rounds", type=int, default=3, help="of --cpu and --small-files; medians are taken (default: 3)"
    )
    parser.add_argument(
        "--at-limit", type=float, nargs="?", const=67, metavar="SECONDS", help="default limits"
    )
    parser.add_argument(
        "--rss", type=int, nargs="?", const=10_000_000, metavar="EVENTS", help="memory of a long run"
    )
    parser.add_argument(
        "--plan", type=int, nargs="?", const=100_000, metavar="OBJECTS", help="planning many objects"
    )
    parser.add_argument(
        "--small-files",
        type=int,
        nargs="?",
        const=100_000,
        metavar="FILES",
        help="the same events in many small files and in 100",
    )
    parser.add_argument(
        "--profiles",
        type=int,
        nargs="?",
        const=1_000_000,
        metavar="UPDATES",
        help="updates of a tenth as many profiles",
    )
    parser.add_argument("--help-time", action="store_true", help="how long --help takes")
    parser.add_argument(
        "--folder", type=Path, default=ROOT / ".bench", help="where input is kept (default: .bench)"
    )
    given = parser.parse_args()
    parts = (given.cpu, given.at_limit, given.rss, given.plan, given.small_files, given.profiles)
    if not (any(parts) or given.help_time):
        given.cpu = given.help_time = True
        given.profiles = 1_000_000
        given.at_limit, given.rss, given.plan, given.small_files = 67, 10_000_000, 100_000, 100_000
    return given


def _measure(given: argparse.Namespace) -> Iterator[Bar]:
    if given.help_time:
        yield from measure_help()
    if given.plan:
        yield from measure_plan(given.folder, given.plan)
    if given.small_files:
        yield from measure_small_files(given.folder, given.small_files, given.rounds)
    if given.profiles:
        yield from measure_profiles(given.folder, given.profiles, given.rounds)
    if given.cpu:
        yield from measure_cpu(given.folder, given.events, given.rounds)
    if given.rss:
        yield from measure_memory(given.folder, given.rss)
    if given.at_limit:
        yield from measure_limit(given.folder, given.at_limit)


def main() -> int:
    """Measure what the command line names; return 1 if a bar is missed."""
    given = _arguments()
    given.folder.mkdir(parents=True, exist_ok=True)
    print(f"Python {platform.python_version()}, {platform.machine()}")
    bars = list(_measure(given))
    print("", *bars, sep="\n")
    missed = sum(not bar.passed for bar in bars)
    print(f"\n{len(bars) - missed} of {len(bars)} bars held")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
