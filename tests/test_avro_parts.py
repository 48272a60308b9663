"""Avro files that are read in parts: however one is cut, and whatever is damaged, the same is read of it."""

import io
import json
import random
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import fastavro
from hypothesis import given, settings
from hypothesis import strategies as st

from source_formats.avro_blocks import AvroFile, can_be_cut
from source_formats.avro_records import read_avro, read_avro_part, read_numbered_avro
from source_formats.lines import FormatProblem, Lines
from transforms.line_blocks import range_ends

SCHEMA: Any = {
    "type": "record",
    "name": "Row",
    "fields": [{"name": "raw", "type": "string"}, {"name": "n", "type": "long"}],
}
MARKER = b"0123456789abcdef"
Found = list[tuple[int, int]]  # each record's number in the file, and where its block begins


def avro(texts: Sequence[str], codec: str = "null", interval: int = 100, marker: bytes = MARKER) -> bytes:
    file = io.BytesIO()
    rows = [{"n": n, "raw": text} for n, text in enumerate(texts)]
    fastavro.writer(file, SCHEMA, rows, codec, interval, sync_marker=marker)
    return file.getvalue()


def texts(count: int) -> list[str]:
    return ["x" * (n % 30) for n in range(count)]


def in_chunks(content: bytes, first: int = 0, _upto: int = 0) -> Iterator[bytes]:
    return (content[at : at + 50] for at in range(first, len(content), 50))


def read_part(content: bytes, start: int, end: int) -> tuple[Found, list[FormatProblem]]:
    """The records of a stretch, and what is wrong with it."""
    return found_in(read_avro_part(partial(in_chunks, content), start, end, "rows"))


def found_in(read: Iterator[Lines]) -> tuple[Found, list[FormatProblem]]:
    """The records that are read, and what is wrong."""
    found: Found = []
    try:
        for lines in read:
            refused = {line.index for line in lines.refused}
            records = lines.raw.splitlines()
            places = zip(records, lines.offsets or [0] * len(records), strict=True)
            told = [place for index, place in enumerate(places) if index not in refused]
            found += [(json.loads(line)["n"], offset) for line, offset in told]
    except FormatProblem as problem:
        return found, [problem]
    return found, []


def read_cut(content: bytes, cuts: Sequence[int]) -> tuple[Found, list[FormatProblem]]:
    edges = [0, *sorted(cuts), len(content)]
    parts = [read_part(content, start, end) for start, end in pairwise(edges)]
    return [row for found, _ in parts for row in found], [one for _, problems in parts for one in problems]


def flipped(blocks: bytes, dice: random.Random) -> bytes:
    at, mask = dice.randrange(len(blocks) + 1), 1 << dice.randrange(8)
    return blocks[:at] + bytes(byte ^ mask for byte in blocks[at : at + 1]) + blocks[at + 1 :]


def cut_short(blocks: bytes, dice: random.Random) -> bytes:
    return blocks[: dice.randrange(len(blocks) + 1)]


def overwritten(blocks: bytes, dice: random.Random) -> bytes:
    at = dice.randrange(len(blocks) + 1)
    return blocks[:at] + dice.randbytes(dice.randrange(200)) + blocks[at + dice.randrange(200) :]


DAMAGE: list[Callable[[bytes, random.Random], bytes]] = [flipped, cut_short, overwritten]


@settings(max_examples=150, deadline=None)
@given(st.data(), st.sampled_from(["null", "deflate"]), st.lists(st.sampled_from(DAMAGE), max_size=3))
def test_the_same_is_read_however_a_damaged_file_is_cut(
    data: st.DataObject, codec: str, damage: list[Callable[[bytes, random.Random], bytes]]
) -> None:
    dice = random.Random(data.draw(st.integers(0, 2**32)))
    content = avro(texts(40), codec, data.draw(st.integers(1, 300)))
    header = AvroFile([content]).header().size
    for change in damage:
        content = content[:header] + change(content[header:], dice)
    cuts = data.draw(st.lists(st.integers(1, len(content) - 1), unique=True, max_size=30))
    whole, problems = found_in(read_avro("rows", in_chunks(content)))
    found, all_problems = read_cut(content, cuts)
    numbered, first_problem = found_in(read_numbered_avro("rows", in_chunks(content)))
    told = [(one.problem, one.offset) for one in problems]

    assert found == whole
    assert [(one.problem, one.offset) for one in all_problems][:1] == told
    assert [(one.problem, one.offset) for one in first_problem] == told
    assert [n for n, _ in numbered] == [n for n, _ in whole][: len(numbered)]


@settings(max_examples=60, deadline=None)
@given(st.data(), st.sampled_from(["null", "deflate"]))
def test_what_is_not_damaged_is_what_a_reader_from_the_beginning_finds(
    data: st.DataObject, codec: str
) -> None:
    content = avro(texts(40), codec, data.draw(st.integers(1, 300)))
    cuts = data.draw(st.lists(st.integers(1, len(content) - 1), unique=True, max_size=30))
    numbered, _ = found_in(read_numbered_avro("rows", in_chunks(content)))
    found, problems = read_cut(content, cuts)

    assert not problems
    assert [number for number, _ in found] == [number for number, _ in numbered] == list(range(40))
    assert all(content.startswith(MARKER, offset - len(MARKER)) for _, offset in found)


def test_what_looks_like_a_marker_within_a_record_is_none_wherever_the_file_is_cut() -> None:
    marker = MARKER.decode()
    tricks = [
        marker,
        marker * 3,
        marker + "\x02\x02x",  # a block that ends somewhere else
        marker + "\x00\x00" + marker,  # a block without records
        marker + "\x02\x7f" + "y" * 20 + marker,  # a block of another size
        marker + "\x01\x04" + marker,  # fewer records than none
        marker + "\x02" + "\x7f" * 12,  # a size that has no end
    ]
    content = avro([trick for trick in tricks for _ in range(2)], interval=60)
    expected, problems = read_part(content, 0, len(content))

    assert not problems
    assert len(expected) == 2 * len(tricks)
    for cut in range(1, len(content)):
        assert read_cut(content, [cut]) == (expected, [])


def test_the_blocks_before_and_behind_damage_are_read_and_its_first_place_is_told() -> None:
    content = avro(texts(60))
    expected, _ = read_part(content, 0, len(content))
    begins = sorted({offset for _, offset in expected})
    damaged = bytearray(content)
    for number in (3, 8):
        damaged[begins[number] + 1] = 0x7F  # how long it is
    found, (problem,) = read_part(bytes(damaged), 0, len(content))

    assert found == [row for row in expected if row[1] not in (begins[3], begins[8])]
    assert (problem.problem, problem.offset) == ("corrupt", begins[3])
    assert "in 2 places" in problem.detail


def test_a_block_that_the_next_stretch_would_pass_over_is_told_by_the_one_before_it() -> None:
    content = avro(texts(60))
    expected, _ = read_part(content, 0, len(content))
    begins = sorted({offset for _, offset in expected})
    damaged = bytearray(content)
    damaged[begins[5] + 1] = 0x7F
    for cut in (begins[5] - 3, begins[5], begins[5] + 1, begins[6] - 1):
        parts = [(0, cut), (cut, len(content))]
        problems = [read_part(bytes(damaged), *part)[1] for part in parts]
        assert [[one.offset for one in found] for found in problems] == [[begins[5]], []]


def test_a_file_that_ends_inside_of_a_block_is_truncated_there() -> None:
    content = avro(texts(60))
    expected, _ = read_part(content, 0, len(content))
    last = max(offset for _, offset in expected)
    found, (problem,) = read_cut(content[:-20], [300, 600, 900])

    assert found == [row for row in expected if row[1] < last]
    assert (problem.problem, problem.offset) == ("truncated", last)


def test_a_size_beyond_the_end_of_the_file_is_damage_and_no_end() -> None:
    content = avro(texts(60))
    begins = sorted({offset for _, offset in read_part(content, 0, len(content))[0]})
    damaged = content[: begins[4] + 1] + b"\xfe\xff\x3f" + content[begins[4] + 2 :]
    found, (problem,) = read_part(damaged, 0, len(damaged))

    assert (problem.problem, problem.offset) == ("corrupt", begins[4])
    assert max(number for number, _ in found) == 59


def test_a_stretch_asks_for_little_more_than_itself() -> None:
    content = avro(texts(5000), interval=1000)
    asked: list[tuple[int, int]] = []

    def bytes_from(first: int, upto: int) -> Iterator[bytes]:
        for low, high in pairwise(range_ends(first, upto, len(content), 20_000)):
            asked.append((low, high))
            yield content[low:high]

    found = sum(1 for _ in read_avro_part(bytes_from, 50_000, 60_000, "rows"))

    assert found > 5
    assert asked == [(0, 20_000), (49_984, 60_000), (60_000, 80_000)]


def test_where_blocks_cannot_be_found_reading_ends_with_the_first_damage() -> None:
    content = avro(texts(60), marker=bytes(16))
    expected, _ = found_in(read_avro("rows", in_chunks(content)))
    begins = sorted({offset for _, offset in expected})
    damaged = content[: begins[3] + 1] + b"\x7f" + content[begins[3] + 2 :]
    found, (problem,) = found_in(read_avro("rows", in_chunks(damaged)))

    assert found == [row for row in expected if row[1] < begins[3]]
    assert problem.offset == begins[3]


def test_a_file_is_cut_only_where_its_marker_tells_blocks() -> None:
    assert can_be_cut(avro(texts(5)))
    assert can_be_cut(avro(texts(5))[:100]), "a header that is longer than what the plan looks at"
    assert not can_be_cut(avro(texts(5), marker=bytes(16)))
    assert not can_be_cut(avro(texts(5), "deflate").replace(b"\x0edeflate", b"\x0elzo-rle"))
    assert not can_be_cut(b"Obj\x01" + b"\xff" * 100)
