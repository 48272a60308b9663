"""Dead letters: what was refused, why, from where, and the record as it came."""

import base64
import json
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mixpanel_http.verdicts import Rejection
from tests.events import GONE, event, line, tokens
from transforms.dead_letters import LinePlaces, dead_letters, sent_insert_id
from transforms.elements import Block, OversizeLine, Span, block_lines

GOOD = line(event())


def block_of(*lines: bytes, **changes: Any) -> Block:
    raw = b"".join(text + b"\n" for text in lines)
    return Block("s", "a", 0, raw, (Span(0, "s3://b/x.json.gz", len(lines), len(raw), 11, 500),), **changes)


def letter_for(text: bytes, **changes: Any) -> dict[str, Any]:
    (letter,) = dead_letters(
        block_of(text, **changes), [Rejection(0, "why", "properties.x", "because")], "prepare"
    )
    found: dict[str, Any] = json.loads(letter)
    return found


def test_a_dead_letter_tells_all_that_a_person_needs() -> None:
    rejection = Rejection(1, "refused_by_service", "properties.time", "'time' is old", 400)
    (letter,) = dead_letters(block_of(b"{}", GOOD), [rejection], "import", ["id-1"])

    assert b"\n" not in letter
    assert json.loads(letter) == {
        "v": 1,
        "stage": "import",
        "reason": "refused_by_service",
        "http_status": 400,
        "field": "properties.time",
        "message": "'time' is old",
        "source": {"uri": "s3://b/x.json.gz", "line": 12, "offset": 503},
        "insert_id": "id-1",
        "record": event(),
    }


def test_what_was_not_sent_has_no_status_and_no_id() -> None:
    letter = letter_for(GOOD)

    assert (letter["http_status"], letter["insert_id"]) == (None, None)


def test_letters_come_in_the_order_of_the_refusals() -> None:
    block = block_of(b"1", b"2", b"3")
    letters = [
        json.loads(text) for text in dead_letters(block, [Rejection(i, "r", None, "") for i in (2, 0)], "x")
    ]

    assert [letter["record"] for letter in letters] == [3, 1]
    assert list(dead_letters(block, [], "x")) == []


RECORDS = [
    b'{"a":12345678901234567890,"b":1.10,"c":1e999,"d":-0,"\\u0061":"\\u0000"}',
    b' {"a" : [ ] }\t\r',
    b"[1,2]",
    b"null",
    '"é😀"'.encode(),
]


@pytest.mark.parametrize("record", RECORDS)
def test_a_record_is_kept_token_for_token(record: bytes) -> None:
    (letter,) = dead_letters(block_of(record), [Rejection(0, "r", None, "m")], "prepare")

    assert b'"record":' + record.strip() in letter
    assert tokens(letter)["record"] == tokens(record)


NOT_JSON = [
    b"{",
    b"",
    b"\xff",
    b'{"a":"\xc3"}',
    b'{"a":NaN}',
    b'{"a":"\\ud800"}',
    b"\xef\xbb\xbf{}",
    b"[" * 100_000,
    b"\0",
    b"{}{}",
    b"9" * 5000,
]


@pytest.mark.parametrize("text", NOT_JSON)
def test_what_is_no_json_is_kept_byte_for_byte(text: bytes) -> None:
    letter = letter_for(text)

    assert base64.b64decode(letter["raw_b64"]) == text
    assert "record" not in letter


@settings(max_examples=200, deadline=None)
@given(
    st.text('[]{},:"\\u0dx1e9-. \t\rtruenNa\0é\ufeff', max_size=20).map(str.encode) | st.binary(max_size=8)
)
@example(b'"\\ud800"')
@example(b"9" * 4301)
@example(b"[" * 4000 + b"]" * 4000)
def test_a_record_is_told_as_json_only_if_all_of_it_can_be_decoded(text: bytes) -> None:
    text = text.replace(b"\n", b"")
    letter = letter_for(text)

    try:
        text.decode()
        msgspec.json.Decoder(float_hook=str).decode(text)
    except (ValueError, RecursionError):
        assert base64.b64decode(letter["raw_b64"]) == text
    else:
        assert "record" in letter


def test_of_a_giant_line_the_beginning_the_length_and_the_hash_are_kept() -> None:
    span = Span(0, "x.json", 1, 90_000_001, 7, 100)
    giant = Block("s", "a", 0, b"ggg", (span,), oversize=OversizeLine(90_000_000, "ab" * 32))
    (text,) = dead_letters(giant, [Rejection(0, "too_large", None, "m")], "prepare")
    letter = json.loads(text)

    assert (letter["truncated"], letter["length"], letter["sha256"]) == (True, 90_000_000, "ab" * 32)
    assert base64.b64decode(letter["raw_b64"]) == b"ggg"
    assert letter["source"] == {"uri": "x.json", "line": 7, "offset": 100}


@pytest.mark.parametrize("head", [b'{"a":1}', b"123", b"ggg"])
def test_the_beginning_of_a_giant_line_never_passes_for_a_record(head: bytes) -> None:
    giant = Block("s", "a", 0, head, (Span(0, "x", 1, 9, 1, 0),), oversize=OversizeLine(9, "00"))
    (text,) = dead_letters(giant, [Rejection(0, "too_large", None, "m")], "prepare")

    assert base64.b64decode(json.loads(text)["raw_b64"]) == head


def test_lines_know_their_places_across_files() -> None:
    spans = (
        Span(0, "a.json", 2, 5, 9, 100),
        Span(1, "b.json.gz", 1, 3, None, 0),
        Span(3, "c.json", 1, 2, 1, 0),
    )
    block = Block("s", "a", 0, b"1\n\xc3\xa9\n22\n3\n", spans)
    places = LinePlaces(block, block_lines(block))

    assert places.sources == [
        ("a.json", 9, 100),
        ("a.json", 10, 102),
        ("b.json.gz", None, 0),
        ("c.json", 1, 0),
    ]
    assert [places.id_place(i) for i in range(4)] == [
        ("a.json", 100),
        ("a.json", 102),
        ("b.json", 0),
        ("c.json", 0),
    ]


@pytest.mark.parametrize(
    ("raw", "lines"), [(b"", []), (b"\n", [b""]), (b"a", [b"a"]), (b"a\n", [b"a"]), (b"a\n\n", [b"a", b""])]
)
def test_a_block_has_the_lines_between_its_newlines(raw: bytes, lines: list[bytes]) -> None:
    assert block_lines(Block("s", "a", 0, raw, ())) == lines


@pytest.mark.parametrize("x", ["1e999", "9" * 5000, '{"$insert_id":"inner"}', "1.5"])
def test_the_id_that_was_sent_is_found_whatever_else_is_in_the_record(x: str) -> None:
    record = line(event(x="@", **{"$insert_id": "outer"})).replace(b'"@"', x.encode())

    assert sent_insert_id(record) == "outer"


def test_a_record_that_was_sent_without_an_id_has_none() -> None:
    assert sent_insert_id(line(event(**{"$insert_id": GONE}))) is None
