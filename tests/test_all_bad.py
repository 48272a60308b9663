"""Input of which every line is bad: nothing crashes, each line is told, and a run can be made to stop."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mixpanel_http.event_blocks import prepare_events
from mixpanel_http.event_rules import EventRules, check_event
from pipelines.ledger import ErrorLimit, Ledger
from pipelines.state import StateFolder
from tests.backfills import Backfills, Outcome, events, ndjson
from transforms.tally import Counts

NO_LIMIT = {"run.max_errors": "100%", "run.allow_dead_letters": "100%"}


def unparsable(count: int) -> Iterator[bytes]:
    """Yields lines that differ, each of them an event that was cut short."""
    return (line[:-9] for line in ndjson(events(count)).splitlines())


def assert_each_line_is_told_once(outcome: Outcome, path: Path, lines: list[bytes]) -> None:
    told = {letter["source"]["line"]: letter for letter in outcome.dead_letters()}
    assert outcome.books["balanced"]
    assert outcome.books["read"] == outcome.books["dead_lettered"] == len(told) == len(lines)
    offset = 0
    for number, line in enumerate(lines, 1):
        letter = told[number]
        assert letter["source"] == {"uri": str(path), "line": number, "offset": offset}
        assert (letter["reason"], base64.b64decode(letter["raw_b64"])) == ("invalid_json", line)
        offset += len(line) + 1


def test_input_that_is_all_bad_is_told_line_by_line_and_sends_nothing(backfills: Backfills) -> None:
    lines = list(unparsable(12_000))
    path = backfills.write("a.json", lines)
    outcome = backfills.run(str(path), NO_LIMIT)

    assert outcome.code == 0
    assert outcome.report["dead_letters"]["by_reason"] == {"invalid_json": 12_000}
    assert_each_line_is_told_once(outcome, path, lines)
    assert backfills.emulator.stats()["requests"] == 0


@pytest.mark.parametrize(
    ("limit", "crossed", "dry_run"), [("1%", 20, False), (3000, 3000, True), (None, 10_000, False)]
)
def test_a_run_of_bad_lines_stops_soon_after_its_limit(
    limit: int | str | None, crossed: int, dry_run: bool, backfills: Backfills
) -> None:
    path = backfills.write("a.json", [b"{"] * 60_000)
    outcome = backfills.run(str(path), {"run.max_errors": limit}, dry_run=dry_run)

    assert outcome.code == 8
    assert outcome.books["balanced"]
    assert crossed < outcome.books["dead_lettered"] < 60_000
    (stop,) = outcome.report["stopped_by"]
    assert "more than run.max_errors allows" in stop["message"]


def test_by_default_many_bad_records_stop_a_run_only_if_they_are_most(backfills: Backfills) -> None:
    good, bad = ndjson(events(11_000)).splitlines(), list(unparsable(11_000))
    path = backfills.write("a.json", [line for pair in zip(good, bad, strict=True) for line in pair])
    outcome = backfills.run(str(path))

    assert outcome.code == 6
    assert (outcome.books["imported"], outcome.books["dead_lettered"]) == (11_000, 11_000)


@pytest.mark.parametrize(
    ("limit", "dead_lettered", "read", "stops"),
    [
        (None, 10_000, 10_000, False),
        (None, 10_001, 10_001, True),
        (None, 10_001, 20_002, False),
        (None, 10_002, 20_003, True),
        ("1%", 20, 2000, False),
        ("1%", 21, 2000, True),
        ("100%", 10**6, 10**6, False),
        (0, 0, 10**6, False),
        (0, 1, 10**6, True),
    ],
)
def test_a_limit_is_passed_by_the_first_record_beyond_it(
    limit: Any, dead_lettered: int, read: int, stops: bool
) -> None:
    ledger = Ledger(StateFolder("unused"), max_errors=ErrorLimit.parse(limit))

    reason = ledger.too_many_errors(Counts(read=read, dead_lettered=dead_lettered))

    assert (reason is not None) == stops


def seconds(work: Callable[[], object]) -> float:
    """Returns the shortest of three times that work takes."""
    times = []
    for _ in range(3):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times)


@pytest.mark.soak
def test_lines_that_cannot_be_read_cost_at_most_twice_what_checking_a_good_one_does() -> None:
    # A good line looked at alone: whole blocks of good lines pass by vectors, many times as fast as either.
    now, rules = 1_750_000_000.0, EventRules()
    good, bad = ndjson(events(20_000)).splitlines(), b"\n".join(unparsable(20_000))

    checking = seconds(lambda: [check_event(line, rules, now) for line in good])

    assert len(prepare_events(bad, rules, now).rejections) == 20_000
    assert seconds(lambda: prepare_events(bad, rules, now)) <= 2 * checking


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_a_million_lines_that_are_all_bad_are_told_one_by_one(backfills: Backfills) -> None:
    lines = list(unparsable(1_000_000))
    path = backfills.write("a.json", lines)
    outcome = backfills.run(str(path), NO_LIMIT)

    assert outcome.code == 0
    assert_each_line_is_told_once(outcome, path, lines)


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_a_million_lines_that_are_all_bad_stop_a_run_within_five_seconds(backfills: Backfills) -> None:
    path = backfills.write("a.json", unparsable(1_000_000))
    outcome = backfills.run(str(path), {"run.id": "r"})
    ended_at = time.time()

    (stop,) = (backfills.state / "r" / "ledger").glob("stop.*")
    assert outcome.code == 8
    assert outcome.books["balanced"]
    assert 10_000 < outcome.books["dead_lettered"] < 50_000
    assert ended_at - stop.stat().st_mtime <= 5
