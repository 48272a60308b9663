"""Finds whole records again behind damage in JSON text, where it is certain that they are records.

A missing quote turns texts and structure into each other, a missing bracket moves all depths by one: from
there on no scan tells where a record begins. But an object can be read from its opening bracket on, and its
keys and what stands around it tell whether it is a record or a part of one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Final, NamedTuple

import msgspec

from source_formats.json_shapes import KNOWN, MANY, Keys, Shapes, decoded, one_value
from source_formats.json_structure import scan

RECORD_BYTES: Final = 1 << 20  # more than Mixpanel takes: a longer row of objects is within no record
_TRIES: Final = 1000  # opening brackets from which on no object can be read
_NEAR: Final = 256  # bytes around an object that are looked at: white space, mostly
_PIECES: Final = (1 << 13, 1 << 17)  # in which an object is looked for at first
_TOKEN: Final = 16  # characters that a piece's end may cut, so that what stands there is none
_BEGINS: Final = re.compile(rb'\{\s*(?=["}])')
_SIBLING: Final = re.compile(rb"\s*,?\s*(?=\{)")
_WITHIN: Final = re.compile(rb"(?:[:{]|[:,\[]\s*\[)$")  # a key's value, and the first of an array in a record
_FIRST_INSIDE: Final = re.compile(rb':\s*\[?\s*\{\s*("(?:[^"\\]|\\.){0,200}")\s*:')
_ARRAY_WITHIN: Final = re.compile(rb"\]\s*[^\s\[{]")
_ENDS_WITHIN: Final = re.compile(rb"[}\":.\w\-]|" + _ARRAY_WITHIN.pattern + rb"|,\s*[\[\"\d\-tfn]")
_KEY_BEHIND: Final = re.compile(rb'[^{"]{0,200}("(?:[^"\\]|\\.){0,200}")\s*:')
_FIRST_KEY: Final = re.compile(rb'[\s,]*\{\s*("(?:[^"\\]|\\.){0,200}")\s*:')
_ENDS_OUTSIDE: Final = re.compile(rb"\]?\s*\Z")
_LAST_BRACKET_LOST: Final = re.compile(rb'\s*[^\s\]},:"]\s*\Z')  # within a record two would be missing
_PRINTABLE: Final = bytes.maketrans(bytes(range(32)), b" " * 32)  # records that nothing else is wrong with
_NO_NUMBER: Final = re.compile(rb"NaN|-?Infinity")  # what some writers take for JSON
_IN_NUMBERS: Final = b"+-.0123456789eE"
_well_formed: Final = msgspec.json.Decoder(msgspec.Raw).decode
_OPENS: Final = re.compile(rb"[\s,]*\{")
_any_text: Final = json.JSONDecoder(parse_int=str, parse_float=str, strict=False).raw_decode


class Found(NamedTuple):
    """An object in a text: from where to where it stands, and its keys."""

    start: int
    stop: int
    keys: Keys


class Salvaged(NamedTuple):
    """From where to where records stand, and whether more of the text is needed to tell of others."""

    records: list[tuple[int, int]]
    is_undecided: bool


def whole_records(text: bytes, start: int, end: int, shapes: Shapes, final: bool) -> Salvaged:
    """Returns the records that begin in a stretch of a text; the last may end behind it.

    >>> whole_records(b'{"id": "1, "by": {"id": 7}}, {"id": 2}', 0, 37, Shapes(), True).records
    [(29, 38)]

    Args:
        text: JSON with something wrong in it.
        start: where what is broken begins.
        end: where the stretch ends.
        shapes: of whole records.
        final: no more text will come.
    """
    characters = _characters(text)
    if not shapes.are_known:
        shapes.learn(text[found.start : found.stop] for found in _longest_row(text))
    records: list[tuple[int, int]] = []
    behind, failures = start, 0
    parts = _parts(text, characters, start)
    for match in _BEGINS.finditer(text, start):
        at = match.start()
        if at >= end or failures > _TRIES:
            break
        if at < behind or at in parts or _WITHIN.search(text[max(0, at - _NEAR) : at].rstrip()):
            continue
        row = list(_row_of_objects(text, characters, at))
        if not row:
            failures += 1
            continue
        told = _are_records(text, row, shapes, final)
        if told is None and not final and len(text) - row[-1].stop < RECORD_BYTES:
            return Salvaged(records, True)
        behind = row[-1].stop
        if told:
            # What stands right around the damage may be the rest of the record that is damaged.
            sure = row if _begins_a_record(text, start, row, shapes) else row[1:]
            after = text[behind : behind + 2 * _NEAR].lstrip()
            sure = sure[:-1] if may_be_front(row[-1].keys, after, shapes) else sure
            records += ((found.start, found.stop) for found in sure)
    return Salvaged(records, False)


def is_cut_short(text: bytes) -> bool:
    """Returns whether a text is an object in which nothing is wrong but that its end is missing.

    What is in it is a part of that object then, however much it looks like a record.

    >>> is_cut_short(b'{"a": [{"b": 1}'), is_cut_short(b'{"a": [{"b": 1}, {"a": 2}, "c": 1')
    (True, False)
    """
    begun = text.lstrip()
    if not begun.startswith(b"{"):
        return False
    try:
        _well_formed(_NO_NUMBER.sub(b"0", begun.translate(_PRINTABLE)).rstrip(_IN_NUMBERS))
    except RecursionError:
        return True
    except msgspec.DecodeError as error:
        return "truncated" in str(error)
    return False


def is_within_another(text: bytes, stop: int) -> bool:
    """Returns whether what stands behind an object tells that it is a part of another.

    >>> is_within_another(b'{"a": 1}, "b": 2}', 8), is_within_another(b'{"a": 1}, {"a": 2}', 8)
    (True, False)
    """
    return _ENDS_WITHIN.match(text[stop : stop + _NEAR].lstrip()) is not None


def may_be_front(keys: Keys, behind: bytes, shapes: Shapes) -> bool:
    """Returns whether what stands behind an object with some keys may be the rest of it.

    >>> may_be_front(("a",), b', "b": 2}', Shapes()), may_be_front(("a",), b', "a": 2}', Shapes())
    (True, False)
    """
    if behind.startswith(b"}"):
        return True
    following = _KEY_BEHIND.match(behind)
    if following is None or (key := decoded(following[1])) in keys:
        return False
    return not (shapes.are_of_a_record(keys) and shapes.may_begin_a_record((key,)))


def _begins_a_record(text: bytes, start: int, row: list[Found], shapes: Shapes) -> bool:
    """Returns whether the first of a row begins as records do, and is not the rest of a damaged one."""
    keys = row[0].keys
    damaged = _FIRST_KEY.match(text, start)
    if damaged and decoded(damaged[1]) not in keys and row[0].start != start:
        return False
    return bool(keys) and (damaged is not None or shapes.may_begin_a_record(keys, row[-1].keys[:1]))


def _parts(text: bytes, characters: str, start: int) -> frozenset[int]:
    """Returns where structure stands in a broken object before it is broken: no record begins there."""
    begun = _OPENS.match(text, start)
    if begun is None:
        return frozenset()
    begin = begun.end() - 1
    for length in (*_PIECES, len(characters)):
        try:
            _any_text(characters[begin : begin + length])
            return frozenset()
        except RecursionError:
            return frozenset()
        except json.JSONDecodeError as error:
            broken = error.pos
            is_cut = error.msg.startswith("Unterminated") or broken + _TOKEN > length
            if not is_cut or begin + length >= len(characters):
                break
    return frozenset((begin + 1 + scan(text[begin + 1 : begin + broken]).at).tolist())


def _row_of_objects(text: bytes, characters: str, start: int) -> Iterator[Found]:
    """Yields an object and those behind it, as far as they can be read."""
    found = _object_at(characters, start)
    while found is not None:
        yield found
        following = _SIBLING.match(text, found.stop)
        found = _object_at(characters, following.end()) if following else None


@lru_cache(maxsize=1)
def _longest_row(text: bytes) -> list[Found]:
    """Returns some objects of the longest row in a text, if it has many: no part of a record is as long."""
    longest: list[Found] = []
    length = behind = failures = 0
    for match in _BEGINS.finditer(text):
        at = match.start()
        if failures > _TRIES:
            break
        if at < behind or _WITHIN.search(text[max(0, at - _NEAR) : at].rstrip()):
            continue
        row = list(_row_of_objects(text, _characters(text), at))
        behind = row[-1].stop if row else behind
        failures += not row
        if row and behind - at > length and not is_within_another(text, behind):
            longest, length = row, behind - at
    return longest[1:KNOWN] if len(longest) > MANY else []  # the first may be what damage left


def _object_at(characters: str, start: int) -> Found | None:
    """Returns the object that begins at a place, if it can be read.

    It is looked for in ever longer pieces: an error counts the lines before it in all that it is given.
    """
    for length in (*_PIECES, len(characters)):
        piece = characters[start : start + length]
        try:
            value, stop = one_value(piece)
            return Found(start, start + stop, tuple(value))
        except json.JSONDecodeError as error:
            is_cut = error.msg.startswith("Unterminated") or error.pos + _TOKEN > len(piece)
            if not is_cut or start + length >= len(characters):
                return None
        except RecursionError:
            return None
    return None


def _are_records(text: bytes, row: list[Found], shapes: Shapes, final: bool) -> bool | None:
    """Returns whether a row of objects is one of records, or None where nothing tells."""
    start, stop = row[0].start, row[-1].stop
    known = sum(shapes.are_of_a_record(found.keys) for found in row)
    if known > 1 and not _ARRAY_WITHIN.match(text[stop : stop + _NEAR].lstrip()):
        return True
    is_last = final and _LAST_BRACKET_LOST.match(text, stop) is not None
    if is_within_another(text, stop) and not is_last:
        return False  # one alone may be a part that looks like a record; behind several the next is damaged
    if known:
        return True
    if stop - start > RECORD_BYTES:
        return True
    if any(shapes.begin_a_record(found.keys) and found.keys[0] not in _firsts_inside(text) for found in row):
        return True
    after = text[stop : stop + _NEAR].lstrip()
    return True if is_last or (_ENDS_OUTSIDE.match(after) and (final or len(after) > 1)) else None


@lru_cache(maxsize=1)
def _firsts_inside(text: bytes) -> frozenset[Any]:
    """Returns the keys with which values of keys begin that are objects, or arrays of these."""
    return frozenset(map(decoded, _FIRST_INSIDE.findall(text)))


@lru_cache(maxsize=1)
def _characters(text: bytes) -> str:
    """Returns a text with one character for each byte."""
    return text.decode("latin-1")
