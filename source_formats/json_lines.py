"""Collects what JSON text is cut into as lines: whole records as they are, what is damaged to be refused."""

from __future__ import annotations

from typing import Final

import msgspec

from source_formats.json_salvage import RECORD_BYTES, may_be_front, whole_records
from source_formats.json_shapes import Shapes, keys_of
from source_formats.lines import Lines, RefusedLine, refused_line

# Of one record, eight times what Mixpanel takes; what is longer goes on as it comes.
HELD_BYTES: Final = 8 << 20
BETWEEN: Final = b" \t\r\n,"  # records
LEFT_OVER: Final = BETWEEN + b"]}"  # of what was broken
ON_ONE_LINE: Final = bytes.maketrans(b"\r\n", b"  ")
_LEARNT: Final = 64  # records before damage, of which the shape is learnt
_PART: Final = "an object that may be a part of a damaged record, and is not certain to be one itself"
_check: Final = msgspec.json.Decoder(msgspec.Raw).decode


class RecordLines:
    """Collects the records of a text as lines, and knows what they look like."""

    def __init__(self) -> None:
        self._shapes = Shapes()
        self._lines: list[bytes] = []
        self._offsets: list[int] = []
        self._refused: list[RefusedLine] = []
        self._is_last_whole = False  # and was added last
        self._before: list[bytes] = []  # lines of the texts before
        self._damaged_until: int | None = None  # the file's byte, if nothing was certain since
        self.begin(b"", 0)

    def begin(self, text: bytes, offset: int) -> None:
        """Begins with another text."""
        self._text = text
        self._offset = offset
        self._end = b"\n"
        self._has_learnt = False
        self._doubtful: tuple[int, int, int] | None = None  # lines, refused, where: before what is damaged
        self.is_undecided = False  # what comes behind what was added, before more of the text is there

    def add(self, start: int, end: int, final: bool) -> int:
        """Adds the record that stands in a stretch of the text, if one does; returns where that ends."""
        piece = self._text[start:end]
        element = piece.strip(BETWEEN)
        if not element:
            self._look_back(b"", end)
            return end
        if len(element) != len(piece):
            start += len(piece) - len(piece.lstrip(BETWEEN))
        line = _on_one_line(element)
        stop = start + len(element)
        if line is not None and (self._damaged_until is None or not self._may_be_left_over(line, start)):
            if line.startswith(b"{"):
                self._damaged_until = self._doubtful = None
            self._take_in(line, start)
            if self._text[end : end + 1] == b"}":
                self._look_back(b"", end)
            return end
        if line is None:
            self._look_back(element, end)
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
            self._take_in(_on_one_line(record) or record.translate(ON_ONE_LINE), whole)
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

    def _take_in(self, line: bytes, start: int) -> None:
        """Adds a record; what comes behind it may still tell that it is the front of one."""
        self._lines.append(line)
        self._offsets.append(self._offset + start)
        self._is_last_whole = True

    def _look_back(self, damaged: bytes, end: int) -> None:
        """Refuses the last record if it may be the front of what is damaged behind it."""
        if not self._is_last_whole:
            return
        self._learn()
        last = self._lines[-1]
        behind = damaged or self._text[end : end + 1]
        if may_be_front(keys_of(last), behind, self._shapes):
            self._is_last_whole = False
            self._refused.append(RefusedLine(len(self._lines) - 1, "invalid_json", _PART))
            self._lines[-1] = refused_line(last).removesuffix(b"\n")

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
            self._shapes.learn(
                [*self._before, *self._lines[: len(self._lines) - self._is_last_whole]][-_LEARNT:]
            )

    def add_as_it_is(self, start: int, end: int, ended: bool = True) -> None:
        """Adds what is no record, to be refused for what it is; without its end if that is missing."""
        piece = self._text[start:end]
        if not piece.strip(LEFT_OVER):
            return
        self._doubt(start)
        self._is_last_whole = False
        element = piece.strip(BETWEEN)
        line = element.translate(ON_ONE_LINE)
        if line.startswith(b"{") and _on_one_line(line) is not None:
            self._refused.append(RefusedLine(len(self._lines), "invalid_json", _PART))
            self._lines.append(refused_line(element).removesuffix(b"\n"))
        else:
            self._lines.append(line)
        self._offsets.append(self._offset + end - len(piece.lstrip(BETWEEN)))
        self._end = b"\n" if ended else b""

    def lines(self) -> Lines:
        """Returns what was added, apart from a last record of which what comes behind it may tell more."""
        return self._first_lines(len(self._lines) - self._is_last_whole)

    def all_lines(self) -> Lines:
        """Returns what was added."""
        return self._first_lines(len(self._lines))

    def _first_lines(self, count: int) -> Lines:
        taken = self._lines[:count]
        raw = b"\n".join(taken) + self._end if taken else b""
        lines = Lines(raw, self._offsets[:count], tuple(self._refused))
        self._before = taken[-_LEARNT:] or self._before
        self._lines, self._offsets, self._refused = self._lines[count:], self._offsets[count:], []
        self._is_last_whole = bool(self._lines)
        return lines


def _on_one_line(element: bytes) -> bytes | None:
    """Returns a record without its line breaks, or None if it is no JSON."""
    if len(element) > HELD_BYTES:
        return element.translate(ON_ONE_LINE)
    try:
        if b"\n" in element or b"\r" in element:
            return msgspec.json.format(element, indent=-1)
        _check(element)
    except RecursionError:
        return element.translate(ON_ONE_LINE)  # it is refused for its depth
    except msgspec.DecodeError:
        return None
    return element
