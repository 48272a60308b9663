"""Minutes of traffic in virtual time: the real delivery against the emulator's limiter, without a wait."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import orjson

from mixpanel_emulator.limiter import RateLimiter
from mixpanel_http.answers import Answer, read_answer
from mixpanel_http.delivery import Deliverer
from mixpanel_http.rate import Lane
from mixpanel_http.receipts import Receipt
from mixpanel_http.refused_records import SentIds, no_ids
from mixpanel_http.retrying import RetryPolicy, Surroundings
from tests.virtual_time import VirtualTime

LIMIT = 30_000
EVENTS = 2000
BODY = b"\n".join([b"{}"] * EVENTS)
Fault = Callable[[float, random.Random], int | None]
"""Returns the status to answer with at a second of the run, or None to leave the request alone."""


@dataclass
class Service:
    """A Mixpanel in virtual time: a rolling minute, latency, faults, and a competitor that takes its part."""

    time: VirtualTime
    chance: random.Random
    fault: Fault | None = None
    competitor: int = 0
    tells_wait: bool = False
    answers_within: tuple[float, float] = (0.01, 0.05)
    log: list[tuple[float, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._limiter = RateLimiter(LIMIT * 60, 0, 60.0, self.time.clock)
        self._started = self._competed = self.time.now

    def send(self, body: bytes, count: int, ids: SentIds = no_ids) -> Answer:
        self.time.wait(self.chance.uniform(0.02, 0.08))
        self._compete()
        status = self.fault(self.time.now - self._started, self.chance) if self.fault else None
        headers: Mapping[str, str] = {}
        if status is None:
            wait_s = self._limiter.admit(count, len(body))
            status = 429 if wait_s else 200
            if wait_s and self.tells_wait:
                headers = {"retry-after": str(int(wait_s) + 1)}
        self.log.append((self.time.now - self._started, status))
        self.time.wait(self.chance.uniform(*self.answers_within))
        said = {"code": status, "num_records_imported": count, "status": "OK" if status == 200 else "no"}
        return read_answer(status, headers, orjson.dumps(said), count, 0.0, ids)

    def _compete(self) -> None:
        while self.competitor and self._competed < self.time.now:
            self._limiter.admit(EVENTS, 0)
            self._competed += EVENTS / self.competitor


@dataclass
class Line:
    """One lane's way to the service; of each request it notes when it left, was answered, and with what."""

    service: Service
    calls: list[tuple[float, float, int]] = field(default_factory=list)

    def send(self, body: bytes, count: int, ids: SentIds = no_ids) -> Answer:
        left = self.service.time.now
        answer = self.service.send(body, count, ids)
        self.calls.append((left, self.service.time.now, answer.status))
        return answer


@dataclass
class Traffic:
    """What a run looked like from outside.

    Attributes:
        log: seconds since the start and status of each request as it arrived.
        deliveries: begin, end and receipt of each request that was to be delivered.
        waits: how long each took from first to last.
        lines: what each lane sent.
    """

    log: list[tuple[float, int]]
    deliveries: list[tuple[float, float, Receipt]] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)

    def requests(self, start: float, end: float) -> int:
        """Returns how many requests arrived from one second to another."""
        return sum(start <= at < end for at, _ in self.log)

    def rate(self, start: float, end: float) -> float:
        """Returns how many events a second were imported from one second to another."""
        return sum(EVENTS for at, status in self.log if start <= at < end and status == 200) / (end - start)

    def refused(self) -> float:
        """Returns the share of requests that were answered with 429."""
        return sum(status == 429 for _, status in self.log) / len(self.log)

    def longest(self) -> float:
        """Returns the longest that one request took from first to last, in seconds."""
        return max(self.waits)


def traffic(
    seconds: float,
    *,
    lanes: int = 1,
    in_flight: int = 16,
    told: int = LIMIT,
    fault: Fault | None = None,
    competitor: int = 0,
    tells_wait: bool = False,
    answers_within: tuple[float, float] = (0.01, 0.05),
    seed: int = 0,
) -> Traffic:
    """Returns what a run of so many seconds looks like, with `in_flight` requests at once in each lane."""
    time = VirtualTime()
    started = time.now
    service = Service(time, random.Random(seed), fault, competitor, tells_wait, answers_within)
    seen = Traffic(service.log)

    def worker(deliverer: Deliverer) -> Callable[[], None]:
        def work() -> None:
            while time.now < started + seconds:
                begun = time.now
                receipt = deliverer.deliver(BODY, EVENTS, b"compressed")
                seen.deliveries.append((begun - started, time.now - started, receipt))
                seen.waits.append(time.now - begun)
                if receipt.stop:
                    return

        return work

    workers: list[Callable[[], None]] = []
    for number in range(lanes):
        chance = random.Random(seed * 1000 + number)
        lane = Lane(told, 10**15, lanes, time.clock, chance.uniform)
        around = Surroundings(time.clock, time.wait, chance.uniform)
        seen.lines.append(Line(service))
        workers += [worker(Deliverer(seen.lines[-1], lane, RetryPolicy(), around))] * in_flight
    time.run(workers)
    return seen
