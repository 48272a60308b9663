"""R24 over sockets: whatever /engage and /groups say that is no proof, a whole run takes for none."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.summary import summary
from tests.backfills import Backfills, Outcome, read_letters
from tests.loopback import Answerer, http, loopback_server
from tests.test_update_answers import NO_PROOF, SENT

GOOD = json.dumps({"code": 200, "num_good_events": SENT, "status": 1, "error": None}).encode()
ANSWERS = [
    *(http(200, shape if isinstance(shape, bytes) else json.dumps(shape).encode()) for shape in NO_PROOF),
    http(201, GOOD),
    http(202, GOOD),
    http(204),
    http(206, GOOD),
    http(207, GOOD),
]
FEW = [NO_PROOF.index({"status": 1})]
NOTHING = {"a run asks": "whether its credentials are taken", "status": "Bad Request", "error": "no event"}
REFUSED = http(200, json.dumps({"status": 0, "error": "no"}).encode())


def answers(path: str, answer: bytes) -> Answerer:
    """Returns what says the same to each request of three updates, and refuses those that are cut smaller."""

    def say(connection: socket.socket, request: bytes) -> None:
        if request.startswith(b"POST /import"):
            connection.sendall(http(400, json.dumps(NOTHING).encode()))
            return
        assert request.startswith(b"POST " + path.encode()), request[:40]
        updates = json.loads(request.partition(b"\r\n\r\n")[2])
        connection.sendall(answer if len(updates) == SENT else REFUSED)

    return say


def of_user(n: int) -> dict[str, Any]:
    return {"$distinct_id": f"u-{n}", "$set": {"n": n}}


def increment(n: int) -> dict[str, Any]:
    return {"$distinct_id": f"u-{n}", "$add": {"n": n}}


def of_group(n: int) -> dict[str, Any]:
    return {"$group_key": "company", "$group_id": f"g-{n}", "$union": {"n": [n]}}


def run(backfills: Backfills, kind: str, update: Callable[[int], dict[str, Any]], answer: bytes) -> Outcome:
    backfills.write("a.json", [update(n) for n in range(SENT)])
    path = {"profiles": "/engage", "groups": "/groups"}[kind]
    with loopback_server(answers(path, answer)) as server:
        changes = {
            "records.kind": kind,
            "destination.endpoint": server.url,
            "limits.retry": {
                "first_wait_seconds": 0.001,
                "longest_wait_seconds": 0.002,
                "give_up_after_seconds": 0.5,
            },
        }
        return backfills.run(backfills.everything, changes)


def check_never_taken_for_imported(outcome: Outcome) -> None:
    books = outcome.books
    assert books["imported"] == 0
    assert books["balanced"]
    assert books["read"] == SENT
    assert outcome.code in (3, 5, 6), outcome.report
    assert outcome.report["requests"]["total"] >= 1


@pytest.mark.parametrize("number", FEW)
@pytest.mark.parametrize(("kind", "update"), [("profiles", of_user), ("groups", of_group)])
def test_a_doubtful_answer_is_asked_again_and_never_taken_for_success(
    backfills: Backfills, kind: str, update: Callable[[int], dict[str, Any]], number: int
) -> None:
    outcome = run(backfills, kind, update, ANSWERS[number])

    check_never_taken_for_imported(outcome)
    assert outcome.report["requests"]["retries"] + outcome.report["requests"]["isolations"] >= 1


@pytest.mark.parametrize("number", FEW)
def test_a_doubtful_answer_leaves_increments_ambiguous_and_says_where_they_are(
    backfills: Backfills, number: int
) -> None:
    check_ambiguous(run(backfills, "profiles", increment, ANSWERS[number]))


def check_ambiguous(outcome: Outcome) -> None:
    check_never_taken_for_imported(outcome)
    assert outcome.code == 5
    assert outcome.books["ambiguous"] == SENT
    assert outcome.report["requests"]["total"] == 1
    (name,) = outcome.report["ambiguous"]["files"]
    letters = read_letters(Path(name))
    assert [letter["source"]["line"] for letter in letters] == [1, 2, 3]
    assert all(letter["reason"] == "ambiguous" and letter["message"] for letter in letters)
    assert "Ambiguous: " in summary(outcome.report)


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_no_shape_of_an_answer_is_ever_taken_for_success(backfills: Backfills) -> None:
    for answer in ANSWERS:
        for kind, update in (("profiles", of_user), ("groups", of_group)):
            check_never_taken_for_imported(run(backfills, kind, update, answer))
        check_ambiguous(run(backfills, "profiles", increment, answer))
    assert len(ANSWERS) >= 50
