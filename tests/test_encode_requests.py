"""EncodeRequests: prepared records in, gzipped requests within the limits out."""

import gzip
import pickle
from itertools import pairwise

import apache_beam as beam
import pytest
from apache_beam.testing.util import assert_that, equal_to
from hypothesis import given
from hypothesis import strategies as st

from mixpanel_http.prepared import PreparedRecords
from mixpanel_http.verdicts import Rejection
from tests.steps import shown_settings, step_pipeline
from transforms.elements import Block, EncodedBlock, EncodedRequest, PreparedBlock, Span
from transforms.encode_requests import EncodeRequests, encode_requests

LINES = st.lists(
    st.integers(2, 30).map(lambda size: b"{" + b"x" * (size - 2) + b"}"), min_size=1, max_size=20
)


def records_of(lines: list[bytes]) -> PreparedRecords:
    return PreparedRecords(b"\n".join(lines), len(lines))


@given(LINES, st.integers(1, 8), st.integers(1, 80))
def test_requests_hold_all_records_in_order_within_both_limits(
    lines: list[bytes], max_records: int, max_bytes: int
) -> None:
    requests = list(encode_requests(records_of(lines), max_records, max_bytes))

    assert [text for request in requests for text in request.body.split(b"\n")] == lines
    position = 0
    for request in requests:
        assert request.first == position
        assert request.count == len(request.body.split(b"\n")) <= max_records
        assert len(request.body) <= max_bytes or request.count == 1
        assert gzip.decompress(request.compressed) == request.body
        position += request.count


@given(LINES, st.integers(1, 8), st.integers(1, 80))
def test_a_request_is_ended_only_by_a_record_that_does_not_fit(
    lines: list[bytes], max_records: int, max_bytes: int
) -> None:
    requests = list(encode_requests(records_of(lines), max_records, max_bytes))
    for request, following in pairwise(requests):
        next_record = following.body.split(b"\n")[0]

        assert request.count == max_records or len(request.body) + 1 + len(next_record) > max_bytes


def test_what_fits_is_one_request_of_the_same_bytes() -> None:
    records = records_of([b"{}"] * 2000)
    (request,) = encode_requests(records, 2000, len(records.body))

    assert request.body is records.body
    assert (request.first, request.count) == (0, 2000)


def test_no_records_are_no_request() -> None:
    assert list(encode_requests(PreparedRecords(b"", 0, kept=()), 2000, 10_000)) == []


def test_compression_pays() -> None:
    (request,) = encode_requests(records_of([b'{"event":"Signup","properties":{}}'] * 1000), 2000, 10**6)

    assert len(request.compressed) < len(request.body) / 10


@pytest.mark.parametrize("records", [0, 2001])
def test_a_request_of_no_or_too_many_records_cannot_be_asked_for(records: int) -> None:
    with pytest.raises(ValueError, match="1 to 2000 records"):
        EncodeRequests(records)


# --- as a step ----------------------------------------------------------------------------------------------

BLOCK = Block("s", "a", 0, b"{}\nx\n{1}\n", (Span(0, "x.json", 3, 9, 1, 0),))
RECORDS = PreparedRecords(b"{}\n{1}", 2, (0, 2), (Rejection(1, "invalid_json", None, "m"),))


def bodies(encoded: EncodedBlock) -> list[tuple[int, int, bytes, bytes]]:
    return [(r.first, r.count, r.body, gzip.decompress(r.compressed)) for r in encoded.requests]


def cargo(encoded: EncodedBlock) -> tuple[Block, PreparedRecords]:
    return encoded.block, encoded.records


def test_the_step_packs_each_block_and_lets_its_refusals_ride_along() -> None:
    with step_pipeline() as pipeline:
        encoded = pipeline | beam.Create([PreparedBlock(BLOCK, RECORDS)]) | EncodeRequests(records=1)
        assert_that(
            encoded | "Bodies" >> beam.Map(bodies),
            equal_to([[(0, 1, b"{}", b"{}"), (1, 1, b"{1}", b"{1}")]]),
            "Requests",
        )
        assert_that(encoded | "Cargo" >> beam.Map(cargo), equal_to([(BLOCK, RECORDS)]), "Refusals")


def test_the_step_passes_on_a_block_without_records() -> None:
    end = PreparedBlock(Block("s", "a", 1, b"", (), end=True), PreparedRecords(b"", 0))
    with step_pipeline() as pipeline:
        encoded = pipeline | beam.Create([end]) | EncodeRequests()
        assert_that(encoded, equal_to([EncodedBlock(end.block, end.records, ())]))


def test_the_step_shows_its_settings() -> None:
    shown = shown_settings(EncodeRequests(500, 9000))

    assert shown == {"records_per_request": 500, "bytes_per_request": 9000}


def test_step_and_elements_survive_pickling() -> None:
    step = pickle.loads(pickle.dumps(EncodeRequests(500, 9000)))
    block = EncodedBlock(BLOCK, RECORDS, (EncodedRequest(0, 1, b"{}", b"z"),))

    assert (step.records, step.bytes) == (500, 9000)
    assert pickle.loads(pickle.dumps(block)) == block
