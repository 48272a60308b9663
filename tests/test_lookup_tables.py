"""The rules of lookup tables: what is checked of a CSV, what answers mean, which file is which table."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixpanel_emulator.lookup_tables import check_table as check_by_the_emulator
from mixpanel_http.failure_table import Action, AnswerClass
from mixpanel_http.lookup_tables import MAX_TABLE_BYTES, NoTable, check_table, read_table_answer
from pipelines.table_files import table_of, table_problems

GOOD = b'sku,name,price\na-1,Apple,1.5\nb-2,"Bread, sliced",2\n'


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
