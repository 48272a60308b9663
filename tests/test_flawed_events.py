"""Events that the extension refuses without a look by the judge: always as the judge would."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixpanel_http import limits
from mixpanel_http.event_rules import EventRules
from mixpanel_http.event_scan import FLAWS, scanner
from mixpanel_http.verdicts import Reason
from tests.event_blocks import CLEAN, NO_IP, RULES, assert_each_line_is_judged_as_if_alone
from tests.events import GONE, NOW, event, line

native = pytest.importorskip("mixpanel_http._native", reason="the C extension is not built")

LATEST = int(NOW) + limits.MAX_FUTURE_S
PLAIN: dict[str, list[bytes]] = {
    "no_properties": [b'{"event":"e"}', b'{"a":1,"b":[{}]}', line({f"f{n}": n for n in range(200)})],
    "no_event": [line({"properties": event()["properties"]})]
    + [line(event() | {"event": name}) for name in (None, "", "  ")],
    "no_time": [line(event(time=gone)) for gone in (GONE, None)],
    "time_as_text": [line(event(time=text)) for text in ("1700000000", "2024-01-01T00:00:00Z", "")],
    "early_time": [line(event(time=time)) for time in (0, -1, 5.5, limits.MIN_TIME_S - 3)],
    "late_time": [
        line(event(time=time))
        for time in (LATEST + 3, LATEST * 1000 + 9999, 1_700_000_000_000_000, 1_700_000_000_000_000_000)
    ],
    "identity_event": [line(event() | {"event": name}) for name in limits.IDENTITY_EVENTS],
    "disallowed_id": [line(event(distinct_id=name)) for name in limits.DISALLOWED_IDS]
    + [line(event(distinct_id="Anonymous"))],
    "no_distinct_id": [
        line(event(distinct_id=gone, **others))
        for gone in (GONE, None)
        for others in ({}, {"$user_id": ""}, {"$device_id": 7})
    ],
    "cut_short": [CLEAN[:60], b'{"event":"e","properties":{'],
    "lone_surrogate": [line(event(x="\ud83d")), line(event(x="a\udc00b")), line(event(**{"\ud83d": 1}))],
    "nan": [line(event(x=float("nan"))), line(event(x=[1, {"y": float("nan")}])) + b" and more"],
    "infinity": [line(event(x=float("inf")))],
    "minus_infinity": [line(event(x=float("-inf")))],
    "not_utf8": [
        line(event(city="@")).replace(b"@", b"Z\xfcrich"),
        line(event(city=["@"])).replace(b"@", b"Z\xfcrich"),
        line(event(city="@")).replace(b"@", b"Z\xfcrich")[:-2],
    ],
}
FEW = [RULES[0], RULES[-1]]


@pytest.mark.parametrize("flaw", PLAIN)
def test_an_event_with_one_flaw_is_told_by_it_without_the_judge(flaw: str) -> None:
    lines = PLAIN[flaw]
    assert scanner is not None
    scan = scanner.scan(b"\n".join([CLEAN, *lines, NO_IP]), LATEST, True)

    assert scan.refused == {flaw: list(range(1, len(lines) + 1))}
    assert scan.suspects == []
    assert_each_line_is_judged_as_if_alone(b"\n".join([CLEAN, *lines, NO_IP]), EventRules())


def test_each_flaw_that_is_told_has_an_event() -> None:
    assert set(PLAIN) == {*FLAWS, "not_utf8"}


def test_of_two_flaws_the_one_is_told_that_the_judge_finds_first() -> None:
    changes: list[dict[str, Any]] = [{"distinct_id": GONE}, {"time": "x"}, {"distinct_id": "anon"}]
    block = [line(event(**one, **other)) for one in changes for other in changes if not {*one} & {*other}]
    block += [line(event(time=0, distinct_id=GONE) | {"event": name}) for name in ("$identify", "", "e")]

    for rules in FEW:
        assert_each_line_is_judged_as_if_alone(b"\n".join(block), rules)


@pytest.mark.parametrize(
    ("damaged", "field"),
    [
        (b'"a":"\xfc","b":"\xfc"', "properties.a"),
        (b'"a":1,"b":["\xfc"],"\xfc":1,"c":"\xfc"', "properties.c"),
        (b'"b\xc3":"\xfc"', "properties.b?"),
        (b'"a":"x","b":"\xfc","a":"\xfc"', "properties.a"),
        (b'"a":"\xfc","b":"\xfc","a":1', "properties.b"),
        (b'"\\u0061":"\xfc"', "properties.a"),
        (b'"a":"\xfc","b":NaN', "properties.a"),
        (b'"a":"\xfc","b":}', None),
        (b'"a":"\\udcff","b":"\xfc"', "properties.a"),
        (b'"":"\xed\xa0\x80"', "properties."),
    ],
)
def test_text_that_is_no_utf8_is_found_as_the_judge_finds_it(damaged: bytes, field: str | None) -> None:
    text = b'{"event":"e","properties":{"time":1700000000,"distinct_id":"u",%b}}' % damaged
    (rejection,) = assert_each_line_is_judged_as_if_alone(text, EventRules()).rejections

    assert (rejection.reason, rejection.field) == (Reason.INVALID_UTF8.value, field)


def test_only_of_what_is_no_utf8_it_is_told_where() -> None:
    assert scanner is not None
    scan = scanner.scan(b"\n".join([b'{"event":"\xfc"}', b'{"event":"e"}', CLEAN]), LATEST, True)

    assert scan.broken(0) == (10, None)
    for other in (1, 2):
        with pytest.raises(ValueError, match="UTF-8"):
            scan.broken(other)
    with pytest.raises(IndexError):
        scan.broken(3)


KEY = st.sampled_from(
    ["a", "b", "time", "event", "properties", "distinct_id", "$user_id", "\\u0061", "\xfc", ""]
)
TEXT = st.text("a \xfc\u20ac", max_size=3) | st.sampled_from(["anon", "$merge", "\\ud83d", "\\udcfc", "\\n"])
NUMBER = st.sampled_from(["0", "-1", "1700000000", "1.5", "31535999.9", "1e9", "1" * 16, f"{LATEST}", "NaN"])
TIME = st.integers(-5, 5).flatmap(
    lambda near: st.sampled_from(
        [limits.MIN_TIME_S, limits.MIN_TIME_MS, LATEST, LATEST * 1000, 10**15, 10**18]
    ).map(lambda time: f"{time + near}")
)
SCALAR = TEXT.map('"{}"'.format) | NUMBER | TIME | st.sampled_from(["null", "true", "Infinity", "-Infinity"])


def members(values: st.SearchStrategy[str], most: int) -> st.SearchStrategy[str]:
    """Objects with few keys to choose from, so that some stand twice."""
    named = st.tuples(KEY, values).map(lambda member: f'"{member[0]}":{member[1]}')
    return st.lists(named, min_size=1, max_size=most).map(",".join).map("{{{}}}".format)


VALUE = SCALAR | members(SCALAR, 2) | st.lists(SCALAR, max_size=2).map(",".join).map("[{}]".format)
EVENT = st.tuples(members(VALUE, 6), TEXT, st.sampled_from(['"time":1700000000,', '"distinct_id":"u",', ""]))


@st.composite
def flawed(draw: st.DrawFn) -> bytes:
    """An event with flaws, in one of the encodings that files come in, perhaps cut."""
    properties, name, more = draw(EVENT)
    text = f'{{"event":"{name}","properties":{{{more}{properties[1:]}}}'
    encoded = text.encode(draw(st.sampled_from(["utf-8", "latin-1", "cp1252"])), "ignore")
    return encoded[: draw(st.integers(0, len(encoded)) | st.just(len(encoded)))]


def assert_flawed_events_are_judged_as_alone(lines: list[bytes], rules: EventRules) -> None:
    assert_each_line_is_judged_as_if_alone(b"\n".join([CLEAN, *lines]), rules)


@settings(max_examples=300, deadline=None)
@given(st.lists(flawed() | members(VALUE, 4).map(str.encode), max_size=4), st.sampled_from(FEW))
def test_flawed_events_are_refused_as_the_judge_refuses_them(lines: list[bytes], rules: EventRules) -> None:
    assert_flawed_events_are_judged_as_alone(lines, rules)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@settings(max_examples=10_000, deadline=None)
@given(st.lists(flawed() | members(VALUE, 4).map(str.encode), max_size=4), st.sampled_from(FEW))
def test_very_many_flawed_events_are_refused_as_the_judge_refuses_them(
    lines: list[bytes], rules: EventRules
) -> None:
    assert_flawed_events_are_judged_as_alone(lines, rules)


@settings(max_examples=300, deadline=None)
@given(st.lists(flawed() | members(VALUE, 4).map(str.encode) | st.binary(max_size=20), max_size=4))
def test_what_is_told_to_be_json_can_be_decoded(lines: list[bytes]) -> None:
    for text, told in zip(lines, native.are_json(lines), strict=True):
        if told:
            json.loads(text)
            msgspec.json.decode(text, type=msgspec.Raw)


def test_what_is_ordinary_is_told_to_be_json() -> None:
    lines = [CLEAN, b" [1,{}]\t", b'"x' + b"\xc3\xa9" * 9000 + b'"', b"[" * 32 + b"]" * 32]
    others = [b"", b"x", CLEAN[:-1], CLEAN + b",", b'"\xfc"', b'"\\ud83d"', b"[" * 33 + b"]" * 33, b"1\n"]

    assert native.are_json([*lines, *others]) == [True] * len(lines) + [False] * len(others)
    for wrong in (b"{}", ["text"], [None]):
        with pytest.raises(TypeError):
            native.are_json(wrong)
