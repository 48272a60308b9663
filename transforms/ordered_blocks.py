"""Blocks of lines in the order of their times: made of sorted rows, kept in files, read again.

A file holds the blocks of one segment as they will be sent, so that every attempt has the same ones. No Beam
here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from typing import Final, cast

import msgspec
from isal import isal_zlib

from mixpanel_http.endpoints import compress
from source_formats.lines import RefusedLine
from transforms.elements import Block, FileNote, FilePart, OversizeLine, Segment, Span, block_lines
from transforms.merge_sort import Row
from transforms.segment_reader import BlockLimits
from transforms.update_times import moments

VERSION: Final = 1
FILE_BYTES: Final = 16 << 20  # of lines in a segment: it is in memory twice while it is read
START_ANEW: Final = "the order of the run's records was kept in it: start a new run"
EARLIEST: Final = -(1 << 63)
_GZIP: Final = 31  # window, and a header and a checksum around it


class OrderedUnusable(ValueError):
    """A file of ordered blocks is damaged."""


class _Frame(msgspec.Struct, array_like=True, gc=False):
    raw: bytes
    spans: tuple[Span, ...]
    torn: tuple[int, ...] = ()
    refused: tuple[tuple[int, str, str, str | None, bool], ...] = ()
    oversize: tuple[int, str] | None = None
    wanted: tuple[int | None, ...] = ()


class _File(msgspec.Struct, array_like=True):
    version: int
    frames: list[msgspec.Raw]  # each is decoded when its turn comes
    notes: list[FileNote]


_ISAL_ERROR: Final = cast(type[Exception], isal_zlib.error)  # its stub takes the class for an instance
_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(_File).decode
_decode_frame: Final = msgspec.msgpack.Decoder(_Frame).decode


def rows_of(block: Block, field: str, files: Sequence[int], before: Row | None) -> list[Row]:
    """Returns a block's lines as rows, with the moment of each.

    What has no time of its own, and is refused for that or for another reason, has that of the line before
    it: so bad lines stay among their neighbours.

    Args:
        block: lines as they were read.
        field: the field that holds their time.
        files: for each of the segment's parts the number of its file.
        before: the last row of the block before, or None.
    """
    if not block.lines:
        return []
    lines = block_lines(block) if block.oversize is None else [block.raw]
    told = {line.index: line for line in block.refused}
    found = moments(lines, field) if block.oversize is None else [None]
    oversize = (block.oversize.length, block.oversize.sha256) if block.oversize else None
    moment, first = (before.moment, before.number + 1) if before else (EARLIEST, 0)
    rows: list[Row] = []
    for index, (span, number, offset) in enumerate(_places(block, lines)):
        torn, why, at = index in block.torn, told.get(index), found[index]
        if why is None and not torn:
            moment = at if isinstance(at, int) else moment
            why = at if isinstance(at, RefusedLine) else None
        place = (files[span.part], span.uri, number, offset, lines[index])
        wanted = block.wanted[index] if block.wanted else None
        rows.append(Row(moment, first + index, *place, _said(why), torn, oversize, wanted))
    return rows


def ordered_files(
    rows: Iterable[Row],
    files: Sequence[FilePart],
    limits: BlockLimits,
    notes: Mapping[int, FileNote],
    most_bytes: int = FILE_BYTES,
) -> Iterator[tuple[tuple[FilePart, ...], int, bytes]]:
    """Yields for each segment the files that its lines came from, how many lines it has, and its blocks.

    Args:
        rows: in the order in which they are to be sent.
        files: those that were read.
        limits: the largest block.
        notes: how reading ended, by the number of the file, for those that have no lines or were damaged; it
            may be filled while the rows are made.
        most_bytes: of lines in a segment, about.
    """
    content = _Content(files, notes, is_first=True)
    for some in _cut(rows, limits):
        content.add(some)
        if content.size >= most_bytes:
            yield content.packed()
            content = _Content(files, notes)
    if content.frames or content.is_first:
        yield content.packed()


class _Content:
    """The blocks of one segment, as far as they have come."""

    def __init__(
        self, files: Sequence[FilePart], notes: Mapping[int, FileNote], is_first: bool = False
    ) -> None:
        self.is_first = is_first
        self._files = files
        self._notes = notes
        self._parts: dict[int, int] = {}
        self._lines: Counter[int] = Counter()
        self.frames: list[msgspec.Raw] = []
        self.size = 0

    def add(self, rows: Sequence[Row]) -> None:
        """Adds a block."""
        for row in rows:
            self._lines[row.file] += 1
            self._parts.setdefault(row.file, len(self._parts))
        frame = _frame(rows, self._parts)
        self.frames.append(msgspec.Raw(_encode(frame)))
        self.size += len(frame.raw)

    def packed(self) -> tuple[tuple[FilePart, ...], int, bytes]:
        """Returns the segment's files, the number of its lines, and its blocks as they are kept."""
        for number in self._notes if self.is_first else ():
            self._parts.setdefault(number, len(self._parts))
        notes = [self._note(number, part) for number, part in self._parts.items()]
        content = _encode(_File(VERSION, self.frames, notes))
        parts = tuple(self._files[number] for number in self._parts)
        return parts, self._lines.total(), compress(content)

    def _note(self, number: int, part: int) -> FileNote:
        """Returns how reading a file ended; what went wrong is told once, with the first segment."""
        note = self._notes.get(number) if self.is_first else None
        uri, lines = self._files[number].uri, self._lines[number]
        return FileNote(part, uri, lines) if note is None else note._replace(part=part, lines=lines)


def ordered_blocks(
    content: bytes, segment: Segment, attempt: str, done: Container[int] = ()
) -> Iterator[Block]:
    """Yields the blocks of a segment; the last one says so, and is empty.

    Args:
        content: the segment's file.
        segment: what is read.
        attempt: id of this attempt at it.
        done: ordinals of blocks that need not be sent again.

    Raises:
        OrderedUnusable: if the file is not whole, or another version's.
    """
    name = segment.ordered.name if segment.ordered else segment.id
    try:
        file = _decode(isal_zlib.decompress(content, _GZIP))
    except (_ISAL_ERROR, msgspec.DecodeError):
        raise OrderedUnusable(f"{name}: damaged; {START_ANEW}") from None
    if file.version != VERSION:
        raise OrderedUnusable(f"{name}: written by another version ({file.version}); {START_ANEW}")
    for ordinal, frame in enumerate(file.frames):
        if ordinal not in done:
            yield _block(_decode_frame(frame), segment.id, attempt, ordinal)
    yield Block(segment.id, attempt, len(file.frames), b"", (), tuple(file.notes), end=True)


def _block(frame: _Frame, segment: str, attempt: str, ordinal: int) -> Block:
    return Block(
        segment,
        attempt,
        ordinal,
        frame.raw,
        frame.spans,
        torn=frame.torn,
        refused=tuple(RefusedLine(*line) for line in frame.refused),
        oversize=OversizeLine(*frame.oversize) if frame.oversize else None,
        wanted=frame.wanted,
    )


def _cut(rows: Iterable[Row], limits: BlockLimits) -> Iterator[list[Row]]:
    """Yields rows in blocks; a line that was too long to hold is a block of its own."""
    held: list[Row] = []
    size = 0
    for row in rows:
        length = len(row.raw) + 1
        full = len(held) >= limits.records or size + length > limits.bytes
        if held and (full or row.oversize or held[0].oversize):
            yield held
            held, size = [], 0
        held.append(row)
        size += length
    if held:
        yield held


def _frame(rows: Sequence[Row], parts: Mapping[int, int]) -> _Frame:
    oversize = rows[0].oversize
    wanted = tuple(row.wanted for row in rows)
    return _Frame(
        rows[0].raw if oversize else b"".join([row.raw + b"\n" for row in rows]),
        tuple(_spans(rows, parts)),
        tuple(index for index, row in enumerate(rows) if row.torn),
        tuple((index, *row.refused) for index, row in enumerate(rows) if row.refused),
        oversize,
        () if set(wanted) == {None} else wanted,
    )


def _spans(rows: Sequence[Row], parts: Mapping[int, int]) -> Iterator[Span]:
    """Yields a span for each run of rows that stand in their file one behind the other."""
    start = 0
    for index in range(1, len(rows) + 1):
        if index == len(rows) or not _follows(rows[index - 1], rows[index]):
            first, lines = rows[start], index - start
            length = first.oversize[0] + 1 if first.oversize else len(first.raw) + 1
            size = length if lines == 1 else sum(len(row.raw) + 1 for row in rows[start:index])
            yield Span(parts[first.file], first.uri, lines, size, first.line, first.offset)
            start = index


def _follows(one: Row, other: Row) -> bool:
    if one.number + 1 != other.number or one.uri != other.uri or one.file != other.file:
        return False
    if one.line is None or other.line is None or one.line + 1 != other.line:
        return False
    return one.offset is None if other.offset is None else one.offset == other.offset - len(one.raw) - 1


def _said(why: RefusedLine | None) -> tuple[str, str, str | None, bool] | None:
    return None if why is None else (why.reason, why.message, why.field, why.in_base64)


def _places(block: Block, lines: Sequence[bytes]) -> Iterator[tuple[Span, int | None, int | None]]:
    """Yields for each line its span, its number and its offset."""
    position = 0
    for span in block.spans:
        lengths = [len(line) for line in lines[position : position + span.lines]]
        position += span.lines
        for number, offset in span.places(lengths):
            yield span, number, offset
