"""The values that a delivery hands back: what became of a request's records, and why a run must not go on."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from mixpanel_http.failure_table import REFUSED_FOR_GOOD
from mixpanel_http.verdicts import Rejection


@dataclass(frozen=True, slots=True)
class Stop:
    """Why a run must not go on: the status, or 0, and what was said; `limit` if the run itself set it."""

    status: int
    message: str
    limit: bool = False

    @property
    def for_good(self) -> bool:
        """True if asking again as somebody else would not help."""
        return self.status in REFUSED_FOR_GOOD


# What a receipt counts besides its records' outcomes; totals have the same names and add them up.
SUMS: Final = (
    "retries",
    "splits",
    "isolations",
    "bytes_raw",
    "bytes_sent",
    "re_sent_events",
    "re_sent_bytes",
    "waited_s",
    "throttled_s",
    "retry_wait_s",
    "outage_wait_s",
)


@dataclass(slots=True)
class Receipt:
    """What became of the records of one request; the counts and rejections add up to its records.

    Attributes:
        rejections: refused records, by their index in the request.
        ranges: for stretches of the request (first index, records, the count's name), what became of those of
            them that no rejection names.
        requests: requests sent, by status or by what broke.
        retries: requests that repeated another.
        splits: requests that were cut into smaller ones.
        isolations: requests that were cut to find the records at fault.
        waited_s: seconds of waiting: the next three, added up.
        throttled_s: for the lane's pace.
        retry_wait_s: before sending again.
        outage_wait_s: until an outage was over.
        last_problem: the last answer that was not a success, in words.
        stop: why the run must not go on.
    """

    imported: int = 0
    undelivered: int = 0
    ambiguous: int = 0
    not_attempted: int = 0
    rejections: list[Rejection] = field(default_factory=list)
    ranges: list[tuple[int, int, str]] = field(default_factory=list)
    requests: Counter[str] = field(default_factory=Counter)
    retries: int = 0
    splits: int = 0
    isolations: int = 0
    bytes_raw: int = 0
    bytes_sent: int = 0
    re_sent_events: int = 0
    re_sent_bytes: int = 0
    waited_s: float = 0.0
    throttled_s: float = 0.0
    retry_wait_s: float = 0.0
    outage_wait_s: float = 0.0
    last_problem: str = ""
    stop: Stop | None = None

    def settle(self, first: int, count: int, fate: str, refused: int = 0) -> None:
        """Notes what a stretch became, by the count's name, except for the `refused`."""
        setattr(self, fate, getattr(self, fate) + count - refused)
        self.ranges.append((first, count, fate))

    def waited(self, what: str, seconds: float) -> None:
        """Adds seconds of waiting to `throttled_s`, `retry_wait_s` or `outage_wait_s`, and to all."""
        setattr(self, what, getattr(self, what) + seconds)
        self.waited_s += seconds
