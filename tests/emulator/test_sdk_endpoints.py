"""/track, /engage and /groups: encodings, answers, and what each operation leaves in a profile."""

import base64
import gzip
import json
from typing import Any
from urllib.parse import quote, urlencode

import pytest

from mixpanel_emulator.process import EmulatorProcess
from tests.emulator.conftest import StartEmulator
from tests.emulator.talk import FORM, JSON, Reply, call, recent


def post(url: str, path: str, content: Any, **headers: str) -> Reply:
    return call(url, "POST", path, json.dumps(content).encode(), {"Content-Type": JSON, **headers})


def update(operation: str, value: Any, **more: Any) -> dict[str, Any]:
    return {"$token": "PROJECT_TOKEN", "$distinct_id": "u1", operation: value, **more}


def profile(emulator: EmulatorProcess, kind: str = "profiles") -> dict[str, Any]:
    (raw,) = emulator.records(kind=kind)
    properties: dict[str, Any] = json.loads(raw)["$properties"]
    properties.pop("$last_seen", None)
    return properties


def test_track_takes_json_forms_base64_gzip_and_get(emulator: EmulatorProcess) -> None:
    text = json.dumps(recent())
    coded = base64.b64encode(text.encode()).decode()
    assert post(emulator.url, "/track", recent()).body == b"1"
    assert post(emulator.url, "/track", [recent(), recent()]).body == b"1"
    for data in (text, coded):
        body = urlencode({"data": data}).encode()
        assert call(emulator.url, "POST", "/track", body, {"Content-Type": FORM}).body == b"1"
        assert call(emulator.url, "GET", f"/track?data={quote(data)}").body == b"1"
    packed = gzip.compress(text.encode())
    headers = {"Content-Type": JSON, "Content-Encoding": "gzip"}
    assert call(emulator.url, "POST", "/track", packed, headers).body == b"1"
    assert emulator.stats()["stored"] == 8


@pytest.mark.parametrize(
    ("query", "good", "media_type", "body"),
    [
        ("", True, "text/plain; charset=utf-8", b"1"),
        ("", False, "text/plain; charset=utf-8", b"0"),
        ("?verbose=1", True, "application/json", b'{"status":1,"error":null}'),
        ("?verbose=1", False, "application/json", b'{"status":0,"error":"token, missing or empty"}'),
        ("?callback=f", True, "text/javascript", b"f(1);"),
    ],
)
def test_track_answers_in_the_form_that_is_asked_for(
    emulator: EmulatorProcess, query: str, good: bool, media_type: str, body: bytes
) -> None:
    reply = post(emulator.url, "/track" + query, recent() if good else recent(token=""))
    assert (reply.status, reply.headers["content-type"], reply.body) == (200, media_type, body)


def test_track_answers_with_an_image_when_asked(emulator: EmulatorProcess) -> None:
    reply = post(emulator.url, "/track?img=1", recent())
    assert reply.headers["content-type"] == "image/gif"
    assert reply.body.startswith(b"GIF89a")


def test_one_good_event_makes_the_answer_one(emulator: EmulatorProcess) -> None:
    assert post(emulator.url, "/track", [recent(token=""), recent()]).body == b"1"
    assert emulator.stats()["stored"] == 1
    assert emulator.stats()["refused"] == 1


def test_an_event_over_five_days_old_is_dropped_without_a_word_unless_set_otherwise(
    emulator: EmulatorProcess, start: StartEmulator
) -> None:
    old = recent(time=1700000000)
    assert post(emulator.url, "/track?verbose=1", old).json() == {"status": 1, "error": None}
    assert emulator.stats()["stored"] == 0
    loud = start(track_old_events="error")
    assert post(loud.url, "/track?verbose=1", old).json()["status"] == 0


def test_an_event_without_a_time_gets_the_time_of_arrival(emulator: EmulatorProcess) -> None:
    bare = recent()
    del bare["properties"]["time"]
    assert post(emulator.url, "/track", bare).body == b"1"
    assert emulator.stats()["stored"] == 1


def test_a_token_of_another_project_is_answered_with_one_and_nothing_is_stored(start: StartEmulator) -> None:
    project = start(tokens="OTHER")
    assert post(project.url, "/track", recent()).body == b"1"
    assert post(project.url, "/engage", update("$set", {"a": 1})).body == b"1"
    assert project.stats()["stored"] == 0
    assert list(project.records(kind="profiles")) == []


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([("$set", {"a": 1}), ("$set", {"a": 2, "b": 3})], {"a": 2, "b": 3}),
        ([("$set", {"a": 1}), ("$set_once", {"a": 2, "b": 3})], {"a": 1, "b": 3}),
        ([("$add", {"n": 5}), ("$add", {"n": -2.5})], {"n": 2.5}),
        ([("$append", {"l": 1}), ("$append", {"l": 1})], {"l": [1, 1]}),
        ([("$union", {"l": [1, 2]}), ("$union", {"l": [2, 3, 3]})], {"l": [1, 2, 3]}),
        ([("$set", {"l": [1, 2, 1]}), ("$remove", {"l": 1})], {"l": [2]}),
        ([("$set", {"a": 1}), ("$remove", {"b": 1})], {"a": 1}),
        ([("$set", {"a": 1, "b": 2}), ("$unset", ["a", "c"])], {"b": 2}),
        ([("$set", {"s": "x" * 300})], {"s": "x" * 255}),
    ],
)
def test_operations_change_a_profile_as_documented(
    emulator: EmulatorProcess, steps: list[tuple[str, Any]], expected: dict[str, Any]
) -> None:
    for operation, value in steps:
        reply = post(emulator.url, "/engage?verbose=1", update(operation, value))
        assert reply.json() == {"status": 1, "error": None}
    assert profile(emulator) == expected


def test_deleting_a_profile_leaves_nothing_of_it(emulator: EmulatorProcess) -> None:
    post(emulator.url, "/engage", [update("$set", {"a": 1}), update("$delete", "null")])
    assert list(emulator.records(kind="profiles")) == []
    assert len(list(emulator.records(kind="updates"))) == 2


def test_last_seen_is_set_unless_told_not_to(emulator: EmulatorProcess) -> None:
    post(emulator.url, "/engage", update("$set", {"a": 1}, **{"$ignore_time": True}))
    (raw,) = emulator.records(kind="profiles")
    assert "$last_seen" not in json.loads(raw)["$properties"]
    post(emulator.url, "/engage", update("$set", {"a": 1}))
    (raw,) = emulator.records(kind="profiles")
    assert "$last_seen" in json.loads(raw)["$properties"]


def test_strict_answers_name_each_refused_update_with_status_200(emulator: EmulatorProcess) -> None:
    mixed = [update("$set", {"a": 1}), update("$add", {"n": "x"}), {"$token": "t", "$set": {}}]
    reply = post(emulator.url, "/engage?strict=1", mixed)
    content = reply.json()
    assert reply.status == 200
    assert content["num_good_events"] == 1
    assert content["status"] == 0
    assert [(row["index"], row["field"]) for row in content["failed_records"]] == [
        (1, "$add"),
        (2, "$distinct_id"),
    ]
    good = post(emulator.url, "/engage?strict=1", mixed[:1]).json()
    assert (good["status"], good["num_good_events"], good["error"]) == (1, 1, None)


def test_an_update_has_exactly_one_operation(emulator: EmulatorProcess) -> None:
    assert post(emulator.url, "/engage", update("$set", {"a": 1}, **{"$add": {"b": 1}})).body == b"0"
    assert post(emulator.url, "/engage", {"$token": "t", "$distinct_id": "u"}).body == b"0"


def test_gzip_is_refused_on_engage_unless_set_otherwise(
    emulator: EmulatorProcess, start: StartEmulator
) -> None:
    body = gzip.compress(json.dumps(update("$set", {"a": 1})).encode())
    headers = {"Content-Type": JSON, "Content-Encoding": "gzip"}
    assert call(emulator.url, "POST", "/engage", body, headers).body == b"0"
    assert call(start(engage_gzip="true").url, "POST", "/engage", body, headers).body == b"1"


def test_group_profiles_are_kept_by_key_and_id(emulator: EmulatorProcess) -> None:
    acme = {"$token": "t", "$group_key": "company", "$group_id": "acme"}
    assert post(emulator.url, "/groups", [{**acme, "$set": {"seats": 3}}]).body == b"1"
    assert post(emulator.url, "/groups", [{**acme, "$append": {"l": 1}}]).body == b"0"
    assert profile(emulator, "groups") == {"seats": 3}
    assert emulator.stats()["groups"] == 1


@pytest.mark.parametrize("path", ["/track", "/engage", "/groups"])
@pytest.mark.parametrize("body", [b"", b"nonsense", b"[", b"data=%%%", b"\xff\xfe", b"[]"])
def test_what_is_no_data_is_answered_with_zero(emulator: EmulatorProcess, path: str, body: bytes) -> None:
    for media_type in (JSON, FORM):
        reply = call(emulator.url, "POST", path, body, {"Content-Type": media_type})
        assert (reply.status, reply.body) == (200, b"0")
