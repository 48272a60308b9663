"""The counts of a block, a segment or a run: what was read and what became of it, by part and in total."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import compress
from operator import attrgetter
from typing import Any, Final

from mixpanel_http.receipts import SUMS, Receipt
from transforms.part_counts import OUTCOMES, Counts, PartCounts

_SUMS: Final = ("lines", *SUMS)
_COUNTERS: Final = ("by_reason", "by_filter", "alterations", "requests", "by_endpoint")
_NAMES: Final = (*_SUMS, *_COUNTERS)
_SECONDS: Final = tuple(name for name in _SUMS if name.endswith("_s"))
_sums_of: Final = attrgetter(*_SUMS)  # in one call: this is done for each block
_counters_of: Final = attrgetter(*_COUNTERS)
_values_of: Final = attrgetter(*_NAMES)


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
        once_only: by part and endpoint, records that may have been sent and must not be sent twice; nothing
            on record, but what they are if nothing else is.
    """

    parts: PartCounts = field(default_factory=PartCounts)
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
    once_only: Counter[tuple[int, str]] = field(default_factory=Counter, compare=False)

    @property
    def total(self) -> Counts:
        """Outcomes over all parts."""
        return self.parts.total

    def charge(self, receipt: Receipt) -> None:
        """Adds what a request cost, not what became of its records."""
        for name in SUMS:
            setattr(self, name, getattr(self, name) + getattr(receipt, name))
        self.requests.update(receipt.requests)

    @classmethod
    def sum(cls, tallies: Sequence[Tally]) -> Tally:
        """Returns the sum of tallies of the same segment; to add one after the other takes twice as long."""
        found = cls(PartCounts.sum([tally.parts for tally in tallies]))
        for name, numbers in zip(_SUMS, zip(*map(_sums_of, tallies), strict=True), strict=False):
            setattr(found, name, sum(numbers))
        for mine, counters in zip(
            _counters_of(found), zip(*map(_counters_of, tallies), strict=True), strict=False
        ):
            for counter in filter(None, counters):
                for key, count in counter.items():
                    mine[key] += count
        return found

    def add(self, other: Tally) -> None:
        """Adds another tally of the same segment."""
        self.parts.add_all(other.parts)
        self.add_apart_from_parts(other)

    def add_apart_from_parts(self, other: Tally) -> None:
        """Adds another tally's numbers, except those by part: two segments have no part in common."""
        sums = _sums_of(other)
        for name, value in compress(zip(_SUMS, sums, strict=True), sums):
            setattr(self, name, getattr(self, name) + value)
        counters = _counters_of(other)
        for mine, counter in compress(zip(_counters_of(self), counters, strict=True), counters):
            for key, count in counter.items():
                mine[key] += count

    def to_json(self) -> dict[str, Any]:
        """Returns the tally as JSON values, without what is zero."""
        found: dict[str, Any] = {}
        for name, value in zip(_NAMES, _values_of(self), strict=True):
            if value:
                found[name] = value
        if self.waited_s:
            found |= {name: round(found[name], 3) for name in _SECONDS if name in found}
        found["parts"] = self.parts.to_json()
        return found

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Tally:
        """Returns what `to_json` wrote.

        Raises:
            TypeError, ValueError, KeyError, AttributeError: if it is something else.
        """
        tally = cls(parts=PartCounts.from_json(values["parts"]))
        for name in _SUMS:
            setattr(tally, name, values.get(name, 0))
        for name in _COUNTERS:
            setattr(tally, name, Counter(values.get(name, {})))
        return tally


__all__ = ["OUTCOMES", "Counts", "PartCounts", "Tally"]
