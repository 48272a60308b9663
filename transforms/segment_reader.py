"""Reads a segment: its files' lines, in order, as blocks that know where they came from. No Beam here."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from source_formats.lines import FormatProblem, Lines, RefusedLine
from source_formats.opening import FormatChoice
from transforms.compression import DamagedFile
from transforms.elements import Block, FileNote, FilePart, OversizeLine, Segment, Span
from transforms.line_blocks import GiantLine, count_lines, cut_blocks
from transforms.part_lines import Located, Verify, is_small, read_part, read_small
from transforms.pinned_files import Changed, read_whole
from transforms.small_files import fetched_ahead
from transforms.storage import FileSystem, storage_errors, told

JOINED_BYTES: Final = 256 << 10
_NEWLINE: Final = ord("\n")


@dataclass(frozen=True, slots=True)
class BlockLimits:
    """The largest block: what fits into one request.

    Attributes:
        records: lines, at most.
        bytes: bytes, at most.
    """

    records: int
    bytes: int


@dataclass(slots=True)
class _Stretch:
    """A stretch of the segment's stream of lines that comes from one file, without a gap.

    `file_offset` is None in a format that is not one of lines; there `offsets` are those of the records that
    are in no block yet, if they are known.
    """

    part: int
    uri: str
    stream_start: int
    file_offset: int | None
    next_line: int | None
    lines: int = 0
    offsets: deque[int] = field(default_factory=deque)


@dataclass(slots=True)
class SegmentReader:
    """Reads segments of one run, and remembers how many lines their files had so far.

    Attributes:
        filesystem: returns the file system of a URI.
        limits: the largest block.
        line_bases: number of the first line at an offset of a file, where it is known.
        verify: `full` reads a compressed file through before it yields any of it; `stream` does not.
        format: what the files hold.
    """

    filesystem: Callable[[str], FileSystem]
    limits: BlockLimits
    line_bases: dict[tuple[str, int], int] = field(default_factory=dict)
    verify: Verify = "stream"
    format: FormatChoice = field(default_factory=FormatChoice)

    def blocks(self, segment: Segment, attempt: str, done: Container[int] = ()) -> Iterator[Block]:
        """Yields the segment's blocks; the last one says so, and may be empty.

        Args:
            segment: what to read.
            attempt: id of this attempt at it.
            done: ordinals of blocks that need not be sent again; they are read over.
        """
        stream = _Stream(self, segment)
        position = ordinal = 0
        for piece in cut_blocks(_joined(stream.chunks()), self.limits.records, self.limits.bytes):
            block, position = stream.block(piece, position, attempt, ordinal)
            if block.provisional or ordinal not in done:
                yield block
            ordinal += 1
        notes = tuple(stream.take_notes())
        provisional = any(note.may_heal for note in notes)
        yield Block(segment.id, attempt, ordinal, b"", (), notes, end=True, provisional=provisional)


class _Stream:
    """The lines of a segment's files as one stream, with a record of which bytes of it come from where."""

    def __init__(self, reader: SegmentReader, segment: Segment) -> None:
        self._reader = reader
        self._segment = segment
        self._stretches: list[_Stretch] = []
        self._open = 0  # the first stretch of which more may come
        self._ended: list[FileNote] = []
        self._length = 0
        self._torn: set[int] = set()  # stream offsets behind lines that damage cut short
        self._refused: deque[tuple[int, RefusedLine]] = deque()  # stream offsets behind them
        self._unread_from: int | None = None  # where the first bytes are missing that may be readable later

    def chunks(self) -> Iterator[bytes]:
        """Yields the bytes of all parts; each part's last line ends with a newline."""
        for index, (part, fetched) in enumerate(fetched_ahead(self._segment.parts, self._fetch, is_small)):
            problem: tuple[str, int | None, str] | None = None
            last = _NEWLINE
            self._stretches.append(
                _Stretch(index, part.uri, self._length, part.start, self._first_line(part))
            )
            try:
                for offset, lines in self._read(part, fetched):
                    self._note_places(offset, lines)
                    if lines.raw:
                        self._length += len(lines.raw)
                        last = lines.raw[-1]
                        yield lines.raw
            except (DamagedFile, FormatProblem) as error:
                problem = (error.problem, error.offset, error.detail)
            except FileNotFoundError as error:
                problem = ("missing", None, type(error).__name__)
            except Changed as error:
                problem = ("changed", None, str(error))
            except storage_errors() as error:
                problem = ("unreadable", None, told(error))
            note = FileNote(index, part.uri, 0, *(problem or ()))
            if note.may_heal and self._unread_from is None:
                self._unread_from = self._length
            if last != _NEWLINE:
                self._length += 1
                if problem:
                    self._torn.add(self._length)
                yield b"\n"
            self._ended.append(note)

    def _part_lines(self, part: FilePart) -> Iterator[tuple[int | None, Lines]]:
        reader = self._reader
        return read_part(reader.filesystem(part.uri), part, reader.format, reader.verify)

    def _fetch(self, part: FilePart) -> bytes:
        """Returns a small file as it is stored."""
        return read_whole(self._reader.filesystem(part.uri), part)

    def _read(self, part: FilePart, fetched: Callable[[], bytes]) -> Located:
        reader = self._reader
        if is_small(part):
            return read_small(fetched(), part, reader.format, reader.verify)
        return read_part(reader.filesystem(part.uri), part, reader.format, reader.verify)

    def _note_places(self, offset: int | None, lines: Lines) -> None:
        """Notes where lines stand in their file, before they become a part of the stream."""
        stretch = self._stretches[-1]
        if stretch.stream_start == self._length:
            stretch.file_offset = offset
            stretch.next_line = lines.first or stretch.next_line
        stretch.offsets.extend(lines.offsets or ())
        if lines.refused:
            ends = _line_ends(lines.raw)
            self._refused.extend((self._length + ends[line.index], line) for line in lines.refused)

    def block(self, piece: bytes | GiantLine, position: int, attempt: str, ordinal: int) -> tuple[Block, int]:
        """Returns the block for the stream's bytes from `position` on, and the position behind it."""
        if isinstance(piece, GiantLine):
            end = position + piece.stream_bytes
            spans = self._spans(b"\n", position, end)
            oversize = OversizeLine(piece.length, piece.sha256)
            head, provisional = piece.head, self._is_provisional(end)
            block = Block(
                self._segment.id, attempt, ordinal, head, spans, oversize=oversize, provisional=provisional
            )
            return block, end
        end = position + len(piece)
        spans = self._spans(piece, position, end)
        cut = sorted(t - position for t in self._torn if position < t <= end)
        torn = tuple(piece.count(b"\n", 0, behind) - 1 for behind in cut)
        refused = self._take_refused(piece, position, end)
        provisional = self._is_provisional(end)
        block = Block(
            self._segment.id,
            attempt,
            ordinal,
            piece,
            spans,
            torn=torn,
            refused=refused,
            provisional=provisional,
        )
        return block, end

    def _take_refused(self, piece: bytes, position: int, end: int) -> tuple[RefusedLine, ...]:
        """Returns the refused lines up to the stream's offset `end`, by their index in the block."""
        taken = []
        index_of: dict[int, int] = {}
        while self._refused and self._refused[0][0] <= end:
            index_of = index_of or {behind: index for index, behind in enumerate(_line_ends(piece))}
            behind, line = self._refused.popleft()
            taken.append(replace(line, index=index_of[behind - position]))
        return tuple(taken)

    def _is_provisional(self, end: int) -> bool:
        """Returns whether a block that ends there would be another one if everything had been readable."""
        return self._unread_from is not None and end >= self._unread_from

    def take_notes(self) -> Iterator[FileNote]:
        """Yields how reading ended, for each part, with its number of lines."""
        for note, stretch in zip(self._ended, self._stretches, strict=True):
            yield FileNote(note.part, note.uri, stretch.lines, note.problem, note.offset, note.detail)
            part = self._segment.parts[note.part]
            if part.end is not None and stretch.next_line is not None and not note.problem:
                self._reader.line_bases[part.uri, part.end] = stretch.next_line

    def _first_line(self, part: FilePart) -> int | None:
        return 1 if part.start == 0 else self._reader.line_bases.get((part.uri, part.start))

    def _spans(self, piece: bytes, start: int, end: int) -> tuple[Span, ...]:
        """Returns the files behind the stream's bytes from `start` to `end`, and counts their lines."""
        found = list(self._stretches_in(start, end))
        if len(found) == 1:
            return (_span(*found[0], max(1, count_lines(piece))),)
        ends = np.flatnonzero(np.frombuffer(piece, np.uint8) == _NEWLINE)
        behind = np.searchsorted(ends, [high - start for _, _, high in found])
        counts: list[int] = np.diff(behind, prepend=0).tolist()
        return tuple(_span(*stretch, lines) for stretch, lines in zip(found, counts, strict=True))

    def _stretches_in(self, start: int, end: int) -> Iterator[tuple[_Stretch, int, int]]:
        """Yields the stretches that are not empty between two offsets, each with its own part of that."""
        for i in range(self._open, len(self._stretches)):
            stretch = self._stretches[i]
            if stretch.stream_start >= end:
                break
            self._open = i
            until = self._stretches[i + 1].stream_start if i + 1 < len(self._stretches) else end
            low, high = max(start, stretch.stream_start), min(end, until)
            if low < high:
                yield stretch, low, high


def _span(stretch: _Stretch, low: int, high: int, lines: int) -> Span:
    """Returns what a block has of a stretch, and counts its lines."""
    offset = None if stretch.file_offset is None else stretch.file_offset + low - stretch.stream_start
    offsets = tuple(stretch.offsets.popleft() for _ in range(lines)) if stretch.offsets else ()
    span = Span(stretch.part, stretch.uri, lines, high - low, stretch.next_line, offset, offsets)
    stretch.lines += lines
    if stretch.next_line is not None:
        stretch.next_line += lines
    return span


def _joined(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Yields a stream in chunks that are not small: each is put behind what is left of those before it."""
    held: list[bytes] = []
    length = 0
    for chunk in chunks:
        held.append(chunk)
        length += len(chunk)
        if length >= JOINED_BYTES:
            yield held[0] if len(held) == 1 else b"".join(held)
            held, length = [], 0
    if held:
        yield b"".join(held)


def _line_ends(lines: bytes) -> list[int]:
    """Returns the positions behind the newlines of some lines, also of one that is still to come."""
    ends: list[int] = (np.flatnonzero(np.frombuffer(lines, np.uint8) == _NEWLINE) + 1).tolist()
    return ends if lines.endswith(b"\n") else [*ends, len(lines) + 1]
