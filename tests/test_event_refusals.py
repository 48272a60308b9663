"""Events that are refused: each for its reason, told by its field and without its values."""

import inspect
import re
from typing import Any

import pytest

from mixpanel_http import event_rules, flaws, record_syntax
from mixpanel_http.insert_ids import InsertIdPolicy
from mixpanel_http.verdicts import Reason
from tests.event_checks import check, refusal
from tests.events import GIVEN_ID, GONE, event, line
from tests.refused_events import REFUSED


@pytest.mark.parametrize("name", REFUSED)
def test_what_the_service_would_refuse_is_refused_by_name(name: str) -> None:
    record, reason, field = REFUSED[name]
    refused = refusal(record)

    assert (refused.reason, refused.field) == (reason, field)
    assert refused.rejection(7).reason == reason.value


def test_each_reason_has_a_record_that_is_refused_for_it() -> None:
    source = "".join(map(inspect.getsource, (event_rules, record_syntax, flaws)))
    elsewhere = {"INSERT_ID_FIELDS_MISSING", "BAD_IDENTITY_EVENT"}  # they need rules other than the ordinary

    assert {reason.name for _, reason, _ in REFUSED.values()} == (
        set(re.findall(r"\bReason\.([A-Z0-9_]+)", source)) - elsewhere
    )


def test_an_id_of_fields_that_are_not_there_is_refused() -> None:
    policy = InsertIdPolicy("fields", ("order", "position"))
    refused = refusal(line(event(**{"$insert_id": GONE})), insert_id=policy)

    assert (refused.reason, refused.field) == (Reason.INSERT_ID_FIELDS_MISSING, "$insert_id")
    assert "order, position" in refused.message
    assert check(line(event(**{"$insert_id": GONE}, position=None)), insert_id=policy).stamped_id


@pytest.mark.parametrize("ids", [GONE, None, "ab", ["a"], ["a", "b", "c"], ["a", 5], {"a": "b"}])
def test_a_merge_is_of_two_ids(ids: Any) -> None:
    refused = refusal(line(event(**{"$distinct_ids": ids}) | {"event": "$merge"}), identity="original")

    assert (refused.reason, refused.field) == (Reason.BAD_IDENTITY_EVENT, "properties.$distinct_ids")


@pytest.mark.parametrize("verb", ["$identify", "$create_alias"])
def test_a_project_of_the_original_model_takes_identity_events(verb: str) -> None:
    record = line(event() | {"event": verb})

    assert check(record, identity="original").line == record


def test_a_project_of_the_original_model_wants_a_distinct_id_whoever_else_is_named() -> None:
    record = line(event(distinct_id=GONE, **{"$user_id": "u"}))

    assert check(record).line == record
    assert refusal(record, identity="original").reason is Reason.MISSING_DISTINCT_ID


@pytest.mark.parametrize("name", REFUSED)
def test_a_refusal_names_no_value_of_the_record(name: str) -> None:
    secret = "tell-nobody-83f1"
    record = REFUSED[name][0].replace(b"user-1", secret.encode()).replace(b"136.24.0.114", secret.encode())
    refused = refusal(record.replace(b"Signup", secret.encode()).replace(GIVEN_ID.encode(), secret.encode()))

    assert secret not in str(refused)
    assert secret not in (refused.field or "")
    assert len(refused.message) < 400


@pytest.mark.parametrize("value", [b'"a', b"[secret]", b'"\\secret"', b"tru", b"0secret", b'{"a" secret}'])
def test_a_refusal_of_broken_syntax_tells_the_place_and_not_the_text(value: bytes) -> None:
    refused = refusal(line(event(x=0)).replace(b'"x":0', b'"x":' + value))

    assert re.search(r"\(byte \d+\)|truncated", refused.message)
    assert "secret" not in refused.message


@pytest.mark.parametrize("name", ["k" * 9000, "half \ud83d", "name\n", "\ufffe"])
def test_the_field_of_a_refusal_can_always_be_written_down(name: str) -> None:
    broken = line(event(**{name: "@"})).replace(b"@", b"\xff")
    refused = refusal(broken)

    assert refused.field is not None
    assert len(refused.field.encode()) <= len("properties.") + 255
