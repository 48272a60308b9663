"""Makes objects among an event's properties into properties of their own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec

from record_maps.paths import Fields, opened
from record_maps.spec import Flatten

_OPENING: Final = ord("{")


def flattened(properties: Fields, how: Flatten) -> Fields:
    """Returns the properties with each object in them replaced by its own fields; lists stay.

    A property that has a name by itself wins over one that comes by it here, however they are ordered.

    >>> sorted(flattened({"a": msgspec.Raw(b'{"b":{"c":1},"d":[{}]}')}, Flatten(separator="_")))
    ['a_b_c', 'a_d']
    """
    found = dict(_leaves(properties, "", how.separator, how.depth))
    for name in found.keys() & properties.keys():
        if found[name] != properties[name]:
            found[name] = properties[name]
    return found


def _leaves(fields: Fields, prefix: str, separator: str, depth: int) -> Iterator[tuple[str, msgspec.Raw]]:
    for key, value in fields.items():
        name = prefix + key
        inner = opened(value) if depth and memoryview(value)[0] == _OPENING else None
        if inner:
            yield from _leaves(inner, f"{name}{separator}", separator, depth - 1)
        else:
            yield name, value
