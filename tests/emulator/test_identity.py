"""Identity: links between devices and users, and clusters of ids, as export shows them."""

import json
import uuid
from typing import Any

from mixpanel_emulator.process import EmulatorProcess
from tests.emulator.conftest import StartEmulator
from tests.emulator.talk import basic, call, event, send

MONTH = "/api/2.0/export?from_date=2023-11-01&to_date=2023-12-01"


def exported_ids(emulator: EmulatorProcess) -> list[str]:
    reply = call(emulator.url, "GET", MONTH, headers={"Authorization": basic("t")})
    return [json.loads(line)["properties"]["distinct_id"] for line in reply.body.splitlines()]


def from_device(number: int, device: str, user: str | None = None) -> dict[str, Any]:
    made = event(number, **{"$device_id": device})
    del made["properties"]["distinct_id"]
    if user:
        made["properties"]["$user_id"] = user
    return made


def test_a_link_joins_what_the_device_sent_before_and_after(emulator: EmulatorProcess) -> None:
    events = [from_device(1, "phone"), from_device(2, "phone", "ann"), from_device(3, "$device:phone")]
    assert send(emulator.url, events).status == 200
    assert exported_ids(emulator) == ["ann", "ann", "ann"]


def test_the_first_user_of_a_device_keeps_it(emulator: EmulatorProcess) -> None:
    events = [from_device(1, "phone", "ann"), from_device(2, "phone", "bob"), from_device(3, "phone")]
    send(emulator.url, events)
    assert exported_ids(emulator) == ["ann", "bob", "ann"]


def test_a_device_that_nobody_claimed_stays_a_device(emulator: EmulatorProcess) -> None:
    send(emulator.url, [from_device(1, "phone")])
    assert exported_ids(emulator) == ["$device:phone"]


def test_identity_events_make_a_simplified_project_refuse_the_batch(
    emulator: EmulatorProcess, start: StartEmulator
) -> None:
    merge = {**event(1, **{"$distinct_ids": ["a", "b"]}), "event": "$merge"}
    reply = send(emulator.url, [event(0), merge])
    assert reply.status == 400
    assert reply.json()["num_records_imported"] == 0
    assert emulator.stats()["stored"] == 0
    one = start(identity_verbs="refuse_record")
    assert send(one.url, [event(0), merge]).json()["num_records_imported"] == 1
    silent = start(identity_verbs="ignore")
    assert send(silent.url, [event(0), merge]).status == 200
    assert silent.stats()["stored"] == 1


def test_an_original_project_merges_aliases_and_identifies(start: StartEmulator) -> None:
    project = start(identity="original", export_per_hour="0")
    anonymous = str(uuid.UUID(int=7, version=4))
    verbs = [
        {**event(90, **{"$distinct_ids": ["a", "b"]}), "event": "$merge"},
        {**event(91, distinct_id="a", alias="a-too"), "event": "$create_alias"},
        {**event(92, **{"$identified_id": "c", "$anon_id": anonymous}), "event": "$identify"},
        {**event(93, **{"$identified_id": "d", "$anon_id": "not-a-uuid"}), "event": "$identify"},
    ]
    users = [event(n, distinct_id=who) for n, who in enumerate(["b", "a-too", anonymous, "not-a-uuid"])]
    assert send(project.url, users + verbs).status == 200
    assert exported_ids(project)[:4] == ["a", "a", "c", "not-a-uuid"]


def test_a_cluster_takes_no_more_than_500_ids(start: StartEmulator) -> None:
    project = start(identity="original", export_per_hour="0")
    merges = [
        {**event(number, **{"$distinct_ids": ["hub", f"id-{number}"]}), "event": "$merge"}
        for number in range(505)
    ]
    send(project.url, merges + [event(600 + n, distinct_id=f"id-{n}") for n in range(505)])
    merged = exported_ids(project)[505:]
    assert merged.count("hub") == 499
