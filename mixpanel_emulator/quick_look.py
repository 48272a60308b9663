"""Recognising ordinary events quickly, by decoding the few fields that decide and skipping the rest.

Everything that is not clearly acceptable is left to the full rules, so this can only save time, never change
a verdict; a property test holds the two together.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from mixpanel_emulator.event_rules import (
    EARLIEST_MS,
    FIRST_MILLISECOND_VALUE,
    FUTURE_MS,
    IDENTITY_EVENTS,
    INSERT_ID,
    Event,
)
from mixpanel_emulator.settings import Settings

_NOTHING: Mapping[str, Any] = MappingProxyType({})
QuickLook = Callable[[bytes, int], Event | None]


def make_quick_look(settings: Settings, banned: frozenset[str]) -> QuickLook:
    """Returns a function from a record to its event, or to None where the full rules must look."""
    decode = _decoder(settings).decode
    longest_banned = max(map(len, banned))
    original = settings.identity == "original"
    source_name = settings.source_property
    most_bytes, most_properties = settings.max_event_bytes, settings.max_properties
    most_openings = 2 + settings.max_depth

    def is_free(value: str) -> bool:
        return len(value) > longest_banned or value.lower() not in banned

    # One function, long as it is: it runs once an event, and calls are what costs in Python.
    def look(raw: bytes, now_ms: int) -> Event | None:
        # No more openings than levels are allowed, below record and properties: nothing is nested too deep.
        # No more commas than one container may hold: none holds too much.
        if raw.count(b"{") + raw.count(b"[") > most_openings or raw.count(b",") >= most_properties:
            return None
        if len(raw) > most_bytes:
            return None
        if not raw.isascii() and not _is_utf8(raw):
            return None
        try:
            record = decode(raw)
        except msgspec.DecodeError:
            return None
        name = record.event
        properties = record.properties
        time, insert_id, distinct_id = properties.time, properties.insert_id, properties.distinct_id
        if type(time) is not int:
            return None
        time_ms = time if time >= FIRST_MILLISECOND_VALUE else time * 1000
        if time_ms < EARLIEST_MS or time_ms > now_ms + FUTURE_MS:
            return None
        if INSERT_ID.match(insert_id) is None or not is_free(insert_id) or not is_free(distinct_id):
            return None
        if name in IDENTITY_EVENTS or not name.strip():
            return None
        user, device, ignore, source = (
            properties.user,
            properties.device,
            properties.ignore,
            properties.source,
        )
        if user is None and device is None and ignore is None and source is None:
            return Event(name, distinct_id, time_ms if time_ms < now_ms else now_ms, insert_id, _NOTHING)
        if (user is not None or device is not None) and not original:
            if (
                type(user) is not str
                or type(device) is not str
                or not user
                or not device
                or not is_free(user)
            ):
                return None
            distinct_id = user  # IDMIG
        kept = {"$user_id": user, "$device_id": device, "$ignore": ignore, source_name: source}
        return Event(name, distinct_id, min(time_ms, now_ms), insert_id, kept)

    return look


def _decoder(settings: Settings) -> "msgspec.json.Decoder[Any]":
    names = {"insert_id": "$insert_id", "user": "$user_id", "device": "$device_id", "ignore": "$ignore"}
    fields: list[Any] = [("time", int | float), ("distinct_id", str), ("insert_id", str)]
    fields += [(name, Any, None) for name in ("user", "device", "ignore", "source")]
    names["source"] = settings.source_property
    properties = msgspec.defstruct("Properties", fields, rename=names, gc=False)
    return msgspec.json.Decoder(
        msgspec.defstruct("Record", [("event", str), ("properties", properties)], gc=False)
    )


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True
