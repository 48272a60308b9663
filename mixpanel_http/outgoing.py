"""One request's worth of records before it is sent: its parts, and where many are cut into several."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One request's worth of records.

    Attributes:
        body: NDJSON.
        count: records in it.
        first: index of its first record in the request that it was cut from.
        compressed: the same, packed as its endpoint wants it; nothing if that is still to be done.
        repeatable: whether it may be sent again where it may have got through.
    """

    body: bytes
    count: int
    first: int = 0
    compressed: bytes = b""
    repeatable: bool = True

    def part(self, start: int, end: int) -> Outgoing:
        r"""Returns the records from one index to another as a request.

        >>> Outgoing(b"1\n2\n3", 3).part(1, 3)
        Outgoing(body=b'2\n3', count=2, first=1, compressed=b'', repeatable=True)
        """
        if end - start == self.count:
            return self
        return self._cut(self.body.split(b"\n"), start, end)

    def pieces(self, number: int) -> Iterator[Outgoing]:
        """Yields the records in so many requests of nearly the same number; the first ones have more."""
        lines = self.body.split(b"\n")
        number = min(number, self.count)
        start = 0
        for i in range(number):
            end = start + -(-(self.count - start) // (number - i))
            yield self._cut(lines, start, end)
            start = end

    def _cut(self, lines: Sequence[bytes], start: int, end: int) -> Outgoing:
        body = b"\n".join(lines[start:end])
        return Outgoing(body, end - start, self.first + start, repeatable=self.repeatable)


def request_bounds(lines: Sequence[bytes], most: int, most_bytes: int) -> Iterator[tuple[int, int]]:
    """Yields where requests within both limits begin and end; a record of any size has a request.

    >>> list(request_bounds([b"12345", b"1", b"2", b"3"], 2, 4))
    [(0, 1), (1, 3), (3, 4)]

    Args:
        lines: the records, at least one.
        most: records in a request.
        most_bytes: uncompressed bytes in a request.
    """
    first = size = 0
    for index, line in enumerate(lines):
        if index > first and (index - first >= most or size + len(line) > most_bytes):
            yield first, index
            first, size = index, 0
        size += len(line) + 1
    yield first, len(lines)
