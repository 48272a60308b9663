"""Makes an event's properties of one record; most fields of it are not looked at, one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from typing import Final, NamedTuple

import msgspec

from record_maps.flatten import flattened
from record_maps.names import IDS, FieldNames, NameRules
from record_maps.paths import NULL_VALUE, Fields, Path, Row, id_text
from record_maps.spec import Const, MapSpec, Source, Spread, Value

Get = Callable[[Row], "msgspec.Raw | None"]
Put = Callable[[Row, Fields], None]
_EMPTY: Final = msgspec.Raw(b'""')


class _Named(NamedTuple):
    """A property that a map names: so, in the end as `new`, and where its value comes from."""

    name: str
    new: str
    value: Value


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
        named = [
            _Named(name, new, value) for name, value in values if (new := early.applied(name)) is not None
        ]
        self._puts = [put for parent, run in groupby(named, _parent_of) for put in _puts(parent, run)]
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
            if not properties:
                properties = spread
                continue
            if NULL_VALUE in spread.values():
                spread = {n: v for n, v in spread.items() if v != NULL_VALUE or n not in properties}
            properties.update(spread)
        for put in self._puts:
            put(row, properties)
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


def _parent_of(named: _Named) -> Path | None:
    """Returns the object of which a property is a field, or None where it takes more to find it."""
    if named.name in IDS or len(named.value) != 1:
        return None
    source = named.value[0]
    return None if isinstance(source, Const) or isinstance(source[-1], int) else source[:-1]


def _puts(parent: Path | None, run: Iterable[_Named]) -> Iterator[Put]:
    """Yields what puts properties that follow each other: those of one object together."""
    if parent is None:
        yield from (_put_value(n.new, _id_getter(n.value) if n.name in IDS else getter(n.value)) for n in run)
        return
    paths = [(named.new, source) for named in run if not isinstance(source := named.value[0], Const)]
    yield _put_fields(parent, [(new, str(path[-1])) for new, path in paths])


def _put_value(name: str, get: Get) -> Put:
    def put(row: Row, properties: Fields) -> None:
        value = get(row)
        if value is not None:
            properties[name] = value

    return put


def _put_fields(parent: Path, names: list[tuple[str, str]]) -> Put:
    """Returns what puts fields of one object, which is looked up once; most records have few such objects."""
    above, own = parent[:-1], parent[-1] if parent else None

    def put(row: Row, properties: Fields) -> None:
        outer = row.object_at(above) if above else row.fields
        if isinstance(own, str) and not (outer and own in outer):
            return
        fields = row.object_at(parent) if parent else row.fields
        if not fields:
            return
        for name, key in names:
            value = fields.get(key)
            if value is not None and value != NULL_VALUE:
                properties[name] = value

    return put


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
        return _inner(source)

    def field(row: Row) -> msgspec.Raw | None:
        found = row.fields.get(key)
        return None if found is None or found == NULL_VALUE else found

    return field


def _inner(path: Path) -> Get:
    parent, last = path[:-1], path[-1]
    if isinstance(last, int):
        return lambda row: row.get(path)

    def field(row: Row) -> msgspec.Raw | None:
        fields = row.object_at(parent)
        found = fields.get(last) if fields else None
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
