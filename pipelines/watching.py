"""How far a run is: from what this process itself commits, or from the ledger where others do the work."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from pipelines.bytes_done import Measure, UnderWay
from pipelines.ledger import FOLDER, SegmentRecord, segment_of
from pipelines.ledger_lines import read_done, read_progress, seed
from pipelines.state import StateFolder
from transforms.tally import Counts, PartCounts, Tally


@dataclass(frozen=True, slots=True)
class Snapshot:
    """How far a run is.

    Attributes:
        at: the clock, in seconds.
        counts: everything counted in this run and those it resumes.
        bytes_done: bytes of the stored input that are done, nearly.
        refused: requests that Mixpanel refused for speed.
    """

    at: float
    counts: Counts
    bytes_done: int
    refused: int = 0


class Watched(Protocol):
    """What tells how far a run is."""

    def look(self) -> Snapshot:
        """Returns how far the run is now."""
        ...


class OwnWatch:
    """Follows what this process commits: that costs no look at the state folder. Safe to share."""

    def __init__(
        self, segment_bytes: Mapping[str, int], before: Mapping[str, SegmentRecord], plain: bool = False
    ) -> None:
        """Starts with what was known of each segment when this start of the run began.

        Args:
            segment_bytes: size of each segment, as stored.
            before: what was known.
            plain: whether the input is plain text.
        """
        self._segment_bytes = segment_bytes
        self._lock = threading.Lock()
        self._done = Counts()
        self._done_bytes = 0
        self._open: dict[str, UnderWay] = {}
        self._measure = Measure(plain)
        self._refused = 0
        for segment, record in before.items():
            self._refused += record.tally.requests["429"]
            if record.done:
                self._finish(segment, record.tally.total)
            else:
                self._open.setdefault(segment, UnderWay()).add(record.tally)

    def settled(self, segment: str, tally: Tally) -> None:
        """Takes what became of a block."""
        with self._lock:
            self._refused += tally.requests["429"]
            self._open.setdefault(segment, UnderWay()).add(tally)

    def completed(self, segment: str, counts: Counts) -> None:
        """Takes the counts of a segment whose last block is committed; they replace those of its blocks."""
        with self._lock:
            if counts.settled:
                self._finish(segment, counts)

    def look(self) -> Snapshot:
        """Returns how far the run is now."""
        with self._lock:
            counts, done = Counts(), self._done_bytes
            counts.add(self._done)
            for segment, each in self._open.items():
                counts.add(each.counts)
                done += self._measure.done(self._segment_bytes.get(segment, 0), each)
            return Snapshot(time.monotonic(), counts, done, self._refused)

    def _finish(self, segment: str, counts: Counts) -> None:
        size = self._segment_bytes.get(segment, 0)
        self._open.pop(segment, None)
        self._done.add(counts)
        self._done_bytes += size
        self._measure.learn(size, counts)


@dataclass(slots=True)
class LedgerWatch:
    """Follows a ledger that others write, and reads of it only what is new.

    Attributes:
        folder: the run's folder.
        run: the run's identity.
        segment_bytes: size of each segment, as stored.
        before: what was known of each segment when this start of the run began.
        plain: whether the input is plain text.
    """

    folder: StateFolder
    run: str
    segment_bytes: Mapping[str, int]
    before: Mapping[str, SegmentRecord] = field(default_factory=dict)
    plain: bool = False
    _done: set[str] = field(default_factory=set)
    _tally: Tally = field(default_factory=Tally)  # of the segments that are done
    _bytes: int = 0
    _open: dict[str, _OpenSegment] = field(default_factory=dict)
    _measure: Measure = field(init=False)

    def __post_init__(self) -> None:
        self._measure = Measure(self.plain)
        for segment, record in self.before.items():
            if record.done:
                self._finish(segment, record)

    def look(self) -> Snapshot:
        """Returns how far the run is now."""
        for name, size in self.folder.names(FOLDER).items():
            segment = segment_of(name)
            if segment in self._done:
                continue
            if name.endswith(".done"):
                record = read_done(segment, self.folder.read(name), seed(self.run, name))
                if record is not None:
                    self._finish(segment, record)
            elif name.endswith(".prog"):
                self._open.setdefault(segment, _OpenSegment()).take(self.folder, self.run, name, size)
        tally = Tally()
        tally.add(self._tally)
        for each in self._open.values():
            tally.add(each.tally)
        open_bytes = (
            self._measure.done(self.segment_bytes.get(segment, 0), UnderWay.of(each.tally))
            for segment, each in self._open.items()
        )
        done = self._bytes + sum(open_bytes)
        return Snapshot(time.monotonic(), tally.total, done, tally.requests["429"])

    def _finish(self, segment: str, record: SegmentRecord) -> None:
        """Adds up a segment that is done, and forgets its blocks: else a long run's display would grow."""
        self._done.add(segment)
        self._open.pop(segment, None)
        self._tally.add(_in_one_part(record.tally))
        size = self.segment_bytes.get(segment, 0)
        self._bytes += size
        self._measure.learn(size, record.tally.total)


@dataclass(slots=True)
class _OpenSegment:
    """What is known so far of a segment that is not done."""

    tally: Tally = field(default_factory=Tally)
    _seen: set[int] = field(default_factory=set)
    _read: dict[str, tuple[int, int]] = field(default_factory=dict)

    def take(self, folder: StateFolder, run: str, name: str, size: int) -> None:
        """Reads what is new in a file of progress."""
        start, seal = self._read.get(name) or (0, seed(run, name))
        if size <= start:
            return
        for line, seal_, length in read_progress(folder.read(name, start), seal):
            start, seal = start + length, seal_
            for record in line.blocks:
                if record.ordinal not in self._seen:
                    self._seen.add(record.ordinal)
                    self.tally.add(_in_one_part(record.tally))
        self._read[name] = (start, seal)


def _in_one_part(tally: Tally) -> Tally:
    """Returns counts as of one file: which one, progress does not tell."""
    whole = Tally()
    whole.add_apart_from_parts(tally)
    whole.parts.add_all(PartCounts({0: tally.total}))
    return whole
