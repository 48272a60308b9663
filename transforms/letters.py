"""Dead letters as they travel and are written: JSON objects, one a line."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from mixpanel_http.compiled import extension
from mixpanel_http.record_syntax import BLANK


@dataclass(frozen=True, slots=True)
class LetterLines:
    """Letters, all in one: a million refused records would be a million objects more.

    Attributes:
        lines: a letter a line, each with its newline.
        count: how many.
    """

    lines: bytes = b""
    count: int = 0

    @classmethod
    def of(cls, letters: Sequence[bytes]) -> LetterLines:
        """Returns some letters, each without a newline."""
        return cls(b"".join([letter + b"\n" for letter in letters]), len(letters))

    @classmethod
    def joined(cls, several: Iterable[LetterLines]) -> LetterLines:
        """Returns the letters of several, in their order."""
        some = [letters for letters in several if letters.count]
        if len(some) == 1:
            return some[0]
        return cls(b"".join([letters.lines for letters in some]), sum(map(len, some)))

    def __len__(self) -> int:
        """Returns how many letters there are."""
        return self.count

    def __iter__(self) -> Iterator[bytes]:
        """Yields each letter without its newline."""
        return iter(self.lines.split(b"\n")[:-1])


NO_LETTERS: Final = LetterLines()


Following = tuple[int, int, int]
"""Lines that follow each other: how many, the number of the first and its offset, each -1 if not known."""


def following(lines: int, first_line: int | None, offset: int | None) -> Following:
    """Returns the same of numbers that may not be known.

    >>> following(3, None, 70)
    (3, -1, 70)
    """
    return lines, -1 if first_line is None else first_line, -1 if offset is None else offset


def letters_by_python(
    block: bytes,
    places: list[Following],
    indices: list[int],
    openings: list[bytes],
    closings: list[bytes],
    contents: list[bytes | None],
) -> bytes:
    r"""Returns letters about some lines of a block.

    >>> letters_by_python(b"a\nb\n", [(2, 7, 0)], [1], [b'{"line":'], [b","], [None])
    b'{"line":8,"offset":2,"raw_b64":"Yg=="}\n'

    Args:
        block: whole lines, the last with or without its newline.
        places: where they stand.
        indices: for each letter which line it is about.
        openings: for each what stands before the line's number.
        closings: for each what stands between the line's offset and its content.
        contents: for each the member that holds the record; empty for the line as it is, which has to be
            JSON then, or None for the line in base64.
    """
    lines = block.split(b"\n")
    numbers, offsets = _places(lines, places)
    return b"".join(
        b'%b%b,"offset":%b%b%b}\n'
        % (
            opening,
            numbers[index],
            offsets[index],
            closing,
            content or (as_base64(lines[index]) if content is None else as_record(lines[index])),
        )
        for index, opening, closing, content in zip(indices, openings, closings, contents, strict=True)
    )


def as_record(line: bytes) -> bytes:
    """Returns the member that holds a line which is JSON."""
    return b'"record":%b' % line.strip(BLANK)


def as_base64(line: bytes) -> bytes:
    """Returns the member that holds a line which may be anything."""
    return b'"raw_b64":"%b"' % b64encode(line)


def _places(lines: Sequence[bytes], places: Iterable[Following]) -> tuple[list[bytes], list[bytes]]:
    """Returns each line's number and offset as JSON has them."""
    numbers: list[bytes] = []
    offsets: list[bytes] = []
    for count, first, offset in places:
        sizes = [len(line) + 1 for line in lines[len(offsets) : len(offsets) + count - 1]]
        numbers += _texts(range(first, first + count), first)
        offsets += _texts(accumulate(sizes, initial=offset), offset)
    return numbers, offsets


def _texts(numbers: Iterable[int], first: int) -> list[bytes]:
    return [b"null" if first < 0 else b"%d" % number for number in numbers]


def no_idea(lines: Sequence[bytes]) -> list[bool]:
    """Returns of no line that it is JSON: there is nothing here that tells it at a glance."""
    return [False] * len(lines)


are_json: Final = no_idea if extension is None else extension.are_json
letters_of: Final = letters_by_python if extension is None else extension.letters
