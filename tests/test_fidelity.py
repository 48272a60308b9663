"""Fidelity: what arrives is what was read, token for token, apart from the stamps that the report counts."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mixpanel_emulator.oracle import compare
from mixpanel_http.event_blocks import prepare_events
from mixpanel_http.event_rules import EventRules
from tests.backfills import Backfills
from tests.events import GONE, NOW, event, line, tokens

STAMPS = ("$insert_id", "ip")
# Values as they are spelled in a file: what a parser that goes through floats or text forms would change.
SPELLED = [
    b"12345678901234567890",
    b"18446744073709551616",
    b"-98765432109876543210",
    b"9007199254740993",
    b"0.10000000000000001",
    b"3.1415926535897931",
    b"1.7976931348623157e308",
    b"-0",
    b"-0.0",
    b"0e5",
    b"1E+2",
    b"1.50",
    b"1e999",
    b"-1e999",
    b"1e-999",
    rb'"\u0000"',
    rb'"a\u0000b"',
    b'"\xf0\x9f\x9a\x80"',
    rb'"\ud83d\ude80"',
    b'"\xc3\xa9"',
    b'"e\xcc\x81"',
    b'"\xe2\x80\xa8"',
    b'"\\/\\"\\\\"',
    rb'"\u003c\u007f"',
    b"[1, 2.0,  -0.0]",
    b'{"b": 1e999, "a": "\xf0\x9f\x9a\x80"}',
]


def spelled(value: bytes, number: int, **changes: object) -> bytes:
    """Returns an event with a value spelled so."""
    given = {"$insert_id": f"id-{number:09d}", **changes}
    return line(event(kept="@", **given)).replace(b'"@"', value)


def test_every_spelling_arrives_as_it_was_read(backfills: Backfills) -> None:
    lines = [spelled(value, number) for number, value in enumerate(SPELLED)]
    outcome = backfills.run(str(backfills.write("a.json", lines)))
    arrived = list(backfills.emulator.records())

    assert outcome.code == 0, outcome.out
    assert outcome.report["alterations"] == {}
    assert compare(lines, arrived).is_clean
    assert sorted(arrived) == sorted(lines)


def test_every_spelling_survives_a_stamp_and_each_stamp_is_counted(backfills: Backfills) -> None:
    lines = [
        spelled(value, number, ip=GONE, distinct_id=f"u{number}", **{"$insert_id": GONE})
        for number, value in enumerate(SPELLED)
    ]
    outcome = backfills.run(str(backfills.write("a.json", lines)))
    arrived = list(backfills.emulator.records())

    assert outcome.code == 0, outcome.out
    assert outcome.report["alterations"] == {
        "stamped_insert_ids": len(lines),
        "defaulted_ip": len(lines),
    }
    found = compare(lines, arrived, ignore=STAMPS)
    assert found.is_clean, found
    assert all(value in b"\n".join(arrived) for value in SPELLED)
    assert all("$insert_id" in json.loads(record)["properties"] for record in arrived)


def many(count: int, stamped: bool) -> Iterator[bytes]:
    """Yields events of every spelling, of which each third has neither id nor ip."""
    for number in range(count):
        if (number % 3 == 0) == stamped:
            gone = {"ip": GONE, "$insert_id": GONE} if stamped else {}
            name = f"{'stamped' if stamped else 'kept'}-{number}"
            yield spelled(SPELLED[number % len(SPELLED)], number, distinct_id=name, **gone)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_a_million_events_arrive_as_they_were_read_through_faults(backfills: Backfills) -> None:
    count = 1_000_000
    backfills.write("kept.json", many(count, stamped=False))
    backfills.write("stamped.json.gz", many(count, stamped=True))
    backfills.emulator.faults(
        [{"name": "reset", "path": "/import", "do": {"reset": "after"}, "when": {"every": 7}}]
    )
    outcome = backfills.run(backfills.everything, {"limits.events_per_second": 10**6})

    stamped = len(range(0, count, 3))
    assert outcome.code == 0, outcome.out
    assert outcome.report["alterations"] == {"stamped_insert_ids": stamped, "defaulted_ip": stamped}
    assert backfills.emulator.stats()["faults"]["reset"] > 10
    for is_stamped, ignored in ((False, ()), (True, STAMPS)):
        name = b'"stamped-' if is_stamped else b'"kept-'
        arrived = (record for record in backfills.emulator.records() if name in record)
        found = compare(many(count, is_stamped), arrived, ignore=ignored)
        assert found.is_clean, found
        assert found.stored == found.expected == (stamped if is_stamped else count - stamped)
        assert found.copies > 0  # those of requests that were sent again


def test_of_a_key_given_twice_both_arrive(backfills: Backfills) -> None:
    twice = spelled(b'1, "kept": 2.50', 1)
    outcome = backfills.run(str(backfills.write("a.json", [twice])))

    assert outcome.code == 0
    assert list(backfills.emulator.records()) == [twice]


numbers = st.one_of(
    st.integers(-(10**25), 10**25).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.from_regex(r"-?(0|[1-9][0-9]{0,20})(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?", fullmatch=True),
).filter(str.isascii)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
scalars = st.one_of(
    numbers,
    texts.map(json.dumps),
    texts.map(lambda t: json.dumps(t, ensure_ascii=False)),
    st.sampled_from(["true", "false", "null"]),
)
values = st.one_of(
    scalars,
    st.lists(scalars, max_size=4).map(lambda v: "[" + ", ".join(v) + "]"),
    st.dictionaries(texts, scalars, max_size=4).map(
        lambda v: "{" + ",".join(f"{json.dumps(k)}: {x}" for k, x in v.items()) + "}"
    ),
)


@st.composite
def records(draw: st.DrawFn) -> bytes:
    """Makes a valid event of odd values, with or without what would be stamped."""
    pairs = [("time", "1700000000"), ("distinct_id", '"user-1"')]
    pairs += draw(st.sampled_from([[], [("$insert_id", '"id-1"')], [("ip", '"0"')]]))
    names = draw(st.lists(texts, max_size=6, unique=True))
    reserved = {"time", "distinct_id", "$insert_id", "ip", "$user_id", "$device_id"}
    pairs += [(name, draw(values)) for name in names if name not in reserved]
    inside = ", ".join(f"{json.dumps(name)}:{value}" for name, value in draw(st.permutations(pairs)))
    return f'{{"event": "Made up", "properties": {{{inside}}}}}'.encode()


def assert_kept(lines: list[bytes]) -> None:
    prepared = prepare_events(b"\n".join(lines), EventRules(), NOW)
    sent = prepared.body.split(b"\n")

    assert prepared.rejections == ()
    assert prepared.count == len(sent) == len(lines)
    for before, after in zip(lines, sent, strict=True):
        was, came = tokens(before), tokens(after)
        for stamp in STAMPS:
            if stamp not in was["properties"]:
                del came["properties"][stamp]
        assert came == was
    missing = ["$insert_id" not in tokens(before)["properties"] for before in lines]
    assert prepared.alterations["stamped_insert_ids"] == sum(missing) == len(prepared.stamped_ids)


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(records(), min_size=1, max_size=20))
def test_made_up_records_are_kept_token_for_token(lines: list[bytes]) -> None:
    assert_kept(lines)


@pytest.mark.soak
@pytest.mark.timeout(900)
@settings(max_examples=10_000, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(records(), min_size=1, max_size=4))
def test_ten_thousand_made_up_blocks_are_kept_token_for_token(lines: list[bytes]) -> None:
    assert_kept(lines)
