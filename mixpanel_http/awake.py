"""A clock that stands still while the process does: in that time nobody could have tried anything."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Final

from mixpanel_http.retrying import Surroundings

TICK_SECONDS: Final = 1.0
# A gap longer than that is no thread that came late: the process was suspended (SIGSTOP, Ctrl-Z, a paused
# container or virtual machine), or the machine was, where its clock goes on.
ASLEEP_SECONDS: Final = 10.0


@dataclass(slots=True)
class AwakeClock:
    """Counts the seconds in which this process ran; it has to be read every second. Safe to share.

    Attributes:
        clock: seconds, monotonic; goes on while the process is suspended.
        gaps: how often it was.
    """

    clock: Callable[[], float] = time.monotonic
    gaps: int = 0
    _seconds: float = 0.0
    _read_at: float | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self) -> float:
        """Returns the seconds so far. Who reads it first after a gap makes it known to all."""
        with self._lock:
            now = self.clock()
            since = now - self._read_at if self._read_at is not None else 0.0
            self._read_at = now
            if since > ASLEEP_SECONDS:
                self.gaps += 1
            else:
                self._seconds += since
            return self._seconds

    def suspensions(self) -> int:
        """Returns how often the process was suspended, this very moment counted."""
        self()
        return self.gaps


def surroundings_here(waiting: Callable[[str, float], object]) -> Surroundings:
    """Returns time as deliveries of this process are to see it.

    Args:
        waiting: told for what and how long a thread is about to wait.
    """
    clock = awake_clock()
    return Surroundings(clock, waiting=waiting, suspensions=clock.suspensions)


@cache
def awake_clock() -> AwakeClock:
    """Returns this process's clock, which a thread of its own reads from now on."""
    clock = AwakeClock()
    threading.Thread(target=_tick, args=(clock,), name="awake", daemon=True).start()
    return clock


def _tick(clock: AwakeClock) -> None:
    never = threading.Event()
    while not never.wait(TICK_SECONDS):
        clock()
