"""One update in place of several: held to what the operations do, and to the order of each profile."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixpanel_emulator.profile_ops import apply_operation
from mixpanel_http.collapsing import collapse
from mixpanel_http.profile_rules import ProfileRules, check_update
from mixpanel_http.verdicts import RecordRefused

BARE = ProfileRules(default_ip=False, ignore_time=False)
_names = st.sampled_from(["a", "b", "c", "x" * 256, "x" * 257])
_items = st.integers(-3, 3) | st.sampled_from(["p", "q", "y" * 256, "y" * 300]) | st.none()
_amounts = st.integers(-5, 5) | st.sampled_from([0.1, 1e300, 1 << 53])
_any = _items | st.lists(_items, max_size=3)
_operations = st.one_of(
    st.tuples(st.just("$set"), st.dictionaries(_names, _any, max_size=3)),
    st.tuples(st.just("$set"), st.dictionaries(_names, _any, max_size=3)),
    st.tuples(st.just("$set_once"), st.dictionaries(_names, _any, max_size=3)),
    st.tuples(st.just("$unset"), st.lists(_names, min_size=1, max_size=3)),
    st.tuples(
        st.just("$union"),
        st.dictionaries(_names, st.lists(_items, min_size=1, max_size=3) | _items, min_size=1, max_size=3),
    ),
    st.tuples(
        st.just("$add"),
        st.dictionaries(_names, st.integers(-5, 5) | st.sampled_from([0.1, 1e300]), max_size=3),
    ),
    st.tuples(st.just("$append"), st.dictionaries(_names, _any, max_size=3)),
    st.tuples(st.just("$remove"), st.dictionaries(_names, _items, max_size=3)),
    st.tuples(st.just("$delete"), st.just("")),
)
_profiles = st.dictionaries(st.sampled_from(["a", "b", "c", "x" * 255]), _any, max_size=4)
_updates = st.lists(
    st.tuples(st.sampled_from(["u", "v"]), _operations, st.sampled_from([None, 1, 2])), max_size=10
)


def applied(lines: list[bytes], before: dict[str, Any]) -> dict[str, Any]:
    """Returns the profiles that updates leave behind."""
    profiles = {"u": before, "v": before}
    for line in lines:
        update = json.loads(line)
        who = update["$distinct_id"]
        operation = next(
            name for name in update if name.startswith("$") and name not in ("$distinct_id", "$time")
        )
        profiles[who] = (
            {} if operation == "$delete" else apply_operation(operation, update[operation], profiles[who])
        )
    return profiles


@settings(max_examples=200, deadline=None)
@given(_updates, _profiles)
def test_fewer_updates_leave_the_same_profiles(
    updates: list[tuple[str, tuple[str, Any], int | None]], before: dict[str, Any]
) -> None:
    lines = []
    for who, (operation, value), time in updates:
        beside = {"$distinct_id": who} if time is None else {"$distinct_id": who, "$time": time}
        lines.append(json.dumps({**beside, operation: value}).encode())
    keys = [1 if who == "u" else 2 for who, _, _ in updates]
    fewer, part_of = collapse(lines, keys)

    assert applied(fewer, before) == applied(lines, before)
    assert len(part_of) == len(lines)
    assert set(part_of) == set(range(len(fewer)))
    for line in fewer:
        try:
            check_update(line, BARE)
        except RecordRefused as refused:
            pytest.fail(refused.message)


@pytest.mark.parametrize(
    ("operations", "left"),
    [
        ([{"$set": {"a": 1}}, {"$set": {"b": 2}}, {"$set": {"a": 3}}], [{"$set": {"a": 3, "b": 2}}]),
        ([{"$set_once": {"a": 1}}, {"$set_once": {"a": 2, "b": 3}}], [{"$set_once": {"a": 1, "b": 3}}]),
        ([{"$union": {"l": [1]}}, {"$union": {"l": 2}}], [{"$union": {"l": [1, 2]}}]),
        ([{"$add": {"n": 1}}] * 5, [{"$add": {"n": 5}}]),
        ([{"$set": {"a": 1}}, {"$unset": ["a"]}, {"$unset": ["b"]}], [{"$unset": ["a", "b"]}]),
        ([{"$set": {"a": 1}}, {"$append": {"l": 1}}, {"$delete": ""}], [{"$set": {"a": 1}}, {"$delete": ""}]),
        ([{"$append": {"l": 1}}, {"$append": {"l": 2}}], [{"$append": {"l": 1}}, {"$append": {"l": 2}}]),
        ([{"$add": {"n": 0.1}}, {"$add": {"n": 0.2}}], [{"$add": {"n": 0.1}}, {"$add": {"n": 0.2}}]),
    ],
)
def test_what_becomes_one_and_what_does_not(operations: list[Any], left: list[Any]) -> None:
    lines = [json.dumps({"$distinct_id": "u", **operation}).encode() for operation in operations]
    fewer, _ = collapse(lines, [1] * len(lines))
    expected = left if len(left) > 1 and "$delete" not in left[-1] else left[-1:]

    assert [json.loads(line) for line in fewer][-len(expected) :] == [
        {"$distinct_id": "u", **operation} for operation in expected
    ]
    assert len(fewer) == len(left)


def test_updates_that_differ_beside_the_operation_stay_apart() -> None:
    lines = [
        b'{"$ip":0,"$distinct_id":"u","$set":{"a":1}}',
        b'{"$ip":"1.2.3.4","$distinct_id":"u","$set":{"a":2}}',
    ]

    assert collapse(lines, [1, 1]) == (lines, [0, 1])


def test_values_stay_token_for_token() -> None:
    lines = [
        b'{"$distinct_id":"u","$set":{"a":1}}',
        b'{"$distinct_id":"u","$set":{"b":1.50e1,"t":"\\u00e4"}}',
    ]

    both = b'{"$distinct_id":"u","$set":{"a":1,"b":1.50e1,"t":"\\u00e4"}}'
    assert collapse(lines, [1, 1])[0] == [both]
