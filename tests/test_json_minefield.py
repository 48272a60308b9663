"""The minefield of JSON: what must be parsed is, what must be refused is, and neighbours always arrive."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from mixpanel_http.event_blocks import prepare_events
from mixpanel_http.event_rules import EventRules, check_event
from mixpanel_http.prepared import PreparedRecords
from mixpanel_http.verdicts import RecordRefused
from tests.backfills import Backfills
from tests.events import NOW, event, line
from tests.files import COMPRESS, parts_of, read_blocks
from tests.json_minefield import EITHER, must_parse, must_refuse
from transforms.prepare_records import prepare_block
from transforms.segment_reader import BlockLimits

PARSED, REFUSED = must_parse(), must_refuse()
NOT_JSON = {"invalid_json", "invalid_utf8", "non_finite_number"}
RULES = EventRules()
BEFORE, AFTER = line(event(place="before")), line(event(place="after"))


def judged(record: bytes) -> str:
    """Returns why the judge refuses a line, or `sent`."""
    try:
        check_event(record, RULES, NOW)
    except RecordRefused as refused:
        return refused.reason.value
    return "sent"


def as_value(value: bytes) -> bytes:
    """Returns an event with a property spelled so."""
    return line(event(kept="@")).replace(b'"@"', value)


def prepared(record: bytes) -> PreparedRecords:
    """Returns what becomes of a line between two good ones."""
    return prepare_events(b"\n".join([BEFORE, record, AFTER]), RULES, NOW)


def assert_refused_between_neighbours(record: bytes, reason: str) -> None:
    found = prepared(record)
    assert found.body == BEFORE + b"\n" + AFTER
    assert [(r.index, r.reason) for r in found.rejections] == [(1, reason)]


def test_the_classes_are_as_large_as_they_should_be() -> None:
    assert len(PARSED) >= 95
    assert len(REFUSED) >= 188
    assert len(EITHER) >= 35
    assert not any(b"\n" in case for case in [*PARSED.values(), *REFUSED.values()])
    assert not set(PARSED.values()) & set(REFUSED.values())


def test_what_must_be_parsed_is_sent_as_it_is_spelled() -> None:
    for name, value in PARSED.items():
        record = as_value(value)

        assert judged(record) == ("too_deep" if name == "nesting" else "sent"), name
        if name != "nesting":
            assert prepared(record).body == b"\n".join([BEFORE, record, AFTER]), name


def test_what_must_be_parsed_but_is_no_event_is_refused_for_that() -> None:
    for value in PARSED.values():
        reason = "missing_properties" if value.startswith(b"{") else "not_object"

        assert judged(value) == reason, value
        assert_refused_between_neighbours(value, reason)


def test_what_must_be_refused_is_alone_and_as_a_value() -> None:
    for name, value in REFUSED.items():
        for record in (value, as_value(value)):
            reason = judged(record)

            assert reason in NOT_JSON, name
            assert_refused_between_neighbours(record, reason)


def test_what_may_be_either_is_what_the_table_says() -> None:
    for name, (value, expected) in EITHER.items():
        record = as_value(value)

        assert judged(record) == expected, name
        if expected == "sent":
            assert prepared(record).body == b"\n".join([BEFORE, record, AFTER]), name
        else:
            assert_refused_between_neighbours(record, expected)


@pytest.mark.parametrize(
    ("record", "hint"),
    [
        (b"\xef\xbb\xbf" + BEFORE, "a byte order mark may only stand at the beginning of a file"),
        (BEFORE + b"\r" + AFTER, "not in CR alone"),
        (b"\0" * 99, "all NUL bytes"),
    ],
)
def test_of_a_line_that_its_file_spoilt_the_refusal_says_how(record: bytes, hint: str) -> None:
    (refusal,) = prepared(record).rejections

    assert hint in refusal.message


# --- sandwiches ---------------------------------------------------------------------------------------------

BAD = [*REFUSED.values(), *(as_value(value) for value in REFUSED.values())]
BAD += [as_value(value) for value, fate in EITHER.values() if fate != "sent" and len(value) < 10_000]


def good_line(number: int) -> bytes:
    return line(event(place=number))


def assert_neighbours_arrive(dice: random.Random, folder: Path, count: int) -> None:
    """Reads a file of so many sandwiches, in some compression and with some ends of lines."""
    ends = dice.choice([b"\n", b"\r\n"])
    suffix = dice.choice(list(COMPRESS))
    good = [good_line(number) for number in range(count + 1)]
    lines = [good[0]]
    for following in good[1:]:
        lines += [*dice.choices(BAD, k=dice.choice([1, 1, 1, 2, 9])), following]
    content = ends.join(lines) + dice.choice([b"", ends])
    path = folder / f"sandwiches.json{suffix}"
    path.write_bytes(COMPRESS[suffix](dice.choice([b"", b"\xef\xbb\xbf"]) + content))
    limits = BlockLimits(dice.choice([1, 7, 2000]), dice.choice([500, 100_000]))
    found = [prepare_block(block, RULES, NOW).records for block in read_blocks(parts_of(path), limits)]

    assert [record for each in found if each.count for record in _records(each)] == good
    refused = sum(len(each.rejections) + each.blank for each in found)
    assert refused + len(good) == content.count(b"\n") + (not content.endswith(b"\n"))


def _records(prepared: PreparedRecords) -> Sequence[bytes]:
    return [record.removesuffix(b"\r") for record in prepared.body.split(b"\n")]


@pytest.mark.parametrize("seed", range(10))
def test_good_lines_between_bad_ones_are_always_kept(seed: int, tmp_path: Path) -> None:
    assert_neighbours_arrive(random.Random(seed), tmp_path, 40)


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_ten_thousand_sandwiches(tmp_path: Path) -> None:
    for seed in range(100):
        assert_neighbours_arrive(random.Random(1000 + seed), tmp_path, 100)


def test_a_run_over_the_whole_minefield_delivers_every_good_line(backfills: Backfills) -> None:
    good = [line(event(place=number, **{"$insert_id": f"id-{number:06}"})) for number in range(len(BAD) + 1)]
    lines = [good[0]]
    for bad, following in zip(BAD, good[1:], strict=True):
        lines += [bad, following]
    outcome = backfills.run(
        str(backfills.write("a.json", lines)), {"run.allow_dead_letters": "100%", "run.max_errors": "100%"}
    )

    assert outcome.code == 0, outcome.err
    assert sorted(backfills.emulator.records()) == sorted(good)
    assert outcome.books["dead_lettered"] == len(BAD)
    assert set(outcome.report["dead_letters"]["by_reason"]) <= NOT_JSON | {"lone_surrogate", "too_deep"}
