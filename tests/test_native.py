"""The C extension: it tells the same as Python or nothing, whatever bytes it is given."""

from __future__ import annotations

import json
import math
import runpy
import types
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import mixpanel_http
from mixpanel_http import compiled
from mixpanel_http.event_rules import EventRules, check_event
from mixpanel_http.event_scan import scanner
from mixpanel_http.insert_ids import canonical_by_parsing
from mixpanel_http.record_syntax import CUT_SHORT
from mixpanel_http.verdicts import Reason, RecordRefused
from tests.events import NOW, event, line
from transforms.letters import Following, letters_by_python

native = pytest.importorskip("mixpanel_http._native", reason="the C extension is not built")

NUMBERS = [
    *("0", "-0", "1", "-1", "01", "1.", ".5", "1.0", "1.50", "0.5", "-0.5", "-0.0", "0.0", "0.00", "100.0"),
    *("0.1", "0.01", "0.001", "0.0001", "0.00001", "0.00012", "0.000012", "1e5", "1E5", "1e-5", "1.5e300"),
    *("123456789012345.6", "12345678901234.5", "99999999999999.9", "0.123456789012345", "0.1234567890123456"),
    *("0.000123456789012345", "9007199254740993", "123456789012345678", "-123456789012345678"),
    *("1234567890123456789", "12345678901234567890", "9" * 40, "1" + "0" * 400, "5e-324", "1e999", "-"),
    *("1.7976931348623157e308", "4.35", "0.30000000000000004", "1e", "1e+", "+1", "1.5.5", "NaN", "Infinity"),
]
STRINGS = [
    *(
        r"\u0041",
        r"\u00e9",
        r"\ud83d\ude00",
        r"\ud83d",
        r"\ude00",
        r"\ud83d\u0041",
        r"\ud83dx",
        r"\u12",
        r"\x41",
    ),
    *(r"\/", r"\"", r"\\", r"\b\f\n\r\t", r"\u0000", r"\u001f", r"\u007f", r"\u2028", r"\u0022", r"\u005c"),
    *("é", "😀", "\u2028", "\x7f", "\x1f", "\t", "a" * 7, "a" * 8, "a" * 9, "aaaaaaa\\n", "aaaaaaaé"),
]
BROKEN = [
    *(b"\xff", b"\xc3", b"\xc3\x28", b"\xc0\xaf", b"\xe0\x80\xaf", b"\xed\xa0\x80", b"\xf0\x80\x80\xaf"),
    *(b"\xf4\x90\x80\x80", b"\xe2\x82", b"\xf0\x9f\x98", b"\x80", b"\xf5\x80\x80\x80"),
]
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.decimals(allow_nan=False, allow_infinity=False, places=4).map(float)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)
spellings = st.fixed_dictionaries(
    {
        "ensure_ascii": st.booleans(),
        "separators": st.sampled_from([(",", ":"), (", ", ": "), (" ,\t", " : ")]),
    }
)


def expected(text: bytes) -> bytes | None:
    """What Python makes of a text, or None where it refuses it."""
    try:
        return canonical_by_parsing(text)
    except (ValueError, RecursionError):  # msgspec's errors are ValueErrors
        return None


def assert_is_told_truly(text: bytes) -> bool:
    """Holds an answer against Python's, and returns whether there was one."""
    told: bytes | None = native.canonical(text)
    assert told is None or told == expected(text)
    return told is not None


@settings(max_examples=300, deadline=None)
@given(json_values, spellings)
@example({"b": 1, "a": {"d": [1.5, {"z": None, "y": True}], "c": "é"}}, {"separators": (", ", ": ")})
def test_canonical_json_is_that_of_python_or_none(value: Any, spelling: dict[str, Any]) -> None:
    text = json.dumps(value, **spelling)
    if any(0xD800 <= ord(c) <= 0xDFFF for c in text):
        return

    assert_is_told_truly(text.encode())


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("around", [b"%b", b"[%b]", b'{"a":%b}', b'{"b":0,"a":%b }'])
def test_numbers_have_their_canonical_spelling(number: str, around: bytes) -> None:
    assert_is_told_truly(around % number.encode())


@pytest.mark.parametrize("content", [*(s.encode() for s in STRINGS), *BROKEN])
@pytest.mark.parametrize(
    "around", [b'"%b"', b'["x","%b"]', b'{"a":"%b"}', b'{"%b":1,"a":2}', b'"%b', b'"12345%b"']
)
def test_strings_have_their_canonical_spelling(content: bytes, around: bytes) -> None:
    assert_is_told_truly(around % content)


@settings(max_examples=300, deadline=None)
@given(st.floats(allow_nan=False, allow_infinity=False) | st.decimals(-1e6, 1e6, places=3).map(float))
def test_a_float_is_spelled_as_python_spells_it(value: float) -> None:
    told = assert_is_told_truly(repr(value).encode())

    if 1e-3 <= abs(value) < 1e9 and value == round(value, 4):
        assert told, "an ordinary number needs no second look"
    assert math.isfinite(value)


@pytest.mark.parametrize(
    "record", [event(), event(a={"b": [1, 2.5, None]}), event(**{"é": "\n", "$x": True})]
)
def test_an_ordinary_event_needs_no_second_look(record: dict[str, Any]) -> None:
    assert assert_is_told_truly(line(record))
    assert assert_is_told_truly(json.dumps(record, ensure_ascii=True).encode())


def test_a_key_that_stands_twice_is_left_to_python() -> None:
    assert native.canonical(b'{"a":1,"b":2,"a":3}') is None
    assert native.canonical(b'{"a":1,"\\u0061":3}') is None


@pytest.mark.parametrize("size", [63, 64, 65, 100_000])
def test_deep_nesting_is_left_to_python(size: int) -> None:
    text = b"[" * size + b"]" * size

    assert native.canonical(text) == (text if size <= 64 else None)


@pytest.mark.parametrize("members", [1, 255, 1024, 1025, 5000])
def test_many_members_are_sorted_or_left_to_python(members: int) -> None:
    record = {f"key {-index}": index for index in range(members)}

    assert assert_is_told_truly(json.dumps(record).encode()) == (members <= 1024)


@settings(max_examples=500, deadline=None)
@given(st.data())
def test_no_damage_to_an_event_is_overlooked(data: st.DataObject) -> None:
    text = bytearray(line(event(a=[1.5, {"b": "é\\u00e9"}], z="\U0001f600")))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(text) - 1))
        text[at : at + data.draw(st.integers(0, 2))] = data.draw(
            st.binary(max_size=2) | st.sampled_from(BROKEN)
        )
        if not text:
            break

    assert_is_told_truly(bytes(text))


@settings(max_examples=300, deadline=None)
@given(st.text('[]{},:"\\u0e1-. \ttrfalsn\n\0é', max_size=40).map(str.encode) | st.binary(max_size=40))
def test_any_bytes_are_told_truly_or_not_at_all(text: bytes) -> None:
    assert_is_told_truly(text)


def test_too_few_answers_for_a_block_are_an_error() -> None:
    assert scanner is not None
    scan = scanner.scan(line(event(**{"$insert_id": 5})) + b"\nno event", 2_000_000_000, True)
    with pytest.raises(IndexError):
        scan.body([], [], True)
    with pytest.raises(IndexError):
        scan.line(2)
    with pytest.raises(TypeError):
        scanner.scan("text", 0, True)  # type: ignore[arg-type]


# --- lines that end too early -------------------------------------------------------------------------------

_NESTED: list[Any] = [1.5, {"b": "é\n", "c": [True, None, {}]}, []]
WHOLE = json.dumps(event(a=_NESTED, z="\U0001f600"), ensure_ascii=False).encode()
FOR_A_CLOSER_LOOK = (b"t", b"tr", b"tru", b"n", b"nu", b"nul", b".", b"\\")


def assert_cut_short_is_told_truly(text: bytes) -> bool:
    """Holds what is told of a line that is no event against the judge; returns whether it is cut short."""
    assert scanner is not None
    scan = scanner.scan(text, int(NOW) + 3600, True)
    if "cut_short" in scan.refused:
        with pytest.raises(RecordRefused) as refused:
            check_event(text, EventRules(), NOW)
        assert (refused.value.reason, refused.value.message) == (Reason.INVALID_JSON, CUT_SHORT)
        assert (scan.refused, scan.suspects) == ({"cut_short": [0]}, [])
        assert scan.body([], [], True) == (b"", 0)
    return "cut_short" in scan.refused


def test_an_event_that_is_cut_short_needs_no_second_look() -> None:
    for size in range(1, len(WHOLE)):
        start = WHOLE[:size]
        told = assert_cut_short_is_told_truly(start)
        assert told or start.endswith(FOR_A_CLOSER_LOOK) or WHOLE[size] & 0xC0 == 0x80
        assert_cut_short_is_told_truly(b" " + start + b" \t\r ")
    assert not assert_cut_short_is_told_truly(WHOLE)
    assert assert_cut_short_is_told_truly(line(event(z="\U0001f600é"))[:-2])  # in escapes


@settings(max_examples=100, deadline=None)
@given(json_values, spellings, st.data())
def test_json_that_is_cut_short_has_the_judges_reason(
    value: Any, spelling: dict[str, Any], data: st.DataObject
) -> None:
    text = json.dumps({"event": value, "": [value]}, **spelling).encode(errors="replace")

    assert_cut_short_is_told_truly(text[: data.draw(st.integers(0, len(text)))])


@settings(max_examples=500, deadline=None)
@given(st.text('[]{},:"\\u0e1-. \t\rtrNaInfinity\0é\ufeff', max_size=30), st.integers(0, 80))
@example('{"a":NaN,"b":', 0)
@example("}\r{", 0)
def test_any_text_that_is_cut_short_has_the_judges_reason(text: str, size: int) -> None:
    assert_cut_short_is_told_truly(text.encode())
    assert_cut_short_is_told_truly(b'{"a":[' + text.encode())
    assert_cut_short_is_told_truly(WHOLE[:size] + text.encode())


@pytest.mark.parametrize("depth", [1, 31, 32, 33, 100_000])
def test_deep_nesting_that_is_cut_short_is_told_or_left_to_the_judge(depth: int) -> None:
    assert assert_cut_short_is_told_truly(b"[" * depth) == (depth <= 32)
    assert assert_cut_short_is_told_truly(b'{"a":' * depth) == (depth <= 32)


# --- dead letters -------------------------------------------------------------------------------------------

numbers = st.just(-1) | st.integers(0, 2**62)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.binary(max_size=12).map(lambda text: text.replace(b"\n", b"")), min_size=1, max_size=6),
    st.lists(st.tuples(st.integers(1, 3), numbers, numbers), max_size=3),
    st.booleans(),
    st.data(),
)
def test_letters_are_those_of_python(
    lines: list[bytes], places: list[Following], ends: bool, data: st.DataObject
) -> None:
    block = b"\n".join(lines) + b"\n" * ends
    known = sum(count for count, _, _ in places)
    places = [*places, (len(lines) - known, 1, 0)] if known < len(lines) else [(len(lines), 7, -1)]
    indices = data.draw(st.lists(st.integers(0, len(lines) - 1), max_size=8))
    openings, closings = (
        data.draw(st.lists(st.binary(max_size=9), min_size=len(indices), max_size=len(indices)))
        for _ in range(2)
    )
    contents = [data.draw(st.none() | st.binary(max_size=9)) for _ in indices]

    assert native.letters(block, places, indices, openings, closings, contents) == letters_by_python(
        block, places, indices, openings, closings, contents
    )


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"indices": [2]}, IndexError),
        ({"indices": [-1]}, IndexError),
        ({"indices": ["0"]}, TypeError),
        ({"places": [(3, 1, 0)]}, ValueError),
        ({"places": [(2, 1)]}, TypeError),
        ({"openings": []}, IndexError),
        ({"openings": ["x"]}, TypeError),
        ({"contents": [5]}, TypeError),
        ({"block": "a"}, TypeError),
    ],
)
def test_letters_of_what_is_not_there_are_an_error(wrong: dict[str, Any], error: type[Exception]) -> None:
    arguments: dict[str, Any] = {"block": b"a\nb", "places": [(2, 1, 0)], "indices": [0]}
    arguments |= {"openings": [b""], "closings": [b""], "contents": [None]}

    with pytest.raises(error):
        native.letters(*(arguments | wrong).values())


def test_an_extension_that_was_built_from_other_sources_is_as_good_as_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    older = types.ModuleType("mixpanel_http._native")
    monkeypatch.setattr(mixpanel_http, "_native", older, raising=False)
    assert runpy.run_path(compiled.__file__)["extension"] is None

    monkeypatch.setattr(older, "INTERFACE", compiled.INTERFACE, raising=False)
    assert runpy.run_path(compiled.__file__)["extension"] is older
