"""A map over a few lines, and the record that one makes of a row."""

import json
from typing import Any

from record_maps.mapper import MappedLines, Mapper
from record_maps.spec import MapSpec, TimeSpec, parse_value

NOW = 1_750_000_000.0
FLAT = MapSpec(
    event=parse_value("e"),
    time=TimeSpec(parse_value("t")),
    distinct_id=parse_value(["u", "d"]),
    insert_id=parse_value("i"),
)


def mapped(spec: MapSpec, *lines: bytes | dict[str, Any]) -> MappedLines:
    """Returns what a map makes of some lines."""
    found = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
    return Mapper(spec).map_lines(found)


def event_of(spec: MapSpec, record: dict[str, Any]) -> dict[str, Any]:
    """Returns the one event that a map makes of a record."""
    (line,) = mapped(spec, record).lines
    made: dict[str, Any] = json.loads(line)
    return made


def row(**fields: Any) -> dict[str, Any]:
    """Returns a row of the table that `FLAT` maps."""
    return {"e": "Order", "t": 1_709_627_400, "u": "u-1", **fields}
