"""Measures the launcher's memory for a plan of many objects, from listing to the first report.

    python -m benchmarks.plan_memory [--objects 10000000]

A stand-in answers the listing's pages: a real store with ten million objects is hard to come by. All else is
real. Prints seconds, peak memory, and the bytes of manifest and graph; a missed bar makes the exit code 1.
"""

from __future__ import annotations

import argparse
import hashlib
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import apache_beam as beam

from benchmarks.bars import Bar
from pipelines.backfill import prepare_launch
from pipelines.books import close_books
from pipelines.closing import whole_report
from pipelines.config import Config
from pipelines.graph import BackfillEvents
from pipelines.ledger import Ledger
from pipelines.report import RunFacts
from transforms import storage

PEAK_MIB = 500
GRAPH_BYTES = 1_000_000
PAGE = 1000
PER_DAY = 100_000


class ManyObjects:
    """A bucket's listing, made page by page: a day has a hundred thousand objects of 40 to 60 kB."""

    def __init__(self, count: int) -> None:
        self._count = count

    def call_s3(self, _method: str, **asked: Any) -> dict[str, Any]:
        """Return one page, as `list_objects_v2` does."""
        first = int(asked.get("ContinuationToken", 0))
        last = min(first + PAGE, self._count)
        page = {"Contents": [self._object(number) for number in range(first, last)]}
        return {**page, "IsTruncated": last < self._count, "NextContinuationToken": str(last)}

    def _object(self, number: int) -> dict[str, Any]:
        day = number // PER_DAY
        key = f"raw/dt=20{day // 336:02}-{day // 28 % 12 + 1:02}-{day % 28 + 1:02}/part-{number:08}.json.gz"
        etag = hashlib.md5(key.encode(), usedforsecurity=False).hexdigest()
        return {"Key": key, "Size": 40_000 + number % 20_000, "ETag": f'"{etag}"'}


def peak_mib() -> float:
    """Return the largest resident set so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> int:
    """Measure, print, and return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--objects", type=int, default=10_000_000, help="objects (default: 10000000)")
    count = parser.parse_args().objects
    before = peak_mib()
    opened = storage.Storage.open
    many = ManyObjects(count)
    storage.Storage.open = lambda self, uri: many if uri.startswith("s3:") else opened(self, uri)  # type: ignore
    with tempfile.TemporaryDirectory() as folder:
        config = Config.model_validate(
            {
                "source": {"uri": "s3://bucket/raw/dt={date}/*.json.gz"},
                "destination": {
                    "endpoint": "http://127.0.0.1:9",
                    "credentials": {"project_token": "env:NONE"},
                },
                "run": {"state": folder, "id": "plan"},
            }
        )
        started = time.monotonic()
        launch = prepare_launch(config)
        books = close_books(launch.manifest.segments, {})
        whole_report(launch.folder, launch.manifest, books, RunFacts("running", 0.0, 0.0))
        seconds = time.monotonic() - started
        pipeline = beam.Pipeline()
        destination = config.destination.to_destination()
        _ = pipeline | BackfillEvents(config, destination, Ledger(launch.folder))
        graph = len(pipeline.to_runner_api().SerializeToString())
        manifest = Path(folder, "plan", "manifest.jsonl").stat().st_size
    print(f"{launch.manifest.files:,} objects, {len(launch.manifest.segments):,} segments, {seconds:,.0f} s")
    print(f"manifest {manifest / 1e6:,.0f} MB; before the plan {before:,.0f} MiB (Python and Beam)")
    bars = (
        Bar("the launcher's peak memory", peak_mib(), "MiB", most=PEAK_MIB),
        Bar("the graph", graph, "bytes", most=GRAPH_BYTES),
    )
    print(*bars, sep="\n")
    return 0 if all(bar.passed for bar in bars) else 1


if __name__ == "__main__":
    sys.exit(main())
