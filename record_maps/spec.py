"""What a map says: plain values, which `mapper.Mapper` makes work, and how one refines another."""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import msgspec

from mixpanel_http.secret_refs import SecretRef
from mixpanel_http.verdicts import RecordRefused
from record_maps.paths import Fields, Path, parse_path

TimeFormat = str
"""One of `TIME_FORMATS`, or a pattern of `strptime`, told by its `%`."""

RECIPE: Final = "v1"
"""Version of what maps and dialects make of a record; a change of it for any record is a new one."""

TIME_FORMATS: Final = ("auto", "iso8601", "seconds", "milliseconds", "microseconds")
PATTERNS: Final = ("email", "ip", "phone", "card")
_encode: Final = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Const:
    """A constant, as JSON."""

    json: bytes


Source = Path | Const
Value = tuple[Source, ...]
"""Where a value comes from: the first of these that is there, neither null nor an empty text."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Every field of an object as a property, its name with something before and behind it.

    Attributes:
        path: the object; empty for the record itself, less what other parts of the map take.
        prefix: what stands before the name.
        suffix: what stands behind it.
        without: fields that are no properties.
    """

    path: Path
    prefix: str = ""
    suffix: str = ""
    without: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class TimeSpec:
    """How an event's time is read.

    Attributes:
        value: where it is.
        format: how it is written.
        zone: the zone of a text that names none.
        wall_clock: numbers count what a clock in `zone` showed, as if that were UTC.
        offset_s: seconds to be added.
    """

    value: Value
    format: TimeFormat = "auto"
    zone: str = "UTC"
    wall_clock: bool = False
    offset_s: float = 0.0


@dataclass(frozen=True, slots=True)
class EventNames:
    """Which events are wanted, by globs on the name, and what they are called then."""

    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    rename: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Flatten:
    """Objects among the properties become properties of their own, down to a depth."""

    separator: str = "."
    depth: int = 10


@dataclass(frozen=True, slots=True)
class Traits:
    """What personal data is told by: globs on a property's name, and patterns within texts."""

    keys: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PersonalData:
    """What becomes of personal data; the salt is a reference, resolved where records are mapped."""

    hash: Traits = Traits()
    remove: Traits = Traits()
    salt: SecretRef | None = None


@dataclass(frozen=True, slots=True)
class Filtered:
    """In place of a record: it is left out, for this reason."""

    reason: str


Reshaped = Fields | Filtered | RecordRefused
Reshape = Callable[[Fields], Iterable[Reshaped]]
"""A dialect's own step before the map: from one of the vendor's records to any number of them."""


@dataclass(frozen=True, slots=True)
class MapSpec:
    """A map: from records of any shape to Mixpanel's events.

    Attributes:
        event: the event's name; empty for records that have Mixpanel's shape already.
        time: when.
        distinct_id: who.
        insert_id: the event's own id.
        properties: the others, by name; where two give one name, a named one wins over a spread one.
        events: which events are wanted.
        rename: new names of properties.
        drop: globs of properties to leave out.
        keep: globs of the only properties to keep; empty keeps all.
        flatten: whether and how objects are flattened.
        drop_nulls: whether properties that are null are left out.
        deep_as_text: whether what is nested deeper than Mixpanel takes becomes a text of its JSON.
        personal_data: what is hashed or removed.
        tags: properties for every record, as JSON by name.
        dates: first and last day of the event's own time, in UTC.
        function: `module:function`, called with each record before everything else.
        read: from a line to its record, for dialects whose lines are no JSON.
        reshape: a dialect's own step.
    """

    event: Value = ()
    time: TimeSpec = TimeSpec(())
    distinct_id: Value = ()
    insert_id: Value = ()
    properties: tuple[tuple[str, Value | Spread], ...] = (("*", Spread(())),)
    events: EventNames = EventNames()
    rename: tuple[tuple[str, str], ...] = ()
    drop: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    flatten: Flatten | None = None
    drop_nulls: bool = False
    deep_as_text: bool = False
    personal_data: PersonalData = PersonalData()
    tags: tuple[tuple[str, bytes], ...] = ()
    dates: tuple[dt.date, dt.date] | None = None
    function: str | None = None
    read: Callable[[bytes], Fields] | None = None
    reshape: Reshape | None = None


@dataclass(frozen=True, slots=True)
class Dialect:
    """A named map for what a known product exports.

    Attributes:
        name: as `records.map.dialect` has it.
        spec: the map.
        filtered: reasons for which it leaves records out, each with what it means.
    """

    name: str
    spec: MapSpec
    filtered: tuple[tuple[str, str], ...] = ()


MIXPANEL_SHAPE: Final = MapSpec(
    time=TimeSpec((("properties", "time"),)),
    distinct_id=(("properties", "distinct_id"),),
    insert_id=(("properties", "$insert_id"),),
    properties=(("*", Spread(("properties",))),),
)
"""Records that are Mixpanel's events already; what a map without `event` and `dialect` begins with."""

ROWS: Final = MapSpec(
    time=TimeSpec((("time",),)), distinct_id=(("distinct_id",),), insert_id=(("$insert_id",),)
)
"""Rows with fields that are called as Mixpanel calls them; what a map with `event` begins with."""


def parse_value(given: object) -> Value:
    """Returns where a value comes from, as a map says it: a path, a constant, or a list of these.

    >>> parse_value(["user.id", {"const": "none"}])
    (('user', 'id'), Const(json=b'"none"'))

    Raises:
        ValueError: if it is none of these.
    """
    if isinstance(given, list):
        if not given:
            raise ValueError("an empty list names no source")
        return tuple(source for inner in given for source in _single(inner))
    return _single(given)


def parse_property(name: str, given: object) -> Value | Spread:
    """Returns where a property comes from, or with `*` in its name the object whose fields become properties.

    >>> parse_property("user_*", "traits.*")
    Spread(path=('traits',), prefix='user_', suffix='', without=frozenset())

    Raises:
        ValueError: if it is neither.
    """
    if "*" not in name:
        return parse_value(given)
    if name.count("*") > 1 or not (isinstance(given, str) and (given == "*" or given.endswith(".*"))):
        raise ValueError(
            f"{name!r}: a name with * is for all fields of an object, like traits.*, or * for the record"
        )
    prefix, _, suffix = name.partition("*")
    return Spread(parse_path(given[:-2]) if given != "*" else (), prefix, suffix)


def parse_const(given: object) -> bytes:
    """Returns a constant as JSON.

    Raises:
        ValueError: if JSON has no form for it.
    """
    try:
        return _encode(_checked(given))
    except (TypeError, msgspec.EncodeError, RecursionError):
        raise ValueError(
            "a constant is text, a number, true, false, or lists and sections of these"
        ) from None


def refine(base: MapSpec, given: Mapping[str, Any]) -> MapSpec:
    """Returns a map in which what is given replaces or is added to what a base map says.

    Properties, new names and tags are added, the given ones winning; so are what to drop and which events
    to allow, deny and rename. Everything else is replaced.
    """
    added: dict[str, Any] = {name: (*getattr(base, name), *given[name]) for name in _ADDED if name in given}
    if "events" in given:
        ours, theirs = base.events, given["events"]
        added["events"] = EventNames(
            (*ours.allow, *theirs.allow), (*ours.deny, *theirs.deny), (*ours.rename, *theirs.rename)
        )
    return replace(base, **{**given, **added})


_ADDED: Final = ("properties", "rename", "drop", "tags")
_FUNCTION: Final = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*").fullmatch


def is_function_name(text: str) -> bool:
    """Returns whether a text has the form `module:function`.

    >>> is_function_name("acme.maps:order"), is_function_name("acme.maps.order")
    (True, False)
    """
    return _FUNCTION(text) is not None


def _single(given: object) -> tuple[Source]:
    if isinstance(given, str):
        return (parse_path(given),)
    if isinstance(given, dict) and set(given) == {"const"}:
        return (Const(parse_const(given["const"])),)
    raise ValueError("must be a path like user.id, a constant like {const: web}, or a list of these")


def _checked(given: object) -> object:
    if isinstance(given, dt.date):
        raise TypeError("a date in YAML is text in JSON: quote it")
    if isinstance(given, float) and not math.isfinite(given):
        raise TypeError("JSON has no form for it")
    for inner in given.values() if isinstance(given, dict) else given if isinstance(given, list) else ():
        _checked(inner)
    return given
