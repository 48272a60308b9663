"""The pace of lanes: never above the limit, close below it, and what refusals and outages do to it."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixpanel_http import rate
from mixpanel_http.breaker import LONGEST_WAIT_S, CircuitBreaker
from mixpanel_http.rate import Lane
from tests.traffic import EVENTS, LIMIT, traffic


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def departures(lane: Lane, clock: Clock, requests: list[tuple[int, int]]) -> list[float]:
    """Returns when each of some requests leaves, one behind the other."""
    left = []
    for events, size in requests:
        clock.now += lane.reserve(events, size)
        left.append(clock.now)
    return left


@given(
    st.lists(
        st.tuples(st.integers(1, 2000), st.integers(2, 9_800_000), st.sampled_from([0.0, 0.03, 0.3, 3.0])),
        min_size=2,
        max_size=25,
    )
)
def test_no_stretch_of_time_holds_more_than_the_limits_allow(requests: list[tuple[int, int, float]]) -> None:
    clock = Clock()
    lane = Lane(30_000, 2_000_000_000, clock=clock)
    left = []
    for events, size, pause in requests:
        clock.now += pause
        clock.now += lane.reserve(events, size)
        left.append(clock.now)

    for first, last in itertools.combinations(range(len(requests)), 2):
        seconds = left[last] - left[first] + rate.CATCH_UP_S
        between = requests[first:last]
        assert sum(events for events, _, _ in between) <= 30_000 * seconds + 1e-3
        assert sum(size for _, size, _ in between) <= 2_000_000_000 / 60 * seconds + 1e-3


def test_the_default_rate_is_within_three_percent_of_the_published_limit_and_never_above() -> None:
    clock = Clock()
    left = departures(Lane(clock=clock), clock, [(2000, 600_000)] * 1000)

    assert 0.97 * LIMIT <= 999 * 2000 / (left[-1] - left[0]) < LIMIT


def test_bytes_limit_large_records() -> None:
    clock = Clock()
    left = departures(Lane(clock=clock), clock, [(2000, 9_800_000)] * 100)

    per_minute = 99 * 9_800_000 / (left[-1] - left[0]) * 60
    assert 0.97 * 2_000_000_000 <= per_minute < 2_000_000_000


def test_large_and_small_records_in_turn_use_both_limits() -> None:
    clock = Clock()
    left = departures(Lane(clock=clock), clock, [(2000, 300_000), (100, 9_800_000)] * 50)

    seconds = left[-1] - left[0]
    assert seconds < 0.9 * 50 * (2000 / 29_550 + 9_800_000 * 60 / (0.985 * 2e9))


def test_idle_time_is_not_saved_up() -> None:
    clock = Clock()
    lane = Lane(clock=clock)
    departures(lane, clock, [(2000, 1)] * 2)
    clock.now += 3600

    left = departures(lane, clock, [(2000, 1)] * 60)
    assert left[-1] - left[0] >= 59 * 2000 / LIMIT - rate.CATCH_UP_S


def test_what_a_moment_without_requests_has_cost_is_caught_up_with() -> None:
    clock = Clock()
    lane = Lane(clock=clock)
    left = departures(lane, clock, [(2000, 1)] * 50)
    clock.now += 0.3
    left += departures(lane, clock, [(2000, 1)] * 50)

    assert 99 * 2000 / (left[-1] - left[0]) >= 0.98 * LIMIT


def test_a_minute_with_all_that_can_be_caught_up_with_is_within_the_limit() -> None:
    assert rate.SHARE * (60 + rate.CATCH_UP_S) < 60 - rate.CATCH_UP_S / 2


def test_lanes_share_the_limit_and_do_not_start_in_time() -> None:
    lanes = [Lane(lanes=16, clock=Clock(), uniform=random.Random(i).uniform) for i in range(16)]

    assert sum(lane.rate for lane in lanes) == pytest.approx(0.985 * LIMIT)
    assert len({lane.reserve(2000, 1) for lane in lanes}) == 16


def test_a_refusal_cuts_the_rate_at_most_once_in_two_seconds() -> None:
    clock = Clock()
    lane = Lane(clock=clock)
    full = lane.rate
    for _ in range(16):
        lane.refused()
        clock.now += 0.1
    assert lane.rate == pytest.approx(0.7 * full)
    clock.now += 0.5
    lane.refused()
    assert lane.rate == pytest.approx(0.49 * full)


def test_refusals_that_go_on_do_not_stop_a_run() -> None:
    clock = Clock()
    lane = Lane(clock=clock)
    full = lane.rate
    for _ in range(30):
        lane.refused()
        clock.now += 2
    assert lane.rate > 0.1 * full


def test_quiet_time_brings_the_rate_back_and_never_above_the_share() -> None:
    clock = Clock()
    lane = Lane(clock=clock)
    full = lane.rate
    lane.refused()
    clock.now += 5
    assert lane.rate == pytest.approx(0.7 * full)
    clock.now += 60
    assert lane.rate == pytest.approx(full)
    clock.now += 3600
    assert lane.rate == pytest.approx(full)


def test_a_retry_after_holds_the_whole_lane_but_not_for_ever() -> None:
    clock = Clock()
    lane = Lane(clock=clock)
    lane.reserve(2000, 1)
    lane.refused(7)
    assert lane.reserve(2000, 1) >= 7
    lane.refused(300)
    assert lane.reserve(2000, 1) <= 61


def test_a_lane_that_is_only_refused_asks_now_and_then_until_something_is_taken() -> None:
    clock = Clock()
    lane = Lane(clock=clock)
    waits = []
    for _ in range(5):
        waits.append(lane.reserve(2000, 1))
        clock.now += waits[-1] + 0.1
        lane.refused()
    assert max(waits[:3]) < 0.3
    assert min(waits[3:]) == pytest.approx(rate.ASK_FULL_EVERY_S)

    lane.taken()
    clock.now += 10
    lane.refused()
    assert lane.reserve(2000, 1) < 0.3


def test_after_an_outage_the_rate_starts_at_half_and_is_whole_within_seconds() -> None:
    clock = Clock()
    lane = Lane(clock=clock)
    full = lane.rate
    lane.outage_ended()
    assert lane.rate == pytest.approx(full / 2)
    clock.now += 1
    assert lane.rate == pytest.approx(full / 2 * 1.25)
    clock.now += 3
    assert lane.rate == full


# --- the breaker -------------------------------------------------------------------------------------


def test_the_first_request_goes_alone() -> None:
    breaker = CircuitBreaker(Clock())

    assert breaker.admit() == (0.0, True)
    assert breaker.admit().wait_s > 0
    assert not breaker.answered()
    assert breaker.admit() == (0.0, False)


def test_three_failures_in_a_row_open_the_breaker_and_one_request_at_a_time_asks() -> None:
    clock = Clock()
    breaker = CircuitBreaker(clock, lambda _low, high: high)
    breaker.answered()
    for _ in range(2):
        breaker.failed()
    breaker.answered()
    for _ in range(3):
        assert not breaker.is_open
        breaker.failed(asked=False)
    assert breaker.is_open
    waits = []
    for _ in range(6):
        wait_s, _ = breaker.admit()
        waits.append(round(wait_s - 0.25))
        clock.now += wait_s
        assert breaker.admit().asks
        assert not breaker.admit().asks
        breaker.failed()
    assert waits == [2, 4, 8, 16, LONGEST_WAIT_S, LONGEST_WAIT_S]
    assert breaker.answered()
    assert not breaker.is_open


def test_a_service_that_names_its_return_is_not_asked_before() -> None:
    clock = Clock()
    breaker = CircuitBreaker(clock)
    breaker.answered()
    for _ in range(3):
        breaker.failed(retry_after_s=100)

    assert breaker.admit().wait_s >= 100


# --- R14 to R16: minutes of traffic ------------------------------------------------------------------


@pytest.mark.parametrize(("lanes", "in_flight"), [(1, 16), (4, 4), (16, 4), (64, 4)])
def test_with_the_right_limit_nearly_all_of_it_is_used_and_nothing_refused(
    lanes: int, in_flight: int
) -> None:
    seen = traffic(300, lanes=lanes, in_flight=in_flight)

    assert 0.97 * LIMIT <= seen.rate(0, 300) <= LIMIT
    assert seen.refused() <= 0.001


@pytest.mark.parametrize(("lanes", "in_flight"), [(1, 16), (16, 4)])
@pytest.mark.parametrize("tells_wait", [False, True])
def test_a_competitor_leaves_us_nearly_all_that_it_does_not_take(
    lanes: int, in_flight: int, tells_wait: bool
) -> None:
    seen = traffic(300, lanes=lanes, in_flight=in_flight, competitor=9000, tells_wait=tells_wait)

    assert seen.rate(0, 300) >= 0.93 * 21_000
    assert 0 < seen.refused() <= 0.15


@pytest.mark.parametrize(("lanes", "in_flight", "most"), [(1, 16, 0.15), (16, 4, 0.2)])
def test_a_limit_told_twice_too_high_is_found_out(lanes: int, in_flight: int, most: float) -> None:
    seen = traffic(300, lanes=lanes, in_flight=in_flight, told=2 * LIMIT)

    assert seen.rate(0, 300) >= 0.9 * LIMIT
    assert 0 < seen.refused() <= most
    assert seen.longest() < 180


@pytest.mark.parametrize(("lanes", "in_flight"), [(1, 16), (16, 4)])
def test_a_storm_of_refusals_is_given_way_to_and_forgotten_within_a_minute(
    lanes: int, in_flight: int
) -> None:
    def storm(second: float, chance: random.Random) -> int | None:
        return 429 if 60 <= second < 120 and chance.random() < 0.3 else None

    seen = traffic(190, lanes=lanes, in_flight=in_flight, fault=storm)

    before = seen.rate(20, 60)
    assert seen.requests(80, 120) / 40 <= 0.65 * before / EVENTS
    assert seen.rate(170, 190) >= 0.9 * before
    stormy = [sum(r.requests.values()) for begun, _, r in seen.deliveries if 60 <= begun < 120]
    assert 1 < sum(stormy) / len(stormy) <= 1.6
    assert seen.longest() < 180
    assert all(r.imported == EVENTS for _, _, r in seen.deliveries)


@pytest.mark.parametrize(("lanes", "in_flight"), [(1, 16), (16, 4)])
def test_an_outage_costs_few_requests_and_little_time_after_it(lanes: int, in_flight: int) -> None:
    seen = traffic(
        160,
        lanes=lanes,
        in_flight=in_flight,
        fault=lambda second, _chance: 503 if 60 <= second < 120 else None,
    )

    assert 3 * lanes <= seen.requests(60, 120) <= 10 * lanes
    assert seen.rate(145, 155) >= 0.9 * seen.rate(20, 60)
    assert seen.refused() == 0
    mean = LIMIT / EVENTS / 10
    slots = [seen.requests(120 + i / 10, 120 + (i + 1) / 10) for i in range(350)]
    assert max(slots) <= max(2 * mean, 4 if lanes == 1 else 8)
    assert all(r.imported == EVENTS for _, _, r in seen.deliveries)


def test_an_hour_of_outage_loses_nothing_and_asks_a_few_times_a_minute() -> None:
    seen = traffic(4000, in_flight=4, fault=lambda second, _chance: 503 if 60 <= second < 3660 else None)

    assert seen.requests(60, 3660) <= 60 * 10
    assert all(r.imported + r.undelivered == EVENTS for _, _, r in seen.deliveries)
    assert 0 < sum(r.undelivered for _, _, r in seen.deliveries) <= 16 * EVENTS
    assert seen.rate(3750, 4000) >= 0.9 * LIMIT


@pytest.mark.parametrize(("lanes", "in_flight"), [(1, 16), (16, 4)])
@pytest.mark.parametrize("answers_within", [(0.01, 0.05), (0.5, 3.0)])
def test_after_a_refusal_in_the_middle_of_a_run_no_lane_sends_anything(
    lanes: int, in_flight: int, answers_within: tuple[float, float]
) -> None:
    seen = traffic(
        90,
        lanes=lanes,
        in_flight=in_flight,
        answers_within=answers_within,
        fault=lambda second, _chance: 401 if second >= 60 else None,
    )

    for line in seen.lines:
        told = min(answered for _, answered, status in line.calls if status == 401)
        assert max(left for left, _, _ in line.calls) < told
        assert max(answered for _, answered, _ in line.calls) <= told + 5
    assert not any(r.rejections for _, _, r in seen.deliveries)
