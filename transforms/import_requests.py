"""ImportRequests: sends requests to Mixpanel, several at once, and says what became of every record."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import apache_beam as beam
import numpy as np
from apache_beam.io.components.adaptive_throttler import ThrottlingSignaler
from apache_beam.metrics.metric import Metrics
from apache_beam.pvalue import PCollection
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.timestamp import MIN_TIMESTAMP
from apache_beam.utils.windowed_value import WindowedValue
from msgspec import structs

from mixpanel_http.client import Destination, ImportClient
from mixpanel_http.crash_points import crash_point
from mixpanel_http.delivery import Deliverer, Receipt, RetryPolicy, Surroundings
from mixpanel_http.rate import Lane
from mixpanel_http.verdicts import Rejection
from transforms import activity, drain
from transforms.dead_letters import dead_letters, sent_insert_id
from transforms.elements import Block, BlockOutcome, EncodedBlock, EncodedRequest
from transforms.part_counts import Column
from transforms.tally import Tally


class Delivers(Protocol):
    """What sends a request and accounts for it; `Deliverer` in production."""

    def deliver(self, body: bytes, count: int, compressed: bytes | None = None) -> Receipt:
        """Returns what became of `count` records."""
        ...


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


def settle_block(encoded: EncodedBlock, delivers: Delivers | None) -> BlockOutcome:
    """Returns what became of every record of a block, after sending its requests one after the other.

    Args:
        encoded: the block.
        delivers: sends a request; None sends nothing and leaves the records as not attempted.
    """
    crash_point("before requests")
    tally = Tally()
    stop = None
    refused: list[tuple[Rejection, str | None]] = []
    undelivered: list[tuple[Rejection, str | None]] = []
    for request in encoded.requests:
        receipt = (
            delivers.deliver(request.body, request.count, request.compressed)
            if delivers
            else Receipt(not_attempted=request.count, ranges=[(0, request.count, "not_attempted")])
        )
        stop = stop or receipt.stop
        refused += _by_line(encoded, request, receipt.rejections)
        undelivered += _by_line(encoded, request, list(_undelivered(receipt)))
        _count(tally, encoded, request, receipt)
    crash_point("after requests")
    block, records = encoded.block, encoded.records
    tally.lines = block.lines
    tally.alterations.update(records.alterations)
    unmapped = block.mapped.rejections if block.mapped else ()
    count_refusals(tally, block, [*unmapped, *records.rejections, *(rejection for rejection, _ in refused)])
    count_read(tally, block, records.blank)
    count_mapped(tally, block)
    letters = [
        *dead_letters(block, unmapped, "map"),
        *dead_letters(block, records.rejections, "prepare"),
        *_letters(block, refused),
    ]
    return BlockOutcome(
        block.segment,
        block.attempt,
        block.ordinal,
        tally,
        letters,
        records.stamped_ids,
        block.notes,
        block.end,
        stop,
        _letters(block, undelivered),
        block.provisional,
    )


class _GivenUp:
    """Delivers nothing: a thread is stuck with it, and whatever it finds out comes too late."""

    def deliver(self, _body: bytes, count: int, _compressed: bytes | None = None) -> Receipt:
        """Returns that the records are undelivered."""
        receipt = Receipt(last_problem=drain.TOO_LATE)
        receipt.settle(0, count, "undelivered")
        return receipt


def _letters(block: Block, rejections: list[tuple[Rejection, str | None]]) -> list[bytes]:
    return dead_letters(block, [r for r, _ in rejections], "import", [i for _, i in rejections])


def _undelivered(receipt: Receipt) -> Iterator[Rejection]:
    """Yields what a letter says of each undelivered record: nothing against it, only what went wrong last."""
    if not receipt.undelivered:
        return
    refused = {rejection.index for rejection in receipt.rejections}
    for first, count, fate in receipt.ranges:
        if fate == "undelivered":
            for index in range(first, first + count):
                if index not in refused:
                    yield Rejection(index, "undelivered", None, receipt.last_problem)


def _by_line(
    encoded: EncodedBlock, request: EncodedRequest, rejections: Sequence[Rejection]
) -> list[tuple[Rejection, str | None]]:
    """Returns rejections by the block's lines instead of the request's, each with the id that was sent."""
    if not rejections:
        return []
    sent = request.body.split(b"\n")
    kept, outputs = encoded.records.kept, encoded.records.outputs
    found = []
    for rejection in rejections:
        record = request.first + rejection.index
        line = record if kept is None else kept[record]
        output = None if outputs is None else outputs[record]
        by_line = structs.replace(rejection, index=line, output=output)
        found.append((by_line, sent_insert_id(sent[rejection.index])))
    return found


def line_parts(block: Block) -> Column:
    """Returns for each line of a block the segment's part that it comes from."""
    return np.repeat(*_parts_and_lines(block))


def _parts_and_lines(block: Block) -> tuple[Column, Column]:
    """Returns the parts that a block has lines of, and how many of each."""
    parts = np.array([span.part for span in block.spans], np.int64)
    return parts, np.array([span.lines for span in block.spans], np.int64)


def _count(tally: Tally, encoded: EncodedBlock, request: EncodedRequest, receipt: Receipt) -> None:
    """Adds a receipt; the outcomes by part, where the block has several."""
    tally.charge(receipt)
    spans = encoded.block.spans
    if len(spans) == 1:
        for fate in ("imported", "undelivered", "not_attempted"):
            if count := getattr(receipt, fate):
                tally.parts.add(spans[0].part, fate, count)
        return
    _count_by_part(tally, encoded, request, receipt)


def _count_by_part(tally: Tally, encoded: EncodedBlock, request: EncodedRequest, receipt: Receipt) -> None:
    """Adds the outcome of each record to its own part; the receipt says which records fared how."""
    parts, kept = line_parts(encoded.block), encoded.records.kept
    of_records = parts if kept is None else parts[np.asarray(kept, np.int64)]
    refused = np.array([rejection.index for rejection in receipt.rejections], np.int64)
    for first, count, fate in receipt.ranges:
        fared = of_records[request.first + first : request.first + first + count]
        if len(refused):
            fared = np.delete(fared, refused[(refused >= first) & (refused < first + count)] - first)
        tally.parts.add_each(fate, fared)


def count_refusals(tally: Tally, block: Block, refusals: list[Rejection]) -> None:
    """Counts refused records; their index is that of their line."""
    if not refusals:
        return
    lines = np.array([rejection.index for rejection in refusals], np.int64)
    tally.parts.add_each("dead_lettered", line_parts(block)[lines])
    tally.by_reason.update(rejection.reason for rejection in refusals)


def count_mapped(tally: Tally, block: Block) -> None:
    """Counts what a map left out of a block, and the records that it made beyond one of each line."""
    mapped = block.mapped
    if mapped is None or not (mapped.filtered or mapped.expanded):
        return
    parts = line_parts(block)
    filtered = np.array([line for line, _ in mapped.filtered], np.int64)
    tally.parts.add_each("filtered", parts[filtered])
    tally.by_filter.update(reason for _, reason in mapped.filtered)
    tally.parts.add_each("expanded", parts[np.asarray(mapped.expanded, np.int64)])


def count_read(tally: Tally, block: Block, blank: int) -> None:
    """Counts the records read from what was read, not from what became of them: lines less blank ones."""
    if len(block.spans) == 1:
        tally.parts.add(block.spans[0].part, "read", block.lines - blank)
    elif block.spans:
        tally.parts.add_each("read", *_parts_and_lines(block))
        if blank:
            lines = block.raw.removesuffix(b"\n").split(b"\n")
            empty = np.array([not line.strip(b" \t\r") for line in lines])
            tally.parts.add_each("read", line_parts(block)[empty], -np.ones(int(empty.sum()), np.int64))


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
            self._client, lane, self.limits.retry, Surroundings(waiting=activity.here.waiting)
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
        return [settle_block(encoded, _GivenUp()) for encoded in left.values()]

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
