"""Digests: many completions of a run in one object, so that nobody need read thousands of them one by one.

A process that completes segments writes down every hundred of them as a part; a start that has read all
completions puts one digest of them in the place of all parts. A digest says nothing that the completions do
not say. Where it is missing, damaged or behind, these are read.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from mixpanel_http.crash_points import crash_point
from mixpanel_http.id_sample import SAMPLE_SIZE, IdSample
from pipelines.ledger_lines import SegmentRecord, done_record, done_values, seal, seed, unseal
from pipelines.record_file import RecordFile
from pipelines.state import StateFolder, StateUnusable

FOLDER: Final = "ledger_digest"
LEAST: Final = 100  # so few are read as fast one by one
PART_BYTES: Final = 1 << 20  # of a part that is not written yet: a segment of small files names each of them
PART_SAMPLE: Final = 4096  # ids: those of a part that is not written yet are sifted for each completion
_log: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Digest:
    """What one digest says.

    Attributes:
        records: of segments that are done, each with the name of its completion.
        sample: of the ids of all of them.
    """

    records: Collection[SegmentRecord]
    sample: IdSample


@dataclass(slots=True)
class DigestParts:
    """Writes down what a process completes, a hundred segments at a time. Used by one thread."""

    _lines: _Lines | None = None
    _written: list[bytes] = field(default_factory=list)
    _bytes: int = 0

    def take(self, folder: StateFolder, run: str, completion: str, values: Mapping[str, Any]) -> None:
        """Takes a completion that is written, by file and content; writes a part if there are enough."""
        if self._lines is None:
            # Named after its first completion: nobody else writes that one.
            name = completion.rpartition("/")[2].removesuffix(".done")
            self._lines = _Lines(run, f"{FOLDER}/{name}.jsonl", IdSample(PART_SAMPLE))
        line = self._lines.line_of(completion, values)
        self._written.append(line)
        self._bytes += len(line)
        if self._lines.count >= LEAST or self._bytes >= PART_BYTES:
            self._write(folder, self._lines)
            self._lines, self._written, self._bytes = None, [], 0

    def _write(self, folder: StateFolder, lines: _Lines) -> None:
        crash_point("before part of digest")
        try:
            folder.write(lines.name, b"".join([*self._written, lines.last()]))
        except StateUnusable as error:
            _log.warning("%s; what it says is read from the completions", error)
        crash_point("after part of digest")


def read_digests(folder: StateFolder, run: str) -> Iterator[Digest]:
    """Yields the digests that are whole, larger ones first.

    Raises:
        StateUnusable: if the state folder cannot be read.
    """
    sizes = folder.names(FOLDER)
    parts = [name for name, size in sizes.items() if size <= 2 * PART_BYTES]
    for name in sorted(sizes.keys() - set(parts), key=lambda name: -sizes[name]):
        many = RecordFile()
        try:
            with folder.open(name) as lines:
                sample = _sample_of(run, name, lines, many.put)
        except FileNotFoundError:  # another start has just put its own in the place of all
            continue
        if sample is not None:
            yield Digest(many.values(), sample)
    for name, content in folder.read_if_there(sorted(parts, key=lambda name: (-sizes[name], name))):
        few: list[SegmentRecord] = []
        sample = _sample_of(run, name, content.splitlines(keepends=True), few.append)
        if sample is not None:
            yield Digest(few, sample)


def write_digest(
    folder: StateFolder, run: str, launch: str, ledger: Mapping[str, SegmentRecord], least: int = LEAST
) -> None:
    """Writes down all completions of a ledger in place of the digests that are there, if that spares reads.

    Args:
        folder: the run's folder.
        run: the run's identity.
        launch: the start of the run that has read the ledger.
        ledger: what it has read.
        least: how many completions must be in no digest, unless there are several digests.

    Raises:
        StateUnusable: if the state folder cannot be written.
    """
    old = folder.names(FOLDER)
    fresh = (record for record in ledger.values() if record.done and not record.digested)
    if len(old) < 2 and sum(1 for _ in itertools.islice(fresh, least)) < least:
        return
    name = f"{FOLDER}/{launch}.jsonl"
    crash_point("before digest")
    folder.write_pieces(name, _all_lines(_Lines(run, name, IdSample(SAMPLE_SIZE)), ledger.values()))
    crash_point("after digest")
    folder.remove_all(sorted(old.keys() - {name}))
    crash_point("after removal of digests")


@dataclass(slots=True)
class _Lines:
    """The sealed lines of a digest: one for each completion, and a last one that makes it whole."""

    run: str
    name: str
    sample: IdSample
    count: int = 0
    _seal: int = 0

    def __post_init__(self) -> None:
        self._seal = seed(self.run, self.name)

    def line_of(self, completion: str, values: Mapping[str, Any]) -> bytes:
        """Returns the next line, of a completion, by its file and content."""
        self.count += 1
        level, sample, whole = values["sample"]
        self.sample.merge(level, sample)
        return self._sealed({**values, "sample": [0, {}, whole], "completion": completion})

    def last(self) -> bytes:
        """Returns the last line: how many there are, and the sample of the ids of all."""
        return self._sealed({"count": self.count, "sample": [self.sample.level, self.sample.counts]})

    def _sealed(self, values: Mapping[str, Any]) -> bytes:
        line, self._seal = seal(values, self._seal)
        return line


def _all_lines(lines: _Lines, records: Iterable[SegmentRecord]) -> Iterator[bytes]:
    for record in records:
        if record.done:
            yield lines.line_of(record.completion, done_values(record))
    yield lines.last()


def _sample_of(
    run: str, name: str, lines: Iterable[bytes], keep: Callable[[SegmentRecord], object]
) -> IdSample | None:
    """Hands over the records in a digest and returns the sample of their ids, or None if it is not whole."""
    sample: IdSample | None = None
    before, count = seed(run, name), 0
    for line in lines:
        values, before = unseal(line, before) or ({}, 0)
        record = _record(values)
        if record is not None and sample is None:
            keep(record)
            count += 1
        elif record is None and sample is None and values.get("count") == count:
            sample = IdSample()
            sample.merge(*values["sample"])
        else:
            return None
    return sample


def _record(row: Mapping[str, Any]) -> SegmentRecord | None:
    record = done_record(str(row.get("segment")), row)
    if record is not None:
        record.completion, record.digested = str(row.get("completion")), True
    return record
