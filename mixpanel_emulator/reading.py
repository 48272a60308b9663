"""Reading events back as Mixpanel shows them: ids resolved, limits applied, server properties added."""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from datetime import date, datetime, timedelta, timezone
from typing import Any, NamedTuple

import orjson

from mixpanel_emulator.bodies import parse_json
from mixpanel_emulator.event_rules import DAY_MS, EventRules
from mixpanel_emulator.expressions import Expression, ExpressionError, Subject
from mixpanel_emulator.identity import resolver
from mixpanel_emulator.settings import Settings
from mixpanel_emulator.store import record_reader

STRING_CHARACTERS = 255  # IMP: longer strings are cut without an error
NAME_CHARACTERS = 255  # EVP
HIDDEN = ("ip", "token")  # GEO: used for a look-up and dropped (here there is no look-up); RESV


class Period(NamedTuple):
    """From when to when, in ms; the end is not part of it."""

    start_ms: int
    end_ms: int


class Filter(NamedTuple):
    """Which events: of a period, by name, by an expression; as stored, or one of each set of copies."""

    period: Period
    names: Sequence[str] | None = None
    where: Expression | None = None
    distinct: bool = False


class Shown(NamedTuple):
    """An event as it is shown."""

    name: str
    time_ms: int
    properties: dict[str, Any]

    def subject(self) -> Subject:
        """Returns the event as expressions see it."""
        return Subject(self.properties, {"$time": self.time_ms / 1000, "name": self.name})


def period_of(first: date, last: date) -> Period:
    """Returns the period of whole days in UTC, both included."""
    start = int(datetime(first.year, first.month, first.day, tzinfo=timezone.utc).timestamp() * 1000)
    return Period(start, start + ((last - first) // timedelta(days=1) + 1) * DAY_MS)


def names_of(text: str | None) -> list[str] | None:
    """Returns the event names of a JSON array in a parameter; a plain text is one name.

    >>> names_of('["a", "b"]')
    ['a', 'b']
    """
    if not text:
        return None
    try:
        names = orjson.loads(text)
    except orjson.JSONDecodeError:
        return [text]
    if isinstance(names, list) and all(isinstance(name, str) for name in names):
        return names
    raise ExpressionError("event must be a JSON array of names")


def events_shown(connection: sqlite3.Connection, settings: Settings, wanted: Filter) -> Iterator[Shown]:
    """Yields the wanted events in the order in which they were stored."""
    read = record_reader(connection)
    show = _shower(connection, settings)
    for body, start, length, *facts in connection.execute(*_select(wanted)):
        shown = show(read(body, (start, length)), _Facts(*facts))
        if wanted.where is None or wanted.where(shown.subject()):
            yield shown


class _Facts(NamedTuple):
    name: str
    time_ms: int
    identity: bytes
    received_ms: int
    path: str


def _select(wanted: Filter) -> tuple[str, list[Any]]:
    sql = (
        "SELECT event.body, start, length, name, time_ms, identity, received_ms, path FROM event"
        " JOIN body ON body.id = event.body WHERE time_ms >= ? AND time_ms < ?"
    )
    values: list[Any] = [*wanted.period]
    if wanted.names is not None:
        sql += f" AND name IN ({', '.join('?' * len(wanted.names))})"
        values += wanted.names
    if wanted.distinct:  # DEDUP: normally the copy that came last
        sql += " AND event.id IN (SELECT max(id) FROM event GROUP BY identity)"
    return sql + " ORDER BY event.id", values


def _shower(connection: sqlite3.Connection, settings: Settings) -> Callable[[bytes, _Facts], Shown]:
    rules = EventRules(settings)
    resolve = resolver(connection)

    def show(raw: bytes, facts: _Facts) -> Shown:
        sent: dict[str, Any] = parse_json(raw)["properties"]
        properties = {_cut(name): _cut(value) for name, value in sent.items() if name not in HIDDEN}
        properties["time"] = facts.time_ms // 1000
        properties["distinct_id"] = resolve(rules.distinct_id(facts.name, sent) or "")
        properties.setdefault("$insert_id", facts.identity.hex())  # DEDUP: made where none was sent
        properties["mp_processing_time_ms"] = facts.received_ms
        properties["$mp_api_timestamp_ms"] = facts.received_ms
        properties["$mp_api_endpoint"] = "api.mixpanel.com"
        properties["$mp_event_size"] = len(raw)
        if facts.path == "/import":
            properties["$import"] = True
        return Shown(facts.name, facts.time_ms, properties)

    return show


def _cut(value: Any) -> Any:
    if type(value) is str:
        return value[:STRING_CHARACTERS]
    if type(value) is list:
        return [_cut(item) for item in value]
    if type(value) is dict:
        return {key[:NAME_CHARACTERS]: _cut(item) for key, item in value.items()}
    return value
