"""What this process is doing just now: for whoever watches the run, and to notice that it is stuck."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, Protocol

from transforms.tally import Counts, Tally

RATE_SECONDS: Final = 30.0  # over which the speed is measured
REFUSED_SECONDS: Final = 10.0  # how long a refusal for speed counts as "throttled"


@dataclass(frozen=True, slots=True)
class Doing:
    """What a process is doing.

    Attributes:
        what: `starting`, `sending`, `throttled` (Mixpanel refuses for speed), `outage`, `retrying`.
        events_per_second: imported, over the last half minute.
        counts: outcomes since the process began the run.
        requests: requests so far, and how many of them Mixpanel refused for speed.
        quiet_s: seconds without any progress, while nothing waits on purpose.
        busy: whether it has work that is not finished.
    """

    what: str
    events_per_second: float
    counts: Counts
    requests: int
    refused: int
    quiet_s: float
    busy: bool = False


class Follower(Protocol):
    """What is told of each block and segment that this process commits."""

    def settled(self, segment: str, tally: Tally) -> None:
        """Takes what became of a block."""
        ...

    def completed(self, segment: str, counts: Counts) -> None:
        """Takes the counts of a segment whose last block is committed."""
        ...


@dataclass(slots=True)
class Activity:
    """Takes note of what happens in this process. Safe to share between threads."""

    clock: Callable[[], float] = time.monotonic
    _waits: dict[int, tuple[str, float]] = field(default_factory=dict)
    _recent: deque[tuple[float, int]] = field(default_factory=deque)
    _counts: Counts = field(default_factory=Counts)
    _requests: int = 0
    _refused: int = 0
    _refused_at: float = float("-inf")
    _moved_at: float | None = None
    _bundles: int = 0
    _follower: Follower | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def reset(self) -> None:
        """Forgets everything: a new run begins in this process."""
        with self._lock:
            self._waits.clear()
            self._recent.clear()
            self._counts = Counts()
            self._requests = self._refused = 0
            self._refused_at = float("-inf")
            self._moved_at = None
            self._bundles = 0

    def began(self) -> None:
        """Notes that the runner has given this process work."""
        with self._lock:
            self._bundles += 1

    def ended(self) -> None:
        """Notes that some of that work is finished."""
        with self._lock:
            self._bundles = max(0, self._bundles - 1)

    def moved(self) -> None:
        """Notes that something got on."""
        self._moved_at = self.clock()

    def woke(self) -> None:
        """Notes that the process was suspended: in that time nothing could get on."""
        with self._lock:
            if self._moved_at is not None:
                self._moved_at = self.clock()

    @contextmanager
    def followed_by(self, follower: Follower) -> Iterator[None]:
        """Tells somebody of all that is committed while the body runs."""
        self._follower = follower
        try:
            yield
        finally:
            self._follower = None

    def completed(self, segment: str, counts: Counts) -> None:
        """Notes that the last block of a segment is committed."""
        if (follower := self._follower) is not None:
            follower.completed(segment, counts)

    def settled(self, segment: str, tally: Tally) -> None:
        """Notes what became of a block."""
        if (follower := self._follower) is not None:
            follower.settled(segment, tally)
        total = tally.total
        with self._lock:
            now = self._moved_at = self.clock()
            self._counts.add(total)
            self._recent.append((now, total.imported))
            self._requests += sum(tally.requests.values())
            if tally.requests["429"]:
                self._refused += tally.requests["429"]
                self._refused_at = now
            self._forget(now)

    def waiting(self, what: str, seconds: float) -> None:
        """Notes that this thread waits for a reason, or with 0 seconds that it no longer does."""
        thread = threading.get_ident()
        with self._lock:
            if seconds > 0:
                self._waits[thread] = (what, self.clock() + seconds)
            else:
                self._waits.pop(thread, None)
                self._moved_at = self.clock()

    def now(self) -> Doing:
        """Returns what this process is doing."""
        with self._lock:
            now = self.clock()
            self._forget(now)
            counts = Counts()
            counts.add(self._counts)
            seconds = now - self._recent[0][0] if self._recent else 0.0
            imported = sum(count for _, count in self._recent)
            quiet_s = 0.0 if self._waits or self._moved_at is None else now - self._moved_at
            return Doing(
                self._what(now),
                imported / max(seconds, 1.0),
                counts,
                self._requests,
                self._refused,
                quiet_s,
                self._bundles > 0,
            )

    def _what(self, now: float) -> str:
        kinds = {what for what, _ in self._waits.values()}
        if "outage_wait_s" in kinds:
            return "outage"
        if now - self._refused_at < REFUSED_SECONDS:
            return "throttled"
        if "retry_wait_s" in kinds and "throttled_s" not in kinds:
            return "retrying"
        return "sending" if self._moved_at is not None else "starting"

    def _forget(self, now: float) -> None:
        while self._recent and self._recent[0][0] < now - RATE_SECONDS:
            self._recent.popleft()


here: Final = Activity()
