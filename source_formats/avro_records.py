"""Reads Avro container files, block by block, as a whole or a stretch of one: each record a line."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from source_formats.avro_blocks import MARKER_BYTES, AvroFile, Block, Header
from source_formats.avro_decoding import Decoder
from source_formats.lines import UNNUMBERED, FormatProblem, Lines
from source_formats.row_lines import Shape

BytesFrom = Callable[[int, int], Iterable[bytes]]


def read_avro(shape: Shape, chunks: Iterable[bytes]) -> Iterator[Lines]:
    """Yields the records of an Avro file as lines.

    Raises:
        FormatProblem: behind the last record that can be read, if the file is damaged.
    """
    file = AvroFile(chunks)
    header = file.header()
    decoder = Decoder(header, shape)
    while not file.at_end():
        yield from decoder.lines(file.block(header.marker))


def read_avro_part(bytes_from: BytesFrom, start: int, end: int, shape: Shape) -> Iterator[Lines]:
    """Yields the records of the blocks that begin in a stretch of a file; so any cuts yield each record once.

    What is damaged is passed over, up to the next block that is whole.

    Args:
        bytes_from: yields the file's bytes from an offset on, to its end; they are wanted up to another one.
        start: the stretch's first byte.
        end: the byte behind its last.
        shape: what the records become.

    Raises:
        FormatProblem: behind the last record that can be read, if there is damage; it tells the first place.
    """
    header = AvroFile(bytes_from(0, 0)).header()
    if end <= header.size:
        return
    decoder = Decoder(header, shape)
    damage: list[FormatProblem] = []
    for block in _blocks_of_part(header, bytes_from, start, end, damage.append):
        try:
            for lines in decoder.lines(block):
                offsets = (block.offset,) * lines.raw.count(b"\n")
                yield lines._replace(offsets=offsets, first=UNNUMBERED if damage else None)
        except FormatProblem as problem:
            damage.append(problem)
    if damage:
        raise _together(damage)


def _blocks_of_part(
    header: Header, bytes_from: BytesFrom, start: int, end: int, note: Callable[[FormatProblem], None]
) -> Iterator[Block]:
    """Yields the blocks that begin in a stretch, and notes what stands where one should.

    A block that is damaged is noted by who reads the one before it, also if it begins behind the stretch: who
    begins there looks for a block that is whole, and does not know of another one.
    """
    is_first = start <= header.size
    begin = header.size if is_first else start - MARKER_BYTES
    file = AvroFile(bytes_from(begin, end), begin)
    if not is_first and not file.find_block(header.marker, end):
        return
    while not file.at_end():
        try:
            block = file.block(header.marker)
        except FormatProblem as problem:
            note(problem)
            if not file.find_block(header.marker, end):
                return
            continue
        if block.offset >= end:
            return
        yield block


def _together(damage: Sequence[FormatProblem]) -> FormatProblem:
    """Returns what is wrong with a stretch of a file whose other blocks are read."""
    first = damage[0]
    if first.problem == "truncated":
        return first
    places = f"blocks of records are damaged in {len(damage):,} places, of which this is the first"
    told = "a block of records is damaged" if len(damage) == 1 else places
    return FormatProblem(first.problem, first.offset, f"{told}; the blocks before and behind are read")
