"""The rate limit: a rolling window over events and bytes, on a clock of the test's own and over a socket."""

import json
import tracemalloc
from collections.abc import Callable

from mixpanel_emulator.limiter import RateLimiter
from tests.emulator.conftest import StartEmulator
from tests.emulator.talk import call as ask
from tests.emulator.talk import event, recent, send


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def limiter(events: int = 0, size: int = 0) -> tuple[RateLimiter, Clock]:
    clock = Clock()
    return RateLimiter(events, size, 60.0, clock), clock


def test_what_fits_into_the_window_is_admitted_and_what_does_not_is_not() -> None:
    limit, _ = limiter(events=100)
    assert limit.admit(60, 1) == 0
    assert limit.admit(41, 1) > 0
    assert limit.admit(40, 1) == 0


def test_a_refused_request_takes_nothing_from_the_window() -> None:
    limit, _ = limiter(events=100)
    assert limit.admit(101, 1) > 0
    assert limit.admit(100, 1) == 0


def test_room_comes_back_when_the_window_has_rolled_on() -> None:
    limit, clock = limiter(events=100)
    limit.admit(50, 1)
    clock.now += 30
    limit.admit(50, 1)
    wait_s = limit.admit(50, 1)
    assert 29 < wait_s <= 31
    clock.now += wait_s
    assert limit.admit(50, 1) == 0
    assert limit.admit(50, 1) > 0


def test_bytes_are_limited_like_events() -> None:
    limit, _ = limiter(size=1000)
    assert limit.admit(1, 900) == 0
    assert limit.admit(1, 101) > 0
    assert limit.admit(1, 100) == 0


def test_no_window_ever_holds_more_than_the_limit() -> None:
    limit, clock = limiter(events=1000)
    admitted: list[tuple[float, int]] = []
    for step in range(2000):
        clock.now += 0.37
        size = 1 + step * 7919 % 97
        if limit.admit(size, 1) == 0:
            admitted.append((clock.now, size))
    for now, _ in admitted:
        assert sum(size for at, size in admitted if now - 60 < at <= now) <= 1000


def test_memory_of_the_window_does_not_grow_with_the_number_of_requests() -> None:
    limit, clock = limiter(events=10**9)
    tracemalloc.start()
    try:
        for _ in range(100_000):
            clock.now += 0.001
            limit.admit(1, 1)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 200_000  # a hundred bytes for each of 600 steps, and not for each of 100,000 requests


def test_a_project_over_its_limit_is_answered_429_and_failures_count(start: StartEmulator) -> None:
    project = start(rate_events="10", retry_after="seconds")
    assert send(project.url, [event(time=None)] * 8).status == 400
    reply = send(project.url, [event()] * 3)
    assert reply.status == 429
    assert reply.json() == {
        "code": 429,
        "error": "Project exceeded rate limits. Please retry the request with exponential backoff.",
        "status": "Too Many Requests",
    }
    assert 0 < int(reply.headers["retry-after"]) <= 61
    assert send(project.url, [event()] * 3, query="strict=0").json()["status"] == 0
    assert ask(project.url, "POST", "/track", b"[" + b",".join([encoded(recent)] * 3) + b"]").status == 429
    assert project.stats()["requests_by_status"] == {"400": 1, "429": 3}
    project.reset()
    assert send(project.url, [event()] * 3).status == 200


def test_no_retry_after_is_sent_unless_asked_for(start: StartEmulator) -> None:
    project = start(rate_events="1")
    assert "retry-after" not in send(project.url, [event()] * 2).headers


def encoded(make: Callable[[], object]) -> bytes:
    return json.dumps(make()).encode()
