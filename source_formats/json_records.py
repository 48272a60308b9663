"""Reads JSON that is no NDJSON: an array of records, or records one after the other, laid out in any way.

Where one record ends is told from the structure of the text alone, so that a record which is broken inside
is one bad line and its neighbours are whole. Where a missing quote or bracket makes a record swallow others,
these are found again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from source_formats.json_salvage import RECORD_BYTES, Shapes, whole_records
from source_formats.json_structure import COMMA, Within, cut_records, scan
from source_formats.lines import FormatProblem, Lines, RefusedLine, in_scans, refused_line

HELD_BYTES: Final = (
    8 << 20
)  # of one record, eight times what Mixpanel takes; what is longer goes on as it comes
_BOM: Final = b"\xef\xbb\xbf"
_BETWEEN: Final = b" \t\r\n,"  # records
_LEFT_OVER: Final = _BETWEEN + b"]}"  # of what was broken
_LEARNT: Final = 64  # records before damage, of which the shape is learnt
_PART: Final = "an object that may be a part of a damaged record, and is not certain to be one itself"
_ON_ONE_LINE: Final = bytes.maketrans(b"\r\n", b"  ")
_check: Final = msgspec.json.Decoder(msgspec.Raw).decode


def read_json(chunks: Iterable[bytes]) -> Iterator[Lines]:
    """Yields the records of JSON text: the elements of arrays, and objects that are in none.

    A record keeps its tokens as they are; only white space between them may go.

    Raises:
        FormatProblem: behind the last record, if the text ends inside of an array or a record.
    """
    splitter = _Splitter()
    for chunk in in_scans(chunks):
        yield from splitter.feed(chunk)
    yield from splitter.finish()


class _Splitter:
    """Cuts text into records as it comes; holds what has not ended yet."""

    def __init__(self) -> None:
        self._held = b""
        self._waiting = b""  # for more of the text, before it is held
        self._offset = 0  # of what is held, in the file
        self._within = Within()  # at the end of what is held
        self._in_array = False
        self._is_array: bool | None = None  # whether the file begins with an array, once that is known
        self._is_giant = False  # the record that has not ended is too long to be held
        self._records = _RecordLines()

    def feed(self, chunk: bytes, final: bool = False) -> Iterator[Lines]:
        """Yields the records that end in a chunk."""
        if self._is_array is None and not self._offset and chunk.startswith(_BOM):
            chunk, self._offset = chunk[len(_BOM) :], len(_BOM)
        chunk, self._waiting = self._waiting + chunk, b""
        if self._is_giant:
            piece, chunk = self._go_on_with_giant(chunk)
            yield piece
        before = len(self._held)
        if self._is_array is None and (begins := chunk.lstrip()[:1]):
            self._is_array = begins == b"["
        began_in_array = self._in_array
        cut = cut_records(chunk, self._within, self._in_array, -before)
        self._held += chunk
        self._within, self._in_array = cut.end, cut.in_array
        records = self._lines_of_held()
        taken = 0
        for start, end in cut.spans:
            if end + before > taken:
                taken = records.add(max(taken, start + before), end + before, final)
                if records.is_undecided:
                    break
        rest = cut.rest + before
        doubtful = None if final else records.take_back(RECORD_BYTES)
        if doubtful is not None or records.is_undecided:
            self._wait(taken if doubtful is None else doubtful, began_in_array)
            yield records.lines()
            return
        if taken > rest:
            yield from self._begin_anew(taken)
            return
        yield records.lines()
        self._drop(rest)
        if len(self._held) > HELD_BYTES:
            yield from self._give_up()

    def finish(self) -> Iterator[Lines]:
        """Yields what is left at the end of the text, and says if that comes too early."""
        while self._waiting:
            yield from self.feed(b"", final=True)
        cut_short = self._is_giant
        if not cut_short:
            records = self._lines_of_held()
            behind = records.add_salvaged(0, len(self._held), final=True)
            tail = self._held[behind:]
            in_array = bool(self._is_array) if behind else self._in_array
            if tail.strip(_LEFT_OVER):
                cut_short = in_array or self._within.in_string or self._within.depth > 0
                records.add_as_it_is(behind, len(self._held), ended=not cut_short)
            else:
                cut_short = in_array and b"]" not in tail
            yield records.lines()
        if cut_short:
            where = "a JSON array" if self._in_array else "a record"
            end = self._offset + len(self._held)
            raise FormatProblem("truncated", end, f"the file ends inside of {where}")

    def _lines_of_held(self) -> _RecordLines:
        self._records.begin(self._held, self._offset)
        return self._records

    def _drop(self, length: int) -> None:
        self._held = self._held[length:]
        self._offset += length

    def _wait(self, behind: int, began_in_array: bool) -> None:
        """Puts off what is damaged at the end of what is held until more of the text is there."""
        before = self._held[:behind].rstrip(_BETWEEN)
        self._in_array = bool(self._is_array) and not before.endswith(b"]") if before else began_in_array
        self._waiting = self._held[behind:]
        self._offset += behind
        self._held, self._within = b"", Within(int(self._in_array))

    def _begin_anew(self, behind: int) -> Iterator[Lines]:
        """Yields what was found, and goes on behind a record as if nothing had been wrong before."""
        behind = max(behind, self._records.add_salvaged(behind, len(self._held)))
        yield self._records.lines()
        again = self._held[behind:]
        self._offset += behind
        self._in_array = bool(self._is_array)
        self._held, self._within = b"", Within(int(self._in_array))
        for piece in in_scans([again]):
            yield from self.feed(piece)

    def _give_up(self) -> Iterator[Lines]:
        """Yields what can be told of a record that does not end: what it swallowed, or its beginning."""
        behind = self._lines_of_held().add_salvaged(0, HELD_BYTES, final=True)
        if behind:
            yield from self._begin_anew(behind)
            return
        self._drop(len(self._held) - len(self._held.lstrip(_BETWEEN)))
        yield Lines(self._held.translate(_ON_ONE_LINE), [self._offset])
        self._drop(len(self._held))
        self._is_giant = True

    def _go_on_with_giant(self, chunk: bytes) -> tuple[Lines, bytes]:
        """Returns what a chunk holds of a record whose beginning is gone, and what stands behind it."""
        found = scan(chunk, self._within)
        is_end = found.depth <= 0
        if self._in_array:
            is_end |= (found.kind == COMMA) & (found.depth == 1)
        if not is_end.any():
            self._within = found.end
            self._offset += len(chunk)
            return Lines(chunk.translate(_ON_ONE_LINE), []), b""
        at = int(found.at[is_end.argmax()])
        end = at if self._in_array else at + 1
        self._in_array = self._in_array and chunk[at : at + 1] != b"]"
        self._is_giant, self._within = False, Within(int(self._in_array))
        self._offset += at + 1
        return Lines(chunk[:end].translate(_ON_ONE_LINE) + b"\n", []), chunk[at + 1 :]


class _RecordLines:
    """Collects the records of a text as lines, and knows what they look like."""

    def __init__(self) -> None:
        self._shapes = Shapes()
        self._lines: list[bytes] = []
        self._before: list[bytes] = []  # lines of the texts before
        self._damaged_until: int | None = None  # the file's byte, if nothing was certain since
        self.begin(b"", 0)

    def begin(self, text: bytes, offset: int) -> None:
        """Begins with another text."""
        self._text = text
        self._offset = offset
        self._before = self._lines[-_LEARNT:] or self._before
        self._lines = []
        self._offsets: list[int] = []
        self._refused: list[RefusedLine] = []
        self._end = b"\n"
        self._has_learnt = False
        self._doubtful: tuple[int, int, int] | None = None  # lines, refused, where: before what is damaged
        self.is_undecided = False  # what comes behind what was added, before more of the text is there

    def add(self, start: int, end: int, final: bool) -> int:
        """Adds the record that stands in a stretch of the text, if one does; returns where that ends."""
        piece = self._text[start:end]
        element = piece.strip(_BETWEEN)
        if not element:
            return end
        if len(element) != len(piece):
            start += len(piece) - len(piece.lstrip(_BETWEEN))
        line = _on_one_line(element)
        stop = start + len(element)
        if line is not None and (self._damaged_until is None or not self._may_be_left_over(line, start)):
            self._damaged_until = self._doubtful = None
            self._lines.append(line)
            self._offsets.append(self._offset + start)
            return end
        if line is None:
            self._damaged_until = self._offset + stop
        behind = self.add_salvaged(start, end, final)
        if self.is_undecided:
            self._doubt(behind)
            return behind
        if behind < end:
            self.add_as_it_is(behind, stop)
        return max(behind, end)

    def add_salvaged(self, start: int, end: int, final: bool = False) -> int:
        """Adds the whole records that begin in a stretch, and what comes before each; returns their end."""
        behind = start
        self._learn()
        found = whole_records(self._text, start, end, self._shapes, final)
        for whole, stop in found.records:
            self.add_as_it_is(behind, whole)
            record = self._text[whole:stop]
            self._lines.append(_on_one_line(record) or record.translate(_ON_ONE_LINE))
            self._offsets.append(self._offset + whole)
            self._damaged_until = self._doubtful = None
            behind = stop
        self.is_undecided = found.is_undecided
        return behind

    def take_back(self, size: int) -> int | None:
        """Takes back what is damaged at the end of the text, if it is shorter than a size.

        Returns where that begins, or None.
        """
        if self._doubtful is None or len(self._text) - self._doubtful[2] > size:
            return None
        lines, refused, where = self._doubtful
        del self._lines[lines:], self._offsets[lines:], self._refused[refused:]
        return where

    def _doubt(self, start: int) -> None:
        """Notes where what is damaged begins."""
        if self._doubtful is None:
            self._doubtful = len(self._lines), len(self._refused), start

    def _may_be_left_over(self, line: bytes, start: int) -> bool:
        """Returns whether a whole object may be a part of a damaged record before it."""
        until = self._damaged_until or 0
        if self._offset + start - until > RECORD_BYTES or not line.startswith(b"{"):
            return False
        self._learn()
        return not self._shapes.is_record(line)

    def _learn(self) -> None:
        """Looks at some records that stand before damage, once for each text."""
        if not self._has_learnt:
            self._has_learnt = bool(self._lines)
            self._shapes.learn([*self._before, *self._lines][-_LEARNT:])

    def add_as_it_is(self, start: int, end: int, ended: bool = True) -> None:
        """Adds what is no record, to be refused for what it is; without its end if that is missing."""
        piece = self._text[start:end]
        if not piece.strip(_LEFT_OVER):
            return
        self._doubt(start)
        element = piece.strip(_BETWEEN)
        line = element.translate(_ON_ONE_LINE)
        if line.startswith(b"{") and _on_one_line(line) is not None:
            self._refused.append(RefusedLine(len(self._lines), "invalid_json", _PART))
            self._lines.append(refused_line(element).removesuffix(b"\n"))
        else:
            self._lines.append(line)
        self._offsets.append(self._offset + end - len(piece.lstrip(_BETWEEN)))
        self._end = b"\n" if ended else b""

    def lines(self) -> Lines:
        """Returns what was added."""
        raw = b"\n".join(self._lines) + self._end if self._lines else b""
        return Lines(raw, self._offsets, tuple(self._refused))


def _on_one_line(element: bytes) -> bytes | None:
    """Returns a record without its line breaks, or None if it is no JSON."""
    if len(element) > HELD_BYTES:
        return element.translate(_ON_ONE_LINE)
    try:
        if b"\n" in element or b"\r" in element:
            return msgspec.json.format(element, indent=-1)
        _check(element)
    except RecursionError:
        return element.translate(_ON_ONE_LINE)  # it is refused for its depth
    except msgspec.DecodeError:
        return None
    return element
