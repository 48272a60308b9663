"""`$add` and `$append` arrive once at most, whatever becomes of an answer or of who waits for it."""

from __future__ import annotations

import gzip
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mixpanel_http.crash_points import CRASHED
from pipelines.intents import Intents, read_intents
from pipelines.state import StateFolder, StateUnusable
from pipelines.summary import summary
from tests.backfills import Backfills, Outcome, read_letters
from tests.processes import start
from tests.servers import GcsServer, S3Server
from tests.test_unwritable import faulty
from transforms import attempt_ids
from transforms.storage import Storage

ONE_BY_ONE = {"records.kind": "profiles", "limits.in_flight": 4, "run.id": "it"}


def increments(count: int) -> Iterator[dict[str, Any]]:
    """Yields updates that each add 1 to a property of its own, or append to a list of its own."""
    for n in range(count):
        operation = {"$add": {f"n{n}": 1}} if n % 3 else {"$append": {f"n{n}": 1}}
        yield {"$distinct_id": f"u-{n % 17}", **operation}


def applied(backfills: Backfills) -> dict[str, int]:
    """Returns how often each increment was applied, by its property."""
    found: dict[str, int] = {}
    for raw in backfills.emulator.records(kind="profiles"):
        for name, value in json.loads(raw)["$properties"].items():
            found[name] = len(value) if isinstance(value, list) else value
    return found


Letters = Callable[[str], list[dict[str, Any]]]


def listed(report: dict[str, Any], read: Letters = lambda name: read_letters(Path(name))) -> set[str]:
    """Returns the properties of the increments that a report lists as ambiguous."""
    letters = [letter for name in report["ambiguous"]["files"] for letter in read(name)]
    assert {letter["reason"] for letter in letters} <= {"ambiguous"}
    return {next(iter(letter["record"].get("$add") or letter["record"]["$append"])) for letter in letters}


def check(backfills: Backfills, report: dict[str, Any], count: int) -> None:
    """Checks that nothing was applied twice, and that what is not certain is listed."""
    found, doubtful = applied(backfills), listed(report)
    books = report["books"]
    assert books["balanced"], books
    assert max(found.values()) == 1
    assert len(doubtful) == books["ambiguous"]
    assert books["imported"] + books["ambiguous"] + books["undelivered"] == count
    assert {f"n{n}" for n in range(count)} - set(found) <= doubtful


LOST = [
    {"name": "cut", "path": "/engage", "do": {"cut_at": 60}, "when": {"share": 0.12, "seed": 1}},
    {"name": "reset", "path": "/engage", "do": {"reset": "after"}, "when": {"share": 0.12, "seed": 2}},
    {
        "name": "failed",
        "path": "/engage",
        "do": {"status": 502, "commit": True},
        "when": {"share": 0.12, "seed": 3},
    },
    {"name": "page", "path": "/engage", "do": {"html": True}, "when": {"share": 0.05, "seed": 4}},
    {"name": "slow down", "path": "/engage", "do": {"status": 429}, "when": {"share": 0.12, "seed": 5}},
]


def lose_answers(backfills: Backfills, requests: int) -> Outcome:
    count = 3 * requests
    backfills.write("a.json", increments(count))
    backfills.emulator.faults(LOST)
    outcome = backfills.run(backfills.everything, {**ONE_BY_ONE, "limits.records_per_request": 3})
    check(backfills, outcome.report, count)
    happened = backfills.emulator.stats()["faults"]
    assert all(happened[fault["name"]] for fault in LOST)
    assert outcome.code == 5
    assert 0 < outcome.books["ambiguous"] < count
    assert outcome.report["requests"]["by_status"]["429"] == happened["slow down"]
    return outcome


def test_no_lost_answer_doubles_an_increment_nor_does_a_resume(
    backfills: Backfills,
) -> None:
    outcome = lose_answers(backfills, 100)
    backfills.emulator.faults([])
    before = backfills.emulator.stats()["requests_by_path"]["/engage"]
    small = {**ONE_BY_ONE, "limits.records_per_request": 3}
    resumed = backfills.run(backfills.everything, small, resume="it")

    assert resumed.code == 5
    assert resumed.books == outcome.books
    page = summary(resumed.report)
    assert "Ambiguous: " in page
    assert page.endswith("--resume it --set limits.retry.non_idempotent=retry\n")
    assert backfills.emulator.stats()["requests_by_path"]["/engage"] == before


def test_what_is_ambiguous_is_sent_again_only_if_that_is_asked_for(backfills: Backfills) -> None:
    backfills.write("a.json", [*increments(50), {"$distinct_id": "u-1", "$set": {"n50": 1}}])
    refused = {"name": "no", "path": "/engage", "do": {"reset": "after"}, "when": {"nth": [1]}}
    backfills.emulator.faults([refused])
    first = backfills.run(backfills.everything, ONE_BY_ONE)
    asked = {**ONE_BY_ONE, "limits.retry.non_idempotent": "retry"}
    again = backfills.run(backfills.everything, asked, resume="it")

    assert (first.code, first.books["ambiguous"], first.books["imported"]) == (5, 50, 1)
    assert (again.code, again.books["ambiguous"], again.books["imported"]) == (0, 0, 51)
    assert set(applied(backfills).values()) == {1, 2}


@pytest.mark.parametrize(
    "point", ["between answer and receipt:2", pytest.param("after intents", marks=pytest.mark.soak)]
)
def test_a_crash_doubles_nothing(backfills: Backfills, point: str) -> None:
    updates = [
        update
        for n, one in enumerate(increments(120))
        for update in (one, {"$distinct_id": f"u-{n % 17}", "$set": {"last": 1}})
    ]
    backfills.write("a.json", updates)
    config = backfills.config(backfills.everything, {**ONE_BY_ONE, "limits.records_per_request": 20})
    code, _, err = start(config, crash_at=point).end()
    assert code == CRASHED, err
    code, report, err = backfills.resume(config)

    assert code == 5, err
    assert 0 < report["books"]["ambiguous"] <= 80
    found, doubtful = applied(backfills), listed(report)
    assert max(found.values()) == 1
    assert {f"n{n}" for n in range(120)} - set(found) <= doubtful
    assert report["books"]["imported"] + report["books"]["ambiguous"] == 240


@pytest.mark.soak
@pytest.mark.parametrize("store", ["s3", "gcs"])
@pytest.mark.parametrize(
    ("order_by", "point"), [(None, "after intents:3"), ("$time", "between answer and receipt:2")]
)
def test_a_crash_doubles_nothing_with_the_state_on_a_store(
    backfills: Backfills,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    store: str,
    order_by: str | None,
    point: str,
) -> None:
    server: S3Server | GcsServer = request.getfixturevalue(store)
    options = dict(server.storage_options)
    state = StateFolder(server.url(f"{order_by}/{point}".replace(" ", "-")), Storage(dict(options)))
    if "secret" in options:
        monkeypatch.setenv("TEST_STORE_SECRET", options["secret"])
        options["secret"] = "env:TEST_STORE_SECRET"
    backfills.write("a.json", [{**one, "$time": 9_000 - n} for n, one in enumerate(increments(120))])
    changes = {
        **ONE_BY_ONE,
        "limits.records_per_request": 20,
        "records.order_by": order_by,
        "run.state": state.uri,
        "run.storage_options": options,
    }
    config = backfills.config(backfills.everything, changes)
    code, _, err = start(config, crash_at=point).end()
    assert code == CRASHED, err
    intents = {name for name in state.below("it").names("ledger") if name.endswith(".intent")}
    code, report, err = backfills.resume(config)
    doubtful = listed(report, lambda name: _letters_on(state.below("it"), name))
    found = applied(backfills)

    assert intents
    assert code == 5, err
    assert 0 < len(doubtful) == report["books"]["ambiguous"] <= 80
    assert report["books"]["imported"] + report["books"]["ambiguous"] == 120
    assert max(found.values()) == 1
    assert {f"n{n}" for n in range(120)} - set(found) <= doubtful


def _letters_on(folder: StateFolder, uri: str) -> list[dict[str, Any]]:
    lines = gzip.decompress(folder.read(uri.removeprefix(f"{folder.uri}/"))).splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_a_thousand_lost_answers_double_no_increment(backfills: Backfills) -> None:
    lost = {"name": "cut", "path": "/engage", "do": {"cut_at": 90}, "when": {"share": 0.21, "seed": 1}}
    backfills.write("a.json", increments(5000))
    backfills.emulator.faults([lost])
    outcome = backfills.run(backfills.everything, {**ONE_BY_ONE, "limits.records_per_request": 1})

    check(backfills, outcome.report, 5000)
    assert backfills.emulator.stats()["faults"]["cut"] >= 1000


def test_a_crash_doubles_nothing_though_the_clock_is_set_back_before_the_resume(
    backfills: Backfills, monkeypatch: pytest.MonkeyPatch
) -> None:
    backfills.write("a.json", increments(120))
    config = backfills.config(backfills.everything, {**ONE_BY_ONE, "limits.records_per_request": 20})
    code, _, err = start(config, crash_at="between answer and receipt:2").end()
    assert code == CRASHED, err
    monkeypatch.setattr(attempt_ids, "time", SimpleNamespace(time=lambda: time.time() - 3600))
    resumed = backfills.run_config(config, resume="it")

    assert resumed.code == 5, (resumed.report["failure"], resumed.books)
    assert resumed.books["ambiguous"] > 0
    check(backfills, resumed.report, 120)


def test_an_intent_counts_though_the_one_before_it_could_not_be_written_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = StateFolder(str(tmp_path))
    intents = Intents(folder, "run")
    whole = os.write
    monkeypatch.setattr(os, "write", lambda file, content: whole(file, content[: len(content) // 2]))
    with pytest.raises(StateUnusable, match="bytes written"):
        intents.intend("0000000", "a" * 32, {0: b"\x01"})
    monkeypatch.undo()
    intents.intend("0000000", "a" * 32, {1: b"\x03"})

    assert read_intents(folder, "run", folder.names("ledger")) == {"a" * 32: {1: b"\x03"}}


def test_increments_whose_outcome_cannot_be_written_down_are_ambiguous_and_no_resume_sends_them(
    backfills: Backfills,
) -> None:
    updates = [*increments(40), *({"$distinct_id": f"s-{n}", "$set": {"a": 1}} for n in range(10))]
    backfills.write("a.json", updates)
    config = backfills.config(backfills.everything, {**ONE_BY_ONE, "limits.records_per_request": 20})
    run = faulty("no space", ".prog", config)
    report = json.loads(run.stdout)

    assert run.returncode == 1, run.stderr
    assert report["books"]["balanced"], report["books"]
    books, sent = report["books"], len(applied(backfills).keys() - {"a"})
    assert sent > 0
    assert books["ambiguous"] == report["ambiguous"]["unrecorded"] == sent
    assert books["undelivered"] + books["not_attempted"] + books["ambiguous"] == books["read"]
    resumed = backfills.run_config(config, resume="it")

    assert (resumed.code, resumed.books["ambiguous"]) == (5, sent)
    assert len(listed(resumed.report)) == sent
    assert set(applied(backfills).values()) == {1}
