"""The books of a run: the ledger added up, per file and in total, with everything that does not add up named.

Ten million files are added up one after the other: none of them is held, but those that something is wrong
with.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

import orjson

from mixpanel_http.id_sample import IdSample
from pipelines.ledger_lines import SegmentRecord
from transforms.elements import FileNote, Segment
from transforms.tally import Counts, Tally

_NOTHING: Final = Counts()
MOST_UNBALANCED: Final = 100  # are named: the books are open with one


@dataclass(slots=True)
class Books:
    """The ledger, added up.

    Attributes:
        tally: everything over all segments (its parts are not used).
        total: outcomes over all records.
        unrecorded: undelivered records of which nothing could be written down.
        unrecorded_ambiguous: likewise, records that may have got through.
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
    unrecorded_ambiguous: int = 0
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
    """Puts files together from their parts, which stand side by side in a plan.

    But where lines are ordered by their time, those of a file are in any of the segments: then all files are
    held to the end.
    """

    def __init__(self) -> None:
        self._last: _File | None = None
        self._scattered: dict[str, _File] = {}

    def take(self, segment: Segment, record: SegmentRecord | None) -> Iterator[_File]:
        """Takes a segment's parts, and yields the files that have no more of them."""
        done = record is not None and record.done
        read = record is not None and bool(record.notes)
        for index, part in enumerate(segment.parts):
            if segment.ordered is not None:
                file = self._scattered.setdefault(part.uri, _File(part.uri))
            else:
                yield from self._other_than(part.uri)
                file = self._last = self._last or _File(part.uri)
            file.done &= done
            file.read &= read
            if record is not None:
                counts = record.tally.parts[index]
                file.begun |= done or counts != _NOTHING
                file.counts.add(counts)

    def rest(self) -> Iterator[_File]:
        """Yields the files that are left."""
        yield from self._other_than("")
        yield from self._scattered.values()

    def _other_than(self, uri: str) -> Iterator[_File]:
        """Yields the last file, if it is another one."""
        if self._last is not None and self._last.uri != uri:
            yield self._last
            self._last = None


def close_books(segments: Iterable[Segment], ledger: Mapping[str, SegmentRecord]) -> Books:
    """Returns the ledger added up, with everything that does not add up named."""
    books, files = Books(), _Files()
    if not ledger:
        return books
    for segment in segments:
        record = ledger.get(segment.id)
        is_pack = _is_pack(segment)
        for file in files.rest() if is_pack else files.take(segment, record):
            _add_file(books, file)
        if record is not None:
            _add_segment(books, segment, record)
        if record is not None and is_pack:
            _add_pack(books, segment, record)
    for file in files.rest():
        _add_file(books, file)
    for name, counted, written in (
        ("dead letters", books.total.dead_lettered, books.dead_records),
        ("undelivered records", books.total.undelivered, books.undelivered_records + books.unrecorded),
        ("ambiguous records", books.total.ambiguous, books.ambiguous_records + books.unrecorded_ambiguous),
    ):
        if counted != written:
            books.name_unbalanced(f"{counted} {name} are counted, {written} written")
    return books


def files_table(segments: Iterable[Segment], ledger: Mapping[str, SegmentRecord]) -> Iterator[bytes]:
    """Yields the books of each file that is done or of which something was counted, for files.jsonl."""
    files = _Files()
    for segment in segments:
        record = ledger.get(segment.id)
        if _is_pack(segment):
            yield from _rows(files.rest())
            yield from _pack_rows(segment, record) if record else ()
        else:
            yield from _rows(files.take(segment, record))
    yield from _rows(files.rest())


def _rows(files: Iterable[_File]) -> Iterator[bytes]:
    return (_row(file.uri, _rest(file.counts)) for file in files if file.begun)


def _is_pack(segment: Segment) -> bool:
    """Returns whether a segment has files as a whole, of which no other segment has a part."""
    return segment.ordered is None and all(part.end is None for part in segment.parts)


def _pack_rows(segment: Segment, record: SegmentRecord) -> Iterator[bytes]:
    """Yields the rows of files that were read as a whole; most small ones differ in their name only."""
    columns = record.tally.parts.columns(len(segment.parts))
    rests: dict[tuple[int, ...], bytes] = {}
    each = zip(*columns.values(), strict=True) if columns else ((),) * len(segment.parts)
    for part, numbers in zip(segment.parts, each, strict=True):
        if record.done or any(numbers):
            if (rest := rests.get(numbers)) is None:
                rest = rests[numbers] = _rest(Counts(**dict(zip(columns, numbers, strict=True))))
            yield _row(part.uri, rest)


def _row(uri: str, rest: bytes) -> bytes:
    return b'{"uri":%b,%b' % (orjson.dumps(uri), rest)


def _rest(counts: Counts) -> bytes:
    """Returns what follows the name in a file's row."""
    return orjson.dumps({**counts.to_json(), "balanced": counts.balanced})[1:] + b"\n"


def _add_pack(books: Books, segment: Segment, record: SegmentRecord) -> None:
    """Adds files that were read as a whole: small ones are many, and those of a segment share its fate."""
    parts = record.tally.parts
    books.files_done += record.done * len(segment.parts)
    books.files_read += bool(record.notes) * len(segment.parts)
    books.total.add(parts.total)
    for index in parts.unbalanced():
        if index < len(segment.parts):
            books.name_unbalanced(segment.parts[index].uri)


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
    books.unrecorded_ambiguous += record.unrecorded_ambiguous
    books.ambiguous_files += [file.name for file in record.ambiguous]
    books.ambiguous_records += sum(file.records for file in record.ambiguous)
    books.sample.merge(record.sample_level, record.sample)
    books.sample_whole = books.sample_whole and record.sample_whole
    books.segments_done += record.done
    if record.done and sum(note.lines for note in record.notes) != record.tally.lines:
        books.name_unbalanced(f"segment {segment.id}: lines read and lines accounted for differ")
    if record.tally.parts.end > len(segment.parts):
        books.name_unbalanced(f"segment {segment.id}: files are counted that are not its own")
