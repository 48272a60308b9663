"""How much a project may send within a rolling window, and how often it may ask."""

import math
import threading
import time
from collections import deque
from collections.abc import Callable

SLOTS = 600  # the window is kept in steps of this part of it, so that memory does not grow with the rate


class RateLimiter:
    """A rolling window over events and uncompressed bytes; safe to use from several threads.

    A request is admitted when it fits into what is left of the window; a refused one takes nothing from it.
    Records that fail validation count like any other (RATE: 400s count against the limit).
    """

    def __init__(
        self, events: int, size: int, window_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Makes a limiter of so many events and bytes a window; 0 means no limit."""
        self._most = (events, size)
        self._window_s = window_s
        self._clock = clock
        self._lock = threading.Lock()
        self.clear()

    def clear(self) -> None:
        """Forgets what was admitted."""
        self._used = [0, 0]
        self._slots: deque[tuple[int, int, int]] = deque()

    def admit(self, events: int, size: int) -> float:
        """Takes a request's share and returns 0.0, or returns in how many seconds it may fit."""
        with self._lock:
            slot = int(self._clock() / self._window_s * SLOTS)
            self._forget(slot - SLOTS - 1)  # a slot counts until its last moment is a window ago
            if not self._fits(self._used, events, size):
                return self._wait(slot, events, size)
            self._slots.append((slot, events, size))
            self._used[0] += events
            self._used[1] += size
            self._merge_last()
            return 0.0

    def _fits(self, used: list[int], events: int, size: int) -> bool:
        return all(
            not most or taken + new <= most
            for most, taken, new in zip(self._most, used, (events, size), strict=True)
        )

    def _forget(self, oldest: int) -> None:
        while self._slots and self._slots[0][0] <= oldest:
            _, events, size = self._slots.popleft()
            self._used[0] -= events
            self._used[1] -= size

    def _merge_last(self) -> None:
        if len(self._slots) < 2 or self._slots[-2][0] != self._slots[-1][0]:
            return
        slot, events, size = self._slots.pop()
        _, before, before_size = self._slots.pop()
        self._slots.append((slot, before + events, before_size + size))

    def _wait(self, slot: int, events: int, size: int) -> float:
        used = list(self._used)
        for taken_at, taken, taken_size in self._slots:
            used[0] -= taken
            used[1] -= taken_size
            if self._fits(used, events, size):
                return (taken_at + SLOTS - slot + 1) * self._window_s / SLOTS
        return self._window_s


class QuotaWindow:
    """How many calls an hour and a second are allowed; 0 an hour means no limit."""

    def __init__(self, per_hour: int, per_second: int = 0) -> None:
        """Makes a quota."""
        self._limits = [(3600.0, per_hour), (1.0, per_second)] if per_hour else []
        self._calls: deque[float] = deque()

    def clear(self) -> None:
        """Forgets the calls made."""
        self._calls.clear()

    def take(self) -> int:
        """Takes one call and returns 0, or returns in how many seconds one is allowed again."""
        now = time.monotonic()
        while self._calls and self._calls[0] <= now - 3600:
            self._calls.popleft()
        for span_s, most in self._limits:
            if most and len(self._calls) >= most and self._calls[-most] > now - span_s:
                return math.ceil(self._calls[-most] + span_s - now)
        self._calls.append(now)
        return 0
