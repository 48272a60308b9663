"""Takes Avro's container files apart: header, blocks, compression; decoding what they hold is for others.

Behind each block stands the file's marker, 16 bytes that were drawn by lot; so a block can be found from
anywhere in the file, and again behind what is damaged.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

from source_formats.avro_codecs import BLOCK_BYTES, CODECS, DAMAGE, unsigned_at
from source_formats.detection import AVRO_MAGIC
from source_formats.lines import FormatProblem

MARKER_BYTES: Final = 16
_NUMBERS_BYTES: Final = 20  # in front of a block: how many records it has, and how many bytes
_HEADER_BYTES: Final = 16 << 20
_TELLING: Final = 8  # different bytes in a marker; of those drawn by lot not one in 10**9 has fewer


class Header(NamedTuple):
    """How an Avro file begins.

    Attributes:
        schema: what its records are.
        codec: how its blocks are compressed.
        marker: what stands behind each block.
        size: its bytes.
    """

    schema: Any
    codec: str
    marker: bytes
    size: int

    @property
    def is_telling(self) -> bool:
        """Whether a block can be found by the marker, which would stand in no record by chance."""
        return len(set(self.marker)) >= _TELLING


class Block(NamedTuple):
    """Some records, as they are stored, how many, and where in the file they stand."""

    offset: int
    size: int
    packed: bytes


def can_be_cut(head: bytes) -> bool:
    """Returns whether blocks can be found from anywhere in a file that begins like this.

    Not where the marker is no telling one, or where nothing can be read anyway. A header that is longer than
    what is at hand is taken for a good one.
    """
    try:
        return AvroFile([head]).header().is_telling
    except FormatProblem as problem:
        return problem.problem == "truncated"


def unpack(block: Block, codec: str) -> bytes:
    """Returns a block's records, decompressed and still encoded.

    Raises:
        FormatProblem: if they cannot be.
    """
    try:
        return CODECS[codec](block.packed)
    except DAMAGE:
        raise damaged_block(block.offset) from None


def damaged_block(offset: int) -> FormatProblem:
    """Returns what is wrong with a file in which a block is damaged."""
    return FormatProblem("corrupt", offset, "a block of records is damaged; the records before it are read")


def _truncated(offset: int) -> FormatProblem:
    return FormatProblem("truncated", offset, "the Avro file ends here, inside of its header or a block")


class AvroFile:
    """An Avro file that is read towards its end."""

    def __init__(self, chunks: Iterable[bytes], offset: int = 0) -> None:
        """Takes a file's bytes from an offset on."""
        self._chunks = iter(chunks)
        self._held = b""
        self._at = 0
        self._held_from = offset

    @property
    def offset(self) -> int:
        """Where in the file the next byte stands."""
        return self._held_from + self._at

    def at_end(self) -> bool:
        """Returns whether nothing follows."""
        return not self._has(1)

    def header(self) -> Header:
        """Returns the header; to be called first, at the file's beginning.

        Raises:
            FormatProblem: if it is damaged, or of a codec that is not known.
        """
        try:
            if self._take(len(AVRO_MAGIC)) != AVRO_MAGIC:
                raise ValueError
            metadata = dict(self._metadata())
            schema = json.loads(metadata["avro.schema"])
            codec = metadata.get("avro.codec", b"null").decode()
            marker = self._take(MARKER_BYTES)
        except EOFError:
            raise _truncated(self.offset) from None
        except (ValueError, KeyError, RecursionError):
            raise FormatProblem("corrupt", 0, "the header of an Avro file is damaged") from None
        if codec not in CODECS:
            known = ", ".join(sorted(CODECS))
            told = f"Avro with the codec {codec[:40]!r}, which cannot be read; write it with one of {known}"
            raise FormatProblem("unsupported_format", 0, told)
        return Header(schema, codec, marker, self.offset)

    def block(self, marker: bytes) -> Block:
        """Returns the block that stands here, with the marker behind it, and moves behind that.

        Raises:
            FormatProblem: if none does; then it moves nowhere.
        """
        offset = self.offset
        try:
            size, start, end = self._framed(0, marker)
        except EOFError:
            # What says that it is longer than the file may be what is damaged: then blocks stand behind it.
            goes_on = self._held.find(marker, self._at) >= 0
            raise damaged_block(offset) if goes_on else _truncated(offset) from None
        except ValueError:
            raise damaged_block(offset) from None
        packed = self._held[self._at + start : self._at + end]
        self._at += end + MARKER_BYTES
        return Block(offset, size, packed)

    def find_block(self, marker: bytes, until: int) -> bool:
        """Moves on to the first block behind a marker from here on.

        What looks like a marker and is none has no block of records behind it.

        Args:
            marker: the file's.
            until: where to give up: the block begins before that.

        Returns:
            Whether there is one.
        """
        while self._find(marker, until - MARKER_BYTES):
            if self._is_block(marker):
                self._at += MARKER_BYTES
                return True
            self._at += 1
        return False

    def _is_block(self, marker: bytes) -> bool:
        """Returns whether a block that is not empty stands behind the marker that stands here."""
        try:
            size, _, _ = self._framed(MARKER_BYTES, marker)
        except (EOFError, ValueError):
            return False
        return size > 0

    def _find(self, marker: bytes, until: int) -> bool:
        """Moves to the next marker that begins before `until`; returns whether there is one."""
        while self.offset < until and self._has(MARKER_BYTES):
            found = self._held.find(marker, self._at)
            if found >= 0:
                self._at = found
                return self.offset < until
            self._at = len(self._held) - MARKER_BYTES + 1
        return False

    def _framed(self, skip: int, marker: bytes) -> tuple[int, int, int]:
        """Returns how many records the block has that stands some bytes from here, and where these are.

        Raises:
            EOFError: if the file ends inside of it.
            ValueError: if there is none.
        """
        self._has(skip + _NUMBERS_BYTES)
        records, behind = _signed_at(self._held, self._at + skip)
        size, behind = _signed_at(self._held, behind)
        if records < 0 or not 0 <= size <= BLOCK_BYTES:
            raise ValueError
        start = behind - self._at
        end = start + size
        if not self._has(end + MARKER_BYTES):
            raise EOFError
        if not self._held.startswith(marker, self._at + end):
            raise ValueError
        return records, start, end

    def _metadata(self) -> Iterator[tuple[str, bytes]]:
        while (count := self._number()) != 0:
            if count < 0:
                count = -count
                self._number()  # how many bytes follow
            for _ in range(count):
                yield self._take(_sized(self._number())).decode(), self._take(_sized(self._number()))

    def _take(self, size: int) -> bytes:
        if not self._has(size):
            raise EOFError
        taken = self._held[self._at : self._at + size]
        self._at += size
        return taken

    def _number(self) -> int:
        self._has(_NUMBERS_BYTES)
        value, self._at = _signed_at(self._held, self._at)
        return value

    def _has(self, size: int) -> bool:
        """Returns whether so many bytes follow, and holds them."""
        if len(self._held) - self._at >= size:
            return True
        pieces = [self._held[self._at :]]
        length = len(pieces[0])
        while length < size and (chunk := next(self._chunks, None)) is not None:
            pieces.append(chunk)
            length += len(chunk)
        self._held_from += self._at
        self._held, self._at = b"".join(pieces), 0
        return length >= size


def _signed_at(data: bytes, at: int) -> tuple[int, int]:
    """Returns a number whose sign is in its last bit, and the place behind it; as `unsigned_at`."""
    value, behind = unsigned_at(data, at)
    return (value >> 1) ^ -(value & 1), behind


def _sized(size: int) -> int:
    if not 0 <= size <= _HEADER_BYTES:
        raise ValueError
    return size
