"""CommitOutcomes: the only step that writes state."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import apache_beam as beam
from apache_beam.pvalue import PCollection
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.timestamp import MIN_TIMESTAMP
from apache_beam.utils.windowed_value import WindowedValue

from mixpanel_http.crash_points import crash_point
from mixpanel_http.receipts import Stop
from transforms import activity, drain, unrecorded
from transforms.elements import BlockOutcome
from transforms.tally import Counts, Tally
from transforms.unrecorded import CannotRecord

MOST_PENDING: Final = 8  # completions; a disk that is slower than the run holds the run up


class AttemptWriter(Protocol):
    """One attempt at a segment, as the ledger sees it."""

    def take(self, outcome: BlockOutcome) -> None:
        """Takes a block's outcome.

        Raises:
            CannotRecord: if it had to be durable at once, and that failed.
        """
        ...

    def settle(self) -> None:
        """Makes durable what was taken, at once or soon.

        Raises:
            CannotRecord: if that fails.
        """
        ...

    def unrecorded(self) -> Mapping[int, Tally]:
        """Returns the counts of blocks that have come and are not durable, by ordinal."""
        ...

    def is_complete(self) -> bool:
        """Returns whether every block of the segment has come."""
        ...

    def commit(self) -> Counts:
        """Makes everything durable, then the segment's completion, and returns the segment's counts."""
        ...

    def close(self) -> None:
        """Makes everything durable that has come; nothing more will."""
        ...


class OutcomeLedger(Protocol):
    """Where outcomes are committed; `pipelines.ledger.Ledger` in production."""

    def open_attempt(self, segment: str, attempt: str) -> AttemptWriter:
        """Returns the writer of a new attempt."""
        ...

    def write_stop(self, stop: Stop) -> None:
        """Notes why the run must not go on."""
        ...

    def too_many_errors(self, counts: Counts) -> str | None:
        """Returns why the errors counted so far end the run, or None."""
        ...


@dataclass
class CommitOutcomes(beam.PTransform[PCollection[BlockOutcome], PCollection[Counts]]):
    """Commits what became of each block: dead letters first, then progress, then the segment's completion.

    Any number of attempts at a segment leave one committed outcome. Yields each segment's counts. Where the
    run must not go on, the reason is noted and the work is drained: what is under way is still committed.

    Attributes:
        ledger: where to.
    """

    ledger: OutcomeLedger

    def __post_init__(self) -> None:
        super().__init__()

    def expand(self, outcomes: PCollection[BlockOutcome]) -> PCollection[Counts]:
        return outcomes | "Commit" >> beam.ParDo(_CommitFn(self.ledger))

    def display_data(self) -> dict[str, Any]:
        return {"ledger": str(self.ledger)}


Key = tuple[str, str]
"""A segment and an attempt at it."""
Commit = tuple[Key, AttemptWriter, "Future[Counts]"]
"""An attempt that is complete, and what comes of it."""


class Commits:
    """Commits complete attempts one after the other, beside the bundle's own thread.

    A disk takes milliseconds to make a completion durable, a store more. Only the bundle's end waits for it:
    until then it may as well be missing, and its blocks are known by their progress.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, "commit")
        self._pending: deque[Commit] = deque()

    def add(self, key: Key, attempt: AttemptWriter) -> None:
        """Commits an attempt soon; nobody else may use it any more."""
        self._pending.append((key, attempt, self._pool.submit(attempt.commit)))

    def finished(self) -> list[Commit]:
        """Returns what is committed by now, or failed to be; waits for a disk that is far behind."""
        return self._first(MOST_PENDING)

    def rest(self) -> list[Commit]:
        """Returns what is left, after waiting for it."""
        return self._first(0)

    def _first(self, most_left: int) -> list[Commit]:
        found = []
        while self._pending and (len(self._pending) > most_left or self._pending[0][2].done()):
            wait([self._pending[0][2]])
            found.append(self._pending.popleft())
        return found

    def close(self) -> None:
        """Waits for what is under way."""
        self._pool.shutdown()


@dataclass(eq=False)
class _CommitFn(beam.DoFn):
    ledger: OutcomeLedger
    _attempts: dict[Key, AttemptWriter] = field(default_factory=dict, init=False)
    _lost: set[Key] = field(default_factory=set, init=False)
    _taken: set[Key] = field(default_factory=set, init=False)  # whose last blocks are not durable yet
    _following: int = field(default=0, init=False)
    _counts: Counts = field(default_factory=Counts, init=False)
    _stopped: bool = field(default=False, init=False)
    _commits: Commits = field(init=False)

    def __post_init__(self) -> None:
        super().__init__()

    def setup(self) -> None:
        self._commits = Commits()

    def start_bundle(self) -> None:
        activity.here.began()
        self._attempts = {}
        self._lost = set()
        self._taken = set()
        self._following = 0

    def process(self, outcome: BlockOutcome) -> Iterator[Counts]:
        key = (outcome.segment, outcome.attempt)
        if key in self._lost:
            unrecorded.here.add(outcome.segment, {outcome.ordinal: outcome.tally})
        else:
            try:
                self._record(key, outcome)
            except CannotRecord as problem:
                self._lose(key, problem, {outcome.ordinal: outcome.tally})
        self._following = max(self._following - 1, outcome.following)
        if not self._following:
            self._settle()
        yield from self._committed(self._commits.finished())
        stop = outcome.stop or self._limit_stop()
        if stop is not None and not self._stopped:
            self._stop(stop)

    def finish_bundle(self) -> Iterator[WindowedValue]:
        """Closes what is left; a segment whose last block has not come is not complete."""
        for key, attempt in list(self._attempts.items()):
            try:
                attempt.close()
            except CannotRecord as problem:
                self._lose(key, problem, attempt.unrecorded())
        self._attempts = {}
        for counts in self._committed(self._commits.rest()):
            yield WindowedValue(counts, MIN_TIMESTAMP, (GlobalWindow(),))
        activity.here.ended()
        if unrecorded.here.problem is not None:
            raise unrecorded.here.problem

    def teardown(self) -> None:
        self._commits.close()

    def _record(self, key: Key, outcome: BlockOutcome) -> None:
        attempt = self._attempts.get(key)
        if attempt is None:
            unrecorded.here.forget(outcome.segment)
            attempt = self._attempts[key] = self.ledger.open_attempt(*key)
        crash_point("before record")
        attempt.take(outcome)
        crash_point("after record")
        self._taken.add(key)
        activity.here.settled(outcome.segment, outcome.tally)
        self._counts.add(outcome.tally.total)
        if attempt.is_complete():
            del self._attempts[key]
            self._taken.discard(key)
            crash_point("before commit")
            self._commits.add(key, attempt)

    def _settle(self) -> None:
        """Makes durable what came together: each block by itself would take several times as long."""
        taken, self._taken = self._taken, set()
        for key in taken & self._attempts.keys():
            try:
                self._attempts[key].settle()
            except CannotRecord as problem:
                self._lose(key, problem, {})
        crash_point("after settling")

    def _committed(self, commits: list[Commit]) -> Iterator[Counts]:
        """Yields the counts of what is committed."""
        for key, attempt, future in commits:
            try:
                counts = future.result()
            except CannotRecord as problem:
                self._lose(key, problem, attempt.unrecorded())
            else:
                activity.here.completed(key[0], counts)
                yield counts

    def _lose(self, key: Key, problem: CannotRecord, blocks: Mapping[int, Tally]) -> None:
        """Ends the run, which cannot be written down any more; what comes in until then is counted."""
        unrecorded.here.note(problem)
        self._lost.add(key)
        attempt = self._attempts.pop(key, None)
        unrecorded.here.add(key[0], {**(attempt.unrecorded() if attempt else {}), **blocks})
        drain.request(drain.STOP_SECONDS)

    def _stop(self, stop: Stop) -> None:
        self._stopped = True
        try:
            self.ledger.write_stop(stop)
        except CannotRecord as problem:
            unrecorded.here.note(problem)
        drain.request(drain.STOP_SECONDS)

    def _limit_stop(self) -> Stop | None:
        reason = self.ledger.too_many_errors(self._counts)
        return Stop(0, reason, limit=True) if reason is not None else None
