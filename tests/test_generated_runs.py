"""Whole runs that are made up: whatever the input, the service and the settings are, the books close."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.backfills import Backfills, event
from tests.fault_scripts import PATH

RUNS = 300
KINDS = ("good", "good", "good", "no json", "blank", "no id", "no time", "latin-1", "lone half")
FAULTS: tuple[dict[str, Any], ...] = (
    {"status": 429},
    {"status": 503},
    {"status": 500, "commit": True},
    {"status": 400, "body": '{"error":"no","num_records_imported":0,"failed_records":["a"]}'},
    {"status": 413, "body": "{}"},
    {"status": 401, "body": "{}"},
    {"status": 200, "body": "{}"},
    {"status": 204, "body": ""},
    {"reset": "before"},
    {"reset": "after"},
    {"cut_at": 60},
    {"html": True, "status": 403},
)


@dataclass(frozen=True)
class Made:
    """A run that was made up: its files, what the service does, and its settings."""

    files: Sequence[tuple[Sequence[str], bool]]
    faults: Sequence[tuple[int, float, int]]
    per_request: int
    in_flight: int
    keeps_rows: bool
    most_errors: int | None

    def write(self, backfills: Backfills) -> dict[str, int]:
        """Writes the files, and returns how many records each has."""
        records: dict[str, int] = {}
        number = 0
        for index, (kinds, zipped) in enumerate(self.files):
            lines = []
            for kind in kinds:
                number += 1
                lines.append(line_of(kind, number))
            name = f"{index}.json{'.gz' if zipped else ''}"
            path = backfills.folder / "input" / name
            path.parent.mkdir(exist_ok=True)
            content = b"".join(line + b"\n" for line in lines)
            path.write_bytes(gzip.compress(content) if zipped else content)
            records[str(path)] = sum(kind != "blank" for kind in kinds)
        return records

    def scripts(self) -> list[dict[str, Any]]:
        """Returns what the service is told to do."""
        return [
            {"name": f"{i}", "path": PATH, "do": FAULTS[which], "when": {"share": share, "seed": seed}}
            for i, (which, share, seed) in enumerate(self.faults)
        ]

    def changes(self) -> dict[str, Any]:
        """Returns the settings."""
        return {
            "run.id": "r",
            "run.max_errors": self.most_errors,
            "run.allow_dead_letters": "100%",
            "limits.records_per_request": self.per_request,
            "limits.in_flight": self.in_flight,
            "limits.retry.give_up_after_seconds": 0.2,
            "records.insert_id": {"identical_rows": "keep" if self.keeps_rows else "merge"},
        }


def line_of(kind: str, number: int) -> bytes:
    """Returns a line of a kind; numbers make them differ."""
    record = event(number)
    if kind == "no json":
        return b"{%d" % number
    if kind == "blank":
        return b"  "
    if kind == "lone half":
        return json.dumps(record).encode().replace(b'"amount"', b'"\\ud800"')
    if kind == "latin-1":
        return json.dumps(record).encode().replace(b"Order", b"\xd6rder")
    if kind in ("no id", "no time"):
        del record["properties"]["$insert_id" if kind == "no id" else "time"]
    return json.dumps(record).encode()


MADE = st.builds(
    Made,
    files=st.lists(
        st.tuples(st.lists(st.sampled_from(KINDS), max_size=60), st.booleans()), min_size=1, max_size=4
    ).filter(lambda files: any(kinds for kinds, _ in files)),
    faults=st.lists(
        st.tuples(st.integers(0, len(FAULTS) - 1), st.floats(0.1, 0.7), st.integers(0, 99)),
        min_size=1,
        max_size=3,
    ),
    per_request=st.integers(1, 40),
    in_flight=st.integers(1, 8),
    keeps_rows=st.booleans(),
    most_errors=st.none() | st.integers(0, 30),
)


def assert_books_close(made: Made, report: dict[str, Any], records: dict[str, int], held: int) -> None:
    books = report["books"]
    outcomes = ("imported", "dead_lettered", "filtered", "undelivered", "ambiguous", "not_attempted")
    assert books["balanced"], (made, books)
    assert report["exit_code"] != 10
    assert books["read"] == sum(books[name] for name in outcomes)
    assert books["imported"] <= held
    if report["files"]["done"] == report["files"]["total"]:
        assert books["read"] == sum(records.values())
    assert books["read"] <= sum(records.values())


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_the_books_of_three_hundred_made_up_runs_close(backfills: Backfills) -> None:
    struck = 0

    @settings(
        max_examples=RUNS,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        derandomize=True,
        database=None,
    )
    @given(MADE)
    def check(made: Made) -> None:
        nonlocal struck
        for folder in ("input", "state"):
            shutil.rmtree(backfills.folder / folder, ignore_errors=True)
        backfills.emulator.reset()
        records = made.write(backfills)
        backfills.emulator.faults(made.scripts())
        first = backfills.run(backfills.everything, made.changes())
        stats = backfills.emulator.stats()
        struck += sum(stats["faults"].values()) > 0
        assert_books_close(made, first.report, records, stats["distinct"])
        backfills.emulator.faults([])
        changes = {**made.changes(), "run.max_errors": "100%"}
        resumed = backfills.run(backfills.everything, changes, resume="r")
        stats = backfills.emulator.stats()
        assert_books_close(made, resumed.report, records, stats["distinct"])
        assert resumed.code == 0, (made, resumed.report)
        assert resumed.books["read"] == sum(records.values())
        assert resumed.books["imported"] <= stats["distinct"] <= resumed.books["read"]
        files = [json.loads(row) for row in (backfills.state / "r" / "files.jsonl").read_text().splitlines()]
        assert {row["uri"]: row.get("read", 0) for row in files if row.get("read")} == {
            uri: count for uri, count in records.items() if count
        }

    check()
    assert struck > RUNS / 3
