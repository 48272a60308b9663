"""Every documented case is answered as documented, over a real socket."""

import json
from collections.abc import Iterator
from datetime import datetime, timezone

import pytest

from mixpanel_emulator.process import EmulatorProcess, start_emulator
from tests.emulator.cases import Case, read_cases, send_case
from tests.emulator.talk import Reply, basic, call

CASES = read_cases()
QUIET = {"export_per_hour": "0", "query_per_hour": "0", "table_calls_per_day": "0"}


@pytest.fixture(scope="module")
def projects() -> Iterator[dict[str, EmulatorProcess]]:
    """One emulator for each kind of project that the cases are about, started when first used."""
    running: dict[str, EmulatorProcess] = {}
    yield running
    for one in running.values():
        one.stop()


def project_for(case: Case, projects: dict[str, EmulatorProcess]) -> EmulatorProcess:
    settings = {**QUIET, **case.settings}
    key = json.dumps(settings, sort_keys=True)
    if key not in projects:
        projects[key] = start_emulator(settings=settings)
    projects[key].reset()
    return projects[key]


def test_the_file_holds_all_cases() -> None:
    assert len(CASES) == 148
    assert len({case.case for case in CASES}) == 148


@pytest.mark.parametrize("case", CASES, ids=[case.case for case in CASES])
def test_the_verdict_is_the_documented_one(case: Case, projects: dict[str, EmulatorProcess]) -> None:
    project = project_for(case, projects)
    reply = send_case(project.url, case)
    if case.verdict == "reject":
        assert_rejected(case, reply, project)
    else:
        assert_accepted(case, reply, project)


def assert_accepted(case: Case, reply: Reply, project: EmulatorProcess) -> None:
    assert reply.status == 200
    assert project.stats()["refused"] == 0
    if "/import" in case.endpoint:
        content = reply.json()
        assert content["code"] == 200
        assert content["status"] == "OK"
        assert content["num_records_imported"] == project.stats()["received"] > 0
    elif "/export" not in case.endpoint and "/lookup" not in case.endpoint:
        assert reply.body == b"1" or reply.json()["status"] == 1
    if "nothing stored" in case.note or "never stored" in case.note:
        assert project.stats()["stored"] == 0
    if case.verdict == "truncate":
        assert_truncated(case, project)


def assert_truncated(case: Case, project: EmulatorProcess) -> None:
    kind = "profiles" if "engage" in case.endpoint else "events"
    assert project.stats()["stored"] == 1
    if kind == "profiles":
        (profile,) = project.records(kind="profiles")
        assert "k" * 255 in json.loads(profile)["$properties"]
        return
    reply = call(
        project.url,
        "GET",
        "/api/2.0/export?from_date=2020-01-01&to_date=" + today(),
        headers={"Authorization": basic("PROJECT_TOKEN")},
    )
    properties = reply.json()["properties"]
    assert properties.get("text") == "a" * 255 or "k" * 255 in properties


def today() -> str:
    return datetime.now(timezone.utc).date().isoformat()


def assert_rejected(case: Case, reply: Reply, project: EmulatorProcess) -> None:
    text = reply.body.decode()
    if case.message_contains:
        assert case.message_contains in text
    if "/import" in case.endpoint and "strict=1" in case.endpoint:
        assert_import_rejected(case, reply)
    elif "answer is 200 and 1" in case.note:
        assert reply.body == b"1"
    elif "/track" in case.endpoint or "/engage" in case.endpoint or "/groups" in case.endpoint:
        assert_sdk_rejected(case, reply)
    elif "HTTP 4" in case.note:
        assert f"HTTP {reply.status}" in case.note
    else:
        assert 400 <= reply.status < 500 or "HTTP 200" in case.note
    if "partial" not in case.note:
        assert project.stats()["stored"] == 0


def assert_import_rejected(case: Case, reply: Reply) -> None:
    content = reply.json()
    if reply.status != 400:
        assert reply.status in (401, 413, 429)
        assert content["code"] == reply.status
        return
    assert content["error"] == "some data points in the request failed validation"
    assert content["num_records_imported"] == (1 if "partial" in case.note else 0)
    (failed,) = content["failed_records"]
    if "plain strings" in case.note:
        assert case.message_contains in failed
        return
    assert set(failed) == {"index", "insert_id", "field", "message"}
    assert case.field is None or failed["field"] == case.field
    assert failed["index"] == (1 if "partial" in case.note else 0)


def assert_sdk_rejected(case: Case, reply: Reply) -> None:
    if reply.status == 413:
        return
    assert reply.status == 200
    if "strict=1" in case.endpoint:
        assert reply.json()["status"] == 0
        assert reply.json()["failed_records"][0]["field"] == case.field
    elif "verbose" in case.endpoint:
        assert reply.json()["status"] == 0
        assert case.field is None or case.field in reply.json()["error"]
    else:
        assert reply.body == b"0"
