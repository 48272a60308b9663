"""Takes Avro's container files apart: header, blocks, compression; decoding what they hold is for others."""

from __future__ import annotations

import bz2
import io
import json
import lzma
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, NamedTuple

import pyarrow as pa
import zstandard

from source_formats.detection import AVRO_MAGIC
from source_formats.lines import FormatProblem

BLOCK_BYTES: Final = 128 << 20  # a writer makes blocks of some KiB or MiB; what says more is damaged
_SYNC_BYTES: Final = 16
_LONGEST_VARINT: Final = 10
_HEADER_BYTES: Final = 16 << 20
_CHECKSUM_BYTES: Final = 4
_DAMAGE: Final = (
    ValueError,
    OSError,
    EOFError,
    zlib.error,
    lzma.LZMAError,
    zstandard.ZstdError,
    pa.ArrowException,
)


class Header(NamedTuple):
    """How an Avro file begins.

    Attributes:
        schema: what its records are.
        codec: how its blocks are compressed.
        sync: what stands behind each block.
    """

    schema: Any
    codec: str
    sync: bytes


class Block(NamedTuple):
    """Some records, decompressed and still encoded, how many, and where in the file they stand."""

    offset: int
    size: int
    records: bytes


class AvroFile:
    """An Avro file that is read from its beginning to its end."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._source = _Source(iter(chunks))

    def header(self) -> Header:
        """Returns the header; to be called first.

        Raises:
            FormatProblem: if it is damaged, or of a codec that is not known.
        """
        try:
            if self._source.take(len(AVRO_MAGIC)) != AVRO_MAGIC:
                raise ValueError
            metadata = dict(self._metadata())
            schema = json.loads(metadata["avro.schema"])
            codec = metadata.get("avro.codec", b"null").decode()
            sync = self._source.take(_SYNC_BYTES)
        except EOFError:
            raise _truncated(self._source.offset) from None
        except (ValueError, KeyError, RecursionError):
            raise FormatProblem("corrupt", 0, "the header of an Avro file is damaged") from None
        if codec not in _CODECS:
            known = ", ".join(sorted(_CODECS))
            told = f"Avro with the codec {codec[:40]!r}, which cannot be read; write it with one of {known}"
            raise FormatProblem("unsupported_format", 0, told)
        return Header(schema, codec, sync)

    def blocks(self, header: Header) -> Iterator[Block]:
        """Yields the blocks behind the header.

        Raises:
            FormatProblem: behind the last whole block, if the file is damaged or ends inside of one.
        """
        unpack = _CODECS[header.codec]
        while not self._source.at_end():
            offset = self._source.offset
            size, packed = self._packed(header.sync)
            try:
                records = unpack(packed)
            except _DAMAGE:
                raise damaged_block(offset) from None
            yield Block(offset, size, records)

    def _packed(self, sync: bytes) -> tuple[int, bytes]:
        """Returns how many records the next block has, and its bytes as they are stored."""
        source, offset = self._source, self._source.offset
        try:
            records, size = source.number(), source.number()
            if records >= 0 and 0 <= size <= BLOCK_BYTES:
                packed = source.take(size)
                if source.take(_SYNC_BYTES) == sync:
                    return records, packed
        except EOFError:
            raise _truncated(offset) from None
        except ValueError:
            pass  # a number of no end
        raise damaged_block(offset)

    def _metadata(self) -> Iterator[tuple[str, bytes]]:
        source = self._source
        while (count := source.number()) != 0:
            if count < 0:
                count = -count
                source.number()  # how many bytes follow
            for _ in range(count):
                yield source.take(_sized(source.number())).decode(), source.take(_sized(source.number()))


def damaged_block(offset: int) -> FormatProblem:
    """Returns what is wrong with a file in which a block is damaged."""
    return FormatProblem("corrupt", offset, "a block of records is damaged; the records before it are read")


def _truncated(offset: int) -> FormatProblem:
    return FormatProblem("truncated", offset, "the Avro file ends here, inside of its header or a block")


def _sized(size: int) -> int:
    if not 0 <= size <= _HEADER_BYTES:
        raise ValueError
    return size


class _Source:
    """Bytes from chunks, taken a few at a time."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self.offset = 0
        self._chunks = chunks
        self._held = b""
        self._at = 0

    def at_end(self) -> bool:
        """Returns whether nothing follows."""
        return not self._has(1)

    def take(self, size: int) -> bytes:
        """Returns the next bytes.

        Raises:
            EOFError: if there are fewer.
        """
        if not self._has(size):
            raise EOFError
        taken = self._held[self._at : self._at + size]
        self._at += size
        self.offset += size
        return taken

    def number(self) -> int:
        """Returns the next number: of variable length, its sign in the last bit.

        Raises:
            EOFError: if the bytes end in it.
            ValueError: if it is longer than a number can be.
        """
        value = self.unsigned()
        return (value >> 1) ^ -(value & 1)

    def unsigned(self) -> int:
        """Returns the next number, which has no sign."""
        value = 0
        for place in range(_LONGEST_VARINT):
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << (7 * place)
            if byte < 0x80:
                return value
        raise ValueError

    def _has(self, size: int) -> bool:
        if len(self._held) - self._at >= size:
            return True
        pieces = [self._held[self._at :]]
        length = len(pieces[0])
        while length < size and (chunk := next(self._chunks, None)) is not None:
            pieces.append(chunk)
            length += len(chunk)
        self._held, self._at = b"".join(pieces), 0
        return length >= size


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
    size = _Source(iter((body,))).unsigned()
    if size > BLOCK_BYTES:
        raise ValueError
    unpacked: bytes = pa.decompress(body, decompressed_size=size, codec="snappy", asbytes=True)
    if zlib.crc32(unpacked).to_bytes(_CHECKSUM_BYTES, "big") != checksum:
        raise ValueError
    return unpacked


def _zstandard(packed: bytes) -> bytes:
    with zstandard.ZstdDecompressor().stream_reader(io.BytesIO(packed)) as reader:
        return _within_bounds(reader.read(BLOCK_BYTES + 1))


_CODECS: Final[dict[str, Callable[[bytes], bytes]]] = {
    "null": bytes,
    "deflate": _deflate,
    "bzip2": lambda packed: _within_bounds(bz2.BZ2Decompressor().decompress(packed, BLOCK_BYTES + 1)),
    "xz": lambda packed: _within_bounds(lzma.LZMADecompressor().decompress(packed, BLOCK_BYTES + 1)),
    "snappy": _snappy,
    "zstandard": _zstandard,
}
