"""Chooses how a file is read: by what the run says its files hold, or by what this one's content says."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

from source_formats.avro_blocks import can_be_cut
from source_formats.avro_records import read_avro, read_numbered_avro
from source_formats.delimited import read_delimited
from source_formats.detection import Format, check_fits, detect_format, unsupported
from source_formats.json_records import read_json
from source_formats.lines import Lines
from source_formats.table_rows import TableLayout

StreamReader = Callable[[Iterable[bytes]], Iterator[Lines]]


@dataclass(frozen=True, slots=True)
class FormatChoice:
    """What a run says of its files' format.

    Attributes:
        name: the format, or `auto` to tell each file's by its content.
        table: how CSV and TSV are laid out, and what rows of any format become.
        needs_numbers: whether a record is known by its number in the file, where a format has no offsets.
    """

    name: Format | Literal["auto"] = "auto"
    table: TableLayout = field(default_factory=TableLayout)
    needs_numbers: bool = False

    @property
    def takes_lines(self) -> bool:
        """Whether a file of lines may be read as such."""
        return self.name in ("auto", "ndjson")

    def format_of(self, head: bytes, name: str) -> Format:
        """Returns what a file is to be read as.

        Args:
            head: its first bytes, decompressed, up to HEAD_BYTES.
            name: its name, without the suffix of a compression.

        Raises:
            FormatProblem: if it plainly holds something else, or what cannot be read.
        """
        if self.name == "auto":
            return detect_format(head, name)
        if self.name != "ndjson":
            check_fits(self.name, head)
        return self.name

    def can_be_cut(self, format: Format, head: bytes) -> bool:
        """Returns whether a stretch of a file can be read by itself.

        Args:
            format: what the file holds.
            head: its first bytes.
        """
        if format == "avro":
            return not self.needs_numbers and can_be_cut(head)
        return format in ("ndjson", "parquet")

    def stream_reader(self, format: Format) -> StreamReader | None:
        """Returns what reads a format from a stream of bytes; None where its lines are the records already.

        Raises:
            FormatProblem: if there is nothing that does.
        """
        if format == "ndjson":
            return None
        if format == "json":
            return read_json
        if format == "csv":
            return partial(read_delimited, self.table)
        if format == "tsv":
            return partial(read_delimited, replace(self.table, delimiter=self.table.delimiter or "\t"))
        if format == "avro":
            return partial(read_numbered_avro if self.needs_numbers else read_avro, self.table.shape)
        raise unsupported(format, "write it as NDJSON")
