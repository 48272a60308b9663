"""PrepareRecords: blocks of lines in, records and refusals out; what damage cut short is refused in place."""

import gzip
import pickle
from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.testing.util import assert_that, equal_to

from mixpanel_http.event_rules import EventRules
from mixpanel_http.insert_ids import InsertIdPolicy
from mixpanel_http.prepared import PreparedRecords
from mixpanel_http.verdicts import Reason
from tests.events import GONE, NOW, event, line
from tests.files import parts_of, read_blocks
from tests.steps import shown_settings, step_pipeline
from transforms.elements import Block, OversizeLine, PreparedBlock, Span
from transforms.prepare_records import PrepareRecords, prepare_block

GOOD = line(event())
NO_ID = line(event(**{"$insert_id": GONE}))
RULES = EventRules()


def now() -> float:
    return NOW


def two_hours_later() -> float:
    return NOW + 7200


def block_of(*lines: bytes, torn: tuple[int, ...] = (), ordinal: int = 0) -> Block:
    raw = b"".join(text + b"\n" for text in lines)
    return Block("s", "a", ordinal, raw, (Span(0, "x.json.gz", len(lines), len(raw), 1, 0),), torn=torn)


def assert_books_close(prepared: PreparedBlock) -> None:
    records = prepared.records
    assert prepared.block.lines == records.count + len(records.rejections) + records.blank
    assert records.count == (len(records.body.split(b"\n")) if records.body else 0)
    assert records.blank >= 0
    if records.kept is None:
        assert records.count == prepared.block.lines
    else:
        assert len(records.kept) == records.count


@pytest.mark.parametrize(
    ("lines", "torn"),
    [
        ((GOOD, GOOD[:20]), (1,)),
        ((GOOD[:20],), (0,)),
        ((GOOD, GOOD), (1,)),
        ((GOOD, b"", GOOD[:9], NO_ID), (2,)),
        ((b"", GOOD[:9]), (1,)),
        ((GOOD[:9], b"no json", GOOD[:5], b"", GOOD), (0, 2)),
        ((GOOD, b""), (1,)),
    ],
)
def test_a_line_that_damage_cut_short_is_refused_whatever_it_looks_like(
    lines: tuple[bytes, ...], torn: tuple[int, ...]
) -> None:
    prepared = prepare_block(block_of(*lines, torn=torn), RULES, NOW)
    reasons = {rejection.index: rejection.reason for rejection in prepared.records.rejections}

    assert_books_close(prepared)
    assert [index for index, reason in reasons.items() if reason == Reason.TRUNCATED_TAIL.value] == list(torn)
    whole = [i for i, text in enumerate(lines) if text in (GOOD, NO_ID) and i not in torn]
    assert list(prepared.records.kept or ()) == whole


def test_a_truncated_file_closes_its_books_block_by_block(tmp_path: Path) -> None:
    path = tmp_path / "a.json.gz"
    data = gzip.compress(b"".join(line(event(n=n)) + b"\n" for n in range(200)))
    for length in range(20, len(data), 37):
        path.write_bytes(data[:length])
        for block in read_blocks(parts_of(path))[:-1]:
            assert_books_close(prepare_block(block, RULES, NOW))


def test_a_giant_line_is_one_refusal() -> None:
    giant = Block("s", "a", 0, b"ggg", (Span(0, "x", 1, 9, 1, 0),), oversize=OversizeLine(90_000_000, "00"))
    prepared = prepare_block(giant, RULES, NOW)

    assert_books_close(prepared)
    (rejection,) = prepared.records.rejections
    assert (rejection.index, rejection.reason) == (0, "too_large")
    assert "90,000,000" in rejection.message


def test_the_last_block_has_no_records() -> None:
    end = Block("s", "a", 5, b"", (), end=True)

    assert prepare_block(end, RULES, NOW) == PreparedBlock(end, PreparedRecords(b"", 0))


def test_rows_that_are_kept_have_ids_of_their_place() -> None:
    rules = EventRules(InsertIdPolicy(identical_rows="keep"))
    prepared = prepare_block(block_of(NO_ID, b"", NO_ID), rules, NOW)
    again = prepare_block(block_of(NO_ID, b"", NO_ID), rules, NOW)

    assert len(set(prepared.records.stamped_ids)) == 2
    assert again == prepared


def test_rows_that_damage_shortens_move_no_place() -> None:
    rules = EventRules(InsertIdPolicy(identical_rows="keep"))
    whole = prepare_block(block_of(GOOD, NO_ID), rules, NOW).records.stamped_ids
    torn = prepare_block(block_of(GOOD, NO_ID, GOOD[:7], torn=(2,)), rules, NOW).records.stamped_ids

    assert whole == torn


# --- as a step ----------------------------------------------------------------------------------------------


def refusals(prepared: PreparedBlock) -> list[str]:
    return [rejection.reason for rejection in prepared.records.rejections]


def test_the_step_yields_each_block_with_its_records_and_refusals() -> None:
    blocks = [
        block_of(GOOD, NO_ID),
        block_of(b"{}", b"", GOOD, ordinal=1),
        Block("s", "a", 2, b"", (), end=True),
    ]
    with step_pipeline() as pipeline:
        prepared = pipeline | beam.Create(blocks) | PrepareRecords(RULES, now)
        assert_that(prepared, equal_to([prepare_block(block, RULES, NOW) for block in blocks]))


def test_the_step_asks_its_clock_about_future_times() -> None:
    late = block_of(line(event(time=NOW + 7200)))
    with step_pipeline() as pipeline:
        blocks = pipeline | beam.Create([late])
        early = blocks | "Early" >> PrepareRecords(RULES, now) | "A" >> beam.Map(refusals)
        later = blocks | "Later" >> PrepareRecords(RULES, two_hours_later) | "B" >> beam.Map(refusals)
        assert_that(early, equal_to([["future_time"]]), "RefusedEarly")
        assert_that(later, equal_to([[]]), "TakenLater")


def test_the_step_shows_its_settings() -> None:
    rules = EventRules(InsertIdPolicy("fields", ("order", "item"), "keep"), "original")
    shown = shown_settings(PrepareRecords(rules))

    assert shown == {
        "insert_id_mode": "fields",
        "insert_id_fields": "order, item",
        "identical_rows": "keep",
        "identity": "original",
    }


def test_the_step_survives_pickling() -> None:
    step = pickle.loads(pickle.dumps(PrepareRecords(RULES, now)))

    assert (step.rules, step.clock()) == (RULES, NOW)
