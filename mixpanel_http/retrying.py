"""The one retry layer: sends the same bytes until there is an answer that more patience does not change."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Protocol

import tenacity

from mixpanel_http.answers import Answer, of_one_record, once_only
from mixpanel_http.breaker import CircuitBreaker
from mixpanel_http.crash_points import crash_point
from mixpanel_http.failure_table import (
    CONNECTION_BROKEN,
    NO_CONNECTION,
    PROTOCOL_TRIES,
    Action,
    AnswerClass,
)
from mixpanel_http.outgoing import Outgoing
from mixpanel_http.rate import Lane
from mixpanel_http.receipts import Receipt, Stop
from mixpanel_http.refused_records import SentIds, ids_of

UNREACHABLE_TRIES: Final = 3  # before the first answer ever: then the endpoint is wrong, not in trouble
PROTOCOL_STOPS: Final = 5  # answers outside the contract in a row: that is not Mixpanel
# A proxy may reset a connection instead of answering 413: so often in a row, with a body from this size on.
SUSPECT_RESETS: Final = 3
SUSPECT_BYTES: Final = 1_000_000
# The lane slows down by itself, so that one request need not wait long.
THROTTLED_LONGEST_WAIT_S: Final = 20.0
WARN_EVERY_S: Final = 10.0

_RETRIED: Final = frozenset({Action.SLOW_DOWN, Action.RETRY, Action.RETRY_FEW})
_OUTAGE: Final = frozenset({AnswerClass.TRANSIENT, AnswerClass.AMBIGUOUS})
_log: Final = logging.getLogger(__name__)


class Sender(Protocol):
    """What delivers one request's bytes; `ImportClient` in production."""

    def send(self, body: bytes, count: int, ids: SentIds) -> Answer:
        """Returns the answer to `count` records, packed as the endpoint wants it; `ids` returns their ids."""
        ...


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How long and how patiently a request is tried.

    Attributes:
        first_wait_s: the longest first wait; each further one may be twice as long.
        longest_wait_s: no wait is longer, unless the service asks for it.
        give_up_after_s: after this a request is undelivered, and the run goes on; time in which the process
            was suspended does not count.
    """

    first_wait_s: float = 2.0
    longest_wait_s: float = 60.0
    give_up_after_s: float = 900.0

    def bounds(self, tries: int, kind: AnswerClass) -> tuple[float, float]:
        """Returns the shortest and longest wait after so many tries; what lies between is equally likely.

        >>> RetryPolicy().bounds(1, AnswerClass.TRANSIENT), RetryPolicy().bounds(9, AnswerClass.TRANSIENT)
        ((0.5, 2.0), (0.5, 60.0))
        """
        longest = self.longest_wait_s
        if kind is AnswerClass.THROTTLED:
            longest = min(longest, THROTTLED_LONGEST_WAIT_S)
        bound = min(longest, self.first_wait_s * 2 ** min(tries - 1, 30))
        return min(self.first_wait_s / 4, bound), bound


@dataclass(slots=True)
class _Course:
    """How it goes with one request.

    Attributes:
        started: when it was sent first, by the clock; None if it was not.
        sent: how often it was.
        by_label: how often each answer came.
        resets: connections in a row that broke.
        asks: whether its answer tells the breaker if an outage is over.
        alone: whether the others wait for its answer.
        last: the last answer.
    """

    started: float | None = None
    sent: int = 0
    by_label: Counter[str] = field(default_factory=Counter)
    resets: int = 0
    asks: bool = False
    alone: bool = False
    suspensions: int = 0  # when it was sent last
    last: Answer | None = None


@dataclass(slots=True)
class Surroundings:
    """Time and chance, as a delivery sees them; tests bring their own.

    Attributes:
        clock: seconds, monotonic; those in which the process was suspended are not to count.
        wait: waits so many seconds, or less if the run is halted; None waits on the halt itself.
        uniform: a random number between two.
        waiting: told for what (a count of `Receipt`) and how long a thread is about to wait, then 0 seconds.
        suspensions: how often the process was suspended so far.
    """

    clock: Callable[[], float] = time.monotonic
    wait: Callable[[float], object] | None = None
    uniform: Callable[[float, float], float] = random.uniform
    waiting: Callable[[str, float], object] = lambda _what, _seconds: None
    suspensions: Callable[[], int] = lambda: 0


class PatientSender:
    """Sends requests over one client at the lane's pace, and repeats them. Safe to share between threads."""

    def __init__(
        self,
        client: Sender,
        lane: Lane,
        policy: RetryPolicy,
        surroundings: Surroundings | None = None,
        ids_of: Callable[[bytes], Sequence[str | None]] = ids_of,
    ) -> None:
        """Takes the client, its pace and its patience, and how records are known again in an answer."""
        around = surroundings or Surroundings()
        self._client = client
        self._ids_of = ids_of
        self._lane = lane
        self._policy = policy
        self._halt = threading.Event()
        self._clock = around.clock
        self._suspensions = around.suspensions
        self._wait = around.wait or self._halt.wait
        self._uniform = around.uniform
        self._waiting = around.waiting
        self._breaker = CircuitBreaker(around.clock, around.uniform)
        self._lock = threading.Lock()
        self._protocol_in_row = 0
        self._warned_at = float("-inf")
        self._unwarned = 0
        self.stopped: Stop | None = None

    @property
    def halted(self) -> bool:
        """True once nothing more is to be sent."""
        return self._halt.is_set()

    def halt(self, stop: Stop | None = None) -> None:
        """Ends all waits, and sends nothing more; a `stop` says why the run must not go on."""
        with self._lock:
            self.stopped = self.stopped or stop
        self._halt.set()

    def send(self, request: Outgoing, receipt: Receipt, alone: bool = False) -> Answer | None:
        """Returns the last answer: one that is not worth another try, or the one before patience ended.

        None means that nothing was sent, because the run is halted.

        Args:
            request: what to send.
            receipt: where it is counted.
            alone: whether the others wait until there is an answer.
        """
        course = _Course(alone=alone)
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_result(self._is_worth_another_try),
            wait=partial(self._wait_before_retry, course),
            stop=partial(self._has_tried_enough, course),
            sleep=lambda seconds: self._pause(seconds, receipt, "retry_wait_s"),
            retry_error_callback=_answer_of,
        )
        answer: Answer | None = retrying(self._send_once, request, receipt, course)
        # It holds what it was to do next, and that holds it: with the request's receipt they would stay until
        # the garbage collector comes, which takes minutes.
        retrying.iter_state.reset()
        return answer

    def _send_once(self, request: Outgoing, receipt: Receipt, course: _Course) -> Answer | None:
        if not self._may_send(request, receipt, course):
            return course.last
        if course.started is None:
            course.started = self._clock()
        else:
            receipt.retries += 1
            receipt.re_sent_events += request.count
            receipt.re_sent_bytes += len(request.body)
        course.suspensions = self._suspensions()
        crash_point("before send")
        answer = self._client.send(request.compressed, request.count, partial(self._ids_of, request.body))
        if request.count == 1:
            answer = of_one_record(answer, len(request.body))
        if not request.repeatable:
            answer = once_only(answer, request.count)
        crash_point("between answer and receipt")
        course.sent += 1
        course.by_label[answer.label] += 1
        receipt.requests[answer.label] += 1
        receipt.bytes_raw += len(request.body)
        receipt.bytes_sent += len(request.compressed)
        if answer.kind is not AnswerClass.OK:
            receipt.last_problem = f"{answer.label}: {answer.told}"
        self._learn(answer, course)
        course.last = self._suspected_size(answer, request, course)
        return course.last

    def _may_send(self, request: Outgoing, receipt: Receipt, course: _Course) -> bool:
        """Waits for the end of an outage and for the lane; returns whether the run still goes on then."""
        while not self._halt.is_set():
            wait_s, asks = self._breaker.admit(course.alone)
            if wait_s > 0:
                self._pause(wait_s, receipt, "outage_wait_s")
                continue
            self._pause(self._lane.reserve(request.count, len(request.body)), receipt, "throttled_s")
            if self._halt.is_set():
                if asks:
                    self._breaker.gave_up()
                return False
            if asks or not self._breaker.is_open:
                course.asks = asks
                return True
        return False

    def _learn(self, answer: Answer, course: _Course) -> None:
        """Tells lane and breaker, and stops the run where an answer says so or is one of too many.

        Here and not where the answer is acted upon: what is on its way by now cannot be called back, but
        nothing is to follow it.
        """
        if answer.action is Action.STOP or (course.alone and answer.action is Action.PROBE):
            self.halt(Stop(answer.status, answer.told or answer.label))
            return
        if answer.kind in _OUTAGE:
            self._breaker.failed(answer.retry_after_s or 0.0, answer.status > 0, course.asks)
            unreached = self._breaker.failures_at_start
            if answer.label == NO_CONNECTION and unreached >= UNREACHABLE_TRIES:
                self.halt(Stop(0, f"{answer.label}: no connection to the endpoint"))
            return
        protocol = answer.kind is AnswerClass.PROTOCOL
        if protocol and course.asks:
            self._breaker.gave_up()  # not Mixpanel's answer: one request at a time until there is one
        elif not protocol and self._breaker.answered(course.asks):
            self._lane.outage_ended()
        if answer.kind is AnswerClass.THROTTLED:
            self._lane.refused(answer.retry_after_s)
        else:
            self._lane.taken()
        with self._lock:
            self._protocol_in_row = self._protocol_in_row + 1 if protocol else 0
            in_row = self._protocol_in_row
        if in_row >= PROTOCOL_STOPS:
            message = f"{in_row} answers in a row are not Mixpanel's, the last: {answer.told}"
            self.halt(Stop(answer.status, message))

    def _suspected_size(self, answer: Answer, request: Outgoing, course: _Course) -> Answer:
        """Returns the answer, or a 413 in its place where a large body breaks every connection."""
        course.resets = course.resets + 1 if answer.label == CONNECTION_BROKEN else 0
        if (
            answer.action is Action.LEAVE
            or course.resets < SUSPECT_RESETS
            or request.count == 1
            or len(request.body) < SUSPECT_BYTES
        ):
            return answer
        message = f"the connection breaks each time {len(request.body):,} bytes are sent"
        return Answer(AnswerClass.TOO_LARGE, 0, answer.label, message, message)

    def _is_worth_another_try(self, answer: Answer | None) -> bool:
        return answer is not None and answer.action in _RETRIED

    def _has_tried_enough(self, course: _Course, state: tenacity.RetryCallState) -> bool:
        answer = _answer_of(state)
        if self._halt.is_set() or answer is None or course.started is None:
            return True
        most = PROTOCOL_TRIES if answer.kind is AnswerClass.PROTOCOL else answer.tries
        if most is not None and course.by_label[answer.label] >= most:
            return True
        late = self._clock() + state.upcoming_sleep - course.started > self._policy.give_up_after_s
        ends = late and course.suspensions == self._suspensions()  # else it was cut short, and tells nothing
        if not ends:
            self._warn(answer, course)
        return ends

    def _wait_before_retry(self, course: _Course, state: tenacity.RetryCallState) -> float:
        """Returns a random wait below a doubling bound, or what the service asks for if that is longer."""
        answer = _answer_of(state)
        assert answer is not None
        if answer.label == NO_CONNECTION and self._breaker.failures_at_start:
            return 0.0  # the breaker makes it wait, for less: a wrong endpoint is told within seconds
        wait_s = self._uniform(*self._policy.bounds(max(course.sent, 1), answer.kind))
        return max(answer.retry_after_s or 0.0, wait_s)

    def _pause(self, seconds: float, receipt: Receipt, what: str) -> None:
        """Waits, unless the run is halted first, and notes for what."""
        if seconds <= 0:
            return
        started = self._clock()
        self._waiting(what, seconds)
        self._wait(seconds)
        self._waiting(what, 0.0)
        receipt.waited(what, self._clock() - started)

    def _warn(self, answer: Answer, course: _Course) -> None:
        """Says now and then that requests are repeated, and why; of a request it says nothing."""
        with self._lock:
            self._unwarned += 1
            now = self._clock()
            if now - self._warned_at < WARN_EVERY_S:
                return
            self._warned_at = now
            repeated, self._unwarned = self._unwarned, 0
        _log.warning(
            "%s (%s): requests to be sent again since the last such line: %d; tries of this one: %d",
            answer.label,
            answer.told,
            repeated,
            course.sent,
        )


def _answer_of(state: tenacity.RetryCallState) -> Answer | None:
    assert state.outcome is not None
    answer: Answer | None = state.outcome.result()
    return answer
