"""Finds what a map takes from where no record has anything: mostly a name that is misspelt."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from pipelines.config_maps import ALL, MapConfig
from record_maps.paths import Fields, Row
from record_maps.properties import getter
from record_maps.spec import Spread, Value, parse_property, parse_value

IsThere = Callable[[Row], bool]


class AbsentSources:
    """The sources that a map names itself and that no record has had so far."""

    def __init__(self, declared: MapConfig) -> None:
        """Takes a map; what its dialect names is not looked for."""
        self._left = {key: (given, _is_there(parsed)) for key, given, parsed in _named(declared)}

    def see(self, fields: Fields) -> None:
        """Takes note of what one record has."""
        row = Row(fields)
        for key in [key for key, (_, is_there) in self._left.items() if is_there(row)]:
            del self._left[key]

    def told(self) -> Iterator[str]:
        """Yields a line for each source that none has had."""
        for key, (given, _) in self._left.items():
            names = " or ".join(map(str, given)) if isinstance(given, list) else given
            yield f"records.map.{key}: none of these records has {names}"


def _named(declared: MapConfig) -> Iterator[tuple[str, Any, Value | Spread]]:
    time = declared.time.from_ if declared.time is not None else None
    own = (
        *(("event", declared.event), ("time", time)),
        *(("distinct_id", declared.distinct_id), ("$insert_id", declared.insert_id)),
    )
    yield from ((key, given, parse_value(given)) for key, given in own if given is not None)
    if declared.properties != ALL:
        for name, given in declared.properties.items():
            yield f"properties.{name}", given, parse_property(name, given)


def _is_there(source: Value | Spread) -> IsThere:
    if isinstance(source, Spread):
        return lambda row: not source.path or row.object_at(source.path) is not None
    get = getter(source)
    return lambda row: get(row) is not None
