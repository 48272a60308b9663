"""Answers of /import: what is believed of them, what is told of them, and how long they ask to wait."""

from __future__ import annotations

import datetime as dt
import email.utils

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixpanel_http.answers import MAX_RETRY_AFTER_S, read_answer, retry_after
from mixpanel_http.failure_table import AnswerClass
from tests.answers import GOOD, SENT, answer, refusal

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
