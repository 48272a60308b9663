"""CSV and TSV: rows as RFC 4180 has them, what their fields mean, and what is no row."""

import base64
import csv
import io
from collections.abc import Sequence
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixpanel_http.verdicts import Reason
from source_formats import field_types, table_rows
from source_formats.delimited import read_delimited
from source_formats.field_types import column_values, infer
from source_formats.lines import FormatProblem
from source_formats.table_rows import HELD_BYTES, TableLayout
from tests.events import tokens

ROWS = TableLayout(infer=False, shape="rows", empty="text")


def read(text: bytes, layout: TableLayout = ROWS, size: int = 1 << 20) -> list[tuple[bytes, int, str, str]]:
    """Every line with where its row starts, and why it was refused."""
    found: list[tuple[bytes, int, str, str]] = []
    for lines in read_delimited(layout, (text[i : i + size] for i in range(0, len(text), size))):
        refused = {line.index: line for line in lines.refused}
        pieces = lines.raw.split(b"\n") if lines.raw else []
        for index, raw in enumerate(pieces[: len(lines.offsets or ())]):
            why = refused.get(index)
            raw = base64.b64decode(raw) if why else raw
            found.append(
                (raw, (lines.offsets or ())[index], why.reason if why else "", why.message if why else "")
            )
    return found


def rows_of(text: bytes, layout: TableLayout = ROWS) -> list[Any]:
    found = read(text, layout)
    assert not [why for _, _, why, _ in found if why]
    return [tokens(raw) for raw, *_ in found]


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        (b"", []),
        (b"a,b\n", []),
        (b"a,b\n1,2\n", [["1", "2"]]),
        (b"a,b\n1,2", [["1", "2"]]),
        (b"\xef\xbb\xbfa,b\r\n1,2\r\n\r\n3,4\r\n", [["1", "2"], ["3", "4"]]),
        (b'a,b\n"1,""x""\ny",2\n', [['1,"x"\ny', "2"]]),
        (b'a,b\n"",\n', [["", ""]]),
        (b'a,b\n5" wide,2\n', [['5" wide', "2"]]),
        ("a,b\nä,\u2028\x0b\n".encode(), [["ä", "\u2028\x0b"]]),
    ],
)
def test_rows_are_what_the_text_holds(text: bytes, rows: list[list[str]]) -> None:
    assert [list(row.values()) for row in rows_of(text)] == rows


@pytest.mark.parametrize(
    ("first_line", "delimiter"), [("a,b", ","), ("a;b,c;d", ";"), ("a\tb", "\t"), ("a|b", "|"), ("a", ",")]
)
def test_the_delimiter_is_the_one_most_often_in_the_first_line(first_line: str, delimiter: str) -> None:
    names = first_line.split(delimiter)
    text = f"{first_line}\n{delimiter.join('x' for _ in names)}\n".encode()

    assert rows_of(text) == [dict.fromkeys(names, "x")]


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("12", "int 12"),
        ("0", "int 0"),
        ("-5", "int -5"),
        ("1.50", "float 1.5"),
        ("999999999999999", "int 999999999999999"),
        ("1234567890123456", "1234567890123456"),
        ("12345678901234567890", "12345678901234567890"),
        ("007", "007"),
        ("-0", "int 0"),
        ("+1", "+1"),
        ("1e5", "1e5"),
        ("0.1234567890123456", "0.1234567890123456"),
        ("1.", "1."),
        ("NaN", "NaN"),
        ("TRUE", True),
        ("false", False),
        ("tru", "tru"),
        ("²", "²"),
        (" 1", " 1"),
    ],
)
def test_what_a_value_means_is_told_by_its_spelling_and_loses_nothing(text: str, meaning: Any) -> None:
    assert rows_of(f"a\n{text}\n".encode(), TableLayout(shape="rows")) == [{"a": meaning}]


@settings(max_examples=150, deadline=None)
@given(st.text("0123456789.-+eE", max_size=22) | st.integers().map(str) | st.floats().map(str))
def test_a_number_that_is_told_by_its_spelling_is_the_number_that_is_spelled(text: str) -> None:
    if not text:
        return
    value = field_types.infer(text)
    if not isinstance(value, str):
        spelled = text.rstrip("0").rstrip(".") if "." in text else text
        shown = f"{value:f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
        assert float(value) == float(text)
        assert len(text) > 15 or isinstance(value, float) or shown == spelled.replace("-0", "0")


@pytest.mark.parametrize(
    ("kind", "text", "meaning"),
    [
        ("string", "12", "12"),
        ("integer", "+0012", "int 12"),
        ("integer", "-123456789012345678901234", "int -123456789012345678901234"),
        ("number", "1.5000000000000000000001", "float 1.5000000000000000000001"),
        ("number", "1E400", "float 1E400"),
        ("boolean", "1", True),
        ("boolean", "F", False),
        ("json", '{"a": [1.0, null]}', {"a": ["float 1.0", None]}),
        ("timestamp", "2024-02-29", "int 1709164800000"),
        ("timestamp", "2024-02-29 12:00:00", "int 1709208000000"),
        ("timestamp", "2024-02-29T12:00:00.5+01:00", "int 1709204400500"),
        ("timestamp", "1969-12-31T23:59:59.999Z", "int -1"),
        ("timestamp", "1709204400", "int 1709204400"),
        ("timestamp", "1709204400.25", "float 1709204400.25"),
    ],
)
def test_a_declared_type_says_what_a_value_means(kind: Any, text: str, meaning: Any) -> None:
    layout = TableLayout(shape="rows", types={"a": kind}, delimiter=";", quote=None)

    assert rows_of(f"a\n{text}\n".encode(), layout) == [{"a": meaning}]


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("integer", "1.0"),
        ("integer", "x"),
        ("number", "007"),
        ("number", "NaN"),
        ("boolean", "yes"),
        ("json", "{"),
        ("timestamp", "2024-02-30"),
        ("timestamp", "29.02.2024"),
        ("timestamp", "2024-02-29T25:00:00"),
    ],
)
def test_a_value_of_another_type_makes_its_row_bad_and_no_other(kind: Any, text: str) -> None:
    layout = TableLayout(shape="rows", types={"a": kind})
    found = read(f"a,b\n,1\n{text},2\n,3\n".encode(), layout)

    assert [(raw, why) for raw, _, why, _ in found] == [
        (b'{"b":1}', ""),
        (f"{text},2".encode(), "bad_row"),
        (b'{"b":3}', ""),
    ]
    assert "the column 'a' is to hold" in found[1][3]
    assert text not in found[1][3]


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (b"a,b\n1\n2,3\n4,5,6\n", [(b"1", "bad_row"), ("2", ""), (b"4,5,6", "bad_row")]),
        (b'a,b\n1,"x\n2,y\n3,z\n', [(b'1,"x', "bad_row"), ("2", ""), ("3", "")]),
        (b'a,b\n1,"x\n2,"y"\n3,z\n', [(b'1,"x', "bad_row"), ("2", ""), ("3", "")]),
        (b'a,b\n1,"x"y\n2,y\n', [(b'1,"x"y', "bad_row"), ("2", "")]),
        (b"a,b\n1,\xff\n2,y\n", [(b"1,\xff", "invalid_utf8"), ("2", "")]),
        (b"a,b\n1,x\ry\n2,y\n", [(b"1,x\ry", "bad_row"), ("2", "")]),
        (b'a,b\n1,"x', [(b'1,"x', "bad_row")]),
    ],
)
@pytest.mark.parametrize("size", [3, 1 << 20])
def test_the_neighbours_of_a_bad_row_are_whole(text: bytes, lines: list[tuple[Any, str]], size: int) -> None:
    found = [(raw if why else tokens(raw)["a"], why) for raw, _, why, _ in read(text, ROWS, size)]

    assert found == lines


def test_reasons_are_those_that_dead_letters_have() -> None:
    assert {table_rows.BAD_ROW, table_rows.INVALID_UTF8} <= {reason.value for reason in Reason}


FIELDS = st.text('ab1,;"\n\tä', max_size=5)


@settings(max_examples=120, deadline=None)
@given(st.lists(st.lists(FIELDS, min_size=2, max_size=2), max_size=6), st.booleans(), st.integers(1, 30))
def test_whatever_the_csv_module_writes_is_read_as_it_was(
    rows: list[list[str]], all_quoted: bool, size: int
) -> None:
    text = io.StringIO()
    quoting: Literal[0, 1] = csv.QUOTE_ALL if all_quoted else csv.QUOTE_MINIMAL
    writer = csv.writer(text, quoting=quoting, lineterminator="\r\n" if all_quoted else "\n")
    writer.writerows([["x", "y"], *rows])
    found = read(text.getvalue().encode(), ROWS, size)

    assert [list(tokens(raw).values()) for raw, *_ in found] == rows


@settings(max_examples=120, deadline=None)
@given(st.text('a1,"\n\r', max_size=40), st.integers(1, 9))
def test_any_text_is_read_alike_however_it_is_cut(text: str, size: int) -> None:
    raw = b"x,y\n" + text.encode()

    assert read(raw, ROWS, size) == read(raw, ROWS)


def test_each_row_is_told_by_the_byte_where_it_starts() -> None:
    text = b'a,b\n1,"\n"\n\n2,\xc3\xa4\nbad\n3,x\n'
    found = read(text)

    assert [text[offset : offset + 2] for _, offset, *_ in found] == [b"1,", b"2,", b"ba", b"3,"]


@pytest.mark.parametrize(
    ("columns", "rows", "event"),
    [
        (
            "event,time,distinct_id,$insert_id,plan",
            "A,2024-02-29,12,34,56",
            {
                "event": "A",
                "properties": {
                    "time": "int 1709164800000",
                    "distinct_id": "12",
                    "$insert_id": "34",
                    "plan": "int 56",
                },
            },
        ),
        (
            "event,properties.time,properties.n",
            "A,5,6",
            {"event": "A", "properties": {"time": "int 5", "n": "int 6"}},
        ),
        ("event,time", "A,tomorrow", {"event": "A", "properties": {"time": "tomorrow"}}),
        ("event,time", ",", {"properties": {}}),
        ("x", "1", {"properties": {"x": "int 1"}}),
    ],
)
def test_a_flat_row_becomes_an_event(columns: str, rows: str, event: Any) -> None:
    assert rows_of(f"{columns}\n{rows}\n".encode(), TableLayout()) == [event]


def test_a_table_of_events_stays_as_it_is() -> None:
    layout = TableLayout(types={"properties": "json"}, delimiter=";", quote=None)
    text = b'event;properties\nA;{"time": 1}\n'

    assert rows_of(text, layout) == [{"event": "A", "properties": {"time": "int 1"}}]


@pytest.mark.parametrize(("empty", "row"), [("absent", {}), ("null", {"a": None}), ("text", {"a": ""})])
def test_an_empty_field_is_what_was_asked_for(empty: Any, row: dict[str, Any]) -> None:
    found = rows_of(b"a,b\n,1\n", TableLayout(shape="rows", empty=empty))

    assert found == [{**row, "b": "int 1"}]


@pytest.mark.parametrize("header", [True, False])
def test_columns_are_named_where_the_header_does_not(header: bool) -> None:
    layout = TableLayout(shape="rows", columns=("x", "y"), header=header)
    text = b"p,q\n1,2\n" if header else b"1,2\n"

    assert rows_of(text, layout) == [{"x": "int 1", "y": "int 2"}]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"a,b,a\n1,2,3\n", "'a' is there twice"),
        (b"a,b\r1,2\r", r"a CR outside of quotes; end lines in LF or CRLF: tr '\\r' '\\n'"),
        (b"a,,b\n1,2,3\n", "a column has no name"),
        (b"event,x,properties.x\n", "'x' is there twice"),
        (b"\xff\xfe,b\n1,2\n", "no UTF-8"),
        (b'"a\n1,2\n', "header is no row"),
        (b"a" * (HELD_BYTES + 9), "first line does not end"),
    ],
)
def test_a_header_of_no_use_makes_the_file_unreadable_and_says_why(text: bytes, words: str) -> None:
    with pytest.raises(FormatProblem, match=words) as caught:
        read(text, TableLayout())
    assert caught.value.problem == "unsupported_format"


def test_names_that_no_field_could_have_are_keys_all_the_same() -> None:
    assert rows_of(b'"a ""b""","c\nd"\n1,2\n') == [{'a "b"': "1", "c\nd": "2"}]


@pytest.mark.parametrize("size", [1 << 18, 1 << 20])
def test_rows_are_found_again_behind_a_quote_that_does_not_end(size: int) -> None:
    count = HELD_BYTES // 900
    rows = b"2,%s\n" % (b"y" * 1000) * count
    found = read(b'a,b\n1,"x\n' + rows, ROWS, size)

    assert len(found) == 1 + count
    assert [why for _, _, why, _ in found if why] == ["bad_row"]


def test_a_line_that_does_not_end_is_passed_on_as_it_comes() -> None:
    giant = b"1," + b"x" * (HELD_BYTES + 5_000_000)
    pieces = list(read_delimited(ROWS, [b"a,b\n" + giant + b"\n2,y\n"]))
    text = b"".join(lines.raw for lines in pieces)

    assert max(len(lines.raw) for lines in pieces) <= HELD_BYTES + (1 << 20)
    assert text == giant + b'\n{"a":"2","b":"y"}\n'
    assert offsets_of(pieces) == [4, 5 + len(giant)]


def offsets_of(pieces: Sequence[Any]) -> list[int]:
    return [offset for lines in pieces for offset in lines.offsets]


def test_without_quotes_a_quote_is_text() -> None:
    layout = TableLayout(shape="rows", quote=None, infer=False)

    assert rows_of(b'a,b\n"1,2"\n', layout) == [{"a": '"1', "b": '2"'}]


NUMBER_LIKE = st.lists(
    st.sampled_from(
        ["", "0", "-0", "007", "1.50", "-2.25", "12345678901234567", "1.234567890123456", "1.", ".5"]
    )
    | st.integers(-(10**16), 10**16).map(str)
    | st.decimals(-999, 999, places=3).map(str)
    | st.text("01-.\nx", max_size=4),
    min_size=1,
    max_size=80,
)


@settings(max_examples=500, deadline=None)
@given(NUMBER_LIKE)
def test_a_columns_texts_mean_together_what_each_means_alone(texts: list[str]) -> None:
    expected = [infer(text) if text else None for text in texts]
    found = column_values(texts, infer, None)

    assert [(type(value), value) for value in found] == [(type(value), value) for value in expected]


@pytest.mark.parametrize(
    ("text", "header", "columns"), [(b"a,b\n1,2\n", True, ()), (b"1,2\n", False, ("a", "b"))]
)
def test_a_type_for_a_column_that_is_not_there_is_told_by_its_name(
    text: bytes, header: bool, columns: tuple[str, ...]
) -> None:
    layout = TableLayout(header=header, columns=columns, types={"b": "integer", "amuont": "number"})

    with pytest.raises(FormatProblem, match=r"source\.csv\.types names the column 'amuont'.* 2 columns"):
        list(read_delimited(layout, [text]))
