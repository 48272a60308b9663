"""Files that are read in parts: however one is cut, each of its lines is read once and in its place."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from unittest.mock import patch

import fastavro
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from source_formats.detection import Format
from source_formats.opening import FormatChoice
from source_formats.table_rows import TableLayout
from tests.files import Line, expected_lines, lines_with_places, local, parts_of
from transforms.elements import FilePart, Segment
from transforms.segment_reader import BlockLimits, SegmentReader

CASES = 10_000
MARKER = b"0123456789abcdef"
BOM = b"\xef\xbb\xbf"
# Lines of one byte and of none, characters of two to four, a carriage return that ends no line, and no UTF-8.
PIECES = [b"", b"", b"a", b"\r", b'{"a":1}', "ä€😀".encode(), b"\xff\xfe", b"\xe2\x80\xa8", b"\0", b"x" * 40]
LINES = st.lists(st.lists(st.sampled_from(PIECES), max_size=3).map(b"".join), min_size=1, max_size=9)
ENDINGS = st.lists(st.sampled_from([b"\n", b"\n", b"\r\n", b"\r\r\n"]), min_size=9, max_size=9)
SIZES = st.integers(1, 70)
LIMITS = st.builds(BlockLimits, st.integers(1, 5), st.integers(1, 60))
ROWS = FormatChoice("auto", TableLayout(shape="rows"))


@st.composite
def contents(draw: st.DrawFn) -> bytes:
    """Draws a text with or without a mark at its beginning and a newline at its end."""
    lines = zip(draw(LINES), draw(ENDINGS), strict=False)
    text = draw(st.sampled_from([b"", BOM])) + b"".join(line + ending for line, ending in lines)
    return text if draw(st.booleans()) else text.rstrip(b"\n")


def cuts_of(size: int) -> st.SearchStrategy[list[int]]:
    """Returns ways to cut a file: anywhere, at every byte, or not at all."""
    if size < 2:
        return st.just([])
    inner = range(1, size)
    return st.lists(st.sampled_from(inner), unique=True, max_size=8) | st.sampled_from([[], list(inner)])


def read_parts(
    parts: Sequence[FilePart], chunk_bytes: int, limits: BlockLimits, one_reader: bool, choice: FormatChoice
) -> list[Line]:
    """Reads parts as segments of their own: by one worker, or each by another; returns their lines."""
    with patch("transforms.part_lines.CHUNK_BYTES", chunk_bytes):
        reader = SegmentReader(local, limits, format=choice)
        found = []
        for number, part in enumerate(parts):
            reader = reader if one_reader else SegmentReader(local, limits, format=choice)
            blocks = list(reader.blocks(Segment(str(number), (part,)), "attempt"))
            assert not any(note.problem for block in blocks for note in block.notes)
            found += lines_with_places(blocks)
    return found


def marked(lines: list[Line], content: bytes) -> list[Line]:
    """Returns what is expected of a text whose first line has a mark, which is passed over."""
    if not content.startswith(BOM):
        return lines
    uri, number, offset, line = lines[0]
    first = [(uri, number, offset + len(BOM), line.removeprefix(BOM))] if len(content) > len(BOM) else []
    return [*first, *lines[1:]]


def check_text(path: Path, data: st.DataObject) -> None:
    content = data.draw(contents())
    path.write_bytes(content)
    cuts = data.draw(cuts_of(len(content)))
    one_reader = data.draw(st.booleans())
    parts = parts_of(path, cuts) if content else ()
    parts = tuple(part._replace(end=part.size if part.end is None else part.end) for part in parts)
    found = read_parts(parts, data.draw(SIZES), data.draw(LIMITS), one_reader, FormatChoice("ndjson"))

    expected = marked(expected_lines(path, content), content)
    assert [line[2:] for line in found] == [line[2:] for line in expected]
    if one_reader:
        assert found == expected


def check_parquet(path: Path, data: st.DataObject) -> None:
    rows = data.draw(st.integers(0, 40))
    file = io.BytesIO()
    table = pa.table({"n": pa.array(range(rows), pa.int64()), "t": ["ä\r\n" * (n % 3) for n in range(rows)]})
    pq.write_table(table, file, row_group_size=data.draw(st.integers(1, 15)))
    path.write_bytes(file.getvalue())
    format: Format = "parquet"
    parts = [
        part._replace(end=part.end or part.size, format=format)
        for part in parts_of(
            path, data.draw(cuts_of(len(file.getvalue())).filter(lambda cuts: len(cuts) < 9))
        )
    ]
    found = read_parts(parts, data.draw(SIZES), data.draw(LIMITS), data.draw(st.booleans()), ROWS)

    assert [json.loads(line)["n"] for *_, line in found] == list(range(rows))
    assert [number for _, number, *_ in found] == list(range(1, rows + 1))


def check_avro(path: Path, data: st.DataObject) -> None:
    rows = data.draw(st.integers(0, 40))
    codec, interval = data.draw(st.sampled_from(["null", "deflate", "bzip2", "xz"])), data.draw(SIZES)
    fields = [{"name": "n", "type": "long"}, {"name": "t", "type": "string"}]
    schema = {"type": "record", "name": "Row", "fields": fields}
    file = io.BytesIO()
    records = [{"n": n, "t": "ä\r\n" * (n % 3)} for n in range(rows)]
    fastavro.writer(file, schema, records, codec, interval, sync_marker=MARKER)
    path.write_bytes(file.getvalue())
    format: Format = "avro"

    def read(cuts: Sequence[int], one_reader: bool) -> list[Line]:
        parts = [part._replace(end=part.end or part.size, format=format) for part in parts_of(path, cuts)]
        return read_parts(parts, data.draw(SIZES), data.draw(LIMITS), one_reader, ROWS)

    one_reader = data.draw(st.booleans())
    found = read(data.draw(cuts_of(len(file.getvalue())).filter(lambda cuts: len(cuts) < 99)), one_reader)

    assert [json.loads(line)["n"] for *_, line in found] == list(range(rows))
    assert [line[2:] for line in found] == [line[2:] for line in read((), True)]
    assert all(number == 1 + json.loads(line)["n"] for _, number, _, line in found if one_reader or number)


def run_cases(check: Callable[[Path, st.DataObject], None], path: Path, count: int) -> None:
    @seed(random.Random(33).getrandbits(32))
    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )
    @given(data=st.data())
    def case(data: st.DataObject) -> None:
        check(path, data)

    case()


@pytest.mark.parametrize("check", [check_text, check_parquet, check_avro])
def test_each_line_is_read_once_however_its_file_is_cut(
    check: Callable[[Path, st.DataObject], None], tmp_path: Path
) -> None:
    run_cases(check, tmp_path / "a", 60)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("check", [check_text, check_parquet, check_avro])
def test_each_line_is_read_once_in_ten_thousand_cases(
    check: Callable[[Path, st.DataObject], None], tmp_path: Path
) -> None:
    run_cases(check, tmp_path / "a", CASES)
