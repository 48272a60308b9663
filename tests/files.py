"""Input files for tests of reading: written in any compression, and planned as segments."""

import bz2
import gzip
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import zstandard

from transforms.dead_letters import LinePlaces
from transforms.elements import Block, FilePart, Segment, block_lines
from transforms.segment_reader import BlockLimits, SegmentReader
from transforms.storage import FileSystem, Storage, path_of, version_of

COMPRESS: Final[dict[str, Callable[[bytes], bytes]]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".zst": zstandard.ZstdCompressor(write_checksum=True).compress,
}
ROOMY: Final = BlockLimits(2000, 9_800_000)
Line = tuple[str, int | None, Any, bytes]
"""A line with its file, its number and its offset."""


def local(uri: str) -> FileSystem:
    """Returns the file system of a local file, as a run opens it."""
    return Storage().open(uri)


def parts_of(path: Path, cuts: Sequence[int] = ()) -> tuple[FilePart, ...]:
    """Returns a file as a plan pins it down, cut at offsets into parts; without any it is one whole."""
    info = local(str(path)).info(path_of(str(path)))
    size, version = info["size"], version_of(info)
    if not cuts:
        return (FilePart(str(path), size, version),)
    edges = [0, *sorted(cuts), size]
    return tuple(FilePart(str(path), size, version, a, b) for a, b in pairwise(edges))


def read_blocks(
    parts: Iterable[FilePart], limits: BlockLimits = ROOMY, done: Sequence[int] = ()
) -> list[Block]:
    """Returns the blocks of one segment with these parts."""
    return list(SegmentReader(local, limits).blocks(Segment("segment", tuple(parts)), "attempt", done))


def lines_with_places(blocks: list[Block]) -> list[Line]:
    """Returns the lines of blocks, each with its place."""
    found = []
    for block in blocks:
        lines = block_lines(block)
        places = LinePlaces(block, lines)
        for index, line in enumerate(lines):
            source = places.sources[index]
            found.append((source.uri, source.line, source.offset, line))
    return found


def expected_lines(path: Path, content: bytes) -> list[Line]:
    """Returns the lines of a file as simply as can be."""
    found: list[Line] = []
    offset = 0
    for number, line in enumerate(content.removesuffix(b"\n").split(b"\n") if content else [], 1):
        found.append((str(path), number, offset, line))
        offset += len(line) + 1
    return found
