"""Lookup tables: what is checked of a CSV, what answers mean, and whole runs, all or nothing."""

from __future__ import annotations

import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixpanel_emulator.lookup_tables import check_table as check_by_the_emulator
from mixpanel_http.crash_points import CRASHED
from mixpanel_http.failure_table import Action, AnswerClass
from mixpanel_http.lookup_tables import MAX_TABLE_BYTES, NoTable, check_table, read_table_answer
from pipelines.table_files import table_of, table_problems
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


# Rules.


def test_a_table_is_counted_without_its_header() -> None:
    table = check_table(b"\xef\xbb\xbf" + GOOD)

    assert (table.rows, list(table.header), table.refused) == (2, ["sku", "name", "price"], [])
    assert table.content == GOOD  # a mark would become a part of the first column's name


@pytest.mark.parametrize(
    ("content", "index", "reason", "message"),
    [
        (b"id,f\nk,1\nk,2\n", 1, "bad_key", "the key stands in line 2 already"),
        (b"id,f\n,1\n", 0, "bad_key", "the first column, the key, is blank"),
        (b'id,f\n" ",1\n', 0, "bad_key", "the first column, the key, is blank"),
        (b"id,f\nk,1\nl,1,2\n", 1, "bad_row", "2 fields are needed, 3 came"),
        (b"id,f\nk,1\nl\n", 1, "bad_row", "2 fields are needed, 1 came"),
        (b"id,f\nk,1\n\nl,2\n", 1, "bad_row", "2 fields are needed, 0 came"),
    ],
)
def test_a_row_at_fault_is_told_by_its_index(content: bytes, index: int, reason: str, message: str) -> None:
    (refused,) = check_table(content).refused

    assert (refused.index, refused.reason, refused.message) == (index, reason, message)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "line 1: a header with at least 2 columns is needed, 0 came"),
        (b"id\nk\n", "line 1: a header with at least 2 columns is needed, 1 came"),
        (b"id,f,f\nk,1,2\n", "line 1: the names of the columns must differ"),
        (b'id,f\nk,"open\n', "line 2: unexpected end of data"),
        (b'id,f\nk,"a"b\n', "line 2: ',' expected after '\"'"),
        (b'id,f\nk,a"b\n', "line 2: a quote within a field that does not begin with one"),
        (b'id,f\nk,"a\n\nb"\nl,\xff\n', "line 5: is no text in UTF-8"),
        (b"id,f\n" + b"x" * MAX_TABLE_BYTES, "where a table has at most 100,000,000"),
    ],
)
def test_what_is_no_table_is_told_by_its_line(content: bytes, message: str) -> None:
    with pytest.raises(NoTable) as refused:
        check_table(content)

    assert message in str(refused.value)


def test_fields_may_hold_what_rfc_4180_lets_them() -> None:
    content = b'id,f\r\nk,"a ""b"", c\r\nd"\r\nl,\r\n"m,n",' + b"x" * 200_000
    assert (check_table(content).rows, check_table(content).refused) == (3, [])


cells = st.text(st.sampled_from('ab ",\n\r;é'), max_size=5)


@given(st.lists(st.lists(cells, min_size=2, max_size=3), min_size=1, max_size=6))
def test_what_we_let_pass_the_emulator_takes_and_the_other_way_round(rows: list[list[str]]) -> None:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    content = text.getvalue().encode()
    try:
        ours = not check_table(content).refused
    except NoTable:
        ours = False

    assert ours is (not check_by_the_emulator(content))


@given(st.binary(max_size=60))
def test_whatever_a_file_holds_is_judged(content: bytes) -> None:
    try:
        table = check_table(content)
    except NoTable:
        return
    assert len(table.refused) <= table.rows


# Answers.


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (200, {"code": 200, "status": "OK"}, AnswerClass.OK),
        (200, {"status": 1, "error": None}, AnswerClass.OK),
        (200, {"code": 200, "status": "OK", "failed_records": [{"index": 1}]}, AnswerClass.PROTOCOL),
        (200, {"status": 0, "error": "no"}, AnswerClass.PROTOCOL),
        (200, {"code": 404, "status": "OK"}, AnswerClass.PROTOCOL),
        (
            400,
            {"status": 0, "error": "some data points in the request failed validation"},
            AnswerClass.RECORD,
        ),
        (401, {"error": "Unauthorized"}, AnswerClass.FATAL),
        (404, {"code": 200, "error": "Lookup table with id 'x' was not found."}, AnswerClass.FATAL),
        (413, {"error": "request exceeds max limit of 104857600 bytes"}, AnswerClass.TOO_LARGE),
        (429, {"error": "Project exceeded rate limits"}, AnswerClass.THROTTLED),
        (503, {}, AnswerClass.TRANSIENT),
    ],
)
def test_an_answer_means_what_it_says(status: int, body: dict[str, Any], kind: AnswerClass) -> None:
    assert read_table_answer(status, {}, json.dumps(body).encode(), 1, 0.0).kind is kind


def test_refused_rows_are_counted_from_behind_the_header() -> None:
    failed = [{"index": 2, "message": "same key"}, {"index": 0, "message": "header"}, {"index": "1"}, "text"]
    body = json.dumps({"code": 400, "failed_records": failed, "status": "Bad Request"}).encode()
    answer = read_table_answer(400, {}, body, 1, 0.0)

    assert [(row.index, row.message) for row in answer.refused] == [(1, "same key")]
    assert answer.action is Action.ISOLATE


def test_anything_but_json_is_no_success() -> None:
    assert read_table_answer(200, {}, b"1", 1, 0.0).kind is AnswerClass.PROTOCOL


# Which file is which table.


def test_a_file_is_the_table_of_the_first_pattern_that_fits_or_named_by_its_id() -> None:
    tables = {"skus*.csv*": "t-1", "*": "t-2"}

    assert table_of("s3://b/x/skus-2024.csv.gz", tables) == "t-1"
    assert table_of("/x/other.csv", tables) == "t-2"
    assert table_of("/x/other.csv", {"skus.csv": "t-1"}) is None
    assert table_of("gs://b/f077cb07.csv.zst", {}) == "f077cb07"


def test_a_table_has_one_file_and_a_file_a_table() -> None:
    uris = [f"/x/{name}" for name in ("a.csv", "b.csv", "c.txt")]

    assert table_problems(uris, {"*.csv": "t"}) == [
        "/x/b.csv: is lookup table t, and so is /x/a.csv",
        "/x/c.txt: fits no pattern of records.tables; add one, or leave the file out",
    ]


# Whole runs.


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
