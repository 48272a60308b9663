"""ReadBlocks: segments in, blocks of lines out, in order, with damage in the last."""

import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.testing.util import assert_that, equal_to

from tests.files import parts_of, read_blocks
from tests.steps import shown_settings, step_pipeline
from transforms.elements import Block, EarlierSends, Segment
from transforms.read_blocks import ReadBlocks
from transforms.segment_reader import BlockLimits
from transforms.storage import Storage

LIMITS = BlockLimits(2, 1000)


@dataclass(frozen=True)
class Known:
    """What earlier attempts settled, as a ledger would tell it."""

    settled: Mapping[str, set[int]] = field(default_factory=dict)
    bases: Mapping[tuple[str, int], int] = field(default_factory=dict)

    def attend(self) -> None:
        pass

    def settled_blocks(self, segment_id: str, attempt: str) -> set[int] | None:
        return self.settled.get(segment_id, set())

    def earlier_sends(self, segment_id: str, attempt: str) -> Mapping[int, EarlierSends]:
        return {}

    def ordered_content(self, name: str) -> bytes:
        raise FileNotFoundError(name)

    def line_bases(self) -> Mapping[tuple[str, int], int]:
        return self.bases


def without_attempt(block: Block) -> Block:
    return replace(block, attempt="attempt")


def attempt_of(block: Block) -> tuple[str, str]:
    return block.segment, block.attempt


@pytest.fixture
def segment(tmp_path: Path) -> Segment:
    (tmp_path / "a.json").write_bytes(b"1\n2\n3\n4\n5\n")
    (tmp_path / "b.json.gz").write_bytes(b"\x1f\x8b\x08\0 this is no gzip")
    return Segment("segment", (*parts_of(tmp_path / "a.json"), *parts_of(tmp_path / "b.json.gz")))


def test_the_step_yields_the_blocks_of_a_segment(segment: Segment) -> None:
    with step_pipeline() as pipeline:
        blocks = pipeline | beam.Create([segment]) | ReadBlocks(Storage(), LIMITS, Known())
        assert_that(blocks | beam.Map(without_attempt), equal_to(read_blocks(segment.parts, LIMITS)))


def test_the_step_leaves_out_what_an_earlier_attempt_settled(segment: Segment) -> None:
    left = [block for block in read_blocks(segment.parts, LIMITS) if block.ordinal not in (0, 2)]
    with step_pipeline() as pipeline:
        known = Known({"segment": {0, 2}, "another": {1}})
        blocks = pipeline | beam.Create([segment]) | ReadBlocks(Storage(), LIMITS, known)
        assert_that(blocks | beam.Map(without_attempt), equal_to(left))


def test_the_step_numbers_lines_from_what_is_known(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b"1\n2\n3\n")
    second = Segment("second", parts_of(path, [2])[1:])
    with step_pipeline() as pipeline:
        known = Known(bases={(str(path), 2): 2})
        blocks = pipeline | beam.Create([second]) | ReadBlocks(Storage(), LIMITS, known)
        first_lines = blocks | beam.FlatMap(lambda block: [span.first_line for span in block.spans])
        assert_that(first_lines, equal_to([2]))


def test_each_attempt_has_an_id_of_its_own(segment: Segment) -> None:
    twice = [segment, replace(segment, id="again")]

    def one_each(attempts: list[tuple[str, str]]) -> None:
        found = set(attempts)
        assert len(found) == len({attempt for _, attempt in found}) == 2

    with step_pipeline() as pipeline:
        blocks = pipeline | beam.Create(twice) | ReadBlocks(Storage(), LIMITS, Known())
        assert_that(blocks | beam.Map(attempt_of), one_each)


@pytest.mark.parametrize("limits", [BlockLimits(0, 10), BlockLimits(10, 0)])
def test_a_block_of_nothing_cannot_be_asked_for(limits: BlockLimits) -> None:
    with pytest.raises(ValueError, match="at least one record"):
        ReadBlocks(Storage(), limits, Known())


def test_the_step_shows_its_settings() -> None:
    step = ReadBlocks(Storage({"key": "env:CANARY"}), LIMITS, Known())
    shown = shown_settings(step)

    assert shown == {"records_per_block": 2, "bytes_per_block": 1000}


def test_only_the_reference_of_a_secret_is_pickled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKFILL_TEST_KEY", "canary-5f2c9b")
    step = ReadBlocks(Storage({"key": "env:BACKFILL_TEST_KEY"}), LIMITS, Known())
    pickled = pickle.dumps(step)

    assert b"env:BACKFILL_TEST_KEY" in pickled
    assert b"canary-5f2c9b" not in pickled
    assert pickle.loads(pickled).storage == step.storage
