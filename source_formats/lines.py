"""What every format is read into: lines of NDJSON, with where their records stood in the file."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

UNNUMBERED: Final = 0  # in place of a record's number, where some before it could not be read
SCAN_BYTES: Final = 1 << 20  # looked at together: enough that a pass costs by the byte, not by the call


@dataclass(frozen=True, slots=True)
class RefusedLine:
    """A line that is refused whatever its kind of records asks; most stand for what is no record of its file.

    Attributes:
        index: which line.
        reason: a word for what is wrong with it.
        message: what was expected and what came.
        field: the field that it is about, or None.
        in_base64: whether the line holds what stood in the file in base64; else it is what stood there.
    """

    index: int
    reason: str
    message: str
    field: str | None = None
    in_base64: bool = True


class Lines(NamedTuple):
    """Some of a file's records, one a line.

    Attributes:
        raw: NDJSON. Every line ends with a newline, except that the file's last one has none if it ended with
            the file and not by itself, and that a giant line goes on in what comes next.
        offsets: for each line that begins here the byte of the (decompressed) file where its record starts;
            None where a format cannot tell.
        refused: lines that hold no record, but the bytes of one in base64.
        first: number of the first record in the file, from 1, where it does not follow from what came before;
            UNNUMBERED where nothing tells it, nor that of any behind it.
    """

    raw: bytes
    offsets: Sequence[int] | None = None
    refused: tuple[RefusedLine, ...] = ()
    first: int | None = None


class FormatProblem(Exception):
    """A file that cannot be read, or not to its end, as the format that it is taken for.

    Attributes:
        problem: `truncated`, `corrupt` or `unsupported_format`.
        offset: the byte of the (decompressed) file where that was noticed, or None.
        detail: what was expected, what came, what to do.
    """

    def __init__(self, problem: str, offset: int | None, detail: str) -> None:
        super().__init__(f"{problem}: {detail}" if offset is None else f"{problem} at {offset:,}: {detail}")
        self.problem = problem
        self.offset = offset
        self.detail = detail


def refused_line(raw: bytes) -> bytes:
    r"""Returns the line that stands for bytes that are no record, with its newline.

    >>> refused_line(b'1,"two\nlines"')
    b'MSwidHdvCmxpbmVzIg==\n'
    """
    return base64.b64encode(raw) + b"\n"


def in_scans(chunks: Iterable[bytes], size: int = SCAN_BYTES) -> Iterator[bytes]:
    """Yields a stream's bytes in pieces of `size`, and the last with what is left."""
    held: list[bytes] = []
    length = 0
    for chunk in chunks:
        held.append(chunk)
        length += len(chunk)
        if length >= size:
            whole = b"".join(held)
            yield from (whole[start : start + size] for start in range(0, length - size + 1, size))
            length %= size
            held = [whole[len(whole) - length :]]
    if length:
        yield b"".join(held)
