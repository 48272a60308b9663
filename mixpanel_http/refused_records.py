"""Which records of a request an answer refuses: by index, `$insert_id` or both, and only where it adds up."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeGuard

import msgspec

MESSAGE_LENGTH: Final = 500  # of the service's words no more is kept

SentIds = Callable[[], Sequence[str | None]]
"""Returns the `$insert_id` of each record of a request; asked only where an answer names ids."""


@dataclass(frozen=True, slots=True)
class RefusedRecord:
    """One refused record: its 0-based index in the request, and what the service said of it."""

    index: int
    field: str | None
    message: str


def no_ids() -> Sequence[str | None]:
    """Returns no ids: entries that name an id and no index cannot be matched."""
    return ()


class _Properties(msgspec.Struct, gc=False):
    insert_id: str | msgspec.UnsetType = msgspec.field(name="$insert_id", default=msgspec.UNSET)


class _Event(msgspec.Struct, gc=False):
    properties: _Properties


_events: Final = msgspec.json.Decoder(_Event)


def ids_of(body: bytes) -> list[str | None]:
    r"""Returns the `$insert_id` of each event of an NDJSON body, or None where there is none.

    >>> ids_of(b'{"properties":{"$insert_id":"a"}}\n{"properties":{}}')
    ['a', None]
    """
    found = (event.properties.insert_id for event in _events.decode_lines(body))
    return [i if isinstance(i, str) else None for i in found]


def refused_records(content: Mapping[str, Any] | None, sent: int, ids: SentIds) -> tuple[RefusedRecord, ...]:
    """Returns the refused records, one each, or nothing where list and numbers do not fit what was sent."""
    listed = content.get("failed_records") if content else None
    imported = content.get("num_records_imported") if content else None
    if not isinstance(listed, list) or not all(isinstance(entry, dict) for entry in listed):
        return ()
    places = _Places(sent, ids)
    found: dict[int, RefusedRecord] = {}
    for entry, index in places.of(listed):
        if index is None:
            return ()
        found.setdefault(index, _refused_record(entry, index))
    adds_up = is_count(imported) and imported == sent - len(found)
    return tuple(found[index] for index in sorted(found)) if adds_up else ()


def _refused_record(entry: Mapping[str, Any], index: int) -> RefusedRecord:
    field, words = entry.get("field"), entry.get("message")
    return RefusedRecord(
        index,
        field[:MESSAGE_LENGTH] if isinstance(field, str) else None,
        str(words if words is not None else "")[:MESSAGE_LENGTH],
    )


class _Places:
    """Finds the records that a list of refusals means, by index, by id, or by both where both are there."""

    def __init__(self, sent: int, ids: SentIds) -> None:
        self._sent = sent
        self._ask = ids
        self._ids: Sequence[str | None] | None = None
        self._by_id: dict[str, list[int]] = {}
        self._taken: defaultdict[str, int] = defaultdict(int)

    def of(self, listed: Sequence[Mapping[str, Any]]) -> Iterator[tuple[Mapping[str, Any], int | None]]:
        """Yields each entry with its record's index, or None where it contradicts itself or what was sent.

        An entry beyond the request with no id of it is left out: it is about no record of ours, and the
        numbers tell whether the others are all.
        """
        for entry in listed:
            index = entry.get("index")
            inside = index if is_count(index) and index < self._sent else None
            named = entry.get("insert_id", entry.get("$insert_id"))
            if not isinstance(named, str) or not named:
                if inside is not None:
                    yield entry, inside
                elif not is_count(index):
                    yield entry, None
            elif inside is not None and self._id_at(inside) in (named, None):
                yield entry, inside
            elif self._positions(named):
                yield entry, self._next_of(named)
            elif inside is not None:
                yield entry, None

    def _id_at(self, index: int) -> str | None:
        ids = self._all()
        return ids[index] if index < len(ids) else None

    def _positions(self, named: str) -> Sequence[int]:
        self._all()
        return self._by_id.get(named, ())

    def _next_of(self, named: str) -> int:
        """Returns the next record with an id: identical rows share one and are refused in turn."""
        positions = self._positions(named)
        position = positions[self._taken[named] % len(positions)]
        self._taken[named] += 1
        return position

    def _all(self) -> Sequence[str | None]:
        if self._ids is None:
            self._ids = self._ask()
            for position, value in enumerate(self._ids):
                if value is not None:
                    self._by_id.setdefault(value, []).append(position)
        return self._ids


def is_count(value: object) -> TypeGuard[int]:
    """Returns whether a value is a whole number that counts something."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
