"""CommitOutcomes: the only step that writes state."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import apache_beam as beam
from apache_beam.pvalue import PCollection
from apache_beam.utils.windowed_value import WindowedValue

from mixpanel_http.crash_points import crash_point
from mixpanel_http.delivery import Stop
from transforms import activity, drain
from transforms.elements import BlockOutcome
from transforms.tally import Counts


class AttemptWriter(Protocol):
    """One attempt at a segment, as the ledger sees it."""

    def record(self, outcome: BlockOutcome) -> None:
        """Takes a block's outcome; makes it durable at once or soon."""
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


@dataclass(eq=False)
class _CommitFn(beam.DoFn):
    ledger: OutcomeLedger
    _attempts: dict[tuple[str, str], AttemptWriter] = field(default_factory=dict, init=False)
    _counts: Counts = field(default_factory=Counts, init=False)
    _stopped: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        super().__init__()

    def start_bundle(self) -> None:
        activity.here.began()
        self._attempts = {}

    def process(self, outcome: BlockOutcome) -> Iterator[Counts]:
        key = (outcome.segment, outcome.attempt)
        attempt = self._attempts.get(key)
        if attempt is None:
            attempt = self._attempts[key] = self.ledger.open_attempt(*key)
        crash_point("before record")
        attempt.record(outcome)
        crash_point("after record")
        activity.here.settled(outcome.tally)
        self._counts.add(outcome.tally.total)
        if attempt.is_complete():
            del self._attempts[key]
            crash_point("before commit")
            yield attempt.commit()
        stop = outcome.stop or self._limit_stop()
        if stop is not None and not self._stopped:
            self._stopped = True
            crash_point("before stop")
            self.ledger.write_stop(stop)
            crash_point("after stop")
            drain.request()

    def finish_bundle(self) -> Iterator[WindowedValue]:
        """Closes what is left; a segment whose last block has not come is not complete."""
        for attempt in self._attempts.values():
            attempt.close()
        self._attempts = {}
        activity.here.ended()
        yield from ()

    def _limit_stop(self) -> Stop | None:
        reason = self.ledger.too_many_errors(self._counts)
        return Stop(0, reason, limit=True) if reason is not None else None
