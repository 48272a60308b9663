"""Segments of a run in a file of this process, one read at a time: a plan may name ten million objects."""

from __future__ import annotations

import os
import tempfile
import weakref
from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, overload

import msgspec

from transforms.elements import Segment

_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(Segment).decode


class SegmentFile(Sequence[Segment]):
    """Segments on disk, which look like a tuple of them. Safe to share between threads."""

    def __init__(self, lines: Iterable[bytes]) -> None:
        """Takes segments as lines of a manifest; each is held only until it is written."""
        descriptor, path = tempfile.mkstemp(prefix="segments-")
        os.unlink(path)
        self._descriptor = descriptor
        self._ends = array("Q", [0])
        weakref.finalize(self, os.close, descriptor)
        with open(descriptor, "wb", closefd=False) as file:
            for line in lines:
                self._ends.append(self._ends[-1] + file.write(line))

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> Segment: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Segment, ...]: ...

    def __getitem__(self, index: int | slice) -> Segment | tuple[Segment, ...]:
        if isinstance(index, slice):
            return tuple(self[i] for i in range(*index.indices(len(self))))
        return _decode(self._line(range(len(self))[index]))

    def __iter__(self) -> Iterator[Segment]:
        return map(_decode, self.lines())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or len(self) != len(other):
            return False
        return all(mine == theirs for mine, theirs in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def lines(self) -> Iterator[bytes]:
        """Yields the segments as lines of a manifest."""
        return (self._line(index) for index in range(len(self)))

    def _line(self, index: int) -> bytes:
        start, end = self._ends[index], self._ends[index + 1]
        return os.pread(self._descriptor, end - start, start)


def line_of(segment: Segment) -> bytes:
    """Returns a segment as a line of a manifest."""
    return _encode(segment) + b"\n"
