"""How far a run is, by the stored byte: plain and compressed input, several segments under way, resumed."""

from __future__ import annotations

import random

import pytest

from pipelines.bytes_done import Measure, UnderWay, is_plain
from transforms.elements import FilePart, Segment
from transforms.tally import Counts, PartCounts, Tally

RECORDS = 10_000
RECORD_RAW = 500  # as JSON
RECORD_WIRE = 60  # compressed


def block(records: int, *, refused: int = 0, undelivered: int = 0, tries: int = 1) -> Tally:
    """Returns what became of a block: some refused, some given up, the rest imported; sent so often."""
    sent = records - refused
    imported = sent - undelivered
    counts = Counts(records, imported=imported, dead_lettered=refused, undelivered=undelivered)
    return Tally(
        parts=PartCounts({0: counts}),
        bytes_raw=sent * RECORD_RAW * tries,
        bytes_sent=sent * RECORD_WIRE * tries,
        re_sent_bytes=sent * RECORD_RAW * (tries - 1),
    )


def under_way(*blocks: Tally) -> UnderWay:
    found = UnderWay()
    for one in blocks:
        found.add(one)
    return found


@pytest.mark.parametrize(("plain", "size"), [(True, RECORDS * RECORD_RAW), (False, RECORDS * RECORD_WIRE)])
@pytest.mark.parametrize("learnt", [False, True])
def test_half_a_segment_is_half_of_its_bytes_plain_or_compressed(
    plain: bool, size: int, learnt: bool
) -> None:
    measure = Measure(plain)
    if learnt:
        measure.learn(size, Counts(read=RECORDS))
    segment = under_way(*[block(1000)] * 5)

    assert measure.done(size, segment) == pytest.approx(size / 2, rel=0.01)


def test_what_is_sent_again_is_no_progress() -> None:
    size = RECORDS * RECORD_RAW
    for plain in (True, False):
        once, thrice = under_way(block(1000)), under_way(block(1000, tries=3))
        assert Measure(plain).done(size, once) == Measure(plain).done(size, thrice) > 0


def test_what_is_refused_is_progress_and_what_is_given_up_is_not() -> None:
    measure = Measure()
    measure.learn(RECORDS * 100, Counts(read=RECORDS))

    assert measure.done(RECORDS * 100, under_way(block(1000, refused=1000))) == 1000 * 100
    assert measure.done(RECORDS * 100, under_way(block(1000, undelivered=400))) == 600 * 100


def test_no_segment_is_more_than_done() -> None:
    for plain in (True, False):
        assert Measure(plain).done(100, under_way(block(RECORDS))) == 100
    measure = Measure()
    measure.learn(1000, Counts(read=1))
    assert measure.done(100, under_way(block(1))) == 100


def test_progress_of_several_segments_under_way_grows_evenly_to_the_whole() -> None:
    chance = random.Random(5)
    counts = [chance.randrange(2000, 20_000) for _ in range(12)]
    sizes = [count * RECORD_RAW for count in counts]
    measure, finished, told = Measure(plain=True), 0, 0
    open_ = {number: UnderWay() for number in range(12)}
    steps = [number for number, count in enumerate(counts) for _ in range(count // 1000)]
    chance.shuffle(steps)
    for sent, number in enumerate(steps, 1):
        open_[number].add(block(1000))
        if open_[number].counts.read + 1000 > counts[number]:
            finished += sizes[number]
            measure.learn(sizes[number], Counts(read=counts[number]))
            del open_[number]
        before = told
        told = finished + sum(measure.done(sizes[number], one) for number, one in open_.items())
        assert told >= before
        assert told / sum(sizes) == pytest.approx(sent / len(steps), abs=0.05)
    assert told == sum(sizes)


@pytest.mark.parametrize(
    ("uri", "plain"),
    [
        ("s3://b/a.json", True),
        ("/a.csv", True),
        ("/a.json.gz", False),
        ("/a.parquet", False),
    ],
)
def test_plain_input_is_told_by_its_name(uri: str, plain: bool) -> None:
    assert is_plain([Segment("0000000", (FilePart(uri, 10, "v"),))]) is plain
    assert not is_plain([])
