"""The ledger: what became of every block, segment and file, written so that any crash leaves it true.

Below `ledger/`, for each attempt at a segment: `<segment>.<attempt>.prog`, its progress, and
`<segment>.<attempt>.done`, the segment's completion. Names carry the attempt's own id, so that two attempts
never write one file; of several completions the last by name counts, that of whoever took the run up last.
What is unreadable is taken for absent: its blocks are sent again, with the same ids. Dead letters are durable
before the progress that covers them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Final

from mixpanel_http.crash_points import crash_point
from mixpanel_http.id_sample import IdSample
from mixpanel_http.receipts import Stop
from pipelines.attempt import DEAD_LETTERS, FOLDER, UNDELIVERED, Attempt, Inherited
from pipelines.believing import Letters, attempt_of, believed, lines_by_name, segment_of
from pipelines.crew import attend, leads
from pipelines.digest import Digest, DigestParts, read_digests
from pipelines.intents import Intents, earlier_sends, read_intents
from pipelines.ledger_lines import (
    BlockRecord,
    DeadFile,
    SegmentRecord,
    read_done,
    seal,
    seed,
    summarise,
    unseal,
)
from pipelines.record_file import RecordFile
from pipelines.state import StateFolder, StateUnusable
from pipelines.versions import check_worker
from transforms import drain
from transforms.attempt_ids import attempt_began_at, new_attempt_id
from transforms.elements import EarlierSends
from transforms.ordered_blocks import START_ANEW
from transforms.tally import Counts, Tally


@dataclass(frozen=True, slots=True)
class ErrorLimit:
    """How many dead letters end a run: a count, or a share of what was read; of both, both must be passed."""

    count: int | None = None
    share: float | None = None
    after: int = 2000  # a share says little about the first few records

    @classmethod
    def parse(cls, amount: int | str | None) -> ErrorLimit:
        """Returns the limit that a configuration gives: a count, a percentage or None, which is `DEFAULT`."""
        if amount is None:
            return DEFAULT
        if isinstance(amount, str):
            return cls(share=float(amount.rstrip("%")) / 100)
        return cls(count=amount)

    def exceeded_by(self, dead_lettered: int, read: int) -> bool:
        """Returns whether that many of that many are more than allowed."""
        if self.count is None and self.share is None:
            return False
        return dead_lettered > max(self.count or 0, (self.share or 0) * read)


# What attempts that are begun in this process inherit, by run, segment and attempt.
_inherited: Final[dict[tuple[str, str, str], Inherited]] = {}
DEFAULT: Final = ErrorLimit(10_000, 0.5)  # more bad than good: the wrong input, or the wrong settings


@dataclass(frozen=True)
class Ledger:
    """The ledger of one run. Cheap to pickle; every worker opens its own.

    Attributes:
        folder: the run's folder.
        run: the run's identity (`Manifest.key`): what another run wrote is not believed.
        launch: the id of this start of it.
        resumed: whether earlier attempts are to be looked for.
        max_errors: how many dead letters end the run.
        bases: line numbers known from before, as ((uri, offset), line).
        versions: of the launcher; a worker must have the same.
    """

    folder: StateFolder
    run: str = ""
    launch: str = ""
    resumed: bool = False
    max_errors: ErrorLimit = ErrorLimit()
    bases: tuple[tuple[tuple[str, int], int], ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    _begun: dict[str, list[str]] = field(default_factory=dict, init=False, repr=False, compare=False)
    _parts: DigestParts = field(default_factory=DigestParts, init=False, repr=False, compare=False)

    def __str__(self) -> str:
        return self.folder.uri

    def attend(self) -> None:
        """Makes this process take part in the run, after a look that it is what the launcher is.

        Raises:
            WorkerRefused: if it is not.
        """
        check_worker(self.versions)
        new_attempt_id(after=self.launch)  # those of this process sort behind all that was there before
        if self.launch:
            attend(self.folder, self.launch, self.patience, self.ask_to_end)

    def open_attempt(self, segment: str, attempt: str) -> Attempt:
        """Returns the writer of a new attempt at a segment, which inherits what earlier ones settled."""
        inherited = _inherited.pop((self.folder.uri, segment, attempt), None) or self._settled(segment)
        completed = partial(self._parts.take, self.folder, self.run)
        return Attempt(self.folder, self.run, segment, attempt, inherited, completed)

    def settled_blocks(self, segment_id: str, attempt: str) -> set[int] | None:
        """Returns the ordinals of blocks that this attempt need not send again; None if it is not needed.

        What the attempt inherits is settled here: another attempt may go on writing meanwhile.
        """
        inherited = self._settled(segment_id)
        if inherited is not None:
            _inherited[self.folder.uri, segment_id, attempt] = inherited
        return None if inherited is None else set(inherited.blocks)

    def earlier_sends(self, segment_id: str, attempt: str) -> Mapping[int, EarlierSends]:
        """Returns what was sent already of blocks that this attempt has to send, by ordinal."""
        inherited = _inherited.get((self.folder.uri, segment_id, attempt))
        return inherited.sends if inherited else {}

    def intents(self) -> Intents:
        """Returns the writer of what is about to be sent once only."""
        return Intents(self.folder, self.run)

    def ordered_content(self, name: str) -> bytes:
        """Returns the lines of a segment that were put into an order when the run was planned.

        Raises:
            StateUnusable: if they are gone.
        """
        try:
            return self.folder.read(name)
        except FileNotFoundError:
            raise StateUnusable(f"{self.folder.uri_of(name)}: missing; {START_ANEW}") from None

    def line_bases(self) -> Mapping[tuple[str, int], int]:
        """Returns the number of the line at an offset of a file, where it is known."""
        return dict(self.bases)

    def write_stop(self, stop: Stop) -> None:
        """Notes why the run must not go on, and asks all workers to end it."""
        content = {"status": stop.status, "message": stop.message, "limit": stop.limit}
        name = _stop_name(self.launch)
        crash_point("before stop")
        self.folder.write(name, seal(content, seed(self.run, name))[0])
        crash_point("after stop")
        self.ask_to_end(drain.STOP_SECONDS)  # one file tells all that it is to end: each looks every second

    def ask_to_end(self, seconds: float = drain.DRAIN_SECONDS) -> None:
        """Asks all workers to finish what is under way within so long, and to begin nothing more."""
        self.folder.write(_end_name(self.launch), b"%g" % seconds)

    def patience(self) -> float | None:
        """Returns for how many seconds answers are waited for, if the run is to end, or None."""
        try:
            return float(self.folder.read(_end_name(self.launch)))
        except FileNotFoundError:
            return None

    def too_many_errors(self, counts: Counts) -> str | None:
        """Returns why the errors counted so far end the run, or None."""
        limit = self.max_errors
        if limit.share is not None and counts.read < limit.after:
            return None
        if not limit.exceeded_by(counts.dead_lettered, counts.read):
            return None
        share = f"{counts.dead_lettered:,} of {counts.read:,} records"
        return f"{share} are dead letters, more than run.max_errors allows"

    def _settled(self, segment: str) -> Inherited | None:
        """Returns what earlier attempts at a segment settled, or None if that is all of it."""
        names = self._begun_earlier(segment)
        if not names:
            return Inherited()
        letters = Letters(self.folder, None if self.folder.is_local else f"{segment}.")
        done = [name for name in names if name.endswith(".done")]
        for name, content in self.folder.read_all(done):
            record = read_done(segment, content, seed(self.run, name))
            if record is not None and all(map(letters.are_whole, record.dead)):
                return None
        progress = lines_by_name(self.folder, self.run, [n for n in names if n.endswith(".prog")])
        known = believed(progress, letters)
        intents = read_intents(self.folder, self.run, names)
        return Inherited(known.settled, known.dead, earlier_sends(known, progress, intents))

    def _begun_earlier(self, segment: str) -> list[str]:
        """Returns the names of what other attempts at a segment have written.

        Where workers do the work these may be of this start of the run, too: a runner that lost one gives its
        work to another, from the beginning.
        """
        if not (self.folder.is_local or leads(self.launch)):
            return sorted(self.folder.names(FOLDER, f"{segment}."))
        if not self.resumed:
            return []
        if not self._begun:
            # Listed once a worker: to list for each segment would take as long as the run.
            self._begun[""] = []
            for name in sorted(self.folder.names(FOLDER)):
                # What this start of the run has written itself is no earlier attempt.
                if attempt_began_at(attempt_of(name)) < _began_at(self.launch):
                    self._begun.setdefault(segment_of(name), []).append(name)
        return self._begun.get(segment, [])


def last_attempt(names: Iterable[str]) -> str:
    """Returns the attempt that sorts behind all others in a ledger's files, or nothing."""
    attempts = map(attempt_of, names)
    return max((attempt for attempt in attempts if attempt_began_at(attempt)), default="")


def read_ledger(
    folder: StateFolder,
    run: str = "",
    unrecorded: Mapping[str, Mapping[int, Tally]] | None = None,
    names: Iterable[str] | None = None,
) -> RecordFile:
    """Returns what the ledger knows of each segment that was begun.

    Args:
        folder: the run's folder.
        run: the run's identity.
        unrecorded: the counts of blocks that could not be written down, by segment and ordinal.
        names: of the ledger's files, where they are listed already.

    Raises:
        StateUnusable: if the state folder cannot be read.
    """
    names = sorted(folder.names(FOLDER) if names is None else names)
    letters = Letters(folder)
    found = _done(folder, run, [name for name in names if name.endswith(".done")], letters)
    unfinished: dict[str, list[str]] = {}
    for name in names:
        if name.endswith(".prog") and segment_of(name) not in found:
            unfinished.setdefault(segment_of(name), []).append(name)
    wanted = [name for group in unfinished.values() for name in group]
    lines = lines_by_name(folder, run, wanted)
    lost = {segment: blocks for segment, blocks in (unrecorded or {}).items() if segment not in found}
    for segment in {**unfinished, **lost}:
        known = believed({name: lines[name] for name in unfinished.get(segment, ())}, letters)
        recorded = {**known.settled, **{block.ordinal: block for block in known.open}}
        left = [BlockRecord(o, t) for o, t in lost.get(segment, {}).items() if o not in recorded]
        if recorded or left:
            record = summarise(segment, (*recorded.values(), *left), known.dead)
            record.began_at, record.ended_at = known.began_at, known.ended_at
            record.unrecorded = sum(block.tally.total.undelivered for block in left)
            record.unrecorded_ambiguous = sum(block.tally.total.ambiguous for block in left)
            found.put(record)
    return found


def _done(folder: StateFolder, run: str, names: list[str], letters: Letters) -> RecordFile:
    """Returns the segments that are done, by the last believable of their completions.

    Their samples of ids are added up at once, and stand with one of them: each alone takes much room.
    """
    found = RecordFile()
    sample = IdSample()
    last = {segment_of(name): name for name in names}
    for digest in read_digests(folder, run) if names else ():
        if _is_believed(digest, last, found, letters):
            for record in digest.records:
                found.put(record)
            sample.merge(digest.sample.level, digest.sample.counts)
    left = [name for name in reversed(names) if not found.is_done(segment_of(name))]
    for name, content in folder.read_all(left):
        segment = segment_of(name)
        read = read_done(segment, content, seed(run, name))
        if read is None or found.is_done(segment) or not all(map(letters.are_whole, read.dead)):
            continue
        sample.merge(read.sample_level, read.sample)
        read.sample_level, read.sample = 0, {}
        read.completion = name
        found.put(read)
    for first in islice(found.values(), 1):
        first.sample_level, first.sample = sample.level, sample.counts
        found.put(first)
    return found


def _is_believed(digest: Digest, last: Mapping[str, str], found: RecordFile, letters: Letters) -> bool:
    """Returns whether a digest says what its completions would say now.

    It is taken as a whole or not at all: its sample is that of all its segments.
    """
    return all(
        last.get(record.segment) == record.completion
        and not found.is_done(record.segment)
        and all(map(letters.are_whole, record.dead))
        for record in digest.records
    )


def trim_dead_letters(folder: StateFolder, ledger: Mapping[str, SegmentRecord]) -> None:
    """Cuts local files of dead letters back to what is committed: the rest is about to come again.

    Those of segments that are not done are replaced in any case. A start of the run that was suspended may
    wake up and write on; it has the old file open, and what it adds is seen by nobody.
    """
    if folder.is_local:
        for record in ledger.values():
            for file in record.dead:
                if not record.done or os.path.getsize(folder.path(file.name)) > file.bytes:
                    crash_point("amid trim")
                    folder.write(file.name, folder.read(file.name)[: file.bytes])


def read_stops(folder: StateFolder, run: str, launch: str) -> list[Stop]:
    """Returns why a start of a run was stopped."""
    name = _stop_name(launch)
    try:
        opened = unseal(folder.read(name), seed(run, name))
    except FileNotFoundError:
        return []
    values = opened[0] if opened else {}
    try:
        return [Stop(values["status"], values["message"], values["limit"])]
    except KeyError:
        return [Stop(0, "the run was stopped, but the reason is damaged")]


def _began_at(launch: str) -> float:
    return attempt_began_at(launch) or time.time()


def _end_name(launch: str) -> str:
    return f"{FOLDER}/end.{launch}"


def _stop_name(launch: str) -> str:
    return f"{FOLDER}/stop.{launch}.json"


__all__ = [
    "DEAD_LETTERS",
    "FOLDER",
    "UNDELIVERED",
    "BlockRecord",
    "DeadFile",
    "ErrorLimit",
    "Ledger",
    "SegmentRecord",
    "last_attempt",
    "read_ledger",
    "read_stops",
    "segment_of",
    "trim_dead_letters",
]
