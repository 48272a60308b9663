"""The rules of updates: one by one, and over whole blocks with the same verdict."""

from __future__ import annotations

import gc
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixpanel_emulator.profile_ops import find_operation
from mixpanel_http import limits
from mixpanel_http.endpoints import ROUTES
from mixpanel_http.profile_blocks import prepare_updates
from mixpanel_http.profile_rules import OPERATIONS, ProfileRules, check_update, profile_key
from mixpanel_http.verdicts import RecordRefused

BARE = ProfileRules(default_ip=False, ignore_time=False)
GROUPS = ProfileRules(groups=True)


def sent(record: object, rules: ProfileRules = BARE) -> Any:
    line = record if isinstance(record, bytes) else json.dumps(record).encode()
    return json.loads(check_update(line, rules).line)


def reason(record: object, rules: ProfileRules = BARE) -> str:
    line = record if isinstance(record, bytes) else json.dumps(record).encode()
    with pytest.raises(RecordRefused) as refused:
        check_update(line, rules)
    return refused.value.reason.value


VALUES: dict[str, object] = {
    "$set": {"a": 1},
    "$set_once": {"a": 1},
    "$add": {"a": 1.5},
    "$append": {"a": {"b": 1}},
    "$union": {"a": [1], "b": "single"},
    "$remove": {"a": 1},
    "$unset": ["a"],
    "$delete": None,
}


@pytest.mark.parametrize("operation", VALUES)
def test_every_operation_passes_byte_for_byte(operation: str) -> None:
    line = json.dumps({"$distinct_id": "u", operation: VALUES[operation], "$time": 5}).encode()

    assert check_update(line, BARE).line == line
    assert check_update(line, BARE).repeatable == (operation not in ("$add", "$append"))


@pytest.mark.parametrize("operation", sorted(OPERATIONS))
def test_a_flat_row_becomes_any_operation(operation: Any) -> None:
    rules = ProfileRules(id_field="user", operation=operation, default_ip=False, ignore_time=False)
    row = {"user": "u", "a": 1, "b": 2, "$time": 5, "$token": "T"}
    values = {"$unset": ["a", "b"], "$delete": None, "$union": {"a": [1], "b": [2]}}

    expected = {"$distinct_id": "u", "$time": 5, operation: values.get(operation, {"a": 1, "b": 2})}
    assert sent(row, rules) == expected


def test_a_flat_row_of_a_group_becomes_an_operation_on_it() -> None:
    rules = ProfileRules(groups=True, id_field="company", group_key="company_id")

    assert sent({"company": 7, "size": 3}, rules) == {
        "$group_key": "company_id",
        "$group_id": 7,
        "$set": {"size": 3},
    }


def test_what_is_missing_is_stamped_and_what_is_there_is_kept() -> None:
    assert sent({"$distinct_id": "u", "$set": {}}, ProfileRules()) == {
        "$distinct_id": "u",
        "$set": {},
        "$ip": 0,
        "$ignore_time": True,
    }
    own = {"$distinct_id": "u", "$set": {}, "$ip": "1.2.3.4", "$ignore_time": False}
    assert sent(own, ProfileRules()) == own


def test_values_stay_token_for_token() -> None:
    line = b'{"$token":"T","$distinct_id":"u","$set":{"n":12345678901234567890.10,"t":"\\u00e4"}}'

    assert b'{"n":12345678901234567890.10,"t":"\\u00e4"}' in check_update(line, ProfileRules()).line
    assert b"$token" not in check_update(line, ProfileRules()).line


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (b"{", "invalid_json"),
        (b'"text"', "not_object"),
        ({"$set": {}}, "missing_distinct_id"),
        ({"$distinct_id": "", "$set": {}}, "missing_distinct_id"),
        ({"$distinct_id": ["u"], "$set": {}}, "bad_distinct_id"),
        ({"$distinct_id": "Anonymous", "$set": {}}, "disallowed_id"),
        ({"$distinct_id": "u"}, "missing_operation"),
        ({"$distinct_id": "u", "plan": "pro"}, "missing_operation"),
        ({"$distinct_id": "u", "$set": {}, "$add": {}}, "bad_operation"),
        ({"$distinct_id": "u", "$set": []}, "bad_operation"),
        ({"$distinct_id": "u", "$add": {"a": "1"}}, "bad_operation"),
        ({"$distinct_id": "u", "$add": {"a": True}}, "bad_operation"),
        ({"$distinct_id": "u", "$union": {}}, "bad_operation"),
        ({"$distinct_id": "u", "$union": {"a": []}}, "bad_operation"),
        ({"$distinct_id": "u", "$unset": []}, "bad_operation"),
        ({"$distinct_id": "u", "$unset": "a"}, "bad_operation"),
        ({"$distinct_id": "u", "$unset": [1]}, "bad_operation"),
        ({"$distinct_id": "u", "$set": dict.fromkeys(map(str, range(2001)))}, "bad_operation"),
        ({"$distinct_id": "u", "$set": {"a": "x" * limits.MAX_UPDATE_BYTES}}, "too_large"),
        ({"$distinct_id": "u", "$set": {"a": ["x" * limits.MAX_PROFILE_VALUE_BYTES]}}, "too_large"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_what_mixpanel_would_refuse_is_refused(record: object, expected: str) -> None:
    assert reason(record) == expected


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"$group_id": "g", "$set": {}}, "missing_group"),
        ({"$group_key": "k", "$set": {}}, "missing_group"),
        ({"$group_key": "k", "$group_id": ["g"], "$set": {}}, "missing_group"),
        ({"$group_key": "k", "$group_id": "g", "$add": {"a": 1}}, "bad_operation"),
        ({"$group_key": "k", "$group_id": "g", "$append": {"a": 1}}, "bad_operation"),
    ],
    ids=str,
)
def test_what_groups_do_not_have_is_refused(record: object, expected: str) -> None:
    assert reason(record, GROUPS) == expected


def test_no_message_repeats_a_value_of_the_record() -> None:
    for record in (
        {"$distinct_id": ["secret"], "$set": {}},
        {"$distinct_id": "secret", "$add": {"a": "secret"}},
    ):
        with pytest.raises(RecordRefused) as refused:
            check_update(json.dumps(record).encode(), BARE)
        assert "secret" not in refused.value.message


# --- whole blocks ------------------------------------------------------------------------------------

_scalars = st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(["", "nil", "text"])
_values = st.recursive(
    _scalars,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=4,
)
_operation = st.sampled_from(sorted(OPERATIONS)).flatmap(
    lambda name: st.tuples(st.just(name), st.just(VALUES[name]) | _values)
)
_records = st.fixed_dictionaries(
    {},
    optional={
        "$distinct_id": st.sampled_from(["u-1", "u-2", "naïve"]) | _scalars,
        "$group_key": st.sampled_from(["company", ""]),
        "$group_id": st.sampled_from(["acme", 7]) | _scalars,
        "$token": st.just("T"),
        "$ip": _scalars,
        "$ignore_time": st.booleans(),
        "note": _values,
    },
).flatmap(lambda record: st.lists(_operation, max_size=2).map(lambda found: record | dict(found)))
_clean = st.builds(
    lambda user, name: {"$distinct_id": user, "$group_key": "k", "$group_id": user, name: VALUES[name]},
    st.sampled_from(["u-1", "u-2", "naïve"]),
    st.sampled_from(sorted(OPERATIONS)),
)
_lines = st.lists(
    (_clean | _clean | _records).map(lambda r: json.dumps(r, ensure_ascii=False).encode())
    | st.sampled_from([b"", b" ", b"{}", b"nonsense", b'{"$distinct_id":"\xff","$set":{}}', b"[]"]),
    max_size=12,
)
_plain = st.builds(
    lambda user, name, group: {"$distinct_id": user, "$group_id": user, name: VALUES[name], **group},
    st.sampled_from(["u-1", "u-2", "naïve", "nil", ""]),
    st.sampled_from(["$set", "$set_once", "$remove", "$unset", "$delete"]),
    st.sampled_from([{}, {}, {"$group_key": "k"}]),
)
_rows = st.builds(
    lambda user, a, b: {"a": a, "user": user, "b": b},
    st.sampled_from(["u-1", "u-2", "naïve"]) | st.sampled_from([7, "", "nil", "😀"]),
    st.sampled_from([1, "text", ["x", {"y": None}], "\u20ac", 1.5]),
    st.booleans(),
)
_half = b'{"user":"u-1","a":"\\ud800"}'
_sound_lines = st.lists(
    (_plain | _plain | _rows).map(lambda r: json.dumps(r, ensure_ascii=False).encode()), max_size=3
) | st.lists(_rows.map(lambda r: json.dumps(r, ensure_ascii=r["b"]).encode()) | st.just(_half), max_size=3)
_rules = st.builds(
    ProfileRules,
    groups=st.booleans(),
    id_field=st.sampled_from([None, None, "$distinct_id", "note", "user", "user"]),
    operation=st.sampled_from(sorted(OPERATIONS)),
    group_key=st.sampled_from([None, "company"]),
    default_ip=st.booleans(),
    ignore_time=st.booleans(),
)


@settings(max_examples=200, deadline=None)
@given(_lines | _sound_lines | _sound_lines, _rules, st.sampled_from([b"\n", b"\r\n"]))
def test_a_block_and_its_lines_one_by_one_have_the_same_verdict(
    lines: list[bytes], rules: ProfileRules, newline: bytes
) -> None:
    raw = b"".join(line + newline for line in lines)
    prepared = prepare_updates(raw, rules)
    accepted, refused, blank = [], [], 0
    for index, line in enumerate(lines):
        if not line.strip():
            blank += 1
            continue
        try:
            accepted.append((index, check_update(line, rules)))
        except RecordRefused as error:
            refused.append(error.rejection(index))

    assert [json.loads(line) for line in prepared.body.split(b"\n") if line] == [
        json.loads(one.line) for _, one in accepted
    ]
    assert list(prepared.rejections) == refused
    assert prepared.blank == blank
    kept = prepared.kept if prepared.kept is not None else tuple(range(len(lines)))
    assert list(kept) == [index for index, _ in accepted]
    keys = [int.from_bytes(prepared.keys[i : i + 8], "little") for i in range(0, len(prepared.keys), 8)]
    assert keys == [one.key for _, one in accepted]
    assert [ROUTES[route].repeatable for route in prepared.routes] == [one.repeatable for _, one in accepted]
    names = [name for _, one in accepted for name in one.alterations]
    assert dict(prepared.alterations) == {name: names.count(name) for name in names}


@settings(max_examples=150, deadline=None)
@given(_records)
def test_what_is_accepted_the_emulator_accepts(record: dict[str, Any]) -> None:
    for rules in (BARE, GROUPS):
        try:
            update = sent(record, rules)
        except RecordRefused:
            continue
        assert isinstance(find_operation(update, group=rules.groups), str)


def test_profiles_of_two_kinds_of_groups_differ() -> None:
    assert profile_key("7", "company") != profile_key("7", "team")


def test_a_large_block_is_prepared_in_pieces() -> None:
    record = {"$distinct_id": "u", "$set": {"text": "x" * 900}}
    raw = b"".join(json.dumps({**record, "$distinct_id": f"u-{n}"}).encode() + b"\n" for n in range(1000))
    prepared = prepare_updates(raw, BARE)

    assert prepared.body == raw.rstrip(b"\n")
    assert (prepared.count, prepared.kept, len(prepared.keys)) == (1000, None, 8000)


@pytest.mark.parametrize(
    ("rules", "record"),
    [
        (BARE, {"$distinct_id": "u", "$set": {"a": 1}}),
        (GROUPS, {"$group_key": "k", "$group_id": "g", "$set": {"a": 1}}),
        (ProfileRules(id_field="id"), {"id": "u", "a": 1}),
    ],
    ids=["updates", "groups", "rows"],
)
def test_a_prepared_block_leaves_nothing_to_the_garbage_collector(
    rules: ProfileRules, record: dict[str, object]
) -> None:
    raw = b"\n".join([json.dumps(record).encode()] * 50 + [b"{"])
    gc.collect()
    gc.freeze()  # else what other tests have left may come to be garbage now
    gc.disable()
    try:
        assert prepare_updates(raw, rules).count == 50
        assert gc.collect() == 0
    finally:
        gc.enable()
        gc.unfreeze()
