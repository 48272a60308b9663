"""The pace of a lane: its share of the project's rate limit, and how it gives way when that is too much.

A run has a fixed number of lanes that share the limit evenly, so that nobody has to know how many workers
there are at the moment. Within a lane, requests leave one behind the other at an even pace.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from mixpanel_http import limits

# The service counts by its own clock over a rolling minute; a little below the limit is never above it. A
# lane starts at its full share: with the limit as it is published, no request of a run alone is ever refused,
# and a slow start would cost half a minute of it.
SHARE: Final = 0.985
# What a lane may catch up with after its threads came late, or had nothing to send for a moment. With the
# share above it fits into the minute: 0.985 * 60.4 s < 60 s, with as much again for requests that travel
# unevenly.
CATCH_UP_S: Final = 0.4

CUT: Final = 0.7  # of the rate, at a refusal
CUT_EVERY_S: Final = 2.0  # refusals within are of requests that left before the cut
CEILING_CUT: Final = 0.85  # of the rate that is remembered as too high
CEILING_EVERY_S: Final = 20.0
FLOOR: Final = 0.4  # of the ceiling: refusals that do not depend on the rate must not stop a run
QUIET_S: Final = 6.0  # without a refusal, before the rate grows again
GROWTH: Final = 1.2  # a second, up to NEAR_CEILING of the ceiling
NEAR_CEILING: Final = 0.9
PROBING: Final = 0.009  # of the share a second, from there on
HOLD_S: Final = 60.0  # of a `Retry-After`, for the whole lane: the window is a minute, more cannot help
# So many refusals of a lane in a row mean that the window is full: until a part of it has passed, all that is
# sent is refused. Then the lane asks this often.
FULL_AFTER: Final = 3
ASK_FULL_EVERY_S: Final = 4.0

AFTER_OUTAGE: Final = 0.5  # of the rate, when an outage ends
OUTAGE_GROWTH: Final = 1.25  # a second


@dataclass(slots=True)
class Lane:
    """Spreads requests so that neither events nor bytes go out faster than the lane's share allows.

    Two buckets, for events and for uncompressed bytes, that hold next to nothing: every stretch of time,
    however cut, stays within the rate. A refusal (429) cuts the rate, and quiet time restores it, never above
    the share. Safe to share between threads.

    Attributes:
        events_per_second: the project's limit.
        bytes_per_minute: the project's limit of uncompressed bytes.
        lanes: how many lanes share it.
        clock: seconds, monotonic.
        uniform: a random number between two, for the first request: lanes do not beat in time.
    """

    events_per_second: float = limits.EVENTS_PER_SECOND
    bytes_per_minute: float = limits.BYTES_PER_MINUTE
    lanes: int = 1
    clock: Callable[[], float] = time.monotonic
    uniform: Callable[[float, float], float] = random.uniform
    _events_free_at: float | None = None
    _bytes_free_at: float = 0.0
    _factor: float = 1.0  # of the share, for refusals
    _ceiling: float = 1.0
    _refused_at: float | None = None
    _refused_in_row: int = 0
    _cut_at: float = float("-inf")
    _ceiling_cut_at: float = float("-inf")
    _grown_at: float = 0.0
    _outage_ended_at: float | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def reserve(self, events: int, size: int) -> float:
        """Returns how many seconds to wait before sending `events` in `size` uncompressed bytes."""
        with self._lock:
            now = self.clock()
            factor = self._factor_now(now) * SHARE / self.lanes
            takes_events = events / (self.events_per_second * factor)
            takes_bytes = size * 60 / (self.bytes_per_minute * factor)
            if self._events_free_at is None:
                first = now + self._phase(max(takes_events, takes_bytes))
                self._events_free_at = self._bytes_free_at = first
            starts = max(now, self._events_free_at, self._bytes_free_at)
            late = starts - CATCH_UP_S
            self._events_free_at = max(self._events_free_at, late) + takes_events
            self._bytes_free_at = max(self._bytes_free_at, late) + takes_bytes
            return starts - now

    def refused(self, retry_after_s: float | None = None) -> None:
        """Slows down after a refusal for speed, and holds the lane if the service says for how long."""
        with self._lock:
            now = self.clock()
            self._grow(now)
            self._refused_at = now
            if now - self._cut_at >= CUT_EVERY_S:
                self._cut_at = now
                self._lower_ceiling(now)
                self._factor = max(self._factor * CUT, FLOOR * self._ceiling)
            self._refused_in_row += 1
            full = ASK_FULL_EVERY_S if self._refused_in_row >= FULL_AFTER else 0.0
            hold_s = max(full, min(retry_after_s or 0.0, HOLD_S))
            if hold_s and self._events_free_at is not None:
                self._events_free_at = max(self._events_free_at, now + hold_s)

    def taken(self) -> None:
        """Notes that a request was not refused for speed."""
        with self._lock:
            self._refused_in_row = 0

    def outage_ended(self) -> None:
        """Notes that the service is back: at half the rate first, as everybody else comes back, too."""
        with self._lock:
            now = self.clock()
            self._outage_ended_at = now
            if self._events_free_at is not None:  # what was missed is not caught up with
                self._events_free_at = max(self._events_free_at, now)
                self._bytes_free_at = max(self._bytes_free_at, now)

    @property
    def rate(self) -> float:
        """Events a second at which the lane sends now, if events are what limits it."""
        with self._lock:
            return self.events_per_second * self._factor_now(self.clock()) * SHARE / self.lanes

    def _phase(self, takes: float) -> float:
        """Returns when within its first beat a lane starts; one alone starts at once."""
        return self.uniform(0.0, takes) if self.lanes > 1 else 0.0

    def _lower_ceiling(self, now: float) -> None:
        if now - self._ceiling_cut_at >= CEILING_EVERY_S:
            self._ceiling_cut_at = now
            self._ceiling = max(CEILING_CUT * self._ceiling, min(self._ceiling, self._factor * CUT))

    def _factor_now(self, now: float) -> float:
        self._grow(now)
        if self._outage_ended_at is None:
            return self._factor
        ramp: float = AFTER_OUTAGE * OUTAGE_GROWTH ** (now - self._outage_ended_at)
        if ramp >= 1.0:
            self._outage_ended_at = None
        return self._factor * min(1.0, ramp)

    def _grow(self, now: float) -> None:
        """Grows the rate for the quiet time since it last grew: fast to near the ceiling, then slowly."""
        if self._refused_at is None or self._factor >= 1.0:
            return
        since = max(self._grown_at, self._refused_at + QUIET_S)
        seconds = now - since
        if seconds <= 0:
            return
        self._grown_at = now
        near = NEAR_CEILING * self._ceiling
        while seconds > 0 and self._factor < near:
            step = min(seconds, 1.0)
            self._factor = min(near, self._factor * GROWTH**step)
            seconds -= step
        self._factor = min(1.0, self._factor + PROBING * max(0.0, seconds))
        self._ceiling = max(self._ceiling, self._factor)
