"""Reading back: raw export, counts, profiles, lookup tables and the Lexicon."""

import gzip
import json
from typing import Any
from urllib.parse import quote, urlencode

import pytest

from mixpanel_emulator.process import EmulatorProcess
from tests.emulator.conftest import StartEmulator
from tests.emulator.talk import FORM, JSON, Reply, basic, call, event, send

AUTH = {"Authorization": basic("t")}
DAY = 86400
START = 1700006400  # 2023-11-15 00:00 UTC


def get(emulator: EmulatorProcess, path: str, **headers: str) -> Reply:
    return call(emulator.url, "GET", path, headers={**AUTH, **headers})


def export(emulator: EmulatorProcess, **given: str) -> list[dict[str, Any]]:
    asked = {"from_date": "2023-11-15", "to_date": "2023-11-20", **given}
    return [
        json.loads(line) for line in get(emulator, "/api/2.0/export?" + urlencode(asked)).body.splitlines()
    ]


def three_days() -> list[dict[str, Any]]:
    return [
        {**event(n, time=START + n % 3 * DAY + n, plan="pro" if n % 2 else "free", n=n), "event": f"E{n % 2}"}
        for n in range(12)
    ]


def test_export_shows_every_copy_with_what_the_server_adds(emulator: EmulatorProcess) -> None:
    sent = event(time=START * 1000 + 999, ip="1.2.3.4", text="x" * 300)
    send(emulator.url, [sent, sent])
    first, second = export(emulator)
    assert first["properties"] == second["properties"]
    properties = first["properties"]
    assert properties["time"] == START
    assert properties["$import"] is True
    assert properties["text"] == "x" * 255
    assert "ip" not in properties
    assert {"mp_processing_time_ms", "$mp_api_endpoint", "$mp_api_timestamp_ms"} <= set(properties)
    assert export(emulator, time_in_ms="true")[0]["properties"]["time"] == START * 1000 + 999


def test_export_is_narrowed_by_dates_names_expression_and_limit(emulator: EmulatorProcess) -> None:
    send(emulator.url, three_days())
    assert len(export(emulator)) == 12
    assert len(export(emulator, from_date="2023-11-16", to_date="2023-11-16")) == 4
    assert {row["event"] for row in export(emulator, event='["E1"]')} == {"E1"}
    assert len(export(emulator, where='properties["plan"] == "pro" and properties["n"] > 5')) == 3
    assert len(export(emulator, where='event["$time"] >= datetime("2023-11-17")')) == 4
    assert len(export(emulator, limit="5")) == 5


def test_export_is_compressed_when_it_is_worth_it(emulator: EmulatorProcess) -> None:
    path = "/api/2.0/export?from_date=2023-11-15&to_date=2023-11-20"
    send(emulator.url, three_days()[:1])
    assert "content-encoding" not in get(emulator, path, **{"Accept-Encoding": "gzip"}).headers
    send(emulator.url, three_days())
    reply = get(emulator, path, **{"Accept-Encoding": "gzip"})
    assert reply.headers["content-encoding"] == "gzip"
    assert len(gzip.decompress(reply.body).splitlines()) == 13


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("to_date=2023-11-20", "from_date is required"),
        ("from_date=2023-11-15&to_date=soon", "to_date must be a date"),
        ("from_date=2023-11-20&to_date=2023-11-15", "from_date cannot be later"),
        ("from_date=2023-11-15&to_date=2023-11-20&limit=100001", "limit must be"),
        ("from_date=2023-11-15&to_date=2023-11-20&where=" + quote("properties[1"), "expected"),
    ],
)
def test_export_refuses_what_it_cannot_answer(emulator: EmulatorProcess, query: str, message: str) -> None:
    reply = get(emulator, "/api/2.0/export?" + query)
    assert reply.status == 400
    assert message in reply.body.decode()


def test_export_and_queries_have_quotas_of_their_own(start: StartEmulator) -> None:
    project = start(export_per_hour="2", query_per_hour="1")
    path = "/api/2.0/export?from_date=2023-11-15&to_date=2023-11-20"
    assert [get(project, path).status for _ in range(3)] == [200, 200, 429]
    assert int(get(project, path).headers["retry-after"]) > 3000
    query = "/api/query/events/names?project_id=7"
    assert [get(project, query).status for _ in range(2)] == [200, 429]
    assert "Query rate limit exceeded for project_id: 7" in get(project, query).json()["error"]


def test_reports_count_one_of_each_set_of_copies(emulator: EmulatorProcess) -> None:
    send(emulator.url, three_days())
    send(emulator.url, three_days())
    path = "/api/query/events?" + urlencode(
        {"event": '["E0","E1"]', "from_date": "2023-11-15", "to_date": "2023-11-17", "unit": "day"}
    )
    assert get(emulator, path).json() == {
        "data": {
            "series": ["2023-11-15", "2023-11-16", "2023-11-17"],
            "values": {
                "E0": {"2023-11-15": 2, "2023-11-16": 2, "2023-11-17": 2},
                "E1": {"2023-11-15": 2, "2023-11-16": 2, "2023-11-17": 2},
            },
        },
        "legend_size": 2,
    }
    assert len(export(emulator)) == 24


def test_segmentation_splits_by_a_property_and_counts_people(emulator: EmulatorProcess) -> None:
    send(emulator.url, [event(n, time=START + n, plan=["a", "b", "b"][n % 3]) for n in range(9)])
    asked = {
        "event": "Signup",
        "from_date": "2023-11-15",
        "to_date": "2023-11-15",
        "on": 'properties["plan"]',
    }
    values = get(emulator, "/api/query/segmentation?" + urlencode(asked)).json()["data"]["values"]
    assert values == {"a": {"2023-11-15": 3}, "b": {"2023-11-15": 6}}
    del asked["on"]
    people = get(emulator, "/api/query/segmentation?" + urlencode({**asked, "type": "unique"})).json()
    assert people["data"]["values"] == {"Signup": {"2023-11-15": 7}}


def test_event_names_come_most_frequent_first(emulator: EmulatorProcess) -> None:
    send(emulator.url, [*three_days(), {**event(50, time=START), "event": "E1"}])
    path = "/api/query/events/names?from_date=2023-11-01&to_date=2023-11-30"
    assert get(emulator, path).json() == ["E1", "E0"]


def profiles(count: int) -> bytes:
    updates = [{"$token": "t", "$distinct_id": f"u{n:05}", "$set": {"n": n}} for n in range(count)]
    return json.dumps(updates).encode()


@pytest.mark.parametrize("path", ["/api/query/engage", "/api/query/engage/", "/api/2.0/engage"])
def test_profiles_are_read_page_by_page_until_nothing_is_left(emulator: EmulatorProcess, path: str) -> None:
    for _ in range(2):
        call(emulator.url, "POST", "/engage", profiles(1500), {"Content-Type": JSON})
    seen: list[str] = []
    session = ""
    for page, size in enumerate([1000, 500, 0]):
        fields = {"project_id": "1", "page": str(page), "session_id": session}
        reply = call(
            emulator.url, "POST", path, urlencode(fields).encode(), {**AUTH, "Content-Type": FORM}
        ).json()
        assert (reply["page"], reply["page_size"], reply["total"], reply["status"]) == (
            page,
            1000,
            1500,
            "ok",
        )
        assert len(reply["results"]) == size
        seen += [row["$distinct_id"] for row in reply["results"]]
        session = reply["session_id"]
    assert len(set(seen)) == 1500


def test_profiles_are_narrowed_by_ids_expression_and_properties(emulator: EmulatorProcess) -> None:
    call(emulator.url, "POST", "/engage", profiles(20), {"Content-Type": JSON})

    def ask(**fields: Any) -> list[dict[str, Any]]:
        body = json.dumps({"project_id": 1, **fields}).encode()
        reply = call(emulator.url, "POST", "/api/query/engage/", body, {**AUTH, "Content-Type": JSON})
        results: list[dict[str, Any]] = reply.json()["results"]
        return results

    assert len(ask(where='user["n"] >= 15')) == 5
    assert len(ask(distinct_ids=json.dumps(["u00001", "u00002"]))) == 2
    assert ask(distinct_id="u00003", output_properties=["n"]) == [
        {"$distinct_id": "u00003", "$properties": {"n": 3}}
    ]
    get_reply = get(emulator, "/api/2.0/engage?distinct_id=u00003&project_id=1")
    assert len(get_reply.json()["results"]) == 1


def test_group_profiles_are_asked_for_by_their_key(emulator: EmulatorProcess) -> None:
    body = json.dumps(
        [{"$token": "t", "$group_key": "company", "$group_id": "acme", "$set": {"a": 1}}]
    ).encode()
    call(emulator.url, "POST", "/groups", body, {"Content-Type": JSON})
    fields = urlencode({"data_group_id": "company"}).encode()
    reply = call(emulator.url, "POST", "/api/query/engage", fields, {**AUTH, "Content-Type": FORM})
    assert [row["$distinct_id"] for row in reply.json()["results"]] == ["acme"]


def test_a_later_page_needs_the_session_of_the_first(emulator: EmulatorProcess) -> None:
    reply = call(emulator.url, "POST", "/api/query/engage", b"page=1", {**AUTH, "Content-Type": FORM})
    assert reply.status == 400
    assert "session_id" in reply.json()["error"]


def test_a_lookup_table_is_replaced_whole_and_listed(emulator: EmulatorProcess) -> None:
    path = "/lookup-tables/one?project_id=1"
    packed = {**AUTH, "Content-Encoding": "gzip"}
    assert call(emulator.url, "PUT", path, gzip.compress(b"id,f\nk,1\n"), packed).json()["code"] == 200
    bad = call(emulator.url, "PUT", path, b"id,f\n" + b"k,1\n" * 30, AUTH)
    assert bad.status == 400
    assert len(bad.json()["failed_records"]) == 10
    listed = get(emulator, "/lookup-tables?project_id=1").json()
    assert [row["id"] for row in listed["results"]] == ["one"]


def test_lookup_tables_can_be_replaced_a_hundred_times_a_day(start: StartEmulator) -> None:
    project = start(table_calls_per_day="2")
    path = "/lookup-tables/one?project_id=1"
    assert [call(project.url, "PUT", path, b"id,f\n", AUTH).status for _ in range(3)] == [200, 200, 429]


def test_lexicon_schemas_are_written_merged_read_and_deleted(emulator: EmulatorProcess) -> None:
    base = "/api/app/projects/1/schemas"
    first = {"description": "d", "metadata": {"com.mixpanel": {"tags": ["a"], "hidden": True}}}
    entries = {"entries": [{"entityType": "event", "name": "E/1", "schemaJson": first}]}
    added = call(emulator.url, "POST", base, json.dumps(entries).encode(), AUTH).json()
    assert added == {"results": {"added": 1, "deleted": 0}, "status": "ok"}
    second = {"description": "new", "metadata": {"com.mixpanel": {"hidden": False}}}
    call(emulator.url, "POST", base + "/event/E%2F1", json.dumps(second).encode(), AUTH)
    (stored,) = get(emulator, base + "/event?entity_name=E%2F1").json()["results"]
    assert stored["schemaJson"] == {
        "description": "new",
        "metadata": {"com.mixpanel": {"tags": ["a"], "hidden": False}},
    }
    assert get(emulator, base + "/profile").json()["results"] == []
    deleted = call(emulator.url, "DELETE", base, None, AUTH).json()
    assert deleted == {"results": {"delete_count": 1}, "status": "ok"}
