"""Delivery against a service that a test plays: what is sent again, for how long, and what is said of it."""

from __future__ import annotations

import gc
import logging
import random
import sys

import pytest

from mixpanel_http import retrying
from mixpanel_http.delivery import Deliverer
from mixpanel_http.endpoints import compress
from mixpanel_http.failure_table import AnswerClass
from mixpanel_http.rate import Lane
from mixpanel_http.retrying import RetryPolicy, Surroundings
from tests.played import OK, RESET, Play, Played, Reply, accounted, body, imported
from tests.virtual_time import VirtualTime


def test_what_is_imported_is_counted_with_its_bytes() -> None:
    play = Play([OK])
    receipt = play.deliver(body(10))

    assert (receipt.imported, accounted(receipt), play.requests) == (10, 10, 1)
    assert receipt.requests == {"200": 1}
    assert receipt.bytes_raw == len(body(10))
    assert receipt.bytes_sent == len(compress(body(10)))
    assert receipt.ranges == [(0, 10, "imported")]


# --- sending again -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "trouble",
    [(429, {}), (503, b""), (500, b"<html>"), (502, b""), (504, b""), (408, {}), (524, b""), RESET],
    ids=str,
)
def test_trouble_that_passes_is_waited_out_with_the_same_bytes(trouble: Reply) -> None:
    play = Play([OK, trouble, trouble, OK])
    receipt = play.deliver(body(1), body(10))

    assert receipt.imported == 10
    assert len(set(play.service.bodies[1:])) == 1
    assert (receipt.retries, receipt.re_sent_events, receipt.re_sent_bytes) == (2, 20, 2 * len(body(10)))
    assert receipt.retry_wait_s > 0
    assert receipt.waited_s == pytest.approx(
        receipt.retry_wait_s + receipt.throttled_s + receipt.outage_wait_s
    )


@pytest.mark.parametrize("status", [s for s in range(300, 600) if s != 413])
def test_there_is_one_retry_layer_and_it_knows_every_status(status: int) -> None:
    play = Play([OK, (status, b"no"), OK])
    receipt = play.deliver(body(1), body(1))

    retried = status in (408, 409, 423, 425, 429) or (status >= 500 and status not in (501, 505))
    assert play.requests == (3 if retried else 2)
    assert accounted(receipt) == 1


@pytest.mark.parametrize("trouble", [(429, {}), (503, {}), RESET], ids=str)
def test_what_cannot_be_delivered_in_time_is_undelivered_and_the_run_goes_on(trouble: Reply) -> None:
    play = Play([OK, trouble], RetryPolicy(give_up_after_s=100))
    receipt = play.deliver(body(1), body(10))

    assert (receipt.undelivered, accounted(receipt), receipt.stop) == (10, 10, None)
    assert play.time.now < 1000 + 101
    assert play.requests > 4


def test_a_conflict_is_tried_five_times() -> None:
    play = Play([OK, (409, {})])
    receipt = play.deliver(body(1), body(10))

    assert (receipt.undelivered, play.requests) == (10, 1 + 5)


@pytest.mark.parametrize("form", ["7", "Thu, 01 Jan 1970 00:00:07 GMT"])
@pytest.mark.parametrize("status", [429, 503])
def test_the_wait_that_the_service_asks_for_is_kept(status: int, form: str) -> None:
    play = Play([(status, {}), OK], headers={"retry-after": form})
    receipt = play.deliver()

    assert receipt.imported == 10
    assert 1007 <= play.time.now <= 1008.5


def test_waits_are_spread_evenly_below_a_doubling_bound() -> None:
    policy = RetryPolicy()
    bounds = [policy.bounds(tries, AnswerClass.TRANSIENT) for tries in range(1, 9)]
    assert bounds == [(0.5, b) for b in (2, 4, 8, 16, 32, 60, 60, 60)]
    assert policy.bounds(9, AnswerClass.THROTTLED) == (0.5, 20)
    assert policy.bounds(10**6, AnswerClass.TRANSIENT) == (0.5, 60)


def test_a_request_that_is_settled_leaves_nothing_to_the_garbage_collector() -> None:
    service = Played([(503, {}), RESET, (429, {}), OK])
    deliverer = Deliverer(service, Lane(), RetryPolicy(), Surroundings(wait=lambda _: None))
    gc.collect()
    gc.freeze()  # else what other tests have left may come to be garbage now
    gc.disable()
    try:
        receipt = deliverer.deliver(body(10), 10)
        assert sys.getrefcount(receipt) == 2  # as a variable, and as an argument
        assert gc.collect() == 0
    finally:
        gc.enable()
        gc.unfreeze()
    assert (receipt.imported, len(service.bodies)) == (10, 4)


def test_the_waits_of_a_run_have_the_distribution_that_is_documented() -> None:
    asked: list[tuple[float, float, float]] = []
    chance = random.Random(3)

    def uniform(low: float, high: float) -> float:
        asked.append((low, high, chance.uniform(low, high)))
        return asked[-1][2]

    time = VirtualTime()
    waits: list[float] = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        time.now += seconds

    around = Surroundings(time.clock, wait, uniform)
    deliverer = Deliverer(Played([(200, None), (429, {})]), Lane(clock=time.clock), RetryPolicy(), around)
    deliverer.deliver(body(1), 1)
    while len(waits) < 10_000:
        deliverer.deliver(body(1), 1)

    shares = sorted((drawn - low) / (high - low) for low, high, drawn in asked if high > 1)
    distance = max(abs(share - (i + 0.5) / len(shares)) for i, share in enumerate(shares))
    assert distance < 1.63 / len(shares) ** 0.5  # Kolmogorov-Smirnov, p = 0.01
    assert {drawn for *_, drawn in asked} & set(waits)


# --- answers that are none ---------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [(200, b"<html>"), (204, b""), (200, {}), (200, imported(9))], ids=str)
def test_an_answer_outside_the_contract_is_tried_three_times_and_never_believed(answer: Reply) -> None:
    play = Play([OK, answer, answer, answer, OK])
    first = play.deliver(body(1), body(10))
    second = play.deliver(body(5))

    assert (first.undelivered, first.imported, play.requests) == (10, 0, 1 + 3 + 1)
    assert (second.imported, second.stop) == (5, None)


def test_five_answers_outside_the_contract_in_a_row_stop_the_run() -> None:
    play = Play([(200, b"<html>Welcome to our wifi</html>")])
    receipt = play.deliver(*[body(10)] * 5)

    assert play.requests == 5
    assert receipt.stop is not None
    assert "in a row" in receipt.stop.message
    assert sum(r.imported for r in play.receipts) == 0
    assert all(accounted(r) == 10 for r in play.receipts)


# --- what is said ------------------------------------------------------------------------------------


def test_retries_are_told_now_and_then_and_tell_nothing_of_a_request(
    caplog: pytest.LogCaptureFixture,
) -> None:
    play = Play([OK, *[(503, {"error": "upstream is away"})] * 40, OK])
    with caplog.at_level(logging.DEBUG):
        play.deliver(body(1), *[body(10)] * 3)

    lines = [record for record in caplog.records if record.name == retrying.__name__]
    assert {record.levelno for record in lines} == {logging.WARNING}
    assert 1 < len(lines) <= (play.time.now - 1000) / retrying.WARN_EVERY_S + 1
    assert "503 (the service does not take requests now)" in lines[0].getMessage()
    assert not any("id-" in r.getMessage() or "http" in r.getMessage() for r in caplog.records)


def test_a_run_without_trouble_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        Play([OK]).deliver(*[body(10)] * 20)

    assert not caplog.records
