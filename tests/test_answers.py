"""Answers of /import: every row of the failure table, lists of refusals in all variants, Retry-After."""

from __future__ import annotations

import datetime as dt
import email.utils
import json
import random
import socket
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from urllib3 import exceptions as transport
from urllib3.connection import HTTPConnection

from mixpanel_http.answers import (
    MAX_RETRY_AFTER_S,
    Answer,
    broken_answer,
    ids_of,
    no_ids,
    read_answer,
    retry_after,
)
from mixpanel_http.failure_table import (
    ACTIONS,
    BROKEN_ROWS,
    STATUS_ROWS,
    Action,
    AnswerClass,
    status_row,
)

SENT = 2000
IDS = [f"id-{i}" for i in range(SENT)]


def answer(status: int, body: object, sent: int = SENT, ids: Sequence[str | None] = IDS) -> Answer:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return read_answer(status, {}, content, sent, 0.0, lambda: ids)


def refusal(entries: object, imported: object, **more: Any) -> dict[str, Any]:
    error = "some data points in the request failed validation"
    return {
        "code": 400,
        "error": error,
        "status": "Bad Request",
        "num_records_imported": imported,
        "failed_records": entries,
        **more,
    }


# --- the table -------------------------------------------------------------------------------------

FROM_THE_TAXONOMY = {
    **dict.fromkeys(
        (401, 402, 403, 404, 405, 406, 410, 414, 421, 451, 501, 505), (AnswerClass.FATAL, Action.STOP)
    ),
    **dict.fromkeys((300, 301, 302, 303, 304, 307, 308), (AnswerClass.FATAL, Action.STOP)),
    **dict.fromkeys((411, 415, 422, 431, 418, 426, 499), (AnswerClass.FATAL, Action.PROBE)),
    **dict.fromkeys((408, 409, 423, 425, 503), (AnswerClass.TRANSIENT, Action.RETRY)),
    **dict.fromkeys((500, 502, 504, 520, 524, 529, 598, 599), (AnswerClass.AMBIGUOUS, Action.RETRY)),
    **dict.fromkeys((201, 202, 204, 206, 207), (AnswerClass.PROTOCOL, Action.RETRY_FEW)),
    400: (AnswerClass.RECORD, Action.ISOLATE),
    413: (AnswerClass.TOO_LARGE, Action.HALVE),
    429: (AnswerClass.THROTTLED, Action.SLOW_DOWN),
}


@pytest.mark.parametrize("status", FROM_THE_TAXONOMY)
def test_a_status_means_what_the_taxonomy_says(status: int) -> None:
    read = answer(status, {"error": "said"})

    assert (read.kind, read.action) == FROM_THE_TAXONOMY[status]
    assert (read.status, read.label) == (status, str(status))


def test_no_status_but_200_is_ever_a_success() -> None:
    kinds = {status: answer(status, {**GOOD, "code": status}).kind for status in range(100, 1000)}

    assert [status for status, kind in kinds.items() if kind is AnswerClass.OK] == [200]
    assert AnswerClass.PARTIAL not in kinds.values()


def test_every_class_has_an_action_and_every_row_a_reason() -> None:
    assert set(ACTIONS) == set(AnswerClass)
    assert all(row.why for row in (*STATUS_ROWS, *BROKEN_ROWS))


def test_only_busy_answers_have_a_number_of_tries_of_their_own() -> None:
    assert {s for row in STATUS_ROWS if row.tries for s in row.statuses} == {409, 423}
    assert answer(409, {}).tries == 5


def test_a_403_of_a_firewall_is_looked_into_and_one_of_mixpanel_is_not() -> None:
    assert answer(403, b"<html>Request blocked</html>").action is Action.PROBE
    assert answer(403, {"error": "no"}).action is Action.STOP


def test_a_413_tells_its_limit_in_either_form_of_the_documentation() -> None:
    assert answer(413, {"error": "request exceeds max limit of 2097152 bytes"}).largest_bytes == 2_097_152
    assert answer(413, b"<html>413</html>").largest_bytes is None


CONNECTION = HTTPConnection("127.0.0.1")


@pytest.mark.parametrize(
    ("error", "label", "kind", "sent"),
    [
        (transport.NewConnectionError(CONNECTION, "refused"), "no connection", AnswerClass.TRANSIENT, False),
        (
            transport.NameResolutionError("x", CONNECTION, socket.gaierror()),
            "no connection",
            AnswerClass.TRANSIENT,
            False,
        ),
        (transport.ConnectTimeoutError(CONNECTION, "x"), "no connection", AnswerClass.TRANSIENT, False),
        (
            transport.SSLError(ssl.SSLCertVerificationError(1, "self-signed")),
            "bad certificate",
            AnswerClass.FATAL,
            False,
        ),
        (
            transport.ReadTimeoutError(CONNECTION, "/", "x"),  # type: ignore[arg-type]
            "no answer in time",
            AnswerClass.AMBIGUOUS,
            True,
        ),
        (
            transport.ProtocolError("Connection aborted.", ConnectionResetError(104)),
            "connection broken",
            AnswerClass.AMBIGUOUS,
            True,
        ),
        (transport.IncompleteRead(3, 9), "connection broken", AnswerClass.AMBIGUOUS, True),
        (
            transport.ProtocolError("Connection aborted.", TimeoutError()),
            "no answer in time",
            AnswerClass.AMBIGUOUS,
            True,
        ),
        (transport.SSLError("handshake aborted"), "connection broken", AnswerClass.AMBIGUOUS, True),
        (transport.DecodeError("bad gzip"), "connection broken", AnswerClass.AMBIGUOUS, True),
    ],
)
def test_a_broken_connection_means_what_the_taxonomy_says(
    error: Exception, label: str, kind: AnswerClass, sent: bool
) -> None:
    read = broken_answer(error)

    assert (read.label, read.kind, read.sent, read.status) == (label, kind, sent, 0)
    assert str(error) not in read.message or not str(error)


def test_what_left_only_in_part_cannot_have_been_imported() -> None:
    read = broken_answer(
        transport.ProtocolError("Connection aborted.", ConnectionResetError(104)), whole=False
    )

    assert (read.kind, read.sent) == (AnswerClass.TRANSIENT, False)


# --- R24: answers that do not add up ---------------------------------------------------------------

GOOD = {"code": 200, "num_records_imported": SENT, "status": "OK"}
ENTRY = {"index": 0, "insert_id": "id-0", "field": "properties.time", "message": "bad"}
NOT_A_SUCCESS: list[object] = [
    b"",
    b" ",
    b"1",
    b"0",
    b"OK",
    b"null",
    b"true",
    b"[]",
    b"{}",
    b"{",
    b'{"code":200,"num_records_imported":2000,"status":"OK"',
    b"<html><body>Welcome to the airport wifi</body></html>",
    b"\xff\xfe{}",
    b"\x00",
    b"[" * 100_000,
    [GOOD],
    "OK",
    {"status": "OK"},
    {"code": 200},
    {"num_records_imported": SENT},
    {"status": 1, "error": None},
    {"status": 0, "error": "bad"},
    {"code": 200, "num_records_imported": SENT, "status": 1},
    GOOD | {"num_records_imported": SENT - 1},
    GOOD | {"num_records_imported": SENT + 1},
    GOOD | {"num_records_imported": 0},
    GOOD | {"num_records_imported": -SENT},
    GOOD | {"num_records_imported": str(SENT)},
    GOOD | {"num_records_imported": float(SENT) + 0.5},
    GOOD | {"num_records_imported": None},
    GOOD | {"num_records_imported": True},
    GOOD | {"num_records_imported": [SENT]},
    GOOD | {"num_records_imported": 10**30},
    GOOD | {"status": "Bad Request"},
    GOOD | {"status": "ok"},
    GOOD | {"status": None},
    GOOD | {"code": 400},
    GOOD | {"error": "some data points in the request failed validation"},
    GOOD | {"error": {"nested": "thing"}},
    GOOD | {"failed_records": [ENTRY]},
    GOOD | {"failed_records": "all"},
    GOOD | {"failed_records": [ENTRY], "num_records_imported": SENT - 1},
]
NOT_A_PARTIAL_SUCCESS: list[object] = [
    refusal([ENTRY], SENT),
    refusal([ENTRY], SENT - 2),
    refusal([ENTRY], 0),
    refusal([ENTRY], None),
    refusal([ENTRY], str(SENT - 1)),
    refusal([], SENT),
    refusal([], 0),
    refusal(None, SENT - 1),
    refusal({"0": ENTRY}, SENT - 1),
    refusal(["identity events are not allowed"], SENT - 1),
    refusal([[0]], SENT - 1),
    refusal([ENTRY, "and more"], SENT - 2),
]


@pytest.mark.parametrize("body", NOT_A_SUCCESS, ids=lambda body: str(body)[:60])
def test_a_200_outside_the_contract_is_no_success(body: object) -> None:
    assert answer(200, body).kind is AnswerClass.PROTOCOL


@pytest.mark.parametrize(
    "body", [*NOT_A_PARTIAL_SUCCESS, *NOT_A_SUCCESS[:-1]], ids=lambda body: str(body)[:60]
)
def test_a_400_whose_numbers_do_not_add_up_is_believed_in_nothing(body: object) -> None:
    read = answer(400, body)

    assert read.kind is AnswerClass.RECORD
    assert not read.refused


def test_there_are_more_than_fifty_shapes() -> None:
    assert len(NOT_A_SUCCESS) + len(NOT_A_PARTIAL_SUCCESS) >= 50


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
        max_leaves=9,
    ),
    st.integers(200, 599),
)
def test_whatever_the_json_is_it_is_read_without_an_error_and_is_no_success(
    body: object, status: int
) -> None:
    assert answer(status, body).kind not in (AnswerClass.OK, AnswerClass.PARTIAL)


def test_what_is_no_json_is_not_repeated_as_it_may_hold_anything() -> None:
    read = answer(200, b"<html>CANARY</html>")

    assert "CANARY" not in read.message
    assert "an HTML page" in read.message


CANARY = "ann.canary@acme.example"


@pytest.mark.parametrize("status", [200, 204, 207, 301, *range(400, 431), 451, *range(500, 512), 599])
def test_what_the_service_says_of_records_is_told_to_nobody(status: int) -> None:
    for said in (
        CANARY,
        f"Invalid credentials {CANARY}",
        f"the {CANARY} request exceeds max limit",
        [CANARY],
    ):
        for body in (
            {"error": said},
            {"status": said},
            {"code": 200, "status": "OK", "error": said},
            {"code": 200, "status": "OK", "num_records_imported": said},
            {**refusal([{"index": 1, "field": CANARY, "message": CANARY}], SENT - 1), "error": said},
        ):
            read = answer(status, body)
            assert read.told
            assert "canary" not in read.told.lower()
    assert "canary" not in answer(status, CANARY.encode()).told


def test_what_the_contract_says_is_told() -> None:
    told = [
        answer(401, {"error": "Invalid credentials"}).told,
        answer(413, {"error": "request exceeds max limit of 2097152 bytes"}).told,
        answer(402, {"error": "user Ann is over the limit"}).told,
        answer(403, b"<html>Ann</html>").told,
    ]
    assert told == [
        "wrong credentials, or the wrong region: Invalid credentials",
        "too many bytes: request exceeds max limit of … bytes",
        "refused for good: plan, quota or law (exit code 7)",
        "not allowed; as a page, a firewall that may dislike one record: an HTML page",
    ]


# --- R22: lists of refusals ------------------------------------------------------------------------


def entries(chosen: Sequence[int], *keys: str) -> list[dict[str, object]]:
    made: dict[str, Any] = {"index": lambda i: i, "insert_id": IDS.__getitem__, "$insert_id": IDS.__getitem__}
    said = {"field": "properties.time", "message": "is invalid"}
    return [{**{key: made[key](i) for key in keys}, **said} for i in chosen]


KEYS = [("index", "insert_id"), ("index", "$insert_id"), ("index",), ("insert_id",), ("$insert_id",)]


@pytest.mark.parametrize("keys", KEYS, ids="+".join)
@pytest.mark.parametrize("bad", [1, 2, 100, 1999, 2000])
def test_exactly_the_listed_records_are_refused(bad: int, keys: tuple[str, ...]) -> None:
    chosen = random.Random(bad).sample(range(SENT), bad)

    read = answer(400, refusal(entries(chosen, *keys), SENT - bad))

    assert read.kind is AnswerClass.PARTIAL
    assert [r.index for r in read.refused] == sorted(chosen)
    assert {(r.field, r.message) for r in read.refused} == {("properties.time", "is invalid")}


@pytest.mark.parametrize("keys", KEYS[:3], ids="+".join)
def test_a_record_that_is_listed_twice_is_refused_once(keys: tuple[str, ...]) -> None:
    read = answer(400, refusal(entries([7, 3, 7], *keys), SENT - 2))

    assert [r.index for r in read.refused] == [3, 7]


def test_a_record_that_is_listed_twice_by_its_id_alone_is_refused_once() -> None:
    read = answer(400, refusal(entries([7, 3, 7], "insert_id"), SENT - 2))

    assert [r.index for r in read.refused] == [3, 7]


@pytest.mark.parametrize("beyond", [SENT, 10**9])
def test_an_entry_beyond_the_request_blames_nobody_where_the_others_add_up(beyond: int) -> None:
    listed = [*entries([5], "index"), {"index": beyond, "message": "?"}]

    assert [r.index for r in answer(400, refusal(listed, SENT - 1)).refused] == [5]
    assert answer(400, refusal(listed, SENT - 2)).kind is AnswerClass.RECORD


@pytest.mark.parametrize("index", [-1, 1.5, "1", None, True, [1]])
def test_an_index_that_is_none_makes_the_list_unusable(index: object) -> None:
    listed = [*entries([5], "index"), {"index": index, "message": "?"}]

    assert answer(400, refusal(listed, SENT - 2)).kind is AnswerClass.RECORD


def test_an_index_that_contradicts_the_id_gives_way_to_the_id() -> None:
    listed = [{"index": 6, "insert_id": "id-5", "message": "counted from one"}]

    assert [r.index for r in answer(400, refusal(listed, SENT - 1)).refused] == [5]


def test_an_id_that_was_never_sent_makes_the_list_unusable() -> None:
    listed = [{"index": 6, "insert_id": "another", "message": "?"}]

    assert answer(400, refusal(listed, SENT - 1)).kind is AnswerClass.RECORD


def test_identical_rows_share_an_id_and_are_refused_in_turn() -> None:
    ids = ["a", "same", "b", "same"]
    listed = [{"insert_id": "same", "message": "1"}, {"insert_id": "same", "message": "2"}]

    read = answer(400, refusal(listed, 2), sent=4, ids=ids)

    assert [(r.index, r.message) for r in read.refused] == [(1, "1"), (3, "2")]


def test_ids_are_asked_for_only_where_an_answer_names_some() -> None:
    def asked() -> Sequence[str | None]:
        raise AssertionError

    for status, body in ((200, GOOD), (400, refusal(entries([1], "index"), SENT - 1)), (429, {})):
        read_answer(status, {}, json.dumps(body).encode(), SENT, 0.0, asked)
    assert list(no_ids()) == []


def test_the_ids_of_a_body_are_read_in_order() -> None:
    body = b'{"event":"a","properties":{"$insert_id":"x","n":1e999}}\n{"properties":{"a":[1]},"event":""}'

    assert ids_of(body) == ["x", None]


def test_what_the_service_says_of_a_record_is_kept_short() -> None:
    read = answer(400, refusal([{"index": 1, "field": "f" * 9999, "message": "m" * 9999}], SENT - 1))

    assert len(read.refused[0].message) == len(read.refused[0].field or "") == 500


# --- R17: Retry-After ------------------------------------------------------------------------------

NOW = 1_700_000_000.0


@pytest.mark.parametrize("seconds", [1, 2, 30, 299, 300])
def test_retry_after_is_understood_in_seconds_and_as_a_date(seconds: int) -> None:
    date = email.utils.formatdate(NOW + seconds, usegmt=True)

    assert retry_after(str(seconds), NOW) == seconds
    assert retry_after(date, NOW) == pytest.approx(seconds, abs=1)


@pytest.mark.parametrize("status", [429, 503, 500, 408])
def test_retry_after_counts_with_every_status_that_is_tried_again(status: int) -> None:
    assert read_answer(status, {"retry-after": "7"}, b"{}", 1, NOW).retry_after_s == 7


def test_retry_after_is_obeyed_for_five_minutes_at_most() -> None:
    assert retry_after("3600", NOW) == MAX_RETRY_AFTER_S == 300


@pytest.mark.parametrize(
    "value",
    [
        None, "", " ", "0", "-5", "+5", "1e9", "1000000000", "999999999", "nan", "inf", "0x10", "1.5", "5s",
        "soon", "Thu, 01 Jan 1970 00:00:00 GMT", "Fri, 31 Dec 9999 23:59:59 GMT", "٣", "5, 6",
    ],
)  # fmt: skip
def test_a_retry_after_that_is_no_sensible_wait_is_ignored(value: str | None) -> None:
    assert retry_after(value, NOW) is None


WAITS_TOLD = (
    st.text(max_size=40)
    | st.integers().map(str)
    | st.floats().map(str)
    | st.datetimes(timezones=st.just(dt.timezone.utc)).map(email.utils.format_datetime)
    | st.from_regex(r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d [A-Z+-]\w{0,4}", fullmatch=True)
)


@pytest.mark.parametrize("count", [100, pytest.param(1000, marks=pytest.mark.soak)])
def test_whatever_retry_after_says_the_wait_is_sensible(count: int) -> None:
    @settings(max_examples=count, deadline=None)
    @given(WAITS_TOLD)
    def check(value: str) -> None:
        seconds = retry_after(value, NOW)

        assert seconds is None or 0 < seconds <= MAX_RETRY_AFTER_S

    check()


# --- the page ----------------------------------------------------------------------------------------


def documented_rows() -> list[str]:
    read = {"200": "200, anything else", "400": "400, anything else"}
    accepted = ACTIONS[AnswerClass.OK].value
    listed = ACTIONS[AnswerClass.PARTIAL].value
    return [
        f"| 200, documented, numbers add up | ok | imported | {accepted} |",
        f"| 400 with a list that adds up | partial | some records are refused | {listed} |",
        *(
            f"| {read.get(r.shown, r.shown)} | {r.kind.value} | {r.why} | "
            f"{(r.action or ACTIONS[r.kind]).value} |"
            for r in STATUS_ROWS
        ),
        *(f"| {r.label} | {r.kind.value} | {r.why} | {ACTIONS[r.kind].value} |" for r in BROKEN_ROWS),
    ]


def test_the_page_shows_the_table_as_it_is() -> None:
    page = (Path(__file__).parent.parent / "docs" / "delivery.md").read_text()
    table = page.partition("<!-- table -->")[2].partition("<!-- end of table -->")[0]

    assert table.strip().splitlines()[2:] == documented_rows()


def test_the_catch_all_rows_come_last() -> None:
    assert status_row(503).kind is AnswerClass.TRANSIENT
    assert status_row(999).kind is AnswerClass.PROTOCOL
