"""Decodes a piece of events into columns, one list a field that rules need, and clears each as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgspec

from mixpanel_http.block_checks import (
    Layout,
    MaybeText,
    bad_insert_ids,
    bad_names,
    bad_times,
    disallowed_ids,
    is_utf8,
)


class _Properties(msgspec.Struct, gc=False):
    time: int | float
    distinct_id: str
    insert_id: MaybeText = msgspec.field(name="$insert_id", default=msgspec.UNSET)
    ip: Any = msgspec.UNSET  # costs half of what Raw would


class _Event(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    event: str
    properties: _Properties


class _WiderEvent(msgspec.Struct, gc=False):
    """An event that has other keys beside those two."""

    event: str
    properties: _Properties


_events: Final = msgspec.json.Decoder(_Event)
_wider_events: Final = msgspec.json.Decoder(_WiderEvent)


class Columns(NamedTuple):
    """The fields of a piece's events that rules need, each a list with an entry a line.

    Attributes:
        names: the events' names.
        times: `time`, unchecked.
        distinct_ids: `distinct_id`, unchecked.
        insert_ids: `$insert_id`, unchecked, or UNSET.
        without_ip: the lines that have no `ip`.
        narrow: whether no event has other keys than `event` and `properties`.
    """

    names: Sequence[str]
    times: Sequence[float]
    distinct_ids: Sequence[str]
    insert_ids: Sequence[MaybeText]
    without_ip: Sequence[int]
    narrow: bool

    def suspects(self, layout: Layout, now_s: float) -> set[int]:
        """Returns the lines that a rule does not clear."""
        found = set(bad_names(self.names))
        found.update(bad_times(self.times, now_s))
        found.update(disallowed_ids(self.distinct_ids))
        found.update(bad_insert_ids(self.insert_ids))
        found.update(layout.crowded())
        return found


def columns_of(layout: Layout) -> Columns | None:
    """Returns a piece's columns, or None where a line is not certainly one event that has the fields.

    The decoder takes any white space, or none, between objects. Every newline of a layout stands between `}`
    and `{`, so that there is no blank line and, as a raw newline can stand in no string, no object over two
    lines; as many objects as lines then means one object a line.

    Args:
        layout: the piece.
    """
    if not is_utf8(layout.piece):  # the decoder does not look into strings that it skips
        return None
    try:
        return _columns(layout)
    except (UnicodeDecodeError, msgspec.DecodeError, RecursionError):
        return None


def _columns(layout: Layout) -> Columns | None:
    try:
        events: Sequence[_Event | _WiderEvent] = _events.decode_lines(layout.piece)
        return _taken(layout, events, narrow=True)
    except msgspec.ValidationError:
        return _taken(layout, _wider_events.decode_lines(layout.piece), narrow=False)


def _taken(layout: Layout, events: Sequence[Any], *, narrow: bool) -> Columns | None:
    if len(events) != len(layout.starts):
        return None
    properties = [e.properties for e in events]
    return Columns(
        [e.event for e in events],
        [p.time for p in properties],
        [p.distinct_id for p in properties],
        [p.insert_id for p in properties],
        [i for i, p in enumerate(properties) if p.ip is msgspec.UNSET],
        narrow,
    )
