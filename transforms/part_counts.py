"""What became of the records of each of a segment's parts: of one part, or of thousands, in columns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import numpy.typing as npt

OUTCOMES: Final = ("imported", "dead_lettered", "filtered", "undelivered", "ambiguous", "not_attempted")
NAMES: Final = ("read", "expanded", *OUTCOMES)
LEFT: Final = ("undelivered", "ambiguous", "not_attempted")  # outcomes that sending again may change
Column = npt.NDArray[np.int64]
_NONE: Final[Column] = np.zeros(0, np.int64)


@dataclass(slots=True)
class Counts:
    """Records read, those that a map made beyond one of each, and the one outcome that each of them has."""

    read: int = 0
    expanded: int = 0
    imported: int = 0
    dead_lettered: int = 0
    filtered: int = 0
    undelivered: int = 0
    ambiguous: int = 0
    not_attempted: int = 0

    def add(self, other: Counts) -> None:
        """Adds another's numbers."""
        self.read += other.read
        self.expanded += other.expanded
        self.imported += other.imported
        self.dead_lettered += other.dead_lettered
        self.filtered += other.filtered
        self.undelivered += other.undelivered
        self.ambiguous += other.ambiguous
        self.not_attempted += other.not_attempted

    @property
    def balanced(self) -> bool:
        """True if every record has exactly one outcome: those that were read, and those that came of them."""
        outcomes: int = sum(getattr(self, name) for name in OUTCOMES)
        return self.read + self.expanded == outcomes

    @property
    def settled(self) -> bool:
        """True if sending again would change nothing: all is imported or refused for a reason of its own."""
        return not (self.undelivered or self.ambiguous or self.not_attempted)

    def to_json(self) -> dict[str, int]:
        """Returns the numbers that are not zero."""
        return {name: n for name in NAMES if (n := getattr(self, name))}


class PartCounts:
    """Counts by part: their sums, and for several parts, side by side, a column of each that is not zero.

    Most blocks are of one part, whose counts are the sums: arrays of one number cost many times as much.
    """

    __slots__ = ("_columns", "_first", "_size", "_sums")
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, counts: Mapping[int, Counts] = MappingProxyType({})) -> None:
        """Starts with the counts of some parts, by their index."""
        self._first = self._size = 0
        self._sums: dict[str, int] = {}
        self._columns: dict[str, Column] = {}
        for part, each in counts.items():
            for name, count in each.to_json().items():
                self.add(part, name, count)

    def add(self, part: int, name: str, count: int = 1) -> None:
        """Adds to one count of one part."""
        self._cover(part, part + 1)
        self._add_sum(name, count)
        if self._size > 1:
            self._column(name)[part - self._first] += count

    def add_each(self, name: str, parts: Column, counts: Column | None = None) -> None:
        """Adds to one count of several parts: one each time that a part is named, or as many as is said."""
        if not len(parts):
            return
        low, high = int(parts.min()), int(parts.max()) + 1
        self._cover(low, high)
        self._add_sum(name, len(parts) if counts is None else int(counts.sum()))
        if self._size > 1:
            found = np.zeros(high - low, np.int64)
            np.add.at(found, parts - low, 1 if counts is None else counts)
            self._column(name)[low - self._first : high - self._first] += found

    @classmethod
    def sum(cls, several: Iterable[PartCounts]) -> PartCounts:
        """Returns the sum of counts of the same parts."""
        found = cls()
        for each in several:
            found.add_all(each)
        return found

    def add_all(self, other: PartCounts) -> None:
        """Adds the counts of the same parts."""
        if not other._size:
            return
        if (self._first, self._size) != (other._first, other._size):
            self._cover(other._first, other._first + other._size)
        sums = self._sums
        for name, count in other._sums.items():
            sums[name] = sums.get(name, 0) + count
        if self._size > 1:
            start = other._first - self._first
            for name, column in other._by_name().items():
                self._column(name)[start : start + other._size] += column

    @property
    def settled(self) -> bool:
        """True if sending again would change nothing."""
        return not any(map(self._sums.get, LEFT))

    @property
    def total(self) -> Counts:
        """The counts over all parts."""
        return Counts(**self._sums)

    @property
    def end(self) -> int:
        """The index behind the last part that is counted, or 0."""
        return self._first + self._size

    def __getitem__(self, part: int) -> Counts:
        """Returns the counts of one part; zeros if there are none."""
        at = part - self._first
        if not 0 <= at < self._size:
            return Counts()
        return Counts(**{name: int(column[at]) for name, column in self._by_name().items()})

    def items(self) -> Iterator[tuple[int, Counts]]:
        """Yields the parts that have a count, with their counts."""
        for at in np.flatnonzero(self._any()).tolist():
            yield self._first + at, self[self._first + at]

    def columns(self, size: int) -> dict[str, list[int]]:
        """Returns the counts of the first `size` parts as lists, without those that are zero everywhere."""
        found: dict[str, list[int]] = {}
        by_name = self._by_name()
        for name in NAMES:
            if name in by_name:
                column = np.zeros(max(size, self._first + self._size), np.int64)
                column[self._first : self._first + self._size] = by_name[name]
                found[name] = column[:size].tolist()
        return found

    def unbalanced(self) -> list[int]:
        """Returns the parts of which not every record has exactly one outcome."""
        open_: Column = np.zeros(self._size, np.int64)
        for name, column in self._by_name().items():
            open_ += -column if name in OUTCOMES else column
        found: list[int] = (np.flatnonzero(open_) + self._first).tolist()
        return found

    def to_json(self) -> dict[str, Any]:
        """Returns the columns as JSON values, from the first part with a count to the last one."""
        if self._size == 1:
            found: dict[str, Any] = {name: [count] for name, count in self._sums.items() if count}
            if found:
                found["first"] = self._first
            return found
        there = np.flatnonzero(self._any())
        if not len(there):
            return {}
        kept = slice(int(there[0]), int(there[-1]) + 1)
        columns = {n: self._columns[n][kept] for n in NAMES if n in self._columns}
        return {"first": self._first + kept.start, **{n: c.tolist() for n, c in columns.items() if c.any()}}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> PartCounts:
        """Returns what `to_json` wrote.

        Raises:
            TypeError, ValueError, KeyError, AttributeError: if it is something else.
        """
        made = cls()
        columns = {name: np.array(column, np.int64) for name, column in values.items() if name != "first"}
        sizes = {column.shape for column in columns.values()}
        if len(sizes) > 1 or not columns.keys() <= set(NAMES):
            raise ValueError(f"no counts by part: {sorted(columns)}")
        if columns:
            (made._size,) = sizes.pop()
            made._first = int(values["first"])
            made._sums = {name: int(column.sum()) for name, column in columns.items()}
            made._columns = columns if made._size > 1 else {}
        return made

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PartCounts) and self.to_json() == other.to_json()

    def __repr__(self) -> str:
        return f"PartCounts({dict(self.items())})"

    def _any(self) -> npt.NDArray[np.bool_]:
        there = np.zeros(self._size, np.bool_)
        for column in self._by_name().values():
            there |= column != 0
        return there

    def _by_name(self) -> dict[str, Column]:
        """Returns the columns, also where there is one part."""
        if self._size != 1:
            return self._columns
        return {name: np.array([count], np.int64) for name, count in self._sums.items()}

    def _add_sum(self, name: str, count: int) -> None:
        if name not in self._sums:
            if name not in NAMES:
                raise KeyError(name)
            self._sums[name] = 0
        self._sums[name] += count

    def _column(self, name: str) -> Column:
        if name not in self._columns:
            self._columns[name] = np.zeros(self._size, np.int64)
        return self._columns[name]

    def _cover(self, low: int, high: int) -> None:
        """Makes room for the parts from `low` to `high`."""
        if not self._size:
            self._first = low
        first, end = min(low, self._first), max(high, self._first + self._size)
        if end - first == self._size:
            return
        around = (self._first - first, end - self._first - self._size)
        self._columns = {name: np.pad(column, around) for name, column in self._by_name().items()}
        self._first, self._size = first, end - first
