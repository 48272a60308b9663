"""Whole runs of updates of user and group profiles: what the emulator holds, dead letters, books."""

from __future__ import annotations

import base64
import json
import random
from typing import Any

import pytest

from mixpanel_emulator.process import EmulatorProcess, start_emulator
from mixpanel_http.crash_points import CRASHED
from mixpanel_http.records import alias, identify, merge
from tests.backfills import TOKEN, Backfills, event
from tests.emulator.talk import basic, call, send
from tests.processes import start

PROFILES = {"records.kind": "profiles"}
GROUPS = {"records.kind": "groups"}
EXPORT = "/api/2.0/export?from_date=2023-11-01&to_date=2023-12-01"


def held(emulator: EmulatorProcess, kind: str = "profiles") -> dict[str, Any]:
    """Returns the properties of the profiles that the emulator holds, by id."""
    id_of = {"profiles": "$distinct_id", "groups": "$group_id"}[kind]
    found = [json.loads(raw) for raw in emulator.records(kind=kind)]
    return {record[id_of]: record["$properties"] for record in found}


def test_every_operation_reaches_the_profiles(backfills: Backfills) -> None:
    backfills.write(
        "updates.json",
        [
            {"$distinct_id": "u-1", "$set": {"plan": "free", "coins": 3}},
            {"$distinct_id": "u-1", "$set_once": {"plan": "pro", "first": True}},
            {"$distinct_id": "u-1", "$add": {"coins": -1}},
            {"$distinct_id": "u-1", "$append": {"colours": "red"}},
            {"$distinct_id": "u-1", "$union": {"colours": ["red", "blue"]}},
            {"$distinct_id": "u-1", "$remove": {"colours": "red"}},
            {"$distinct_id": "u-1", "$append": {"$transactions": {"$amount": 9.5}}},
            {"$distinct_id": "u-1", "$unset": ["first"]},
            {"$distinct_id": "u-2", "$set": {"plan": "free"}},
            {"$distinct_id": "u-2", "$delete": ""},
        ],
    )
    outcome = backfills.run(backfills.everything, PROFILES)

    assert outcome.code == 0, outcome.err
    assert outcome.books["imported"] == outcome.books["read"] == 10
    assert held(backfills.emulator) == {
        "u-1": {"plan": "free", "coins": 2, "colours": ["blue"], "$transactions": [{"$amount": 9.5}]}
    }


def test_updates_of_groups_reach_the_groups(backfills: Backfills) -> None:
    backfills.write(
        "updates.json",
        [
            {"$group_key": "company", "$group_id": "acme", "$set": {"size": 10, "tags": ["a"]}},
            {"$group_id": "acme", "$union": {"tags": ["b"]}},
            {"$group_id": "acme", "$remove": {"tags": "a"}},
            {"$group_id": "acme", "$set_once": {"size": 1, "seats": 5}},
            {"$group_id": "acme", "$unset": ["size"]},
            {"$group_id": "gone", "$set": {"size": 1}},
            {"$group_id": "gone", "$delete": None},
            {"$group_id": "acme", "$add": {"seats": 1}},
        ],
    )
    outcome = backfills.run(backfills.everything, {**GROUPS, "records.group_key": "company"})

    assert outcome.code == 6
    assert held(backfills.emulator, "groups") == {"acme": {"tags": ["b"], "seats": 5}}
    (letter,) = outcome.dead_letters()
    assert (letter["reason"], letter["field"]) == ("bad_operation", "$add")


def test_flat_rows_are_operations_on_the_profile_that_a_field_names(backfills: Backfills) -> None:
    backfills.write("rows.json", [{"user": "u-1", "plan": "pro", "age": 30}, {"user": 7, "plan": "free"}])
    outcome = backfills.run(backfills.everything, {**PROFILES, "records.id_field": "user"})

    assert outcome.code == 0, outcome.err
    assert held(backfills.emulator) == {"u-1": {"plan": "pro", "age": 30}, "7": {"plan": "free"}}
    assert outcome.report["alterations"]["stringified_ids"] == 1


def test_last_seen_and_place_stay_what_they_are_unless_a_record_says_so(backfills: Backfills) -> None:
    backfills.write(
        "a.json",
        [
            {"$distinct_id": "u-1", "$set": {"a": 1}},
            {"$distinct_id": "u-2", "$ignore_time": False, "$ip": "9.9.9.9", "$set": {"a": 1}},
        ],
    )
    backfills.run(backfills.everything, PROFILES)
    sent = [json.loads(raw) for raw in backfills.emulator.records(kind="updates")]

    assert ["$last_seen" in properties for properties in held(backfills.emulator).values()] == [False, True]
    assert [update["$ip"] for update in sent] == [0, "9.9.9.9"]


def test_the_token_is_stamped_on_the_wire_and_written_down_nowhere(
    backfills: Backfills, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TOKEN, "tok-1b2c3d")
    backfills.write(
        "a.json",
        [
            {"$distinct_id": "u-1", "$set": {"a": 1}},
            {"$token": "tok-of-another", "$distinct_id": "u-2", "$set": {"a": 1}},
            {"$token": "tok-of-another", "$distinct_id": "", "$set": {"a": 1}},
        ],
    )
    outcome = backfills.run(backfills.everything, PROFILES)
    sent = [json.loads(raw) for raw in backfills.emulator.records(kind="updates")]

    assert [update["$token"] for update in sent] == ["tok-1b2c3d"] * 2
    assert [letter["reason"] for letter in outcome.dead_letters()] == ["missing_distinct_id"]
    assert "tok-" not in json.dumps(outcome.dead_letters())
    for path in backfills.state.rglob("*"):
        assert not path.is_file() or b"tok-1b2c3d" not in path.read_bytes()


def test_a_service_account_cannot_send_profiles(backfills: Backfills) -> None:
    account = {"service_account": {"username": "env:A", "secret": "env:B"}, "project_id": "1"}
    outcome = backfills.run("x.json", {**PROFILES, "destination.credentials": account})

    assert outcome.code == 2
    assert "records.kind profiles needs destination.credentials.project_token" in outcome.err


def test_profiles_are_not_sent_newest_first(backfills: Backfills) -> None:
    outcome = backfills.run("x.json", {**PROFILES, "source.order": "newest_first"})

    assert outcome.code == 2
    assert "source.order must be oldest_first" in outcome.err


def test_what_the_service_refuses_is_a_dead_letter_and_the_rest_is_imported(backfills: Backfills) -> None:
    many = {f"p{n}": n for n in range(1500)}
    backfills.write(
        "a.json",
        [
            {"$distinct_id": "u-1", "$set": many},
            {"$distinct_id": "u-1", "$set": {f"q{n}": n for n in range(1500)}},
            {"$distinct_id": "u-2", "$set": {"a": 1}},
        ],
    )
    outcome = backfills.run(backfills.everything, PROFILES)

    assert outcome.code == 6
    assert (outcome.books["imported"], outcome.books["dead_lettered"]) == (2, 1)
    (letter,) = outcome.dead_letters()
    assert (letter["stage"], letter["reason"], letter["source"]["line"]) == (
        "import",
        "refused_by_service",
        2,
    )
    assert letter["message"] == "profile is invalid: must have at most 2000 properties"
    assert set(held(backfills.emulator)) == {"u-1", "u-2"}


@pytest.mark.parametrize("collapse", [False, pytest.param(True, marks=pytest.mark.soak)])
def test_updates_of_one_profile_keep_the_order_of_the_input(backfills: Backfills, collapse: bool) -> None:
    chance = random.Random(5)
    last: dict[str, int] = {}
    number = 0
    for part in range(3):
        updates = []
        for _ in range(2500):
            user = f"u-{chance.randrange(300)}"
            updates.append({"$distinct_id": user, "$set": {"n": number}})
            last[user] = number
            number += 1
        backfills.write(f"2024-01-0{part + 1}/part.json", updates)
    slow = {"name": "slow", "path": "/engage", "do": {"delay_ms": 30}, "when": {"share": 0.4, "seed": 3}}
    lost = {"name": "lost", "path": "/engage", "do": {"reset": "after"}, "when": {"share": 0.2, "seed": 9}}
    backfills.emulator.faults([slow, lost])
    changes = {**PROFILES, "limits.records_per_request": 100, "records.collapse": collapse}
    outcome = backfills.run(str(backfills.folder / "input" / "{date}" / "*"), changes)

    assert outcome.code == 0, outcome.err
    assert outcome.books["imported"] == 7500
    assert {user: found["n"] for user, found in held(backfills.emulator).items()} == last
    assert backfills.emulator.stats()["faults"]["lost"] > 1
    assert (outcome.report["alterations"].get("collapsed_updates", 0) > 5000) == collapse


def test_records_that_carry_their_own_kind_go_each_where_it_belongs(backfills: Backfills) -> None:
    backfills.write(
        "spool.jsonl.gz",
        [
            b'["people",{"$token":"tok-x","$distinct_id":"u-1","$set":{"plan":"free"}}]',
            b'people::{"$distinct_id":"u-1","$set":{"plan":"pro"}}',
            b'["groups",{"$group_key":"company","$group_id":"acme","$set":{"size":3}}]',
            b'["events",{"event":"Signup","properties":{"time":1700000000,"distinct_id":"u-1"}}]',
            b'["people",{"$token":"tok-x","$distinct_id":"u-1","$add":{"n":"x"}}]',
            b'people::{"$token":"tok-x","$distin',
            {"event": "Login", "properties": {"time": 1700000001, "distinct_id": "u-2"}},
        ],
    )
    outcome = backfills.run(backfills.everything, {"records.kind": "mixed", "run.allow_dead_letters": 2})

    assert outcome.code == 0, outcome.err
    assert held(backfills.emulator)["u-1"] == {"plan": "pro"}
    assert held(backfills.emulator, "groups") == {"acme": {"size": 3}}
    assert backfills.emulator.stats()["events"] == 2
    assert outcome.report["by_endpoint"] == {
        "events": {"imported": 2},
        "groups": {"imported": 1},
        "people": {"imported": 2, "dead_lettered": 2},
    }
    assert {letter["reason"] for letter in outcome.dead_letters()} == {"bad_operation", "invalid_json"}
    assert "tok-x" not in json.dumps(outcome.dead_letters())
    raw = [letter.get("raw_b64", "") for letter in outcome.dead_letters()]
    assert b"tok-x" not in base64.b64decode("".join(raw))


def test_identity_records_link_ids_before_the_events_begin(backfills: Backfills) -> None:
    device = "0b1f6c3e-7a55-4c9e-9d0e-3b3f5f3f2a11"
    ids = [identify("u-1", device), alias("jane", "u-1"), merge("u-1", "u-9"), merge("a", "")]
    changes = {"records.kind": "identity", "destination.identity": "original", "run.allow_dead_letters": 1}
    path = str(backfills.write("ids.json", ids))
    assert backfills.run(path, {**changes, "destination.identity": "simplified"}).code == 2
    with start_emulator(settings={"identity": "original"}) as original:
        backfills.emulator = original
        outcome = backfills.run(path, changes)
        events = [event(n, distinct_id=one) for n, one in enumerate((device, "jane", "u-9"))]
        assert send(original.url, events).status == 200
        reply = call(original.url, "GET", EXPORT, headers={"Authorization": basic("t")})

    assert outcome.code == 0, outcome.err
    assert (outcome.books["imported"], outcome.books["dead_lettered"]) == (3, 1)
    exported = [json.loads(line)["properties"]["distinct_id"] for line in reply.body.splitlines()]
    assert exported[-3:] == ["u-1"] * 3


def test_a_token_that_is_not_the_projects_sends_nothing(backfills: Backfills) -> None:
    backfills.write("a.json", [{"$distinct_id": "u-1", "$set": {"a": 1}}])
    with start_emulator(settings={"tokens": "another-token"}) as service:
        backfills.emulator = service
        outcome = backfills.run(backfills.everything, PROFILES)
        paths = service.stats()["requests_by_path"]

    assert (outcome.code, outcome.books["imported"]) == (3, 0)
    assert [stop["status"] for stop in outcome.report["stopped_by"]] == [401]
    assert paths == {"/import": 1}


def write_updates(backfills: Backfills, count: int, users: int) -> dict[str, int]:
    """Writes updates in five files, each of which sets its own number, and returns what is to be left."""
    chance = random.Random(count)
    last: dict[str, int] = {}
    for part in range(5):
        updates = []
        for number in range(part * count // 5, (part + 1) * count // 5):
            user = f"u-{chance.randrange(users)}"
            updates.append({"$distinct_id": user, "$set": {"n": number}, "$ignore_time": True})
            last[user] = number
        backfills.write(f"{part}.json", updates)
    return last


def left(backfills: Backfills) -> dict[str, int]:
    return {user: found["n"] for user, found in held(backfills.emulator).items()}


def test_what_could_not_be_delivered_comes_in_order_with_the_resume(backfills: Backfills) -> None:
    last = write_updates(backfills, 2000, 100)
    changes = {
        **PROFILES,
        "run.id": "it",
        "limits.records_per_request": 50,
        "limits.in_flight": 4,
        "limits.retry.first_wait_seconds": 0.1,
        "limits.retry.longest_wait_seconds": 0.1,
        "limits.retry.give_up_after_seconds": 0.05,
    }
    refused = {"name": "busy", "path": "/engage", "do": {"status": 409}, "when": {"share": 0.4, "seed": 4}}
    backfills.emulator.faults([refused])
    first = backfills.run(backfills.everything, changes)
    backfills.emulator.faults([])
    second = backfills.run(backfills.everything, changes, resume="it")

    assert (first.code, second.code) == (5, 0), first.err + second.err
    assert first.books["balanced"]
    assert first.books["undelivered"] > 100
    assert second.books["imported"] == 2000
    assert left(backfills) == last


@pytest.mark.soak
@pytest.mark.parametrize("point", ["after record:7", "between answer and receipt:30", "after progress:12"])
def test_a_crash_leaves_each_profile_as_its_last_update_has_it(backfills: Backfills, point: str) -> None:
    last = write_updates(backfills, 3000, 150)
    changes = {**PROFILES, "run.id": "it", "limits.records_per_request": 50, "limits.in_flight": 4}
    config = backfills.config(backfills.everything, changes)
    code, _, err = start(config, crash_at=point).end()
    assert code == CRASHED, err
    code, report, err = backfills.resume(config)

    assert code == 0, err
    assert report["books"]["imported"] == 3000
    assert left(backfills) == last
