"""Prepares whole blocks of events: the fast path, which proves most records clean without a look at each.

There are two ways to do so, one by the C extension and one in Python alone. Both clear what certainly keeps
all rules, stamp what it lacks and keep its source bytes; whatever they cannot clear goes record by record
through `event_rules.check_event`, the judge. A property test holds all three to one verdict and one record.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from mixpanel_http import event_scan
from mixpanel_http.event_pieces import prepare_by_pieces
from mixpanel_http.event_rules import EventRules, Place
from mixpanel_http.prepared import PreparedRecords

_prepare: Final = event_scan.prepare_by_scan if event_scan.IS_BUILT else prepare_by_pieces


def prepare_events(
    raw: bytes, rules: EventRules, now_s: float, place: Callable[[int], Place] | None = None
) -> PreparedRecords:
    """Returns a block's events ready to be sent.

    Args:
        raw: whole lines, the last with or without its newline.
        rules: what the run asks.
        now_s: the clock, in seconds since the epoch.
        place: from a line's index to where it stands; needed where identical rows are kept apart.
    """
    return _prepare(raw, rules, now_s, place) if raw else PreparedRecords(b"", 0, kept=())
