"""Decodes whole events into objects made for the keys that they have, so that they are written again sorted.

An id of content needs an event's canonical JSON. To decode into dicts and to sort them for each event takes
half as long again as to decode into a type with a field for each key, in sorted order, and to write that.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

MOST_KEYS: Final = 200  # each costs every event a little; with more of them dicts are as fast
# What rules need has a type and a name of its own; the other keys are numbered.
_KNOWN: Final[Mapping[str, tuple[str, Any]]] = {
    "time": ("time", int | float),
    "distinct_id": ("distinct_id", str),
    "$insert_id": ("insert_id", str | msgspec.UnsetType),
    "ip": ("ip", Any),
}
_REQUIRED: Final = frozenset({"time", "distinct_id"})


class _AnyEvent(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    event: str
    properties: dict[str, Any]


_any_events: Final = msgspec.json.Decoder(_AnyEvent)
_UNKNOWN_KEY: Final = "unknown field"  # in the words of msgspec


class EventShapes:
    """Decodes pieces of events, and learns the keys that events have as they come."""

    def __init__(self) -> None:
        self._keys = frozenset(_KNOWN)
        self._decoder = _decoder_of(self._keys)  # None once the keys are too many or too odd

    def decode(self, piece: bytes) -> Sequence[Any] | None:
        """Returns a piece's events, with `event` and `properties`, or None where one is of another kind.

        Their properties have `time`, `distinct_id`, and `insert_id` and `ip` or UNSET. Written as JSON, an
        event is in canonical order.

        Raises:
            msgspec.DecodeError: if the piece is no JSON.
        """
        if self._decoder is None:
            return None
        try:
            return self._decoder.decode_lines(piece)
        except msgspec.ValidationError as error:
            if _UNKNOWN_KEY not in str(error):
                return None
        return self.decode(piece) if self._learn(piece) else None

    def _learn(self, piece: bytes) -> bool:
        """Takes a piece's keys to those that are known; returns whether there was a new one."""
        try:
            properties = [event.properties for event in _any_events.decode_lines(piece)]
        except msgspec.ValidationError:
            return False
        keys = self._keys.union(*properties)
        learnt = len(keys) > len(self._keys)
        self._keys, self._decoder = keys, _decoder_of(keys)
        return learnt


def _decoder_of(keys: Iterable[str]) -> msgspec.json.Decoder[Any] | None:
    """Returns a decoder into objects with these keys, or None where they are too many or too odd."""
    names = sorted(keys)  # by code points, as the canonical order is
    if len(names) > MOST_KEYS:
        return None
    fields = [_field(index, name) for index, name in enumerate(names)]
    options: dict[str, Any] = {"gc": False, "forbid_unknown_fields": True, "kw_only": True}
    try:
        properties = msgspec.defstruct("Properties", fields, **options)
    except ValueError:  # a key with a quote, a backslash or a control character
        return None
    event = msgspec.defstruct("Event", [("event", str), ("properties", properties)], **options)
    return msgspec.json.Decoder(event)


def _field(index: int, key: str) -> tuple[str, Any, Any]:
    name, kind = _KNOWN.get(key, (f"key_{index}", Any))
    return name, kind, msgspec.field(name=key) if key in _REQUIRED else _optional(key)


def _optional(key: str) -> Any:
    return msgspec.field(name=key, default=msgspec.UNSET)


shapes: Final = EventShapes()
