"""Writes one attempt at a segment into the ledger: dead letters first, then progress, then the completion."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from mixpanel_http.crash_points import crash_point
from mixpanel_http.endpoints import compress
from mixpanel_http.id_sample import IdSample
from pipelines.ledger_lines import (
    BlockRecord,
    DeadFile,
    ProgressLine,
    done_values,
    has_stamped,
    progress_values,
    seal,
    seed,
    summarise,
)
from pipelines.state import LocalLog, StateFolder
from transforms.attempt_ids import attempt_began_at
from transforms.elements import BlockOutcome, EarlierSends
from transforms.letters import LetterLines
from transforms.tally import Counts, Tally

FOLDER: Final = "ledger"
DEAD_LETTERS: Final = "dead_letters"
UNDELIVERED: Final = "undelivered"
AMBIGUOUS: Final = "ambiguous"
FLUSH_SECONDS: Final = 30.0  # on object stores, where every flush writes the attempt's progress again
FLUSH_LETTER_BYTES: Final = 8 << 20  # letters are not held back for long where all is bad
SEGMENT_SAMPLE: Final = 1024  # ids that stand in the completion of a large segment: some 12 KB
WHOLE_SAMPLE: Final = 4096  # all ids of the sample that comes with the project
_ID_DIGITS: Final = 16


@dataclass(frozen=True, slots=True)
class Inherited:
    """What earlier attempts at a segment left.

    Attributes:
        blocks: those that are settled, by ordinal.
        dead: their letters.
        sends: of the others which lines were sent, by ordinal.
    """

    blocks: Mapping[int, BlockRecord] = field(default_factory=dict)
    dead: tuple[DeadFile, ...] = ()
    sends: Mapping[int, EarlierSends] = field(default_factory=dict)


class Attempt:
    """Writes one attempt at a segment. Used by one thread."""

    def __init__(
        self,
        folder: StateFolder,
        run: str,
        segment: str,
        attempt: str,
        inherited: Inherited | None = None,
        completed: Callable[[str, Mapping[str, Any]], object] | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Starts with what earlier attempts settled; writes nothing yet.

        Args:
            folder: the run's folder.
            run: the run's identity.
            segment: the segment.
            attempt: the attempt's id.
            inherited: what earlier attempts settled.
            completed: called when the segment's completion is durable, with its file and what it says.
            clock: in seconds, for intervals.
            now: seconds since the epoch.
        """
        self._folder = folder
        self._is_local = folder.is_local
        self._run = run
        self._segment = segment
        self._name = f"{segment}.{attempt}"
        self._inherited = inherited or Inherited()
        self._blocks: dict[int, BlockRecord] = dict(self._inherited.blocks)
        self._settled = True
        self._unwritten: list[BlockRecord] = []
        self._lines: list[bytes] = []
        self._seal = seed(run, f"{self._name}.prog")
        self._letters = _LetterFile(folder, f"{DEAD_LETTERS}/{self._name}")
        self._log: LocalLog | None = None
        self._last_ordinal: int | None = None
        self._sample = IdSample(SEGMENT_SAMPLE, WHOLE_SAMPLE, digits=_ID_DIGITS)
        self._completed = completed
        self._clock = clock
        self._now = now
        self._began_at = min(attempt_began_at(attempt), now())
        self._flushed_at = clock()

    def record(self, outcome: BlockOutcome) -> None:
        """Takes a block's outcome; durable at once on a local disk, within half a minute elsewhere."""
        self.take(outcome)
        self.settle()

    def take(self, outcome: BlockOutcome) -> None:
        """Takes a block's outcome that others follow at once: the next `settle` makes all of them durable."""
        record = BlockRecord(outcome.ordinal, outcome.tally, outcome.notes, outcome.end, outcome.provisional)
        self._unwritten.append(record)
        if record.settled:
            self._letters.add(outcome.dead_letters)
        else:
            # It will be sent again, and that attempt writes its letters a second time: these stay apart.
            record.open_letters = self._write_apart(
                DEAD_LETTERS, f"{outcome.ordinal}.open", outcome.dead_letters
            )
            record.undelivered = self._write_apart(UNDELIVERED, f"{outcome.ordinal}", outcome.undelivered)
            record.ambiguous = self._write_apart(AMBIGUOUS, f"{outcome.ordinal}", outcome.ambiguous)
            record.sends = outcome.sends
            self._settled = False
        self._blocks[outcome.ordinal] = record
        self._sample.add(outcome.stamped_ids)
        if outcome.end:
            self._last_ordinal = outcome.ordinal
        if outcome.once_only:
            self.flush()

    def settle(self) -> None:
        """Makes durable what was taken: at once on a local disk, where half a minute is over elsewhere."""
        if self._is_local or self._is_due():
            self.flush()

    def unrecorded(self) -> Mapping[int, Tally]:
        """Returns the counts of blocks that have come and are not durable, by ordinal."""
        return {record.ordinal: record.tally for record in self._unwritten}

    def is_complete(self) -> bool:
        """Returns whether every block of the segment has come."""
        return self._last_ordinal is not None and len(self._blocks) == self._last_ordinal + 1

    def flush(self) -> None:
        """Makes everything durable that has come: first dead letters, then the progress that covers them."""
        if not self._unwritten:
            return
        dead = self._letters.write()
        crash_point("between dead letters and progress")
        line, self._seal = seal(
            progress_values(ProgressLine(tuple(self._unwritten), self._now(), dead)), self._seal
        )
        if self._is_local:
            self._log = self._log or self._folder.open_log(f"{FOLDER}/{self._name}.prog")
            self._log.append(line)
        else:
            self._lines.append(line)
            self._folder.write(f"{FOLDER}/{self._name}.prog", b"".join(self._lines))
            self._flushed_at = self._clock()
        self._unwritten = []
        crash_point("after progress")

    def commit(self) -> Counts:
        """Makes everything durable and then, if nothing has to be sent again, the segment's completion."""
        if not self._settled or self._is_local:
            self.flush()
        self._letters.write()  # on an object store the completion alone covers what no progress did
        dead = (*self._inherited.dead, *self._letters.written)
        record = summarise(self._segment, self._blocks.values(), dead)
        if self._settled:
            self._letters.sync()
            record.done = True
            record.sample_level, record.sample = self._sample.level, self._sample.counts
            record.sample_whole = not any(has_stamped(b.tally) for b in self._inherited.blocks.values())
            record.began_at, record.ended_at = self._began_at, self._now()
            record.completion = f"{FOLDER}/{self._name}.done"
            crash_point("before done")
            values = done_values(record)
            content = seal(values, seed(self._run, record.completion))[0]
            write = self._folder.append if self._is_local else self._folder.write
            write(record.completion, content)  # of which a part is not believed
            crash_point("after done")
            if self._completed is not None:
                self._completed(record.completion, values)
        self._let_go()
        return record.tally.total

    def close(self) -> None:
        """Makes everything durable that has come, and lets go of the attempt's files."""
        self.flush()
        self._let_go()

    def _write_apart(self, folder: str, name: str, letters: LetterLines) -> DeadFile | None:
        """Makes a block's letters durable in a file of their own: the next attempt may do without them."""
        if not letters:
            return None
        path = f"{folder}/{self._name}.{name}.jsonl.gz"
        content = compress(letters.lines)
        crash_point("before open letters")
        self._folder.write(path, content)
        crash_point("after open letters")
        return DeadFile(path, len(content), len(letters), zlib.crc32(content))

    def _let_go(self) -> None:
        self._letters.close()
        if self._log is not None:
            self._log.close()

    def _is_due(self) -> bool:
        return self._letters.held >= FLUSH_LETTER_BYTES or self._clock() - self._flushed_at >= FLUSH_SECONDS


class _LetterFile:
    """The dead letters of one attempt: one file on a local disk, numbered files on an object store."""

    def __init__(self, folder: StateFolder, name: str) -> None:
        self._folder = folder
        self._name = name
        self._letters: list[LetterLines] = []
        self._log: LocalLog | None = None
        self.held = 0
        self.written: list[DeadFile] = []

    def add(self, letters: LetterLines) -> None:
        if letters:
            self._letters.append(letters)
            self.held += len(letters.lines)

    def write(self) -> DeadFile | None:
        """Makes the letters durable that have come since the last call."""
        if not self._letters:
            return None
        crash_point("before dead letters")
        letters = LetterLines.joined(self._letters)
        content, count = compress(letters.lines), len(letters)
        self._letters, self.held = [], 0
        if self._folder.is_local:
            before = self.written[-1] if self.written else DeadFile("", 0, 0)
            name = f"{self._name}.jsonl.gz"
            self._log = self._log or self._folder.open_log(name)
            self._log.append(content)
            file = DeadFile(
                name,
                before.bytes + len(content),
                before.records + count,
                zlib.crc32(content, before.crc32),
            )
            self.written = [file]
        else:
            name = f"{self._name}.{len(self.written)}.jsonl.gz"
            self._folder.write(name, content)
            file = DeadFile(name, len(content), count, zlib.crc32(content))
            self.written.append(file)
        return file

    def sync(self) -> None:
        """Makes what was appended survive a power failure, before a completion names it."""
        if self._log is not None:
            crash_point("before sync")
            self._log.sync()

    def close(self) -> None:
        if self._log is not None:
            self._log.close()
