"""Finds the structure of JSON text in passes over whole chunks: what is outside of strings, and how deep."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

_OPEN, _CLOSE, COMMA, _QUOTE = 1, -1, 2, 3
_TABLE: Final = bytearray(256)
for _characters, _kind in ((b"{[", _OPEN), (b"}]", _CLOSE), (b",", COMMA), (b'"', _QUOTE)):
    for _character in _characters:
        _TABLE[_character] = _kind % 256
_KINDS: Final = bytes(_TABLE)
_BACKSLASH: Final = ord("\\")
_OPEN_ARRAY: Final = ord("[")
_CLOSE_ARRAY: Final = ord("]")
_COLON: Final = ord(":")
_BLANK: Final = ord(" ")
_FIRST_WINDOW: Final = 256  # of a search, which looks at ever more at once


class Within(NamedTuple):
    """Where in JSON text a scan begins or ends.

    Attributes:
        depth: brackets that are open.
        in_string: whether a string is.
        escaped: whether the next character is, by the backslash before it.
    """

    depth: int = 0
    in_string: bool = False
    escaped: bool = False


_OUTSIDE: Final = Within()


class Structure(NamedTuple):
    """The brackets and commas of a text that stand outside of its strings.

    Attributes:
        at: where each one stands.
        kind: what it is: `COMMA`, or above 0 for an opening and below 0 for a closing bracket.
        depth: how many brackets are open behind it, `{` and `[` alike.
        end: where in the text the scan ended.
    """

    at: NDArray[np.int64]
    kind: NDArray[np.int8]
    depth: NDArray[np.int64]
    end: Within


def scan(text: bytes, start: Within = _OUTSIDE) -> Structure:
    """Returns the structure of a text.

    >>> scan(b'{"a,[": [1, 2]}').depth.tolist()
    [1, 2, 2, 1, 0]
    """
    kinds = np.frombuffer(text.translate(_KINDS), np.int8)
    escaped = start.escaped and not text
    if start.escaped or b"\\" in text:
        kinds = kinds.copy()
        behind = _escaped(text, start.escaped)
        escaped = bool(len(behind) and behind[-1] == len(text))
        kinds[behind[:-1] if escaped else behind] = 0
    at = np.flatnonzero(kinds)
    kind = kinds[at]
    is_quote = kind == _QUOTE
    inside = np.bitwise_xor.accumulate(is_quote) ^ start.in_string
    outside = ~(is_quote | inside)
    in_string = bool(inside[-1]) if len(inside) else start.in_string
    at, kind = at[outside], kind[outside]
    depth = start.depth + np.cumsum(np.where(kind == COMMA, 0, kind), dtype=np.int64)
    open_brackets = int(depth[-1]) if len(depth) else start.depth
    return Structure(at, kind, depth, Within(open_brackets, in_string, escaped))


def _escaped(text: bytes, first: bool) -> NDArray[np.int64]:
    """Returns the positions behind backslashes that count; of a run of them every second one does."""
    backslashes = np.flatnonzero(np.frombuffer(text, np.uint8) == _BACKSLASH)
    if first and len(backslashes) and backslashes[0] == 0:
        backslashes = backslashes[1:]
    begins = np.flatnonzero(np.diff(backslashes, prepend=-2) != 1)
    in_run = np.arange(len(backslashes)) - np.repeat(begins, np.diff(begins, append=len(backslashes)))
    behind = backslashes[in_run % 2 == 0] + 1
    return np.concatenate([[0], behind]) if first else behind


class Cut(NamedTuple):
    """A text cut into records.

    Attributes:
        spans: from where to where each one stands, maybe with white space and commas around it.
        rest: where what has not ended begins.
        in_array: whether an array of records is open at the end.
        end: where the text ends.
    """

    spans: list[tuple[int, int]]
    rest: int
    in_array: bool
    end: Within

    @property
    def inside(self) -> bool:
        """Whether the text ends inside of a record."""
        return self.end.in_string or self.end.depth > self.in_array


def cut_records(text: bytes, start: Within = _OUTSIDE, in_array: bool = False, begun: int = 0) -> Cut:
    """Returns the elements of a text's arrays, and its objects that are in none.

    >>> cut_records(b'[{"a": 1}, 2] {"b": 3}{"c"').spans
    [(0, 0), (1, 9), (10, 12), (13, 22)]

    Args:
        text: some text.
        start: where it begins.
        in_array: whether an array of records is open there.
        begun: where the first record begins; below 0 if that is in what came before.
    """
    found = scan(text, start)
    walk = _Walk(found, np.frombuffer(text, np.uint8), in_array, begun)
    while walk.go_on():
        pass
    return Cut(walk.spans, walk.rest, walk.in_array, found.end._replace(depth=walk.open_at_end))


class _Walk:
    """Goes over a structure from one array, or stretch between arrays, to the next."""

    def __init__(self, found: Structure, text: NDArray[np.uint8], in_array: bool, begun: int) -> None:
        self.spans: list[tuple[int, int]] = []
        self.rest = begun
        self.in_array = in_array
        self._found = found
        self._text = text
        self._characters = text[found.at]
        self._opens: NDArray[np.bool_] | None = None
        self._next = 0  # bracket or comma to look at
        self._floor = 0  # depth that counts as none: below 0 behind closing brackets that close nothing

    @property
    def open_at_end(self) -> int:
        """How many brackets are open at the end."""
        return self._found.end.depth - self._floor

    def go_on(self) -> bool:
        """Takes what stands in this array, or between arrays; returns whether more may follow."""
        return self._through_array() if self.in_array else self._between_arrays()

    def _through_array(self) -> bool:
        at, kind, depth, _ = self._found
        end = self._first(lambda a, b: depth[a:b] == self._floor)
        inner = slice(self._next, end)
        commas = at[inner][(kind[inner] == COMMA) & (depth[inner] == self._floor + 1)].tolist()
        self.spans += zip([self.rest, *(comma + 1 for comma in commas)], commas, strict=False)
        if commas:
            self.rest = commas[-1] + 1
        if end == len(at):
            return False
        self._end_at(end)
        if self._characters[end] == _CLOSE_ARRAY:
            self.in_array = False
        else:
            self._floor -= 1
        return True

    def _between_arrays(self) -> bool:
        at, kind, depth, _ = self._found
        opens = self._opens = self._arrays_outside() if self._opens is None else self._opens
        end = self._first(
            lambda a, b: (depth[a:b] < self._floor) | (opens[a:b] & (depth[a:b] == self._floor + 1))
        )
        inner = slice(self._next, end)
        ends = (at[inner][(kind[inner] == _CLOSE) & (depth[inner] == self._floor)] + 1).tolist()
        self.spans += zip([self.rest, *ends], ends, strict=False)
        if ends:
            self.rest = ends[-1]
        if end == len(at):
            return False
        self._end_at(end)
        if opens[end]:
            self.in_array = True
        else:
            self._floor -= 1
        return True

    def _arrays_outside(self) -> NDArray[np.bool_]:
        """Returns which brackets may open an array of records: none that is the value of a key."""
        at = self._found.at
        before, further = self._text[np.maximum(at - 1, 0)], self._text[np.maximum(at - 2, 0)]
        is_value = (before == _COLON) | ((before == _BLANK) & (further == _COLON))
        opens: NDArray[np.bool_] = (self._characters == _OPEN_ARRAY) & ~is_value
        return opens

    def _end_at(self, index: int) -> None:
        """Ends the record before a bracket that belongs to none."""
        self.spans.append((self.rest, int(self._found.at[index])))
        self.rest = int(self._found.at[index]) + 1
        self._next = index + 1

    def _first(self, holds: Callable[[int, int], NDArray[np.bool_]]) -> int:
        """Returns the first index from the next one for which something holds, or how many there are."""
        start, window, size = self._next, _FIRST_WINDOW, len(self._found.at)
        while start < size:
            hits = holds(start, start + window)
            where = int(np.argmax(hits))
            if hits[where]:
                return start + where
            start, window = start + window, window * 4
        return size
