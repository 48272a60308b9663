"""Cuts streams of bytes into blocks of whole lines, and files into ranges; every line is read once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

GIANT_LINE_BYTES: Final = 8 << 20  # eight times what Mixpanel takes: beyond this a line is hashed, not held
GIANT_LINE_HEAD: Final = 4096
_NEWLINE: Final = ord("\n")
_STEP: Final = 1 << 16  # of reading where little is wanted
_FEW_BYTES: Final = 1 << 12  # up to here numpy takes longer to begin than bytes.count to end


@dataclass(frozen=True, slots=True)
class GiantLine:
    """A line too long to be held: its first bytes, its length without newline, and the hash of all of it."""

    head: bytes
    length: int
    sha256: str
    ended: bool

    @property
    def stream_bytes(self) -> int:
        """Bytes that the line took in its stream."""
        return self.length + self.ended


def cut_blocks(chunks: Iterable[bytes], max_lines: int, max_bytes: int) -> Iterator[bytes | GiantLine]:
    """Yields a stream's bytes again, in blocks of whole lines.

    A block has as many lines as fit into both limits, at least one; where the chunks begin and end makes no
    difference.

    Args:
        chunks: the stream, cut anywhere.
        max_lines: lines in a block, at most.
        max_bytes: bytes in a block, at most, unless one line alone has more.
    """
    giant_bytes = max(max_bytes, GIANT_LINE_BYTES)
    source = iter(chunks)
    held, start, guess, ended = b"", 0, max_bytes, False
    while True:
        end = _block_end(held, start, max_lines, max_bytes, guess)
        if not end and len(held) - start > max_bytes:
            end = _behind_first_line(held, start, giant_bytes, ended)
            if not end and len(held) - start > giant_bytes:
                giant, held = _skip_giant(held[start:], source)
                start = 0
                yield giant
                continue
        if not end and ended and start < len(held):
            end = _after_line(held, start, max_lines, len(held)) or len(held)
        if end:
            yield held[start:end]
            guess = end - start
            start = end
        elif ended:
            return
        else:
            chunk = next(source, None)
            ended = chunk is None
            held = held[start:] + (chunk or b"")
            start = 0


def _skip_giant(held: bytes, source: Iterator[bytes]) -> tuple[GiantLine, bytes]:
    """Returns the giant line that `held` begins with, and what stands behind it."""
    digest, length, piece = hashlib.sha256(), 0, held
    while True:
        newline = piece.find(b"\n")
        digest.update(piece if newline < 0 else piece[:newline])
        length += len(piece) if newline < 0 else newline
        if newline >= 0:
            break
        piece = next(source, b"")
        if not piece:
            break
    rest = piece[newline + 1 :] if newline >= 0 else b""
    return GiantLine(held[: min(GIANT_LINE_HEAD, length)], length, digest.hexdigest(), newline >= 0), rest


def _block_end(data: bytes, start: int, max_lines: int, max_bytes: int, guess: int) -> int:
    """Returns where the block that starts at `start` ends, or 0 if more data has to be seen first.

    Starts from a guess, the size of the block before, and walks from there: a few searches instead of 2,000.
    """
    end = _after_line(data, start, max_lines, min(start + guess, len(data)))
    if 0 < end <= start + max_bytes:
        return end
    if len(data) - start <= max_bytes:
        return 0
    return data.rfind(b"\n", start, start + max_bytes) + 1


def _behind_first_line(data: bytes, start: int, giant_bytes: int, ended: bool) -> int:
    """Returns the end of a line that fills a block alone, or 0 if it is not whole or a giant."""
    newline = data.find(b"\n", start, start + giant_bytes + 1)
    if newline >= 0:
        return newline + 1
    return len(data) if ended and len(data) - start <= giant_bytes else 0


def _after_line(data: bytes, start: int, lines: int, near: int) -> int:
    """Returns the position behind the `lines`th line from `start`, or 0 if there are fewer.

    Searches from `near`, backwards or forwards.
    """
    missing = lines - count_lines(data, start, near)
    position = near
    while missing > 0:
        position = data.find(b"\n", position) + 1
        if not position:
            return 0
        missing -= 1
    while missing <= 0:
        near = position
        position = data.rfind(b"\n", start, position)
        missing += 1
    return position + 1 if missing == 1 and near else 0


def count_lines(data: bytes, start: int = 0, end: int | None = None) -> int:
    r"""Returns the number of newlines in a stretch of bytes.

    >>> count_lines(b"a\nb\nc"), count_lines(b"a\nb\nc", 2, 3)
    (2, 0)
    """
    size = (len(data) if end is None else end) - start
    if size < _FEW_BYTES:
        return data.count(b"\n", start, end)
    # bytes.count looks for one newline after the other and takes several times as long.
    return int(np.count_nonzero(np.frombuffer(data, np.uint8, size, start) == _NEWLINE))


def range_chunks(
    read: Callable[[int, int], bytes], size: int, start: int, end: int, chunk_bytes: int
) -> Iterator[tuple[int, bytes]]:
    """Yields (offset, bytes) of the lines that begin in a range of a file.

    A line belongs to the range that holds its first byte; so any way to cut a file into ranges reads each
    line once.

    Args:
        read: returns the bytes from one offset to another.
        size: the file's size.
        start: the range's first byte.
        end: the byte behind its last.
        chunk_bytes: how much is read at once.
    """
    first = start if start == 0 else _behind_newline(read, size, start - 1, chunk_bytes)
    if first >= end:
        return
    last = end if end >= size else _behind_newline(read, size, end - 1, chunk_bytes)
    for offset in range(first, last, chunk_bytes):
        yield offset, read(offset, min(offset + chunk_bytes, last))


def _behind_newline(read: Callable[[int, int], bytes], size: int, start: int, chunk_bytes: int) -> int:
    """Returns the offset behind the first newline at or behind `start`, or the file's size."""
    step = min(chunk_bytes, _STEP)
    for offset in range(start, size, step):
        found = read(offset, min(offset + step, size)).find(b"\n")
        if found >= 0:
            return offset + found + 1
    return size


def range_ends(start: int, upto: int, size: int, chunk_bytes: int) -> Iterator[int]:
    """Yields where to begin and end the reads of a file of which most is wanted up to an offset.

    >>> list(range_ends(0, 10 << 20, 11 << 20, 4 << 20))[:4]
    [0, 4194304, 8388608, 10485760]

    Args:
        start: the first byte.
        upto: from where on only a little is wanted, in reads that are small at first.
        size: the file's size.
        chunk_bytes: how much is read at once.
    """
    yield start
    step = chunk_bytes
    while start < size:
        if start >= upto:
            step = min(chunk_bytes, max(_STEP, start - upto))
        start = min(start + step, upto if start < upto else size)
        yield start
