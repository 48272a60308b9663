"""POST /import: shapes of bodies and answers, credentials, limits, strict and not."""

import base64
import gzip
import json
import time
from urllib.parse import urlencode

import pytest

from mixpanel_emulator.process import EmulatorProcess
from tests.emulator.conftest import StartEmulator
from tests.emulator.talk import FORM, JSON, NDJSON, basic, call, event, send

FAILED = "some data points in the request failed validation"


@pytest.mark.parametrize("media_type", [JSON, NDJSON])
@pytest.mark.parametrize("compressed", [False, True])
def test_a_batch_is_imported_in_every_encoding(
    emulator: EmulatorProcess, media_type: str, compressed: bool
) -> None:
    sent = [event(number) for number in range(5)]
    reply = send(emulator.url, sent, media_type=media_type, compressed=compressed)
    assert reply.json() == {"code": 200, "num_records_imported": 5, "status": "OK"}
    assert [json.loads(raw) for raw in emulator.records()] == sent


def test_a_gzip_body_may_have_several_members(emulator: EmulatorProcess) -> None:
    lines = [json.dumps(event(number)).encode() + b"\n" for number in range(2)]
    body = b"".join(gzip.compress(line) for line in lines)
    headers = {"Authorization": basic("t"), "Content-Encoding": "gzip", "Content-Type": NDJSON}
    assert call(emulator.url, "POST", "/import", body, headers).json()["num_records_imported"] == 2


def test_good_records_beside_bad_ones_are_stored(emulator: EmulatorProcess) -> None:
    bad = event(1, time="yesterday")
    reply = send(emulator.url, [event(0), bad, event(2)])
    assert reply.status == 400
    assert reply.json() == {
        "code": 400,
        "error": FAILED,
        "status": "Bad Request",
        "num_records_imported": 2,
        "failed_records": [
            {
                "index": 1,
                "insert_id": "id-1",
                "field": "properties.time",
                "message": "'properties.time' is invalid: must be specified as seconds since epoch",
            }
        ],
    }
    assert emulator.stats()["stored"] == 2
    assert emulator.stats()["refused"] == 1


def test_one_broken_item_of_an_array_does_not_take_the_others_along(emulator: EmulatorProcess) -> None:
    half_a_pair = json.dumps(event(1)).replace("Signup", "\\ud800").encode()
    reply = send(emulator.url, [event(0), half_a_pair, event(2)], media_type=JSON)
    assert [row["index"] for row in reply.json()["failed_records"]] == [1]
    assert reply.json()["num_records_imported"] == 2


def test_numbers_are_kept_as_they_are_written(emulator: EmulatorProcess) -> None:
    raw = (
        b'{"event":"e","properties":{"time":1700000000,"distinct_id":"u","$insert_id":"i",'
        b'"a":123456789012345678901234567890,"b":1.0,"c":1e400,"d":-0,"e":0.10000000000000000555}}'
    )
    assert send(emulator.url, [raw]).status == 200
    assert list(emulator.records()) == [raw]


@pytest.mark.parametrize(
    ("query", "records", "expected"),
    [
        ("strict=0", [event()], b"1"),
        ("strict=0", [{}], b"0"),
        ("strict=0", [event(), {}], b"1"),
        ("strict=0&verbose=1", [event()], {"code": 200, "num_records_imported": 1, "status": 1}),
        ("strict=0&verbose=1", [{}], {"code": 200, "error": FAILED, "num_records_imported": 0, "status": 0}),
    ],
)
def test_without_strict_the_answer_is_200_whatever_was_sent(
    emulator: EmulatorProcess, query: str, records: list[object], expected: object
) -> None:
    reply = send(emulator.url, records, query=query)
    assert reply.status == 200
    assert (reply.body if isinstance(expected, bytes) else reply.json()) == expected


def test_without_strict_an_event_needs_no_insert_id_and_is_never_merged(emulator: EmulatorProcess) -> None:
    bare = event()
    del bare["properties"]["$insert_id"]
    assert send(emulator.url, [bare, bare], query="strict=0").body == b"1"
    assert emulator.stats()["distinct"] == 2


@pytest.mark.parametrize("verbose", ["0", "1"])
def test_forms_of_older_sdks_reach_import(emulator: EmulatorProcess, verbose: str) -> None:
    data = base64.b64encode(json.dumps(event()).encode()).decode()
    body = urlencode({"data": data, "verbose": verbose}).encode()
    headers = {"Content-Type": FORM, "Authorization": basic("secret")}
    reply = call(emulator.url, "POST", "/import", body, headers)
    assert reply.body == (b"1" if verbose == "0" else b'{"status":1,"error":null}')
    assert emulator.stats()["stored"] == 1


@pytest.mark.parametrize(
    ("authorization", "query", "status"),
    [
        ("", "", 401),
        ("Basic", "", 401),
        (basic("", ""), "", 401),
        ("Basic " + base64.b64encode(b"token-without-colon").decode(), "", 401),
        (basic("token"), "", 200),
        (basic("user", "secret"), "", 401),
        (basic("user", "secret"), "project_id=1", 200),
        ("Basic user:secret", "project_id=1", 200),
        ("Bearer token", "", 200),
    ],
)
def test_credentials_are_asked_for_in_every_documented_way(
    emulator: EmulatorProcess, authorization: str, query: str, status: int
) -> None:
    reply = send(emulator.url, [event()], query=f"strict=1&{query}", authorization=authorization)
    assert reply.status == status
    if status == 401:
        assert reply.json() == {"code": 401, "error": "Invalid credentials", "status": "Unauthorized"}


def test_only_the_listed_credentials_are_accepted_where_some_are_listed(start: StartEmulator) -> None:
    project = start(tokens="one,two", service_accounts="me:secret")
    assert send(project.url, [event()], authorization=basic("two")).status == 200
    assert send(project.url, [event()], authorization=basic("three")).status == 401
    for secret, status in (("secret", 200), ("guess", 401)):
        account = basic("me", secret)
        reply = send(project.url, [event()], query="strict=1&project_id=1", authorization=account)
        assert reply.status == status


@pytest.mark.parametrize("compressed", [False, True])
def test_a_body_over_the_limit_is_refused_by_its_uncompressed_size(
    start: StartEmulator, compressed: bool
) -> None:
    project = start(max_body_bytes="2097152")
    records = [event(number, pad="x" * 2000) for number in range(1500)]
    reply = send(project.url, records, compressed=compressed)
    assert reply.status == 413
    assert reply.json() == {
        "code": 413,
        "error": "request exceeds max limit of 2097152 bytes",
        "status": "Request Entity Too Large",
    }
    assert project.stats()["stored"] == 0


def test_a_bomb_is_not_inflated_beyond_the_limit(emulator: EmulatorProcess) -> None:
    body = gzip.compress(b" " * 300_000_000, 9)
    headers = {"Authorization": basic("t"), "Content-Encoding": "gzip", "Content-Type": NDJSON}
    assert call(emulator.url, "POST", "/import", body, headers).status == 413


def test_a_future_time_within_the_hour_is_replaced_by_the_time_of_arrival(emulator: EmulatorProcess) -> None:
    before = int(time.time())
    ahead = event(time=before + 1800)
    assert send(emulator.url, [ahead]).status == 200
    day = time.strftime("%Y-%m-%d", time.gmtime())
    path = f"/api/2.0/export?from_date=2024-01-01&to_date={day}"
    exported = call(emulator.url, "GET", path, headers={"Authorization": basic("t")}).json()
    assert before <= exported["properties"]["time"] <= before + 60


def test_an_event_to_ignore_is_accepted_and_not_stored(emulator: EmulatorProcess) -> None:
    assert send(emulator.url, [event(0, **{"$ignore": "yes"})]).json()["num_records_imported"] == 1
    assert emulator.stats()["ignored"] == 1
    assert emulator.stats()["stored"] == 0


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"failed_id_key": "$insert_id"}, {"index", "$insert_id", "field", "message"}),
        ({"failed_id_key": "insert_id"}, {"index", "insert_id", "field", "message"}),
    ],
)
def test_failed_records_name_the_id_as_the_setting_says(
    start: StartEmulator, settings: dict[str, str], expected: set[str]
) -> None:
    (row,) = send(start(**settings).url, [event(time=None)]).json()["failed_records"]
    assert set(row) == expected


def test_failed_records_can_be_plain_texts(start: StartEmulator) -> None:
    reply = send(start(failures_as_strings="always").url, [event(time=None)])
    assert reply.json()["failed_records"] == [
        "'properties.time' is invalid: must be specified as seconds since epoch"
    ]


def test_banned_ids_can_be_told_apart_by_case(start: StartEmulator) -> None:
    project = start(banned_ignore_case="false", banned_extra="lmy47d")
    assert send(project.url, [event(distinct_id="Anonymous")]).status == 200
    assert send(project.url, [event(distinct_id="anonymous")]).status == 400
    assert send(project.url, [event(distinct_id="lmy47d")]).status == 400


def test_a_missing_distinct_id_can_be_made_from_the_address(start: StartEmulator) -> None:
    bare = event()
    del bare["properties"]["distinct_id"]
    assert send(start().url, [bare]).status == 400
    assert send(start(missing_distinct_id="from_ip").url, [bare]).status == 200


@pytest.mark.parametrize("encoding", ["br", "deflate", "zstd"])
def test_an_encoding_other_than_gzip_is_refused(emulator: EmulatorProcess, encoding: str) -> None:
    headers = {"Authorization": basic("t"), "Content-Encoding": encoding, "Content-Type": NDJSON}
    reply = call(emulator.url, "POST", "/import", b"{}", headers)
    assert reply.status == 400
    assert "unsupported content encoding" in reply.json()["error"]


def test_an_unknown_path_is_404_and_a_wrong_method_405(emulator: EmulatorProcess) -> None:
    assert call(emulator.url, "GET", "/nothing-here").status == 404
    assert call(emulator.url, "GET", "/import").status == 405
