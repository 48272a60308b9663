"""The documented cases of a strict import: the good are sent as they are, the bad refused by field."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mixpanel_http.event_rules import (
    DEFAULTED_IP,
    REPLACED_ID,
    EventRules,
    IdentityModel,
    check_event,
    is_valid_insert_id,
)
from mixpanel_http.verdicts import RecordRefused
from tests.event_checks import check
from tests.events import NOW, line, tokens

CASES = Path(__file__).parent / "data" / "error-cases.jsonl"
# Cases about a request, not about one of its records; requests are tested where they are made and answered.
NOT_ABOUT_ONE_RECORD = {
    "exactly 2000 events": "how many records a request may hold",
    "2001 events in one request": "how many records a request may hold",
    "uncompressed body over 10 MB": "how large a request may be",
    "gzip body": "how a request is compressed",
    "NDJSON body, two lines": "how a request is laid out",
    "same event sent twice (same event, time, distinct_id, $insert_id)": "what becomes of two copies",
    "mixed batch: one good, one without time": "how the service answers if some fail",
    "wrong service-account secret": "who may send",
    "service account without project_id": "who may send",
    "project token as basic-auth user, empty password": "who may send",
    "ingestion rate exceeded": "how fast one may send",
}
LENIENT = "strict=0 with an empty event object"  # the one case of /import that is not about strict=1


def _cases() -> list[dict[str, Any]]:
    cases = [json.loads(text) for text in CASES.read_text(encoding="utf-8").splitlines()]
    return [case for case in cases if "/import" in case["endpoint"]]


def _about_one_record(verdict: str) -> list[Any]:
    return [
        pytest.param(case, id=case["case"])
        for case in _cases()
        if case["verdict"] == verdict and case["case"] not in {*NOT_ABOUT_ONE_RECORD, LENIENT}
    ]


def _record_of(case: dict[str, Any]) -> bytes:
    if "raw_line" in case["input"]:
        return str(case["input"]["raw_line"]).encode()
    return line(_expanded(case["input"])).replace(b"@invalid_utf8@", b"\xff")


def _expanded(value: Any) -> Any:
    """Returns a case's input with its placeholders filled in."""
    if isinstance(value, list):
        return [_expanded(item) for item in value]
    if isinstance(value, str):
        return _filled_in(value)
    if not isinstance(value, dict):
        return value
    wanted = value.get("@{fill_props_to}", 0)
    full = {_filled_in(key): _expanded(item) for key, item in value.items() if key != "@{fill_props_to}"}
    return full | {f"filler {n}": n for n in range(wanted - len(full))}


def _filled_in(text: str) -> Any:
    placeholder = re.fullmatch(r"@\{(\w+)(?::?)(.*)\}", text)
    if placeholder is None:
        return text
    kind, rest = placeholder.groups()
    fill: dict[str, Callable[[], Any]] = {
        "now_s": lambda: int(NOW) + int(rest),
        "now_ms": lambda: int(NOW) * 1000 + int(rest),
        "repeat": lambda: rest.split(":")[0] * int(rest.split(":")[1]),
        "array": lambda: [f"item {n}" for n in range(int(rest))],
        "object": lambda: {f"key {n}": n for n in range(int(rest))},
        "invalid_utf8": lambda: "@invalid_utf8@",
    }
    return fill[kind]()


def _rules_of(case: dict[str, Any]) -> EventRules:
    model: IdentityModel = "original" if case["case"].startswith("Original") else "simplified"
    return EventRules(identity=model)


def test_every_documented_case_of_a_strict_import_is_accounted_for() -> None:
    strict = [case for case in _cases() if case["case"] != LENIENT]
    held = sum(len(_about_one_record(verdict)) for verdict in ("accept", "reject", "truncate"))

    assert len(strict) == 101
    assert held == 101 - len(NOT_ABOUT_ONE_RECORD) == 90
    assert {case["case"] for case in strict} > NOT_ABOUT_ONE_RECORD.keys()


@pytest.mark.parametrize("case", _about_one_record("accept") + _about_one_record("truncate"))
def test_a_documented_good_record_is_sent_as_it_is_but_for_ip(case: dict[str, Any]) -> None:
    record = _record_of(case)
    accepted = check_event(record, _rules_of(case), NOW)
    given, sent = tokens(record), tokens(accepted.line)

    is_stamped = "ip" not in given["properties"] and len(given["properties"]) < 254
    assert accepted.alterations == ((DEFAULTED_IP,) if is_stamped else ())
    assert sent["properties"] == given["properties"] | ({"ip": "int 0"} if is_stamped else {})
    assert sent["event"] == given["event"]


@pytest.mark.parametrize("case", _about_one_record("reject"))
def test_a_documented_bad_record_is_refused_or_its_insert_id_fixed(case: dict[str, Any]) -> None:
    record = _record_of(case)
    if case["field"] == "$insert_id":
        assert_insert_id_is_fixed(record)
        return

    with pytest.raises(RecordRefused) as refused:
        check_event(record, _rules_of(case), NOW)

    if case["field"]:
        assert bare(refused.value.field) == bare(case["field"])
    assert (case["message_contains"] or "") in refused.value.message


def bare(field: str | None) -> str:
    return (field or "").removeprefix("properties.")


def assert_insert_id_is_fixed(record: bytes) -> None:
    accepted = check(record)
    given, sent = tokens(record), tokens(accepted.line)

    assert is_valid_insert_id(sent["properties"]["$insert_id"])
    assert sent["properties"]["$insert_id"] == accepted.stamped_id
    assert REPLACED_ID in accepted.alterations or "$insert_id" not in given["properties"]
    assert sent["properties"] == given["properties"] | {"$insert_id": accepted.stamped_id, "ip": "int 0"}
