"""Reads Avro container files: block by block, each record as an object of its fields."""

from __future__ import annotations

import datetime as dt
import io
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import fastavro
import msgspec
from fastavro.schema import SchemaParseException, UnknownType
from fastavro.types import AvroMessage, Schema

from source_formats.avro_blocks import AvroFile, Block, damaged_block
from source_formats.field_types import json_or_text, time_or_text
from source_formats.lines import FormatProblem, Lines
from source_formats.row_lines import PROPERTIES, TEXTS, TIME, RowLines, Shape, encode_value, event_places

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
)


def read_avro(shape: Shape, chunks: Iterable[bytes]) -> Iterator[Lines]:
    """Yields the records of an Avro file as lines.

    Raises:
        FormatProblem: behind the last record that can be read, if the file is damaged.
    """
    file = AvroFile(chunks)
    header = file.header()
    try:
        schema = fastavro.parse_schema(header.schema)
        encoder = _Encoder(header.schema, shape)
    except (*_DAMAGE, SchemaParseException, UnknownType):
        raise FormatProblem("corrupt", 0, "the schema in the header of an Avro file is damaged") from None
    for block in file.blocks(header):
        try:
            for records in _batches(block, schema):
                yield Lines(encoder.lines(records))
        except _DAMAGE:
            raise damaged_block(block.offset) from None


def _batches(block: Block, schema: Schema) -> Iterator[list[AvroMessage]]:
    """Yields a block's records.

    Raises:
        ValueError: before the last ones, if the block holds more than its records; and what decoding raises.
    """
    stream = io.BytesIO(block.records)
    for start in range(0, block.size, _BATCH):
        size = min(_BATCH, block.size - start)
        records = [fastavro.schemaless_reader(stream, schema, None) for _ in range(size)]
        if start + size == block.size and stream.tell() != len(block.records):
            raise ValueError
        yield records


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
