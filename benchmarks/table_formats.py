"""Measures what rows of CSV, Parquet and Avro cost, against the same rows in NDJSON.

    python -m benchmarks.table_formats [--rows 1000000] [--rounds 3]

All of them go through the same `records.map`, and CSV and Parquet also without one. The figures are ratios of
CPU within one round, start-up excluded; each run must deliver every row.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.bars import Bar, table
from benchmarks.measure import ROOT, Backfill, run_backfill, run_measured

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


REFERENCE: Final = Case("NDJSON, mapped", "*.json")
CASES: Final = (
    REFERENCE,
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
    ratios: dict[Case, list[float]] = {case: [] for case in CASES}
    for number in range(rounds):
        startup = _run(few, REFERENCE, 1).usage.cpu_s
        for case in CASES:
            print(f"… round {number + 1} of {rounds}: {case.name}", file=sys.stderr, flush=True)
            runs[case].append(_run(folder, case, rows))
            own, reference = (runs[c][-1].usage.cpu_s - startup for c in (case, REFERENCE))
            ratios[case].append(own / reference)
    print(_table(runs, ratios, rows))
    for case in CASES:
        if case.barred:
            yield Bar(case.name, statistics.median(ratios[case]), "× NDJSON", most=MOST_CPU, digits=2)
            yield Bar(f"memory, {case.name}", _peak(runs[case]), "MiB", most=MOST_MIB)


def _tables(cache: Path, rows: int) -> Path:
    # In a process of its own: what a process takes counts as its children's peak, too.
    told = run_measured(["-m", "benchmarks.make_tables", str(cache), str(rows)])
    return Path(told.output.strip())


def _run(folder: Path, case: Case, rows: int) -> Backfill:
    records = {"map": MAP} if case.mapped else {}
    return run_backfill(f"{folder}/{case.files}", rows, changes={"source": {"csv": CSV}, "records": records})


def _peak(runs: Sequence[Backfill]) -> float:
    return max(run.usage.peak_mib for run in runs)


def _table(runs: Mapping[Case, Sequence[Backfill]], ratios: Mapping[Case, Sequence[float]], rows: int) -> str:
    head = ["", "CPU-s, start-up included", "× NDJSON", "lowest", "peak MiB", "rows/s"]
    body = [
        [
            case.name,
            f"{statistics.median(run.usage.cpu_s for run in runs[case]):.1f}",
            f"{statistics.median(ratios[case]):.2f}",
            f"{min(ratios[case]):.2f}",
            f"{_peak(runs[case]):.0f}",
            f"{statistics.median(rows / run.usage.wall_s for run in runs[case]):,.0f}",
        ]
        for case in runs
    ]
    return f"\n{table(head, body)}\n"


def main() -> int:
    """Measure what the command line names; return 1 if a bar is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000, help="default: 1,000,000")
    parser.add_argument("--rounds", type=int, default=3, help="medians are taken (default: 3)")
    parser.add_argument(
        "--folder", type=Path, default=ROOT / ".bench", help="where input is kept (default: .bench)"
    )
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    bars = list(measure_formats(given.folder, given.rows, given.rounds))
    print(*bars, sep="\n")
    return 1 if any(not bar.passed for bar in bars) else 0


if __name__ == "__main__":
    sys.exit(main())
