"""What a map can say and nobody can mean: it would refuse every record, or do nothing without a word."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from mixpanel_http.event_rules import check_container
from mixpanel_http.verdicts import RecordRefused
from record_maps.spec import Const, Value

OWN_KEYS: Final = ("time", "distinct_id", "$insert_id")
"""Properties that a map has keys of their own for: elsewhere they would pass unread, or be overwritten."""


def mistakes(
    event: Value,
    properties: Mapping[str, Any],
    rename: Mapping[str, str],
    drop: Sequence[str],
    tags: Mapping[str, Any],
) -> Iterator[str]:
    """Yields what is wrong with a map, each with where in it."""
    yield from _constant_names(event)
    for where, names in (("properties", properties), ("tags", tags), ("rename", rename.values())):
        yield from _names(where, names)
    for name in drop:
        if name in rename and name not in rename.values():
            yield f"drop: {name} is renamed to {rename[name]}, and drop takes new names"
    for name, value in tags.items():
        yield from _too_deep(f"tags.{name}", value)


def _constant_names(event: Value) -> Iterator[str]:
    for source in event:
        if isinstance(source, Const):
            name = msgspec.json.decode(source.json)
            if not isinstance(name, str) or not name.strip():
                yield "event: a constant name must be text, and not blank"


def _names(where: str, names: Mapping[str, Any] | Any) -> Iterator[str]:
    for name in names:
        if name in OWN_KEYS:
            yield f"{where}: {name} has a key of its own, records.map.{name}"
        elif not name.strip():
            yield f"{where}: the name of a property must not be blank"


def _too_deep(where: str, value: Any) -> Iterator[str]:
    if not isinstance(value, (dict, list)):
        return
    try:
        check_container(where, value)
    except RecordRefused as refused:
        yield str(refused.message)
