"""Streams in blocks and files in ranges: every line once, wherever they are cut."""

import hashlib
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from transforms.line_blocks import (
    GIANT_LINE_BYTES,
    GIANT_LINE_HEAD,
    GiantLine,
    cut_blocks,
    range_chunks,
)

LINE = st.sampled_from([b"", b"a", b"\r", b"bc\r", "é😀".encode(), b"0123456789", b"x" * 40])
TEXT = st.builds(
    lambda lines, end: b"\n".join(lines) + end,
    st.lists(LINE, max_size=30),
    st.sampled_from([b"", b"\n", b"\n\n"]),
)
CUTS = st.lists(st.integers(0, 300), max_size=12)


def lines_of(data: bytes) -> list[bytes]:
    """Lines with their newlines; the last may have none."""
    pieces = [piece + b"\n" for piece in data.split(b"\n")]
    pieces[-1] = pieces[-1][:-1]
    return [piece for piece in pieces if piece]


def expected_blocks(data: bytes, max_lines: int, max_bytes: int) -> list[bytes]:
    blocks: list[list[bytes]] = []
    for line in lines_of(data):
        if blocks and len(blocks[-1]) < max_lines and len(b"".join(blocks[-1]) + line) <= max_bytes:
            blocks[-1].append(line)
        else:
            blocks.append([line])
    return [b"".join(block) for block in blocks]


def pieces_of(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


# --- blocks -------------------------------------------------------------------------------------------------


@settings(max_examples=700, deadline=None)
@given(TEXT, CUTS, st.integers(1, 6), st.integers(1, 60))
@example(b"\n\n\n", [1], 2, 1)
@example(b"x" * 40 + b"\n", [40], 1, 1)
def test_a_block_takes_as_many_lines_as_fit_wherever_the_stream_is_cut(
    data: bytes, cuts: list[int], max_lines: int, max_bytes: int
) -> None:
    blocks = list(cut_blocks(pieces_of(data, cuts), max_lines, max_bytes))

    assert blocks == expected_blocks(data, max_lines, max_bytes)


@given(TEXT)
def test_a_stream_of_single_bytes_yields_the_blocks_of_one_piece(data: bytes) -> None:
    single = [data[i : i + 1] for i in range(len(data))]

    assert list(cut_blocks(single, 3, 30)) == list(cut_blocks([data], 3, 30))


def test_an_empty_stream_has_no_blocks() -> None:
    assert list(cut_blocks([], 10, 10)) == []
    assert list(cut_blocks([b"", b""], 10, 10)) == []


def test_blocks_come_before_the_stream_has_ended() -> None:
    def endless() -> Iterator[bytes]:
        while True:
            yield b"line\n" * 3

    blocks = cut_blocks(endless(), 2, 100)

    assert [next(blocks) for _ in range(3)] == [b"line\nline\n"] * 3


def pieces_with_giant(length: int, ending: bytes, piece: int = 1 << 20) -> list[bytes]:
    data = b"before\n" + b"g" * length + ending
    return [data[i : i + piece] for i in range(0, len(data), piece)]


@pytest.mark.parametrize("ending", [b"\nafter\n", b"\n", b""])
@pytest.mark.parametrize("piece", [1 << 20, 1 << 24])
def test_a_line_up_to_the_bound_is_held(ending: bytes, piece: int) -> None:
    blocks = list(cut_blocks(pieces_with_giant(GIANT_LINE_BYTES, ending, piece), 100, 1000))

    assert blocks[:2] == [b"before\n", b"g" * GIANT_LINE_BYTES + ending[:1]]
    assert blocks[2:] == ([b"after\n"] if b"after" in ending else [])


@pytest.mark.parametrize("ending", [b"\nafter\n", b"\n", b""])
@pytest.mark.parametrize(
    ("more", "piece"), [(1, 1 << 20), (1, 1 << 24), (30 << 20, 1 << 20), (12345, 999_983)]
)
def test_a_longer_line_is_told_by_its_head_length_and_hash(ending: bytes, more: int, piece: int) -> None:
    length = GIANT_LINE_BYTES + more
    first, giant, *rest = cut_blocks(pieces_with_giant(length, ending, piece), 100, 1000)

    assert first == b"before\n"
    assert giant == GiantLine(
        b"g" * GIANT_LINE_HEAD, length, hashlib.sha256(b"g" * length).hexdigest(), ended=ending != b""
    )
    assert giant.stream_bytes == length + len(ending[:1])
    assert rest == ([b"after\n"] if b"after" in ending else [])


def test_giants_follow_each_other() -> None:
    giant = b"g" * (GIANT_LINE_BYTES + 1) + b"\n"
    found = list(cut_blocks([giant + giant + b"x"], 100, 1000))

    assert [type(piece) for piece in found] == [GiantLine, GiantLine, bytes]


def test_a_giant_is_never_held_as_a_whole() -> None:
    held: list[int] = []

    def stream() -> Iterator[bytes]:
        for _ in range(200):
            held.append(1 << 20)
            yield b"g" * (1 << 20)

    (giant,) = cut_blocks(stream(), 100, 1000)

    assert isinstance(giant, GiantLine)
    assert giant.length == sum(held) == 200 << 20


# --- ranges -------------------------------------------------------------------------------------------------


def read_range(data: bytes, start: int, end: int, chunk: int) -> list[tuple[int, bytes]]:
    return list(range_chunks(lambda a, b: data[a:b], len(data), start, end, chunk))


@settings(max_examples=700, deadline=None)
@given(TEXT, CUTS, st.integers(1, 50))
def test_any_ranges_of_a_file_read_each_line_once(data: bytes, cuts: list[int], chunk: int) -> None:
    edges = sorted({0, len(data), *(min(cut, len(data)) for cut in cuts)})
    found: list[bytes] = []
    for start, end in pairwise(edges):
        chunks = read_range(data, start, end, chunk)
        assert all(data[offset : offset + len(piece)] == piece for offset, piece in chunks)
        lines = lines_of(b"".join(piece for _, piece in chunks))
        assert all(start <= data.index(line) or data.count(line) > 1 for line in lines)
        found += lines

    assert found == lines_of(data)


@given(TEXT, st.integers(1, 50))
def test_a_line_belongs_to_the_range_of_its_first_byte(data: bytes, chunk: int) -> None:
    start = 0
    for line in lines_of(data):
        assert b"".join(piece for _, piece in read_range(data, start, start + 1, chunk)) == line
        assert read_range(data, start + 1, start + len(line), chunk) == []
        start += len(line)


def test_a_range_reads_little_beyond_its_own_lines() -> None:
    data = b"x" * 99 + b"\n"
    asked: list[int] = []

    def read(start: int, end: int) -> bytes:
        asked.append(end - start)
        return (data * 1000)[start:end]

    lines = b"".join(piece for _, piece in range_chunks(read, 100_000, 50_050, 50_150, 1000))

    assert lines == data
    assert sum(asked) <= 3000
