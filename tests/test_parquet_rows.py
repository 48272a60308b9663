"""Parquet: what its types become in JSON, its row groups in any cuts, and what is damaged."""

import datetime as dt
import decimal
import io
import json
import random
import uuid
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from source_formats.arrow_values import column_of
from source_formats.lines import FormatProblem, Lines
from source_formats.parquet_rows import read_parquet
from source_formats.row_lines import RowLines
from tests.events import event, tokens

BERLIN = dt.timezone(dt.timedelta(hours=1))
MOMENT = dt.datetime(2024, 2, 29, 12, 30, 15, 250_000)  # noqa: DTZ001 - as a column without a zone has it


def parquet(table: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    pq.write_table(table, file, **options)
    return file.getvalue()


def lines_of(content: bytes, start: int = 0, end: int | None = None, shape: Any = "rows") -> list[Lines]:
    return list(read_parquet(lambda a, b: content[a:b], len(content), start, end or len(content), shape))


def rows_of(content: bytes, shape: Any = "rows") -> list[Any]:
    return [tokens(line) for lines in lines_of(content, shape=shape) for line in lines.raw.splitlines()]


@pytest.mark.parametrize(
    ("values", "kind", "said"),
    [
        ([1, None, -(2**63), 2**63 - 1], pa.int64(), [1, None, -(2**63), 2**63 - 1]),
        ([2**64 - 1], pa.uint64(), [2**64 - 1]),
        ([True, None, False], pa.bool_(), [True, None, False]),
        ([0.1, None, 1e300], pa.float64(), [0.1, None, 1e300]),
        ([float("nan"), float("inf"), 1.5], pa.float64(), [None, None, 1.5]),
        ([0.1, None, float("nan")], pa.float32(), [0.1, None, None]),
        (["ä", "", None], pa.string(), ["ä", "", None]),
        (["a", None, "a"], pa.dictionary(pa.int32(), pa.string()), ["a", None, "a"]),
        ([b"text", b"\xff\x00", None], pa.binary(), ["text", "/wA=", None]),
        ([b"\xfe\xff"], pa.binary(2), ["/v8="]),
        ([MOMENT, None], pa.timestamp("us"), ["2024-02-29T12:30:15.250000", None]),
        (
            [MOMENT.replace(tzinfo=BERLIN)],
            pa.timestamp("ms", "Europe/Berlin"),
            ["2024-02-29T11:30:15.250000Z"],
        ),
        ([1709209815], pa.timestamp("s", "UTC"), ["2024-02-29T12:30:15Z"]),
        ([1709209815000000001], pa.timestamp("ns"), ["2024-02-29T12:30:15.000000001"]),
        ([-1], pa.timestamp("ms"), ["1969-12-31T23:59:59.999000"]),
        ([MOMENT.date(), None], pa.date32(), ["2024-02-29", None]),
        ([MOMENT.time(), None], pa.time64("us"), ["12:30:15.250000", None]),
        ([1500, None], pa.duration("ms"), [1.5, None]),
        ([[1, 2], [], None, [None]], pa.list_(pa.int64()), [[1, 2], [], None, [None]]),
        ([[b"\xff"], None], pa.list_(pa.binary()), [["/w=="], None]),
        ([[MOMENT.date()] * 2], pa.list_(pa.date32(), 2), [["2024-02-29"] * 2]),
        (
            [{"a": 1, "b": [{"c": MOMENT.date()}]}, None],
            pa.struct([("a", pa.int8()), ("b", pa.list_(pa.struct([("c", pa.date32())])))]),
            [{"a": 1, "b": [{"c": "2024-02-29"}]}, None],
        ),
        (
            [[("k", 1), ("l", None)], None, []],
            pa.map_(pa.string(), pa.int64()),
            [{"k": 1, "l": None}, None, {}],
        ),
        ([[(7, b"\xff")]], pa.map_(pa.int64(), pa.binary()), [{"7": "/w=="}]),
        ([None, None], pa.null(), [None, None]),
        ([uuid.UUID(int=5).bytes], pa.uuid(), ["00000000-0000-0000-0000-000000000005"]),
    ],
)
def test_what_the_types_say_in_json(values: Sequence[Any], kind: Any, said: list[Any]) -> None:
    array = pa.array(values, kind if not isinstance(kind, pa.BaseExtensionType) else kind.storage_type)
    if isinstance(kind, pa.BaseExtensionType):
        array = pa.ExtensionArray.from_storage(kind, array)
    padded = pa.concat_arrays([array, array, array])
    for whole in (array, padded.slice(len(values), len(values))):
        encoded = RowLines(["x"], "rows").lines([column_of(whole)])

        assert [json.loads(line).get("x") for line in encoded] == said


def test_decimals_keep_their_digits() -> None:
    values = [decimal.Decimal("12345678901234567890.10"), None, decimal.Decimal("-0.05")]
    table = pa.table({"n": pa.array(values, pa.decimal128(30, 2))})

    assert rows_of(parquet(table)) == [{"n": "float 12345678901234567890.10"}, {}, {"n": "float -0.05"}]


def test_text_that_is_no_utf_8_is_as_binary_is() -> None:
    broken = pa.Array.from_buffers(pa.string(), 2, pa.array([b"ok", b"\xff"], pa.binary()).buffers())

    assert column_of(broken) == ["ok", "/w=="]


def test_what_is_null_is_left_out_of_its_row() -> None:
    table = pa.table({"a": [1, None], "b": [[None], None]})

    assert rows_of(parquet(table)) == [{"a": "int 1", "b": [None]}, {}]


def test_rows_of_a_flat_table_become_events() -> None:
    table = pa.table(
        {
            "event": ["A", "B"],
            "time": pa.array([MOMENT, None], pa.timestamp("us", "UTC")),
            "distinct_id": [12, 13],
            "$insert_id": ["i", "j"],
            "properties.plan": ["pro", None],
            "when": pa.array([MOMENT, None], pa.timestamp("us")),
        }
    )
    first, second = rows_of(parquet(table), "events")

    assert first == {
        "event": "A",
        "properties": {
            "time": "int 1709209815250",
            "distinct_id": "12",
            "$insert_id": "i",
            "plan": "pro",
            "when": "2024-02-29T12:30:15.250000",
        },
    }
    assert second == {"event": "B", "properties": {"distinct_id": "13", "$insert_id": "j"}}


@pytest.mark.parametrize("as_text", [True, False])
def test_a_table_with_properties_holds_events_as_they_are(as_text: bool) -> None:
    records = [event(n=n) for n in range(3)]
    properties = [json.dumps(one["properties"]) if as_text else one["properties"] for one in records]
    table = pa.table({"event": [one["event"] for one in records], "properties": properties})

    (lines,) = lines_of(parquet(table), shape="events")
    found = [json.loads(line) for line in lines.raw.splitlines()]
    assert found == records


TABLE = pa.table({"n": list(range(1000)), "text": ["x" * (n % 50) for n in range(1000)]})


@pytest.mark.parametrize("cuts", [[], [1], [4], [500, 5000, 5001], list(range(0, 30_000, 777))])
def test_any_cuts_yield_each_row_once_with_its_number(cuts: list[int]) -> None:
    content = parquet(TABLE, row_group_size=70)
    edges = sorted({0, *(cut for cut in cuts if cut < len(content)), len(content)})
    numbers: list[int] = []
    found: list[Any] = []
    for start, end in pairwise(edges):
        pieces = lines_of(content, start, end)
        rows = [tokens(line)["n"] for lines in pieces for line in lines.raw.splitlines()]
        found += rows
        if pieces:
            assert pieces[0].first is not None
            numbers += range(pieces[0].first, pieces[0].first + len(rows))

    assert found == [f"int {n}" for n in range(1000)]
    assert numbers == list(range(1, 1001))


@pytest.mark.parametrize("compression", ["none", "snappy", "gzip", "zstd", "lz4", "brotli"])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_any_compression_and_version_is_read(compression: str, version: str) -> None:
    content = parquet(TABLE, compression=compression, data_page_version=version)

    assert len(rows_of(content)) == 1000


def test_a_table_without_rows_has_none() -> None:
    assert rows_of(parquet(TABLE.slice(0, 0))) == []


def test_a_file_without_its_footer_is_truncated() -> None:
    content = parquet(TABLE)
    for length in (4, 8, 100, len(content) // 2, len(content) - 1):
        with pytest.raises(FormatProblem, match="without its footer") as caught:
            lines_of(content[:length])
        assert (caught.value.problem, caught.value.offset) == ("truncated", length)


def test_of_a_file_with_a_damaged_footer_nothing_is_said_to_be_read() -> None:
    with pytest.raises(FormatProblem, match=r"its footer is damaged .*; none of it can be read") as caught:
        lines_of(b"PAR1" + bytes(100) + b"\xff\xff\xff\x7fPAR1")
    assert (caught.value.problem, caught.value.offset) == ("corrupt", 104)


def until_trouble(content: bytes) -> tuple[list[Any], FormatProblem | None]:
    """The rows up to what is wrong, and that."""
    rows: list[Any] = []
    try:
        for lines in read_parquet(lambda a, b: content[a:b], len(content), 0, len(content), "rows"):
            rows += [tokens(line) for line in lines.raw.splitlines()]
    except FormatProblem as problem:
        return rows, problem
    return rows, None


def test_what_is_damaged_is_told_and_the_rows_before_it_are_read() -> None:
    dice = random.Random(2)
    table = pa.table({"text": [dice.randbytes(20).hex() for _ in range(1000)]})
    content = parquet(table, row_group_size=100, write_page_checksum=True, use_dictionary=False)
    middle = pq.read_metadata(io.BytesIO(content)).row_group(5).column(0).data_page_offset + 1000
    rows, problem = until_trouble(content[:middle] + b"\xff" * 8 + content[middle + 8 :])

    assert problem is not None
    assert problem.problem == "corrupt"
    assert "row group 6 of 10" in problem.detail
    assert rows == rows_of(content)[:500]


def test_a_flipped_bit_never_changes_a_row_unnoticed() -> None:
    content = parquet(TABLE, row_group_size=250, compression="snappy", write_page_checksum=True)
    dice = random.Random(7)
    end = pq.read_metadata(io.BytesIO(content)).row_group(3).column(1).data_page_offset
    whole = rows_of(content)
    for _ in range(60):
        damaged = bytearray(content)
        damaged[dice.randrange(4, end)] ^= 1 << dice.randrange(8)
        rows, problem = until_trouble(bytes(damaged))

        assert problem is None or problem.problem == "corrupt"
        assert rows == whole[: len(rows)]
        assert len(rows) == len(whole) or problem is not None


def test_trouble_with_reading_is_told_as_what_it_is() -> None:
    content = parquet(TABLE, row_group_size=100)

    def read(start: int, end: int) -> bytes:
        if start < 5000 < end:
            raise PermissionError(13, "refused")
        return content[start:end]

    with pytest.raises(PermissionError):
        list(read_parquet(read, len(content), 0, len(content), "rows"))


def test_no_content_is_in_what_is_told_of_damage() -> None:
    table = pa.table({"secret": ["canary-91c2"] * 50})
    content = parquet(table, compression="none", use_dictionary=False)
    at = content.index(b"canary")
    with pytest.raises(FormatProblem) as caught:
        lines_of(content[: at - 4] + b"\xff\xff\xff\x7f" + content[at:])
    assert "canary" not in str(caught.value)
