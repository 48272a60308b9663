"""What a request's patience counts: time in which this process ran, not that in which it was suspended."""

from __future__ import annotations

import pytest

from mixpanel_http.awake import ASLEEP_SECONDS, AwakeClock
from mixpanel_http.delivery import Deliverer
from mixpanel_http.rate import Lane
from mixpanel_http.retrying import RetryPolicy, Surroundings
from tests.played import OK, RESET, Played, Reply, body

HOUR = 3600.0


class Time:
    """The machine's clock, read every second, and a suspension that comes with the n-th request."""

    def __init__(self, suspended_in: int | None = None, before: float = 0.0) -> None:
        self.now = 1000.0
        self.awake = AwakeClock(lambda: self.now)
        self.awake()
        self.suspended_in = suspended_in
        self.before = before
        self.sent = 0

    def wait(self, seconds: float) -> None:
        for _ in range(int(seconds)):
            self.now += 1.0
            self.awake()
        self.now += seconds % 1.0
        self.awake()

    def send(self) -> None:
        self.sent += 1
        self.wait(self.before if self.sent == self.suspended_in else 0.0)
        self.now += HOUR if self.sent == self.suspended_in else 0.0


def test_time_counts_as_long_as_somebody_can_read_it() -> None:
    time = Time()
    time.wait(500.5)
    assert time.awake() == pytest.approx(500.5)
    time.now += HOUR
    assert time.awake() == pytest.approx(500.5)
    assert time.awake.suspensions() == 1
    time.wait(9.0)
    time.now += ASLEEP_SECONDS  # a thread that came late
    assert time.awake() == pytest.approx(509.5 + ASLEEP_SECONDS)
    assert time.awake.suspensions() == 1


def test_who_looks_first_after_a_suspension_sees_it() -> None:
    time = Time()
    time.now += HOUR
    assert time.awake.suspensions() == 1


def delivered(time: Time, replies: list[Reply]) -> tuple[int, int]:
    """Returns how many records arrive and how many are given up, with a hundred seconds of patience."""
    service = Played(replies, when_sent=time.send)
    around = Surroundings(time.awake, time.wait, suspensions=time.awake.suspensions)
    deliverer = Deliverer(service, Lane(clock=time.awake), RetryPolicy(give_up_after_s=100), around)
    receipt = deliverer.deliver(body(10), 10)
    return receipt.imported, receipt.undelivered


@pytest.mark.parametrize("trouble", [RESET, (503, {})], ids=["reset", "503"])
@pytest.mark.parametrize("suspended_in", [1, 2, 3])
def test_a_request_that_a_suspension_cut_short_is_sent_again(trouble: Reply, suspended_in: int) -> None:
    time = Time(suspended_in)
    assert delivered(time, [trouble] * suspended_in + [OK]) == (10, 0)
    assert time.sent == suspended_in + 1
    assert time.now > 1000 + HOUR


def test_after_a_suspension_there_is_one_further_try_though_patience_was_at_its_end() -> None:
    assert delivered(Time(1, before=99.5), [RESET, OK]) == (10, 0)
    assert delivered(Time(1, before=99.5), [RESET, RESET, OK]) == (0, 10)
    assert delivered(Time(None), [(503, {})]) == (0, 10)
