"""Delivery of requests that are refused for some of their records, or for their size."""

from __future__ import annotations

import random
from typing import Any

import pytest

from mixpanel_http.delivery import ISOLATION_BUDGET
from mixpanel_http.retrying import RetryPolicy
from tests.played import OK, RESET, Play, Reply, accounted, body


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


EVENTS = body(2000)
BARS = {1: 23, 2: 43, 5: 95}  # requests for so many bad records among 2,000
EACH = 13  # to which each costs: eleven halvings, itself alone, what is behind it
FREE = 2  # the request that is refused first, and the last one


def assert_isolated(bad: set[int], play: Play) -> None:
    """Holds that each bad record of 2,000, and no other, is blamed, within the bar."""
    receipt = play.deliver(EVENTS)

    assert [(r.index, r.reason, r.http_status) for r in receipt.rejections] == [
        (index, "refused_by_service", 400) for index in sorted(bad)
    ]
    assert receipt.imported == 2000 - len(bad)
    assert play.service.held == set(range(2000)) - bad
    assert play.requests <= min(BARS.get(len(bad), ISOLATION_BUDGET + FREE), 1 + EACH * len(bad))


@pytest.mark.parametrize("content", UNUSABLE, ids=lambda c: str(c)[:40])
@pytest.mark.parametrize("bad", [0, 1, 777, 1999])
def test_one_bad_record_of_2000_is_found_in_14_requests(bad: int, content: object) -> None:
    assert_isolated({bad}, Play([refuses({bad}, content)]))


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("seed", range(4))
def test_up_to_five_bad_records_are_all_found(count: int, seed: int) -> None:
    bad = set(random.Random(5 * seed + count).sample(range(2000), count))
    assert_isolated(bad, Play([refuses(bad, b"")]))


@pytest.mark.parametrize(
    "bad", [{1, 3, 5, 7, 9}, {0, 1, 2, 3, 4}, {1995, 1996, 1997, 1998, 1999}, {999, 1000}, {0, 1999}]
)
def test_bad_records_next_to_each_other_are_all_found(bad: set[int]) -> None:
    assert_isolated(bad, Play([refuses(bad, b"")]))


@pytest.mark.soak
@pytest.mark.parametrize("count", [1, 2, 5])
def test_up_to_five_bad_records_are_all_found_wherever_they_are(count: int) -> None:
    for seed in range(200):
        bad = set(random.Random(1000 * count + seed).sample(range(2000), count))
        assert_isolated(bad, Play([refuses(bad, b"")]))


@pytest.mark.parametrize("count", [6, 20, 200])
def test_what_the_budget_does_not_reach_is_unisolated_and_nobody_is_blamed_for_it(count: int) -> None:
    bad = set(random.Random(count).sample(range(2000), count))
    play = Play([refuses(bad, b"")])
    receipt = play.deliver(EVENTS)
    blamed, unisolated = (
        {r.index for r in receipt.rejections if r.reason == reason}
        for reason in ("refused_by_service", "unisolated")
    )

    assert play.requests <= ISOLATION_BUDGET + FREE
    assert len(blamed) >= 5
    assert blamed <= bad <= blamed | unisolated
    assert play.service.held == set(range(2000)) - blamed - unisolated
    assert accounted(receipt) == len(play.service.held) + len(receipt.rejections) == 2000


def test_a_service_that_refuses_everything_leaves_nearly_all_unisolated_with_its_words() -> None:
    play = Play([(400, {"error": "no list today"})])
    receipt = play.deliver(EVENTS)

    assert play.requests <= ISOLATION_BUDGET + FREE
    assert accounted(receipt) == len(receipt.rejections) == 2000
    unisolated = [r for r in receipt.rejections if r.reason == "unisolated"]
    assert len(unisolated) > 1900
    assert {r.message for r in unisolated} == {"no list today"}
    assert sorted(r.index for r in receipt.rejections) == list(range(2000))


@pytest.mark.parametrize("seed", range(20))
def test_nobody_is_blamed_for_the_moods_of_a_service(seed: int) -> None:
    chance = random.Random(seed)
    bad = set(chance.sample(range(60), 3))

    def moody(records: list[dict[str, Any]], _size: int) -> Any:
        mood = chance.random() if len(records) > 1 else 1.0
        if mood < 0.1:
            return (400, b"") if mood < 0.05 else (413, b"")
        if mood < 0.2:
            return (503, b"") if mood < 0.15 else RESET
        return (400, b"") if any(r["n"] in bad for r in records) else (200, None)

    play = Play([moody])
    receipt = play.deliver(body(60))
    blamed = {r.index for r in receipt.rejections if r.reason == "refused_by_service"}

    assert {r.reason for r in receipt.rejections} <= {"refused_by_service", "unisolated"}
    assert blamed <= bad
    assert len({r.index for r in receipt.rejections}) == len(receipt.rejections)
    assert accounted(receipt) == 60
    assert not play.service.held & {r.index for r in receipt.rejections}


def test_a_half_that_is_undelivered_tells_nothing_of_the_other_one() -> None:
    def down_for_the_first(records: list[dict[str, Any]], _size: int) -> tuple[int, object]:
        if len(records) == 10:
            return 400, b""
        return (503, b"") if records[0]["n"] == 0 else (200, None)

    receipt = Play([down_for_the_first], RetryPolicy(give_up_after_s=60)).deliver(body(10))

    assert (receipt.imported, receipt.undelivered, receipt.rejections) == (5, 5, [])


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
    play = Play([takes(150_000, (413, b"<html>"))])
    receipt = play.deliver(b"\n".join([body(1), body(1, padding=200_000), body(1)]))

    assert [(r.index, r.reason, r.http_status) for r in receipt.rejections] == [(1, "too_large", 413)]
    assert receipt.imported == 2


def test_a_413_to_a_small_record_alone_blames_no_record_and_stops_the_run() -> None:
    play = Play([takes(500, (413, b"<html>"))])
    receipt = play.deliver(b"\n".join([body(1), body(1, padding=600), body(1)]))

    assert receipt.stop is not None
    assert (receipt.stop.status, receipt.rejections) == (413, [])
    assert "where Mixpanel takes 1,000,000" in receipt.stop.message
    assert (receipt.imported, receipt.not_attempted) == (1, 2)


def test_who_refuses_all_sizes_is_found_out_within_few_requests() -> None:
    play = Play([takes(0, (413, b"<html>"))])
    receipt = play.deliver(body(2000))

    assert receipt.stop is not None
    assert (receipt.not_attempted, receipt.rejections) == (2000, [])
    assert receipt.requests["413"] <= 16


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
