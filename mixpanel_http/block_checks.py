"""Clears whole blocks of events by a few passes over their bytes, or names the lines that need a closer look.

Every check is conservative: what it clears cannot break the rule, what it names may. The judge of what it
names is `event_rules.check_event`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Final, TypeAlias, TypeGuard

import msgspec
import numpy as np
import pyarrow as pa

from mixpanel_http import limits
from mixpanel_http.event_rules import check_container, is_time_in_range, is_valid_insert_id
from mixpanel_http.verdicts import RecordRefused

MaybeText: TypeAlias = str | msgspec.UnsetType

# 250 keys of `"":0,` are 1,250 bytes, 250 elements of `0,` are 500: a shorter line cannot break those limits.
# 250 and not 255, because stamping adds up to two properties.
_FEW: Final = limits.PROPERTIES_LIMIT - 5
_SHORT_FOR_KEYS: Final = 5 * _FEW
_SHORT_FOR_ARRAYS: Final = 2 * _FEW
# The record and its properties are two containers; each further one is at most one level.
_FEW_CONTAINERS: Final = 2 + limits.MAX_NESTING
# All disallowed ids but one are this short; the long one has no letters: only short ids need lower-casing.
_LONGEST_SHORT_ID: Final = max(len(i) for i in limits.DISALLOWED_IDS if i.islower())
_LONG_DISALLOWED: Final = next(i for i in limits.DISALLOWED_IDS if len(i) > _LONGEST_SHORT_ID)
_ID_CHARACTERS: Final = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-"
_NEWLINE: Final = ord("\n")
_OPENS_OBJECT: Final = ord("{")
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


def nested_lines(body: bytes) -> tuple[set[int], set[int]]:
    """Returns the lines with more or less than two opening brackets, and those that may break a limit.

    An event has two opening brackets, its own and its properties'; with just two it nests nothing, and none
    stands in a string. The limits are those on keys, elements, nesting and length.

    Args:
        body: NDJSON without a final newline.
    """
    data = np.frombuffer(body, np.uint8)
    newlines = np.flatnonzero(data == _NEWLINE)
    brackets = np.flatnonzero((data | _CASE_BIT) == _OPENS_OBJECT)  # the bit turns [ into {
    counts = np.bincount(np.searchsorted(newlines, brackets), minlength=len(newlines) + 1)
    sizes = np.diff(newlines, prepend=-1, append=len(body))
    nests = counts != 2
    crowded = (counts > _FEW_CONTAINERS) | (sizes >= _SHORT_FOR_KEYS) | (nests & (sizes >= _SHORT_FOR_ARRAYS))
    return set(np.flatnonzero(nests).tolist()), set(np.flatnonzero(crowded).tolist())


def crowded_lines(lines: Sequence[bytes], among: Iterable[int]) -> set[int]:
    """Returns which of some events have too many keys or elements, nest too deep, or may be too long."""
    return {i for i in among if _is_crowded(lines[i])}


def _is_crowded(line: bytes) -> bool:
    size = len(line)
    if size >= limits.MAX_RECORD_BYTES // 2:
        return True
    arrays = line.count(b"[")
    if size >= (_SHORT_FOR_ARRAYS if arrays else _SHORT_FOR_KEYS) and line.count(b",") >= _FEW:
        return _breaks_limits(line)
    # Of objects that follow each other one stands for all: none of them nests the others.
    containers = line.count(b"{") + arrays
    crowd = containers > _FEW_CONTAINERS and containers - line.count(b"},{") > _FEW_CONTAINERS
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
    return len(properties) >= _FEW
