"""Reads a part of a file as lines, whatever its format."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from typing import Final, Literal

from source_formats.avro_records import read_avro_part
from source_formats.detection import HEAD_BYTES, Format
from source_formats.lines import FormatProblem, Lines
from source_formats.opening import FormatChoice
from source_formats.parquet_rows import COMPRESSED_PARQUET, read_parquet
from transforms.compression import MAGIC_BYTES, DamagedFile, compression_of, without_suffix
from transforms.elements import FilePart
from transforms.file_text import behind_mark, text_of, verify
from transforms.line_blocks import range_chunks, range_ends
from transforms.pinned_files import Changed, PinnedFile, pinned
from transforms.storage import FileSystem, scheme_of, storage_errors

CHUNK_BYTES: Final = 4 << 20  # worth a request to a store
CACHED_BYTES: Final = 1 << 20  # of a local file: what is worked on stays in the processor's cache
Verify = Literal["stream", "full"]
Located = Iterator[tuple[int | None, Lines]]


def read_part(filesystem: FileSystem, part: FilePart, choice: FormatChoice, how: Verify) -> Located:
    """Yields a part's lines, with the offset of those that stand in the file as they are.

    Args:
        filesystem: where the file lies.
        part: what to read.
        choice: what the run says of its files' format.
        how: `full` reads a compressed file through before it yields any of it.

    Raises:
        DamagedFile, FormatProblem, Changed: behind the last line that could be read; and what storage raises.
    """
    with pinned(filesystem, part) as file:
        if part.end is not None and part.format is None:
            yield from _stretch(file, part, part.end)
            return
        if part.end is not None and part.format == "avro":
            yield from _blocks(file, part, part.end, choice)
            return
        if part.format == "parquet":
            yield from _rows(file, part, choice)
            return
        yield from _whole(file, part, choice, how)


def is_small(part: FilePart) -> bool:
    """Returns whether a part is a file that is best read at once."""
    return part.end is None and part.size <= CHUNK_BYTES


def read_small(content: bytes, part: FilePart, choice: FormatChoice, how: Verify) -> Located:
    """Yields the lines of a file that is at hand as it is stored; as `read_part` otherwise."""
    return _whole(_AtHand(content), part, choice, how)


def _whole(file: PinnedFile, part: FilePart, choice: FormatChoice, how: Verify) -> Located:
    stored = partial(_stored, file, part)
    if how == "full" and compression_of(file.read(0, min(MAGIC_BYTES, part.size))):
        verify(stored, part.uri)
    content = Content(text_of(stored, part.uri))
    format = _format_of(content, part, choice)
    yield from _rows(file, part, choice) if format == "parquet" else _lines(content, format, choice)


def _stretch(file: PinnedFile, part: FilePart, end: int) -> Located:
    ranges = _read_ahead(range_chunks(file.read, part.size, part.start, end, _chunk_bytes(part)))
    chunks = behind_mark(ranges) if part.start == 0 else ranges
    return ((offset, Lines(chunk)) for offset, chunk in chunks)


def _blocks(file: PinnedFile, part: FilePart, end: int, choice: FormatChoice) -> Located:
    def bytes_from(start: int, upto: int) -> Iterator[bytes]:
        ranges = range_ends(start, upto, part.size, _chunk_bytes(part))
        chunks = ((low, file.read(low, high)) for low, high in pairwise(ranges))
        return (chunk for _, chunk in (_read_ahead(chunks) if start < upto else chunks))

    for lines in read_avro_part(bytes_from, part.start, end, choice.table.shape):
        yield None, lines


def _rows(file: PinnedFile, part: FilePart, choice: FormatChoice) -> Located:
    if compression_of(file.read(0, min(MAGIC_BYTES, part.size))):
        raise FormatProblem("unsupported_format", 0, COMPRESSED_PARQUET)
    end = part.size if part.end is None else part.end
    for lines in read_parquet(file.read, part.size, part.start, end, choice.table.shape):
        yield None, lines


def _format_of(content: Content, part: FilePart, choice: FormatChoice) -> Format:
    """Returns what a whole file holds; if it could not even be looked at, that is the trouble to tell."""
    try:
        return choice.format_of(content.head(HEAD_BYTES), without_suffix(part.uri))
    except FormatProblem as problem:
        raise content.trouble or problem from None


def _lines(content: Content, format: Format, choice: FormatChoice) -> Located:
    """Yields a whole file's lines; what went wrong with it is told behind them."""
    try:
        reader = choice.stream_reader(format)
        if reader is None:
            yield from ((offset, Lines(chunk)) for offset, chunk in content)
        else:
            yield from ((None, lines) for lines in reader(_from_the_first_byte(content)))
    except FormatProblem:
        if content.trouble is None:
            raise
    if content.trouble is not None:
        raise content.trouble


def _from_the_first_byte(content: Content) -> Iterator[bytes]:
    """Yields a file's content with its byte order mark, if it had one, which counts in offsets."""
    for index, (offset, chunk) in enumerate(content):
        yield codecs.BOM_UTF8 + chunk if offset and not index else chunk


def _stored(file: PinnedFile, part: FilePart) -> Iterator[bytes]:
    """Yields a whole file as it is stored."""
    size = _chunk_bytes(part)
    if part.size <= size:
        yield file.read(0, part.size)
        return
    chunks = ((at, file.read(at, min(at + size, part.size))) for at in range(0, part.size, size))
    for _, chunk in _read_ahead(chunks):
        yield chunk


def _chunk_bytes(part: FilePart) -> int:
    """Returns how much of a file is read at once."""
    return min(CHUNK_BYTES, CACHED_BYTES) if scheme_of(part.uri) == "file" else CHUNK_BYTES


def _read_ahead(chunks: Iterator[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
    """Yields chunks while the next one is being fetched."""
    with ThreadPoolExecutor(1, "read-ahead") as pool:
        coming = pool.submit(next, chunks, None)
        while (chunk := coming.result()) is not None:
            coming = pool.submit(next, chunks, None)
            yield chunk


class _AtHand:
    """A file of which every byte has been read."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def read(self, start: int, end: int) -> bytes:
        return self._content[start:end]


class Content:
    """A whole file's content, as (offset, bytes).

    What goes wrong ends it quietly and is kept as `trouble`: who holds something back from what came before
    can give it out first.
    """

    def __init__(self, chunks: Iterable[tuple[int, bytes]]) -> None:
        self.trouble: BaseException | None = None
        self._chunks = self._until_trouble(chunks)
        self._seen: list[tuple[int, bytes]] = []

    def head(self, size: int) -> bytes:
        """Returns the first bytes: `size` of them, or all that there are."""
        length = sum(len(chunk) for _, chunk in self._seen)
        while length < size and (chunk := next(self._chunks, None)) is not None:
            self._seen.append(chunk)
            length += len(chunk[1])
        return b"".join(chunk for _, chunk in self._seen)[:size]

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        """Yields everything, once."""
        while self._seen:
            yield self._seen.pop(0)
        yield from self._chunks

    def _until_trouble(self, chunks: Iterable[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
        try:
            yield from chunks
        except (DamagedFile, Changed) as error:
            self.trouble = error
        except storage_errors() as error:
            self.trouble = error
