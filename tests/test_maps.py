"""Maps: what they touch becomes what they say, and everything else arrives token for token."""

import datetime as dt
import json
import pickle
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixpanel_http.event_rules import EventRules, check_container
from mixpanel_http.insert_ids import InsertIdPolicy
from mixpanel_http.secret_refs import SecretRef
from record_maps.mapper import MappedLines, compile_map
from record_maps.paths import parse_path
from record_maps.spec import (
    MIXPANEL_SHAPE,
    PATTERNS,
    TIME_FORMATS,
    Const,
    EventNames,
    Filtered,
    Flatten,
    MapSpec,
    PersonalData,
    Spread,
    TimeSpec,
    Traits,
    parse_property,
    parse_value,
    refine,
)
from transforms.elements import Block, Span
from transforms.map_records import map_block
from transforms.prepare_records import prepare_block

NOW = 1_750_000_000.0
FLAT = MapSpec(
    event=parse_value("e"),
    time=TimeSpec(parse_value("t")),
    distinct_id=parse_value(["u", "d"]),
    insert_id=parse_value("i"),
)
# Tokens that a parser and a printer would not give back as they were.
TOKENS = st.sampled_from(
    [
        *("12345678901234567890", "123456789012345678901234567890", "1.0", "1", "-0", "1e2", "1E+2", "1.10"),
        *("0.1000000000000000055", "1.7976931348623157e308", '"\\u0041"', '"\\/"', '"ä"', "null", "true"),
        *('{"a": [1, 2.0]}', "[ ]", "[12345678901234567890]", '{"b":{"c":1.50}}'),
    ]
)
NAMES = st.text("abcxyz_$ ä", min_size=1, max_size=6).filter(lambda name: name not in set("etudi"))


def mapped(spec: MapSpec, *lines: bytes | dict[str, Any]) -> MappedLines:
    found = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
    return compile_map(spec).map_lines(found)


def event_of(spec: MapSpec, record: dict[str, Any]) -> dict[str, Any]:
    (line,) = mapped(spec, record).lines
    made: dict[str, Any] = json.loads(line)
    return made


def row(**fields: Any) -> dict[str, Any]:
    return {"e": "Order", "t": 1_709_627_400, "u": "u-1", **fields}


# Laws.


@given(st.dictionaries(NAMES, TOKENS, max_size=6))
def test_what_a_map_does_not_touch_arrives_token_for_token(fields: dict[str, str]) -> None:
    members = ",".join(f"{json.dumps(name)} : {token}" for name, token in fields.items())
    line = f'{{"e":"x","t":1709627400,"u":"u"{"," if members else ""}{members}}}'.encode()

    (made,) = mapped(FLAT, line).lines

    raw = msgspec.json.decode(made, type=dict[str, msgspec.Raw])
    properties = msgspec.json.decode(raw["properties"], type=dict[str, msgspec.Raw])
    assert {name: bytes(properties[name]).decode() for name in fields} == fields


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=30), st.data())
def test_ids_do_not_depend_on_how_a_file_is_cut_into_blocks(kinds: list[int], data: st.DataObject) -> None:
    spec = refine(FLAT, {"reshape": several})
    lines = [json.dumps(row(n=kind, place=i // 2)).encode() for i, kind in enumerate(kinds)]
    policy = InsertIdPolicy(identical_rows=data.draw(st.sampled_from(["merge", "keep"])))
    whole = ids_of(spec, [lines], policy)

    cut = data.draw(st.integers(1, len(lines)))
    assert ids_of(spec, [lines[i : i + cut] for i in range(0, len(lines), cut)], policy) == whole
    if policy.keeps_rows:
        assert len(set(whole)) == len(whole)


def several(fields: dict[str, msgspec.Raw]) -> list[dict[str, msgspec.Raw] | Filtered]:
    """A dialect's step that makes as many records of one as it says itself."""
    return [fields] * int(bytes(fields["n"]))


def ids_of(spec: MapSpec, blocks: list[list[bytes]], policy: InsertIdPolicy) -> list[str]:
    ids: list[str] = []
    offset = 0
    mapper = compile_map(spec)
    for lines in blocks:
        raw = b"".join(line + b"\n" for line in lines)
        block = Block("0", "a", 0, raw, (Span(0, "f.json", len(lines), len(raw), 1, offset),))
        ids += prepare_block(map_block(block, mapper), EventRules(policy), NOW).records.stamped_ids
        offset += len(raw)
    return ids


@given(st.lists(st.sampled_from([b"", b"  ", b"x", b"[]", b'{"e":"x","t":"never"}', b'{"e":"ok"}'])))
def test_each_line_is_blank_or_has_its_outcomes(lines: list[bytes]) -> None:
    found = compile_map(refine(FLAT, {"events": EventNames(deny=("x",))})).map_lines(lines)
    outcomes = len(found.lines) + len(found.filtered) + len(found.rejections)

    assert outcomes == len(lines) - len(found.blank) + len(found.expanded)


# The four fields.


def test_the_first_source_that_is_there_counts() -> None:
    assert event_of(FLAT, {**row(), "u": None, "d": "d-1"})["properties"]["distinct_id"] == "d-1"
    assert event_of(FLAT, {**row(), "u": "", "d": "d-1"})["properties"]["distinct_id"] == "d-1"
    assert event_of(FLAT, {**row(), "d": "d-1"})["properties"]["distinct_id"] == "u-1"


def test_a_constant_counts_whatever_it_is() -> None:
    nobodys = refine(FLAT, {"distinct_id": parse_value(["u", {"const": ""}, "d"])})

    assert event_of(nobodys, {**row(), "u": None, "d": "d-1"})["properties"]["distinct_id"] == ""


def test_a_number_as_an_id_keeps_its_digits() -> None:
    properties = event_of(FLAT, {**row(), "u": 12345678901234567890, "i": 7})["properties"]

    assert (properties["distinct_id"], properties["$insert_id"]) == ("12345678901234567890", "7")


@pytest.mark.parametrize("name", ["$user_id", "$device_id"])
def test_an_id_that_joins_users_is_text_and_not_an_empty_one(name: str) -> None:
    spec = refine(FLAT, {"properties": ((name, parse_value("x")),)})

    assert event_of(spec, row(x=7))["properties"][name] == "7"
    assert event_of(spec, row(x="7"))["properties"][name] == "7"
    assert name not in event_of(spec, row(x=""))["properties"]
    renamed = refine(FLAT, {"rename": (("x", name),)})
    assert event_of(renamed, row(x=7))["properties"][name] == "7"
    assert name not in event_of(renamed, row(x=""))["properties"]


def test_ids_that_join_users_are_kept_unless_they_are_dropped_by_name() -> None:
    ids = {"$user_id": "u", "$device_id": "d"}
    spec = refine(FLAT, {"keep": ("a",)})

    assert set(event_of(spec, row(a=1, b=2, **ids))["properties"]) == {"a", "time", "distinct_id", *ids}
    dropping = refine(spec, {"drop": ("$device_id",)})
    assert "$device_id" not in event_of(dropping, row(a=1, **ids))["properties"]


def test_an_id_that_mixpanel_does_not_take_becomes_its_hash() -> None:
    one, same, other, valid, empty = (
        event_of(FLAT, row(i=i, n=n))["properties"].get("$insert_id")
        for i, n in (("a_1/ä", 1), ("a_1/ä", 2), ("a_2/ä", 1), ("a-1", 1), (" ", 1))
    )

    assert one == same != other
    assert len(one) == 32
    assert (valid, empty) == ("a-1", " ")


def test_what_is_missing_is_left_to_the_rules() -> None:
    (line,) = mapped(FLAT, {"a": 1}).lines

    assert json.loads(line) == {"properties": {"a": 1}}


def test_a_field_that_was_taken_is_no_property_too() -> None:
    spec = refine(FLAT, {"properties": (("plan", parse_value("p")),)})

    assert event_of(spec, row(p="pro", i="i-1", d="d", z=1)) == {
        "event": "Order",
        "properties": {
            "plan": "pro",
            "d": "d",  # behind the source that counts
            "z": 1,
            "time": 1_709_627_400,
            "distinct_id": "u-1",
            "$insert_id": "i-1",
        },
    }


def test_a_constant_needs_no_field() -> None:
    spec = refine(FLAT, {"event": parse_value({"const": "Row"})})

    assert event_of(spec, row())["event"] == "Row"


def test_what_is_the_events_own_is_not_taken_from_an_object_that_is_spread() -> None:
    spec = refine(FLAT, {"properties": (("*", parse_property("*", "traits.*")),)})
    traits = {"time": 5, "distinct_id": "other", "$insert_id": "other", "a": 1}

    (line,) = mapped(spec, {"e": "Order", "traits": traits}).lines
    assert json.loads(line)["properties"] == {"a": 1}


# Properties.


def test_a_named_property_wins_over_one_of_an_object() -> None:
    spec = refine(
        FLAT, {"properties": (("plan", parse_value({"const": 1})), ("*", parse_property("*", "traits.*")))}
    )

    assert event_of(spec, row(traits={"plan": "x", "age": 3}))["properties"]["plan"] == 1


def test_an_object_that_is_none_has_no_fields() -> None:
    spec = refine(FLAT, {"properties": (("t_*", parse_property("t_*", "traits.*")),)})

    assert "t_a" not in event_of(spec, row(traits=[{"a": 1}]))["properties"]


def test_names_are_matched_after_they_are_renamed() -> None:
    spec = refine(FLAT, {"rename": (("a", "b"),), "drop": ("b", "x?")})

    assert set(event_of(spec, row(a=1, x1=1, x22=1))["properties"]) == {"x22", "time", "distinct_id"}


@pytest.mark.parametrize("globs", [(), ("zz*",)])
def test_of_two_with_one_new_name_the_later_counts_unless_it_is_null(globs: tuple[str, ...]) -> None:
    spec = refine(FLAT, {"rename": (("a", "c"), ("b", "c")), "drop": globs})

    def c(**fields: Any) -> Any:
        made, turned = (
            event_of(spec, {**row(), **dict(items)})["properties"]
            for items in (fields.items(), reversed(fields.items()))
        )
        assert made == turned
        return made["c"]

    assert c(a=1, b=2) == 2
    assert c(a=1, b=None) == 1
    assert c(a=1, c=3) == 1
    assert c(c=3, a=None) == 3
    assert c(a=None) is None


@pytest.mark.parametrize("globs", [(), ("zz*",)])
def test_names_can_be_swapped(globs: tuple[str, ...]) -> None:
    spec = refine(FLAT, {"rename": (("a", "b"), ("b", "a")), "drop": globs})

    properties = event_of(spec, row(a=1, b=2))["properties"]
    assert (properties["a"], properties["b"]) == (2, 1)


def test_no_object_wins_over_another_by_a_null() -> None:
    spec = refine(FLAT, {"properties": (("*", parse_property("*", "traits.*")),)})

    assert event_of(spec, row(plan="pro", traits={"plan": None, "age": None}))["properties"]["plan"] == "pro"
    assert event_of(spec, row(plan="pro", traits={"plan": "x"}))["properties"]["plan"] == "x"


def test_a_property_with_a_name_of_its_own_wins_over_a_flattened_one() -> None:
    spec = refine(FLAT, {"flatten": Flatten()})

    for fields in ({"a": {"b": 1}, "a.b": 2}, {"a.b": 2, "a": {"b": 1}}):
        assert event_of(spec, row(**fields))["properties"]["a.b"] == 2


def test_only_what_is_to_be_kept_is_kept_and_the_event_itself() -> None:
    spec = refine(FLAT, {"keep": ("a*",)})

    assert set(event_of(spec, row(ab=1, b=1, i="i"))["properties"]) == {
        *("ab", "time", "distinct_id", "$insert_id")
    }


def test_nulls_are_dropped_only_where_that_is_asked_for() -> None:
    assert event_of(FLAT, row(a=None))["properties"]["a"] is None
    assert "a" not in event_of(refine(FLAT, {"drop_nulls": True}), row(a=None))["properties"]


def test_objects_deeper_than_the_depth_stay_objects() -> None:
    spec = refine(FLAT, {"flatten": Flatten("/", 1)})

    properties = event_of(spec, row(a={"b": {"c": 1}, "d": {}}, l=[{"x": 1}]))["properties"]
    assert {k: v for k, v in properties.items() if k[0] in "al"} == {
        "a/b": {"c": 1},
        "a/d": {},
        "l": [{"x": 1}],
    }


def test_what_mixpanel_would_find_too_deep_becomes_text_where_that_is_asked_for() -> None:
    deep = {"a": [{"b": [{"c": 1.50}], "d": [], "e": "[[[[{"}]}
    spec = refine(FLAT, {"deep_as_text": True})

    assert event_of(FLAT, row(x=deep))["properties"]["x"] == deep
    assert event_of(spec, row(x=deep))["properties"]["x"] == {
        "a": [{"b": '[{"c": 1.5}]', "d": "[]", "e": "[[[[{"}]
    }


@given(
    st.recursive(
        st.none() | st.integers() | st.text("[{]}\\"), lambda i: st.lists(i) | st.dictionaries(st.text(), i)
    )
)
def test_what_was_made_shallow_is_not_too_deep_and_says_the_same(value: Any) -> None:
    (line,) = mapped(refine(FLAT, {"deep_as_text": True}), row(x=value)).lines
    made = json.loads(line)["properties"]["x"]

    if isinstance(made, (dict, list)):
        check_container("x", made)
    assert unfolded(made, value) == value


def unfolded(made: Any, like: Any) -> Any:
    """Returns a value in which texts of JSON are what they stand for, where there was no text."""
    if isinstance(made, str) and not isinstance(like, str):
        return json.loads(made)
    if isinstance(made, list):
        return [unfolded(inner, old) for inner, old in zip(made, like, strict=True)]
    return {key: unfolded(made[key], like[key]) for key in made} if isinstance(made, dict) else made


def test_tags_are_on_every_record() -> None:
    spec = refine(FLAT, {"tags": (("import", b'"2024"'),)})

    assert event_of(spec, row())["properties"]["import"] == "2024"


def test_records_of_no_event_pass_a_map_of_mixpanels_shape() -> None:
    profile = {"$distinct_id": "u", "$set": {"a": 1.0}}

    assert mapped(MIXPANEL_SHAPE, profile).lines == [b'{"$distinct_id":"u","$set":{"a": 1.0}}']


# Events and dates.


def test_events_are_allowed_denied_and_renamed_by_name() -> None:
    spec = refine(
        FLAT, {"events": EventNames(allow=("O*",), deny=("*Test",), rename=(("Order", "Order Paid"),))}
    )
    found = mapped(spec, row(), row(e="Other"), {**row(), "e": "View"}, {**row(), "e": "O Test"})

    assert [json.loads(line)["event"] for line in found.lines] == ["Order Paid", "Other"]
    assert found.filtered == [(2, "event"), (3, "event")]


# Refusals.


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{", "invalid_json"),
        (b"[1]", "not_object"),
        (b'{"e":"\xff"}', None),
        (b'{"e":NaN}', "non_finite_number"),
        (b"\xff", "invalid_utf8"),
        (b"[" * 200_000, "too_deep"),
        (b'{"e":"x","t":"30.02.2024"}', "bad_time"),
        (b'{"e":"x","t":{}}', "bad_time"),
    ],
)
def test_a_line_that_cannot_be_mapped_is_refused_for_what_it_is(line: bytes, reason: str | None) -> None:
    found = mapped(FLAT, row(), line, row())

    assert [r.reason for r in found.rejections] == ([reason] if reason else [])
    assert found.sources == ([0, 2] if reason else [0, 1, 2])


def test_what_a_map_does_not_look_into_is_left_to_the_rules() -> None:
    line = b'{"e":"x","t":1709627400,"u":"u","s":"\xff"}'
    block = Block("0", "a", 0, line + b"\n", (Span(0, "f", 1, len(line) + 1, 1, 0),))

    prepared = prepare_block(map_block(block, compile_map(FLAT)), EventRules(), NOW)
    assert [(r.index, r.reason, r.output) for r in prepared.records.rejections] == [(0, "invalid_utf8", 0)]


# Personal data.


@pytest.fixture
def salted(monkeypatch: pytest.MonkeyPatch) -> SecretRef:
    monkeypatch.setenv("SALT", "pepper")
    return SecretRef("env:SALT")


def test_a_hash_is_the_same_for_the_same_value_and_not_without_the_salt(
    salted: SecretRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = refine(FLAT, {"personal_data": PersonalData(hash=Traits(("mail", "distinct_id")), salt=salted)})
    one, two = (event_of(spec, row(mail="a@x.org"))["properties"] for _ in range(2))
    monkeypatch.setenv("SALT", "other")
    other = event_of(spec, row(mail="a@x.org"))["properties"]

    assert one == two
    assert len(one["mail"]) == 64
    assert one["mail"] != other["mail"]
    assert one["distinct_id"] != "u-1"


@pytest.mark.parametrize(
    ("pattern", "text", "left"),
    [
        ("email", "write to bob.o+x@mail.example.com!", "write to [removed]!"),
        ("email", "schöne@post.de", None),
        ("email", "bob\\u0040example.com", None),
        ("email", "at@home or @bob", "at@home or @bob"),
        ("ip", "from 192.0.2.17.", "from [removed]."),
        ("ip", "v1.2.3.4.5 and 300.1.1.1", "v1.2.3.4.5 and 300.1.1.1"),
        ("ip", "2001:db8::1 at 12:30:59", "[removed] at 12:30:59"),
        ("phone", "+49 (0)30-1234567", None),
        ("phone", "1234567 + 3", "1234567 + 3"),
        ("card", "4111-1111-1111-1111", None),
        ("card", "4111111111111112", "4111111111111112"),
    ],
)
def test_patterns_find_what_they_name(pattern: str, text: str, left: str | None) -> None:
    spec = refine(FLAT, {"personal_data": PersonalData(remove=Traits((), (pattern,)))})
    line = b'{"e":"x","t":1709627400,"u":"u","s":"%b","n":{"deep":["%b"]}}' % ((text.encode(),) * 2)

    properties = json.loads(mapped(spec, line).lines[0])["properties"]
    assert properties.get("s") == left
    assert properties["n"]["deep"] == [left or "[removed]"]


def test_numbers_beside_what_is_removed_keep_their_tokens() -> None:
    spec = refine(FLAT, {"personal_data": PersonalData(remove=Traits((), ("email",)))})
    line = b'{"e":"x","t":1709627400,"u":"u","n":{"a":12345678901234567890,"m":"a@b.org","f":1.0}}'

    assert b'{"a":12345678901234567890,"m":"[removed]","f":1.0}' in mapped(spec, line).lines[0]


# Any map, any line.

NAME = st.sampled_from(["a", "b", "c.d", "$g", "a*", "[", "[ab]", "?"])
KEY = st.sampled_from(["a", "b", "time", "event", "properties", "u"])
PATH = st.tuples(KEY, st.lists(KEY | st.integers(0, 2), max_size=2)).map(lambda p: (p[0], *p[1]))
VALUE = st.lists(PATH | st.builds(Const, st.sampled_from([b"1", b'"x"', b"null"])), max_size=3).map(tuple)
SPREAD = st.builds(Spread, PATH | st.just(()), st.sampled_from(["", "p_"]))
SOME = st.lists(NAME, max_size=2).map(tuple)
SPECS = st.builds(
    MapSpec,
    event=VALUE,
    time=st.builds(TimeSpec, VALUE, st.sampled_from([*TIME_FORMATS, "%Y-%m"]), wall_clock=st.booleans()),
    distinct_id=VALUE,
    insert_id=VALUE,
    properties=st.lists(st.tuples(NAME, VALUE | SPREAD), max_size=3).map(tuple),
    events=st.builds(EventNames, SOME, SOME),
    rename=st.lists(st.tuples(NAME, NAME), max_size=2).map(tuple),
    drop=SOME,
    keep=SOME,
    flatten=st.none() | st.builds(Flatten, st.sampled_from([".", ""]), st.integers(1, 5)),
    drop_nulls=st.booleans(),
    personal_data=st.builds(
        PersonalData, remove=st.builds(Traits, SOME, st.lists(st.sampled_from(PATTERNS)).map(tuple))
    ),
    dates=st.none() | st.just((dt.date(2024, 1, 1), dt.date(2024, 2, 1))),
)
LEAF = (
    st.none()
    | st.integers()
    | st.text(max_size=4)
    | st.sampled_from(["2024-01-05", "a@b.org", "\ud800", 1e300])
)
JSON = st.recursive(
    LEAF, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEY, inner), max_leaves=9
)
ANY_LINE = st.dictionaries(KEY, JSON, max_size=5).map(lambda record: json.dumps(record).encode()) | st.binary(
    max_size=9
).filter(lambda line: b"\n" not in line)


@settings(deadline=None)
@given(
    SPECS, st.lists(ANY_LINE, min_size=1, max_size=4), st.sampled_from([b"\xff", b"NaN", b"[", b"1" * 5000])
)
def test_no_map_fails_on_any_line(spec: MapSpec, lines: list[bytes], junk: bytes) -> None:
    lines.append(lines[0][: len(lines[0]) // 2] + junk + lines[0][len(lines[0]) // 2 :])
    found = compile_map(spec).map_lines(lines)

    outcomes = len(found.lines) + len(found.filtered) + len(found.rejections)
    assert outcomes == len(lines) - len(found.blank)
    assert not [line for line in found.lines if b"\n" in line]


# The map itself.


def test_a_map_travels_to_workers(salted: SecretRef) -> None:
    spec = refine(
        FLAT, {"personal_data": PersonalData(hash=Traits(("a",)), salt=salted), "flatten": Flatten("_", 2)}
    )
    travelled = pickle.dumps(spec)

    assert pickle.loads(travelled) == spec
    assert b"pepper" not in travelled


@pytest.mark.parametrize("text", ["", ".", "a..b", "a.", "[0]", "a[x]", 'a"b"', "a[0]b", '"a'])
def test_a_text_that_is_no_path_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no path"):
        parse_path(text)


@given(st.lists(st.text(min_size=1, max_size=5), min_size=1, max_size=4))
def test_any_key_can_stand_in_a_path(keys: list[str]) -> None:
    text = ".".join('"' + key.replace("\\", "\\\\").replace('"', '\\"') + '"' for key in keys)

    assert parse_path(text) == tuple(keys)
