"""Whole runs of lookup tables, each of which is replaced as a whole or not at all."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from mixpanel_http.crash_points import CRASHED
from tests.backfills import Backfills, Outcome
from tests.processes import start
from tests.servers import S3Server
from transforms.table_outcomes import ROWS_PER_BLOCK

GOOD = b'sku,name,price\na-1,Apple,1.5\nb-2,"Bread, sliced",2\n'
KIND = {"records.kind": "lookup_tables", "run.id": "it"}
QUICK = {
    "limits.retry": {"first_wait_seconds": 0.01, "longest_wait_seconds": 0.02, "give_up_after_seconds": 0.05}
}


def put(backfills: Backfills, name: str, content: bytes) -> Path:
    path = backfills.folder / "input" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return path


def stored(backfills: Backfills) -> dict[str, str]:
    rows = map(json.loads, backfills.emulator.records(kind="lookup_tables"))
    return {row["id"]: row["csv"] for row in rows}


def run(backfills: Backfills, changes: dict[str, Any] | None = None, **how: Any) -> Outcome:
    return backfills.run(backfills.everything, {**KIND, **(changes or {})}, **how)


def test_tables_that_came_later_are_taken_in_if_that_is_asked_for(backfills: Backfills) -> None:
    put(backfills, "f-1.csv", GOOD)
    assert run(backfills).code == 0
    put(backfills, "f-2.csv", b"id,f\r\nk,1\r\n")
    told = run(backfills, resume="it")
    taken = run(backfills, resume="it", allow_new=True)
    again = run(backfills, resume="it", allow_new=True)

    assert (told.code, told.books["imported"]) == (0, 2)
    for outcome in (taken, again):
        assert (outcome.code, outcome.books["imported"], outcome.report["files"]["total"]) == (0, 3, 2)
    assert set(stored(backfills)) == {"f-1", "f-2"}
    assert backfills.emulator.stats()["requests"] == 2


def test_a_file_that_came_later_is_no_table_that_another_is_already(backfills: Backfills) -> None:
    put(backfills, "skus-1.csv", GOOD)
    by_pattern = {"records.tables": {"skus*.csv": "f-1", "regions.csv": "f-2"}}
    assert run(backfills, by_pattern).code == 0
    (backfills.folder / "input" / "skus-1.csv").unlink()
    put(backfills, "skus-2.csv", GOOD)
    put(backfills, "more.csv", GOOD)
    outcome = run(backfills, by_pattern, resume="it", allow_new=True)

    assert outcome.code == 2
    assert "skus-2.csv: is lookup table f-1, and so is " in outcome.err
    assert "more.csv: fits no pattern of records.tables" in outcome.err
    assert len(stored(backfills)) == 1


def test_tables_arrive_as_they_are_and_their_rows_are_counted(backfills: Backfills) -> None:
    put(backfills, "f-1.csv", GOOD)
    put(backfills, "f-2.csv.gz", b"id,f\r\nk,1\r\n")
    outcome = run(backfills)

    assert outcome.code == 0, outcome.err
    assert stored(backfills) == {"f-1": GOOD.decode(), "f-2": "id,f\r\nk,1\r\n"}
    assert (outcome.books["read"], outcome.books["imported"], outcome.books["balanced"]) == (3, 3, True)
    assert outcome.report["files"]["done"] == 2
    assert outcome.report["requests"]["by_status"] == {"200": 2}
    assert (backfills.state / "it" / "_SUCCESS").exists()


def test_tables_are_told_apart_by_patterns(backfills: Backfills) -> None:
    put(backfills, "skus/2024.csv", GOOD)
    assert run(backfills, {"records.tables": {"20*.csv": "f-9"}}).code == 0
    assert list(stored(backfills)) == ["f-9"]


def test_a_file_that_is_no_tables_is_told_before_anything_is_sent(backfills: Backfills) -> None:
    path = put(backfills, "notes.txt", b"x")
    put(backfills, "skus.csv", GOOD)
    outcome = run(backfills, {"records.tables": {"skus.csv": "f-1"}})

    assert outcome.code == 2
    assert (
        outcome.err == f"error: {path}: fits no pattern of records.tables; add one, or leave the file out\n"
    )
    assert not stored(backfills)


def test_a_table_with_a_bad_row_is_not_sent_and_each_row_is_a_dead_letter(backfills: Backfills) -> None:
    bad = put(backfills, "bad.csv", b'id,f\nk,1\nk,2\n"l\nm",3,4\n')
    put(backfills, "good.csv", GOOD)
    outcome = run(backfills)

    assert outcome.code == 6
    assert list(stored(backfills)) == ["good"]
    assert (outcome.books["read"], outcome.books["imported"], outcome.books["dead_lettered"]) == (5, 2, 3)
    assert outcome.report["dead_letters"]["by_reason"] == {"table_refused": 1, "bad_key": 1, "bad_row": 1}
    letters = outcome.dead_letters()
    assert [letter["source"] for letter in letters] == [
        {"uri": str(bad), "line": line, "offset": None} for line in (2, 3, 4)
    ]
    assert [letter["record"] for letter in letters] == [
        {"id": "k", "f": "1"},
        {"id": "k", "f": "2"},
        ["l\nm", "3", "4"],
    ]
    assert letters[0]["message"] == "another row of the table is refused, and a table is replaced as a whole"


def test_what_is_no_table_is_a_damaged_file_and_the_rest_goes_on(backfills: Backfills) -> None:
    put(backfills, "a.csv", b'id,f\nk,"open\n')
    put(backfills, "b.csv.gz", GOOD)
    cut = put(backfills, "c.csv.gz", GOOD)
    cut.write_bytes(cut.read_bytes()[:-9])
    outcome = run(backfills)

    assert outcome.code == 4
    assert list(stored(backfills)) == ["b"]
    problems = {Path(each["uri"]).name: each["problem"] for each in outcome.report["files"]["damaged"]}
    assert problems == {"a.csv": "no_table", "c.csv.gz": "truncated"}


def test_a_table_that_the_service_refuses_is_refused_as_a_whole(backfills: Backfills) -> None:
    put(backfills, "f-1.csv", GOOD)
    body = {"code": 400, "error": "no", "failed_records": [{"index": 2, "message": "bad price"}]}
    refuse = {"name": "no", "when": {"share": 1.0}, "do": {"status": 400, "body": json.dumps(body)}}
    backfills.emulator.faults([refuse])
    outcome = run(backfills)

    assert outcome.code == 6
    reasons = {
        (letter["reason"], letter["message"], letter["http_status"]) for letter in outcome.dead_letters()
    }
    assert reasons == {
        ("refused_by_service", "bad price", 400),
        ("table_refused", "another row of the table is refused, and a table is replaced as a whole", 400),
    }


def test_an_unknown_table_stops_the_run_and_a_resume_goes_on(backfills: Backfills) -> None:
    put(backfills, "f-1.csv", GOOD)
    body = {"code": 200, "error": "Lookup table with id 'f-1' was not found.", "status": "Not Found"}
    refuse = {"name": "no", "when": {"share": 1.0}, "do": {"status": 404, "body": json.dumps(body)}}
    backfills.emulator.faults([refuse])
    outcome = run(backfills)
    assert (outcome.code, outcome.report["state"]) == (3, "stopped")
    (stop,) = outcome.report["stopped_by"]
    assert stop == {"status": 404, "message": "lookup table f-1: there is none with this id"}
    assert outcome.books["not_attempted"] == 2
    backfills.emulator.faults([])

    assert run(backfills, resume="it").code == 0
    assert list(stored(backfills)) == ["f-1"]


def test_a_table_is_sent_again_after_an_outage_but_not_when_it_is_done(backfills: Backfills) -> None:
    put(backfills, "a.csv", GOOD)
    put(backfills, "b.csv", GOOD)
    outage = {"name": "outage", "when": {"nth": list(range(2, 60))}, "do": {"status": 503}}
    backfills.emulator.faults([outage])
    outcome = run(backfills, QUICK)
    assert outcome.code == 5
    assert (outcome.books["imported"], outcome.books["undelivered"]) == (2, 2)
    assert backfills.emulator.stats()["faults"]["outage"] > 0
    backfills.emulator.faults([])

    resumed = run(backfills, QUICK, resume="it")
    assert resumed.code == 0, resumed.report
    assert (resumed.books["read"], resumed.books["imported"], resumed.books["balanced"]) == (4, 4, True)
    assert resumed.report["requests"]["by_status"]["200"] == 2
    assert stored(backfills) == {"a": GOOD.decode(), "b": GOOD.decode()}


def test_a_dry_run_checks_and_sends_nothing(backfills: Backfills) -> None:
    put(backfills, "a.csv", GOOD)
    put(backfills, "b.csv", b"id,f\n,1\n")
    outcome = run(backfills, dry_run=True)

    assert (outcome.code, outcome.report["state"]) == (6, "dry_run")
    assert (outcome.books["not_attempted"], outcome.books["dead_lettered"]) == (2, 1)
    assert not stored(backfills)


@pytest.mark.parametrize("bad", [False, True])
def test_the_books_of_a_long_table_close(backfills: Backfills, bad: bool) -> None:
    rows = 2 * ROWS_PER_BLOCK + 1
    lines = [f"k{n},{n}" for n in range(rows - 1)]
    put(backfills, "long.csv", "\n".join(["id,f", *lines, "k0,1" if bad else "last,1"]).encode())
    outcome = run(backfills)

    assert outcome.code == (6 if bad else 0)
    assert outcome.books["dead_lettered" if bad else "imported"] == outcome.books["read"] == rows
    assert outcome.books["balanced"]
    assert len(outcome.dead_letters()) == (rows if bad else 0)


def test_rows_are_not_replayed(backfills: Backfills) -> None:
    put(backfills, "b.csv", b"id,f\n,1\n")
    assert run(backfills).code == 6
    outcome = run(backfills, {"run.id": "again"}, replay="it")

    assert outcome.code == 2
    assert "a lookup table is sent as a whole: mend its file and start a new run" in outcome.err


def test_tables_come_from_s3_too(backfills: Backfills, s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_S3_SECRET", s3.secret_key)
    s3.put("lookups/f-1.csv.gz", gzip.compress(GOOD))
    options = {**s3.storage_options, "secret": "env:TEST_S3_SECRET"}
    outcome = backfills.run(s3.url("lookups/*.csv.gz"), {**KIND, "source.storage_options": options})

    assert outcome.code == 0, outcome.err
    assert stored(backfills) == {"f-1": GOOD.decode()}


def test_a_table_that_changes_while_the_run_is_stopped_is_not_mixed(backfills: Backfills) -> None:
    put(backfills, "a.csv", GOOD)
    outage = {"name": "outage", "when": {"share": 1.0}, "do": {"status": 503}}
    backfills.emulator.faults([outage])
    assert run(backfills, QUICK).code == 5
    assert backfills.emulator.stats()["faults"]["outage"] > 0
    backfills.emulator.faults([])
    put(backfills, "a.csv", GOOD + b"c-3,Cream,3\n")
    outcome = run(backfills, QUICK, resume="it")

    assert outcome.code == 2
    assert "a.csv: has changed since the run was planned" in outcome.err
    assert not stored(backfills)


@pytest.mark.soak
def test_a_crash_before_a_table_is_committed_replaces_it_once_more_and_loses_nothing(
    backfills: Backfills,
) -> None:
    put(backfills, "sku.csv", GOOD)
    config = backfills.config(backfills.everything, KIND)
    code, _, err = start(config, crash_at="before commit of a table").end()
    assert code == CRASHED, err
    code, report, err = backfills.resume(config)

    assert code == 0, err
    assert (report["books"]["read"], report["books"]["imported"], report["books"]["balanced"]) == (2, 2, True)
    assert stored(backfills) == {"sku": GOOD.decode()}
