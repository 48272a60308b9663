"""How many of the stored input's bytes are done while segments are under way: nobody counts these."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from transforms.compression import SUFFIXES
from transforms.elements import Segment
from transforms.tally import Counts, Tally

# What is compressed inside, so that its records take on the wire about what they take there.
_PACKED: Final = (*SUFFIXES, ".parquet", ".avro")


@dataclass(slots=True)
class UnderWay:
    """What has become of a segment so far.

    Attributes:
        counts: its records.
        raw: uncompressed bytes sent, each once.
        wire: what they took on the wire.
    """

    counts: Counts = field(default_factory=Counts)
    raw: int = 0
    wire: int = 0

    @classmethod
    def of(cls, tally: Tally) -> UnderWay:
        """Returns what has become of a segment by the sum over its blocks."""
        found = cls()
        found.add(tally)
        return found

    def add(self, tally: Tally) -> None:
        """Adds what became of some of its blocks."""
        once = tally.bytes_raw - tally.re_sent_bytes
        self.counts.add(tally.total)
        self.raw += once
        self.wire += round(tally.bytes_sent * once / tally.bytes_raw) if tally.bytes_raw else tally.bytes_sent


@dataclass(slots=True)
class Measure:
    """What a record takes in the stored input: learnt from the segments that are done.

    Attributes:
        plain: whether the input is text as it is; that tells until the first segment is done.
    """

    plain: bool = False
    _bytes: int = 0
    _records: int = 0

    def learn(self, size: int, counts: Counts) -> None:
        """Takes a segment that is done."""
        self._bytes += size
        self._records += counts.read

    def done(self, size: int, segment: UnderWay) -> int:
        """Returns how many of a segment's stored bytes are done, nearly.

        >>> measure = Measure()
        >>> measure.learn(1000, Counts(read=10))
        >>> measure.done(1000, UnderWay(Counts(read=4, imported=3, undelivered=1)))
        300
        """
        if self._records:
            return min(size, _settled(segment.counts) * self._bytes // self._records)
        return min(size, segment.raw if self.plain else segment.wire)


def is_plain(segments: Iterable[Segment]) -> bool:
    """Returns whether a run's input is plain text, by the name of its first file."""
    first = next(islice(segments, 1), None)
    return first is not None and not first.parts[0].uri.endswith(_PACKED)


def _settled(counts: Counts) -> int:
    """Returns how many of the records read need not be read again."""
    return max(0, counts.read - counts.undelivered - counts.ambiguous - counts.not_attempted)
