"""The pipeline of a run: from the manifest's address to committed outcomes, in one chain."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
from apache_beam.pvalue import PBegin, PCollection
from apache_beam.transforms.util import ReshufflePerKey

from mixpanel_http.client import Destination
from pipelines.config import Config
from pipelines.ledger import Ledger, read_ledger
from pipelines.manifest import read_manifest
from pipelines.state import StateFolder
from transforms.commit_outcomes import CommitOutcomes
from transforms.elements import Segment
from transforms.encode_requests import EncodeRequests
from transforms.import_requests import ImportLimits, ImportRequests
from transforms.prepare_records import PrepareRecords
from transforms.read_blocks import ReadBlocks
from transforms.segment_reader import BlockLimits
from transforms.storage import Storage
from transforms.tally import Counts


@dataclass
class ListSegments(beam.PTransform[PBegin, PCollection[Segment]]):
    """Yields the segments that are left to do, read from the manifest where the pipeline runs.

    The graph holds only the manifest's address, so that it stays small for a million files. One lane keeps
    the segments in the order of the plan.

    Attributes:
        folder: the run's folder.
        resumed: whether segments that are done are to be left out.
    """

    folder: StateFolder
    resumed: bool

    def __post_init__(self) -> None:
        super().__init__()

    def expand(self, begin: PBegin) -> PCollection[Segment]:
        return (
            begin
            | "Manifest" >> beam.Create([self.folder])
            | "Segments" >> beam.FlatMap(_segments_left, self.resumed).with_output_types(Segment)
            | "Lane" >> beam.Map(_in_one_lane)
            | "Reshuffle" >> ReshufflePerKey()
            | "DropLane" >> beam.Values()
        )

    def display_data(self) -> dict[str, Any]:
        return {"run": self.folder.uri, "resumed": self.resumed}


def _segments_left(folder: StateFolder, resumed: bool) -> Iterator[Segment]:
    manifest = read_manifest(folder)
    ledger = read_ledger(folder, manifest.key) if resumed else {}
    for segment in manifest.segments:
        if segment.id not in ledger or not ledger[segment.id].done:
            yield segment


def _in_one_lane(segment: Segment) -> tuple[str, Segment]:
    return "0", segment


def _read_blocks(config: Config, limits: BlockLimits, ledger: Ledger) -> ReadBlocks:
    letters = config.source.format == "dead_letters"
    storage = Storage(config.source.storage_options)
    return ReadBlocks(storage, limits, ledger, letters, config.source.verify)


@dataclass
class BackfillEvents(beam.PTransform[PBegin, PCollection[Counts]]):
    """The whole job: reads, prepares, encodes, imports and commits every segment that is left.

    Attributes:
        config: the run's configuration.
        destination: where to, and as whom.
        ledger: where outcomes are committed.
        dry_run: read and validate only.
    """

    config: Config
    destination: Destination
    ledger: Ledger
    dry_run: bool = False

    def __post_init__(self) -> None:
        super().__init__()

    def expand(self, begin: PBegin) -> PCollection[Counts]:
        config = self.config
        size, rate = config.limits, config.limits
        block = BlockLimits(size.records_per_request, size.bytes_per_request)
        pace = ImportLimits(
            rate.events_per_second, rate.bytes_per_minute, rate.in_flight, config.retry_policy()
        )
        return (
            begin
            | "ListSegments" >> ListSegments(self.ledger.folder, self.ledger.resumed)
            | "ReadBlocks" >> _read_blocks(config, block, self.ledger)
            | "PrepareRecords" >> PrepareRecords(config.event_rules())
            | "EncodeRequests" >> EncodeRequests(size.records_per_request, size.bytes_per_request)
            | "ImportRequests" >> ImportRequests(self.destination, pace, self.dry_run)
            | "CommitOutcomes" >> CommitOutcomes(self.ledger)
        )
