"""Tallies: sums that close, in any order, and that survive being written down."""

import json
from collections import Counter
from dataclasses import asdict, fields
from functools import reduce
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixpanel_http.receipts import SUMS as SUMS_OF_RECEIPTS
from mixpanel_http.receipts import Receipt
from transforms.tally import OUTCOMES, Counts, PartCounts, Tally

NUMBER = st.integers(0, 10**12)
COUNTS = st.builds(Counts, **{field.name: NUMBER for field in fields(Counts)})
PARTS = st.dictionaries(st.integers(0, 9), COUNTS, max_size=3)
COUNTER = st.dictionaries(st.sampled_from(["a", "b", "200", "too_deep"]), st.integers(1, 99)).map(Counter)
RECORDED = [f for f in fields(Tally) if f.compare]  # what a ledger has of a tally, and sums have
COUNTERS = [f.name for f in RECORDED if f.default_factory is Counter]
SUMS = {f.name: NUMBER for f in RECORDED if f.name not in ("parts", *COUNTERS)}
TALLY = st.builds(
    Tally,
    **{**SUMS, "waited_s": NUMBER.map(lambda n: n / 8)},
    parts=PARTS.map(PartCounts),
    **dict.fromkeys(COUNTERS, COUNTER),
)


def added(tallies: list[Tally]) -> Tally:
    def add(total: Tally, other: Tally) -> Tally:
        total.add(other)
        return total

    return reduce(add, tallies, Tally())


@given(TALLY)
def test_a_tally_is_read_as_it_was_written(tally: Tally) -> None:
    assert Tally.from_json(json.loads(json.dumps(tally.to_json()))) == tally


def test_zeros_are_not_written() -> None:
    assert Tally().to_json() == {"parts": {}}
    assert Counts(read=2, imported=2).to_json() == {"read": 2, "imported": 2}


@given(st.lists(TALLY, max_size=4))
def test_tallies_add_up_in_any_order(tallies: list[Tally]) -> None:
    assert asdict(added(tallies)) == asdict(added(tallies[::-1]))


@given(st.lists(TALLY, max_size=4))
def test_the_sum_of_tallies_is_what_comes_of_adding_one_after_the_other(tallies: list[Tally]) -> None:
    before = [asdict(tally) for tally in tallies]

    assert asdict(Tally.sum(tallies)) == asdict(added(tallies))
    assert [asdict(tally) for tally in tallies] == before


@given(TALLY, TALLY)
def test_every_number_is_added(one: Tally, other: Tally) -> None:
    total = added([one, other])

    for name in SUMS:
        assert getattr(total, name) == getattr(one, name) + getattr(other, name)
    for name in COUNTERS:
        assert getattr(total, name) == getattr(one, name) + getattr(other, name)
    for name in ("read", "expanded", *OUTCOMES):
        assert getattr(total.total, name) == getattr(one.total, name) + getattr(other.total, name)
        for part in range(10):
            alone = getattr(one.parts[part], name) + getattr(other.parts[part], name)
            assert getattr(total.parts[part], name) == alone


@given(TALLY, TALLY)
def test_parts_of_two_segments_have_nothing_in_common(one: Tally, other: Tally) -> None:
    before = dict(one.parts.items())
    lines = one.lines
    one.add_apart_from_parts(other)

    assert dict(one.parts.items()) == before
    assert one.lines == lines + other.lines


@given(TALLY, TALLY)
def test_adding_changes_nothing_in_what_is_added(one: Tally, other: Tally) -> None:
    before = other.to_json()
    total = added([other, one])
    total.parts.add(0, "read")

    assert other.to_json() == before


@given(PARTS)
def test_counts_by_part_are_those_that_were_put_in(counts: dict[int, Counts]) -> None:
    parts = PartCounts(counts)
    by_column = parts.columns(12)

    for part in range(12):
        expected = counts.get(part, Counts())
        assert parts[part] == expected
        assert {
            name: column[part] for name, column in by_column.items() if column[part]
        } == expected.to_json()
    assert dict(parts.items()) == {part: each for part, each in counts.items() if each.to_json()}
    assert parts.unbalanced() == [part for part in sorted(counts) if not counts[part].balanced]


@given(st.lists(st.tuples(st.sampled_from(OUTCOMES), st.lists(st.integers(0, 9), max_size=9)), max_size=6))
def test_counting_many_at_once_is_counting_one_by_one(counted: list[tuple[str, list[int]]]) -> None:
    at_once, one_by_one = PartCounts(), PartCounts()
    for name, parts in counted:
        at_once.add_each(name, np.array(parts, np.int64))
        for part in parts:
            one_by_one.add(part, name)

    assert at_once == one_by_one


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_books_close_when_each_record_has_one_outcome(outcome: str) -> None:
    counts = Counts(read=3, imported=2)
    assert not counts.balanced
    setattr(counts, outcome, getattr(counts, outcome) + 1)

    assert counts.balanced
    assert counts.settled == (outcome in ("imported", "dead_lettered", "filtered"))


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"parts": {"x": {}}},
        {"parts": {"first": 0, "read": [1], "imported": [1, 2]}},
        {"parts": {"first": 0, "reed": [1]}},
        {"parts": []},
    ],
)
def test_anything_else_is_not_read_as_a_tally(values: Any) -> None:
    with pytest.raises((TypeError, ValueError, KeyError, AttributeError)):
        Tally.from_json(values)


def test_what_a_receipt_sums_up_is_counted_under_the_same_names() -> None:
    numbers = [f.name for f in fields(Receipt) if f.default == 0 and f.name not in OUTCOMES]

    assert sorted(SUMS_OF_RECEIPTS) == sorted(numbers)
    assert set(SUMS_OF_RECEIPTS) <= set(SUMS)


def test_what_a_map_made_beyond_one_of_each_needs_an_outcome_too() -> None:
    assert not Counts(read=3, expanded=2, imported=3).balanced
    assert Counts(read=3, expanded=2, imported=4, filtered=1).balanced
