"""Makes an event's properties of one record; most fields of it are not looked at, one by one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from record_maps.flatten import flattened
from record_maps.names import IDS, FieldNames, NameRules
from record_maps.paths import NULL_VALUE, Fields, Path, Row, id_text
from record_maps.spec import Const, MapSpec, Source, Spread, Value

Get = Callable[[Row], "msgspec.Raw | None"]
_EMPTY: Final = msgspec.Raw(b'""')


class PropertyMaker:
    """Makes properties as one map says."""

    def __init__(self, spec: MapSpec) -> None:
        """Compiles what the map says of properties."""
        rules = NameRules(spec.keep, spec.drop, dict(spec.rename))
        self._flatten = spec.flatten
        self._flat_names = FieldNames(rules)
        early = NameRules() if spec.flatten else rules  # what is flattened gets its names afterwards
        taken = _taken(spec)
        self._spreads = [
            (s.path, FieldNames(early, s.prefix, s.suffix, s.without if s.path else s.without | taken))
            for _, s in spec.properties
            if isinstance(s, Spread)
        ]
        values = ((name, value) for name, value in spec.properties if not isinstance(value, Spread))
        self._named = [
            (new, _id_getter(value) if name in IDS else getter(value))
            for name, value in values
            if (new := early.applied(name)) is not None
        ]
        self._new_ids = [new for _, new in spec.rename if new in IDS]
        self._drop_nulls = spec.drop_nulls
        self._tags = {name: msgspec.Raw(value) for name, value in spec.tags}

    def made(self, row: Row) -> Fields:
        """Returns the properties of a record."""
        properties: Fields = {}
        for path, names in self._spreads:
            fields = row.object_at(path) if path else row.fields
            if fields is None:
                continue
            spread = names.properties(fields)
            if not path:
                for key in row.used:
                    spread.pop(names.of(key) or "", None)
            if properties and NULL_VALUE in spread.values():
                spread = {n: v for n, v in spread.items() if v != NULL_VALUE or n not in properties}
            properties = properties | spread if properties else spread
        for name, get in self._named:
            value = get(row)
            if value is not None:
                properties[name] = value
        if self._flatten:
            properties = self._flat_names.properties(flattened(properties, self._flatten))
        for name in self._new_ids:
            if name in properties and properties[name] == _EMPTY:
                del properties[name]
            elif name in properties:
                properties[name] = id_text(properties[name])
        if self._drop_nulls and NULL_VALUE in properties.values():
            properties = {name: value for name, value in properties.items() if value != NULL_VALUE}
        if self._tags:
            properties.update(self._tags)
        return properties


def getter(value: Value) -> Get:
    """Returns the function from a record to the first of a value's sources that is there."""
    if not value:
        return _nothing
    if len(value) == 1:
        return _single(value[0])
    gets = [(_single(source), _whole(source), isinstance(source, Const)) for source in value]

    def first(row: Row) -> msgspec.Raw | None:
        for get, key, is_constant in gets:
            found = get(row)
            if key is not None:
                row.used += (key,)
            if is_constant or (found is not None and found != _EMPTY):
                return found
        return None

    return first


def _id_getter(value: Value) -> Get:
    """Returns the function from a record to an id by which Mixpanel joins users: text that is not empty."""
    get = getter(value)

    def found_id(row: Row) -> msgspec.Raw | None:
        found = get(row)
        return None if found is None or found == _EMPTY else id_text(found)

    return found_id


def _single(source: Path | Const) -> Get:
    if isinstance(source, Const):
        constant = msgspec.Raw(source.json)
        return lambda row: constant
    key = _whole(source)
    if key is None:
        return lambda row: row.get(source)

    def field(row: Row) -> msgspec.Raw | None:
        found = row.fields.get(key)
        return None if found is None or found == NULL_VALUE else found

    return field


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
