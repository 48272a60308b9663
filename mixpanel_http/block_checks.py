"""Clears whole blocks of events by a few passes over their bytes, or names the lines that need a closer look.

Every check is conservative: what it clears cannot break the rule, what it names may. The judge of what it
names is `event_rules.check_event`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, TypeAlias, TypeGuard

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mixpanel_http import limits
from mixpanel_http.event_rules import SURELY_FEW, check_container, is_time_in_range, is_valid_insert_id
from mixpanel_http.verdicts import RecordRefused

MaybeText: TypeAlias = str | msgspec.UnsetType
Offsets: TypeAlias = npt.NDArray[np.int64]

# 250 keys of `"":0,` are 1,250 bytes, 250 elements of `0,` are 500, and the rest of an event takes some too:
# a shorter line cannot break those limits.
_REST: Final = len('{"event":"e","properties":{"time":1e9,"distinct_id":"",')
_SHORT_FOR_KEYS: Final = 5 * SURELY_FEW
_SHORT_FOR_ARRAYS: Final = 2 * SURELY_FEW + _REST
# The record and its properties are two containers; each further one is at most one level.
_FEW_CONTAINERS: Final = 2 + limits.MAX_NESTING
# All disallowed ids but one are this short; the long one has no letters: only short ids need lower-casing.
_LONGEST_SHORT_ID: Final = max(len(i) for i in limits.DISALLOWED_IDS if i.islower())
_LONG_DISALLOWED: Final = next(i for i in limits.DISALLOWED_IDS if len(i) > _LONGEST_SHORT_ID)
_ID_CHARACTERS: Final = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-"
_NEWLINE: Final = ord("\n")
_OPENS_OBJECT: Final = ord("{")
_CLOSES_OBJECT: Final = ord("}")
_OPENINGS: Final = (b'"properties":{', b'"properties": {')
_ZERO: Final = np.zeros(1, np.int64)
_CASE_BIT: Final = 0x20
_decode: Final = msgspec.json.Decoder().decode


def is_utf8(data: bytes) -> bool:
    """Returns whether bytes are valid UTF-8.

    Arrow's validator takes a tenth of the time of `bytes.decode`, which has to build the text.

    >>> is_utf8("naïve".encode()), is_utf8("naïve".encode("latin-1"))
    (True, False)
    """
    if data.isascii():
        return True
    if len(data) >= 1 << 31:  # beyond Arrow's 32-bit offsets
        return _is_decodable(data)
    offsets = pa.py_buffer(struct.pack("<ii", 0, len(data)))
    try:
        pa.Array.from_buffers(pa.string(), 1, [None, offsets, pa.py_buffer(data)]).validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _is_decodable(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def bad_names(names: Sequence[str]) -> Iterable[int]:
    """Returns the indices of blank names and identity verbs."""
    different = set(names)
    if limits.IDENTITY_EVENTS.isdisjoint(different) and all(map(str.strip, different)):
        return ()
    return [i for i, name in enumerate(names) if name in limits.IDENTITY_EVENTS or not name.strip()]


def bad_times(times: Sequence[float], now_s: float) -> Iterable[int]:
    """Returns the indices of times before 1971 or too far ahead."""
    if not times or (min(times) >= limits.MIN_TIME_S and max(times) <= now_s + limits.MAX_FUTURE_S):
        return ()
    return [i for i, time in enumerate(times) if not is_time_in_range(time, now_s)]


def disallowed_ids(ids: Sequence[str]) -> Iterable[int]:
    """Returns the indices of ids that Mixpanel takes for nobody's."""
    short = [i.lower() for i in ids if len(i) <= _LONGEST_SHORT_ID]
    if limits.DISALLOWED_IDS.isdisjoint(ids) and limits.DISALLOWED_IDS.isdisjoint(short):
        return ()
    return [i for i, value in enumerate(ids) if value.lower() in limits.DISALLOWED_IDS]


def bad_insert_ids(ids: Sequence[MaybeText]) -> Iterable[int]:
    """Returns the indices of ids that are there and that Mixpanel does not take."""
    given = [i for i in ids if i is not msgspec.UNSET] if msgspec.UNSET in ids else ids
    if not given or _are_plain_ids(given):  # type: ignore[arg-type]
        return ()
    return [i for i, value in enumerate(ids) if _is_text(value) and not is_valid_insert_id(value)]


def _is_text(value: MaybeText) -> TypeGuard[str]:
    return value is not msgspec.UNSET


def _are_plain_ids(ids: Sequence[str]) -> bool:
    lengths = set(map(len, ids))
    joined = "".join(ids)
    return (
        max(lengths) <= limits.MAX_INSERT_ID_BYTES
        and min(lengths) > _LONGEST_SHORT_ID
        and joined.isascii()
        and not joined.encode().translate(None, _ID_CHARACTERS)
        and _LONG_DISALLOWED not in joined
    )


@dataclass(frozen=True)
class Layout:
    """Where the lines of a piece of NDJSON and the brackets in them are, found without decoding anything.

    Attributes:
        piece: the bytes, without a final newline.
        starts: offset of each line.
        ends: offset behind each line, before its newline.
    """

    piece: bytes
    starts: Offsets
    ends: Offsets

    def line(self, index: int) -> bytes:
        """Returns one line."""
        return self.piece[self.starts[index] : self.ends[index]]

    @cached_property
    def _brackets(self) -> tuple[Offsets, Offsets, Offsets]:
        """Offsets of all `{` and `[`, also in strings; how many stand before each line's end; and in it."""
        data = np.frombuffer(self.piece, np.uint8)
        brackets = np.flatnonzero((data | _CASE_BIT) == _OPENS_OBJECT)  # the bit turns [ into {
        behind = np.searchsorted(brackets, self.ends)
        return brackets, behind, np.diff(behind, prepend=0)

    def crowded(self) -> Iterator[int]:
        """Yields the lines that, if they are events, break a limit on keys, elements, nesting or length."""
        _, _, counts = self._brackets
        sizes = self.ends - self.starts
        maybe = (counts > _FEW_CONTAINERS) | (sizes >= _SHORT_FOR_KEYS)
        maybe |= (counts > 2) & (sizes >= _SHORT_FOR_ARRAYS)
        for index in np.flatnonzero(maybe).tolist():
            if _is_crowded(self.line(index), int(counts[index])):
                yield index

    def closings(self, lines: Sequence[int]) -> tuple[list[int], list[int]]:
        """Returns the offsets of the `}` of some events' properties, and the lines where that is not plain.

        For events that have no other keys than `event` and `properties`: where such a line ends with two
        braces, the first of them ends the properties, as the name is no object.
        """
        chosen = np.asarray(lines)
        closing = self.ends[chosen] - 2
        plain = np.frombuffer(self.piece, np.uint8)[closing] == _CLOSES_OBJECT
        return closing.tolist(), [] if plain.all() else chosen[~plain].tolist()

    def openings(self, lines: Sequence[int]) -> tuple[list[int], list[int]]:
        """Returns the offsets behind the `{` of some events' properties, and where that is not plain.

        The second bracket of an event is that brace if `"properties":` stands before it. With two brackets in
        all there can be no other such key, however spelled, as each would hold an object. With more, no
        backslash may make the key part of a string, and no second key of that name may come later.
        """
        brackets, behind, counts = self._brackets
        chosen = np.asarray(lines)
        opening = brackets[behind[chosen] - counts[chosen] + 1] + 1
        plain = self._follows(opening, _OPENINGS[0])
        if not plain.all():
            plain |= self._follows(opening, _OPENINGS[1])
        for i in np.flatnonzero(plain & (counts[chosen] > 2)).tolist():
            plain[i] = _has_one_key(self.line(lines[i]), int(opening[i] - self.starts[lines[i]]))
        return opening.tolist(), chosen[~plain].tolist()

    def _follows(self, offsets: Offsets, text: bytes) -> npt.NDArray[np.bool_]:
        """Returns whether a text ends at each of some offsets, of which none is smaller than the text."""
        size = len(text)
        every: npt.NDArray[np.bytes_] = np.ndarray(
            (len(self.piece) - size + 1,), f"S{size}", self.piece, strides=(1,)
        )
        found: npt.NDArray[np.bool_] = every[np.maximum(offsets - size, 0)] == text
        return found


def layout_of(piece: bytes) -> Layout | None:
    """Returns where a piece's lines are, or None where a line does not go from `{` to `}`.

    Args:
        piece: NDJSON without a final newline.
    """
    if piece[:1] != b"{" or piece[-1:] != b"}":
        return None
    data = np.frombuffer(piece, np.uint8)
    newlines = np.flatnonzero(data == _NEWLINE)
    if not ((data[newlines - 1] == _CLOSES_OBJECT).all() and (data[newlines + 1] == _OPENS_OBJECT).all()):
        return None
    return Layout(piece, np.concatenate((_ZERO, newlines + 1)), np.append(newlines, len(piece)))


def _has_one_key(line: bytes, opening: int) -> bool:
    """Returns whether the `"properties":{` that ends at `opening` is certainly the only key of its name."""
    return line.find(b"\\", 0, opening) < 0 and line.count(b'"properties"') == 1 and b"\\u00" not in line


def _is_crowded(line: bytes, brackets: int) -> bool:
    """Returns whether an event with so many opening brackets breaks a limit, or may be too long."""
    if len(line) >= limits.MAX_RECORD_BYTES // 2:
        return True
    if len(line) >= _SHORT_FOR_ARRAYS and line.count(b",") >= SURELY_FEW:
        return _breaks_limits(line)
    # Of objects that follow each other one stands for all: none of them nests the others.
    crowd = brackets > _FEW_CONTAINERS and brackets - line.count(b"},{") > _FEW_CONTAINERS
    return crowd and _breaks_limits(line)


def _breaks_limits(line: bytes) -> bool:
    """Returns whether a look at all values finds too many or too deep ones, or is not possible."""
    try:
        properties = _decode(line)["properties"]
        for name, value in properties.items():
            if isinstance(value, (dict, list)):
                check_container(name, value)
    except (msgspec.ValidationError, RecordRefused, RecursionError):
        return True
    return len(properties) >= SURELY_FEW
