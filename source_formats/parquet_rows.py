"""Reads Parquet by row group, a batch of rows at a time."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from source_formats.arrow_values import column_of, event_column
from source_formats.detection import PARQUET_MAGIC
from source_formats.lines import FormatProblem, Lines
from source_formats.row_lines import PROPERTIES, RowLines, Shape, event_places

COMPRESSED_PARQUET: Final = "Parquet inside of another compression, in which nobody can seek; decompress it"
_BATCH_ROWS: Final = 1000  # whose values stay in the processor's cache
_BATCH_BYTES: Final = 4 << 20
_BUFFERS_BYTES: Final = 32 << 20  # of all columns together; each is read through one of its own
_SMALLEST_BUFFER: Final = 64 << 10
_LARGEST_BUFFER: Final = 1 << 20
_FOOTER_BYTES: Final = 8  # its length, and the magic once more

Read = Callable[[int, int], bytes]


def read_parquet(read: Read, size: int, start: int, end: int, shape: Shape) -> Iterator[Lines]:
    """Yields the rows of the row groups that begin in a stretch of a file; so any cuts yield each row once.

    Args:
        read: returns the file's bytes from one offset to another.
        size: the file's size.
        start: the stretch's first byte.
        end: the byte behind its last.
        shape: what the rows become.

    Raises:
        FormatProblem: if there is no footer, or behind the rows before a row group that is damaged.
    """
    if size < _FOOTER_BYTES or read(size - len(PARQUET_MAGIC), size) != PARQUET_MAGIC:
        raise FormatProblem("truncated", size, "a Parquet file without its footer; none of it can be read")
    source = _RangeFile(read, size)
    try:
        metadata = pq.read_metadata(source)
    except _ERRORS as error:
        raise source.trouble or _damaged(
            size - _FOOTER_BYTES, "its footer", error, "none of it can be"
        ) from None
    groups = [index for index in range(metadata.num_row_groups) if start <= _offset(metadata, index) < end]
    if not groups:
        return
    first = 1 + sum(metadata.row_group(index).num_rows for index in range(groups[0]))
    file = _opened(source, metadata)
    encoder = _Encoder(file.schema_arrow, shape)
    for index in groups:
        try:
            rows = _batch_rows(metadata, index)
            for batch in file.iter_batches(rows, row_groups=[index], use_threads=False):
                yield Lines(encoder.lines(batch), None, (), first)
        except _ERRORS as error:
            place = f"row group {index + 1} of {metadata.num_row_groups}"
            raise source.trouble or _damaged(_offset(metadata, index), place, error) from None


_ERRORS: Final = (pa.ArrowException, OSError, ValueError)


def _damaged(
    offset: int, place: str, error: Exception, read: str = "the rows before it are"
) -> FormatProblem:
    detail = f"{place} is damaged ({type(error).__name__}); {read} read"
    return FormatProblem("corrupt", offset, detail)


class _Encoder:
    """Turns batches of a file's rows into lines."""

    def __init__(self, schema: Any, shape: Shape) -> None:
        self._names: list[str] = list(schema.names)
        is_flat = shape == "events" and event_places(self._names) is not None
        self._of_events = set(self._names) if is_flat else {PROPERTIES} if shape == "events" else set()
        self._rows = RowLines(self._names, shape)

    def lines(self, batch: Any) -> bytes:
        """Returns a batch's rows as lines; what is null is left out of its row."""
        columns = []
        for name, array in zip(self._names, batch.columns, strict=True):
            values = event_column(array, name) if name in self._of_events else column_of(array)
            if array.null_count or None in values:
                values = [msgspec.UNSET if value is None else value for value in values]
            columns.append(values)
        return b"\n".join(self._rows.lines(columns)) + b"\n" if batch.num_rows else b""


class _RangeFile(io.RawIOBase):
    """A file that is read by ranges, for a library that seeks in it; keeps what went wrong with reading."""

    def __init__(self, read: Read, size: int) -> None:
        self.trouble: Exception | None = None
        self._read = read
        self._size = size
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base: int = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = base + offset
        return self._position

    def read(self, size: int = -1) -> bytes:
        end = self._size if size < 0 else min(self._position + size, self._size)
        if end <= self._position:
            return b""
        try:
            data = self._read(self._position, end)
        except Exception as error:
            self.trouble = error
            raise
        self._position = end
        return data


def _opened(source: _RangeFile, metadata: Any) -> Any:
    buffer = min(max(_BUFFERS_BYTES // max(1, metadata.num_columns), _SMALLEST_BUFFER), _LARGEST_BUFFER)
    return pq.ParquetFile(
        source, metadata=metadata, buffer_size=buffer, pre_buffer=False, page_checksum_verification=True
    )


def _offset(metadata: Any, index: int) -> int:
    """Returns where a row group begins."""
    group = metadata.row_group(index)
    if not group.num_columns:
        return 0
    column = group.column(0)
    return int(min(column.dictionary_page_offset or column.data_page_offset, column.data_page_offset))


def _batch_rows(metadata: Any, index: int) -> int:
    group = metadata.row_group(index)
    row_bytes = int(group.total_byte_size) // max(1, int(group.num_rows))
    return max(1, min(_BATCH_ROWS, _BATCH_BYTES // max(1, row_bytes)))
