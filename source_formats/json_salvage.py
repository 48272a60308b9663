"""Finds whole records again behind damage in JSON text, where it is certain that they are records.

A missing quote turns texts and structure into each other, a missing bracket moves all depths by one: from
there on no scan tells where a record begins. But an object can be read from its opening bracket on, and its
keys and what stands around it tell whether it is a record or a part of one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any, Final, NamedTuple

RECORD_BYTES: Final = 1 << 20  # more than Mixpanel takes: a longer row of objects is within no record
_TRIES: Final = 1000  # opening brackets from which on no object can be read
_NEAR: Final = 256  # bytes around an object that are looked at: white space, mostly
_PIECES: Final = (1 << 13, 1 << 17)  # in which an object is looked for at first
_TOKEN: Final = 16  # characters that a piece's end may cut, so that what stands there is none
_MANY: Final = (
    16  # objects in a row: where no record is known yet, the longest row that has them is one of records
)
_KNOWN: Final = 1000  # sets of keys that are remembered
_BEGINS: Final = re.compile(rb'\{\s*(?=["}])')
_SIBLING: Final = re.compile(rb"\s*,?\s*(?=\{)")
_WITHIN: Final = re.compile(rb"(?:[:{]|[:,\[]\s*\[)$")  # a key's value, and the first of an array in a record
_FIRST_INSIDE: Final = re.compile(rb':\s*\[?\s*\{\s*("(?:[^"\\]|\\.){0,200}")\s*:')
_ENDS_WITHIN: Final = re.compile(rb"\}|\]\s*(?:[^\s\[{,]|,\s*[^\s\[{])|,\s*[\"\d\-tfn]")
_ENDS_OUTSIDE: Final = re.compile(rb"\]?\s*\Z")
_one_value: Final = json.JSONDecoder(parse_int=str, parse_float=str).raw_decode

Keys = tuple[str, ...]


class Found(NamedTuple):
    """An object in a text: from where to where it stands, and its keys."""

    start: int
    stop: int
    keys: Keys


class Salvaged(NamedTuple):
    """From where to where records stand, and whether more of the text is needed to tell of others."""

    records: list[tuple[int, int]]
    is_undecided: bool


class Shapes:
    """What whole records look like: their keys, and those of the objects inside of them."""

    def __init__(self) -> None:
        self._learnt = 0
        self._of_records: set[Keys] = set()
        self._inside: set[Keys] = set()
        self._first: set[Keys] = set()
        self._first_inside: set[Keys] = set()

    @property
    def are_known(self) -> bool:
        """Whether many records were learnt of; one alone may be what damage left of it."""
        return self._learnt >= _MANY

    def learn(self, records: Iterable[bytes]) -> None:
        """Takes in some records that are whole."""
        for record in records:
            value = _decoded(record)
            if isinstance(value, dict) and len(self._of_records) + len(self._inside) < _KNOWN:
                inside = set(_keys_inside(value))
                self._learnt += 1
                self._of_records.add(tuple(value))
                self._first.add(tuple(value)[:1])
                self._inside |= inside
                self._first_inside.update(keys[:1] for keys in inside)

    def are_of_a_record(self, keys: Keys) -> bool:
        """Returns whether records have these keys, and nothing inside of them has."""
        return keys in self._of_records and keys not in self._inside

    def begin_a_record(self, keys: Keys) -> bool:
        """Returns whether records begin with the first of these keys, and no part of one that is known."""
        return bool(keys) and keys[:1] in self._first and keys[:1] not in self._first_inside

    def may_begin_a_record(self, keys: Keys) -> bool:
        """Returns whether records begin with the first of these keys, as far as any are known."""
        return not self._first or keys[:1] in self._first

    def is_record(self, text: bytes) -> bool:
        """Returns whether an object is a record by its keys alone."""
        return self.are_of_a_record(tuple(_decoded(text) or ()))


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
    for match in _BEGINS.finditer(text, start):
        at = match.start()
        if at >= end or failures > _TRIES:
            break
        if at < behind or _WITHIN.search(text[max(0, at - _NEAR) : at].rstrip()):
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
            # What stands right behind the damage may be the rest of the record that is damaged.
            sure = row if shapes.may_begin_a_record(row[0].keys) else row[1:]
            records += ((found.start, found.stop) for found in sure)
    return Salvaged(records, False)


def is_within_another(text: bytes, stop: int) -> bool:
    """Returns whether what stands behind an object tells that it is a part of another.

    >>> is_within_another(b'{"a": 1}, "b": 2}', 8), is_within_another(b'{"a": 1}, {"a": 2}', 8)
    (True, False)
    """
    return _ENDS_WITHIN.match(text[stop : stop + _NEAR].lstrip()) is not None


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
    return longest[1:_KNOWN] if len(longest) > _MANY else []  # the first may be what damage left


def _object_at(characters: str, start: int) -> Found | None:
    """Returns the object that begins at a place, if it can be read.

    It is looked for in ever longer pieces: an error counts the lines before it in all that it is given.
    """
    for length in (*_PIECES, len(characters)):
        piece = characters[start : start + length]
        try:
            value, stop = _one_value(piece)
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
    if any(shapes.are_of_a_record(found.keys) for found in row):
        return True
    start, stop = row[0].start, row[-1].stop
    if is_within_another(text, stop):
        return False
    if stop - start > RECORD_BYTES:
        return True
    if any(shapes.begin_a_record(found.keys) and found.keys[0] not in _firsts_inside(text) for found in row):
        return True
    after = text[stop : stop + _NEAR].lstrip()
    return True if _ENDS_OUTSIDE.match(after) and (final or len(after) > 1) else None


def _keys_inside(value: Any) -> Iterator[Keys]:
    """Yields the keys of the objects inside of a value, however deep."""
    waiting = [value]
    while waiting:
        holder = waiting.pop()
        for inner in holder.values() if isinstance(holder, dict) else holder:
            if isinstance(inner, dict):
                yield tuple(inner)
            if isinstance(inner, (dict, list)):
                waiting.append(inner)


def _decoded(text: bytes) -> Any:
    """Returns what a text says, or None if that is not all of it."""
    try:
        value, stop = _one_value(text.decode("latin-1"))
    except (ValueError, RecursionError):
        return None
    return value if stop == len(text) else None


@lru_cache(maxsize=1)
def _firsts_inside(text: bytes) -> frozenset[Any]:
    """Returns the keys with which values of keys begin that are objects, or arrays of these."""
    return frozenset(map(_decoded, _FIRST_INSIDE.findall(text)))


@lru_cache(maxsize=1)
def _characters(text: bytes) -> str:
    """Returns a text with one character for each byte."""
    return text.decode("latin-1")
