"""Maps: what they touch becomes what they say, and everything else arrives token for token."""

import datetime as dt
import json
import pickle

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixpanel_http.event_rules import EventRules
from mixpanel_http.insert_ids import InsertIdPolicy
from mixpanel_http.secret_refs import SecretRef
from record_maps.mapper import Mapper
from record_maps.paths import parse_path
from record_maps.spec import (
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
    parse_value,
    refine,
)
from tests.maps import FLAT, NOW, event_of, mapped, row
from transforms.elements import Block, Span
from transforms.map_records import map_block
from transforms.prepare_records import prepare_block

# Tokens that a parser and a printer would not give back as they were.
TOKENS = st.sampled_from(
    [
        *("12345678901234567890", "123456789012345678901234567890", "1.0", "1", "-0", "1e2", "1E+2", "1.10"),
        *("0.1000000000000000055", "1.7976931348623157e308", '"\\u0041"', '"\\/"', '"ä"', "null", "true"),
        *('{"a": [1, 2.0]}', "[ ]", "[12345678901234567890]", '{"b":{"c":1.50}}'),
    ]
)
NAMES = st.text("abcxyz_$ ä", min_size=1, max_size=6).filter(lambda name: name not in set("etudi"))


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
    mapper = Mapper(spec)
    for lines in blocks:
        raw = b"".join(line + b"\n" for line in lines)
        block = Block("0", "a", 0, raw, (Span(0, "f.json", len(lines), len(raw), 1, offset),))
        ids += prepare_block(map_block(block, mapper), EventRules(policy), NOW).records.stamped_ids
        offset += len(raw)
    return ids


@given(st.lists(st.sampled_from([b"", b"  ", b"x", b"[]", b'{"e":"x","t":"never"}', b'{"e":"ok"}'])))
def test_each_line_is_blank_or_has_its_outcomes(lines: list[bytes]) -> None:
    found = Mapper(refine(FLAT, {"events": EventNames(deny=("x",))})).map_lines(lines)
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

    prepared = prepare_block(map_block(block, Mapper(FLAT)), EventRules(), NOW)
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
    found = Mapper(spec).map_lines(lines)

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
