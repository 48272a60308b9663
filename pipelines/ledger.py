"""The ledger: what became of every block, segment and file, written so that any crash leaves it true.

Below `ledger/`, for each attempt at a segment: `<segment>.<attempt>.prog`, a line a settled block, and
`<segment>.<attempt>.done`, the segment's completion. Names carry the attempt's own id, so that two attempts
never write one file; of several completions the first by name counts. What is unreadable is taken for absent:
its blocks are sent again, with the same ids. Dead letters are durable before the progress that covers them.
"""

from __future__ import annotations

import gzip
import os
import time
import uuid
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from mixpanel_http.delivery import Stop
from mixpanel_http.insert_ids import IdSample
from pipelines.state import StateFolder
from transforms.elements import BlockOutcome, FileNote
from transforms.tally import Counts, Tally

FOLDER: Final = "ledger"
DEAD_LETTERS: Final = "dead_letters"
UNDELIVERED: Final = "undelivered"
FLUSH_SECONDS: Final = 30.0  # on object stores, where every flush writes the attempt's progress again
FLUSH_BLOCKS: Final = 50
SEGMENT_SAMPLE: Final = 4096
_ID_DIGITS: Final = 16


@dataclass(frozen=True, slots=True)
class DeadFile:
    """A file of dead letters, as far as it is committed: `bytes` of it, with `records` in them."""

    name: str
    bytes: int
    records: int


@dataclass(slots=True)
class BlockRecord:
    """What the ledger knows of one block; `dead` is its attempt's dead letters as far as written then."""

    ordinal: int
    tally: Tally
    notes: tuple[FileNote, ...] = ()
    end: bool = False
    dead: DeadFile | None = None
    undelivered: DeadFile | None = None

    @property
    def settled(self) -> bool:
        """True if the block need not be sent again."""
        return self.tally.total.settled and not any(note.may_heal for note in self.notes)


@dataclass(slots=True)
class SegmentRecord:
    """What the ledger knows of one segment, over all its attempts."""

    segment: str
    tally: Tally
    notes: tuple[FileNote, ...]
    dead: tuple[DeadFile, ...]
    done: bool
    sample_level: int = 0
    sample: Mapping[str, int] = field(default_factory=dict)
    blocks: int = 0
    undelivered: tuple[DeadFile, ...] = ()


@dataclass(frozen=True, slots=True)
class ErrorLimit:
    """How many dead letters end a run: a count, or a share of what was read."""

    count: int | None = None
    share: float | None = None
    after: int = 2000  # a share says little about the first few records

    @classmethod
    def parse(cls, amount: int | str | None) -> ErrorLimit:
        """Returns the limit that a configuration gives: a count, a percentage or None."""
        if isinstance(amount, str):
            return cls(share=float(amount.rstrip("%")) / 100)
        return cls(count=amount)

    def exceeded_by(self, dead_lettered: int, read: int) -> bool:
        """Returns whether that many of that many are more than allowed."""
        if self.count is not None:
            return dead_lettered > self.count
        return self.share is not None and dead_lettered > self.share * read


@dataclass(frozen=True)
class Ledger:
    """The ledger of one run. Cheap to pickle; every worker opens its own.

    Attributes:
        folder: the run's folder.
        resumed: whether earlier attempts are to be looked for.
        max_errors: how many dead letters end the run.
        bases: line numbers known from before, as ((uri, offset), line).
    """

    folder: StateFolder
    resumed: bool = False
    max_errors: ErrorLimit = ErrorLimit()
    bases: tuple[tuple[tuple[str, int], int], ...] = ()

    def __str__(self) -> str:
        return self.folder.uri

    def open_attempt(self, segment: str, attempt: str) -> Attempt:
        """Returns the writer of a new attempt at a segment, which inherits what earlier ones settled."""
        inherited = self._earlier_blocks(segment) if self.resumed else {}
        return Attempt(self.folder, segment, attempt, inherited)

    def settled_blocks(self, segment_id: str) -> set[int]:
        """Returns the ordinals of blocks that need not be sent again."""
        if not self.resumed:
            return set()
        return {ordinal for ordinal, record in self._earlier_blocks(segment_id).items()}

    def line_bases(self) -> Mapping[tuple[str, int], int]:
        """Returns the number of the line at an offset of a file, where it is known."""
        return dict(self.bases)

    def write_stop(self, stop: Stop) -> None:
        """Notes why the run must not go on."""
        content = {"status": stop.status, "message": stop.message, "limit": stop.limit, "at": time.time()}
        self.folder.write(f"{FOLDER}/stop.{uuid.uuid4().hex}.json", _sealed(content))

    def too_many_errors(self, counts: Counts) -> str | None:
        """Returns why the errors counted so far end the run, or None."""
        limit = self.max_errors
        if limit.share is not None and counts.read < limit.after:
            return None
        if not limit.exceeded_by(counts.dead_lettered, counts.read):
            return None
        share = f"{counts.dead_lettered:,} of {counts.read:,} records"
        return f"{share} are dead letters, more than run.max_errors allows"

    def _earlier_blocks(self, segment: str) -> dict[int, BlockRecord]:
        names = [
            n
            for n in self.folder.names(FOLDER)
            if n.startswith(f"{FOLDER}/{segment}.") and n.endswith(".prog")
        ]
        blocks: dict[int, BlockRecord] = {}
        for _, content in self.folder.read_all(sorted(names)):
            blocks.update({r.ordinal: r for r in read_progress(content) if r.settled and not r.end})
        return blocks


class Attempt:
    """Writes one attempt at a segment. Used by one thread."""

    def __init__(
        self,
        folder: StateFolder,
        segment: str,
        attempt: str,
        inherited: Mapping[int, BlockRecord],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Starts with what earlier attempts settled; writes nothing yet."""
        self._folder = folder
        self._segment = segment
        self._name = f"{segment}.{attempt}"
        self._blocks: dict[int, BlockRecord] = dict(inherited)
        self._unwritten: list[BlockRecord] = []
        self._lines: list[bytes] = []
        # Letters of blocks that will be sent again stay apart: that attempt will write them a second time.
        self._letters = {
            True: _DeadLetterFile(folder, self._name),
            False: _DeadLetterFile(folder, f"{self._name}.open"),
        }
        self._undelivered: dict[int, Sequence[bytes]] = {}
        self._last_ordinal: int | None = None
        self._sample = IdSample(SEGMENT_SAMPLE)
        self._clock = clock
        self._flushed_at = clock()

    def record(self, outcome: BlockOutcome) -> None:
        """Takes a block's outcome; durable at once on a local disk, within half a minute elsewhere."""
        record = BlockRecord(outcome.ordinal, outcome.tally, outcome.notes, outcome.end)
        self._blocks[outcome.ordinal] = record
        self._unwritten.append(record)
        self._letters[record.settled].add(outcome.dead_letters)
        if outcome.undelivered:
            self._undelivered[outcome.ordinal] = outcome.undelivered
        self._sample.add([i[:_ID_DIGITS] for i in outcome.stamped_ids])
        if outcome.end:
            self._last_ordinal = outcome.ordinal
        if self._folder.is_local or self._is_due():
            self.flush()

    def is_complete(self) -> bool:
        """Returns whether every block of the segment has come."""
        return self._last_ordinal is not None and len(self._blocks) == self._last_ordinal + 1

    def flush(self) -> None:
        """Makes everything durable that has come: first dead letters, then the progress that covers them."""
        if not self._unwritten:
            return
        for settled, letters in self._letters.items():
            written = letters.write()
            if written is not None:
                next(r for r in reversed(self._unwritten) if r.settled == settled).dead = written
        for record in self._unwritten:
            record.undelivered = self._write_undelivered(record.ordinal)
        lines = [_progress_line(record) for record in self._unwritten]
        name = f"{FOLDER}/{self._name}.prog"
        if self._folder.is_local:
            self._folder.append(name, b"".join(lines))
        else:
            self._lines += lines
            self._folder.write(name, b"".join(self._lines))
        self._unwritten = []
        self._flushed_at = self._clock()

    def commit(self) -> Counts:
        """Makes everything durable and then, if nothing has to be sent again, the segment's completion."""
        self.flush()
        summary = summarise(self._segment, self._blocks.values(), done=True)
        if all(record.settled for record in self._blocks.values()):
            content = _done_content(summary, self._sample)
            self._folder.write(f"{FOLDER}/{self._name}.done", _sealed(content))
        return summary.tally.total

    def _write_undelivered(self, ordinal: int) -> DeadFile | None:
        """Makes a block's undelivered records durable, in a file of its own: they may be sent again."""
        letters = self._undelivered.pop(ordinal, None)
        if letters is None:
            return None
        name = f"{UNDELIVERED}/{self._name}.{ordinal}.jsonl.gz"
        content = gzip.compress(b"".join(letter + b"\n" for letter in letters), 6, mtime=0)
        self._folder.write(name, content)
        return DeadFile(name, len(content), len(letters))

    def _is_due(self) -> bool:
        return len(self._unwritten) >= FLUSH_BLOCKS or self._clock() - self._flushed_at >= FLUSH_SECONDS


class _DeadLetterFile:
    """The dead letters of one attempt: one file on a local disk, numbered files on an object store."""

    def __init__(self, folder: StateFolder, name: str) -> None:
        self._folder = folder
        self._name = f"{DEAD_LETTERS}/{name}"
        self._letters: list[bytes] = []
        self._records = self._parts = 0

    def add(self, letters: Iterable[bytes]) -> None:
        self._letters.extend(letters)

    def write(self) -> DeadFile | None:
        """Makes the letters durable that have come since the last call."""
        if not self._letters:
            return None
        content = gzip.compress(b"".join(letter + b"\n" for letter in self._letters), 6, mtime=0)
        count, self._letters = len(self._letters), []
        if self._folder.is_local:
            name = f"{self._name}.jsonl.gz"
            self._records += count
            return DeadFile(name, self._folder.append(name, content), self._records)
        name = f"{self._name}.{self._parts}.jsonl.gz"
        self._parts += 1
        self._folder.write(name, content)
        return DeadFile(name, len(content), count)


def summarise(segment: str, blocks: Iterable[BlockRecord], done: bool) -> SegmentRecord:
    """Returns a segment's record from its blocks' records."""
    tally = Tally()
    notes: list[FileNote] = []
    dead: dict[str, DeadFile] = {}
    undelivered: list[DeadFile] = []
    count = 0
    for record in sorted(blocks, key=lambda record: record.ordinal):
        tally.add(record.tally)
        notes += record.notes
        count += 1
        if record.undelivered:
            undelivered.append(record.undelivered)
        if record.dead and (record.dead.name not in dead or record.dead.bytes > dead[record.dead.name].bytes):
            dead[record.dead.name] = record.dead
    return SegmentRecord(
        segment,
        tally,
        tuple(notes),
        tuple(dead.values()),
        done,
        blocks=count,
        undelivered=tuple(undelivered),
    )


def read_ledger(folder: StateFolder) -> dict[str, SegmentRecord]:
    """Returns what the ledger knows of each segment that was begun.

    Raises:
        StateUnusable: if the state folder cannot be read.
    """
    names = sorted(folder.names(FOLDER))
    found: dict[str, SegmentRecord] = {}
    for name, content in folder.read_all([n for n in names if n.endswith(".done")]):
        segment = _segment_of(name)
        record = _read_done(segment, content)
        if record is not None and segment not in found:
            found[segment] = record
    begun: dict[str, dict[int, BlockRecord]] = {}
    unfinished = [n for n in names if n.endswith(".prog") and _segment_of(n) not in found]
    for name, content in folder.read_all(unfinished):
        blocks = begun.setdefault(_segment_of(name), {})
        for record_ in read_progress(content):
            if record_.ordinal not in blocks or not blocks[record_.ordinal].settled:
                blocks[record_.ordinal] = record_
    found.update(
        {segment: summarise(segment, blocks.values(), done=False) for segment, blocks in begun.items()}
    )
    return found


def trim_dead_letters(folder: StateFolder, ledger: Mapping[str, SegmentRecord]) -> None:
    """Cuts local files of dead letters back to what is committed: the rest is about to come again."""
    if folder.is_local:
        for record in ledger.values():
            for file in record.dead:
                os.truncate(folder.path(file.name), file.bytes)


def read_stops(folder: StateFolder, since: float) -> list[Stop]:
    """Returns why the run was stopped, since a time in seconds since the epoch."""
    names = [n for n in folder.names(FOLDER) if n.startswith(f"{FOLDER}/stop.")]
    found = []
    for _, content in folder.read_all(sorted(names)):
        values = _unsealed(content)
        if values and values.get("at", 0) >= since:
            found.append(Stop(values["status"], values["message"], values["limit"]))
    return found


def read_progress(content: bytes) -> Iterator[BlockRecord]:
    """Yields the blocks of a progress file, as far as it is whole."""
    for line in content.splitlines(keepends=True):
        values = _unsealed(line) if line.endswith(b"\n") else None
        record = _block_record(values) if values else None
        if record is None:
            return
        yield record


def _segment_of(name: str) -> str:
    return name.rpartition("/")[2].split(".", 1)[0]


def _sealed(values: Mapping[str, Any]) -> bytes:
    """Returns values as one line that starts with its checksum."""
    content = orjson.dumps(values)
    return b"%08x %b\n" % (zlib.crc32(content), content)


def _unsealed(line: bytes) -> dict[str, Any] | None:
    """Returns the values in a sealed line, or None if it is not whole."""
    content = line[9:].rstrip(b"\n")
    try:
        if int(line[:8], 16) != zlib.crc32(content):
            return None
        values = orjson.loads(content)
    except ValueError:
        return None
    return values if isinstance(values, dict) else None


def _progress_line(record: BlockRecord) -> bytes:
    values: dict[str, Any] = {"o": record.ordinal, "t": record.tally.to_json()}
    if record.notes:
        values["notes"] = [_note_values(note) for note in record.notes]
    if record.end:
        values["end"] = True
    if record.dead:
        values["dead"] = _dead_values(record.dead)
    if record.undelivered:
        values["undelivered"] = _dead_values(record.undelivered)
    return _sealed(values)


def _block_record(values: Mapping[str, Any]) -> BlockRecord | None:
    try:
        dead = DeadFile(*values["dead"]) if "dead" in values else None
        notes = tuple(FileNote(*note) for note in values.get("notes", ()))
        undelivered = DeadFile(*values["undelivered"]) if "undelivered" in values else None
        tally = Tally.from_json(values["t"])
        return BlockRecord(values["o"], tally, notes, values.get("end", False), dead, undelivered)
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def _done_content(summary: SegmentRecord, sample: IdSample) -> dict[str, Any]:
    return {
        "v": 1,
        "segment": summary.segment,
        "blocks": summary.blocks,
        "t": summary.tally.to_json(),
        "notes": [_note_values(note) for note in summary.notes],
        "dead": [_dead_values(file) for file in summary.dead],
        "sample": [sample.level, dict(sample.counts)],
    }


def _read_done(segment: str, content: bytes) -> SegmentRecord | None:
    values = _unsealed(content)
    try:
        if values is None or values["v"] != 1 or values["segment"] != segment:
            return None
        level, counts = values["sample"]
        return SegmentRecord(
            segment,
            Tally.from_json(values["t"]),
            tuple(FileNote(*note) for note in values["notes"]),
            tuple(DeadFile(*file) for file in values["dead"]),
            True,
            level,
            counts,
            values["blocks"],
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def _note_values(note: FileNote) -> list[Any]:
    return [note.part, note.uri, note.lines, note.problem, note.offset, note.detail]


def _dead_values(file: DeadFile) -> list[Any]:
    return [file.name, file.bytes, file.records]
