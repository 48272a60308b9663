"""Blocks of lines that nobody thought of, drawn by chance: each line is judged as if it were alone."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixpanel_http.event_rules import EventRules
from tests.event_blocks import CLEAN, NEIGHBOURS, NO_IP, RULES, assert_each_line_is_judged_as_if_alone
from tests.events import GIVEN_ID

SPACE = st.sampled_from(["", "", "", " ", "\t", "  ", "\r"])
NUMBERS = "0 -0 1 1.0 1.50 -1 1e5 1E+2 0.1234567890123456789 1e999 12345678901234567890 1e-7 5 1700000000000"
NUMBER = st.sampled_from(["1700000000", *NUMBERS.split()])
WORDS = "a b time event properties distinct_id $insert_id ip anon abcdefghijkl $identify $user_id { } [ , 0 /"
WORD = st.sampled_from(
    [*WORDS.split(), "", '"', "\\", '"properties":{', "é", "\u2028", "\U0001f600", "\0", "x" * 300]
)


@st.composite
def spelled(draw: st.DrawFn, words: st.SearchStrategy[str] = WORD) -> str:
    """A word as JSON text, in one of the ways to spell it."""
    word = draw(words)
    way = draw(st.sampled_from(["plain", "plain", "plain", "ascii", "first", "all"]))
    text = json.dumps(word, ensure_ascii=way == "ascii")
    if way == "plain" or not word or ord(word[0]) > 0xFFFF:
        return text
    escaped = [f"\\u{ord(c):04x}" if ord(c) <= 0xFFFF else c for c in word]
    if way == "all":
        return '"' + "".join(escaped) + '"'
    return '"' + escaped[0] + json.dumps(word[1:])[1:] if way == "first" else text


@st.composite
def written_object(draw: st.DrawFn, members: list[tuple[str, str]]) -> str:
    """Members as a JSON object, in one of the ways to write it."""
    gap, wide = draw(SPACE), draw(SPACE)
    return "{" + wide + f"{gap},{wide}".join(f"{k}{gap}:{wide}{v}" for k, v in members) + gap + "}"


def _lists(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.lists(inner, max_size=3).map(lambda items: "[" + ",".join(items) + "]")


def _objects(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.lists(st.tuples(spelled(), inner), max_size=3).flatmap(written_object)


SCALAR = spelled() | NUMBER | st.sampled_from(["true", "false", "null"])
VALUE = st.recursive(SCALAR, lambda inner: _lists(inner) | _objects(inner), max_leaves=6)
KEY = spelled()


@st.composite
def events(draw: st.DrawFn) -> bytes:
    """Mostly an event, mostly a good one; its members in any order, some twice, some spelled oddly."""
    usual = {
        "time": st.just("1700000000"),
        "distinct_id": st.just('"user-1"'),
        "$insert_id": st.just(f'"{GIVEN_ID}"'),
        "ip": st.just('"1.2.3.4"'),
    }
    properties = []
    for name, value in usual.items():
        fate = draw(st.sampled_from(["usual"] * (9 if name[0] in "td" else 2) + ["odd", "gone"]))
        if fate != "gone":
            key = draw(spelled(st.just(name))) if fate == "odd" else f'"{name}"'
            properties.append((key, draw(value if fate == "usual" else VALUE | value)))
    properties += draw(st.lists(st.tuples(KEY, VALUE), max_size=3))
    own = ("properties", '"properties"', draw(written_object(draw(st.permutations(properties)))))
    members = [('"event"', draw(st.just('"Signup"') | SCALAR)), own[1:]]
    if draw(st.booleans()):
        members = draw(st.permutations(members + draw(st.lists(st.tuples(KEY, VALUE), max_size=2))))
    return draw(written_object(list(members))).encode()


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """An event to which something happened."""
    text = draw(events())
    at, until = sorted(draw(st.tuples(st.integers(0, len(text)), st.integers(0, len(text)))))
    dirt = st.sampled_from(
        [b"", b"\n", b"\xff", b"\xef\xbb\xbf", b"NaN", b'"', b"}", b"{", b"\\", b"\r", b" "]
    )
    dirt |= st.sampled_from([b"\0", b"\\ud800", b",", b"}{", b"}\n{", b"]", b"0"])
    until = draw(st.sampled_from([at, min(at + 1, len(text)), until]))
    return text[:at] + draw(dirt) + text[until:]


BLANK = st.sampled_from([b"", b" ", b"\r"])
ANY_LINE = st.one_of(st.sampled_from(NEIGHBOURS), events(), events(), damaged(), BLANK)
ALIKE = st.sampled_from(NEIGHBOURS).flatmap(lambda text: st.lists(st.just(text), min_size=1, max_size=3))
BLOCK = st.one_of(
    st.lists(ANY_LINE, max_size=5),
    st.lists(events(), max_size=5),
    st.tuples(ALIKE, events(), ALIKE).map(lambda parts: [*parts[0], parts[1], *parts[2]]),
)


def assert_blocks_are_judged_line_by_line(lines: list[bytes], rules: EventRules, ending: bytes) -> None:
    assert_each_line_is_judged_as_if_alone(b"\n".join(lines) + ending, rules)


@settings(max_examples=400, deadline=None)
@given(BLOCK, st.sampled_from(RULES), st.sampled_from([b"", b"\n", b"\r\n"]))
def test_any_block_is_judged_line_by_line(lines: list[bytes], rules: EventRules, ending: bytes) -> None:
    assert_blocks_are_judged_line_by_line(lines, rules, ending)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@settings(max_examples=50_000, deadline=None)
@given(BLOCK, st.sampled_from(RULES), st.sampled_from([b"", b"\n", b"\r\n"]))
def test_very_many_blocks_are_judged_line_by_line(
    lines: list[bytes], rules: EventRules, ending: bytes
) -> None:
    assert_blocks_are_judged_line_by_line(lines, rules, ending)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.binary(max_size=60), max_size=4), st.sampled_from(RULES))
def test_noise_is_refused_line_by_line(lines: list[bytes], rules: EventRules) -> None:
    assert_blocks_are_judged_line_by_line([CLEAN, *lines, NO_IP], rules, b"\n")
