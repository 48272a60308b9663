"""ImportInOrder: sends updates to Mixpanel, those of each profile in the order of the input."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final

import apache_beam as beam
import numpy as np
from apache_beam.metrics.metric import Metrics
from apache_beam.pvalue import PCollection
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.timestamp import MIN_TIMESTAMP
from apache_beam.utils.windowed_value import WindowedValue

from mixpanel_http.awake import surroundings_here
from mixpanel_http.client import ImportClient
from mixpanel_http.delivery import Deliverer
from mixpanel_http.destinations import Destination
from mixpanel_http.endpoints import ROUTES, Endpoint
from mixpanel_http.rate import Lane
from mixpanel_http.receipts import Stop
from transforms import activity, drain, unrecorded
from transforms.block_outcomes import outcome_of
from transforms.elements import BlockOutcome, PreparedBlock
from transforms.import_requests import ImportLimits
from transforms.in_order import Batch, Channel, OpenBlock, deal, open_block
from transforms.send_in_order import DeliversUpdates, OnceOnly, RequestLimits, Sent, not_sent, send
from transforms.unrecorded import CannotRecord

HELD_BYTES: Final = 96 << 20  # of blocks that wait for an outcome; above, requests leave that are not full
AT_ONCE: Final = 10  # requests' worth of updates among which those of a profile become one, in each channel
QUEUED: Final = 2  # requests that wait in each channel, on average, before reading goes on


@dataclass
class ImportInOrder(beam.PTransform[PCollection[PreparedBlock], PCollection[BlockOutcome]]):
    """Imports updates over channels that each send one request after the other; yields what became of them.

    All updates of one profile take the same channel, in the order in which they come; so the steps before
    must yield blocks in the order of the input. Blocks leave in that order, too: whatever a crash leaves
    undone is then all that comes behind some block, and sending it again in order ends in the same state.
    An update behind an undelivered one of its profile is not sent, and undelivered as well.

    At least once where that is harmless; `$add` and `$append` at most once, and ambiguous where it is not
    known whether they got through.

    Attributes:
        destination: where to and as whom; holds references to secrets only.
        limits: pace, channels, patience.
        request: what a request may hold.
        once_only: what is done with `$add` and `$append`.
        dry_run: send nothing.
    """

    destination: Destination
    limits: ImportLimits
    request: RequestLimits
    once_only: OnceOnly = field(default_factory=OnceOnly)
    dry_run: bool = False

    def __post_init__(self) -> None:
        super().__init__()

    def expand(self, blocks: PCollection[PreparedBlock]) -> PCollection[BlockOutcome]:
        outcomes: PCollection[BlockOutcome] = blocks | "Import" >> beam.ParDo(_ImportFn(self))
        return outcomes

    def display_data(self) -> dict[str, Any]:
        return {
            "endpoint": self.destination.base_url,
            "project_id": self.destination.project_id or "",
            "events_per_second": self.limits.events_per_second,
            "in_flight": self.limits.in_flight,
            "records_per_request": self.request.records,
            "bytes_per_request": self.request.bytes,
            "collapse": self.request.collapse,
            "repeats_all": self.once_only.repeats_all,
            "dry_run": self.dry_run,
        }


class _ImportFn(beam.DoFn):
    def __init__(self, settings: ImportInOrder) -> None:
        self._destination = settings.destination
        self._limits = settings.limits
        self._request = settings.request
        self._once_only = settings.once_only
        self._dry_run = settings.dry_run

    def setup(self) -> None:
        self._senders = None if self._dry_run else Senders(self._destination, self._limits)
        self._threads = [ThreadPoolExecutor(1, f"import-{n}") for n in range(self._limits.in_flight)]

    def start_bundle(self) -> None:
        held: set[int] = set()
        size, at_once = self._request, AT_ONCE if self._request.collapse else 1
        self._channels = [Channel(size.records, size.bytes, held, at_once) for _ in self._threads]
        self._blocks: deque[OpenBlock] = deque()
        self._held_bytes = 0
        self._under_way: dict[Future[Sent], Batch] = {}
        self._stop: Stop | None = None
        if self._senders is not None:
            self._senders.under_way = self._under_way

    def process(self, prepared: PreparedBlock) -> Iterator[BlockOutcome]:
        block = open_block(prepared, self._once_only.repeats_all)
        self._blocks.append(block)
        self._held_bytes += block.held_bytes
        if self._senders is None:
            block.settle(np.flatnonzero(block.fates == 0), "not_attempted")
        for number, piece in deal(block, len(self._channels)) if block.left else ():
            self._channels[number].add(piece)
            while self._channels[number].is_full:
                self._submit(number)
        while len(self._under_way) > QUEUED * len(self._channels):
            self._settle_some()
        if self._held_bytes > HELD_BYTES:
            self._finish_all()
        yield from self._settled()

    def finish_bundle(self) -> Iterator[WindowedValue]:
        self._finish_all()
        for outcome in self._settled():
            yield WindowedValue(outcome, MIN_TIMESTAMP, (GlobalWindow(),))

    def teardown(self) -> None:
        for thread in self._threads:
            thread.shutdown(wait=False, cancel_futures=True)
        if self._senders is not None:
            self._senders.close()

    def _submit(self, number: int) -> None:
        channel = self._channels[number]
        batch = channel.take()
        assert self._senders is not None
        delivers = self._senders.of(ROUTES[batch.route].endpoint)
        self._under_way[self._threads[number].submit(self._send, channel, batch, delivers)] = batch

    def _send(self, channel: Channel, batch: Batch, delivers: DeliversUpdates) -> Sent:
        """Returns what became of a batch; a stop ends the reading now, not when it is noted."""
        sent = send(channel, batch, delivers, self._request, self._once_only)
        if sent.stop is not None:
            drain.request(drain.STOP_SECONDS)
        return sent

    def _settle_some(self) -> None:
        """Waits for a request, and notes what became of all that have ended, or are given up."""
        done = drain.first_done(self._under_way)
        for future in done or list(self._under_way):
            batch = self._under_way.pop(future)
            sent = self._sent(future, batch) if done else self._given_up(future, batch)
            sent.settle()
            self._stop = self._stop or sent.stop

    def _sent(self, future: Future[Sent], batch: Batch) -> Sent:
        """Returns what became of a batch; nothing, where it could not be written down before it is sent."""
        try:
            return future.result()
        except CannotRecord as problem:
            unrecorded.here.note(problem)
            drain.request(drain.STOP_SECONDS)
            return not_sent(batch, "not_attempted", str(problem))

    def _given_up(self, future: Future[Sent], batch: Batch) -> Sent:
        if future.cancel():
            return not_sent(batch, "not_attempted")
        repeatable = ROUTES[batch.route].repeatable or self._once_only.repeats_all
        return not_sent(batch, "undelivered" if repeatable else "ambiguous", drain.TOO_LATE)

    def _finish_all(self) -> None:
        """Sends all that waits, also in requests that are not full, and waits for it."""
        while self._under_way:
            self._settle_some()
        self._merge_rests()
        for number, channel in enumerate(self._channels):
            while channel.count:
                self._submit(number)
        while self._under_way:
            self._settle_some()

    def _merge_rests(self) -> None:
        """Puts together what waits in several channels, so that requests are fuller; nothing is under way."""
        most = self._request.records
        into = self._channels[0]
        for channel in self._channels[1:]:
            if into.count + channel.count <= most:
                into.take_from(channel)
            else:
                into = channel

    def _settled(self) -> Iterator[BlockOutcome]:
        """Yields the outcomes of blocks that have one and before which there is none without.

        Where the run must not go on, the last of them says so: the commit ends the run at the first that
        does, and is to see everything else before.
        """
        if self._stop is not None:
            self._finish_all()
        while self._blocks and not self._blocks[0].left:
            block = self._blocks.popleft()
            self._held_bytes -= block.held_bytes
            outcome = outcome_of(block, None if self._blocks else self._stop)
            total = outcome.tally.total
            Metrics.counter("backfill", "imported_attempts").inc(total.imported)
            Metrics.counter("backfill", "dead_lettered_attempts").inc(total.dead_lettered)
            yield outcome


@dataclass(eq=False)
class Senders:
    """What sends to each endpoint, at one pace for all; connections are opened where they are needed."""

    destination: Destination
    limits: ImportLimits
    under_way: Collection[Future[Sent]] = ()

    def __post_init__(self) -> None:
        limits = self.limits
        self._lane = Lane(limits.events_per_second, limits.bytes_per_minute, limits.lanes)
        self._clients: dict[str, ImportClient] = {}
        self._deliverers: dict[str, Deliverer] = {}
        self._halted = False
        self._sender = drain.Sender(self.halt, self.cut_off, lambda: list(self.under_way))
        drain.attach(self._sender)

    def of(self, endpoint: Endpoint) -> DeliversUpdates:
        """Returns what sends to an endpoint."""
        name = endpoint.name
        if name not in self._deliverers:
            client = ImportClient(self.destination, self.limits.in_flight, endpoint=endpoint)
            around = surroundings_here(activity.here.waiting)
            made = Deliverer(client, self._lane, self.limits.retry, around, endpoint)
            self._clients[name], self._deliverers[name] = client, made
            if self._halted:
                made.drain()
        return self._deliverers[name]

    def halt(self) -> None:
        """Sends nothing more. Does not wait."""
        self._halted = True
        for deliverer in list(self._deliverers.values()):
            deliverer.drain()

    def cut_off(self) -> None:
        """Gives up what waits for an answer. Does not wait."""
        for client in list(self._clients.values()):
            client.cut_off()

    def close(self) -> None:
        """Closes all connections. What is under way after a bundle that failed is not sent again.

        Then it stays known, so that the run waits for it before it closes its books.
        """
        self.halt()
        if all(future.done() for future in list(self.under_way)):
            drain.detach(self._sender)
        for client in self._clients.values():
            client.close()
