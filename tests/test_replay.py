"""Replays: dead letters and undelivered records, sent again with their ids and places."""

from __future__ import annotations

import json

from tests.backfills import Backfills, event, events
from tests.fault_scripts import fault, happened, refusing


def test_ten_thousand_refused_records_are_replayed_with_their_ids_and_places(backfills: Backfills) -> None:
    for part in range(4):
        lines = [event(part * 5000 + n, region="eu" if n % 2 else "us") for n in range(5000)]
        for line in lines[1::2]:
            del line["properties"]["$insert_id"]
        backfills.write(f"{part}.json.gz", lines)
    refusal = refusing(500)
    backfills.emulator.faults([fault({"status": 400, "body": refusal}, every=2)])
    changes = {
        "limits.records_per_request": 500,
        "limits.in_flight": 1,
        "run.id": "first",
        "records.insert_id": {"mode": "content", "identical_rows": "keep"},
    }
    first = backfills.run(backfills.everything, changes)
    letters = {letter["insert_id"]: letter["source"] for letter in first.dead_letters()}

    assert (first.code, first.books["dead_lettered"], len(letters)) == (6, 10_000, 10_000)
    assert happened(backfills.emulator) == 20
    backfills.emulator.faults([fault({"status": 400, "body": refusal}, nth=[3])])
    changes["run.id"] = "second"
    second = backfills.run(backfills.everything, changes, replay="first")
    again = {letter["insert_id"]: letter["source"] for letter in second.dead_letters()}
    assert (second.books["read"], second.books["imported"], len(again)) == (10_000, 9500, 500)
    assert again.items() <= letters.items()
    backfills.emulator.faults([])
    changes["run.id"] = "third"
    third = backfills.run(backfills.everything, changes, replay="second")
    held = {json.loads(record)["properties"]["$insert_id"] for record in backfills.emulator.records()}
    assert (third.code, third.books["imported"]) == (0, 500)
    assert backfills.emulator.stats()["distinct"] == 20_000
    assert letters.keys() <= held
    assert backfills.emulator.stats()["duplicates"] == 0


def test_a_replay_is_resumed_like_any_run(backfills: Backfills) -> None:
    backfills.write("a.json", events(300))
    changes = {"limits.records_per_request": 100, "limits.in_flight": 1, "run.id": "first"}
    refusal = refusing(100)
    backfills.emulator.faults([fault({"status": 400, "body": refusal})])
    assert backfills.run(backfills.everything, changes).books["dead_lettered"] == 300
    backfills.emulator.faults([fault({"status": 401}, nth=[2, 3, 4])])
    changes["run.id"] = "again"
    stopped = backfills.run(backfills.everything, changes, replay="first")
    assert (stopped.code, stopped.books["imported"]) == (3, 100)
    backfills.emulator.faults([])

    resumed = backfills.run(backfills.everything, changes, resume="again")

    assert (resumed.code, resumed.books["imported"]) == (0, 300)
    stats = backfills.emulator.stats()
    assert (stats["distinct"], stats["duplicates"]) == (300, 0)
    header = json.loads((backfills.state / "again" / "manifest.jsonl").read_text().splitlines()[0])
    assert header["origin"] == "first"


def test_there_is_nothing_to_replay_where_all_is_in(backfills: Backfills) -> None:
    backfills.write("a.json", events(3))
    assert backfills.run(backfills.everything, {"run.id": "first"}).code == 0

    outcome = backfills.run(backfills.everything, {"run.id": "again"}, replay="first")

    assert outcome.code == 9
    assert "neither dead letters nor undelivered" in outcome.err


def test_a_run_that_does_not_exist_is_not_replayed(backfills: Backfills) -> None:
    outcome = backfills.run("nothing", replay="never")

    assert outcome.code == 2
    assert "never" in outcome.err


def test_updates_that_a_replay_has_sent_are_sent_neither_by_a_resume_nor_by_another_replay(
    backfills: Backfills,
) -> None:
    backfills.write("a.json", [{"$distinct_id": f"u-{n}", "$add": {"n": 1}} for n in range(20)])
    changes = {
        "records.kind": "profiles",
        "run.id": "first",
        "limits.retry": {"first_wait_seconds": 0.02, "give_up_after_seconds": 0.1},
    }
    backfills.emulator.faults([{**fault({"status": 429}), "path": "/engage"}])
    first = backfills.run(backfills.everything, changes)
    assert first.books["undelivered"] == 20, (first.books, first.err, first.report["requests"])
    backfills.emulator.faults([])
    assert backfills.run(backfills.everything, {**changes, "run.id": "second"}, replay="first").code == 0

    resumed = backfills.run(backfills.everything, changes, resume="first")
    replayed = backfills.run(backfills.everything, {**changes, "run.id": "third"}, replay="first")

    assert (resumed.code, replayed.code) == (2, 2)
    assert "has been replayed by run second" in resumed.err
    assert "has been replayed by run second" in replayed.err
    profiles = [json.loads(raw) for raw in backfills.emulator.records(kind="profiles")]
    assert [profile["$properties"]["n"] for profile in profiles] == [1] * 20
    assert backfills.run(backfills.everything, {**changes, "run.id": "second"}, resume="second").code == 0


def test_a_replay_finds_its_letters_whatever_the_state_folder_is_called(backfills: Backfills) -> None:
    path = backfills.write("a.json", [*events(3), b"{"])
    state = backfills.folder / "state[1] {date} *"
    changes = {"run.state": str(state), "run.id": "first"}
    assert backfills.run(str(path), changes).code == 6

    replayed = backfills.run(str(path), {**changes, "run.id": "second"}, replay="first")

    assert (replayed.code, replayed.books["dead_lettered"]) == (6, 1)
    assert backfills.run(str(path), {**changes, "run.id": "second"}, resume="second").code == 6
