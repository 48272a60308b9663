"""Dealing out updates: those of a profile keep their order, and each record has one outcome."""

from __future__ import annotations

import json
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixpanel_http.endpoints import ROUTES, TO_EVENTS, TO_GROUPS, TO_PEOPLE, TO_PEOPLE_ONCE
from mixpanel_http.prepared import PreparedRecords
from mixpanel_http.receipts import Receipt
from mixpanel_http.verdicts import Rejection
from transforms.block_outcomes import outcome_of
from transforms.elements import Block, EarlierSends, PreparedBlock, Span
from transforms.in_order import Channel, OpenBlock, deal, open_block
from transforms.line_sets import packed
from transforms.send_in_order import OnceOnly, RequestLimits, Sent, send

Record = tuple[int, int]  # a profile's key, and a route


def line(block: int, record: int, key: int) -> bytes:
    return b'{"n":"%d.%d","properties":{},"k":%d}' % (block, record, key)


def block_of(
    records: Sequence[Record],
    ordinal: int = 0,
    earlier: EarlierSends | None = None,
    provisional: bool = False,
) -> PreparedBlock:
    lines = [line(ordinal, i, key) for i, (key, _) in enumerate(records)]
    raw = b"".join(line + b"\n" for line in lines)
    spans = (Span(0, "a.json", len(lines), len(raw), 1, 0),)
    block = Block("0000000", "attempt", ordinal, raw, spans, earlier=earlier, provisional=provisional)
    keys = array("Q", [key for key, _ in records]).tobytes()
    routes = bytes(route for _, route in records)
    return PreparedBlock(block, PreparedRecords(b"\n".join(lines), len(lines), keys=keys, routes=routes))


@dataclass
class Service:
    """Delivers what it is given, and takes note of it; some records it refuses, some never arrive."""

    refuses: frozenset[bytes] = frozenset()
    undelivered: frozenset[bytes] = frozenset()
    unsure: bool = False
    requests: list[list[bytes]] = field(default_factory=list)

    def deliver(
        self, body: bytes, count: int, compressed: bytes | None = None, repeatable: bool = True
    ) -> Receipt:
        lines = body.split(b"\n")
        assert len(lines) == count
        self.requests.append(lines)
        receipt = Receipt(last_problem="said")
        for index, line in enumerate(lines):
            if line in self.refuses:
                receipt.rejections.append(Rejection(index, "refused_by_service", None, "no", 200))
            elif line in self.undelivered:
                receipt.settle(index, 1, "undelivered")
            else:
                receipt.settle(index, 1, "ambiguous" if self.unsure and not repeatable else "imported")
        return receipt


@dataclass
class Written:
    """Takes note of what is about to be sent once only."""

    lines: list[tuple[str, str, Mapping[int, bytes]]] = field(default_factory=list)

    def intend(self, segment: str, attempt: str, lines: Mapping[int, bytes]) -> None:
        self.lines.append((segment, attempt, lines))


def run(
    blocks: Sequence[OpenBlock],
    service: Service,
    channels: int = 3,
    most: int = 5,
    most_bytes: int = 10**6,
    collapse: bool = False,
) -> list[list[bytes]]:
    """Sends blocks over channels, one request after the other, and returns what was sent."""
    held: set[int] = set()
    made = [Channel(most, most_bytes, held, 4 if collapse else 1) for _ in range(channels)]

    def take(channel: Channel) -> None:
        batch = channel.take()
        assert {route for piece in batch.slices for route in piece.routes} == {batch.route}
        sent: Sent = send(channel, batch, service, RequestLimits(most, most_bytes, collapse), OnceOnly())
        sent.settle()

    for block in blocks:
        for number, piece in deal(block, channels):
            made[number].add(piece)
            while made[number].is_full:
                take(made[number])
    for channel in made:
        while channel.count:
            take(channel)
    return service.requests


_routes = st.sampled_from([TO_PEOPLE, TO_PEOPLE, TO_PEOPLE_ONCE, TO_GROUPS, TO_EVENTS])
_records = st.lists(st.tuples(st.integers(0, 6), _routes), max_size=30)
_places = st.sets(st.integers(0, 60))


@settings(max_examples=150, deadline=None)
@given(st.lists(_records, max_size=5), st.integers(1, 4), st.integers(1, 7), st.sampled_from([1, 90, 10**6]))
def test_each_profiles_records_are_sent_once_and_in_order(
    records: list[list[Record]], channels: int, most: int, most_bytes: int
) -> None:
    blocks = [open_block(block_of(some, ordinal)) for ordinal, some in enumerate(records)]
    requests = run(blocks, Service(), channels, most, most_bytes)
    expected = [line for block in blocks for line in block.prepared.records.body.split(b"\n") if line]
    sent = [line for request in requests for line in request]
    by_key: dict[bytes, list[bytes]] = {}
    for line in sent:
        by_key.setdefault(line.rpartition(b":")[2], []).append(line)

    assert sorted(sent) == sorted(expected)
    for key, lines in by_key.items():
        assert lines == [line for line in expected if line.endswith(b":" + key)]
    for request in requests:
        assert len(request) <= most
        assert len(request) == 1 or len(b"\n".join(request)) <= most_bytes
    assert all(block.left == 0 for block in blocks)
    assert all(outcome_of(block).tally.total.balanced for block in blocks)


@settings(max_examples=100, deadline=None)
@given(st.lists(_records, max_size=4), _places, _places, st.booleans())
def test_every_record_has_one_outcome_whatever_becomes_of_requests(
    records: list[list[Record]], bad: set[int], lost: set[int], unsure: bool
) -> None:
    blocks = [open_block(block_of(some, ordinal)) for ordinal, some in enumerate(records)]
    every = [line for block in blocks for line in block.prepared.records.body.split(b"\n") if line]
    refuses = frozenset(line for n, line in enumerate(every) if n in bad)
    undelivered = frozenset(line for n, line in enumerate(every) if n in lost) - refuses
    run(blocks, Service(refuses, undelivered, unsure))
    outcomes = [outcome_of(block) for block in blocks]
    total = [outcome.tally.total for outcome in outcomes]

    assert all(counts.balanced for counts in total)
    assert sum(counts.read for counts in total) == len(every)
    assert sum(len(o.dead_letters) for o in outcomes) == sum(c.dead_lettered for c in total)
    assert sum(len(o.undelivered) for o in outcomes) == sum(c.undelivered for c in total)
    assert sum(len(o.ambiguous) for o in outcomes) == sum(c.ambiguous for c in total)


def test_requests_are_filled_from_several_blocks() -> None:
    blocks = [open_block(block_of([(key, TO_PEOPLE) for key in range(10)], n)) for n in range(10)]
    requests = run(blocks, Service(), channels=2, most=20)

    assert [len(request) for request in requests] == [20] * 4 + [10] * 2


def updates_of(*profiles: int) -> PreparedBlock:
    lines = [b'{"$distinct_id":"u-%d","$set":{"n":%d}}' % (key, n) for n, key in enumerate(profiles)]
    block = replace(block_of([(key, TO_PEOPLE) for key in profiles]).block, raw=b"\n".join(lines) + b"\n")
    keys = array("Q", profiles).tobytes()
    routes = bytes([TO_PEOPLE]) * len(lines)
    return PreparedBlock(block, PreparedRecords(b"\n".join(lines), len(lines), keys=keys, routes=routes))


def test_updates_that_became_one_share_its_outcome() -> None:
    block = open_block(updates_of(1, 2, 1, 3, 2, 1, 4))
    bad, lost = b'{"$distinct_id":"u-1","$set":{"n":5}}', b'{"$distinct_id":"u-2","$set":{"n":4}}'
    service = Service(frozenset([bad]), frozenset([lost]))
    requests = run([block], service, channels=1, most=2, collapse=True)
    outcome = outcome_of(block)
    total = outcome.tally.total

    assert requests == [[bad, lost]]  # and nothing behind what is not delivered
    assert (total.read, total.dead_lettered, total.undelivered, total.imported) == (7, 3, 4, 0)
    assert outcome.tally.alterations["collapsed_updates"] == 3
    assert [json.loads(letter)["source"]["line"] for letter in outcome.dead_letters] == [1, 3, 6]


def test_groups_get_fewer_at_once() -> None:
    blocks = [open_block(block_of([(1, TO_GROUPS)] * 450))]

    assert [len(request) for request in run(blocks, Service(), most=2000)] == [200, 200, 50]
    assert ROUTES[TO_GROUPS].endpoint.most_records == 200


def test_an_undelivered_update_holds_back_the_later_ones_of_its_profile_only() -> None:
    blocks = [open_block(block_of([(1, TO_PEOPLE), (2, TO_PEOPLE)], n)) for n in range(3)]
    lost = frozenset([line(1, 0, 1)])
    sent = run(blocks, Service(undelivered=lost), channels=1, most=2)
    counts = [outcome_of(block).tally.total for block in blocks]

    assert [(c.imported, c.undelivered) for c in counts] == [(2, 0), (1, 1), (1, 1)]
    assert sent[-1] == [line(2, 1, 2)]


def test_what_an_earlier_attempt_imported_is_not_sent_again() -> None:
    earlier = EarlierSends(packed(np.array([0, 2])), packed(np.array([1, 3])))
    records = [(1, TO_PEOPLE), (1, TO_PEOPLE_ONCE), (2, TO_PEOPLE_ONCE), (2, TO_PEOPLE), (3, TO_PEOPLE)]
    listed = open_block(block_of(records, earlier=earlier))
    sent = run([listed], Service())
    counts = outcome_of(listed).tally.total
    again = open_block(block_of(records, earlier=earlier), repeats_all=True)

    assert sorted(line for request in sent for line in request) == [
        line(0, 3, 2),
        line(0, 4, 3),
    ]
    assert (counts.imported, counts.ambiguous) == (4, 1)
    assert sorted(one for request in run([again], Service()) for one in request) == [
        line(0, 1, 1),
        line(0, 3, 2),
        line(0, 4, 3),
    ]


def test_an_open_block_tells_which_of_its_lines_are_imported_or_may_be() -> None:
    block = open_block(block_of([(1, TO_PEOPLE), (2, TO_PEOPLE_ONCE), (3, TO_PEOPLE)]))
    run([block], Service(undelivered=frozenset([line(0, 2, 3)]), unsure=True))
    outcome = outcome_of(block)

    assert outcome.sends == EarlierSends(packed(np.array([0])), packed(np.array([1])))
    assert outcome.once_only


def test_what_must_not_arrive_twice_waits_where_blocks_may_be_cut_otherwise_next_time() -> None:
    block = open_block(block_of([(1, TO_PEOPLE), (1, TO_PEOPLE_ONCE)], provisional=True))

    assert run([block], Service()) == [[line(0, 0, 1)]]
    assert outcome_of(block).tally.total.not_attempted == 1


@pytest.mark.parametrize(
    ("route", "written"), [(TO_PEOPLE, []), (TO_PEOPLE_ONCE, [{0: b"\xc0"}, {0: b"\x20"}])]
)
def test_only_what_must_not_arrive_twice_is_written_down_before_it_is_sent(
    route: int, written: list[dict[int, bytes]]
) -> None:
    channel, intents, service = Channel(2, 10**6, set()), Written(), Service()
    block = open_block(block_of([(1, route)] * 3))
    for _, piece in deal(block, 1):
        channel.add(piece)
    while channel.count:
        send(channel, channel.take(), service, RequestLimits(2, 10**6), OnceOnly(intents)).settle()

    assert [lines for _, _, lines in intents.lines] == written
