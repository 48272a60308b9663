"""Delivers requests: retries, halves, isolates, and says for every record what became of it.

The one retry layer of the project. `Deliverer.deliver` returns normally whatever the server or the network
does; what must stop the run is part of what it returns.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

import tenacity
from isal import isal_zlib

from mixpanel_http.answers import REFUSED_FOR_GOOD, Answer, AnswerClass
from mixpanel_http.rate import Pace
from mixpanel_http.verdicts import Reason, Rejection

GZIP_LEVEL: Final = 1  # isal's: 0.7 CPU-s per million events where zlib's best costs ten times that
ISOLATION_BUDGET: Final = 64  # requests that one refused request may cost to find its bad records
PROTOCOL_TRIES: Final = 3
UNREACHABLE_TRIES: Final = 3  # before the first answer ever: then the endpoint is wrong, not in trouble
LEARNED_SHARE: Final = 0.9  # of the size that a 413 refused
_RETRIED: Final = frozenset(
    {AnswerClass.THROTTLED, AnswerClass.TRANSIENT, AnswerClass.AMBIGUOUS, AnswerClass.PROTOCOL}
)


class Sender(Protocol):
    """What delivers one request's bytes; `ImportClient` in production."""

    def send(self, body: bytes, count: int) -> Answer:
        """Returns the answer to `count` events in gzipped NDJSON."""
        ...


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How long and how patiently a request is tried.

    Attributes:
        first_wait_s: the longest first wait; each further one may be twice as long.
        longest_wait_s: no wait is longer, unless the service asks for it.
        give_up_after_s: after this a request is undelivered, and the run goes on.
    """

    first_wait_s: float = 2.0
    longest_wait_s: float = 60.0
    give_up_after_s: float = 900.0


@dataclass(frozen=True, slots=True)
class Stop:
    """Why a run must not go on: the status, or 0, and what was said; `limit` if it is one of the run's own."""

    status: int
    message: str
    limit: bool = False

    @property
    def for_good(self) -> bool:
        """True if asking again as somebody else would not help."""
        return self.status in REFUSED_FOR_GOOD


@dataclass(slots=True)
class Receipt:
    """What became of the records of one request; the counts and rejections add up to its records.

    `rejections` carry the record's index in the request. `ranges` say for stretches of it (first index,
    records, the count's name) what became of those of them that no rejection names.
    """

    imported: int = 0
    undelivered: int = 0
    not_attempted: int = 0
    rejections: list[Rejection] = field(default_factory=list)
    ranges: list[tuple[int, int, str]] = field(default_factory=list)
    requests: Counter[str] = field(default_factory=Counter)
    retries: int = 0
    splits: int = 0
    bytes_raw: int = 0
    bytes_sent: int = 0
    re_sent_events: int = 0
    re_sent_bytes: int = 0
    waited_s: float = 0.0
    last_problem: str = ""
    stop: Stop | None = None

    def settle(self, first: int, count: int, fate: str, refused: int = 0) -> None:
        """Notes that a stretch was imported, undelivered or not attempted, except the `refused`."""
        setattr(self, fate, getattr(self, fate) + count - refused)
        self.ranges.append((first, count, fate))


def compress(body: bytes) -> bytes:
    """Returns a request's body gzipped; the same bytes give the same result."""
    return bytes(isal_zlib.compress(body, GZIP_LEVEL, 31))


class Deliverer:
    """Delivers requests over one client, from several threads at once."""

    def __init__(
        self,
        client: Sender,
        pace: Pace,
        policy: RetryPolicy,
        *,
        wait: Callable[[float], object] | None = None,
        random_uniform: Callable[[float, float], float] = random.uniform,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Takes the client and how to pace and retry; what has a default is for tests."""
        self._client = client
        self._pace = pace
        self._policy = policy
        self._halt = threading.Event()
        self._wait = wait or self._halt.wait
        self._uniform = random_uniform
        self._monotonic = monotonic
        self._stop: Stop | None = None
        self._answered = False
        self.learned_bytes: int | None = None

    def deliver(self, body: bytes, count: int, compressed: bytes | None = None) -> Receipt:
        """Returns what became of `count` events in the NDJSON `body`; `compressed` is the same, gzipped."""
        receipt = Receipt()
        budget = [ISOLATION_BUDGET]
        if self.learned_bytes is not None and len(body) > self.learned_bytes and count > 1:
            self._halve(body, count, 0, budget, receipt)
        else:
            self._deliver_part(body, count, 0, budget, receipt, compressed)
        return receipt

    def _deliver_part(
        self,
        body: bytes,
        count: int,
        first: int,
        budget: list[int],
        receipt: Receipt,
        compressed: bytes | None = None,
    ) -> None:
        """Delivers the records that start at index `first` of the request and adds what became of them."""
        if self._stop is not None:
            receipt.settle(first, count, "not_attempted")
            receipt.stop = self._stop
            return
        answer = self._send_until_answered(body, count, compressed or compress(body), receipt)
        if answer.kind in (AnswerClass.OK, AnswerClass.PARTIAL):
            receipt.settle(first, count, "imported", len(answer.refused))
            receipt.rejections.extend(
                Rejection(first + r.index, "refused_by_service", r.field, r.message, answer.status)
                for r in answer.refused
            )
        elif answer.kind is AnswerClass.TOO_LARGE:
            self._handle_too_large(body, count, first, budget, receipt, answer)
        elif answer.kind is AnswerClass.RECORD:
            self._isolate(body, count, first, budget, receipt, answer)
        elif answer.kind is AnswerClass.FATAL:
            self._stop = self._stop or Stop(answer.status, answer.message or answer.label)
            self._halt.set()
            receipt.stop = self._stop
            receipt.settle(first, count, "not_attempted")
        elif self._stop is not None and not answer.sent:
            receipt.stop = self._stop
            receipt.settle(first, count, "not_attempted")
        else:
            receipt.settle(first, count, "undelivered")

    def _handle_too_large(
        self, body: bytes, count: int, first: int, budget: list[int], receipt: Receipt, answer: Answer
    ) -> None:
        if count == 1:
            receipt.rejections.append(
                Rejection(first, Reason.TOO_LARGE.value, None, answer.message, answer.status)
            )
            return
        learned = int(len(body) * LEARNED_SHARE)
        self.learned_bytes = min(self.learned_bytes or learned, learned)
        self._halve(body, count, first, budget, receipt)

    def _isolate(
        self, body: bytes, count: int, first: int, budget: list[int], receipt: Receipt, answer: Answer
    ) -> None:
        if count == 1:
            receipt.rejections.append(
                Rejection(first, "refused_by_service", None, answer.message, answer.status)
            )
        elif budget[0] < 2:
            receipt.rejections.extend(
                Rejection(first + i, "unisolated", None, answer.message, answer.status) for i in range(count)
            )
        else:
            budget[0] -= 2
            self._halve(body, count, first, budget, receipt)

    def _halve(self, body: bytes, count: int, first: int, budget: list[int], receipt: Receipt) -> None:
        lines = body.split(b"\n")
        middle = count // 2
        receipt.splits += 1
        for part, start in ((lines[:middle], first), (lines[middle:], first + middle)):
            self._deliver_part(b"\n".join(part), len(part), start, budget, receipt)

    def _send_until_answered(self, body: bytes, count: int, compressed: bytes, receipt: Receipt) -> Answer:
        """Returns the last answer: one that is not worth another try, or the one before the time ran out."""
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_result(self._is_worth_a_retry),
            wait=self._wait_before_retry,
            stop=tenacity.stop_any(
                _Stop(self._has_tried_enough), tenacity.stop_after_delay(self._policy.give_up_after_s)
            ),
            sleep=lambda seconds: self._sleep(seconds, receipt),
            retry_error_callback=lambda state: state.outcome.result() if state.outcome else None,
        )
        attempt = 0

        def send() -> Answer:
            nonlocal attempt
            if attempt:
                receipt.retries += 1
                receipt.re_sent_events += count
                receipt.re_sent_bytes += len(body)
            attempt += 1
            return self._send_once(body, count, compressed, receipt)

        answer: Answer = retrying(send)
        return answer

    def _send_once(self, body: bytes, count: int, compressed: bytes, receipt: Receipt) -> Answer:
        self._sleep(self._pace.reserve(count, len(body)), receipt)
        if self._stop is not None:
            return Answer(AnswerClass.FATAL, self._stop.status, "stopped", self._stop.message, sent=False)
        answer = self._client.send(compressed, count)
        receipt.requests[answer.label] += 1
        receipt.bytes_raw += len(body)
        receipt.bytes_sent += len(compressed)
        self._answered = self._answered or answer.status > 0
        if answer.kind is not AnswerClass.OK:
            receipt.last_problem = f"{answer.label}: {answer.message}"
        return answer

    def _is_worth_a_retry(self, answer: Answer) -> bool:
        return answer.kind in _RETRIED and self._stop is None

    def _has_tried_enough(self, state: tenacity.RetryCallState) -> bool:
        answer = _answer_of(state)
        if answer.kind is AnswerClass.PROTOCOL:
            return state.attempt_number >= PROTOCOL_TRIES
        if not answer.sent and not self._answered and state.attempt_number >= UNREACHABLE_TRIES:
            self._stop = self._stop or Stop(0, f"{answer.label}: {answer.message}")
            self._halt.set()
            return True
        return False

    def _wait_before_retry(self, state: tenacity.RetryCallState) -> float:
        """Returns full jitter under a doubling bound, or what the service asks for if that is longer."""
        answer = _answer_of(state)
        bound = min(self._policy.longest_wait_s, self._policy.first_wait_s * 2 ** (state.attempt_number - 1))
        return max(answer.retry_after_s or 0.0, self._uniform(bound / 4, bound))

    def _sleep(self, seconds: float, receipt: Receipt) -> None:
        """Waits, unless the run is stopped first."""
        if seconds <= 0:
            return
        started = self._monotonic()
        self._wait(seconds)
        receipt.waited_s += self._monotonic() - started


class _Stop(tenacity.stop.stop_base):
    """A condition to stop at, in the form that can be combined with others."""

    def __init__(self, condition: Callable[[tenacity.RetryCallState], bool]) -> None:
        self._condition = condition

    def __call__(self, retry_state: tenacity.RetryCallState) -> bool:
        return self._condition(retry_state)


def _answer_of(state: tenacity.RetryCallState) -> Answer:
    assert state.outcome is not None
    answer: Answer = state.outcome.result()
    return answer
