"""Sorts more rows than fit into memory: sorted runs in files of this process, merged as they are read.

Rows that are alike keep the order in which they came. No Beam here.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from typing import BinaryIO, Final, NamedTuple

import msgspec

RUN_BYTES: Final = 16 << 20  # of lines that are sorted in memory at once; the rows take four times as much
RUN_ROWS: Final = 100_000
MERGED: Final = 64  # runs at once, each with a page in memory and an open file; more are merged in turns
_PAGE_ROWS: Final = 512
_PAGE_BYTES: Final = 256 << 10
_LENGTH: Final = 4


class Row(NamedTuple):
    """A line to be sorted, and what is known of it. Rows differ in their number, so nothing behind it counts.

    Attributes:
        moment: what it is sorted by.
        number: its place in the input.
        file: the number of its file.
        uri: where it came from: the file, or of a replayed record that of the first run.
        line: its number in the file, or None.
        offset: where it starts in the (decompressed) file, or None.
        raw: the line without newline.
        refused: why it is refused (reason, message, field, whether the line is in base64), or None.
        torn: whether damage cut it short.
        oversize: length and digest of a line that was too long to hold; `raw` is its beginning.
        wanted: which of the records that a map makes of it is wanted, or None for all.
    """

    moment: int
    number: int
    file: int
    uri: str
    line: int | None
    offset: int | None
    raw: bytes
    refused: tuple[str, str, str | None, bool] | None = None
    torn: bool = False
    oversize: tuple[int, str] | None = None
    wanted: int | None = None


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(list[Row]).decode


def merge_sorted(
    rows: Iterable[Row], folder: str | None = None, run_bytes: int = RUN_BYTES, run_rows: int = RUN_ROWS
) -> Iterator[Row]:
    """Yields rows by their moments, and those of one moment in the order of their numbers.

    Args:
        rows: in the order of their numbers.
        folder: where files are made that go with this process; None is the system's temporary folder.
        run_bytes: bytes of lines that are in memory at once, about.
        run_rows: rows that are.
    """
    levels: list[list[BinaryIO]] = [[]]
    try:
        for run in _runs(rows, run_bytes, run_rows):
            levels[0].append(_written(run, folder))
            del run  # else it is held for as long as the next one is made
            _merge_full(levels, folder)
        yield from _merged(itertools.chain.from_iterable(levels))
    finally:
        for file in itertools.chain.from_iterable(levels):
            file.close()


def _merge_full(levels: list[list[BinaryIO]], folder: str | None) -> None:
    """Makes one run of as many as are merged at once: each row is written once more for each level."""
    for level, runs in enumerate(levels):
        if len(runs) < MERGED:
            return
        if level + 1 == len(levels):
            levels.append([])
        levels[level + 1].append(_written(_merged(runs), folder))
        levels[level] = []


def _runs(rows: Iterable[Row], run_bytes: int, run_rows: int) -> Iterator[Sequence[Row]]:
    """Yields sorted runs of what can be held in memory."""
    held: list[Row] = []
    size = 0
    for row in rows:
        held.append(row)
        size += len(row.raw)
        if size >= run_bytes or len(held) >= run_rows:
            held.sort()
            yield held
            held, size = [], 0
    if held:
        held.sort()
        yield held


def _written(rows: Iterable[Row], folder: str | None) -> BinaryIO:
    """Returns a file without a name that holds rows, from its beginning."""
    descriptor, path = tempfile.mkstemp(prefix="sorting-", dir=folder)
    os.unlink(path)
    file = open(descriptor, "w+b")  # noqa: SIM115 - read, and closed by that, later
    try:
        for page in _pages(rows):
            content = _encode(page)
            file.write(len(content).to_bytes(_LENGTH, "big") + content)
        file.seek(0)
    except BaseException:
        with contextlib.suppress(OSError):  # what could not be written
            file.close()
        raise
    return file


def _pages(rows: Iterable[Row]) -> Iterator[list[Row]]:
    source = iter(rows)
    while page := list(itertools.islice(source, 1)):
        size = len(page[0].raw)
        while len(page) < _PAGE_ROWS and size < _PAGE_BYTES and (row := next(source, None)) is not None:
            page.append(row)
            size += len(row.raw)
        yield page


def _merged(runs: Iterable[BinaryIO]) -> Iterator[Row]:
    return heapq.merge(*map(_read, runs))


def _read(file: BinaryIO) -> Iterator[Row]:
    with file:
        while length := file.read(_LENGTH):
            yield from _decode(file.read(int.from_bytes(length, "big")))
