"""Reads a segment: its files' lines, in order, as blocks that know where they came from. No Beam here."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby
from typing import Final

import numpy as np

from source_formats.detection import is_ndjson
from source_formats.lines import UNNUMBERED, FormatProblem, Lines, RefusedLine
from source_formats.opening import FormatChoice
from transforms.compression import DamagedFile
from transforms.elements import Block, FileNote, FilePart, OversizeLine, Segment, Span
from transforms.line_blocks import GiantLine, cut_blocks
from transforms.part_lines import Located, Verify, is_small, read_part, read_small
from transforms.pinned_files import Changed, Fetched, read_files
from transforms.small_files import batches
from transforms.storage import FileSystem, storage_errors, told
from transforms.stretches import Pack, Stretch

JOINED_BYTES: Final = 256 << 10
_BROKEN_LINK: Final = (
    "it led nowhere when the run was planned, so nothing of it is part of the run; mend it, and import it "
    "with a new run over it"
)
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
        self._stretches: list[Stretch | Pack] = []
        self._open = 0  # the first stretch of which more may come
        self._length = 0
        self._torn: set[int] = set()  # stream offsets behind lines that damage cut short
        self._refused: deque[tuple[int, RefusedLine]] = deque()  # stream offsets behind them
        self._unread_from: int | None = None  # where the first bytes are missing that may be readable later

    def chunks(self) -> Iterator[bytes]:
        """Yields the bytes of all parts; each part's last line ends with a newline."""
        for first, contents in batches(self._segment.parts, self._fetch, is_small):
            if contents is None:
                yield from self._part(first, partial(self._read, first))
            else:
                yield from self._small_parts(first, contents)

    def _small_parts(self, first: int, contents: Sequence[Fetched]) -> Iterator[bytes]:
        """Yields the bytes of files that are at hand; those of lines as one."""
        takes_lines = self._reader.format.takes_lines
        plain: list[bytes] = []
        for index, content in enumerate(contents, first):
            if takes_lines and isinstance(content, bytes) and is_ndjson(content):
                plain.append(content)
                continue
            yield from self._pack(index - len(plain), plain)
            plain = []
            yield from self._part(index, partial(self._read_small, index, content))
        yield from self._pack(first + len(contents) - len(plain), plain)

    def _pack(self, first: int, contents: Sequence[bytes]) -> Iterator[bytes]:
        if contents:
            parts = self._segment.parts[first : first + len(contents)]
            pack = Pack(first, parts, self._length, contents)
            self._stretches.append(pack)
            self._length += len(pack.raw)
            yield pack.raw

    def _part(self, index: int, read: Callable[[], Located]) -> Iterator[bytes]:
        """Yields the bytes of one part, and notes how reading it ended."""
        part = self._segment.parts[index]
        stretch = Stretch(index, part.uri, self._length, part.start, self._first_line(part))
        self._stretches.append(stretch)
        last = _NEWLINE
        try:
            for offset, lines in read():
                self._note_places(stretch, offset, lines)
                if lines.raw:
                    self._length += len(lines.raw)
                    last = lines.raw[-1]
                    yield lines.raw
        except (DamagedFile, FormatProblem, Changed) as error:
            stretch.problem = _problem(error, part)
        except storage_errors() as error:
            stretch.problem = _problem(error, part)
        if stretch.note().may_heal and self._unread_from is None:
            self._unread_from = self._length
        if last != _NEWLINE:
            self._length += 1
            if stretch.problem:
                self._torn.add(self._length)
            yield b"\n"

    def _fetch(self, parts: Sequence[FilePart]) -> list[Fetched]:
        """Returns small files of one file system as they are stored, or why one could not be read."""
        return read_files(self._reader.filesystem(parts[0].uri), parts)

    def _read(self, index: int) -> Located:
        reader, part = self._reader, self._segment.parts[index]
        return read_part(reader.filesystem(part.uri), part, reader.format, reader.verify)

    def _read_small(self, index: int, content: Fetched) -> Located:
        if not isinstance(content, bytes):
            raise content
        reader = self._reader
        return read_small(content, self._segment.parts[index], reader.format, reader.verify)

    def _note_places(self, stretch: Stretch, offset: int | None, lines: Lines) -> None:
        """Notes where lines stand in their file, before they become a part of the stream."""
        if stretch.start == self._length:
            stretch.file_offset = offset
            if lines.first is not None:
                stretch.next_line = lines.first or None
        elif lines.first == UNNUMBERED and stretch.numbered_until is None:
            stretch.numbered_until = self._length
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
        """Yields how reading ended, with the number of lines; files that were read to their end as one."""
        for is_well, group in groupby(self._notes(), lambda note: note.problem is None):
            notes = list(group)
            yield from [_as_one(notes)] if is_well else notes

    def _notes(self) -> Iterator[FileNote]:
        for stretch in self._stretches:
            note = stretch.note()
            part = self._segment.parts[note.part]
            next_line = stretch.next_line if isinstance(stretch, Stretch) else None
            if part.end is not None and next_line is not None and note.problem is None:
                self._reader.line_bases[part.uri, part.end] = next_line
            yield note

    def _first_line(self, part: FilePart) -> int | None:
        return 1 if part.start == 0 else self._reader.line_bases.get((part.uri, part.start))

    def _spans(self, piece: bytes, start: int, end: int) -> tuple[Span, ...]:
        """Returns the files behind the stream's bytes from `start` to `end`, and counts their lines."""
        found = self._stretches_in(start, end)
        return tuple(span for stretch, low, high in found for span in stretch.spans(piece, start, low, high))

    def _stretches_in(self, start: int, end: int) -> Iterator[tuple[Stretch | Pack, int, int]]:
        """Yields the stretches that are not empty between two offsets, each with its own part of that."""
        for i in range(self._open, len(self._stretches)):
            stretch = self._stretches[i]
            if stretch.start >= end:
                break
            self._open = i
            until = self._stretches[i + 1].start if i + 1 < len(self._stretches) else end
            low, high = max(start, stretch.start), min(end, until)
            if low < high:
                yield stretch, low, high


def _problem(error: BaseException, part: FilePart) -> tuple[str, int | None, str]:
    """Returns what a note says of what ended the reading of a file."""
    if part.is_broken_link:
        return "broken_link", None, _BROKEN_LINK
    if isinstance(error, DamagedFile | FormatProblem):
        return error.problem, error.offset, error.detail
    if isinstance(error, FileNotFoundError):
        return "missing", None, type(error).__name__
    if isinstance(error, Changed):
        return "changed", None, str(error)
    return "unreadable", None, told(error)


def _as_one(notes: Sequence[FileNote]) -> FileNote:
    """Returns one note for parts that follow each other."""
    lines, parts = sum(note.lines for note in notes), sum(note.parts for note in notes)
    return notes[0]._replace(lines=lines, parts=parts)


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
