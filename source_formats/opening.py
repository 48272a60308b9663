"""Chooses how a file is read: by what the run says its files hold, or by what this one's content says."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

from source_formats.detection import Format, check_fits, detect_format, unsupported
from source_formats.json_records import read_json
from source_formats.lines import Lines

StreamReader = Callable[[Iterable[bytes]], Iterator[Lines]]


@dataclass(frozen=True, slots=True)
class FormatChoice:
    """What a run says of its files' format.

    Attributes:
        name: the format, or `auto` to tell each file's by its content.
    """

    name: Format | Literal["auto"] = "auto"

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

    def stream_reader(self, format: Format) -> StreamReader | None:
        """Returns what reads a format from a stream of bytes; None where its lines are the records already.

        Raises:
            FormatProblem: if there is nothing that does.
        """
        if format == "ndjson":
            return None
        reader = _STREAM_READERS.get(format)
        if reader is None:
            raise unsupported(format, "write it as NDJSON")
        return reader


_STREAM_READERS: Final[dict[str, StreamReader]] = {"json": read_json}
