"""Damage at every place: what stands before it is read, it is told, and nothing else suffers."""

from __future__ import annotations

import bz2
import gzip
import random
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
import zstandard

from tests.files import COMPRESS, ROOMY, local, parts_of
from transforms.elements import Block, FileNote, Segment, block_lines
from transforms.part_lines import Verify
from transforms.segment_reader import SegmentReader

DICE: Final = random.Random(29)
TEXT: Final = b"".join(b'{"event":"%x"}\n' % DICE.getrandbits(200) for _ in range(400))
DECOMPRESSORS: Final[dict[str, Callable[[], Any]]] = {
    ".gz": lambda: zlib.decompressobj(31),
    ".bz2": bz2.BZ2Decompressor,
    ".zst": lambda: zstandard.ZstdDecompressor().decompressobj(),
}


def members(suffix: str) -> bytes:
    """Returns the text in three members."""
    third = len(TEXT) // 3
    return b"".join(COMPRESS[suffix](TEXT[a : a + third]) for a in range(0, len(TEXT), third))


def by_the_library(data: bytes, suffix: str) -> bytes:
    """Returns what the library makes of a file that ends early."""
    content = b""
    while data:
        member = DECOMPRESSORS[suffix]()
        content += member.decompress(data)
        data = member.unused_data if member.eof else b""
    return content


def read(path: Path, neighbour: Path, verify: Verify = "stream") -> tuple[list[Block], FileNote]:
    """Reads a file and then a neighbour, which must be whole; returns its blocks and how it ended."""
    reader = SegmentReader(local, ROOMY, verify=verify)
    blocks = list(reader.blocks(Segment("s", (*parts_of(path), *parts_of(neighbour))), "a"))
    note, *after = blocks[-1].notes
    if note.problem is None:
        assert (note.parts, after) == (2, [])
    else:
        assert [(each.problem, each.lines) for each in after] == [(None, 1)]
    assert block_lines(blocks[-2])[-1] == b"neighbour"
    return blocks[:-1], note


def assert_whole_lines_are_read(folder: Path, suffix: str, lengths: list[int]) -> None:
    data = members(suffix)
    neighbour = folder / "z.json"
    neighbour.write_bytes(b"neighbour\n")
    path = folder / f"a.json{suffix}"
    for length in lengths:
        path.write_bytes(data[:length])
        blocks, note = read(path, neighbour)
        lines = [line for block in blocks for line in block_lines(block)][:-1]
        torn = [block_lines(block)[index] for block in blocks for index in block.torn]
        whole = lines[: len(lines) - len(torn)]
        expected = by_the_library(data[:length], suffix)

        assert (note.problem, note.offset) == ("truncated", length), length
        assert b"".join(line + b"\n" for line in whole) == expected[: expected.rfind(b"\n") + 1], length
        assert b"".join(torn) == expected[expected.rfind(b"\n") + 1 :], length


def some(count: int, end: int, edges: list[int]) -> list[int]:
    """Returns offsets: the first 30 bytes, the last 30, those around some edges, and others."""
    near = {edge + d for edge in (0, *edges, end) for d in range(-30, 31)}
    dice = random.Random(count)
    # A file that ends just behind a member is whole.
    chosen = {n for n in near if 0 < n < end}
    return sorted((chosen | {dice.randrange(1, end) for _ in range(count)}) - set(edges))


def edges_of(suffix: str) -> list[int]:
    third = len(TEXT) // 3
    sizes = [len(COMPRESS[suffix](TEXT[a : a + third])) for a in range(0, len(TEXT), third)]
    return [sum(sizes[: i + 1]) for i in range(len(sizes) - 1)]


@pytest.mark.parametrize("suffix", DECOMPRESSORS)
def test_a_file_that_is_cut_anywhere_yields_what_the_library_can_read_of_it(
    suffix: str, tmp_path: Path
) -> None:
    offsets = some(20, len(members(suffix)), edges_of(suffix))
    assert_whole_lines_are_read(tmp_path, suffix, offsets[::3])


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize("suffix", DECOMPRESSORS)
def test_files_cut_at_a_thousand_offsets(suffix: str, tmp_path: Path) -> None:
    offsets = some(1000, len(members(suffix)), edges_of(suffix))
    assert len(offsets) >= 1000
    assert_whole_lines_are_read(tmp_path, suffix, offsets)


# --- flipped bits -------------------------------------------------------------------------------------------


def with_header(flags: int) -> bytes:
    """Returns a gzip member with optional fields: FTEXT 1, FHCRC 2, FEXTRA 4, FNAME 8, FCOMMENT 16."""
    header = b"\x1f\x8b\x08" + bytes([flags]) + b"\0\0\0\0\0\xff"
    header += struct.pack("<H", 6) + b"AB\x02\x00xy" if flags & 4 else b""
    header += b"name.json\0" if flags & 8 else b""
    header += b"a comment\0" if flags & 16 else b""
    header += struct.pack("<H", zlib.crc32(header) & 0xFFFF) if flags & 2 else b""
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    body = deflate.compress(TEXT) + deflate.flush()
    return header + body + struct.pack("<II", zlib.crc32(TEXT), len(TEXT))


@pytest.mark.parametrize("flags", range(32))
def test_every_optional_field_of_gzip_is_read_over(flags: int, tmp_path: Path) -> None:
    path, neighbour = tmp_path / "a.gz", tmp_path / "z.json"
    path.write_bytes(with_header(flags))
    neighbour.write_bytes(b"neighbour\n")
    blocks, note = read(path, neighbour)

    assert note.problem is None
    assert b"".join(block.raw for block in blocks) == TEXT + b"neighbour\n"


@pytest.mark.parametrize("flags", [32, 64, 128])
def test_reserved_flags_of_gzip_are_told(flags: int, tmp_path: Path) -> None:
    path, neighbour = tmp_path / "a.gz", tmp_path / "z.json"
    path.write_bytes(with_header(flags))
    neighbour.write_bytes(b"neighbour\n")
    blocks, note = read(path, neighbour)

    assert note.problem == "corrupt" or b"".join(block.raw for block in blocks) == TEXT + b"neighbour\n"


def assert_flips_are_noticed(folder: Path, suffix: str, count: int) -> None:
    data = with_header(31) if suffix == ".gz" else members(suffix)
    path, neighbour = folder / f"a.json{suffix}", folder / "z.json"
    neighbour.write_bytes(b"neighbour\n")
    dice = random.Random(count)
    ends = [*range(8 * 40), *range(8 * (len(data) - 12), 8 * len(data))]  # headers and checksums
    bits = sorted(
        {*dice.sample(ends, min(len(ends), count // 4)), *dice.choices(range(8 * len(data)), k=count)}
    )
    noticed = 0
    for bit in bits:
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        blocks, note = read(path, neighbour)
        content = b"".join(block.raw for block in blocks)
        _, strict = read(path, neighbour, "full")

        assert note.problem is not None or content == TEXT + b"neighbour\n", bit
        assert (note.problem is None) == (strict.problem is None), bit
        assert strict.problem is None or strict.lines == 0, bit
        noticed += note.problem is not None
    assert noticed > len(bits) / 2


@pytest.mark.parametrize("suffix", DECOMPRESSORS)
def test_a_flipped_bit_is_noticed_or_harmless_and_nothing_of_a_verified_file_is_read(
    suffix: str, tmp_path: Path
) -> None:
    assert_flips_are_noticed(tmp_path, suffix, 25)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("suffix", DECOMPRESSORS)
def test_two_thousand_flipped_bits(suffix: str, tmp_path: Path) -> None:
    assert_flips_are_noticed(tmp_path, suffix, 2000)


def test_of_a_corrupt_file_all_that_stands_before_the_damage_is_read(tmp_path: Path) -> None:
    path, neighbour = tmp_path / "a.gz", tmp_path / "z.json"
    neighbour.write_bytes(b"neighbour\n")
    first = TEXT * 30
    broken = bytearray(gzip.compress(TEXT))
    broken[15:] = b"\xff" * (len(broken) - 15)
    path.write_bytes(gzip.compress(first) + broken)
    blocks, note = read(path, neighbour)

    assert note.problem == "corrupt"
    assert b"".join(block.raw for block in blocks).startswith(first)
    assert note.offset is not None
    assert len(gzip.compress(first)) <= note.offset <= len(gzip.compress(first)) + 40
