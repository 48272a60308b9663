"""Answers of /engage and /groups: nothing is taken for success that does not say so, and adds up."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mixpanel_http.answers import Answer, once_only
from mixpanel_http.failure_table import Action, AnswerClass
from mixpanel_http.update_answers import read_update_answer

SENT = 3


def read(status: int, content: object, sent: int = SENT) -> Answer:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return read_update_answer(status, {}, body, sent, 0.0)


@pytest.mark.parametrize(
    "content",
    [
        {"code": 200, "num_good_events": SENT, "status": 1, "error": None},
        {"num_good_events": SENT, "status": "OK"},
        {"code": 200, "num_records_imported": SENT, "status": "OK"},
        {"status": 1, "error": None},
        {"status": 1, "error": "", "num_good_events": SENT, "failed_records": []},
    ],
    ids=str,
)
def test_a_success_that_adds_up_is_one(content: dict[str, Any]) -> None:
    assert read(200, content).action is Action.ACCEPT


# R24: whatever of these comes with status 200, it is no proof that three updates are in.
NO_PROOF = [
    b"1",
    b"0",
    b"1\n1\n1",
    b"2",
    b"OK",
    b"",
    b" ",
    b"\x00",
    b"<html>welcome</html>",
    b'{"status":1,"error":nul',
    b'"OK"',
    b"true",
    b"null",
    b"[]",
    b"[1,1,1]",
    b"{}",
    {"status": 1},
    {"status": "OK"},
    {"status": True, "error": None},
    {"status": 1.5, "error": None},
    {"status": "1", "error": None},
    {"status": 0, "error": None},
    {"status": 0, "error": "$distinct_id, missing or empty"},
    {"status": 0, "error": "some data points in the request failed validation"},
    {"status": False, "error": "no"},
    {"status": None, "error": None},
    {"status": 1, "error": "a"},
    {"status": 1, "error": {"a": 1}},
    {"status": 1, "error": None, "code": 400},
    {"status": 1, "error": None, "code": "200"},
    {"status": 1, "error": None, "num_good_events": SENT - 1},
    {"status": 1, "error": None, "num_good_events": SENT + 1},
    {"status": 1, "error": None, "num_good_events": 0},
    {"status": 1, "error": None, "num_good_events": -1},
    {"status": 1, "error": None, "num_good_events": str(SENT)},
    {"status": 1, "error": None, "num_good_events": float(SENT) + 0.5},
    {"status": 1, "error": None, "num_good_events": True},
    {"status": 1, "error": None, "num_good_events": None},
    {"status": 1, "error": None, "num_records_imported": SENT - 1},
    {"status": 1, "error": None, "num_good_events": SENT, "num_records_imported": SENT - 1},
    {"status": 1, "error": None, "num_good_events": SENT, "failed_records": [{"index": 0}]},
    {"status": 0, "error": "x", "num_good_events": SENT, "failed_records": [{"index": 0, "message": "m"}]},
    {"status": 0, "error": "x", "num_good_events": 1, "failed_records": [{"index": 0, "message": "m"}]},
    {"status": 0, "error": "x", "num_good_events": 2, "failed_records": [{"index": 7, "message": "m"}]},
    {"status": 0, "error": "x", "num_good_events": 2, "failed_records": ["m"]},
    {"status": 0, "error": "x", "num_good_events": 2, "failed_records": [{"message": "m"}]},
    {"status": 0, "error": "x", "num_good_events": 2, "failed_records": "all"},
    {"status": 0, "error": "x", "failed_records": [{"index": 0, "message": "m"}]},
    {"num_good_events": SENT},
    {"error": None},
    {"status": 0, "error": "a temporary failure occurred"},
    {"status": 1, "error": None, "num_good_events": [SENT]},
]


@pytest.mark.parametrize("content", NO_PROOF, ids=str)
def test_what_does_not_add_up_is_never_taken_for_imported(content: object) -> None:
    answer = read(200, content)

    assert answer.action not in (Action.ACCEPT, Action.ACCEPT_REST)
    assert once_only(answer, SENT).action is Action.LEAVE


def test_there_are_as_many_shapes_as_the_bar_asks_for() -> None:
    assert len(NO_PROOF) >= 50


@pytest.mark.parametrize("status", [200, 400])
@pytest.mark.parametrize("count", ["num_good_events", "num_records_imported"])
def test_a_list_that_adds_up_refuses_those_on_it_whatever_the_status(status: int, count: str) -> None:
    listed = [{"index": 1, "field": "$add", "message": "must be an object of numbers"}]
    content = {"code": 400, "status": 0, "error": "some failed", count: 2, "failed_records": listed}
    answer = read(status, content)

    assert answer.action is Action.ACCEPT_REST
    assert [(r.index, r.field) for r in answer.refused] == [(1, "$add")]
    assert answer.label == str(status)
    assert once_only(answer, SENT).action is Action.ACCEPT_REST


def test_a_1_is_proof_for_a_record_alone() -> None:
    assert read(200, b"1", sent=1).action is Action.ACCEPT
    assert read(200, b"1", sent=2).kind is AnswerClass.PROTOCOL


def test_a_failure_that_passes_is_waited_out() -> None:
    assert read(200, {"status": 0, "error": "a temporary failure occurred"}).action is Action.RETRY


@pytest.mark.parametrize(
    ("status", "sure"),
    [(401, True), (404, True), (409, True), (413, True), (429, True)]
    + [(status, False) for status in (202, 204, 408, 425, 500, 502, 503, 504, 520)],
)
def test_what_may_have_got_through_is_left_where_twice_would_be_wrong(status: int, sure: bool) -> None:
    answer = read(status, {"error": "no"})

    assert (once_only(answer, SENT) == answer) == sure
    assert sure or once_only(answer, SENT).action is Action.LEAVE


def test_no_value_of_a_record_is_told_outside_its_letter() -> None:
    for content in ({"status": 0, "error": "ann@acme.example"}, {"status": 5, "error": "ann@acme.example"}):
        assert "ann" not in read(200, content).told
