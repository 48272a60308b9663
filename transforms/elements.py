"""What travels between the steps: segments, and blocks of records on their way from source to ledger."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, repeat
from typing import Final, NamedTuple

from mixpanel_http.prepared import PreparedRecords
from mixpanel_http.receipts import Stop
from record_maps.mapper import MappedLines
from source_formats.lines import RefusedLine
from transforms.letters import NO_LETTERS, LetterLines
from transforms.tally import Tally

# What the collector of cycles waits for. Files and spans are thousands of tuples and in no cycle: a look at
# them after every 700 takes a tenth of a run over small files. What a block or a request leaves is in none
# either (tests of both look): ten thousand of them would be gigabytes.
GC_OBJECTS: Final = 10_000


class FilePart(NamedTuple):
    """A stretch of one input file.

    Attributes:
        uri: the file.
        size: its size in bytes when the run was planned.
        version: its etag, generation or modification time then.
        start: offset of the first byte; a line belongs to the part in which its first byte lies.
        end: offset behind the last byte; None takes the file as a whole, decompressed if its content says so.
        format: what the file holds, where that was told by the plan; None leaves it to the reader, or takes
            a stretch for lines.
    """

    uri: str
    size: int
    version: str
    start: int = 0
    end: int | None = None
    format: str | None = None

    @property
    def bytes(self) -> int:
        """Bytes of the stored file that this part covers."""
        return (self.size if self.end is None else self.end) - self.start

    @property
    def is_broken_link(self) -> bool:
        """Whether it is a link on disk that led nowhere when the run was planned."""
        return not self.version and "://" not in self.uri


class Ordered(NamedTuple):
    """Where a segment's lines lie whose order is not that of their files.

    Attributes:
        name: the file in the run's folder that holds them.
        bytes: bytes of the stored files that it stands for, about.
    """

    name: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Segment:
    """The unit of work and of the ledger.

    Attributes:
        id: its name.
        parts: stretches of files that are read one after the other.
        ordered: where its lines are read instead; its parts are then the files that they came from.
    """

    id: str
    parts: tuple[FilePart, ...]
    ordered: Ordered | None = None

    @property
    def bytes(self) -> int:
        """Bytes of the stored files that it covers."""
        return sum(part.bytes for part in self.parts) if self.ordered is None else self.ordered.bytes


class Span(NamedTuple):
    """Consecutive lines of a block that come from one file.

    Attributes:
        part: index of the segment's part.
        uri: the file.
        lines: how many lines.
        bytes: how many bytes of the block, newlines included.
        first_line: number of the first line in the file, from 1, or None where it is not known; where the
            file's format is not one of lines, the number of the record.
        offset: where the first line starts in the (decompressed) file, or None where the format cannot tell.
        offsets: where each line's record starts, in a format that is not one of lines.
    """

    part: int
    uri: str
    lines: int
    bytes: int
    first_line: int | None
    offset: int | None
    offsets: tuple[int, ...] = ()

    def places(self, lengths: Sequence[int]) -> Iterator[tuple[int | None, int | None]]:
        """Returns the number and the offset of each line, by the lines' lengths without newline."""
        first, count = self.first_line, len(lengths)
        numbers = repeat(None, count) if first is None else range(first, first + count)
        offsets: Iterable[int | None] = self.offsets or repeat(None, count)
        if not self.offsets and self.offset is not None:
            offsets = accumulate((length + 1 for length in lengths[:-1]), initial=self.offset)
        return zip(numbers, offsets, strict=False)


class FileNote(NamedTuple):
    """How reading a part ended, or parts that follow each other and were all read to their end.

    Attributes:
        part: index of the segment's part, or of the first.
        uri: the file, or the first.
        lines: lines read.
        problem: None, or what is wrong with the file: `truncated`, `corrupt`, `unsupported_format`,
            `encoding`, `changed`, `broken_link`, `missing`, `unreadable`.
        offset: where in the stored file the problem was noticed.
        detail: the error's name and words.
        parts: how many parts.
    """

    part: int
    uri: str
    lines: int
    problem: str | None = None
    offset: int | None = None
    detail: str = ""
    parts: int = 1

    @property
    def may_heal(self) -> bool:
        """True where trying again could read what could not be read now."""
        return self.problem in ("missing", "unreadable")


@dataclass(frozen=True, slots=True)
class OversizeLine:
    """A line too long to be held; of it only the beginning is kept in the block's `raw`."""

    length: int
    sha256: str


@dataclass(frozen=True, slots=True)
class EarlierSends:
    """What is known of a block's lines from earlier attempts that did not settle it; bitmaps of lines.

    Attributes:
        imported: lines that are imported, and need not be sent again.
        doubtful: lines that may be, and that must not be sent again if twice is not as good as once.
    """

    imported: bytes = b""
    doubtful: bytes = b""


NOTHING_SENT: Final = EarlierSends()


@dataclass(frozen=True, slots=True)
class Block:
    """Up to one request's worth of whole lines from one segment, with where they came from.

    Attributes:
        segment: id of the segment.
        attempt: id of this attempt at the segment.
        ordinal: position in the segment, from 0; the same in every attempt, unless provisional.
        raw: the lines' bytes.
        spans: which files the lines come from, in order.
        notes: parts whose reading ended in or before this block.
        torn: indices of lines that damage cut short.
        refused: lines that stand for what is no record of its file; they hold it in base64.
        oversize: set if the block is one line that was too long to hold.
        end: True for the segment's last block; it may be empty.
        provisional: True if a file could not be read, in or before this block, that may be readable next
            time: then another block has this ordinal.
        wanted: for each line which record is wanted of those that a map makes of it, or None for all; empty
            where all are wanted of every line.
        mapped: what a map made of the lines, or None if there is no map.
        earlier: what earlier attempts sent of it, for kinds that keep an order.
    """

    segment: str
    attempt: str
    ordinal: int
    raw: bytes
    spans: tuple[Span, ...]
    notes: tuple[FileNote, ...] = ()
    torn: tuple[int, ...] = ()
    refused: tuple[RefusedLine, ...] = ()
    oversize: OversizeLine | None = None
    end: bool = False
    provisional: bool = False
    wanted: tuple[int | None, ...] = ()
    mapped: MappedLines | None = None
    earlier: EarlierSends | None = None

    @property
    def lines(self) -> int:
        """Lines in the block, blank ones too."""
        return sum(span.lines for span in self.spans)


def block_lines(block: Block) -> list[bytes]:
    """Returns a block's lines without their newlines."""
    return block.raw.removesuffix(b"\n").split(b"\n") if block.raw else []


@dataclass(frozen=True, slots=True)
class PreparedBlock:
    """A block and what its lines became: records to send, and refusals."""

    block: Block
    records: PreparedRecords


@dataclass(frozen=True, slots=True)
class EncodedRequest:
    """One request's worth of a prepared block.

    Attributes:
        first: index of its first record among the block's prepared records.
        count: records in it.
        body: NDJSON.
        compressed: the same, gzipped.
    """

    first: int
    count: int
    body: bytes
    compressed: bytes


@dataclass(frozen=True, slots=True)
class EncodedBlock:
    """A block whose records are packed into requests."""

    block: Block
    records: PreparedRecords
    requests: tuple[EncodedRequest, ...]


@dataclass(frozen=True, slots=True)
class BlockOutcome:
    """What became of every record of a block.

    Attributes:
        segment: id of the segment.
        attempt: id of the attempt.
        ordinal: the block's position in the segment.
        tally: the block's counts; they close.
        dead_letters: one of each refused record.
        stamped_ids: ids that were made for records of this block.
        notes: how reading ended for the parts that ended here.
        end: True for the segment's last block.
        stop: why the run must not go on, or None.
        undelivered: one of each undelivered record, to replay it.
        provisional: as of the block.
        ambiguous: one of each record that may have got through and must not be sent again.
        sends: which lines of a block that is not settled are imported, or may be; where an order is kept.
        once_only: whether it has records that must not be sent twice, so that its outcome has to be durable.
        following: how many outcomes are there already and come right behind this one: to make all of them
            durable takes as long as one.
    """

    segment: str
    attempt: str
    ordinal: int
    tally: Tally
    dead_letters: LetterLines = NO_LETTERS
    stamped_ids: Sequence[str] = ()
    notes: tuple[FileNote, ...] = ()
    end: bool = False
    stop: Stop | None = None
    undelivered: LetterLines = NO_LETTERS
    provisional: bool = False
    ambiguous: LetterLines = NO_LETTERS
    sends: EarlierSends = NOTHING_SENT
    once_only: bool = False
    following: int = 0
