"""Whole events decoded by the keys they have: written again they are canonical, whatever the keys are."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixpanel_http.event_shapes import MOST_KEYS, EventShapes
from mixpanel_http.insert_ids import canonical, content_id, id_of_decoded

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**25), 10**25)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
PROPERTIES = st.dictionaries(TEXT, VALUES, max_size=8)


def line(properties: dict[str, Any], **more: Any) -> bytes:
    usual = {"time": 1700000000, "distinct_id": "u"}
    return json.dumps({"event": "e", "properties": usual | properties, **more}).encode()


@settings(max_examples=300, deadline=None)
@given(st.lists(PROPERTIES, min_size=1, max_size=4))
def test_an_event_is_written_as_its_canonical_json(events: list[dict[str, Any]]) -> None:
    lines = [line(properties) for properties in events]
    decoded = EventShapes().decode(b"\n".join(lines))

    for text, event in zip(lines, decoded or [], strict=bool(decoded)):
        assert id_of_decoded(event) == content_id(text)


def test_keys_are_learnt_as_they_come_and_leave_no_trace_in_other_events() -> None:
    shapes = EventShapes()
    first, second = line({"b": 1, "a": 2}), line({"c": {"z": 1, "y": 2}, "a": 3})

    for piece in ([first], [second, first], [first, second, first]):
        decoded = shapes.decode(b"\n".join(piece))
        assert decoded is not None
        assert [msgspec.json.encode(event, order="deterministic") for event in decoded] == [
            canonical(text) for text in piece
        ]


def test_what_rules_need_has_a_name_of_its_own() -> None:
    (event,) = EventShapes().decode(line({"$insert_id": "i", "ip": None})) or ()

    assert (event.event, event.properties.time, event.properties.distinct_id) == ("e", 1700000000, "u")
    assert (event.properties.insert_id, event.properties.ip) == ("i", None)


@pytest.mark.parametrize(
    "text",
    [
        line({f"key {i}": i for i in range(MOST_KEYS)}),
        line({'a "quoted" key': 1}),
        line({"a": 1}, more={}),
        line({"time": "1700000000"}),
        line({"distinct_id": 7}),
        b'{"event":"e","properties":{"time":1}}',
    ],
    ids=["too many keys", "an odd key", "a key beside the two", "time is text", "a numeric id", "no id"],
)
def test_an_event_of_another_kind_is_left_to_other_ways(text: bytes) -> None:
    shapes = EventShapes()

    assert shapes.decode(text) is None
    assert shapes.decode(text) is None
