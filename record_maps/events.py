"""Makes one event of one record, as a map says."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

import msgspec
import xxhash

from mixpanel_http.limits import MAX_INSERT_ID_BYTES
from record_maps.flatten import flattened
from record_maps.names import MOST_NAMES, NameList, Names
from record_maps.paths import NULL_VALUE, Fields, Path, Row
from record_maps.personal import PersonalDataRule
from record_maps.spec import Const, EventNames, Filtered, MapSpec, PersonalData, Source, Spread, Value
from record_maps.times import compile_time, day_start

EVENT_FILTERED: Final = "event"
DATE_FILTERED: Final = "date"

Get = Callable[[Row], "msgspec.Raw | None"]
_DAY_S: Final = 86_400.0
_EMPTY: Final = msgspec.Raw(b'""')
_encode: Final = msgspec.json.Encoder().encode
_text: Final = msgspec.json.Decoder(str).decode


class EventMaker:
    """Makes events as one map says."""

    def __init__(self, spec: MapSpec) -> None:
        """Compiles what the map says of one event."""
        self._in_shape = not spec.event
        self._event = _getter(spec.event or (("event",),))
        self._wanted = _Wanted(spec.events) if spec.events != EventNames() else None
        self._time = _getter(spec.time.value)
        self._moment = compile_time(spec.time)
        self._distinct_id = _getter(spec.distinct_id)
        self._insert_id = _getter(spec.insert_id)
        self._spreads = [source for _, source in spec.properties if isinstance(source, Spread)]
        self._named = [(name, _getter(v)) for name, v in spec.properties if not isinstance(v, Spread)]
        self._taken = _taken(spec)
        self._flatten = spec.flatten
        has_names = spec.keep or spec.drop or spec.rename
        self._names = Names(spec.keep, spec.drop, dict(spec.rename)) if has_names else None
        self._drop_nulls = spec.drop_nulls
        self._personal = (
            PersonalDataRule(spec.personal_data) if spec.personal_data != PersonalData() else None
        )
        self._tags = {name: msgspec.Raw(value) for name, value in spec.tags}
        self._from_s = day_start(spec.dates[0]) if spec.dates else None
        self._before_s = day_start(spec.dates[1]) + _DAY_S if spec.dates else 0.0

    def made(self, fields: Fields) -> bytes | Filtered:
        """Returns the event made of a record, as JSON, or why there is none.

        Raises:
            RecordRefused: if the record cannot be mapped.
        """
        row = Row(fields)
        if self._in_shape and not ("event" in fields and row.object_at(("properties",))):
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
        properties = self._properties(row)
        if time is not None:
            properties["time"] = time
        if distinct_id is not None:
            properties["distinct_id"] = _as_text(distinct_id)
        if insert_id is not None:
            properties["$insert_id"] = _as_insert_id(insert_id)
        if self._personal:
            properties = self._personal.applied(properties)
        if event is None:
            return _encode({"properties": properties})
        return _encode({"event": event, "properties": properties})

    def _properties(self, row: Row) -> Fields:
        named = {name: value for name, get in self._named if (value := get(row)) is not None}
        properties: Fields = {}
        for spread in self._spreads:
            fields = row.object_at(spread.path) if spread.path else self._rest(row)
            if fields is None:
                continue
            if spread.without:
                fields = _others(fields, spread.without)
            if spread.prefix or spread.suffix:
                fields = {f"{spread.prefix}{name}{spread.suffix}": value for name, value in fields.items()}
            properties.update(fields)
        properties.update(named)
        if self._flatten:
            properties = flattened(properties, self._flatten)
        if self._names is not None:
            names = self._names
            properties = {
                new: value for name, value in properties.items() if (new := names[name]) is not None
            }
        if self._drop_nulls:
            properties = {name: value for name, value in properties.items() if value != NULL_VALUE}
        properties.update(self._tags)
        return properties

    def _rest(self, row: Row) -> Fields:
        """Returns the fields of a record that nothing else took."""
        fields = _others(row.fields, self._taken)
        for key in row.used:
            fields.pop(key, None)
        return fields


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
        try:
            name = _text(event)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return event  # it is refused for what it is
        if name in self._deny or (self._allow and name not in self._allow):
            return None
        new = self._rename.get(name)
        return event if new is None else msgspec.Raw(_encode(new))


def _getter(value: Value) -> Get:
    """Returns the function from a record to the first of a value's sources that is there."""
    if not value:
        return _nothing
    if len(value) == 1:
        return _single(value[0])
    gets = [(_single(source), _whole(source)) for source in value]

    def first(row: Row) -> msgspec.Raw | None:
        for get, key in gets:
            found = get(row)
            if key is not None:
                row.used.append(key)
            if found is not None and found != _EMPTY:
                return found
        return None

    return first


def _single(source: Path | Const) -> Get:
    if isinstance(source, Const):
        constant = msgspec.Raw(source.json)
        return lambda row: constant
    if len(source) == 1 and isinstance(source[0], str):
        key = source[0]

        def field(row: Row) -> msgspec.Raw | None:
            found = row.fields.get(key)
            return None if found is None or found == NULL_VALUE else found

        return field
    return lambda row: row.get(source)


def _nothing(_: Row) -> None:
    return None


def _taken(spec: MapSpec) -> frozenset[str]:
    """Returns the fields of a record that another part of the map takes as a whole.

    Of a list of sources that depends on the record: what stands behind the one that counts is not taken.
    """
    values = [spec.event, spec.time.value, spec.distinct_id, spec.insert_id]
    sources = [value[0] for value in values if len(value) == 1]
    named = [value for _, value in spec.properties if not isinstance(value, Spread)]
    sources += [source for value in named for source in value]
    sources += [source.path for _, source in spec.properties if isinstance(source, Spread) and source.path]
    return frozenset(key for source in sources if (key := _whole(source)) is not None)


def _whole(source: Source) -> str | None:
    """Returns the field of the record that a source is, or None if it lies inside of one, or is constant."""
    if isinstance(source, Const) or len(source) > 1:
        return None
    return str(source[0])


def _others(fields: Fields, taken: frozenset[str]) -> Fields:
    return {name: value for name, value in fields.items() if name not in taken}


def _as_text(value: msgspec.Raw) -> msgspec.Raw:
    """Returns an id as text: a number's own digits; anything else as it is, for the rules to judge."""
    token = bytes(value)
    return msgspec.Raw(b'"%b"' % token) if token[:1] in _DIGITS else value


def _as_insert_id(value: msgspec.Raw) -> msgspec.Raw:
    """Returns an id as Mixpanel takes it: a text that has other characters in it, or too many, as its hash.

    So what has one id in the source is one event, and what has two is two.
    """
    token = _as_text(value)
    if _TAKEN_AS_ID(bytes(token)):
        return token
    try:
        text = _text(token)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return token
    return msgspec.Raw(_encode(xxhash.xxh3_128_hexdigest(text.encode()))) if text.strip() else token


_TAKEN_AS_ID: Final = re.compile(rb'"[0-9A-Za-z-]{1,%d}"' % MAX_INSERT_ID_BYTES).fullmatch
_DIGITS: Final = frozenset(b"%d" % digit for digit in range(10)) | {b"-"}
