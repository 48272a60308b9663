"""Blocks whose outcome could not be written down: no ledger has them, so this process keeps their counts.

Only where the report is written by this very process. A worker elsewhere raises instead, and its runner gives
the work to another one.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from transforms.tally import Counts, PartCounts, Tally


class CannotRecord(RuntimeError):
    """What became of some records cannot be written down; the message names the file."""


@dataclass(slots=True)
class Unrecorded:
    """What this process could not write down. Safe to share between threads.

    Attributes:
        is_told: whether this process writes the report.
        problem: why something could not be written down: the first reason.
    """

    is_told: bool = False
    problem: CannotRecord | None = None
    _blocks: dict[str, dict[int, Tally]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def reset(self, *, is_told: bool) -> None:
        """Forgets everything: a run begins or ends in this process."""
        with self._lock:
            self.is_told = is_told
            self.problem = None
            self._blocks = {}

    def note(self, problem: CannotRecord) -> None:
        """Notes why something could not be written down.

        Raises:
            CannotRecord: the same, where nobody would tell of it.
        """
        if not self.is_told:
            raise problem
        with self._lock:
            self.problem = self.problem or problem

    def add(self, segment: str, blocks: Mapping[int, Tally]) -> None:
        """Counts the records of a segment's blocks, by ordinal: what became of them is not on record."""
        with self._lock:
            known = self._blocks.setdefault(segment, {})
            known |= {ordinal: _unsettled(tally) for ordinal, tally in blocks.items()}

    def forget(self, segment: str) -> None:
        """Forgets a segment's blocks: another attempt at it begins."""
        with self._lock:
            self._blocks.pop(segment, None)

    def blocks(self) -> Mapping[str, Mapping[int, Tally]]:
        """Returns the counts by segment and ordinal."""
        with self._lock:
            return {segment: dict(known) for segment, known in self._blocks.items()}


here: Final = Unrecorded()


def _unsettled(tally: Tally) -> Tally:
    """Returns the same requests and records, with all records undelivered.

    But what must not be sent twice is ambiguous where it may have been sent: a resume will not send it.
    """
    found = Tally()
    found.add_apart_from_parts(tally)
    endpoints, doubtful = Counter[str](), Counter[int]()
    for name, count in tally.by_endpoint.items():
        endpoints[f"{name.partition('.')[0]}.undelivered"] += count
    for (part, name), count in tally.once_only.items():
        doubtful[part] += count
        endpoints[f"{name}.undelivered"] -= count
        endpoints[f"{name}.ambiguous"] += count
    found.by_endpoint = +endpoints
    for counter in (found.by_reason, found.by_filter, found.alterations):
        counter.clear()
    found.parts = PartCounts(
        {index: _undelivered(counts, doubtful[index]) for index, counts in tally.parts.items()}
    )
    return found


def _undelivered(counts: Counts, doubtful: int) -> Counts:
    undelivered = counts.read + counts.expanded - doubtful
    return Counts(counts.read, counts.expanded, undelivered=undelivered, ambiguous=doubtful)
