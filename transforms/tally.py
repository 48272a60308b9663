"""The counts of a block, a segment or a run: what was read and what became of it, by part and in total."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from mixpanel_http.receipts import SUMS, Receipt

OUTCOMES: Final = ("imported", "dead_lettered", "filtered", "undelivered", "ambiguous", "not_attempted")


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
        """Adds another's numbers; written out, as it is done several times for each file of a block."""
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
        return {name: n for name in ("read", "expanded", *OUTCOMES) if (n := getattr(self, name))}


_SUMS: Final = ("lines", *SUMS)
_COUNTERS: Final = ("by_reason", "by_filter", "alterations", "requests", "by_endpoint")


@dataclass(slots=True)
class Tally:
    """Everything that is counted.

    Attributes:
        parts: outcomes by the index of the segment's part.
        lines: lines read, blank ones too.
        by_reason: dead letters by reason.
        by_filter: records left out, by reason.
        alterations: records changed before sending, by the kind of fix.
        requests: requests by status or transport error.
        by_endpoint: records by endpoint and outcome, as `people.imported`, where a run has several.
        retries: requests that repeated another.
        splits: requests that had to be halved.
        bytes_raw: uncompressed bytes sent, as Mixpanel's limit counts them.
        bytes_sent: bytes on the wire.
        re_sent_events: events in requests that repeated another.
        re_sent_bytes: uncompressed bytes in them.
        waited_s: seconds of waiting over all threads: the next three, added up.
        throttled_s: for the pace.
        retry_wait_s: before a retry.
        outage_wait_s: until an outage was over.
        isolations: requests that were cut to find the records at fault.
    """

    parts: dict[int, Counts] = field(default_factory=dict)
    lines: int = 0
    by_reason: Counter[str] = field(default_factory=Counter)
    by_filter: Counter[str] = field(default_factory=Counter)
    alterations: Counter[str] = field(default_factory=Counter)
    requests: Counter[str] = field(default_factory=Counter)
    by_endpoint: Counter[str] = field(default_factory=Counter)
    retries: int = 0
    splits: int = 0
    bytes_raw: int = 0
    bytes_sent: int = 0
    re_sent_events: int = 0
    re_sent_bytes: int = 0
    waited_s: float = 0.0
    throttled_s: float = 0.0
    retry_wait_s: float = 0.0
    outage_wait_s: float = 0.0
    isolations: int = 0

    def part(self, index: int) -> Counts:
        """Returns the counts of one part, to be added to."""
        return self.parts.setdefault(index, Counts())

    @property
    def total(self) -> Counts:
        """Outcomes over all parts."""
        total = Counts()
        for counts in self.parts.values():
            total.add(counts)
        return total

    def charge(self, receipt: Receipt) -> None:
        """Adds what a request cost, not what became of its records."""
        for name in SUMS:
            setattr(self, name, getattr(self, name) + getattr(receipt, name))
        self.requests.update(receipt.requests)

    def add(self, other: Tally) -> None:
        """Adds another tally of the same segment."""
        for index, counts in other.parts.items():
            self.part(index).add(counts)
        self.add_apart_from_parts(other)

    def add_apart_from_parts(self, other: Tally) -> None:
        """Adds another tally's numbers, except those by part: two segments have no part in common."""
        for name in _SUMS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in _COUNTERS:
            getattr(self, name).update(getattr(other, name))

    def to_json(self) -> dict[str, Any]:
        """Returns the tally as JSON values, without what is zero."""
        sums = {name: round(value, 3) for name in _SUMS if (value := getattr(self, name))}
        counters = {name: dict(value) for name in _COUNTERS if (value := getattr(self, name))}
        return {"parts": {str(i): c.to_json() for i, c in self.parts.items()}, **sums, **counters}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Tally:
        """Returns what `to_json` wrote.

        Raises:
            TypeError, ValueError, KeyError, AttributeError: if it is something else.
        """
        tally = cls(parts={int(i): Counts(**c) for i, c in values["parts"].items()})
        for name in _SUMS:
            setattr(tally, name, values.get(name, 0))
        for name in _COUNTERS:
            setattr(tally, name, Counter(values.get(name, {})))
        return tally
