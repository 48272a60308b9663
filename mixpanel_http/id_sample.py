"""Estimates from a sample of stamped ids how many rows of a run are identical to another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Final

SAMPLE_SIZE: Final = 65_536


@dataclass(slots=True)
class IdSample:
    """A sample of stamped ids that tells how many rows were identical to another.

    Keeps every id whose first `level` bits are zero and raises the level when it grows over `size`. Two rows
    with one id are both in it or both not, so that the count within the sample, times 2**level, estimates the
    count of all. Samples of parts add up to the sample of the whole.

    Attributes:
        size: distinct ids that are kept, at most, once not all are.
        whole: up to so many distinct ids all are kept, and the count is exact; at least `size`.
        level: leading bits that are zero in what is kept.
        counts: id → rows with it.
        digits: of an id that are kept.
    """

    size: int = SAMPLE_SIZE
    whole: int = 0
    level: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    digits: int = 32

    def add(self, ids: Collection[str]) -> None:
        """Takes ids of 32 hex digits, of which it keeps the first `digits`."""
        if not ids:
            return
        bound, digits = self._bound(), self.digits
        # Nearly all fall out here: this is done for each id that is stamped.
        self.counts.update([i[:digits] for i in ids if i < bound])
        self._shrink()

    def merge(self, level: int, counts: Mapping[str, int]) -> None:
        """Takes another sample's level and counts."""
        if level > self.level:
            self.level = level
            self._drop_above_bound()
        bound = self._bound()
        for sampled, count in counts.items():
            if sampled < bound:
                self.counts[sampled] += count
        self._shrink()

    def identical_rows(self) -> int:
        """Returns the estimated number of rows whose id another row had before them."""
        return (self.counts.total() - len(self.counts)) << self.level

    @property
    def exact(self) -> bool:
        """True while every id is in the sample."""
        return self.level == 0

    def _bound(self) -> str:
        return f"{1 << (128 - self.level):032x}" if self.level else "g"

    def _shrink(self) -> None:
        if len(self.counts) <= (self.size if self.level else max(self.size, self.whole)):
            return
        while len(self.counts) > self.size:
            self.level += 1
            self._drop_above_bound()

    def _drop_above_bound(self) -> None:
        bound = self._bound()
        self.counts = Counter({i: n for i, n in self.counts.items() if i < bound})
