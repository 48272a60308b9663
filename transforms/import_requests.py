"""ImportRequests: sends requests to Mixpanel, several at once, and says what became of every record."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import apache_beam as beam
from apache_beam.io.components.adaptive_throttler import ThrottlingSignaler
from apache_beam.metrics.metric import Metrics
from apache_beam.pvalue import PCollection
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.timestamp import MIN_TIMESTAMP
from apache_beam.utils.windowed_value import WindowedValue

from mixpanel_http.awake import surroundings_here
from mixpanel_http.client import ImportClient
from mixpanel_http.delivery import Deliverer
from mixpanel_http.destinations import Destination
from mixpanel_http.rate import Lane
from mixpanel_http.retrying import RetryPolicy
from transforms import activity, drain
from transforms.elements import BlockOutcome, EncodedBlock
from transforms.settle_block import GivenUp, settle_block


@dataclass(frozen=True, slots=True)
class ImportLimits:
    """How fast the run may send, and how long it tries.

    Attributes:
        events_per_second: Mixpanel's limit, of which a little less is used.
        bytes_per_minute: the limit of uncompressed bytes.
        in_flight: requests at once.
        retry: how a request is repeated.
        lanes: how many workers at once share these limits; `in_flight` is for each.
    """

    events_per_second: float
    bytes_per_minute: float
    in_flight: int
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    lanes: int = 1


@dataclass
class ImportRequests(beam.PTransform[PCollection[EncodedBlock], PCollection[BlockOutcome]]):
    """Imports each block's requests, with several in flight, and yields what became of every record.

    At least once: a request whose answer is lost is sent again, with the same `$insert_id`s, by which
    Mixpanel shows one copy. Whatever the server or the network does is part of the outcome; nothing is raised
    for it.

    Attributes:
        destination: where to and as whom; holds references to secrets only.
        limits: pace, requests at once, patience.
        dry_run: send nothing.
    """

    destination: Destination
    limits: ImportLimits
    dry_run: bool = False

    def __post_init__(self) -> None:
        super().__init__()
        if self.limits.in_flight < 1:
            raise ValueError(f"in_flight must be at least 1, not {self.limits.in_flight}")

    def expand(self, blocks: PCollection[EncodedBlock]) -> PCollection[BlockOutcome]:
        return blocks | "Import" >> beam.ParDo(_ImportFn(self.destination, self.limits, self.dry_run))

    def display_data(self) -> dict[str, Any]:
        return {
            "endpoint": self.destination.base_url,
            "project_id": self.destination.project_id or "",
            "events_per_second": self.limits.events_per_second,
            "in_flight": self.limits.in_flight,
            "dry_run": self.dry_run,
        }


@dataclass(eq=False)
class _ImportFn(beam.DoFn):
    destination: Destination
    limits: ImportLimits
    dry_run: bool
    _pending: dict[Future[BlockOutcome], EncodedBlock] = field(default_factory=dict, init=False)
    _client: ImportClient | None = field(default=None, init=False)
    _deliverer: Deliverer | None = field(default=None, init=False)
    _pool: ThreadPoolExecutor | None = field(default=None, init=False)
    _sender: drain.Sender | None = field(default=None, init=False)
    _throttling: ThrottlingSignaler | None = field(default=None, init=False)
    _unsignalled_s: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        super().__init__()

    def setup(self) -> None:
        self._pool = ThreadPoolExecutor(self.limits.in_flight, "import")
        self._throttling = ThrottlingSignaler(type(self).__name__)
        if self.dry_run:
            return
        self._client = ImportClient(self.destination, self.limits.in_flight)
        lane = Lane(self.limits.events_per_second, self.limits.bytes_per_minute, self.limits.lanes)
        self._deliverer = Deliverer(
            self._client, lane, self.limits.retry, surroundings_here(activity.here.waiting)
        )
        halt, cut_off = self._deliverer.drain, self._client.cut_off
        self._sender = drain.Sender(halt, cut_off, lambda: list(self._pending))
        drain.attach(self._sender)

    def start_bundle(self) -> None:
        self._pending = {}

    def process(self, encoded: EncodedBlock) -> Iterator[BlockOutcome]:
        assert self._pool is not None
        if len(self._pending) >= self.limits.in_flight:
            yield from self._settled()
        self._pending[self._pool.submit(self._settle, encoded)] = encoded

    def finish_bundle(self) -> Iterator[WindowedValue]:
        while self._pending:
            for outcome in self._settled():
                yield WindowedValue(outcome, MIN_TIMESTAMP, (GlobalWindow(),))

    def teardown(self) -> None:
        """Lets go of everything. After a bundle that failed requests are under way: they are not sent again.

        Then the sender stays known, so that the run waits for them before it closes its books.
        """
        if self._deliverer is not None:
            self._deliverer.drain()
        if self._sender is not None and all(future.done() for future in self._pending):
            drain.detach(self._sender)
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
        if self._client is not None:
            self._client.close()

    def _settle(self, encoded: EncodedBlock) -> BlockOutcome:
        """Returns a block's outcome; one that stops the run ends the reading now, not when it is noted."""
        outcome = settle_block(encoded, self._deliverer)
        if outcome.stop is not None:
            drain.request(drain.STOP_SECONDS)
        return outcome

    def _settled(self) -> Iterator[BlockOutcome]:
        """Yields the outcomes that are there, after waiting for one; counts on the bundle's own thread."""
        outcomes = self._some()
        stop = next((outcome.stop for outcome in outcomes if outcome.stop), None)
        if stop is not None:
            # The commit ends the run at the first stop it sees: let it see everything else before.
            while self._pending:
                outcomes += self._some()
            outcomes = [replace(outcome, stop=None) for outcome in outcomes]
            outcomes[-1] = replace(outcomes[-1], stop=stop)
        outcomes[0] = replace(outcomes[0], following=len(outcomes) - 1)
        for outcome in outcomes:
            total = outcome.tally.total
            Metrics.counter("backfill", "imported_attempts").inc(total.imported)
            Metrics.counter("backfill", "dead_lettered_attempts").inc(total.dead_lettered)
            self._signal_throttled(outcome.tally.waited_s)
            yield outcome

    def _some(self) -> list[BlockOutcome]:
        """Returns outcomes after waiting for one; where patience ends before, those of blocks given up."""
        done = drain.first_done(self._pending)
        if done:
            for future in done:
                del self._pending[future]
            return [future.result() for future in done]
        left, self._pending = self._pending, {}
        return [settle_block(encoded, GivenUp()) for encoded in left.values()]

    def _signal_throttled(self, slept_s: float) -> None:
        """Tells the runner of time slept, in whole seconds, so that it does not add workers for it.

        The bundle as a whole slept for as long as its requests did on average: they wait side by side.
        """
        assert self._throttling is not None
        self._unsignalled_s += slept_s / self.limits.in_flight
        whole = int(self._unsignalled_s)
        if whole:
            self._throttling.signal_throttled(whole)
            self._unsignalled_s -= whole
