"""Where the bytes of a segment's stream come from: stretches of one file, and packs of many small files."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import Final

import numpy as np

from transforms.elements import FileNote, FilePart, Span
from transforms.line_blocks import count_lines

_NEWLINE: Final = ord("\n")


@dataclass(slots=True)
class Stretch:
    """A stretch of the stream of lines that comes from one file, without a gap.

    Attributes:
        part: index of the segment's part.
        uri: the file.
        start: the stream's offset of its first byte.
        file_offset: where that stands in the file; None in a format that is not one of lines.
        next_line: number of the next line that is in no block yet, or None where it is not known.
        lines: those that are in blocks.
        offsets: of the records that are in no block yet, in a format that is not one of lines.
        numbered_until: the stream's offset from where on no line's number is known, or None.
        problem: how reading it ended, if not well: problem, offset and detail of a note.
    """

    part: int
    uri: str
    start: int
    file_offset: int | None
    next_line: int | None
    lines: int = 0
    offsets: deque[int] = field(default_factory=deque)
    numbered_until: int | None = None
    problem: tuple[str, int | None, str] | None = None

    def spans(self, piece: bytes, position: int, low: int, high: int) -> Iterator[Span]:
        """Yields what a block has of it, and counts its lines.

        Args:
            piece: the block; of a line that is too long to hold only its newline.
            position: the stream's offset of the block.
            low: where in the stream its share begins.
            high: where that ends.
        """
        if self.numbered_until is not None and low < self.numbered_until < high:
            yield self._span(piece, position, low, self.numbered_until)
            low = self.numbered_until
        if self.numbered_until is not None and low >= self.numbered_until:
            self.next_line = None
        yield self._span(piece, position, low, high)

    def _span(self, piece: bytes, position: int, low: int, high: int) -> Span:
        whole = low == position and high - low >= len(piece)
        lines = max(1, count_lines(piece)) if whole else count_lines(piece, low - position, high - position)
        offset = None if self.file_offset is None else self.file_offset + low - self.start
        offsets = tuple(self.offsets.popleft() for _ in range(lines)) if self.offsets else ()
        span = Span(self.part, self.uri, lines, high - low, self.next_line, offset, offsets)
        self.lines += lines
        if self.next_line is not None:
            self.next_line += lines
        return span

    def note(self) -> FileNote:
        """Returns how reading it ended."""
        return FileNote(self.part, self.uri, self.lines, *(self.problem or ()))


class Pack:
    """Small files of lines that follow each other in the stream; of thousands each step counts."""

    def __init__(self, first: int, parts: Sequence[FilePart], start: int, contents: Sequence[bytes]) -> None:
        """Joins files.

        Args:
            first: index of the first among the segment's parts.
            parts: the files.
            start: the stream's offset where they begin.
            contents: what is in them, which is not nothing.
        """
        self.part = first
        self.uri = parts[0].uri
        self.start = start
        self.lines = 0
        self._parts = parts
        self._within = 0  # lines in blocks of the file that is in two
        ends = list(accumulate(map(len, contents)))
        self.raw = b"".join(contents)
        newlines = np.frombuffer(self.raw, np.uint8) == _NEWLINE
        if not newlines[np.array(ends) - 1].all():
            contents = [each if each.endswith(b"\n") else each + b"\n" for each in contents]
            ends = list(accumulate(map(len, contents)))
            self.raw = b"".join(contents)
            newlines = np.frombuffer(self.raw, np.uint8) == _NEWLINE
        self._ends = ends
        self._counts = [int(np.count_nonzero(newlines[low:high])) for low, high in pairwise((0, *ends))]

    def spans(self, piece: bytes, position: int, low: int, high: int) -> Iterator[Span]:
        """Yields what a block has of each file, and counts the lines; as `Stretch.spans`."""
        begin, end = low - self.start, high - self.start
        index = bisect_right(self._ends, begin)
        file_start = self._ends[index - 1] if index else 0
        while begin < end:
            behind = self._ends[index]
            upto = min(behind, end)
            lines = self._counts[index]
            if begin > file_start or upto < behind:
                lines = count_lines(piece, low - position, low - position + upto - begin)
            uri = self._parts[index].uri
            yield Span(self.part + index, uri, lines, upto - begin, self._within + 1, begin - file_start)
            self.lines += lines
            self._within = 0 if upto == behind else self._within + lines
            low += upto - begin
            begin = upto
            file_start = behind
            index += 1

    def note(self) -> FileNote:
        """Returns how reading them ended."""
        return FileNote(self.part, self.uri, self.lines, parts=len(self._parts))
