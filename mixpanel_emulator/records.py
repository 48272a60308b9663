"""Giving records back: events, updates and refused records as received, profiles and tables as they stand."""

import gzip
import itertools
import sqlite3
from collections.abc import Iterator
from typing import NamedTuple

import orjson

from mixpanel_emulator.bodies import parse_json
from mixpanel_emulator.store import Store, record_reader

KINDS = ("events", "updates", "profiles", "groups", "refused", "identities", "lookup_tables")
_SPANS = {
    "events": "SELECT body, start, length, name FROM event WHERE (:event IS NULL OR name = :event)"
    " ORDER BY id LIMIT :limit OFFSET :offset",
    "updates": "SELECT body, start, length, profile FROM profile_update WHERE :event IS NULL"
    " AND (:distinct_id IS NULL OR profile = :distinct_id)"
    " ORDER BY id LIMIT :limit OFFSET :offset",
    "refused": "SELECT body, start, length, field, message FROM refused ORDER BY id"
    " LIMIT :limit OFFSET :offset",
}
_PROFILES = (
    "SELECT group_key, id, properties FROM profile WHERE (group_key <> '') = :groups"
    " AND (:distinct_id IS NULL OR id = :distinct_id) ORDER BY group_key, id LIMIT :limit OFFSET :offset"
)


class Wanted(NamedTuple):
    """Which records; a limit of -1 is none."""

    kind: str = "events"
    event: str | None = None
    distinct_id: str | None = None
    limit: int = -1
    offset: int = 0


def read_records(store: Store, wanted: Wanted) -> Iterator[bytes]:
    """Yields the wanted records of one moment, in the order in which they were stored."""
    with store.reading() as connection:
        if wanted.kind == "events" and wanted.distinct_id is not None:
            # Whose an event is stands in its bytes only, so it is counted here what SQL cannot count.
            found = _as_received(connection, wanted._replace(limit=-1, offset=0))
            end = None if wanted.limit < 0 else wanted.offset + wanted.limit
            yield from itertools.islice(found, wanted.offset, end)
        else:
            yield from _PICK[wanted.kind](connection, wanted)


def _as_received(connection: sqlite3.Connection, wanted: Wanted) -> Iterator[bytes]:
    read = record_reader(connection)
    for body, start, length, *_ in connection.execute(_SPANS[wanted.kind], wanted._asdict()):
        raw = read(body, (start, length))
        if wanted.kind != "events" or wanted.distinct_id is None or _is_of(raw, wanted.distinct_id):
            yield _one_line(raw)


def _refused(connection: sqlite3.Connection, wanted: Wanted) -> Iterator[bytes]:
    read = record_reader(connection)
    for body, start, length, field, message in connection.execute(_SPANS["refused"], wanted._asdict()):
        raw = read(body, (start, length))
        yield orjson.dumps({"field": field, "message": message, "record": raw.decode("utf-8", "replace")})


def _profiles(connection: sqlite3.Connection, wanted: Wanted) -> Iterator[bytes]:
    values = {**wanted._asdict(), "groups": wanted.kind == "groups"}
    for group_key, profile, properties in connection.execute(_PROFILES, values):
        identity = {"$group_key": group_key, "$group_id": profile} if group_key else {"$distinct_id": profile}
        yield orjson.dumps({**identity, "$properties": orjson.loads(properties)})


def _identities(connection: sqlite3.Connection, wanted: Wanted) -> Iterator[bytes]:
    sql = "SELECT id, canonical FROM identity ORDER BY id LIMIT :limit OFFSET :offset"
    for id_, canonical in connection.execute(sql, wanted._asdict()):
        yield orjson.dumps({"id": id_, "canonical": canonical})


def _tables(connection: sqlite3.Connection, wanted: Wanted) -> Iterator[bytes]:
    sql = "SELECT id, csv FROM lookup_table ORDER BY id LIMIT :limit OFFSET :offset"
    for table, packed in connection.execute(sql, wanted._asdict()):
        yield orjson.dumps({"id": table, "csv": gzip.decompress(packed).decode("utf-8", "replace")})


_PICK = {
    "events": _as_received,
    "updates": _as_received,
    "refused": _refused,
    "profiles": _profiles,
    "groups": _profiles,
    "identities": _identities,
    "lookup_tables": _tables,
}


def _is_of(raw: bytes, distinct_id: str) -> bool:
    value = parse_json(raw)["properties"].get("distinct_id")
    return value == distinct_id or (not isinstance(value, str) and str(value) == distinct_id)


def _one_line(raw: bytes) -> bytes:
    """Returns a record on one line; in an array it may have several, and breaks mean nothing there."""
    stripped = raw.strip()
    if b"\n" not in stripped and b"\r" not in stripped:
        return stripped
    return stripped.replace(b"\r", b" ").replace(b"\n", b" ")
