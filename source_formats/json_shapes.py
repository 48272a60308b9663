"""Learns what whole records look like: their keys, and those of the objects inside of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, Final

# Objects in a row: where no record is known yet, the longest row that has them is one of records.
MANY: Final = 16
KNOWN: Final = 1000  # sets of keys that are remembered
# Returns the value that a text begins with, its numbers as texts, and where it ends.
one_value: Final = json.JSONDecoder(parse_int=str, parse_float=str).raw_decode

Keys = tuple[str, ...]


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
        return self._learnt >= MANY

    def learn(self, records: Iterable[bytes]) -> None:
        """Takes in some records that are whole."""
        for record in records:
            value = decoded(record)
            if isinstance(value, dict) and len(self._of_records) + len(self._inside) < KNOWN:
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

    def may_begin_a_record(self, keys: Keys, otherwise: Keys = ()) -> bool:
        """Returns whether records begin with the first of these keys; if none are known, as `otherwise`."""
        return keys[:1] in (self._first or {otherwise})

    def is_record(self, text: bytes) -> bool:
        """Returns whether an object is a record by its keys alone."""
        return self.are_of_a_record(keys_of(text))


def keys_of(text: bytes) -> Keys:
    """Returns an object's keys, in order; none of what is no object."""
    value = decoded(text)
    return tuple(value) if isinstance(value, dict) else ()


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


def decoded(text: bytes) -> Any:
    """Returns what a text says, or None if that is not all of it."""
    try:
        value, stop = one_value(text.decode("latin-1"))
    except (ValueError, RecursionError):
        return None
    return value if stop == len(text) else None
