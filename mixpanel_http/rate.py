"""The pace of a run: token buckets for events and uncompressed bytes, shared by the threads that send."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from mixpanel_http import limits

# The service counts by its own clock over a rolling minute; a little below the limit is never above it.
SHARE: Final = 0.985


@dataclass(slots=True)
class Pace:
    """Spreads requests so that neither events nor bytes go out faster than allowed.

    Each request reserves its own stretch of time behind the one before; no burst is saved up, so that every
    window of time, however cut, stays within the rate.

    Attributes:
        events_per_second: the limit; `SHARE` of it is used.
        bytes_per_minute: the limit of uncompressed bytes; `SHARE` of it is used.
    """

    events_per_second: float = limits.EVENTS_PER_SECOND
    bytes_per_minute: float = limits.BYTES_PER_MINUTE
    clock: Callable[[], float] = time.monotonic
    _free_at: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def reserve(self, events: int, size: int) -> float:
        """Returns how many seconds to wait before sending `events` in `size` uncompressed bytes."""
        takes = max(events / self.events_per_second, size * 60 / self.bytes_per_minute) / SHARE
        with self._lock:
            now = self.clock()
            starts = max(now, self._free_at)
            self._free_at = starts + takes
            return starts - now
