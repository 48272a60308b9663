"""Reads Avro container files: block by block, each record as an object of its fields."""

from __future__ import annotations

import datetime as dt
import io
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

import fastavro
import msgspec
from fastavro.schema import SchemaParseException, UnknownType
from fastavro.types import AvroMessage, Schema

from source_formats.avro_blocks import MARKER_BYTES, AvroFile, Block, Header, damaged_block, unpack
from source_formats.field_types import json_or_text, time_or_text
from source_formats.lines import UNNUMBERED, FormatProblem, Lines
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
BytesFrom = Callable[[int, int], Iterable[bytes]]


def read_avro(shape: Shape, chunks: Iterable[bytes]) -> Iterator[Lines]:
    """Yields the records of an Avro file as lines.

    Raises:
        FormatProblem: behind the last record that can be read, if the file is damaged.
    """
    file = AvroFile(chunks)
    header = file.header()
    decoder = _Decoder(header, shape)
    while not file.at_end():
        for _, lines in decoder.lines(file.block(header.marker)):
            yield Lines(lines)


def read_avro_part(bytes_from: BytesFrom, start: int, end: int, shape: Shape) -> Iterator[Lines]:
    """Yields the records of the blocks that begin in a stretch of a file; so any cuts yield each record once.

    What is damaged is passed over, up to the next block that is whole.

    Args:
        bytes_from: yields the file's bytes from an offset on, to its end; they are wanted up to another one.
        start: the stretch's first byte.
        end: the byte behind its last.
        shape: what the records become.

    Raises:
        FormatProblem: behind the last record that can be read, if there is damage; it tells the first place.
    """
    header = AvroFile(bytes_from(0, 0)).header()
    if end <= header.size:
        return
    decoder = _Decoder(header, shape)
    damage: list[FormatProblem] = []
    for block in _blocks_of_part(header, bytes_from, start, end, damage.append):
        try:
            for count, lines in decoder.lines(block):
                yield Lines(lines, (block.offset,) * count, (), UNNUMBERED if damage else None)
        except FormatProblem as problem:
            damage.append(problem)
    if damage:
        raise _together(damage)


def _blocks_of_part(
    header: Header, bytes_from: BytesFrom, start: int, end: int, note: Callable[[FormatProblem], None]
) -> Iterator[Block]:
    """Yields the blocks that begin in a stretch, and notes what stands where one should.

    A block that is damaged is noted by who reads the one before it, also if it begins behind the stretch: who
    begins there looks for a block that is whole, and does not know of another one.
    """
    is_first = start <= header.size
    begin = header.size if is_first else start - MARKER_BYTES
    file = AvroFile(bytes_from(begin, end), begin)
    if not is_first and not file.find_block(header.marker, end):
        return
    while not file.at_end():
        try:
            block = file.block(header.marker)
        except FormatProblem as problem:
            note(problem)
            if not file.find_block(header.marker, end):
                return
            continue
        if block.offset >= end:
            return
        yield block


def _together(damage: Sequence[FormatProblem]) -> FormatProblem:
    """Returns what is wrong with a stretch of a file whose other blocks are read."""
    first = damage[0]
    if first.problem == "truncated":
        return first
    places = f"blocks of records are damaged in {len(damage):,} places, of which this is the first"
    told = "a block of records is damaged" if len(damage) == 1 else places
    return FormatProblem(first.problem, first.offset, f"{told}; the blocks before and behind are read")


class _Decoder:
    """Makes lines of a file's blocks."""

    def __init__(self, header: Header, shape: Shape) -> None:
        try:
            self._schema = fastavro.parse_schema(header.schema)
            self._encoder = _Encoder(header.schema, shape)
        except (*_DAMAGE, SchemaParseException, UnknownType):
            told = "the schema in the header of an Avro file is damaged"
            raise FormatProblem("corrupt", 0, told) from None
        self._codec = header.codec

    def lines(self, block: Block) -> Iterator[tuple[int, bytes]]:
        """Yields a block's records as lines, with their number.

        Raises:
            FormatProblem: behind the last ones that can be read.
        """
        try:
            for records in _batches(unpack(block, self._codec), block.size, self._schema):
                yield len(records), self._encoder.lines(records)
        except _DAMAGE:
            raise damaged_block(block.offset) from None


def _batches(encoded: bytes, count: int, schema: Schema) -> Iterator[list[AvroMessage]]:
    """Yields a block's records.

    Raises:
        ValueError: before the last ones, if the block holds more than its records; and what decoding raises.
    """
    stream = io.BytesIO(encoded)
    for start in range(0, count, _BATCH):
        size = min(_BATCH, count - start)
        records = [fastavro.schemaless_reader(stream, schema, None) for _ in range(size)]
        if start + size == count and stream.tell() != len(encoded):
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
