"""Faults: each kind happens as its script says, and is counted only when it has happened."""

import http.client
import json
import threading
import time
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import pytest

from mixpanel_emulator.faults import Do, FaultBook, Script, When
from mixpanel_emulator.process import EmulatorError, EmulatorProcess
from tests.emulator.talk import Reply, basic, call, connect, event, send


def fault(
    do: dict[str, Any], when: dict[str, Any] | None = None, path: str | None = "/import"
) -> dict[str, Any]:
    return {"name": "fault", "path": path, "when": when or {}, "do": do}


def happened(emulator: EmulatorProcess) -> int:
    count: int = emulator.stats()["faults"]["fault"]
    return count


def raw_answer(emulator: EmulatorProcess, body: bytes = b"") -> bytes:
    """Returns every byte that came back before the connection ended."""
    body = body or json.dumps(event()).encode()
    lines = [
        "POST /import HTTP/1.1",
        "Host: x",
        f"Authorization: {basic('t')}",
        f"Content-Length: {len(body)}",
    ]
    head = "\r\n".join([*lines, "", ""])
    with connect(emulator.url) as connection:
        connection.sendall(head.encode() + body)
        parts = []
        while part := connection.recv(65536):
            parts.append(part)
        return b"".join(parts)


def test_a_status_is_answered_and_nothing_is_stored(emulator: EmulatorProcess) -> None:
    emulator.faults([fault({"status": 503, "body": "no", "headers": {"x-told": "yes"}})])
    reply = send(emulator.url, [event()])
    assert (reply.status, reply.body, reply.headers["x-told"]) == (503, b"no", "yes")
    assert emulator.stats()["stored"] == 0
    assert emulator.stats()["requests_by_status"] == {"503": 1}
    assert happened(emulator) == 1


def test_a_wrong_body_comes_after_the_commit(emulator: EmulatorProcess) -> None:
    emulator.faults([fault({"body": '{"code":200}'})])
    assert send(emulator.url, [event()]).body == b'{"code":200}'
    assert emulator.stats()["stored"] == 1
    assert happened(emulator) == 1


def test_a_status_can_come_after_the_commit_when_told_so(emulator: EmulatorProcess) -> None:
    emulator.faults([fault({"status": 500, "commit": True})])
    assert send(emulator.url, [event()]).status == 500
    assert emulator.stats()["stored"] == 1


def test_an_html_page_is_answered(emulator: EmulatorProcess) -> None:
    emulator.faults([fault({"status": 413, "html": True})])
    reply = send(emulator.url, [event()])
    assert reply.status == 413
    assert reply.headers["content-type"] == "text/html"
    assert b"<h1>413" in reply.body
    assert happened(emulator) == 1


def test_retry_after_comes_in_both_forms(emulator: EmulatorProcess) -> None:
    emulator.faults([fault({"status": 429, "retry_after": 7})])
    assert send(emulator.url, [event()]).headers["retry-after"] == "7"
    emulator.faults([fault({"status": 429, "retry_after": "http-date", "retry_after_s": 30})])
    asked = time.time()
    told = parsedate_to_datetime(send(emulator.url, [event()]).headers["retry-after"]).timestamp()
    assert int(asked) + 30 <= told <= time.time() + 30


@pytest.mark.parametrize(("moment", "stored"), [("before", 0), ("after", 1)])
def test_the_connection_is_reset_before_or_after_the_commit(
    emulator: EmulatorProcess, moment: str, stored: int
) -> None:
    emulator.faults([fault({"reset": moment})])
    with pytest.raises(ConnectionResetError):
        send(emulator.url, [event()])
    assert emulator.stats()["stored"] == stored
    assert happened(emulator) == 1
    assert emulator.stats()["requests"] == 1


def test_the_answer_is_cut_at_any_byte_and_the_records_are_stored(emulator: EmulatorProcess) -> None:
    emulator.faults([fault({"cut_at": 10**6})])
    whole = raw_answer(emulator)
    for length in range(0, len(whole), 7):
        emulator.faults([fault({"cut_at": length})])
        assert len(raw_answer(emulator)) == length
        assert happened(emulator) == 1
    assert emulator.stats()["distinct"] == 1
    assert emulator.stats()["stored"] == len(range(0, len(whole), 7)) + 1


def test_a_delay_is_served_before_the_commit_or_after_it(emulator: EmulatorProcess) -> None:
    emulator.faults([fault({"delay_ms": 150})])
    started = time.monotonic()
    assert send(emulator.url, [event()]).status == 200
    assert time.monotonic() - started >= 0.15
    assert happened(emulator) == 1
    emulator.faults([fault({"delay_after_ms": 150})])
    started = time.monotonic()
    assert send(emulator.url, [event()]).status == 200
    assert time.monotonic() - started >= 0.15
    assert happened(emulator) == 1


def test_one_slow_request_does_not_hold_up_another(emulator: EmulatorProcess) -> None:
    emulator.faults([fault({"delay_ms": 3000}, {"nth": [1]})])
    slow: list[Reply] = []
    thread = threading.Thread(target=lambda: slow.append(send(emulator.url, [event(1)])))
    thread.start()
    while not emulator.stats()["peak_concurrency"]:
        pass
    assert send(emulator.url, [event(2)]).status == 200
    assert not slow
    thread.join()
    assert slow[0].status == 200
    assert emulator.stats()["peak_concurrency"] == 2


@pytest.mark.parametrize(
    ("when", "struck"),
    [
        ({"nth": [1, 5]}, [1, 5]),
        ({"every": 3}, [3, 6, 9]),
        ({"times": 2}, [1, 2]),
        ({"every": 2, "times": 2}, [2, 4]),
        ({}, list(range(1, 11))),
        ({"after_s": 3600}, []),
    ],
)
def test_faults_strike_the_requests_that_their_script_names(
    emulator: EmulatorProcess, when: dict[str, Any], struck: list[int]
) -> None:
    emulator.faults([fault({"status": 502}, when)])
    statuses = [send(emulator.url, [event(number)]).status for number in range(10)]
    assert [place for place, status in enumerate(statuses, start=1) if status == 502] == struck
    assert happened(emulator) == len(struck)


def test_a_share_is_the_same_each_time_for_one_seed(emulator: EmulatorProcess) -> None:
    runs = []
    for seed in (7, 7, 8):
        emulator.faults([fault({"status": 502}, {"share": 0.3, "seed": seed})])
        runs.append([call(emulator.url, "POST", "/import").status for _ in range(60)])
    assert runs[0] == runs[1] != runs[2]
    assert 8 <= runs[0].count(502) <= 28


def test_a_window_of_time_opens_and_closes() -> None:
    now = [100.0]
    book = FaultBook(lambda: now[0])
    book.replace([Script("window", Do(status=500), when=When(after_s=1, for_s=5))])
    struck = []
    for second in range(9):
        now[0] = 100.5 + second
        struck.append(bool(book.strike("POST", "/import")))
    assert struck == [False, True, True, True, True, True, False, False, False]


def test_a_fault_of_another_path_or_method_strikes_nothing(emulator: EmulatorProcess) -> None:
    emulator.faults([fault({"status": 500}, path="/track"), {**fault({"status": 500}), "method": "GET"}])
    assert send(emulator.url, [event()]).status == 200
    assert happened(emulator) == 0


def test_the_emulators_own_side_is_never_struck(emulator: EmulatorProcess) -> None:
    emulator.faults([fault({"reset": "before"}, path=None)])
    assert happened(emulator) == 0


def test_an_export_can_end_early_on_command(emulator: EmulatorProcess) -> None:
    send(emulator.url, [event(number) for number in range(20)])
    emulator.faults([fault({"terminated_early": True}, path="/api/2.0/export")])
    path = "/api/2.0/export?from_date=2023-11-01&to_date=2023-12-01"
    reply = call(emulator.url, "GET", path, headers={"Authorization": basic("t")})
    lines = reply.body.splitlines()
    assert reply.status == 200
    assert lines[-1] == b"terminated early"
    assert len(lines) == 11
    assert happened(emulator) == 1


@pytest.mark.parametrize(
    "script",
    [{"name": "x"}, {"name": "x", "do": {"stats": 1}}, {"name": "x", "do": {}, "when": {"nth": 3}}, 5],
)
def test_a_script_that_makes_no_sense_is_refused(emulator: EmulatorProcess, script: Any) -> None:
    with pytest.raises(EmulatorError, match="400"):
        emulator.faults([script])


def test_a_connection_stays_usable_after_a_made_up_answer(emulator: EmulatorProcess) -> None:
    emulator.faults([fault({"status": 503}, {"nth": [1]})])
    address = urlsplit(emulator.url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port)
    for expected in (503, 200):
        connection.request("POST", "/import", json.dumps(event()), {"Authorization": basic("t")})
        response = connection.getresponse()
        response.read()
        assert response.status == expected
    connection.close()
    assert emulator.stats()["connections"] == 1
    assert emulator.stats()["reused_connections"] == 1
