"""Makes one update of several that follow each other on one profile, where that leaves the same profile.

Two updates become one only if one operation says what both say, whatever the profile is before: `$set` on
`$set`, `$union` on `$union`, anything before a `$delete`. What needs two operations stays two. A property
test holds these rules to what the operations do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from mixpanel_http import limits
from mixpanel_http.profile_rules import OPERATIONS
from mixpanel_http.record_syntax import raw_object

COLLAPSED: Final = "collapsed_updates"
_LARGEST: Final = 1 << 53  # of whole numbers that everybody adds exactly

_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder().decode
_raw_list: Final = msgspec.json.Decoder(list[msgspec.Raw]).decode
Raws = dict[str, msgspec.Raw]


@dataclass(frozen=True, slots=True)
class _Update:
    """An update, taken apart: its operation, that one's value, and what stands beside it."""

    operation: str
    value: msgspec.Raw
    beside: Raws

    @property
    def line(self) -> bytes:
        return _encode({**self.beside, self.operation: self.value})


def collapse(lines: Sequence[bytes], keys: Sequence[int]) -> tuple[list[bytes], list[int]]:
    """Returns fewer updates that do the same, and for each line which of them it is a part of.

    >>> collapse([b'{"$distinct_id":"u","$set":{"a":1}}', b'{"$distinct_id":"u","$set":{"a":2}}'], [7, 7])
    ([b'{"$distinct_id":"u","$set":{"a":2}}'], [0, 0])

    Args:
        lines: updates as they are sent, those of one profile in order.
        keys: of their profiles.
    """
    merged: list[bytes] = []
    part_of: list[int] = []
    open_at: dict[int, int] = {}  # by profile, the update that the next one may become a part of
    for line, key in zip(lines, keys, strict=True):
        at = open_at.get(key)
        both = _both(merged[at], line) if at is not None else None
        if at is None or both is None:
            at = open_at[key] = len(merged)
            merged.append(line)
        else:
            merged[at] = both
        part_of.append(at)
    return merged, part_of


def _both(first: bytes, then: bytes) -> bytes | None:
    """Returns one update that does what two do, or None where there is none."""
    one, other = _taken_apart(first), _taken_apart(then)
    if one is None or other is None or not _beside_alike(one.beside, other.beside):
        return None
    if other.operation == "$delete":
        return other.line
    merge = _MERGES.get((one.operation, other.operation))
    try:
        merged = merge(one.value, other.value) if merge else None
    except _Unclear:
        return None
    if merged is None:
        return None
    operation, value = merged
    made = _Update(operation, value, other.beside).line
    return made if len(made) < limits.MAX_PROFILE_VALUE_BYTES else None


def _taken_apart(line: bytes) -> _Update | None:
    record = raw_object(line)
    found = [name for name in record if name in OPERATIONS]
    if len(found) != 1:
        return None
    return _Update(found[0], record.pop(found[0]), record)


def _beside_alike(one: Mapping[str, msgspec.Raw], other: Mapping[str, msgspec.Raw]) -> bool:
    """Returns whether two updates say the same beside their operations; of their times the later counts."""
    return {name: bytes(value) for name, value in one.items() if name != "$time"} == {
        name: bytes(value) for name, value in other.items() if name != "$time"
    }


Merged = tuple[str, msgspec.Raw] | None
"""An operation and its value; None where two updates are not one."""

Merge = Callable[[msgspec.Raw, msgspec.Raw], Merged]


class _Unclear(Exception):
    """What two updates do together cannot be told."""


def _objects(*values: msgspec.Raw) -> Iterator[Raws]:
    """Yields the properties of values.

    Raises:
        _Unclear: if a name among them is so long that Mixpanel cuts it, and could take two for one.
    """
    for value in values:
        properties = raw_object(value)
        if any(len(name) > limits.MAX_STRING for name in properties):
            raise _Unclear
        yield properties


def _made(operation: str, properties: Mapping[str, Any]) -> Merged:
    if len(properties) > limits.MAX_PROFILE_PROPERTIES:
        return None
    return operation, msgspec.Raw(_encode(properties))


def _set_set(one: msgspec.Raw, other: msgspec.Raw) -> Merged:
    first, then = _objects(one, other)
    return _made("$set", {**first, **then})


def _once_once(one: msgspec.Raw, other: msgspec.Raw) -> Merged:
    first, then = _objects(one, other)
    return _made("$set_once", {**then, **first})


def _set_once_after_set(one: msgspec.Raw, other: msgspec.Raw) -> Merged:
    first, then = _objects(one, other)
    return _made("$set", first) if then.keys() <= first.keys() else None


def _set_after_once(one: msgspec.Raw, other: msgspec.Raw) -> Merged:
    first, then = _objects(one, other)
    return _made("$set", then) if first.keys() <= then.keys() else None


def _unset_unset(one: msgspec.Raw, other: msgspec.Raw) -> Merged:
    names = list(dict.fromkeys([*_decode(one), *_decode(other)]))
    return ("$unset", msgspec.Raw(_encode(names))) if len(names) <= limits.MAX_PROFILE_PROPERTIES else None


def _unset_after(one: msgspec.Raw, other: msgspec.Raw) -> Merged:
    (first,) = _objects(one)
    return ("$unset", other) if first.keys() <= set(_decode(other)) else None


def _set_after_unset(one: msgspec.Raw, other: msgspec.Raw) -> Merged:
    (then,) = _objects(other)
    return ("$set", other) if set(_decode(one)) <= then.keys() else None


def _union_union(one: msgspec.Raw, other: msgspec.Raw) -> Merged:
    first, then = _objects(one, other)
    joined: dict[str, Any] = {name: _items(value) for name, value in first.items()}
    for name, value in then.items():
        joined[name] = [*joined.get(name, ()), *_items(value)]
    return _made("$union", joined)


def _items(value: msgspec.Raw) -> list[msgspec.Raw]:
    return _raw_list(value) if bytes(value)[:1] == b"[" else [value]


def _add_add(one: msgspec.Raw, other: msgspec.Raw) -> Merged:
    first, then = (
        {name: _decode(amount) for name, amount in properties.items()} for properties in _objects(one, other)
    )
    amounts = {**first, **{name: first.get(name, 0) + amount for name, amount in then.items()}}
    whole = (*first.values(), *then.values(), *amounts.values())
    if not all(isinstance(amount, int) and abs(amount) < _LARGEST for amount in whole):
        return None  # fractions add up to something else in another order
    return _made("$add", amounts)


def _apart(operation: str) -> Merge:
    """Returns the merge of two operations that have one value for each property."""

    def merged(one: msgspec.Raw, other: msgspec.Raw) -> Merged:
        first, then = _objects(one, other)
        return _made(operation, {**first, **then}) if first.keys().isdisjoint(then) else None

    return merged


_MERGES: Final[Mapping[tuple[str, str], Merge]] = {
    ("$set", "$set"): _set_set,
    ("$set_once", "$set_once"): _once_once,
    ("$set", "$set_once"): _set_once_after_set,
    ("$set_once", "$set"): _set_after_once,
    ("$unset", "$unset"): _unset_unset,
    ("$set", "$unset"): _unset_after,
    ("$set_once", "$unset"): _unset_after,
    ("$union", "$unset"): _unset_after,
    ("$unset", "$set"): _set_after_unset,
    ("$union", "$union"): _union_union,
    ("$add", "$add"): _add_add,
    ("$append", "$append"): _apart("$append"),
    ("$remove", "$remove"): _apart("$remove"),
}
