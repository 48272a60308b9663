"""Decompresses the blocks of Avro's container files, within bounds."""

from __future__ import annotations

import bz2
import io
import lzma
import zlib
from collections.abc import Callable
from typing import Final

import pyarrow as pa
import zstandard

BLOCK_BYTES: Final = 128 << 20  # a writer makes blocks of some KiB or MiB; what says more is damaged
_LONGEST_VARINT: Final = 10
_CHECKSUM_BYTES: Final = 4
DAMAGE: Final = (
    ValueError,
    OSError,
    EOFError,
    zlib.error,
    lzma.LZMAError,
    zstandard.ZstdError,
    pa.ArrowException,
)


def unsigned_at(data: bytes, at: int) -> tuple[int, int]:
    """Returns the number of variable length that stands somewhere, and the place behind it.

    >>> unsigned_at(bytes([0xAC, 0x02]), 0)
    (300, 2)

    Raises:
        EOFError: if the bytes end in it.
        ValueError: if it is longer than a number can be.
    """
    value = 0
    for place, byte in enumerate(data[at : at + _LONGEST_VARINT]):
        value |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            return value, at + place + 1
    if len(data) - at < _LONGEST_VARINT:
        raise EOFError
    raise ValueError


def _within_bounds(unpacked: bytes) -> bytes:
    if len(unpacked) > BLOCK_BYTES:
        raise ValueError
    return unpacked


def _deflate(packed: bytes) -> bytes:
    member = zlib.decompressobj(-zlib.MAX_WBITS)
    unpacked = _within_bounds(member.decompress(packed, BLOCK_BYTES + 1))
    if not member.eof:
        raise ValueError
    return unpacked


def _snappy(packed: bytes) -> bytes:
    body, checksum = packed[:-_CHECKSUM_BYTES], packed[-_CHECKSUM_BYTES:]
    size, _ = unsigned_at(body, 0)
    if size > BLOCK_BYTES:
        raise ValueError
    unpacked: bytes = pa.decompress(body, decompressed_size=size, codec="snappy", asbytes=True)
    if zlib.crc32(unpacked).to_bytes(_CHECKSUM_BYTES, "big") != checksum:
        raise ValueError
    return unpacked


def _zstandard(packed: bytes) -> bytes:
    with zstandard.ZstdDecompressor().stream_reader(io.BytesIO(packed)) as reader:
        return _within_bounds(reader.read(BLOCK_BYTES + 1))


CODECS: Final[dict[str, Callable[[bytes], bytes]]] = {
    "null": bytes,
    "deflate": _deflate,
    "bzip2": lambda packed: _within_bounds(bz2.BZ2Decompressor().decompress(packed, BLOCK_BYTES + 1)),
    "xz": lambda packed: _within_bounds(lzma.LZMADecompressor().decompress(packed, BLOCK_BYTES + 1)),
    "snappy": _snappy,
    "zstandard": _zstandard,
}
