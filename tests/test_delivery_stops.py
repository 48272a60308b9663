"""The end of a delivery: what stops a run, and what still leaves by then."""

from __future__ import annotations

import random
import ssl
import threading
from dataclasses import dataclass, field
from typing import Any

import pytest
from urllib3 import exceptions as transport

from mixpanel_http.answers import Answer
from mixpanel_http.delivery import Deliverer
from mixpanel_http.rate import Lane
from mixpanel_http.receipts import Receipt
from mixpanel_http.refused_records import SentIds, no_ids
from mixpanel_http.retrying import RetryPolicy, Surroundings
from tests.played import OK, Play, Played, Reply, accounted, body
from tests.processes import PATIENCE_S
from tests.virtual_time import VirtualTime


@pytest.mark.parametrize(
    "answer",
    [
        *[(status, {"error": "no"}) for status in (401, 402, 403, 404, 405, 410, 451, 501)],
        *[(status, b"") for status in (301, 302, 307, 308)],
    ],
    ids=str,
)
@pytest.mark.parametrize("before", [0, 3])
def test_what_waiting_does_not_help_stops_the_run_at_once(answer: Reply, before: int) -> None:
    play = Play([*[OK] * before, answer])
    receipt = play.deliver(*[body(10)] * (before + 4))

    assert play.requests == before + 1
    assert play.time.now < 1005
    assert receipt.stop is not None
    assert receipt.stop.for_good == (receipt.stop.status in (402, 451))
    assert [r.not_attempted for r in play.receipts[before:]] == [10] * 4
    assert not any(r.rejections for r in play.receipts)


def test_an_endpoint_that_was_never_reached_stops_the_run_within_seconds() -> None:
    refused = transport.ConnectTimeoutError(None, "no")
    play = Play([refused])
    receipt = play.deliver(body(10), body(10))

    assert play.requests == 3
    assert play.time.now < 1004
    assert receipt.stop is not None
    assert [r.not_attempted for r in play.receipts] == [10, 10]


def test_an_endpoint_that_was_reached_before_is_waited_for() -> None:
    refused = transport.ConnectTimeoutError(None, "no")
    receipt = Play([OK, *[refused] * 9, OK]).deliver(body(1), body(10))

    assert receipt.imported == 10


def test_with_wrong_credentials_one_request_is_sent_however_many_are_ready() -> None:
    play = Play([(401, {"error": "Invalid credentials"})])
    play.service.when_sent = lambda: play.time.wait(0.2)
    receipts: list[Receipt] = []
    play.time.run([lambda: receipts.append(play.deliverer.deliver(body(10), 10))] * 16)

    assert play.requests == 1
    assert [r.not_attempted for r in receipts] == [10] * 16


@dataclass
class Turned:
    """A service that takes requests for a while, and slowly, and then refuses them all."""

    time: VirtualTime
    refusal: tuple[int, object] | Exception
    turns_at: float
    calls: list[tuple[float, float, int]] = field(default_factory=list)

    def send(self, _body: bytes, count: int, ids: SentIds = no_ids) -> Answer:
        left, turned = self.time.now, self.time.now >= self.turns_at
        self.time.wait(random.Random(len(self.calls)).uniform(0.3, 2.0))
        answer = Played([self.refusal if turned else OK]).send(_body, count, ids)
        self.calls.append((left, self.time.now, answer.status if turned else 200))
        return answer


@pytest.mark.parametrize(
    ("refusal", "probes"),
    [
        *[((status, {"error": "no"}), 0) for status in (401, 402, 403, 404, 301, 302, 307, 308)],
        *[((status, b"<html>no</html>"), 0) for status in (401, 402, 404, 302)],
        *[((status, b"<html>no</html>"), 1) for status in (403, 411, 415, 422, 431, 418)],
        (transport.SSLError(ssl.SSLCertVerificationError(1, "self-signed")), 0),
    ],
    ids=str,
)
def test_after_the_first_refusal_nothing_leaves_but_a_probe_however_many_are_on_their_way(
    refusal: tuple[int, object] | Exception, probes: int
) -> None:
    time = VirtualTime()
    service = Turned(time, refusal, time.now + 20)
    around = Surroundings(time.clock, time.wait, random.Random(1).uniform)
    lane = Lane(150, clock=time.clock, uniform=around.uniform)
    deliverer = Deliverer(service, lane, RetryPolicy(), around)
    receipts: list[Receipt] = []

    def work() -> None:
        while not (receipts and receipts[-1].stop):
            receipts.append(deliverer.deliver(body(10), 10))

    time.run([work] * 16)

    told = min(answered for _, answered, status in service.calls if status != 200)
    assert sum(left < told < answered for left, answered, _ in service.calls) > 5
    assert sum(left >= told for left, _, _ in service.calls) == probes
    assert time.now - told <= 5
    assert not any(receipt.rejections for receipt in receipts)
    assert all(accounted(receipt) == 10 for receipt in receipts)
    assert any(receipt.not_attempted for receipt in receipts)


def test_a_firewall_that_dislikes_some_records_does_not_hold_the_others_up() -> None:
    time = VirtualTime()

    def firewall(records: list[dict[str, Any]], _size: int) -> tuple[int, object]:
        time.wait(0.3)
        return (403, b"<html>blocked</html>") if any(r["n"] == 70 for r in records) else (200, None)

    around = Surroundings(time.clock, time.wait, random.Random(1).uniform)
    lane = Lane(clock=time.clock, uniform=around.uniform)
    deliverer = Deliverer(Played([firewall]), lane, RetryPolicy(), around)
    receipts: list[Receipt] = []
    time.run([lambda: receipts.extend(deliverer.deliver(body(100), 100) for _ in range(3))] * 8)

    assert [[r.index for r in receipt.rejections] for receipt in receipts] == [[70]] * 24
    assert all(receipt.stop is None for receipt in receipts)
    assert time.now < 1000 + 60


def test_a_drain_brings_back_who_waits_and_sends_nothing_more() -> None:
    service = Played([OK, (503, {})])
    deliverer = Deliverer(service, Lane(), RetryPolicy(first_wait_s=600, longest_wait_s=600))
    deliverer.deliver(body(1), 1)
    sent = threading.Event()
    service.when_sent = sent.set
    receipts: list[Receipt] = []
    waiting = threading.Thread(target=lambda: receipts.append(deliverer.deliver(body(10), 10)))
    waiting.start()
    assert sent.wait(PATIENCE_S)
    deliverer.drain()
    waiting.join(PATIENCE_S)
    after = deliverer.deliver(body(5), 5)

    assert not waiting.is_alive()
    assert (receipts[0].undelivered, receipts[0].stop) == (10, None)
    assert (after.not_attempted, after.stop) == (5, None)
    assert len(service.bodies) == 2
