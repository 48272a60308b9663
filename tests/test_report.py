"""Books and exit codes, from what the ledger says."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mixpanel_http.receipts import Stop
from pipelines.books import close_books
from pipelines.ledger_lines import DeadFile, SegmentRecord
from pipelines.manifest import Manifest
from pipelines.record_file import RecordFile
from pipelines.report import ExitCode, RunFacts, exit_code, make_report
from pipelines.summary import summary
from transforms.elements import FileNote, FilePart, Segment
from transforms.tally import Counts, PartCounts, Tally

SEGMENT = Segment("0000000", (FilePart("/a", 10, "v"),))
MANIFEST = Manifest("it", "now", {}, 1, 10, (SEGMENT,))


def record(done: bool = True, lines: int = 10, problem: str | None = None, **counts: int) -> SegmentRecord:
    tally = Tally(parts=PartCounts({0: Counts(**counts)}), lines=10)
    dead = (DeadFile("d", 1, counts["dead_lettered"]),) if counts.get("dead_lettered") else ()
    return SegmentRecord("0000000", tally, (FileNote(0, "/a", lines, problem),), dead, done)


def code(known: SegmentRecord | None, facts: RunFacts | None = None) -> ExitCode:
    books = close_books(MANIFEST.segments, {known.segment: known} if known else {})
    return exit_code(books, MANIFEST, facts or RunFacts("done", 0, 1))


GOOD = record(read=10, imported=10)


def test_each_exit_code_has_its_case() -> None:
    stop, limit = Stop(401, "no"), Stop(0, "too many", limit=True)
    assert code(GOOD) == 0
    assert code(GOOD, RunFacts("failed", 0, 1, failure="bug")) == 1
    assert code(GOOD, RunFacts("stopped", 0, 1, stops=[stop])) == 3
    assert code(record(read=10, imported=10, problem="truncated")) == 4
    assert code(record(False, read=10, undelivered=10)) == 10  # counted, and not written
    assert code(record(False, read=10, imported=10)) == 5
    assert code(None) == 5
    assert code(record(read=10, imported=9, dead_lettered=1)) == 6
    assert code(GOOD, RunFacts("stopped", 0, 1, stops=[Stop(402, "no")])) == 7
    assert code(GOOD, RunFacts("stopped", 0, 1, stops=[limit])) == 8
    assert (
        code(record(False, read=10, imported=10), RunFacts("interrupted", 0, 1, interrupted_by=ExitCode(143)))
        == 143
    )


@pytest.mark.parametrize(
    "known",
    [
        record(read=10, imported=9),
        record(read=10, imported=11),
        record(read=10, imported=10, lines=9),
        record(read=9, imported=8, dead_lettered=1).__class__(
            "0000000",
            Tally(parts=PartCounts({0: Counts(10, 9, 1)}), lines=10),
            (FileNote(0, "/a", 10),),
            (),
            True,
        ),
    ],
)
def test_books_that_do_not_close_are_an_incident(known: SegmentRecord) -> None:
    assert code(known) == ExitCode.BOOKS_OPEN


def test_a_running_report_has_no_exit_code_yet() -> None:
    report = make_report(MANIFEST, close_books(MANIFEST.segments, {}), RunFacts("running", 0, 1))
    assert (report["state"], report["exit_code"], report["ended_at"]) == ("running", None, None)


def test_the_rate_is_over_the_time_in_which_this_start_sent() -> None:
    before, first, second = (replace(record(read=1), segment=f"{n:07d}") for n in range(3))
    before.began_at, before.ended_at = 10.0, 20.0
    first.began_at, first.ended_at = 103.0, 110.0
    second.began_at, second.ended_at = 105.0, 123.0
    assert RecordFile([before, first, second]).sending_seconds(100.0) == 20.0
    assert RecordFile([before]).sending_seconds(100.0) == 0.0
    assert RecordFile().sending_seconds(100.0) == 0.0
    facts = RunFacts("done", 100.0, 130.0, sent_before=4, sending_s=2.0)
    report = make_report(MANIFEST, close_books(MANIFEST.segments, {GOOD.segment: GOOD}), facts)
    assert report["rate"] == {"events_per_second": 3.0, "seconds": 2.0}


def test_a_sample_that_is_not_whole_makes_the_estimate_inexact() -> None:
    known = record(read=10, imported=10)
    known.sample_whole = False
    report = make_report(
        MANIFEST, close_books(MANIFEST.segments, {known.segment: known}), RunFacts("done", 0, 1)
    )
    assert report["identical_rows"] == {"estimate": 0, "exact": False}
    report["folder"] = "/f"
    assert "Files" in summary(report)


def page_of(known: SegmentRecord, facts: RunFacts | None = None) -> str:
    books = close_books(MANIFEST.segments, {known.segment: known})
    report = make_report(MANIFEST, books, facts or RunFacts("done", 0, 1))
    return summary(report | {"folder": "/f"})


def test_a_file_that_a_resume_reads_again_is_told_with_the_way_there() -> None:
    away = record(False, read=10, imported=10, problem="unreadable")
    assert "--resume it, once what is missing or unreadable can be read" in page_of(away)
    assert "--resume" not in page_of(record(read=10, imported=10, problem="corrupt"))


def test_damaged_input_does_not_hide_that_records_are_undelivered() -> None:
    left = record(False, read=10, imported=4, undelivered=6, problem="truncated")
    left.undelivered = (DeadFile("u", 1, 6),)
    page = page_of(left)
    assert "Run it: Not all is delivered yet." in page
    assert "damaged" in page
    assert "--resume it\n" in page


def test_a_dry_run_claims_no_more_than_that_nothing_was_sent() -> None:
    facts = RunFacts("dry_run", 0, 1, dry_run=True)
    damaged = page_of(record(False, read=10, not_attempted=10, problem="corrupt"), facts)
    refused = page_of(record(False, read=10, not_attempted=9, dead_lettered=1), facts)
    assert "Dry run: nothing was sent. Some input is damaged or could not be read." in damaged
    assert "Dry run: nothing was sent. There are more dead letters" in refused
    assert "Done" not in damaged + refused
