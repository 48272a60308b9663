"""EncodeRequests: from prepared records to compressed request bodies."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
from apache_beam.pvalue import PCollection

from mixpanel_http import limits
from mixpanel_http.endpoints import compress
from mixpanel_http.outgoing import request_bounds
from mixpanel_http.prepared import PreparedRecords
from transforms.elements import EncodedBlock, EncodedRequest, PreparedBlock


def encode_requests(records: PreparedRecords, max_records: int, max_bytes: int) -> Iterator[EncodedRequest]:
    """Yields a block's records as requests within both limits; nearly always it is one."""
    if not records.count:
        return
    if records.count <= max_records and len(records.body) <= max_bytes:
        yield EncodedRequest(0, records.count, records.body, compress(records.body))
        return
    lines = records.body.split(b"\n")
    for first, end in request_bounds(lines, max_records, max_bytes):
        body = b"\n".join(lines[first:end])
        yield EncodedRequest(first, end - first, body, compress(body))


@dataclass
class EncodeRequests(beam.PTransform[PCollection[PreparedBlock], PCollection[EncodedBlock]]):
    """Packs each block's records into NDJSON requests and gzips them.

    Attributes:
        records: records in a request, at most.
        bytes: uncompressed bytes in a request, at most.
    """

    records: int = limits.MAX_RECORDS_PER_REQUEST
    bytes: int = limits.MAX_REQUEST_BYTES

    def __post_init__(self) -> None:
        super().__init__()
        if not 1 <= self.records <= limits.MAX_RECORDS_PER_REQUEST:
            raise ValueError(
                f"a request holds 1 to {limits.MAX_RECORDS_PER_REQUEST} records, not {self.records}"
            )

    def expand(self, blocks: PCollection[PreparedBlock]) -> PCollection[EncodedBlock]:
        return blocks | "PackAndGzip" >> beam.ParDo(_EncodeFn(self.records, self.bytes))

    def display_data(self) -> dict[str, Any]:
        return {"records_per_request": self.records, "bytes_per_request": self.bytes}


@dataclass(eq=False)
class _EncodeFn(beam.DoFn):
    records: int
    bytes: int

    def __post_init__(self) -> None:
        super().__init__()

    def process(self, prepared: PreparedBlock) -> Iterator[EncodedBlock]:
        requests = tuple(encode_requests(prepared.records, self.records, self.bytes))
        yield EncodedBlock(prepared.block, prepared.records, requests)
