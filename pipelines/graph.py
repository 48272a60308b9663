"""The pipeline of a run: from the manifest's address to committed outcomes, in one chain."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
from apache_beam.pvalue import PBegin, PCollection
from apache_beam.transforms.util import ReshufflePerKey

from mixpanel_http.destinations import Destination
from mixpanel_http.kinds import KINDS
from pipelines.config import Config
from pipelines.config_maps import MapConfig
from pipelines.ledger import Ledger
from pipelines.manifest import read_manifest
from pipelines.state import StateFolder
from record_maps.functions import folder_of
from transforms.commit_outcomes import CommitOutcomes
from transforms.elements import BlockOutcome, PreparedBlock, Segment
from transforms.encode_requests import EncodeRequests
from transforms.import_in_order import ImportInOrder
from transforms.import_requests import ImportLimits, ImportRequests
from transforms.map_records import MapRecords
from transforms.prepare_records import PrepareRecords
from transforms.read_blocks import ReadBlocks
from transforms.segment_reader import BlockLimits
from transforms.send_in_order import OnceOnly, RequestLimits
from transforms.storage import Storage
from transforms.tally import Counts


@dataclass
class ListSegments(beam.PTransform[PBegin, PCollection[Segment]]):
    """Yields the run's segments, read from the manifest where the pipeline runs.

    The graph holds only the manifest's address, and what is shuffled is the lanes' numbers: both stay small
    for ten million files. Each lane yields its segments in the order of the plan.

    Attributes:
        folder: the run's folder.
        lanes: into how many the segments are dealt.
    """

    folder: StateFolder
    lanes: int = 1

    def __post_init__(self) -> None:
        super().__init__()

    def expand(self, begin: PBegin) -> PCollection[Segment]:
        return (
            begin
            | "Lanes" >> beam.Create([(str(lane), lane) for lane in range(self.lanes)])
            | "Reshuffle" >> ReshufflePerKey()
            | "Lane" >> beam.Values()
            | "Segments" >> beam.FlatMap(segments_of_lane, self.folder, self.lanes).with_output_types(Segment)
        )

    def display_data(self) -> dict[str, Any]:
        return {"run": self.folder.uri, "lanes": self.lanes}


def segments_of_lane(lane: int, folder: StateFolder, lanes: int) -> Iterator[Segment]:
    """Yields a lane's segments in the order of the plan."""
    segments = read_manifest(folder).segments
    yield from (segments[index] for index in range(lane, len(segments), lanes))


def _read_blocks(config: Config, limits: BlockLimits, ledger: Ledger) -> ReadBlocks:
    letters = config.source.format == "dead_letters"
    storage = Storage(config.source.storage_options)
    verify, choice, duplicates = config.source.verify, config.format_choice(), config.records.duplicate_keys
    return ReadBlocks(storage, limits, ledger, letters, verify, choice, duplicates)


def _map_records(declared: MapConfig) -> MapRecords:
    return MapRecords(declared.to_spec(), folder_of(declared.function) if declared.function else None)


@dataclass
class BackfillEvents(beam.PTransform[PBegin, PCollection[Counts]]):
    """The whole job: reads, prepares, encodes, imports and commits every segment that is left.

    Attributes:
        config: the run's configuration.
        destination: where to, and as whom.
        ledger: where outcomes are committed.
        dry_run: read and validate only.
        lanes: parts in which work and limits are shared.
    """

    config: Config
    destination: Destination
    ledger: Ledger
    dry_run: bool = False
    lanes: int = 1

    def __post_init__(self) -> None:
        super().__init__()

    def expand(self, begin: PBegin) -> PCollection[Counts]:
        config = self.config
        prepare = KINDS[config.records.kind].prepare
        assert prepare is not None, "no records that pass in blocks"
        blocks = (
            begin
            | "ListSegments" >> ListSegments(self.ledger.folder, self.lanes)
            | "ReadBlocks" >> _read_blocks(config, _request(config), self.ledger)
        )
        if config.records.map is not None:
            blocks = blocks | "MapRecords" >> _map_records(config.records.map)
        prepared = blocks | "PrepareRecords" >> PrepareRecords(config.rules(), prepare=prepare)
        return self._sent(prepared) | "CommitOutcomes" >> CommitOutcomes(self.ledger)

    def _sent(self, prepared: PCollection[PreparedBlock]) -> PCollection[BlockOutcome]:
        """Sends block by block, or, where the order counts, update by update in the order of each profile."""
        request, rate = _request(self.config), self.config.limits
        pace = ImportLimits(
            rate.events_per_second,
            rate.bytes_per_minute,
            max(1, rate.in_flight // self.lanes),
            self.config.retry_policy(),
            self.lanes,
        )
        if KINDS[self.config.records.kind].in_order:
            once = OnceOnly(self.ledger.intents(), self.config.limits.retry.non_idempotent == "retry")
            size = RequestLimits(request.records, request.bytes, self.config.records.collapse)
            step = ImportInOrder(self.destination, pace, size, once, self.dry_run)
            return prepared | "ImportInOrder" >> step
        return (
            prepared
            | "EncodeRequests" >> EncodeRequests(request.records, request.bytes)
            | "ImportRequests" >> ImportRequests(self.destination, pace, self.dry_run)
        )


def _request(config: Config) -> BlockLimits:
    """Returns the largest request, and so the largest block."""
    return BlockLimits(config.limits.records_per_request, config.limits.bytes_per_request)
