"""Measures the launcher's memory over a run of many objects: its plan, a resume near its end, its books.

    python -m benchmarks.launcher_memory [--objects 10000000] [--object-bytes 50000]

A stand-in answers the listing's pages: a real store with ten million objects is hard to come by. What workers
would write, completions of segments, is written here, all but the last segment's before the resume. All else
is real. Prints seconds and peak memory after each part, and the bytes of manifest and graph; a missed bar
makes the exit code 1.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import os
import resource
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import apache_beam as beam
import numpy as np

from benchmarks.bars import Bar, verdict
from benchmarks.measure import RunFailed
from pipelines.attempt import Attempt
from pipelines.backfill import run_launch
from pipelines.config import Config
from pipelines.graph import BackfillEvents
from pipelines.launch import Launch, prepare_launch
from pipelines.ledger import Ledger
from pipelines.state import StateFolder
from transforms import storage
from transforms.attempt_ids import new_attempt_id
from transforms.elements import BlockOutcome, FileNote, Segment
from transforms.letters import LetterLines
from transforms.tally import Tally

PEAK_MIB = 500
GRAPH_BYTES = 1_000_000
PAGE = 1000
PER_DAY = 100_000


class ManyObjects:
    """A bucket's listing, made page by page: a day has 100,000 objects of 80 to 120 % of a size."""

    def __init__(self, count: int, size: int) -> None:
        self._count = count
        self._size = size

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
        size = self._size * 4 // 5 + number % (self._size * 2 // 5)
        return {"Key": key, "Size": size, "ETag": f'"{etag}"'}


def peak_mib() -> float:
    """Return the largest resident set so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def complete(folder: StateFolder, run: str, segments: Iterable[Segment]) -> None:
    """Write down that segments are done: of each object one event, and of each segment's first a letter."""
    for segment in segments:
        attempt = new_attempt_id()
        writer = Attempt(folder, run, segment.id, attempt)
        every = np.arange(len(segment.parts))
        tally = Tally(lines=len(every))
        tally.parts.add_each("read", every)
        tally.parts.add_each("dead_lettered", every[:1])
        tally.parts.add_each("imported", every[1:])
        notes = (FileNote(0, segment.parts[0].uri, len(every), parts=len(every)),)
        writer.record(
            BlockOutcome(segment.id, attempt, 0, tally, LetterLines.of([b"{}"]), notes=notes, end=True)
        )
        writer.commit()


@dataclass
class Watch:
    """Tells what each part of a run took."""

    started: float = field(default_factory=time.monotonic)

    def tell(self, what: str) -> None:
        """Print the part that has just ended."""
        print(f"{what:<48} {time.monotonic() - self.started:>7,.0f} s {peak_mib():>9,.0f} MiB", flush=True)
        self.started = time.monotonic()


def main() -> int:
    """Measure, print, and return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--objects", type=int, default=10_000_000, help="objects (default: 10000000)")
    parser.add_argument("--object-bytes", type=int, default=50_000, help="size of each (default: 50000)")
    given = parser.parse_args()
    opened, many = storage.Storage.open, ManyObjects(given.objects, given.object_bytes)
    storage.Storage.open = lambda self, uri: many if uri.startswith("s3:") else opened(self, uri)  # type: ignore
    os.environ["MEMORY_TOKEN"] = "benchmark"
    with tempfile.TemporaryDirectory() as folder:
        return verdict(measure(Config.model_validate(settings(folder)), Watch()))


def settings(folder: str) -> dict[str, Any]:
    """Return the configuration of a run that keeps its state in a folder."""
    return {
        "source": {"uri": "s3://bucket/raw/dt={date}/*.json.gz"},
        "destination": {
            "endpoint": "http://127.0.0.1:9",
            "credentials": {"project_token": "env:MEMORY_TOKEN"},
        },
        "run": {"state": folder, "id": "many", "allow_dead_letters": "100%"},
    }


def measure(config: Config, watch: Watch) -> tuple[Bar, ...]:
    """Plan a run, resume it and close its books, and return the bars."""
    watch.tell("Python and Beam")
    launch = prepare_launch(config)
    run, segments = launch.manifest.key, launch.manifest.segments
    watch.tell(f"plan of {launch.manifest.files:,} objects, {len(segments):,} segments")
    graph = len(graph_of(config, launch))
    manifest = os.path.getsize(launch.folder.path("manifest.jsonl"))
    print(f"    manifest {manifest / 1e6:,.0f} MB, graph {graph:,} bytes")
    complete(launch.folder, run, itertools.islice(segments, len(segments) - 1))
    launch.lease.release()
    watch.tell("(completions written)")
    prepare_launch(config, resume="many").lease.release()
    watch.tell("resume with a segment left: files looked at")
    complete(launch.folder, run, segments[-1:])
    report = run_launch(prepare_launch(config, resume="many"))
    watch.tell("resume with none left: books closed, report written")
    books = report["books"]
    if not books["balanced"] or books["read"] != launch.manifest.files or report["exit_code"]:
        raise RunFailed(f"the books are not those of {launch.manifest.files:,} objects: {books}")
    return (
        Bar("the launcher's peak memory", peak_mib(), "MiB", most=PEAK_MIB),
        Bar("the graph", graph, "bytes", most=GRAPH_BYTES),
    )


def graph_of(config: Config, launch: Launch) -> bytes:
    """Return the job's graph as it is handed to a runner."""
    pipeline = beam.Pipeline()
    destination = config.destination.to_destination()
    _ = pipeline | BackfillEvents(config, destination, Ledger(launch.folder))
    return bytes(pipeline.to_runner_api().SerializeToString())


if __name__ == "__main__":
    sys.exit(main())
