"""Sets of a block's lines as bitmaps: a few hundred bytes for two thousand lines."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]


def packed(lines: Indices) -> bytes:
    """Returns a set of lines as a bitmap, no longer than its last line needs.

    >>> packed(np.array([0, 9])).hex()
    '8040'
    """
    if not len(lines):
        return b""
    marks = np.zeros(int(lines.max()) + 1, np.uint8)
    marks[lines] = 1
    return np.packbits(marks).tobytes()


def are_in(bitmap: bytes, lines: Indices) -> npt.NDArray[np.bool_]:
    """Returns for each of some lines whether it is in a set.

    >>> are_in(packed(np.array([0, 9])), np.array([0, 1, 9, 500])).tolist()
    [True, False, True, False]
    """
    marks = np.unpackbits(np.frombuffer(bitmap, np.uint8))
    inside = lines < len(marks)
    found: npt.NDArray[np.bool_] = np.zeros(len(lines), np.bool_)
    found[inside] = marks[lines[inside]] > 0
    return found


def united(one: bytes, other: bytes) -> bytes:
    """Returns the set of all lines that are in one set or the other.

    >>> united(packed(np.array([1])), packed(np.array([8]))).hex()
    '4080'
    """
    size = max(len(one), len(other))
    both = np.frombuffer(one.ljust(size, b"\0"), np.uint8) | np.frombuffer(other.ljust(size, b"\0"), np.uint8)
    return both.tobytes()
