"""Reads JSON that is no NDJSON: an array of records, or records one after the other, laid out in any way.

Where one record ends is told from the structure of the text alone, so that a record which is broken inside
is one bad line and its neighbours are whole. Where a missing quote or bracket makes a record swallow others,
these are found again by what they begin with.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from source_formats.json_structure import COMMA, Within, cut_records, scan
from source_formats.lines import FormatProblem, Lines, in_scans

HELD_BYTES: Final = (
    8 << 20
)  # of one record: eight times what Mixpanel takes; what is longer is passed on as it comes
_TRIES: Final = 1000  # places in a broken record at which another one might begin
_BOM: Final = b"\xef\xbb\xbf"
_BETWEEN: Final = b" \t\r\n,"  # records
_LEFT_OVER: Final = _BETWEEN + b"]}"  # of what was broken
_ON_ONE_LINE: Final = bytes.maketrans(b"\r\n", b"  ")
_FIRST_KEY: Final = re.compile(rb'[\s,]*\{\s*("(?:[^"\\]|\\.){0,200}")\s*:')
_check: Final = msgspec.json.Decoder(msgspec.Raw).decode
_one_value: Final = json.JSONDecoder(parse_int=str, parse_float=str).raw_decode


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
        self._offset = 0  # of what is held, in the file
        self._within = Within()  # at the end of what is held
        self._in_array = False
        self._is_giant = False  # the record that has not ended is too long to be held
        self._records = _RecordLines()

    def feed(self, chunk: bytes) -> Iterator[Lines]:
        """Yields the records that end in a chunk."""
        if not self._offset and not self._held and chunk.startswith(_BOM):
            chunk, self._offset = chunk[len(_BOM) :], len(_BOM)
        if self._is_giant:
            piece, chunk = self._go_on_with_giant(chunk)
            yield piece
        before = len(self._held)
        cut = cut_records(chunk, self._within, self._in_array, -before)
        self._held += chunk
        self._within, self._in_array = cut.end, cut.in_array
        records = self._lines_of_held()
        for start, end in cut.spans:
            records.add(start + before, end + before)
        yield records.lines()
        self._drop(cut.rest + before)
        if len(self._held) > HELD_BYTES:
            yield from self._give_up()

    def finish(self) -> Iterator[Lines]:
        """Yields what is left at the end of the text, and says if that comes too early."""
        cut_short = self._is_giant
        if not cut_short:
            records = self._lines_of_held()
            behind = records.add_salvaged(0, len(self._held))
            tail = self._held[behind:]
            if tail.strip(_LEFT_OVER):
                cut_short = self._in_array or self._within.in_string or self._within.depth > 0
                records.add_as_it_is(behind, len(self._held), ended=not cut_short)
            else:
                cut_short = self._in_array and b"]" not in tail
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

    def _give_up(self) -> Iterator[Lines]:
        """Yields what can be told of a record that does not end: what it swallowed, or its beginning."""
        records = self._lines_of_held()
        behind = records.add_salvaged(0, HELD_BYTES)
        if behind:
            yield records.lines()
            again = self._held[behind:]
            self._offset += behind
            self._held, self._within = b"", Within(int(self._in_array))
            for piece in in_scans([again]):
                yield from self.feed(piece)
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
        self._whole = b""  # the last record that was
        self.begin(b"", 0)

    def begin(self, text: bytes, offset: int) -> None:
        """Begins with another text."""
        self._text = text
        self._offset = offset
        self._lines: list[bytes] = []
        self._offsets: list[int] = []
        self._end = b"\n"

    def add(self, start: int, end: int) -> None:
        """Adds the record that stands in a stretch of the text, if one does."""
        piece = self._text[start:end]
        element = piece.strip(_BETWEEN)
        if not element:
            return
        if len(element) != len(piece):
            start += len(piece) - len(piece.lstrip(_BETWEEN))
        line = _on_one_line(element)
        if line is not None:
            self._whole = line
            self._lines.append(line)
            self._offsets.append(self._offset + start)
            return
        end = start + len(element)
        self.add_as_it_is(self.add_salvaged(start, end), end)

    def add_salvaged(self, start: int, end: int) -> int:
        """Adds what comes before each whole record in a broken one, and those; returns where they end."""
        behind = 0
        text = self._text[start:end]
        for whole, stop in _whole_records(text, self._whole):
            self.add_as_it_is(start + behind, start + whole)
            self._lines.append(_on_one_line(text[whole:stop]) or text[whole:stop].translate(_ON_ONE_LINE))
            self._offsets.append(self._offset + start + whole)
            behind = stop
        return start + behind

    def add_as_it_is(self, start: int, end: int, ended: bool = True) -> None:
        """Adds what is no record, to be refused for what it is; without its end if that is missing."""
        piece = self._text[start:end]
        if piece.strip(_LEFT_OVER):
            self._lines.append(piece.strip(_BETWEEN).translate(_ON_ONE_LINE))
            self._offsets.append(self._offset + end - len(piece.lstrip(_BETWEEN)))
            self._end = b"\n" if ended else b""

    def lines(self) -> Lines:
        """Returns what was added."""
        raw = b"\n".join(self._lines) + self._end if self._lines else b""
        return Lines(raw, self._offsets)


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


def _whole_records(text: bytes, like: bytes) -> Iterator[tuple[int, int]]:
    """Yields from where to where whole records stand in a broken one.

    Objects count that begin with the same key as the broken record, or as a whole one before it.
    """
    keys = [found for known in (like, text) if (found := _FIRST_KEY.match(known))]
    alike = [re.escape(found[1]) for found in keys or _FIRST_KEY.finditer(text)][:2]
    if not alike:
        return
    characters = text.decode("latin-1")  # one for each byte
    behind = failures = 0
    for match in re.finditer(rb"\{\s*(?:" + b"|".join(alike) + rb")\s*:", text):
        if match.start() < behind:
            continue
        try:
            _, behind = _one_value(characters, match.start())
        except (ValueError, RecursionError):
            failures += 1
            if failures > _TRIES:
                return
            continue
        yield match.start(), behind
