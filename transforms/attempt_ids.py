"""Ids of attempts at a segment and of starts of a run: they begin with the time, so that names sort by it."""

from __future__ import annotations

import secrets
import threading
import time
from typing import Final


class _Moments:
    """The milliseconds that ids begin with: later ones are larger, also where the clock is set back."""

    def __init__(self) -> None:
        self._last = 0
        self._lock = threading.Lock()

    def next(self, after: int) -> int:
        with self._lock:
            self._last = max(int(time.time() * 1000), self._last + 1, after + 1)
            return self._last


_moments: Final = _Moments()


def new_attempt_id(after: str = "") -> str:
    """Returns an id that begins with the time, so that names sort by it, and is like no other.

    >>> new_attempt_id() < new_attempt_id()
    True

    Args:
        after: an id of another process; this one, and all that come after it here, sort behind it.
    """
    moment = _moments.next(round(attempt_began_at(after) * 1000))
    return f"{moment:012x}{secrets.token_hex(10)}"


def attempt_began_at(attempt: str) -> float:
    """Returns when an id was made, in seconds since the epoch; 0 if it does not say."""
    try:
        return int(attempt[:12], 16) / 1000 if len(attempt) == 32 else 0.0
    except ValueError:
        return 0.0
