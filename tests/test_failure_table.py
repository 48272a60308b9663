"""The failure table: what each status and each broken connection means, and what is done about it."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path

import pytest
from urllib3 import exceptions as transport
from urllib3.connection import HTTPConnection

from mixpanel_http.answers import broken_answer
from mixpanel_http.failure_table import (
    ACTIONS,
    BROKEN_ROWS,
    STATUS_ROWS,
    Action,
    AnswerClass,
    status_row,
)
from tests.answers import GOOD, answer

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
