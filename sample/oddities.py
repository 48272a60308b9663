"""Lines that are not as they should be, each made from a good event, with what becomes of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

Event = Mapping[str, Any]
ABSENT = object()


@dataclass(frozen=True, slots=True)
class Oddity:
    """One way to be odd.

    Attributes:
        what: what is wrong, for a reader.
        outcome: the reason it is refused for, or the name of the fix.
        line: makes the line from a good event.
    """

    what: str
    outcome: str
    line: Callable[[Event], bytes]


def _dump(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _with(name: str, value: object) -> Callable[[Event], bytes]:
    """A property set, or left out where the value is ABSENT."""

    def line(event: Event) -> bytes:
        properties = {**event["properties"], name: value}
        return _dump({**event, "properties": {k: v for k, v in properties.items() if v is not ABSENT}})

    return line


def _with_bytes(name: str, value: bytes) -> Callable[[Event], bytes]:
    """A property set to bytes that no JSON writer would write."""
    return lambda event: _with(name, "<here>")(event).replace(b'"<here>"', value)


def _with_many_properties(event: Event) -> bytes:
    properties = dict(event["properties"])
    properties |= {f"flag_{n:03}": n % 2 == 0 for n in range(260 - len(properties))}
    return _dump({**event, "properties": properties})


def _without_identity(event: Event) -> bytes:
    # On a project with Simplified ID Merge a device's id would do.
    known = {
        key: value for key, value in event["properties"].items() if key not in ("distinct_id", "$device_id")
    }
    return _dump({**event, "properties": known})


def _without_event(event: Event) -> bytes:
    return _dump({"properties": event["properties"]})


def _without_properties(event: Event) -> bytes:
    return _dump({"event": event["event"], **event["properties"]})


def _nested(levels: int) -> object:
    return {"inner": _nested(levels - 1)} if levels else 1


REFUSED = [
    Oddity("cut off in the middle", "invalid_json", lambda event: _dump(event)[:140]),
    Oddity("a line of a log", "invalid_json", lambda event: b"11:20:07 WARN sink: queue is full, retrying"),
    Oddity("written by Python's `print`", "invalid_json", lambda event: str(event).encode()),
    Oddity("two objects, no newline", "invalid_json", lambda event: _dump(event) + _dump(event)),
    Oddity("an array around the event", "not_object", lambda event: _dump([event])),
    Oddity("`null`", "not_object", lambda event: b"null"),
    Oddity("`NaN` as a price", "non_finite_number", _with_bytes("price", b"NaN")),
    Oddity("text in Latin-1, not UTF-8", "invalid_utf8", _with_bytes("city", '"Zürich"'.encode("latin-1"))),
    Oddity("half a character as an escape", "lone_surrogate", _with_bytes("mood", rb'"\ud83c"')),
    Oddity("no `event`", "missing_event", _without_event),
    Oddity("a blank `event`", "missing_event", lambda event: _dump({**event, "event": "  "})),
    Oddity("properties beside the event, not below", "missing_properties", _without_properties),
    Oddity("no `time`", "missing_time", _with("time", ABSENT)),
    Oddity("`time` as text", "bad_time", _with("time", "2024-03-04T10:15:00Z")),
    Oddity("`time` 0", "bad_time", _with("time", 0)),
    Oddity("`time` in 1970", "bad_time", _with("time", 13_046_400)),
    Oddity("`time` in 2099", "future_time", _with("time", 4_070_908_800)),
    Oddity("`time` in microseconds", "future_time", _with("time", 1_709_811_000_000_000)),
    Oddity("no `distinct_id`, nor `$device_id`", "missing_distinct_id", _without_identity),
    Oddity("an object as `distinct_id`", "bad_distinct_id", _with("distinct_id", {"id": "u-100417"})),
    Oddity('`distinct_id` "undefined"', "disallowed_id", _with("distinct_id", "undefined")),
    Oddity(
        "`distinct_id` all zeros",
        "disallowed_id",
        _with("distinct_id", str(UUID(int=0))),
    ),
    Oddity("an array of 300", "array_too_long", _with("recommended", [f"SKU-{n}" for n in range(300)])),
    Oddity("an object of 300 keys", "too_many_keys", _with("stock", {f"SKU-{n}": n for n in range(300)})),
    Oddity("nested six deep", "too_deep", _with("layout", _nested(6))),
    Oddity("260 properties", "too_many_keys", _with_many_properties),
]

FIXED = [
    Oddity("`$insert_id` with underscores", "replaced_insert_ids", _with("$insert_id", "order_2024_000117")),
    Oddity("`$insert_id` with colons", "replaced_insert_ids", _with("$insert_id", "web:8812:3")),
    Oddity("`$insert_id` of 40 characters", "replaced_insert_ids", _with("$insert_id", "a1b2c3d4e5" * 4)),
    Oddity('`$insert_id` "unknown"', "replaced_insert_ids", _with("$insert_id", "unknown")),
    Oddity("a number as `distinct_id`", "stringified_ids", _with("distinct_id", 100417)),
]
