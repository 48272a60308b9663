"""Dead letters are opened to the records that they hold, with the places and ids that those had."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixpanel_http.verdicts import Rejection
from transforms.dead_letters import dead_letters
from transforms.elements import Block, OversizeLine, Span
from transforms.letters_again import open_letters

RECORD = (
    b'{"event":"a","properties":{"time":1,"big":123456789012345678901234567890,"f":1.50e1,"s":"\\u00e9"}}'
)


def block_of(lines: list[bytes], uri: str = "letters.jsonl.gz") -> Block:
    raw = b"".join(line + b"\n" for line in lines)
    return Block("0000000", "attempt", 3, raw, (Span(0, uri, len(lines), len(raw), 1, 0),))


def letters_of(
    lines: list[bytes], reason: str = "refused_by_service", sent: str | None = None
) -> list[bytes]:
    block = block_of(lines, "s3://bucket/a.json")
    return list(
        dead_letters(
            block, [Rejection(i, reason, None, "m") for i in range(len(lines))], "import", [sent] * 9
        )
    )


@given(
    st.lists(
        st.binary(max_size=40).filter(lambda b: b"\n" not in b) | st.just(RECORD), min_size=1, max_size=5
    )
)
def test_a_letter_opened_is_the_line_that_it_was_written_for(lines: list[bytes]) -> None:
    opened = open_letters(block_of(letters_of(lines)))

    got = opened.raw.removesuffix(b"\n").split(b"\n")
    assert [line.strip(b" \t\r") for line in got] == [line.strip(b" \t\r") for line in lines]
    offsets = [sum(len(x) + 1 for x in lines[:i]) for i in range(len(lines))]
    assert [(s.uri, s.first_line, s.offset, s.lines) for s in opened.spans] == [
        ("s3://bucket/a.json", i + 1, offsets[i], 1) for i in range(len(lines))
    ]
    assert (opened.ordinal, opened.lines) == (3, len(lines))


def test_the_id_that_was_sent_is_put_into_the_record_and_nothing_else_changes() -> None:
    opened = open_letters(block_of(letters_of([RECORD], sent="id-1"))).raw.strip()

    assert opened == RECORD[:-2] + b',"$insert_id":"id-1"}}'


def test_the_id_is_put_into_a_record_that_carries_its_own_kind() -> None:
    opened = open_letters(block_of(letters_of([b'["events",%b]' % RECORD], sent="id-1"))).raw.strip()

    assert opened == b'["events",%b]' % (RECORD[:-2] + b',"$insert_id":"id-1"}}')


def test_a_record_that_has_its_id_stays_byte_for_byte() -> None:
    record = b'{ "properties": {"$insert_id":"id-1", "x": 1.0}, "event": "a" }'

    assert open_letters(block_of(letters_of([record], sent="id-1"))).raw == record + b"\n"


def test_another_id_gives_way_to_the_one_that_was_sent() -> None:
    record = b'{"event":"a","properties":{"$insert_id":"not valid!","x":1}}'
    opened = json.loads(open_letters(block_of(letters_of([record], sent="made"))).raw)

    assert opened["properties"] == {"$insert_id": "made", "x": 1}


def test_a_line_that_damage_cut_short_is_still_one() -> None:
    opened = open_letters(block_of([*letters_of([RECORD]), *letters_of([b'{"eve'], "truncated_tail")]))

    assert opened.torn == (1,)


@pytest.mark.parametrize(
    "line",
    [
        b"no letter",
        b"{}",
        RECORD,
        b'{"source":{"uri":"a"}}',
        b'{"source":{"uri":"a"},"raw_b64":"?"}',
        b'{"source":{"uri":"a"},"raw_b64":"%b"}' % base64.b64encode(b"two\nlines"),
        b"\xff",
        b"",
    ],
)
def test_what_is_no_letter_stays_as_it_is_at_its_own_place(line: bytes) -> None:
    opened = open_letters(block_of([*letters_of([RECORD]), line, *letters_of([RECORD])]))

    assert opened.raw.split(b"\n")[1] == line
    assert (opened.spans[1].uri, opened.spans[1].first_line) == ("letters.jsonl.gz", 2)
    assert opened.spans[2].uri == "s3://bucket/a.json"


def test_a_block_without_letters_is_left_alone() -> None:
    for block in (
        Block("s", "a", 0, b"", (), end=True),
        Block("s", "a", 0, b"x", (), oversize=OversizeLine(9, "h")),
    ):
        assert open_letters(block) is block
