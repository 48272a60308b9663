"""Measures what rows of CSV, Parquet and Avro cost, against the same rows in NDJSON.

    python -m benchmarks.table_formats [--rows 1000000] [--rounds 3]

Rows go through one `records.map`, those of CSV and Parquet also without it. They are held against events in
NDJSON on the full path: each has a number for an id, and so is taken apart and written anew, as every row of
a table is. Beside it stands NDJSON through the same map. The figures are ratios of CPU within one round,
start-up excluded; each run must deliver every row.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.bars import Bar, run_bars, table
from benchmarks.measure import Backfill, run_backfill, run_measured

MOST_CPU: Final = 1.6
MOST_MIB: Final = 400
MAP: Final[dict[str, Any]] = {"dialect": "flat"}
CSV: Final[dict[str, Any]] = {"types": {"items": "json", "sku": "string", "order_id": "string"}}


@dataclass(frozen=True, slots=True)
class Case:
    """One way in which the rows are stored and read.

    Attributes:
        name: what the table calls it.
        files: the pattern of its files.
        mapped: whether the rows go through the map.
        barred: whether the bars hold for it.
    """

    name: str
    files: str
    mapped: bool = True
    barred: bool = False


FULL_PATH: Final = Case("NDJSON, full path", "*.ndjson", mapped=False)
MAPPED: Final = Case("NDJSON, mapped", "*.json")
CASES: Final = (
    FULL_PATH,
    MAPPED,
    Case("CSV, mapped", "*.csv", barred=True),
    Case("Parquet, mapped", "*.parquet", barred=True),
    Case("Avro, mapped", "*.avro"),
    Case("CSV, as events", "*.csv", mapped=False, barred=True),
    Case("Parquet, as events", "*.parquet", mapped=False, barred=True),
)


def measure_formats(cache: Path, rows: int, rounds: int) -> Iterator[Bar]:
    """Run every case in turns, print the table and yield the bars."""
    folder = _tables(cache, rows)
    few = _tables(cache, 1)
    runs: dict[Case, list[Backfill]] = {case: [] for case in CASES}
    startups: list[float] = []
    for number in range(rounds):
        startups.append(_run(few, FULL_PATH, 1).usage.cpu_s)
        for case in CASES:
            print(f"… round {number + 1} of {rounds}: {case.name}", file=sys.stderr, flush=True)
            runs[case].append(_run(folder, case, rows))
    cpu = {
        case: [run.usage.cpu_s - startup for run, startup in zip(runs[case], startups, strict=True)]
        for case in CASES
    }
    print(_table(runs, cpu, rows))
    for case in CASES:
        if case.barred:
            yield Bar(case.name, _ratio(cpu, case, FULL_PATH), "× NDJSON", most=MOST_CPU, digits=2)
            yield Bar(f"memory, {case.name}", _peak(runs[case]), "MiB", most=MOST_MIB)


def _tables(cache: Path, rows: int) -> Path:
    # In a process of its own: what a process takes counts as its children's peak, too.
    told = run_measured(["-m", "benchmarks.make_tables", str(cache), str(rows)])
    return Path(told.output.strip())


def _run(folder: Path, case: Case, rows: int) -> Backfill:
    records = {"map": MAP} if case.mapped else {}
    return run_backfill(f"{folder}/{case.files}", rows, changes={"source": {"csv": CSV}, "records": records})


def _ratio(cpu: Mapping[Case, Sequence[float]], case: Case, reference: Case) -> float:
    return statistics.median(own / other for own, other in zip(cpu[case], cpu[reference], strict=True))


def _peak(runs: Sequence[Backfill]) -> float:
    return max(run.usage.peak_mib for run in runs)


def _table(runs: Mapping[Case, Sequence[Backfill]], cpu: Mapping[Case, Sequence[float]], rows: int) -> str:
    head = ["", "CPU-s/M", "× full path", "× mapped", "peak MiB", "rows/s"]
    body = [
        [
            case.name,
            f"{statistics.median(cpu[case]) / rows * 1e6:.1f}",
            f"{_ratio(cpu, case, FULL_PATH):.2f}",
            f"{_ratio(cpu, case, MAPPED):.2f}",
            f"{_peak(runs[case]):.0f}",
            f"{statistics.median(rows / run.usage.wall_s for run in runs[case]):,.0f}",
        ]
        for case in runs
    ]
    return f"\n{table(head, body)}\n"


def main() -> int:
    """Measure what the command line names; return 1 if a bar is missed."""
    return run_bars(__doc__, "rows", 1_000_000, measure_formats)


if __name__ == "__main__":
    sys.exit(main())
