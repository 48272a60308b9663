"""The circuit breaker of a lane: in an outage one request at a time asks whether it is over, the others wait.

It reacts to outages only. Refusals for speed are the business of `rate.Lane`: a service that is down and one
that is full need different reactions, and one rule for both takes minutes to find back to its speed.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

OPENS_AFTER: Final = 3  # failures in a row
FIRST_WAIT_S: Final = 2.0
LONGEST_WAIT_S: Final = 20.0
POLL_S: Final = 0.25  # how often those who wait look whether the one who asks has got an answer
START_WAIT_S: Final = 1.0  # before the first answer of all: a wrong endpoint is to be told within seconds


class Admission(NamedTuple):
    """Whether to send now.

    Attributes:
        wait_s: 0.0, or in how many seconds to ask again.
        asks: whether this request finds out if the outage is over; then its outcome must be told.
    """

    wait_s: float = 0.0
    asks: bool = False


@dataclass(slots=True)
class CircuitBreaker:
    """Says who may send now. Starts half open: the first request goes alone, so that a wrong token costs one.

    Attributes:
        clock: seconds, monotonic.
        uniform: a random number between two, for waits that do not fall together.
    """

    clock: Callable[[], float] = time.monotonic
    uniform: Callable[[float, float], float] = random.uniform
    opened: int = 0
    _failures: int = 0
    _open: bool = True
    _answered: bool = False
    _asking: bool = False
    _in_doubt: bool = False
    _ask_at: float = 0.0
    _wait_s: float = FIRST_WAIT_S
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def admit(self, alone: bool = False) -> Admission:
        """Returns whether the caller may send now, or when to ask again.

        Args:
            alone: whether the caller has to be the one who asks: until it has its answer, nobody else sends.
        """
        with self._lock:
            self._in_doubt = self._in_doubt or alone
            self._open = self._open or alone
            if not self._open:
                return Admission()
            now = self.clock()
            if self._asking:
                return Admission(self.uniform(POLL_S / 2, POLL_S))
            if now < self._ask_at:
                return Admission(self._ask_at - now + self.uniform(0.0, POLL_S))
            self._asking = True
            return Admission(asks=True)

    @property
    def is_open(self) -> bool:
        """True in an outage, and before the first answer."""
        return self._open

    @property
    def failures_at_start(self) -> int:
        """Failures so far, as long as nothing has ever been answered."""
        return 0 if self._answered else self._failures

    def answered(self, asked: bool = True) -> bool:
        """Notes that the service works; returns whether that ends an outage.

        Args:
            asked: whether it was the request that was to find out.
        """
        with self._lock:
            if self._in_doubt and not asked:
                return False  # it left before the doubt, and says nothing of it
            ends = self._open and self._answered and not self._in_doubt
            self._in_doubt = False
            self._open = self._asking = False
            self._answered = True
            self._failures = 0
            self._wait_s = FIRST_WAIT_S
            return ends

    def failed(self, retry_after_s: float = 0.0, reached: bool = True, asked: bool = True) -> None:
        """Notes that the service does not work: it said so, or nothing came back.

        Args:
            retry_after_s: what it asked to wait.
            reached: whether there was an answer at all.
            asked: whether it was the request that was to find out.
        """
        with self._lock:
            self._failures += 1
            self._answered = self._answered or reached
            if self._open and asked:
                self._asking = False
                self._wait(retry_after_s)
            elif not self._open and self._failures >= OPENS_AFTER:
                self._open = True
                self.opened += 1
                self._wait(retry_after_s)

    def gave_up(self) -> None:
        """Notes that the one who asked has found nothing out."""
        with self._lock:
            self._asking = False

    def _wait(self, retry_after_s: float) -> None:
        bound = self._wait_s if self._answered else START_WAIT_S
        wait_s = max(self.uniform(bound / 2, bound), retry_after_s)
        self._ask_at = self.clock() + wait_s
        self._wait_s = min(LONGEST_WAIT_S, self._wait_s * 2)
