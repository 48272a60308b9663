"""Reads Avro container files, block by block, as a whole or a stretch of one: each record a line."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

from source_formats.avro_blocks import MARKER_BYTES, AvroFile, Block, Header
from source_formats.avro_decoding import Decoder
from source_formats.lines import UNNUMBERED, FormatProblem, Lines
from source_formats.row_lines import Shape

BytesFrom = Callable[[int, int], Iterable[bytes]]


def read_avro(shape: Shape, chunks: Iterable[bytes]) -> Iterator[Lines]:
    """Yields the records of an Avro file as lines, with the byte at which their block begins.

    What is damaged is passed over, up to the next block that is whole.

    Raises:
        FormatProblem: behind the last record that can be read, if there is damage; it tells the first place.
    """
    file = AvroFile(chunks)
    header = file.header()
    yield from _around_damage(header, shape, partial(_blocks, file, header, sys.maxsize))


def read_numbered_avro(shape: Shape, chunks: Iterable[bytes]) -> Iterator[Lines]:
    """Yields the records of an Avro file as lines, as long as their numbers in the file are certain.

    Raises:
        FormatProblem: behind the last record before the first damage.
    """
    file = AvroFile(chunks)
    header = file.header()
    decoder = Decoder(header, shape)
    while not file.at_end():
        yield from decoder.lines(file.block(header.marker))


def read_avro_part(bytes_from: BytesFrom, start: int, end: int, shape: Shape) -> Iterator[Lines]:
    """Yields the records of the blocks that begin in a stretch of a file; so any cuts yield each record once.

    A block that is damaged is told by who reads the one before it, also if it begins behind the stretch: who
    begins there looks for a block that is whole, and does not know of another one.

    Args:
        bytes_from: yields the file's bytes from an offset on, to its end; they are wanted up to another one.
        start: the stretch's first byte.
        end: the byte behind its last.
        shape: what the records become.

    Raises:
        FormatProblem: as `read_avro`.
    """
    header = AvroFile(bytes_from(0, 0)).header()
    if end <= header.size:
        return
    is_first = start <= header.size
    begin = header.size if is_first else start - MARKER_BYTES
    file = AvroFile(bytes_from(begin, end), begin)
    if is_first or file.find_block(header.marker, end):
        yield from _around_damage(header, shape, partial(_blocks, file, header, end))


def _blocks(
    file: AvroFile, header: Header, end: int, note: Callable[[FormatProblem], None]
) -> Iterator[Block]:
    """Yields the blocks that begin before an offset, and notes what stands where one should."""
    while not file.at_end():
        try:
            block = file.block(header.marker)
        except FormatProblem as problem:
            note(problem)
            if not (header.is_telling and file.find_block(header.marker, end)):
                return
            continue
        if block.offset >= end:
            return
        yield block


def _around_damage(
    header: Header, shape: Shape, blocks: Callable[[Callable[[FormatProblem], None]], Iterable[Block]]
) -> Iterator[Lines]:
    """Yields the records of those blocks that can be read, and raises what is wrong with the others."""
    decoder = Decoder(header, shape)
    damage: list[FormatProblem] = []
    for block in blocks(damage.append):
        try:
            for lines in decoder.lines(block):
                offsets = (block.offset,) * lines.raw.count(b"\n")
                yield lines._replace(offsets=offsets, first=UNNUMBERED if damage else None)
        except FormatProblem as problem:
            damage.append(problem)
    if damage:
        raise _together(damage)


def _together(damage: Sequence[FormatProblem]) -> FormatProblem:
    """Returns what is wrong with a file, or a stretch of it, whose other blocks are read."""
    first = damage[0]
    if first.problem == "truncated":
        return first
    places = f"blocks of records are damaged in {len(damage):,} places, of which this is the first"
    told = "a block of records is damaged" if len(damage) == 1 else places
    return FormatProblem(first.problem, first.offset, f"{told}; the blocks before and behind are read")
