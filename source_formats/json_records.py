"""Reads JSON that is no NDJSON: an array of records, or records one after the other, laid out in any way.

Where one record ends is told from the structure of the text alone, so that a record which is broken inside
is one bad line and its neighbours are whole. Where a missing quote or bracket makes a record swallow others,
these are found again.
"""

from __future__ import annotations

from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator

from source_formats.json_lines import BETWEEN, HELD_BYTES, LEFT_OVER, ON_ONE_LINE, RecordLines
from source_formats.json_salvage import RECORD_BYTES, is_cut_short
from source_formats.json_structure import COMMA, Within, cut_records, scan
from source_formats.lines import FormatProblem, Lines, in_scans


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
        self._records = RecordLines()

    def feed(self, chunk: bytes, final: bool = False) -> Iterator[Lines]:
        """Yields the records that end in a chunk."""
        if self._is_array is None and not self._offset and chunk.startswith(BOM_UTF8):
            chunk, self._offset = chunk[len(BOM_UTF8) :], len(BOM_UTF8)
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
            is_one = is_cut_short(self._held)
            behind = 0 if is_one else records.add_salvaged(0, len(self._held), final=True)
            tail = self._held[behind:]
            in_array = bool(self._is_array) if behind else self._in_array
            if tail.strip(LEFT_OVER):
                cut_short = in_array or self._within.in_string or self._within.depth > 0
                records.add_as_it_is(behind, len(self._held), ended=not cut_short)
            else:
                cut_short = in_array and b"]" not in tail
            yield records.all_lines()
        if cut_short:
            where = "a JSON array" if self._in_array else "a record"
            end = self._offset + len(self._held)
            raise FormatProblem("truncated", end, f"the file ends inside of {where}")

    def _lines_of_held(self) -> RecordLines:
        self._records.begin(self._held, self._offset)
        return self._records

    def _drop(self, length: int) -> None:
        self._held = self._held[length:]
        self._offset += length

    def _wait(self, behind: int, began_in_array: bool) -> None:
        """Puts off what is damaged at the end of what is held until more of the text is there."""
        before = self._held[:behind].rstrip(BETWEEN)
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
        yield self._records.all_lines()
        self._drop(len(self._held) - len(self._held.lstrip(BETWEEN)))
        yield Lines(self._held.translate(ON_ONE_LINE), [self._offset])
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
            return Lines(chunk.translate(ON_ONE_LINE), []), b""
        at = int(found.at[is_end.argmax()])
        end = at if self._in_array else at + 1
        self._in_array = self._in_array and chunk[at : at + 1] != b"]"
        self._is_giant, self._within = False, Within(int(self._in_array))
        self._offset += at + 1
        return Lines(chunk[:end].translate(ON_ONE_LINE) + b"\n", []), chunk[at + 1 :]
