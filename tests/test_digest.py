"""The digest: it says what the completions say, or nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from mixpanel_http.crash_points import CRASHED
from pipelines.attempt import Attempt
from pipelines.books import close_books
from pipelines.digest import FOLDER, LEAST, read_digests, write_digest
from pipelines.ledger import Ledger, SegmentRecord, read_ledger
from pipelines.plan import SMALL_BYTES
from pipelines.state import StateFolder
from tests.backfills import Backfills, events
from tests.processes import start
from transforms.attempt_ids import new_attempt_id
from transforms.elements import BlockOutcome, FilePart, Segment
from transforms.letters import LetterLines
from transforms.tally import Counts, PartCounts, Tally

RUN = "run"
SEGMENTS = [Segment(f"{n:07d}", (FilePart(f"{n}.json", 1, "v"),)) for n in range(5)]


def complete(
    folder: StateFolder,
    segment: str,
    letters: int = 1,
    stamped: int = 20,
    open_attempt: Callable[[str, str], Attempt] | None = None,
) -> str:
    """Writes a segment's completion and returns the attempt."""
    id_ = new_attempt_id()
    attempt = open_attempt(segment, id_) if open_attempt else Attempt(folder, RUN, segment, id_)
    tally = Tally(
        lines=50, parts=PartCounts({0: Counts(read=50, imported=50 - letters, dead_lettered=letters)})
    )
    tally.alterations["stamped_insert_ids"] = stamped
    ids = [f"{int(segment) * 1000 + n:032x}"[::-1] for n in range(stamped - 1)]
    attempt.record(BlockOutcome(segment, id_, 0, tally, LetterLines.of([b"{}"] * letters), [*ids, *ids[:1]]))
    attempt.record(BlockOutcome(segment, id_, 1, Tally(), end=True))
    attempt.commit()
    return id_


@pytest.fixture
def folder(tmp_path: Path) -> StateFolder:
    """The state of a run of five segments, four of them done, and with a digest of these."""
    folder = StateFolder(str(tmp_path))
    for segment in SEGMENTS[:4]:
        complete(folder, segment.id)
    write_digest(folder, RUN, new_attempt_id(), read_ledger(folder, RUN), least=1)
    return folder


def sizes(folder: StateFolder) -> list[int]:
    """Returns how many completions each digest has that is whole."""
    return [len(digest.records) for digest in read_digests(folder, RUN)]


def told(ledger: Mapping[str, SegmentRecord]) -> Iterator[object]:
    """Yields what a ledger says, whoever it has that from."""
    yield [replace(ledger[id_], digested=False, sample={}, sample_level=0) for id_ in sorted(ledger)]
    books = close_books(SEGMENTS, ledger)
    yield books.sample.counts, books.sample.level, books.sample_whole, books.unbalanced, books.total


def without_digest(folder: StateFolder) -> Mapping[str, SegmentRecord]:
    """Returns what the completions say themselves."""
    for name in folder.names(FOLDER):
        folder.remove(name)
    return read_ledger(folder, RUN)


def test_the_digest_says_what_the_completions_say(folder: StateFolder) -> None:
    assert sizes(folder) == [4]
    complete(folder, SEGMENTS[4].id)
    known = read_ledger(folder, RUN)
    assert [known[segment.id].digested for segment in SEGMENTS] == [True] * 4 + [False]
    assert close_books(SEGMENTS, known).sample.identical_rows() == 5
    assert list(told(known)) == list(told(without_digest(folder)))


def test_completions_are_not_read_again(folder: StateFolder) -> None:
    for name in folder.names("ledger"):
        if name.endswith(".done"):
            Path(folder.path(name)).write_bytes(b"")
    assert len(read_ledger(folder, RUN)) == 4


def test_a_later_completion_counts_though_the_digest_has_an_earlier_one(folder: StateFolder) -> None:
    later = complete(folder, SEGMENTS[0].id, letters=3)
    assert later in read_ledger(folder, RUN)[SEGMENTS[0].id].completion


def test_what_is_gone_is_gone_though_the_digest_has_it(folder: StateFolder) -> None:
    for name in folder.names("ledger"):
        if name.startswith(f"ledger/{SEGMENTS[0].id}"):
            folder.remove(name)
    assert SEGMENTS[0].id not in read_ledger(folder, RUN)


def test_a_digest_that_is_damaged_anywhere_or_of_another_run_says_nothing(folder: StateFolder) -> None:
    (name,) = folder.names(FOLDER)
    expected = list(told(read_ledger(folder, RUN)))
    content = folder.read(name)
    assert list(read_digests(folder, "another")) == []
    for at in range(0, len(content), 7):
        for damaged in (content[:at], content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]):
            folder.write(name, damaged)
            assert sizes(folder) == []
    assert list(told(read_ledger(folder, RUN))) == expected


def test_where_a_crash_left_two_digests_nothing_counts_twice(folder: StateFolder) -> None:
    (first,) = folder.names(FOLDER)
    content = folder.read(first)
    complete(folder, SEGMENTS[4].id)
    write_digest(folder, RUN, new_attempt_id(), read_ledger(folder, RUN), least=1)
    folder.write(first, content)
    assert sizes(folder) == [5, 4]
    known = read_ledger(folder, RUN)
    assert close_books(SEGMENTS, known).sample.identical_rows() == 5
    write_digest(folder, RUN, new_attempt_id(), known)
    assert sizes(folder) == [5]
    assert list(told(known)) == list(told(without_digest(folder)))


def test_a_digest_is_written_when_many_completions_are_new_and_takes_the_place_of_the_last(
    folder: StateFolder,
) -> None:
    (first,) = folder.names(FOLDER)
    complete(folder, SEGMENTS[4].id)
    write_digest(folder, RUN, new_attempt_id(), read_ledger(folder, RUN), least=2)
    assert list(folder.names(FOLDER)) == [first]
    write_digest(folder, RUN, new_attempt_id(), read_ledger(folder, RUN), least=1)
    (second,) = folder.names(FOLDER)
    assert second > first
    assert sizes(folder) == [5]


def complete_in_parts(folder: StateFolder, monkeypatch: pytest.MonkeyPatch, least: int) -> list[str]:
    """Completes all segments as one process does that writes parts of a digest; returns their names."""
    monkeypatch.setattr("pipelines.digest.LEAST", least)
    ledger = Ledger(folder, RUN, new_attempt_id())
    for segment in SEGMENTS:
        complete(folder, segment.id, open_attempt=ledger.open_attempt)
    return sorted(folder.names(FOLDER))


def test_a_process_writes_a_part_after_so_many_completions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = StateFolder(str(tmp_path))
    complete_in_parts(folder, monkeypatch, 2)
    assert sizes(folder) == [2, 2]
    known = read_ledger(folder, RUN)
    assert [known[segment.id].digested for segment in SEGMENTS] == [True] * 4 + [False]
    assert close_books(SEGMENTS, known).sample.identical_rows() == 5
    assert list(told(known)) == list(told(without_digest(folder)))


def test_a_start_puts_one_digest_in_the_place_of_all_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = StateFolder(str(tmp_path))
    complete_in_parts(folder, monkeypatch, 2)
    write_digest(folder, RUN, new_attempt_id(), read_ledger(folder, RUN))
    assert sizes(folder) == [5]


def test_a_part_that_a_digest_overlaps_is_left_out_and_its_completions_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = StateFolder(str(tmp_path))
    parts = complete_in_parts(folder, monkeypatch, 2)
    late = folder.read(parts[1])
    (done,) = (name for name in folder.names("ledger", SEGMENTS[2].id) if name.endswith(".done"))
    content = folder.read(done)
    folder.remove(done)
    write_digest(folder, RUN, new_attempt_id(), read_ledger(folder, RUN), least=1)  # of 0, 1, 3, 4
    folder.write(done, content)
    folder.write(parts[1], late)  # of 2 and 3, by a start that was suspended
    assert sizes(folder) == [4, 2]
    known = read_ledger(folder, RUN)
    assert not known[SEGMENTS[2].id].digested
    assert close_books(SEGMENTS, known).sample.identical_rows() == 5
    assert list(told(known)) == list(told(without_digest(folder)))


def test_a_part_whose_letters_are_lost_says_nothing_of_its_other_segments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = StateFolder(str(tmp_path))
    complete_in_parts(folder, monkeypatch, 5)
    folder.remove(read_ledger(folder, RUN)[SEGMENTS[2].id].dead[0].name)
    known = read_ledger(folder, RUN)
    assert not any(record.digested for record in known.values())
    assert [segment.id for segment in SEGMENTS if segment.id in known and known[segment.id].done] == [
        SEGMENTS[n].id for n in (0, 1, 3, 4)
    ]
    assert close_books(SEGMENTS, known).sample.identical_rows() == 4
    assert list(told(known)) == list(told(without_digest(folder)))


def test_a_digest_that_is_large_is_read_line_by_line(
    folder: StateFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = list(told(read_ledger(folder, RUN)))
    monkeypatch.setattr("pipelines.digest.PART_BYTES", 10)
    assert sizes(folder) == [4]
    assert list(told(read_ledger(folder, RUN))) == expected
    (name,) = folder.names(FOLDER)
    folder.write(name, folder.read(name)[:-1])
    assert sizes(folder) == []


def test_a_part_is_written_early_where_its_completions_are_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = StateFolder(str(tmp_path))
    monkeypatch.setattr("pipelines.digest.PART_BYTES", 300)
    complete_in_parts(folder, monkeypatch, LEAST)
    assert sizes(folder) == [1] * 5


def test_a_part_that_cannot_be_written_costs_reads_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = StateFolder(str(tmp_path))
    (tmp_path / FOLDER).write_bytes(b"")  # a file where a folder is to be
    monkeypatch.setattr("pipelines.digest.LEAST", 2)
    ledger = Ledger(folder, RUN, new_attempt_id())
    for segment in SEGMENTS:
        complete(folder, segment.id, open_attempt=ledger.open_attempt)
    assert f"{tmp_path}/{FOLDER}/" in caplog.text
    (tmp_path / FOLDER).unlink()
    assert len(read_ledger(folder, RUN)) == 5


SEGMENTS_ENOUGH = 2 * LEAST + 10  # two parts, which one digest replaces at the end
DIGEST_POINTS = {  # how many digests there are then
    "before part of digest": 0,
    "after part of digest": 1,
    "before digest": 2,
    "after digest": 3,
    "after removal of digests": 1,
}


@pytest.mark.soak
@pytest.mark.parametrize("point", DIGEST_POINTS)
def test_a_crash_beside_a_digest_loses_nothing(backfills: Backfills, point: str) -> None:
    """A run of more segments than a digest needs, which ends there, and is resumed."""
    blank = b" " * 1000 + b"\n"  # so many that the file is too large to be packed with others
    first = backfills.write("000.json", [*events(1), *[blank[:-1]] * (SMALL_BYTES // len(blank) + 1)])
    for number in range(1, SEGMENTS_ENOUGH):
        first.with_name(f"{number:03}.json").hardlink_to(first)
    digests = backfills.state / "it" / FOLDER
    config = backfills.config(backfills.everything, {"run.id": "it"})
    code, _, err = start(config, crash_at=point).end()
    assert code == CRASHED, err
    assert len(list(digests.glob("*.jsonl"))) == DIGEST_POINTS[point]
    code, report, err = backfills.resume(config)
    assert code == 0, err
    assert (report["books"]["balanced"], report["books"]["imported"]) == (True, SEGMENTS_ENOUGH)
    assert report["segments"] == {"total": SEGMENTS_ENOUGH, "done": SEGMENTS_ENOUGH}
    assert backfills.emulator.stats()["distinct"] == 1
    assert len(list(digests.glob("*.jsonl"))) == 1
