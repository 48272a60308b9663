"""Whole runs against the emulator's faults: all is in, or told, and resumed after the fix."""

from __future__ import annotations

import json

import pytest

from tests.backfills import Backfills, Outcome, event, events
from tests.fault_scripts import PATH, fault, happened

STORM = [
    {"name": "429", "path": PATH, "do": {"status": 429}, "when": {"share": 0.30, "seed": 1}},
    {"name": "503", "path": PATH, "do": {"status": 503}, "when": {"share": 0.10, "seed": 2}},
    {"name": "after", "path": PATH, "do": {"reset": "after"}, "when": {"share": 0.10, "seed": 3}},
    {"name": "before", "path": PATH, "do": {"reset": "before"}, "when": {"share": 0.05, "seed": 4}},
]


def assert_all_is_in(outcome: Outcome, backfills: Backfills, count: int) -> None:
    stats = backfills.emulator.stats()
    assert outcome.code == 0, outcome.out
    assert outcome.books["balanced"]
    assert outcome.books["imported"] == outcome.books["read"] == stats["distinct"] == count
    assert stats["duplicates_that_differ"] == 0


def storm(backfills: Backfills, count: int, per_request: int) -> Outcome:
    for part in range(4):
        backfills.write(f"{part}.json", events(count // 4, first=part * count // 4))
    backfills.emulator.faults(STORM)
    outcome = backfills.run(
        backfills.everything, {"limits.records_per_request": per_request, "limits.events_per_second": 10**6}
    )
    assert all(happened(backfills.emulator, name) > 0 for name in ("429", "503", "after", "before"))
    return outcome


def test_a_storm_of_faults_loses_nothing_and_alters_nothing(backfills: Backfills) -> None:
    outcome = storm(backfills, 4800, 100)

    assert_all_is_in(outcome, backfills, 4800)
    assert outcome.report["requests"]["retries"] > 20
    assert outcome.report["re_sent"]["events"] == outcome.report["requests"]["retries"] * 100
    held = {json.loads(r)["properties"]["$insert_id"]: r for r in backfills.emulator.records()}
    for n in range(0, 4800, 597):
        assert json.loads(held[f"id-{n:012d}"]) == event(n)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_a_storm_of_faults_over_a_million_events_loses_nothing(backfills: Backfills) -> None:
    outcome = storm(backfills, 1_000_000, 2000)

    assert_all_is_in(outcome, backfills, 1_000_000)


def test_what_is_not_delivered_in_time_can_be_replayed_or_resumed(backfills: Backfills) -> None:
    backfills.write("a.json", [*events(250), b"no json"])
    backfills.emulator.faults([fault({"status": 503}, nth=list(range(2, 400)))])
    changes = {
        "limits.records_per_request": 100,
        "limits.in_flight": 1,
        "limits.retry.give_up_after_seconds": 0.05,
        "run.id": "first",
        "run.allow_dead_letters": 1,
    }
    first = backfills.run(backfills.everything, changes)

    assert happened(backfills.emulator) > 1
    assert first.code == 5
    assert first.books["balanced"]
    assert (first.books["imported"], first.books["undelivered"]) == (100, 150)
    assert len(first.report["undelivered"]["files"]) == 2
    backfills.emulator.faults([])
    replayed = backfills.run(backfills.everything, {**changes, "run.id": "again"}, replay="first")
    stats = backfills.emulator.stats()
    assert replayed.books["imported"] == 150
    assert (stats["distinct"], stats["duplicates"]) == (250, 0)
    (letter,) = replayed.dead_letters()
    assert letter["source"] == {"uri": str(backfills.folder / "input" / "a.json"), "line": 251} | {
        "offset": letter["source"]["offset"]
    }
    resumed = backfills.run(backfills.everything, changes, resume="first")
    assert (resumed.code, resumed.books["imported"], resumed.books["undelivered"]) == (0, 250, 0)
    assert not resumed.report["undelivered"]["files"]
    assert backfills.emulator.stats()["distinct"] == 250


@pytest.mark.parametrize("status", [401, 404, 302])
def test_a_run_that_is_refused_ends_with_3_and_is_resumed_after_the_fix(
    status: int, backfills: Backfills
) -> None:
    backfills.write("a.json", events(500))
    changes = {"limits.records_per_request": 10, "run.id": "r"}
    backfills.emulator.faults([fault({"status": status, "body": "{}"}, after_s=0, nth=list(range(20, 999)))])
    stopped = backfills.run(backfills.everything, changes)

    assert happened(backfills.emulator) >= 1
    assert stopped.code == 3
    assert stopped.books["dead_lettered"] == stopped.books["undelivered"] == 0
    assert stopped.report["stopped_by"][0]["status"] == status
    backfills.emulator.faults([])
    resumed = backfills.run(backfills.everything, changes, resume="r")
    assert_all_is_in(resumed, backfills, 500)
