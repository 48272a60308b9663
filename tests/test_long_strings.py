"""Strings that Mixpanel will cut are counted, all of them, and what is not cut is not."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixpanel_http import limits
from mixpanel_http.long_strings import count_truncated

TEXT = st.sampled_from(["a", "é", "\U0001f600", '"', "\\", "\\\\", '\\"', "\n", " ", "/", "\u0000"])
PIECES = st.tuples(TEXT, st.sampled_from([0, 1, 2, 120, 127, 128, 129, 253, 254, 255, 256, 257, 400]), TEXT)
STRINGS = PIECES.map(lambda piece: piece[0] * piece[1] + piece[2])
VALUES = st.recursive(
    STRINGS | st.integers() | st.none() | st.lists(st.floats(0, 1), max_size=60),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(STRINGS, inner, max_size=3),
    max_leaves=4,
)


def is_long(value: object) -> bool:
    """Says the same naively."""
    if isinstance(value, str):
        return len(value) > limits.MAX_STRING
    if isinstance(value, dict):
        return any(is_long(x) for pair in value.items() for x in pair)
    return isinstance(value, list) and any(is_long(x) for x in value)


@given(st.lists(st.dictionaries(STRINGS, VALUES, max_size=4), min_size=1, max_size=6), st.booleans())
def test_a_look_at_every_string_counts_the_same(records: list[dict[str, object]], ascii_only: bool) -> None:
    lines = [json.dumps({"event": "e", "properties": p}, ensure_ascii=ascii_only) for p in records]
    body = "\n".join(lines).encode()

    assert count_truncated(body) == sum(map(is_long, records))


@pytest.mark.parametrize("length", [255, 256, 257, 1000])
@pytest.mark.parametrize("before", range(0, 130, 13))
def test_a_long_string_is_found_wherever_it_lies(length: int, before: int) -> None:
    records = [{"p": "y" * before}, {"a": "x" * length}, {"n" * length: 1}, {"p": ["z" * length]}]
    body = b"\n".join(json.dumps({"properties": p}).encode() for p in records)

    assert count_truncated(body) == (3 if length > 255 else 0)


@pytest.mark.parametrize("body", [b"", b"{}", b'{"properties":null}', b"[1]"])
def test_what_has_no_strings_has_no_long_ones(body: bytes) -> None:
    assert count_truncated(body) == 0
