"""The books of each file: of those read as a whole, of those read in stretches, and of both side by side."""

from __future__ import annotations

import json
from typing import Any

from pipelines.books import close_books, files_table
from pipelines.ledger_lines import SegmentRecord
from transforms.elements import FileNote, FilePart, Segment
from transforms.tally import Counts, PartCounts, Tally

SEGMENTS = [
    Segment("0", (FilePart("/big", 20, "1", 0, 10),)),
    Segment("1", (FilePart("/big", 20, "1", 10, 20),)),
    Segment("2", tuple(FilePart(f'/pack/"{n}"', 5, "1") for n in range(4))),
    Segment("3", tuple(FilePart(f"/more/{n}", 5, "1") for n in range(3))),
    Segment("4", (FilePart("/last", 20, "1", 0, 10),)),
]


def record(segment: str, counts: dict[int, Counts], done: bool = True) -> SegmentRecord:
    lines = sum(each.read for each in counts.values())
    note = FileNote(0, "/x", lines, parts=4)
    return SegmentRecord(segment, Tally(PartCounts(counts), lines), (note,) if done else (), (), done)


def rows(ledger: dict[str, SegmentRecord]) -> list[dict[str, Any]]:
    return [json.loads(row) for row in files_table(SEGMENTS, ledger)]


def test_files_in_packs_and_in_stretches_are_counted_each_once() -> None:
    ledger = {
        "0": record("0", {0: Counts(read=3, imported=3)}),
        "1": record("1", {0: Counts(read=4, imported=4)}),
        "2": record("2", {n: Counts(read=n, imported=n) for n in range(4)}),
        "3": record("3", {1: Counts(read=2, imported=2)}, done=False),
    }
    books = close_books(SEGMENTS, ledger)

    assert (books.files_done, books.files_read, books.segments_done) == (5, 5, 3)
    assert books.total == Counts(read=15, imported=15)
    assert books.balanced
    assert [(row["uri"], row.get("read", 0), row["balanced"]) for row in rows(ledger)] == [
        ("/big", 7, True),
        ('/pack/"0"', 0, True),  # read to its end, and nothing was in it
        ('/pack/"1"', 1, True),
        ('/pack/"2"', 2, True),
        ('/pack/"3"', 3, True),
        ("/more/1", 2, True),  # of the others nothing is known yet
    ]


def test_a_file_in_a_pack_that_does_not_add_up_is_named_though_the_pack_does() -> None:
    counts = {1: Counts(read=3, imported=2), 2: Counts(read=3, imported=4)}
    ledger = {"2": record("2", counts)}
    books = close_books(SEGMENTS, ledger)

    assert books.unbalanced == ['/pack/"1"', '/pack/"2"']
    assert [row["uri"] for row in rows(ledger) if not row["balanced"]] == books.unbalanced


def test_counts_of_more_files_than_a_segment_has_are_told() -> None:
    books = close_books(SEGMENTS, {"2": record("2", {5: Counts(read=1, imported=1)})})

    assert books.unbalanced == ["segment 2: files are counted that are not its own"]
