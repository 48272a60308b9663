"""Compressed files: content as it was, and damage that is never taken for an end."""

import bz2
import gzip
import random
import zlib
from collections.abc import Callable

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.files import COMPRESS
from transforms.compression import (
    SUFFIXES,
    DamagedFile,
    compression_of,
    decompress,
    without_suffix,
)

KINDS = {kind: COMPRESS[suffix] for suffix, kind in SUFFIXES.items() if suffix in COMPRESS}
TEXT = b"".join(b'{"event":"e%d","properties":{"time":17000000%02d}}\n' % (n * n, n % 60) for n in range(12))
SIZES = [1, 2, 7, 100, 1 << 20]


def pieces(data: bytes, size: int) -> list[bytes]:
    return [data[i : i + size] for i in range(0, len(data), size)]


def read(data: bytes, kind: str, chunk: int = 64) -> tuple[bytes, DamagedFile | None]:
    """What could be read of a stream, and the damage that ended it."""
    content = b""
    try:
        for piece in decompress(pieces(data, chunk), kind):
            content += piece
    except DamagedFile as damage:
        return content, damage
    return content, None


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_is_told_by_content_not_by_name(kind: str) -> None:
    assert compression_of(KINDS[kind](TEXT)) == kind
    assert compression_of(KINDS[kind](b"")) == kind


@pytest.mark.parametrize(
    "head", [b"", b"{", b"\n", b"\x1f", b"\x1f\x8c", b"BZ", b"\x28\xb5\x2f", b"[B", b"\xef\xbb\xbf"]
)
def test_anything_else_is_plain(head: bytes) -> None:
    assert compression_of(head) is None


@pytest.mark.parametrize("suffix", ["", *SUFFIXES])
def test_a_name_is_the_same_without_the_suffix(suffix: str) -> None:
    assert without_suffix(f"gs://b/x.gz.json{suffix}") == "gs://b/x.gz.json"


@pytest.mark.parametrize("chunk", SIZES)
@pytest.mark.parametrize("kind", KINDS)
def test_content_comes_out_as_it_was_however_it_is_cut(kind: str, chunk: int) -> None:
    assert read(KINDS[kind](TEXT), kind, chunk) == (TEXT, None)
    assert read(KINDS[kind](b""), kind, chunk) == (b"", None)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60, deadline=None)
@given(
    members=st.lists(st.binary(max_size=40), max_size=4),
    chunk=st.integers(1, 200),
    padding=st.integers(0, 99),
)
def test_several_members_with_padding_are_one_stream(
    kind: str, members: list[bytes], chunk: int, padding: int
) -> None:
    data = b"".join(KINDS[kind](member) + b"\0" * padding for member in members)

    assert read(data, kind, chunk) == (b"".join(members), None)


@pytest.mark.parametrize("kind", KINDS)
def test_every_truncation_is_noticed_and_leaves_what_was_whole(kind: str) -> None:
    data = KINDS[kind](TEXT)
    for length in range(1, len(data)):
        content, damage = read(data[:length], kind, 50)

        assert damage is not None
        assert (damage.problem, damage.offset) == ("truncated", length)
        assert TEXT.startswith(content)


def test_a_truncated_gzip_yields_all_that_zlib_can_read_of_it() -> None:
    data = gzip.compress(random.Random(1).randbytes(3000).hex().encode())
    for length in range(1, len(data), 7):
        content, _ = read(data[:length], "gzip", 100)

        assert content == zlib.decompressobj(31).decompress(data[:length])


@pytest.mark.parametrize("kind", KINDS)
def test_a_truncation_in_a_later_member_is_noticed(kind: str) -> None:
    first, second = KINDS[kind](b"first\n"), KINDS[kind](b"second\n")
    for length in range(1, len(second)):
        content, damage = read(first + second[:length], kind)

        assert damage is not None
        assert damage.offset == len(first) + length
        assert b"first\nsecond\n".startswith(content)
        assert content.startswith(b"first\n")


@pytest.mark.parametrize("kind", KINDS)
def test_every_flipped_bit_is_noticed_or_does_no_harm(kind: str) -> None:
    data = KINDS[kind](TEXT)
    noticed = 0
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        content, damage = read(bytes(flipped), kind, 100)
        noticed += damage is not None
        assert damage is not None or content == TEXT

    assert noticed > 0.8 * 8 * len(data)


@pytest.mark.parametrize("kind", KINDS)
def test_rubbish_behind_the_end_is_noticed_after_all_content(kind: str) -> None:
    for rubbish in (b"x", b"{}\n", b"\0\0x", b"\x1f\x8b\x08rubbish-and-more", b"\xff" * 99):
        content, damage = read(KINDS[kind](TEXT) + rubbish, kind)

        assert content == TEXT
        assert damage is not None


@pytest.mark.parametrize(("trailer", "problem"), [(slice(-8, -4), "CRC"), (slice(-4, None), "length")])
def test_a_wrong_checksum_or_length_of_gzip_is_noticed(trailer: slice, problem: str) -> None:
    data = bytearray(gzip.compress(TEXT))
    data[trailer] = b"\1\2\3\4"
    content, damage = read(bytes(data), "gzip")

    assert content == TEXT, problem
    assert damage is not None
    assert damage.problem == "corrupt"
    assert str(damage).startswith("corrupt at byte ")


BOMBS: dict[str, Callable[[], bytes]] = {
    "gzip": lambda: gzip.compress(b"\0" * (64 << 20)),
    "bz2": lambda: bz2.compress(b"\0" * (64 << 20)),
    "zstd": lambda: zstandard.ZstdCompressor(level=1).compress(b"\0" * (64 << 20)),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_a_bomb_comes_out_in_small_pieces(kind: str) -> None:
    sizes = [len(piece) for piece in decompress([BOMBS[kind]()], kind)]

    assert sum(sizes) == 64 << 20
    assert max(sizes) <= (48 << 20 if kind == "zstd" else 1 << 20)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(1 << 20) - 1, 1 << 20, (1 << 20) + 1, 3 << 20])
def test_content_that_just_fills_a_piece_is_not_taken_for_truncated(kind: str, size: int) -> None:
    for content in (b"\0" * size, random.Random(size).randbytes(size)):
        assert read(KINDS[kind](content), kind, 1 << 16) == (content, None)


@pytest.mark.parametrize("kind", KINDS)
def test_large_members_in_one_chunk_are_all_read(kind: str) -> None:
    members = [random.Random(seed).randbytes(5000) for seed in range(4)]
    data = b"".join(map(KINDS[kind], members))

    assert read(data, kind, len(data)) == (b"".join(members), None)
