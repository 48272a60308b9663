"""Makes one event of one record, as a map says."""

from __future__ import annotations

import re
from typing import Final

import msgspec
import xxhash

from mixpanel_http.event_rules import is_valid_insert_id
from mixpanel_http.limits import MAX_INSERT_ID_BYTES, MAX_NESTING
from record_maps.deep import shallow
from record_maps.names import MOST_NAMES, NameList
from record_maps.paths import Fields, Row, id_text, text_of
from record_maps.personal import PersonalDataRule
from record_maps.properties import PropertyMaker, getter
from record_maps.spec import EventNames, Filtered, MapSpec, PersonalData
from record_maps.times import compile_time, day_start

EVENT_FILTERED: Final = "event"
DATE_FILTERED: Final = "date"

_SHALLOW: Final = 2 + MAX_NESTING  # so few brackets cannot be too deep
OWN: Final = ("time", "distinct_id", "$insert_id")

_DAY_S: Final = 86_400.0
_encode: Final = msgspec.json.Encoder().encode


class EventMaker:
    """Makes events as one map says."""

    def __init__(self, spec: MapSpec) -> None:
        """Compiles what the map says of one event."""
        self._in_shape = not spec.event
        self._event = getter(spec.event or (("event",),))
        self._wanted = _Wanted(spec.events) if spec.events != EventNames() else None
        self._time = getter(spec.time.value)
        self._moment = compile_time(spec.time)
        self._distinct_id = getter(spec.distinct_id)
        self._insert_id = getter(spec.insert_id)
        self._properties = PropertyMaker(spec)
        self._deep_as_text = spec.deep_as_text
        self._personal = (
            PersonalDataRule(spec.personal_data) if spec.personal_data != PersonalData() else None
        )
        self._from_s = day_start(spec.dates[0]) if spec.dates else None
        self._before_s = day_start(spec.dates[1]) + _DAY_S if spec.dates else 0.0

    def made(self, fields: Fields) -> bytes | Filtered:
        """Returns the event made of a record, as JSON, or why there is none.

        Raises:
            RecordRefused: if the record cannot be mapped.
        """
        row = Row(fields)
        if self._in_shape and ("event" not in fields or row.object_at(("properties",)) is None):
            return _encode(fields)  # an update of a profile or a group, or no record at all: not for a map
        event = self._event(row)
        if self._wanted and event is not None:
            new = self._wanted.renamed(event)
            if new is None:
                return Filtered(EVENT_FILTERED)
            event = new
        time = self._time(row)
        if time is not None:
            time, seconds = self._moment(time)
            if self._from_s is not None and not self._from_s <= seconds < self._before_s:
                return Filtered(DATE_FILTERED)
        distinct_id = self._distinct_id(row)
        insert_id = self._insert_id(row)
        properties = self._properties.made(row)
        if not self._in_shape:
            for name in OWN:  # of an object that is spread they are not the event's own
                properties.pop(name, None)
        if time is not None:
            properties["time"] = time
        if distinct_id is not None:
            properties["distinct_id"] = id_text(distinct_id)
        if insert_id is not None:
            properties["$insert_id"] = _as_insert_id(insert_id)
        if self._personal:
            properties = self._personal.applied(properties)
            event = None if event is None else self._personal.applied_to_text(event)
        made = {} if event is None else {"event": event}
        line = _encode({**made, "properties": properties})
        # What personal data tells of is found before what lies deep becomes text.
        if self._deep_as_text and line.count(b"{") + line.count(b"[") > _SHALLOW:
            return _encode({**made, "properties": shallow(properties)})
        return line


class _Wanted:
    """Which events are wanted and what they are called; worked out once for each name."""

    def __init__(self, spec: EventNames) -> None:
        self._allow, self._deny = NameList(spec.allow), NameList(spec.deny)
        self._rename = dict(spec.rename)
        self._found: dict[bytes, msgspec.Raw | None] = {}

    def renamed(self, event: msgspec.Raw) -> msgspec.Raw | None:
        """Returns what an event is to be called, or None if it is not wanted."""
        token = bytes(event)
        if token not in self._found:
            if len(self._found) >= MOST_NAMES:
                self._found.clear()
            self._found[token] = self._decide(event)
        return self._found[token]

    def _decide(self, event: msgspec.Raw) -> msgspec.Raw | None:
        name = text_of(event)
        if name is None:
            return event  # it is refused for what it is
        if name in self._deny or (self._allow and name not in self._allow):
            return None
        new = self._rename.get(name)
        return event if new is None else msgspec.Raw(_encode(new))


def _as_insert_id(value: msgspec.Raw) -> msgspec.Raw:
    """Returns an id as Mixpanel takes it: a text that has other characters in it, or too many, as its hash.

    So what has one id in the source is one event, and what has two is two.
    """
    if _TAKEN_AS_ID(bytes(value)):
        return value
    value = id_text(value)
    text = text_of(value)
    if text is None or not text.strip() or is_valid_insert_id(text):
        return value
    return msgspec.Raw(_encode(xxhash.xxh3_128_hexdigest(text.encode())))


_TAKEN_AS_ID: Final = re.compile(rb'"[0-9A-Za-z-]{1,%d}"' % MAX_INSERT_ID_BYTES).fullmatch
