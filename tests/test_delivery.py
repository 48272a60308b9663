"""Delivery against a service that a test plays: what becomes of every record, and in how many requests."""

from __future__ import annotations

import gzip
import json
import logging
import random
import ssl
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from urllib3 import exceptions as transport

from mixpanel_http import retrying
from mixpanel_http.answers import Answer, SentIds, broken_answer, no_ids, read_answer
from mixpanel_http.delivery import Deliverer
from mixpanel_http.endpoints import compress
from mixpanel_http.failure_table import AnswerClass
from mixpanel_http.rate import Lane
from mixpanel_http.receipts import Receipt
from mixpanel_http.retrying import RetryPolicy, Surroundings
from tests.virtual_time import VirtualTime

Reply = tuple[int, object] | Exception | Callable[[list[dict[str, Any]], int], tuple[int, object] | Exception]


def imported(count: int) -> dict[str, object]:
    return {"code": 200, "num_records_imported": count, "status": "OK"}


@dataclass
class Played:
    """A service that answers as told: the next of `replies`, and the last one from then on."""

    replies: Sequence[Reply]
    headers: dict[str, str] = field(default_factory=dict)
    bodies: list[bytes] = field(default_factory=list)
    held: set[int] = field(default_factory=set)
    when_sent: Callable[[], None] = lambda: None

    def send(self, body: bytes, count: int, ids: SentIds = no_ids) -> Answer:
        self.bodies.append(body)
        self.when_sent()
        records = [json.loads(line) for line in gzip.decompress(body).split(b"\n")]
        assert len(records) == count
        reply = self.replies[min(len(self.bodies), len(self.replies)) - 1]
        said = reply(records, len(gzip.decompress(body))) if callable(reply) else reply
        if isinstance(said, Exception):
            return broken_answer(said)
        status, content = said
        if status == 200 and content is None:
            content = imported(count)
            self.held.update(record["n"] for record in records)
        raw = content if isinstance(content, bytes) else json.dumps(content).encode()
        return read_answer(status, self.headers, raw, count, 0.0, ids)


OK: Reply = (200, None)
RESET = transport.ProtocolError("Connection aborted.", ConnectionResetError(104))


def body(count: int, padding: int = 0) -> bytes:
    pad = "x" * padding
    return b"\n".join(
        json.dumps({"n": i, "pad": pad, "properties": {"$insert_id": f"id-{i}"}}).encode()
        for i in range(count)
    )


@dataclass
class Play:
    """A delivery on virtual time."""

    replies: Sequence[Reply]
    policy: RetryPolicy = field(default_factory=RetryPolicy)
    headers: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.time = VirtualTime()
        self.service = Played(self.replies, self.headers)
        chance = random.Random(7).uniform
        around = Surroundings(self.time.clock, self.time.wait, chance)
        lane = Lane(clock=self.time.clock, uniform=chance)
        self.deliverer = Deliverer(self.service, lane, self.policy, around)
        self.receipts: list[Receipt] = []

    def deliver(self, *bodies: bytes) -> Receipt:
        """Delivers requests one after the other, and returns the last one's receipt."""

        def work() -> None:
            for one in bodies or (body(10),):
                self.receipts.append(self.deliverer.deliver(one, one.count(b"\n") + 1))

        self.time.run([work])
        return self.receipts[-1]

    @property
    def requests(self) -> int:
        return len(self.service.bodies)


def accounted(receipt: Receipt) -> int:
    return receipt.imported + receipt.undelivered + receipt.not_attempted + len(receipt.rejections)


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


def test_the_waits_of_a_run_have_the_distribution_that_is_documented() -> None:
    asked: list[tuple[float, float, float]] = []
    chance = random.Random(3)

    def uniform(low: float, high: float) -> float:
        asked.append((low, high, chance.uniform(low, high)))
        return asked[-1][2]

    waits: list[float] = []
    around = Surroundings(lambda: sum(waits), waits.append, uniform)
    deliverer = Deliverer(
        Played([(200, None), (429, {})]), Lane(clock=lambda: sum(waits)), RetryPolicy(), around
    )
    deliverer.deliver(body(1), 1)
    while len(waits) < 800:
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


# --- records at fault --------------------------------------------------------------------------------


def refuses(bad: set[int], content: object) -> Reply:
    """Returns a service that refuses a whole request for one bad record in it and does not say which."""

    def reply(records: list[dict[str, Any]], _size: int) -> tuple[int, object]:
        return (400, content) if any(r["n"] in bad for r in records) else (200, None)

    return reply


UNUSABLE: list[object] = [
    {"code": 400, "error": "said", "num_records_imported": 0, "failed_records": ["a", "b"]},
    {"code": 400, "error": "said", "num_records_imported": 0, "failed_records": []},
    {"code": 400, "error": "said", "failed_records": None},
    b"",
    b"null",
    b"<html>400</html>",
    b"bad request",
    b'{"code":400,"error":"said","failed_rec',
]


@pytest.mark.parametrize("content", UNUSABLE, ids=lambda c: str(c)[:40])
@pytest.mark.parametrize("bad", [0, 1, 777, 1999])
def test_one_bad_record_of_2000_is_found_in_23_requests(bad: int, content: object) -> None:
    play = Play([refuses({bad}, content)])
    receipt = play.deliver(body(2000))

    assert [(r.index, r.reason, r.http_status) for r in receipt.rejections] == [
        (bad, "refused_by_service", 400)
    ]
    assert receipt.imported == 1999
    assert play.service.held == set(range(2000)) - {bad}
    assert play.requests <= 23


@pytest.mark.parametrize(("count", "most"), [(2, 43), (5, 95)])
def test_several_bad_records_are_found_within_their_bound(count: int, most: int) -> None:
    bad = set(random.Random(count).sample(range(2000), count))
    play = Play([refuses(bad, b"")])
    receipt = play.deliver(body(2000))

    found = {r.index for r in receipt.rejections if r.reason == "refused_by_service"}
    assert play.requests <= min(most, 65)
    assert found <= bad
    assert accounted(receipt) == 2000
    assert count > 2 or found == bad


def test_what_the_budget_does_not_reach_is_unisolated_with_the_services_words() -> None:
    play = Play([(400, {"error": "no list today"})])
    receipt = play.deliver(body(2000))

    assert play.requests <= 65
    assert accounted(receipt) == len(receipt.rejections) == 2000
    unisolated = [r for r in receipt.rejections if r.reason == "unisolated"]
    assert len(unisolated) > 1900
    assert {r.message for r in unisolated} == {"no list today"}
    assert sorted(r.index for r in receipt.rejections) == list(range(2000))


@pytest.mark.parametrize("bad", [1, 2, 100, 1999, 2000])
def test_listed_records_are_refused_in_one_request(bad: int) -> None:
    chosen = set(random.Random(bad).sample(range(2000), bad))
    listed = [{"insert_id": f"id-{n}", "field": "properties.x", "message": f"no {n}"} for n in chosen]
    content = {"code": 400, "error": "e", "num_records_imported": 2000 - bad, "failed_records": listed}
    play = Play([(400, content)])
    receipt = play.deliver(body(2000))

    assert play.requests == 1
    assert receipt.imported == 2000 - bad
    assert {(r.index, r.message, r.field) for r in receipt.rejections} == {
        (n, f"no {n}", "properties.x") for n in chosen
    }


def test_a_firewall_that_dislikes_one_record_costs_one_record() -> None:
    def firewall(records: list[dict[str, Any]], _size: int) -> tuple[int, object]:
        return (403, b"<html>blocked</html>") if any(r["n"] == 70 for r in records) else (200, None)

    receipt = Play([firewall]).deliver(body(100))

    assert [(r.index, r.http_status) for r in receipt.rejections] == [(70, 403)]
    assert (receipt.imported, receipt.stop) == (99, None)


@pytest.mark.parametrize("status", [403, 411, 415, 418, 422, 431, 499])
def test_a_refusal_that_one_record_alone_meets_too_stops_the_run(status: int) -> None:
    play = Play([(status, b"<html>")])
    receipt = play.deliver(body(100))

    assert play.requests == 2
    assert receipt.stop is not None
    assert (receipt.stop.status, receipt.not_attempted, receipt.rejections) == (status, 100, [])


# --- sizes -------------------------------------------------------------------------------------------


def takes(limit: int, answer: tuple[int, object] | Exception) -> Reply:
    return lambda _records, size: answer if size > limit else (200, None)


@pytest.mark.parametrize("limit", [250_000, 1_000_000, 2_097_152, 9_000_000])
@pytest.mark.parametrize("tells", [True, False])
def test_the_largest_size_is_learned_once_and_kept(limit: int, tells: bool) -> None:
    said = {"error": f"request exceeds max limit of {limit} bytes" if tells else "too large"}
    play = Play([takes(limit, (413, said))])
    large = body(2000, padding=4800)
    play.deliver(large)
    refused = play.receipts[0].requests["413"]
    play.deliver(large, large)

    assert len(large) > 9_500_000
    assert 1 <= refused <= (1 if tells else 8)
    assert [r.requests["413"] for r in play.receipts[1:]] == [0, 0]
    assert all(r.imported == 2000 for r in play.receipts)
    assert play.service.held == set(range(2000))


def test_a_record_that_alone_is_too_large_is_a_dead_letter() -> None:
    play = Play([takes(500, (413, b"<html>"))])
    receipt = play.deliver(b"\n".join([body(1), body(1, padding=600), body(1)]))

    assert [(r.index, r.reason, r.http_status) for r in receipt.rejections] == [(1, "too_large", 413)]
    assert receipt.imported == 2


@pytest.mark.parametrize("limit", [1_000_000, 2_097_152])
def test_a_proxy_that_resets_large_requests_is_understood_and_remembered(limit: int) -> None:
    play = Play([OK, takes(limit, RESET)])
    large = body(2000, padding=4800)
    play.deliver(body(1), large, large)

    assert [r.imported for r in play.receipts] == [1, 2000, 2000]
    assert 3 <= play.receipts[1].requests["connection broken"] <= 12
    assert play.receipts[2].requests["connection broken"] == 0


def test_an_outage_that_resets_connections_teaches_no_size() -> None:
    play = Play([OK, *[RESET] * 7, OK])
    receipt = play.deliver(body(1), body(2000, padding=1000))

    assert receipt.imported == 2000
    assert play.deliverer.learned_bytes is None


# --- the end of a run --------------------------------------------------------------------------------


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
    assert sent.wait(10)
    deliverer.drain()
    waiting.join(10)
    after = deliverer.deliver(body(5), 5)

    assert not waiting.is_alive()
    assert (receipts[0].undelivered, receipts[0].stop) == (10, None)
    assert (after.not_attempted, after.stop) == (5, None)
    assert len(service.bodies) == 2


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
