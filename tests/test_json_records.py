"""JSON that is no NDJSON: cut into records by its structure, token for token, whatever is broken in it."""

import base64
import json
import random
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from source_formats.json_lines import HELD_BYTES
from source_formats.json_records import read_json
from source_formats.json_structure import Within, scan
from source_formats.lines import FormatProblem, Lines
from tests.events import event, tokens

Read = tuple[list[bytes], list[int], str | None]


def read(text: bytes, size: int = 1 << 20) -> Read:
    """Every line, where its record starts, and what is wrong with the file."""
    raw, problem = b"", None
    offsets: list[int] = []
    try:
        for lines in read_json(text[i : i + size] for i in range(0, len(text), size)):
            raw += lines.raw
            offsets += lines.offsets or ()
    except FormatProblem as error:
        problem = f"{error.problem} {error.offset}"
    return raw.splitlines(), offsets, problem


def lines_of(text: bytes) -> list[bytes]:
    lines, offsets, problem = read(text)
    assert problem is None
    assert len(lines) == len(offsets)
    return lines


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (b"", []),
        (b" \n", []),
        (b"[]", []),
        (b"[ ]\n", []),
        (b'[{"a":1},{"b":2}]', [b'{"a":1}', b'{"b":2}']),
        (b'\xef\xbb\xbf[{"a":1}]\n', [b'{"a":1}']),
        (b'[\r\n{"a":1},\r\n{"b":2}\r\n]\r\n', [b'{"a":1}', b'{"b":2}']),
        (b'[{\n  "a": [1,\n 2]\n}]', [b'{"a":[1,2]}']),
        (b'{"a":1}{"b":2}\n{"c":3}', [b'{"a":1}', b'{"b":2}', b'{"c":3}']),
        (b'{"a":1},\n{"b":2},\n', [b'{"a":1}', b'{"b":2}']),
        (b'[{"a":1}]\n[{"b":2}]{"c":3}', [b'{"a":1}', b'{"b":2}', b'{"c":3}']),
        (b'[[{"a":1}],{"b":{"c":[{}]}}]', [b'[{"a":1}]', b'{"b":{"c":[{}]}}']),
        (
            b'[{"a":"},{\\"]"},{"b":"\\\\"},{"c":"\\\\\\""}]',
            [b'{"a":"},{\\"]"}', b'{"b":"\\\\"}', b'{"c":"\\\\\\""}'],
        ),
        (b'[1, "two", null, {"a":1}]', [b"1", b'"two"', b"null", b'{"a":1}']),
        (b'[{"n":12345678901234567890.10}]', [b'{"n":12345678901234567890.10}']),
        (b'[{"n":\n1E400}]', [b'{"n":1E400}']),
    ],
)
def test_records_are_what_the_text_holds(text: bytes, lines: list[bytes]) -> None:
    assert lines_of(text) == lines


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (b'[{"e":1},{"e":nope},{"e":3}]', [b'{"e":1}', b'{"e":nope}', b'{"e":3}']),
        (b'[{"e":1},{"e":NaN},{"e":3}]', [b'{"e":1}', b'{"e":NaN}', b'{"e":3}']),
        (b'[{"e":{"x":1},{"e":2},{"e":3}]', [b'{"e":{"x":1}', b'{"e":2}', b'{"e":3}']),
        (b'[{"e":"x},{"e":2},{"e":3}]', [b'{"e":"x}', b'{"e":2}', b'{"e":3}']),
        (b'[{"e":1}{"e":2}]', [b'{"e":1}', b'{"e":2}']),
        (b'{"e":1}\n{"e":{"p":2}\n{"e":3}\n', [b'{"e":1}', b'{"e":{"p":2}', b'{"e":3}']),
        (b'rubbish {"e":1}\n{"e":2}', [b"rubbish", b'{"e":1}', b'{"e":2}']),
        (b'{"e":1}\n{"e":"\n{"e":3}\n', [b'{"e":1}', b'{"e":"', b'{"e":3}']),
        (b"rubbish", [b"rubbish"]),
    ],
)
def test_the_neighbours_of_a_broken_record_are_whole(text: bytes, lines: list[bytes]) -> None:
    assert lines_of(text) == lines


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (b'[{"e":1}},{"e":2}]', [b'{"e":2}']),
        (b'{"e":1}\n},{"e":2}', [b'{"e":2}']),
        (b'[{"e":1},"f":2},{"e":2}]', [b'"f":2', b'{"e":2}']),
        (b'{"e":1}"f":2}{"e":2}', [b'"f":2', b'{"e":2}']),
        (b'[{"e":1},"e":2},{"e":3}]', [b'{"e":1}', b'"e":2', b'{"e":3}']),
    ],
)
@pytest.mark.parametrize("size", [1, 3, 1 << 20])
def test_what_may_be_the_front_of_a_record_only_is_refused(
    text: bytes, lines: list[bytes], size: int
) -> None:
    found, _, _ = read(text, size)

    assert [line for line in found if line != base64.b64encode(b'{"e":1}')] == lines


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (b"[", []),
        (b'[{"a":1}', [b'{"a":1}']),
        (b'[{"a":1},', [b'{"a":1}']),
        (b'[{"a":1},{"a":', [b'{"a":1}', b'{"a":']),
        (b'[{"a":1},{"a":"\n', [b'{"a":1}', b'{"a":"']),
        (b'{"a":1}{"a":[', [b'{"a":1}', b'{"a":[']),
    ],
)
def test_a_text_that_ends_too_early_is_told(text: bytes, lines: list[bytes]) -> None:
    read_lines, _, problem = read(text)
    assert read_lines == lines
    assert problem == f"truncated {len(text)}"


def test_what_is_cut_short_has_no_newline() -> None:
    pieces: list[Lines] = []
    with pytest.raises(FormatProblem, match="inside of a JSON array"):
        pieces.extend(read_json([b'[{"a":1},{"b":']))
    assert b"".join(lines.raw for lines in pieces) == b'{"a":1}\n{"b":'


KEYS = st.text('ab"\\{}[], \n', max_size=4)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text('ab"\\{}[], \n', max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)
RECORDS = st.lists(st.dictionaries(KEYS, VALUES, max_size=3), max_size=5)
LAYOUTS = [
    lambda texts: "[" + ",".join(texts) + "]",
    lambda texts: "[\n  " + ",\n  ".join(texts) + "\n]\n",
    lambda texts: "\ufeff[ " + " , ".join(texts) + "]",
    lambda texts: "".join(texts),
    lambda texts: "\r\n\r\n".join(texts),
]


@settings(max_examples=150, deadline=None)
@given(
    RECORDS,
    st.sampled_from(range(len(LAYOUTS))),
    st.sampled_from([None, 1, 4]),
    st.booleans(),
    st.integers(1, 40),
)
def test_any_records_in_any_layout_cut_anywhere_come_out_as_they_are(
    records: list[dict[str, Any]], layout: int, indent: int | None, ascii_only: bool, size: int
) -> None:
    texts = [json.dumps(record, indent=indent, ensure_ascii=ascii_only) for record in records]
    text = LAYOUTS[layout](texts).encode("utf-8", "surrogatepass")
    lines, offsets, problem = read(text, size)

    assert problem is None
    assert [tokens(line) for line in lines] == [tokens(one.encode("utf-8", "surrogatepass")) for one in texts]
    assert [text[offset : offset + 1] for offset in offsets] == [b"{"] * len(records)
    assert offsets == sorted(offsets)


@settings(max_examples=150, deadline=None)
@given(st.text('[]{},:"\\ \nae1', max_size=60), st.integers(1, 7))
def test_any_text_is_read_alike_however_it_is_cut(text: str, size: int) -> None:
    raw = text.encode()

    assert read(raw, size) == read(raw)


@settings(max_examples=200, deadline=None)
@given(st.text('[]{},"\\a', max_size=40), st.integers(0, 40))
def test_a_scan_goes_on_where_another_ended(text: str, at: int) -> None:
    raw = text.encode()
    first, whole = scan(raw[:at]), scan(raw)
    second = scan(raw[at:], first.end)

    assert second.end == whole.end
    assert [*first.depth, *second.depth] == whole.depth.tolist()
    assert [*first.at, *(second.at + len(raw[:at]))] == whole.at.tolist()


def test_a_scan_of_nothing_ends_where_it_began() -> None:
    begun = Within(2, True, True)

    assert scan(b"", begun).end == begun


@pytest.mark.parametrize("size", [1 << 16, 1 << 20, 5 << 20])
def test_a_giant_record_is_passed_on_as_it_comes_and_its_neighbours_are_whole(size: int) -> None:
    giant = b'{"e":"' + b"x,}" * (4 << 20) + b'"}'
    lines, offsets, problem = read(b'[{"e":1},\n' + giant + b',\n{"e":2}]', size)

    assert (lines, problem) == ([b'{"e":1}', giant, b'{"e":2}'], None)
    assert offsets == [1, 10, 12 + len(giant)]


def test_records_are_found_again_behind_one_that_does_not_end() -> None:
    record = b'{"e":"' + b"x" * 1000 + b'"}'
    many = [record] * (HELD_BYTES // 500)
    lines = lines_of(b'[{"e":{"x":1,' + b",".join(many) + b"]")

    assert lines == [b'{"e":{"x":1', *many]


def test_what_holds_no_record_at_all_stays_small() -> None:
    held = max(len(lines.raw) for lines in pieces_until_trouble([b"[" * (1 << 20)] * 20))

    assert held <= HELD_BYTES + (2 << 20)


def pieces_until_trouble(chunks: Sequence[bytes]) -> list[Lines]:
    found: list[Lines] = []
    with pytest.raises(FormatProblem):
        found.extend(read_json(chunks))
    return found


def test_one_damaged_byte_costs_few_records() -> None:
    dice = random.Random(11)
    records = [event(n=n, text="a b c", more={"d": [n, n]}) for n in range(60)]
    clean = json.dumps(records, indent=1).encode()
    wanted = {json.dumps(record, separators=(",", ":")) for record in records}
    for _ in range(300):
        damaged = bytearray(clean)
        damaged[dice.randrange(1, len(clean) - 1)] = dice.choice(b'"{}[],:\\x \n')
        lines, _, _ = read(bytes(damaged))

        assert len(wanted - {line.decode() for line in lines}) <= 2


def test_records_before_damage_may_be_nested_deep() -> None:
    deep = b'{"id":1,"d":' + b"[" * 900 + b"]" * 900 + b"}"
    lines = lines_of(b"[" + deep + b',{"id":2,"d:0},{"id":3,"d":0}]')

    assert lines == [deep, b'{"id":2,"d:0}', b'{"id":3,"d":0}']
