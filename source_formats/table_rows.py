"""Reads whole lines as rows of a table: all at once where each line is one, else row by row."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, Final, Literal, NamedTuple

import msgspec
import numpy as np

from source_formats.field_types import (
    FieldType,
    column_values,
    infer,
    json_or_text,
    parser_of,
    time_or_text,
)
from source_formats.lines import FormatProblem, Lines, RefusedLine, refused_line
from source_formats.row_lines import PROPERTIES, TEXTS, TIME, RowLines, Shape

BAD_ROW: Final = "bad_row"
INVALID_UTF8: Final = "invalid_utf8"
HELD_BYTES: Final = 6 << 20  # of one row; in base64 it is still a line that is held
_NO_TEXT: Final = "the row is not UTF-8"
_NEWLINE: Final = ord("\n")
_DELIMITERS: Final = ",;\t|"
_EMPTY: Final[dict[str, Any]] = {"absent": msgspec.UNSET, "null": None, "text": ""}

_Dialect = dict[str, Any]

# The module's limit is one for the process, and too low for a field of a megabyte.
csv.field_size_limit(HELD_BYTES)


@dataclass(frozen=True, slots=True)
class TableLayout:
    """How text is a table.

    Attributes:
        delimiter: between fields; None takes the one of `,` `;` tab `|` that is most often in the first row.
        quote: around fields that hold a delimiter, a quote or a line break; None if there is none.
        header: whether the first row has the columns' names.
        columns: the columns' names, instead of the header's.
        types: the type of columns, by name.
        infer: whether other columns' values are told by their spelling; else they are texts.
        empty: what an empty field means.
        shape: what the rows become.
    """

    delimiter: str | None = None
    quote: str | None = '"'
    header: bool = True
    columns: tuple[str, ...] = ()
    types: Mapping[str, FieldType] = field(default_factory=dict)
    infer: bool = True
    empty: Literal["absent", "null", "text"] = "absent"
    shape: Shape = "events"


class TableRows:
    """Reads whole lines as rows of known columns."""

    def __init__(
        self, layout: TableLayout, columns: Sequence[str], dialect: _Dialect, header_bytes: int
    ) -> None:
        """Takes the columns' names.

        Raises:
            FormatProblem: if a type is declared for a column that is not there.
        """
        unknown = sorted(layout.types.keys() - set(columns))
        if unknown:
            raise FormatProblem(
                "unsupported_format",
                0,
                f"source.csv.types names the column {unknown[0]!r}, none of its {len(columns)} columns; "
                "spell it as the header does, or read files without it in a run of their own",
            )
        self.header_bytes = header_bytes
        self._columns = columns
        self._dialect = dialect
        self._parse = [_parser(layout, name) for name in columns]
        self._empty = _EMPTY[layout.empty]
        self._encoder = RowLines(columns, layout.shape)

    @classmethod
    def of_header(cls, layout: TableLayout, text: bytes, final: bool) -> TableRows | None:
        """Returns the rows behind a header, or None if that goes on behind the text.

        Raises:
            FormatProblem: if the header is of no use.
        """
        dialect = _dialect_of(layout, text)
        if not layout.header:
            return cls(layout, layout.columns, dialect, 0)
        source = _Lines(text)
        try:
            names = next((row for row in csv.reader(source, **dialect) if row), None)
        except csv.Error as error:
            if source.ran_out and not final and len(text) <= HELD_BYTES:
                return None
            raise FormatProblem("unsupported_format", 0, f"its header is no row: {_told(error)}") from None
        if names is None:
            return None
        if _is_broken("".join(names)):
            raise FormatProblem("unsupported_format", 0, "its header is no UTF-8; convert it: iconv -t UTF-8")
        taken = sum(map(len, source.raw[: source.next]))
        return cls(layout, layout.columns or [name.strip() for name in names], dialect, taken)

    def read(self, text: bytes, offset: int, final: bool) -> tuple[Lines, int]:
        """Returns the rows of a text that begins at an offset, and how many of its bytes they take."""
        try:
            lines = text.removesuffix(b"\n").decode().split("\n") if text else []
            rows = list(csv.reader(lines, **self._dialect))
            if len(rows) == len(lines):  # no row goes over several lines, and each is where its line is
                offsets = _line_starts(text, offset)
                if not all(rows):
                    offsets = [offset for offset, row in zip(offsets, rows, strict=True) if row]
                    rows = [row for row in rows if row]
                return Lines(self._encoded(rows), offsets), len(text)
        except (csv.Error, ValueError):
            pass  # one of them is none
        source = _Lines(text)
        starts = list(accumulate(map(len, source.raw), initial=offset))
        return self._one_by_one(source, starts, final)

    def _encoded(self, rows: Sequence[Sequence[str]]) -> bytes:
        """Returns rows as lines.

        Raises:
            ValueError: if one does not have the columns, or not their types.
        """
        if not rows:
            return b""
        if set(map(len, rows)) != {len(self._columns)}:
            raise ValueError
        columns = []
        for name, parse, texts in zip(self._columns, self._parse, zip(*rows, strict=True), strict=True):
            try:
                columns.append(column_values(texts, parse, self._empty))
            except ValueError as error:
                raise ValueError(f"the column {name!r} is to hold {error}") from None
        return b"\n".join(self._encoder.lines(columns)) + b"\n"

    def _one_by_one(self, source: _Lines, starts: Sequence[int], final: bool) -> tuple[Lines, int]:
        """Returns the same with care: row by row, with what is none apart."""
        made = _Made()
        run: list[_Row] = []
        reader = csv.reader(source, **self._dialect)
        too_long = starts[-1] - starts[0] > HELD_BYTES
        while source.next < len(source.raw):
            first = source.next
            fields, why = _next_row(reader, source)
            if fields is None and source.ran_out and not final and (first or not too_long):
                source.next = first
                break
            if fields is not None and len(fields) in (0, len(self._columns)):
                run += [_Row(first, source.next, fields)] if fields else []
                continue
            self._add(run, made, source, starts)
            why = why or f"{len(self._columns)} fields expected, {len(fields or [])} came"
            made.refuse(starts[first], source.raw[first], why)
            run, source.next, reader = [], first + 1, csv.reader(source, **self._dialect)
        self._add(run, made, source, starts)
        return made.lines(), starts[source.next] - starts[0]

    def _add(self, rows: Sequence[_Row], made: _Made, source: _Lines, starts: Sequence[int]) -> None:
        """Adds rows together, or one by one if not all of them hold what their columns are to hold."""
        try:
            made.add([starts[row.first] for row in rows], self._encoded([row.fields for row in rows]))
        except ValueError as error:
            if len(rows) > 1:
                for row in rows:
                    self._add([row], made, source, starts)
                return
            raw = b"".join(source.raw[rows[0].first : rows[0].end])
            made.refuse(starts[rows[0].first], raw, "" if isinstance(error, UnicodeError) else str(error))


def _line_starts(text: bytes, offset: int) -> list[int]:
    """Returns where each line of a text begins, of which the last may have no newline."""
    ends = np.flatnonzero(np.frombuffer(text, np.uint8)[:-1] == _NEWLINE)
    starts: list[int] = (ends + (offset + 1)).tolist()
    return [offset, *starts] if text else []


class _Row(NamedTuple):
    """A row, and which lines it takes."""

    first: int
    end: int
    fields: Sequence[str]


def _next_row(reader: Iterator[list[str]], source: _Lines) -> tuple[list[str] | None, str]:
    """Returns the next row, or None and why there is none."""
    source.ran_out = False
    try:
        return next(reader), ""
    except csv.Error as error:
        return None, "a quote is not closed" if source.ran_out else _told(error)


def _told(error: csv.Error) -> str:
    """Returns what is wrong with a row; of a CR in it Python's words speak of how to open files."""
    is_of_cr = "new-line character" in str(error)
    return (
        "it has a CR outside of quotes; end lines in LF or CRLF: tr '\\r' '\\n'" if is_of_cr else str(error)
    )


class _Lines:
    """The lines of a text, for a reader of rows to take one after the other."""

    def __init__(self, text: bytes) -> None:
        self.raw = list(io.BytesIO(text))
        self.text = list(io.StringIO(text.decode(errors="surrogateescape"), newline="\n"))
        self.next = 0
        self.ran_out = False

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        if self.next >= len(self.text):
            self.ran_out = True
            raise StopIteration
        self.next += 1
        return self.text[self.next - 1]


class _Made:
    """Collects lines, and what stands for rows that are none."""

    def __init__(self) -> None:
        self._lines: list[bytes] = []
        self._offsets: list[int] = []
        self._refused: list[RefusedLine] = []

    def add(self, offsets: Sequence[int], lines: bytes) -> None:
        """Adds lines of rows."""
        self._offsets += offsets
        self._lines.append(lines)

    def refuse(self, offset: int, raw: bytes, why: str) -> None:
        """Adds the bytes of what is no row; without a reason given they are no text."""
        index = len(self._offsets)
        told = RefusedLine(index, BAD_ROW, why) if why else RefusedLine(index, INVALID_UTF8, _NO_TEXT)
        self._refused.append(told)
        self.add([offset], refused_line(raw.rstrip(b"\r\n")))

    def lines(self) -> Lines:
        """Returns what was added."""
        return Lines(b"".join(self._lines), self._offsets, tuple(self._refused))


def _dialect_of(layout: TableLayout, text: bytes) -> _Dialect:
    first = text.lstrip(b"\r\n").partition(b"\n")[0].decode(errors="replace")
    return {
        "delimiter": layout.delimiter or max(_DELIMITERS, key=first.count),
        "quotechar": layout.quote,
        "quoting": csv.QUOTE_MINIMAL if layout.quote else csv.QUOTE_NONE,
        "strict": True,
    }


def _parser(layout: TableLayout, name: str) -> Callable[[str], Any]:
    kind = layout.types.get(name)
    if kind is not None:
        return parser_of(kind)
    plain = name.removeprefix(f"{PROPERTIES}.")
    if layout.shape == "events" and plain == TIME:
        return time_or_text
    if layout.shape == "events" and name == PROPERTIES:
        return json_or_text
    return infer if layout.infer and plain not in TEXTS else str


def _is_broken(text: str) -> bool:
    return any("\udc80" <= character <= "\udcff" for character in text)
