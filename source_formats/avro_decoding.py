"""Decodes the records of Avro's blocks, each as a line; refuses those with a value that cannot be told."""

from __future__ import annotations

import datetime as dt
import io
import struct
from collections.abc import Iterator, Sequence
from typing import Any, Final

import fastavro
import msgspec
from fastavro.schema import SchemaParseException, UnknownType

from source_formats.avro_blocks import Block, Header, damaged_block, unpack
from source_formats.field_types import json_or_text, time_or_text
from source_formats.lines import FormatProblem, Lines, RefusedLine, refused_line
from source_formats.row_lines import PROPERTIES, TEXTS, TIME, RowLines, Shape, encode_value, event_places
from source_formats.table_rows import BAD_ROW

_BATCH: Final = 1000
_MILLISECOND: Final = dt.timedelta(milliseconds=1)
_UNIX: Final = dt.datetime(1970, 1, 1, tzinfo=dt.timezone.utc)
# What decoding raises where bytes are not what the schema says.
_DAMAGE: Final = (
    EOFError,
    LookupError,
    ValueError,
    TypeError,
    ArithmeticError,
    struct.error,
    RecursionError,
    MemoryError,
    SchemaParseException,
    UnknownType,
)
_UNTOLD: Final = "holds no value of its type, but a time out of range, or a text that is no UTF-8 or no UUID"


class Decoder:
    """Makes lines of a file's blocks."""

    def __init__(self, header: Header, shape: Shape) -> None:
        """Takes the file's header and what its records become.

        Raises:
            FormatProblem: if the schema is damaged.
        """
        try:
            self._schema = fastavro.parse_schema(header.schema)
            self._encoder = _Encoder(header.schema, shape)
        except _DAMAGE:
            told = "the schema in the header of an Avro file is damaged"
            raise FormatProblem("corrupt", 0, told) from None
        self._header = header
        self._frames: _Frames | None = None

    def lines(self, block: Block) -> Iterator[Lines]:
        """Yields a block's records as lines.

        Raises:
            FormatProblem: behind the last ones that can be read.
        """
        encoded = unpack(block, self._header.codec)
        if block.size > max(len(encoded), _BATCH):
            raise damaged_block(block.offset)  # records of no bytes, which might never end
        stream, left = io.BytesIO(encoded), block.size
        try:
            while left:
                count, start = min(_BATCH, left), stream.tell()
                lines = self._batch(stream, count)
                if lines is None:
                    stream.seek(start)
                    yield from self._one_by_one(stream, left)
                    return
                left -= count
                if not left:
                    _check_end(stream)
                yield Lines(lines)
        except _DAMAGE:
            raise damaged_block(block.offset) from None

    def _batch(self, stream: io.BytesIO, count: int) -> bytes | None:
        """Returns the next records as lines, or None if there are not so many that can all be told."""
        try:
            records = [fastavro.schemaless_reader(stream, self._schema, None) for _ in range(count)]
            return self._encoder.lines(records)
        except _DAMAGE:
            return None

    def _one_by_one(self, stream: io.BytesIO, count: int) -> Iterator[Lines]:
        """Yields the last records of a block, of which one cannot be told or the block is damaged.

        Raises:
            ValueError: if it is the block; and what decoding raises.
        """
        frames = self._frames = self._frames or _Frames(self._header.schema)
        start = stream.tell()
        for _ in range(count):
            frames.skip(stream)
        _check_end(stream)
        stream.seek(start)
        for first in range(0, count, _BATCH):
            lines, refused = [], []
            for index in range(min(_BATCH, count - first)):
                begin = stream.tell()
                line = self._batch(stream, 1)
                if line is None:
                    stream.seek(begin)
                    field = frames.untold_field(stream)
                    where = repr(field) if field else "a field"
                    refused.append(RefusedLine(index, BAD_ROW, f"{where} {_UNTOLD}", field))
                    line = refused_line(stream.getvalue()[begin : stream.tell()])
                lines.append(line)
            yield Lines(b"".join(lines), None, tuple(refused))


def _check_end(stream: io.BytesIO) -> None:
    if stream.read(1):
        raise ValueError("a block holds more than its records")


class _Frames:
    """Tells where records end, and which of their fields cannot be told: by schemas that ask less of them."""

    def __init__(self, schema: Any) -> None:
        self._plain = fastavro.parse_schema(_plain(schema))
        fields = schema["fields"] if isinstance(schema, dict) and schema.get("type") == "record" else []
        plain = [_plain(field) for field in fields]
        self._by_field: list[tuple[str, Any]] = [
            (field["name"], fastavro.parse_schema({**schema, "fields": [*plain[:i], field, *plain[i + 1 :]]}))
            for i, field in enumerate(fields)
        ]

    def skip(self, stream: io.BytesIO) -> None:
        """Moves behind a record."""
        fastavro.schemaless_reader(stream, self._plain, None, handle_unicode_errors="replace")

    def untold_field(self, stream: io.BytesIO) -> str | None:
        """Returns the first field of a record that cannot be told, or None, and moves behind the record."""
        begin = stream.tell()
        found = None
        if _can_tell(stream, begin, self._plain):  # else it is a key of a map, wherever that is
            schemas = enumerate(schema for _, schema in self._by_field)
            found = next((index for index, schema in schemas if not _can_tell(stream, begin, schema)), None)
        stream.seek(begin)
        self.skip(stream)
        if found is None:
            return None
        # The next record's is likely the same.
        self._by_field.insert(0, self._by_field.pop(found))
        return self._by_field[0][0]


def _can_tell(stream: io.BytesIO, begin: int, schema: Any) -> bool:
    stream.seek(begin)
    try:
        fastavro.schemaless_reader(stream, schema, None)
    except _DAMAGE:
        return False
    return True


def _plain(schema: Any) -> Any:
    """Returns a schema of which every value can be told: a text is bytes, and a number is no time.

    >>> _plain({"name": "t", "type": ["null", {"type": "long", "logicalType": "timestamp-micros"}]})
    {'name': 't', 'type': ['null', {'type': 'long'}]}
    """
    if isinstance(schema, list):
        return [_plain(each) for each in schema]
    if not isinstance(schema, dict):
        return "bytes" if schema == "string" else schema
    kept = {key: value for key, value in schema.items() if key not in ("logicalType", "default")}
    inner = kept.keys() & {"type", "items", "values"}
    kept |= {key: _plain(kept[key]) for key in inner}
    return kept | {"fields": [_plain(field) for field in kept["fields"]]} if "fields" in kept else kept


class _Encoder:
    """Turns records into lines."""

    def __init__(self, schema: Any, shape: Shape) -> None:
        is_record = isinstance(schema, dict) and schema.get("type") == "record"
        self._names: list[str] = [field["name"] for field in schema["fields"]] if is_record else []
        self._rows = RowLines(self._names, shape) if self._names else None
        is_flat = shape == "events" and event_places(self._names) is not None
        self._of_events = set(self._names) if is_flat else {PROPERTIES} if shape == "events" else set()

    def lines(self, records: Sequence[Any]) -> bytes:
        """Returns records as lines; a field that is null is left out."""
        if self._rows is None:
            return b"".join(encode_value(record) + b"\n" for record in records)
        columns = [self._column(name, [record[name] for record in records]) for name in self._names]
        return b"\n".join(self._rows.lines(columns)) + b"\n"

    def _column(self, name: str, values: list[Any]) -> list[Any]:
        if name in self._of_events:
            values = _event_column(name, values)
        return [msgspec.UNSET if value is None else value for value in values] if None in values else values


def _event_column(name: str, values: list[Any]) -> list[Any]:
    """Returns a column of events: ids are texts, `time` is milliseconds, `properties` an object."""
    if name == PROPERTIES:
        return [json_or_text(value) if isinstance(value, str) else value for value in values]
    if name in TEXTS:
        return [str(value) if isinstance(value, int) else value for value in values]
    return [_milliseconds(value) for value in values] if name == TIME else values


def _milliseconds(value: Any) -> Any:
    if isinstance(value, str) and value:
        return time_or_text(value)
    if isinstance(value, dt.datetime):
        return (value.replace(tzinfo=value.tzinfo or dt.timezone.utc) - _UNIX) // _MILLISECOND
    if isinstance(value, dt.date):
        return (value - _UNIX.date()) // _MILLISECOND
    return value
