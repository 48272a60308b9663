"""The digest: it says what the completions say, or nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.attempt import Attempt
from pipelines.books import close_books
from pipelines.digest import FOLDER, read_digest, write_digest
from pipelines.ledger import SegmentRecord, read_ledger
from pipelines.state import StateFolder
from transforms.elements import BlockOutcome, FilePart, Segment, new_attempt_id
from transforms.tally import Counts, PartCounts, Tally

RUN = "run"
SEGMENTS = [Segment(f"{n:07d}", (FilePart(f"{n}.json", 1, "v"),)) for n in range(5)]


def complete(folder: StateFolder, segment: str, letters: int = 1, stamped: int = 20) -> str:
    """Writes a segment's completion and returns the attempt."""
    id_ = new_attempt_id()
    attempt = Attempt(folder, RUN, segment, id_)
    tally = Tally(
        lines=50, parts=PartCounts({0: Counts(read=50, imported=50 - letters, dead_lettered=letters)})
    )
    tally.alterations["stamped_insert_ids"] = stamped
    ids = [f"{int(segment) * 1000 + n:032x}"[::-1] for n in range(stamped - 1)]
    attempt.record(BlockOutcome(segment, id_, 0, tally, [b"{}"] * letters, [*ids, *ids[:1]]))
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
    assert len(read_digest(folder, RUN)) == 4
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
    assert read_digest(folder, "another") == {}
    for at in range(0, len(content), 7):
        for damaged in (content[:at], content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]):
            folder.write(name, damaged)
            assert read_digest(folder, RUN) == {}
    assert list(told(read_ledger(folder, RUN))) == expected


def test_where_a_crash_left_two_digests_the_later_one_counts(folder: StateFolder) -> None:
    (first,) = folder.names(FOLDER)
    content = folder.read(first)
    complete(folder, SEGMENTS[4].id)
    write_digest(folder, RUN, new_attempt_id(), read_ledger(folder, RUN), least=1)
    folder.write(first, content)
    assert len(read_digest(folder, RUN)) == 5
    write_digest(folder, RUN, new_attempt_id(), without_digest(folder), least=1)
    assert len(folder.names(FOLDER)) == 1


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
    assert len(read_digest(folder, RUN)) == 5
