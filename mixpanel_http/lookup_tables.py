"""Lookup tables: what a CSV must be like for `PUT /lookup-tables/{id}`, and what its answers mean.

LTAPI = https://docs.mixpanel.com/reference/replace-lookup-table, LT = /docs/data-structure/lookup-tables. A
table is replaced as a whole or not at all.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final
from urllib.parse import quote

from mixpanel_http.answers import Answer, json_object, read_answer
from mixpanel_http.endpoints import Endpoint, as_packed, compress, no_ids_of
from mixpanel_http.failure_table import AnswerClass
from mixpanel_http.refused_records import MESSAGE_LENGTH, RefusedRecord, SentIds, is_count, no_ids
from mixpanel_http.verdicts import Reason, Rejection

MAX_TABLE_BYTES: Final = 100_000_000  # LTAPI: 100MB, uncompressed
MAX_ROWS: Final = 2_000_000  # LTAPI: "about 1-2M rows"; LT says 1M, which is left to the service
MIN_COLUMNS: Final = 2  # LTAPI
# RFC 4180: a field with a quote in it stands in quotes, and its quotes are doubled.
_QUOTED: Final = r'"[^"]*(?:""[^"]*)*"'
_RECORD: Final = re.compile(rf'(?:{_QUOTED}|[^",\r\n]*)(?:,(?:{_QUOTED}|[^",\r\n]*))*(?:\r\n|\n|\r)?')

csv.field_size_limit(MAX_TABLE_BYTES)  # of the whole process; otherwise 128 KiB


@dataclass(frozen=True, slots=True)
class Row:
    """One record of a table: its line, from 1, and its fields."""

    line: int
    fields: list[str]


@dataclass(frozen=True, slots=True)
class CheckedTable:
    """A table, and what Mixpanel would refuse of it.

    Attributes:
        content: the CSV as it is sent, without a byte order mark.
        header: the names of the columns.
        rows: how many there are, without the header.
        refused: the rows at fault, by their index from 0.
    """

    content: bytes
    header: Sequence[str]
    rows: int
    refused: Sequence[Rejection] = ()


class NoTable(ValueError):
    """A file that is no table as a whole; the message says what was expected, and the line."""


def check_table(content: bytes) -> CheckedTable:
    r"""Returns a CSV with what is wrong with its rows.

    >>> check_table(b"id,name\nk,1\nk,2\n").refused[0].message
    'the key stands in line 2 already'

    Raises:
        NoTable: if it cannot be read as a table, or is too large for one.
    """
    content = content.removeprefix(codecs.BOM_UTF8)
    if len(content) > MAX_TABLE_BYTES:
        raise NoTable(f"has {len(content):,} bytes, where a table has at most {MAX_TABLE_BYTES:,}")
    rows = table_rows(content)
    header = next(rows, Row(1, [])).fields
    _check_header(header)
    refused: list[Rejection] = []
    seen: dict[str, int] = {}
    count = 0
    for count, row in enumerate(rows, start=1):
        rejection = _check_row(count - 1, row, len(header), seen)
        if rejection is not None:
            refused.append(rejection)
    if count > MAX_ROWS:
        raise NoTable(f"has {count:,} rows, where a table has at most {MAX_ROWS:,}")
    return CheckedTable(content, header, count, refused)


def table_rows(content: bytes) -> Iterator[Row]:
    """Yields a CSV's records, the header first.

    Raises:
        NoTable: at the first one that is no CSV by RFC 4180.
    """
    try:
        lines = _Lines(io.StringIO(content.decode(), newline=""))
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise NoTable(f"line {line}: is no text in UTF-8") from None
    reader = csv.reader(lines, strict=True)
    while True:
        first = reader.line_num + 1
        lines.taken.clear()
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise NoTable(f"line {first}: {error}") from None
        text = "".join(lines.taken)
        if '"' in text and not _RECORD.fullmatch(text):
            raise NoTable(f"line {first}: a quote within a field that does not begin with one")
        yield Row(first, fields)


class _Lines:
    """Lines, with those that were taken since somebody looked."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines = lines
        self.taken: list[str] = []

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self.taken.append(line)
        return line


def _check_header(header: Sequence[str]) -> None:
    if len(header) < MIN_COLUMNS:
        raise NoTable(f"line 1: a header with at least {MIN_COLUMNS} columns is needed, {len(header)} came")
    if len(set(header)) < len(header):
        raise NoTable("line 1: the names of the columns must differ")


def _check_row(index: int, row: Row, width: int, seen: dict[str, int]) -> Rejection | None:
    if len(row.fields) != width:
        message = f"{width} fields are needed, {len(row.fields)} came"
        return Rejection(index, Reason.BAD_ROW.value, None, message)
    key = row.fields[0]
    if not key.strip():
        return Rejection(index, Reason.BAD_KEY.value, None, "the first column, the key, is blank")
    first = seen.setdefault(key, row.line)
    if first != row.line:
        return Rejection(index, Reason.BAD_KEY.value, None, f"the key stands in line {first} already")
    return None


def table_endpoint(table: str) -> Endpoint:
    """Returns where a table is sent to."""
    return Endpoint(
        name="lookup_tables",
        path=f"/lookup-tables/{quote(table, safe='')}",
        query=(),
        headers=(("Content-Type", "text/csv"), ("Content-Encoding", "gzip")),
        most_records=MAX_ROWS,
        in_records=False,
        pack=compress,
        finish=as_packed,
        read=partial(read_table_answer, table=table),
        ids_of=no_ids_of,
        method="PUT",
    )


def read_table_answer(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    sent: int,
    now_s: float,
    ids: SentIds = no_ids,
    table: str = "",
) -> Answer:
    """Returns what an answer to a table means; the arguments but the table's id are those of `read_answer`.

    Its refusals are by rows: the header is row 0, and at most ten are named (LTAPI).
    """
    content = json_object(body)
    if status == 200:
        good = content is not None and content.get("status") in ("OK", 1) and content.get("code", 200) == 200
        if good and content is not None and not content.get("error") and not content.get("failed_records"):
            return Answer(AnswerClass.OK, 200, "200")
        problem = "status 200, but not the documented answer"
        return Answer(AnswerClass.PROTOCOL, 200, "200", problem, problem)
    answer = read_answer(status, headers, body, sent, now_s, ids)
    if answer.kind is AnswerClass.FATAL:
        why = "there is none with this id" if status == 404 else answer.told
        return replace(answer, told=f"lookup table {table}: {why}")
    if status != 400 or content is None:
        return answer
    return replace(answer, kind=AnswerClass.RECORD, refused=tuple(_named_rows(content)))


def _named_rows(content: Mapping[str, object]) -> Iterator[RefusedRecord]:
    listed = content.get("failed_records")
    for entry in listed if isinstance(listed, list) else ():
        if isinstance(entry, dict) and is_count(entry.get("index")) and entry["index"] > 0:
            yield RefusedRecord(entry["index"] - 1, None, str(entry.get("message", ""))[:MESSAGE_LENGTH])
