"""Avro: what its types become in JSON, its codecs, and what is damaged."""

import base64
import datetime as dt
import decimal
import io
import json
import random
import uuid
from typing import Any

import fastavro
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from source_formats.avro_blocks import AvroFile, unpack
from source_formats.avro_records import read_avro
from source_formats.lines import FormatProblem
from tests.events import event, tokens

UTC = dt.timezone.utc
MOMENT = dt.datetime(2024, 2, 29, 12, 30, 15, 250_000, tzinfo=UTC)
FLAT = [
    {"name": "n", "type": "long"},
    {"name": "text", "type": ["null", "string"]},
]
ROWS = [{"n": n, "text": "x" * (n % 40) if n % 7 else None} for n in range(1000)]
SAID = [{key: value for key, value in row.items() if value is not None} for row in ROWS]


def avro(fields: Any, records: Any, codec: str = "null", interval: int = 2000) -> bytes:
    file = io.BytesIO()
    schema = {"type": "record", "name": "Row", "fields": fields}
    fastavro.writer(file, schema, records, codec=codec, sync_interval=interval)
    return file.getvalue()


def until_trouble(
    content: bytes, size: int = 4096, shape: Any = "rows"
) -> tuple[list[Any], FormatProblem | None]:
    """The records up to what is wrong, None for one that is refused, and what is wrong."""
    found: list[Any] = []
    try:
        for lines in read_avro(shape, (content[i : i + size] for i in range(0, len(content), size))):
            refused = {line.index for line in lines.refused}
            rows = enumerate(lines.raw.splitlines())
            found += [None if index in refused else json.loads(line) for index, line in rows]
    except FormatProblem as problem:
        return found, problem
    return found, None


def records_of(content: bytes, shape: Any = "rows", size: int = 4096) -> list[Any]:
    found, problem = until_trouble(content, size, shape)
    assert problem is None
    return found


@pytest.mark.parametrize("codec", ["null", "deflate", "bzip2", "xz"])
@pytest.mark.parametrize("interval", [1, 500, 1 << 20])
def test_records_are_what_the_file_holds_whatever_the_codec(codec: str, interval: int) -> None:
    content = avro(FLAT, ROWS[:200], codec, interval)

    assert records_of(content) == SAID[:200]


@pytest.mark.parametrize("codec", ["snappy", "zstandard"])
def test_codecs_that_need_a_library_are_read_with_ours(codec: str) -> None:
    content = recompressed(avro(FLAT, ROWS), codec)

    assert records_of(content) == SAID


def _number(value: int) -> bytes:
    """Returns a number that is not negative as Avro writes it."""
    value, out = value << 1, bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def recompressed(content: bytes, codec: str) -> bytes:
    """Returns a file with its blocks compressed by libraries that its writer does not use."""
    import zlib

    import pyarrow as pa
    import zstandard

    def pack(records: bytes) -> bytes:
        if codec == "zstandard":
            return zstandard.ZstdCompressor().compress(records)
        packed: bytes = pa.compress(records, codec="snappy", asbytes=True)
        return packed + zlib.crc32(records).to_bytes(4, "big")

    file = AvroFile([content])
    header = file.header()
    metadata = {b"avro.schema": json.dumps(header.schema).encode(), b"avro.codec": codec.encode()}
    out = b"Obj\x01" + _number(2)
    for name, value in metadata.items():
        out += _number(len(name)) + name + _number(len(value)) + value
    out += _number(0) + header.marker
    while not file.at_end():
        block = file.block(header.marker)
        packed = pack(unpack(block, header.codec))
        out += _number(block.size) + _number(len(packed)) + packed + header.marker
    return out


@pytest.mark.parametrize(
    ("kind", "value", "said"),
    [
        ("long", -(2**63), -(2**63)),
        ("double", 0.1, 0.1),
        ("double", float("nan"), None),
        ("boolean", True, True),
        ("bytes", b"\xff\x00", "/wA="),
        ({"type": "fixed", "name": "F", "size": 2}, b"ab", "YWI="),
        ({"type": "enum", "name": "E", "symbols": ["A", "B"]}, "B", "B"),
        ({"type": "array", "items": ["null", "int"]}, [1, None], [1, None]),
        ({"type": "map", "values": "long"}, {"a": 1}, {"a": 1}),
        (
            {"type": "record", "name": "R", "fields": [{"name": "a", "type": ["null", "string"]}]},
            {"a": None},
            {"a": None},
        ),
        (["null", "string", "long"], 5, 5),
        ({"type": "long", "logicalType": "timestamp-micros"}, MOMENT, "2024-02-29T12:30:15.250000Z"),
        (
            {"type": "long", "logicalType": "timestamp-millis"},
            MOMENT.replace(microsecond=0),
            "2024-02-29T12:30:15Z",
        ),
        ({"type": "int", "logicalType": "date"}, MOMENT.date(), "2024-02-29"),
        ({"type": "long", "logicalType": "time-micros"}, dt.time(12, 30), "12:30:00"),
        ({"type": "string", "logicalType": "uuid"}, uuid.UUID(int=5), "00000000-0000-0000-0000-000000000005"),
    ],
)
def test_what_the_types_say_in_json(kind: Any, value: Any, said: Any) -> None:
    content = avro([{"name": "x", "type": kind}], [{"x": value}])

    assert records_of(content) == [{"x": said} if said is not None or value is None else {"x": None}]


def test_decimals_keep_their_digits() -> None:
    kind = {"type": "bytes", "logicalType": "decimal", "precision": 30, "scale": 2}
    content = avro([{"name": "n", "type": kind}], [{"n": decimal.Decimal("12345678901234567890.10")}])
    (lines,) = [lines.raw for lines in read_avro("rows", [content])]

    assert tokens(lines) == {"n": "float 12345678901234567890.10"}


def test_records_of_a_flat_schema_become_events() -> None:
    fields = [
        {"name": "event", "type": "string"},
        {"name": "time", "type": ["null", {"type": "long", "logicalType": "timestamp-micros"}]},
        {"name": "distinct_id", "type": "long"},
        {"name": "plan", "type": ["null", "string"]},
    ]
    records = [
        {"event": "A", "time": MOMENT, "distinct_id": 12, "plan": "pro"},
        {"event": "B", "time": None, "distinct_id": 13, "plan": None},
    ]

    assert records_of(avro(fields, records), "events") == [
        {"event": "A", "properties": {"time": 1709209815250, "distinct_id": "12", "plan": "pro"}},
        {"event": "B", "properties": {"distinct_id": "13"}},
    ]


@pytest.mark.parametrize("kind", ["string", {"type": "map", "values": ["long", "string"]}])
def test_records_with_properties_are_events_as_they_are(kind: Any) -> None:
    records = [event(n=n) for n in range(3)]
    stored = [
        {**one, "properties": json.dumps(one["properties"]) if kind == "string" else one["properties"]}
        for one in records
    ]
    content = avro([{"name": "event", "type": "string"}, {"name": "properties", "type": kind}], stored)

    assert records_of(content, "events") == records


def test_a_file_without_records_has_none() -> None:
    assert records_of(avro(FLAT, [])) == []


def test_a_file_of_numbers_has_a_line_for_each() -> None:
    file = io.BytesIO()
    fastavro.writer(file, "long", [1, 2, 3])

    assert records_of(file.getvalue()) == [1, 2, 3]


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 3000), st.integers(1, 5000))
def test_any_chunks_hold_the_same_records(size: int, interval: int) -> None:
    assert records_of(avro(FLAT, ROWS[:100], "deflate", interval), size=size) == SAID[:100]


def test_a_file_that_ends_too_early_is_read_up_to_there() -> None:
    content = avro(FLAT, ROWS, "deflate", 500)
    dice = random.Random(5)
    for length in dice.sample(range(4, len(content) - 1), 60):
        found, problem = until_trouble(content[:length])
        assert found == SAID[: len(found)]
        if problem is None:  # cut between two blocks, which nothing tells
            assert len(found) < len(SAID)
        else:
            assert problem.problem == "truncated"
            assert (problem.offset or 0) <= length


@pytest.mark.parametrize("codec", ["null", "deflate", "snappy", "zstandard"])
def test_a_flipped_bit_is_told_or_changes_a_few_records(codec: str) -> None:
    plain = avro(FLAT, ROWS, "null" if codec in ("snappy", "zstandard") else codec, 500)
    content = plain if codec in ("null", "deflate") else recompressed(plain, codec)
    dice = random.Random(9)
    for _ in range(80):
        damaged = bytearray(content)
        damaged[dice.randrange(4, len(content))] ^= 1 << dice.randrange(8)
        found, problem = until_trouble(bytes(damaged))

        assert problem is not None or len(found) == len(SAID)
        if codec == "snappy":
            assert all(SAID[row["n"]] == row for row in found) or found[0].keys() != SAID[0].keys()


def test_a_codec_that_is_not_known_is_refused_by_name() -> None:
    content = avro(FLAT, ROWS, "deflate").replace(b"\x0edeflate", b"\x0elzo-rle")
    found, problem = until_trouble(content)

    assert found == []
    assert problem is not None
    assert problem.problem == "unsupported_format"
    assert "'lzo-rle'" in problem.detail


def test_records_of_no_bytes_do_not_go_on_for_ever() -> None:
    file = io.BytesIO()
    fastavro.writer(file, "null", [None] * 3)
    content = file.getvalue()
    header_end = AvroFile([content]).header().size
    endless = content[:header_end] + b"\xfe\xff\xff\xff\xff\xff\xff\xff\x7f" + content[header_end + 1 :]

    assert records_of(content) == [None] * 3
    found, problem = until_trouble(endless)
    assert found == []
    assert problem is not None
    assert (problem.problem, problem.offset) == ("corrupt", header_end)


def test_a_block_that_says_it_is_enormous_is_damaged_and_takes_no_memory() -> None:
    content = avro(FLAT, ROWS[:10])
    header_end = content.index(content[-16:]) + 16
    enormous = content[:header_end] + b"\x02" + b"\xfe\xff\xff\xff\xff\xff\xff\xff\x7f" + content[header_end:]
    found, problem = until_trouble(enormous)

    assert found == []
    assert problem is not None
    assert (problem.problem, problem.offset) == ("corrupt", header_end)


NAMED: Any = [
    {"name": "n", "type": "long"},
    {"name": "text", "type": "string"},
    {"name": "when", "type": ["null", {"type": "long", "logicalType": "timestamp-micros"}]},
    {"name": "day", "type": {"type": "int", "logicalType": "date"}},
    {"name": "id", "type": {"type": "string", "logicalType": "uuid"}},
    {"name": "keys", "type": {"type": "map", "values": "string"}},
    {"name": "inner", "type": {"type": "record", "name": "In", "fields": [{"name": "t", "type": "string"}]}},
]
STORED: Any = [
    {**field, "type": kind}
    for field, kind in zip(
        NAMED,
        [
            "long",
            "bytes",
            ["null", "long"],
            "int",
            "bytes",
            {"type": "map", "values": "bytes"},
            {"type": "record", "name": "In", "fields": [{"name": "t", "type": "bytes"}]},
        ],
        strict=True,
    )
]
GOOD = {
    "n": 1,
    "text": b"x",
    "when": 0,
    "day": 0,
    "id": b"0" * 32,
    "keys": {"a": b"b"},
    "inner": {"t": b"y"},
}


def stored_as(rows: list[dict[str, Any]], interval: int) -> bytes:
    """A file whose schema says more of its values than they keep."""
    content = avro(STORED, rows, interval=interval)
    said = avro(NAMED, [], interval=interval)
    return AvroFileOf(said).beginning + content[-16:] + content[AvroFileOf(content).size :]


class AvroFileOf:
    """The header of a file: its size, and what stands before its marker."""

    def __init__(self, content: bytes) -> None:
        self.size = AvroFile([content]).header().size
        self.beginning = content[: self.size - 16]


@pytest.mark.parametrize("interval", [1, 200, 1 << 20])
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("when", 2**62),
        ("day", 2**30),
        ("text", b"\xff"),
        ("id", b"none"),
        ("keys", {"a": b"\xff"}),
        ("inner", {"t": b"\xff"}),
    ],
)
def test_a_record_with_a_value_that_cannot_be_told_is_refused_and_its_neighbours_are_read(
    field: str, value: Any, interval: int
) -> None:
    rows = [{**GOOD, "n": n} for n in range(1500)]
    bad = (0, 3, 1200)
    for n in bad:
        rows[n][field] = value
    numbers: list[int] = []
    refused: list[tuple[int, bytes]] = []
    for lines in read_avro("rows", [stored_as(rows, interval)]):
        told = {line.index: line for line in lines.refused}
        for index, line in enumerate(lines.raw.splitlines()):
            if index in told:
                assert (told[index].reason, told[index].field) == ("bad_row", field)
                refused.append((len(numbers) + len(refused), base64.b64decode(line)))
            else:
                numbers.append(json.loads(line)["n"])

    assert numbers == [n for n in range(1500) if n not in bad]
    assert [number for number, _ in refused] == list(bad)
    schema = fastavro.parse_schema({"type": "record", "name": "Row", "fields": STORED})
    assert [fastavro.schemaless_reader(io.BytesIO(raw), schema, None) for _, raw in refused] == [
        rows[n] for n in bad
    ]


def test_a_key_of_a_map_that_is_no_text_is_refused_without_a_field() -> None:
    rows = [{**GOOD, "n": n} for n in range(20)]
    rows[7]["keys"] = {"KEY": b"b"}
    content = stored_as(rows, 1 << 20).replace(b"KEY", b"\xff\xff\xff")
    (lines,) = read_avro("rows", [content])
    (told,) = lines.refused

    assert (told.index, told.reason, told.field) == (7, "bad_row", None)
    assert [json.loads(line)["n"] for i, line in enumerate(lines.raw.splitlines()) if i != 7] == [
        n for n in range(20) if n != 7
    ]
