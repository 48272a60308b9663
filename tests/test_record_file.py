"""What a ledger knows of each segment, on disk: it comes back as it went in."""

from __future__ import annotations

import pytest

from pipelines.ledger_lines import DeadFile, SegmentRecord
from pipelines.record_file import RecordFile
from transforms.elements import FileNote
from transforms.tally import Counts, PartCounts, Tally


def record(number: int, done: bool = True, imported: int = 3) -> SegmentRecord:
    """Returns a record of which no field is as it is by default."""
    tally = Tally(parts=PartCounts({0: Counts(read=imported), 7: Counts(imported=imported)}), lines=imported)
    tally.requests["200"] = 2
    return SegmentRecord(
        f"{number:07d}",
        tally,
        (FileNote(0, "/ä", 3), FileNote(7, "/b", 0, "truncated", 12, "EOFError")),
        (DeadFile("dead", 4, 2, 99),),
        done,
        3,
        {"0a": 2},
        False,
        5,
        (DeadFile("undelivered", 1, 1, 7),),
        number + 0.1234567,
        number + 1.7654321,
        (DeadFile("ambiguous", 2, 1, 8),),
        "x.done",
        True,
    )


def test_a_record_comes_back_as_it_went_in() -> None:
    records = [record(2, done=False), record(1), SegmentRecord("3", Tally(), (), (), False)]

    stored = RecordFile(records)

    assert [stored[each.segment] for each in records] == records
    assert list(stored) == ["0000001", "0000002", "3"]
    assert (len(stored), stored.done, stored.imported) == (3, 1, 6)
    assert [stored.is_done(segment) for segment in ("0000001", "0000002", "none")] == [True, False, False]
    assert "none" not in stored
    with pytest.raises(KeyError):
        stored["none"]


def test_of_two_records_of_a_segment_the_last_counts() -> None:
    stored = RecordFile([record(1, done=False), record(1, imported=9)])

    assert (len(stored), stored.done, stored.imported) == (1, 1, 9)


def test_without_records_there_is_nothing_to_add_up() -> None:
    stored = RecordFile()

    assert stored == {}
    assert (stored.done, stored.imported, stored.ended_at, stored.sending_seconds(0)) == (0, 0, 0, 0)


def test_what_is_given_out_is_a_copy() -> None:
    stored = RecordFile([record(1)])

    stored["0000001"].done = False

    assert stored["0000001"].done
