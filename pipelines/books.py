"""The books of a run: the ledger added up, per file and in total, with everything that does not add up named.

Ten million files are added up one after the other: none of them is held, but those that something is wrong
with.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from mixpanel_http.insert_ids import IdSample
from pipelines.ledger_lines import SegmentRecord
from transforms.elements import FileNote, Segment
from transforms.tally import Counts, Tally

MOST_UNBALANCED: Final = 100  # are named: the books are open with one


@dataclass(slots=True)
class Books:
    """The ledger, added up.

    Attributes:
        tally: everything over all segments (its parts are not used).
        total: outcomes over all records.
        unrecorded: undelivered records of which nothing could be written down.
        damaged: how reading of a file part ended, where something was wrong with it.
        segments_done: segments whose completion is committed.
        files_done: files that need not be read again.
        files_read: files that were read to their end, or as far as they can be.
        sample_whole: whether every stamped id is in the sample; those of an attempt that ended early are not.
        unbalanced: files or segments whose numbers do not add up, with what is wrong; the first hundred.
    """

    tally: Tally = field(default_factory=Tally)
    total: Counts = field(default_factory=Counts)
    damaged: list[FileNote] = field(default_factory=list)
    dead_files: list[str] = field(default_factory=list)
    dead_records: int = 0
    undelivered_files: list[str] = field(default_factory=list)
    undelivered_records: int = 0
    unrecorded: int = 0
    ambiguous_files: list[str] = field(default_factory=list)
    ambiguous_records: int = 0
    segments_done: int = 0
    files_done: int = 0
    files_read: int = 0
    sample: IdSample = field(default_factory=IdSample)
    sample_whole: bool = True
    unbalanced: list[str] = field(default_factory=list)

    @property
    def balanced(self) -> bool:
        """True if every record has exactly one outcome, per file and in total."""
        return not self.unbalanced

    def name_unbalanced(self, what: str) -> None:
        """Notes what does not add up."""
        if len(self.unbalanced) < MOST_UNBALANCED:
            self.unbalanced.append(what)


@dataclass(slots=True)
class _File:
    """What is known of one file so far.

    Attributes:
        uri: the file.
        counts: outcomes of its records.
        done: whether all its parts need not be read again.
        read: whether all its parts were read to their end.
        begun: whether anything of it was counted.
    """

    uri: str
    counts: Counts = field(default_factory=Counts)
    done: bool = True
    read: bool = True
    begun: bool = False


class _Files:
    """Puts files together from their parts, which stand side by side in a plan."""

    def __init__(self) -> None:
        self._last: _File | None = None

    def take(self, segment: Segment, record: SegmentRecord | None) -> Iterator[_File]:
        """Takes a segment's parts, and yields the files that have no more of them."""
        parts = record.tally.parts if record else {}
        done = record is not None and record.done
        read = record is not None and bool(record.notes)
        for index, part in enumerate(segment.parts):
            if self._last is None or self._last.uri != part.uri:
                yield from self.rest()
                self._last = _File(part.uri)
            file = self._last
            file.done &= done
            file.read &= read
            if index in parts:
                file.begun = True
                file.counts.add(parts[index])

    def rest(self) -> Iterator[_File]:
        """Yields the last file."""
        if self._last is not None:
            yield self._last
            self._last = None


def close_books(segments: Iterable[Segment], ledger: Mapping[str, SegmentRecord]) -> Books:
    """Returns the ledger added up, with everything that does not add up named."""
    books, files = Books(), _Files()
    for segment in segments:
        record = ledger.get(segment.id)
        for file in files.take(segment, record):
            _add_file(books, file)
        if record is not None:
            _add_segment(books, segment, record)
    for file in files.rest():
        _add_file(books, file)
    for name, counted, written in (
        ("dead letters", books.total.dead_lettered, books.dead_records),
        ("undelivered records", books.total.undelivered, books.undelivered_records + books.unrecorded),
        ("ambiguous records", books.total.ambiguous, books.ambiguous_records),
    ):
        if counted != written:
            books.name_unbalanced(f"{counted} {name} are counted, {written} written")
    return books


def files_table(segments: Iterable[Segment], ledger: Mapping[str, SegmentRecord]) -> Iterator[dict[str, Any]]:
    """Yields the books of each file of which something was counted, for files.jsonl."""
    files = _Files()
    for segment in segments:
        for file in files.take(segment, ledger.get(segment.id)):
            yield from _row(file)
    for file in files.rest():
        yield from _row(file)


def _row(file: _File) -> Iterator[dict[str, Any]]:
    if file.begun:
        yield {"uri": file.uri, **file.counts.to_json(), "balanced": file.counts.balanced}


def _add_file(books: Books, file: _File) -> None:
    books.files_done += file.done
    books.files_read += file.read
    books.total.add(file.counts)
    if not file.counts.balanced:
        books.name_unbalanced(file.uri)


def _add_segment(books: Books, segment: Segment, record: SegmentRecord) -> None:
    books.tally.add_apart_from_parts(record.tally)
    books.damaged += [note for note in record.notes if note.problem]
    books.dead_files += [file.name for file in record.dead]
    books.dead_records += sum(file.records for file in record.dead)
    books.undelivered_files += [file.name for file in record.undelivered]
    books.undelivered_records += sum(file.records for file in record.undelivered)
    books.unrecorded += record.unrecorded
    books.ambiguous_files += [file.name for file in record.ambiguous]
    books.ambiguous_records += sum(file.records for file in record.ambiguous)
    books.sample.merge(record.sample_level, record.sample)
    books.sample_whole = books.sample_whole and record.sample_whole
    books.segments_done += record.done
    if record.done and sum(note.lines for note in record.notes) != record.tally.lines:
        books.name_unbalanced(f"segment {segment.id}: lines read and lines accounted for differ")
    if any(index >= len(segment.parts) for index in record.tally.parts):
        books.name_unbalanced(f"segment {segment.id}: files are counted that are not its own")
