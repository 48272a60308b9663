"""Who is who: links between devices and users, and clusters of ids, resolved when events are read back."""

import re
import sqlite3
from collections.abc import Callable, Iterable
from functools import lru_cache

from mixpanel_emulator.event_rules import IDENTITY_EVENTS, Event

CLUSTER_IDS = 500  # IDO: a cluster holds at most 500 ids; what would exceed it is left out without an error
UUID4 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}\Z", re.IGNORECASE)
DEVICE = "$device:"
RESOLVED = 100_000


def link_devices(connection: sqlite3.Connection, events: Iterable[Event]) -> None:
    """Links devices to users (Simplified); the first user of a device keeps it (AK-PROBE)."""
    links: dict[str, str] = {}
    for event in events:
        if event.properties and event.properties.get("$device_id") and event.properties.get("$user_id"):
            device = DEVICE + str(event.properties["$device_id"]).removeprefix(DEVICE)
            links.setdefault(device, event.distinct_id)
    if links:
        sql = "INSERT OR IGNORE INTO identity (id, canonical) VALUES (?, ?)"
        connection.executemany(sql, links.items())


def apply_identity_events(connection: sqlite3.Connection, events: Iterable[Event]) -> None:
    """Applies `$identify`, `$create_alias` and `$merge` (Original); breaking a rule is silent (AK-PROBE)."""
    for event in events:
        if event.name in IDENTITY_EVENTS:
            _apply(connection, event)


def resolver(connection: sqlite3.Connection) -> Callable[[str], str]:
    """Returns a function from a distinct_id to the canonical id of its cluster."""

    @lru_cache(RESOLVED)
    def resolve(distinct_id: str) -> str:
        return _canonical(connection, distinct_id) or distinct_id

    return resolve


def _apply(connection: sqlite3.Connection, event: Event) -> None:
    properties = event.properties
    if event.name == "$merge":
        first, second = properties["$distinct_ids"]
        _merge(connection, first, second)
    elif event.name == "$identify":
        identified, anonymous = (
            properties.get("$identified_id") or event.distinct_id,
            properties.get("$anon_id"),
        )
        # CRID, IDO: the anonymous id must be a UUIDv4 that is not merged already
        if (
            identified
            and isinstance(anonymous, str)
            and UUID4.match(anonymous)
            and not _canonical(connection, anonymous)
        ):
            _merge(connection, str(identified), anonymous)
    else:
        alias, existing = properties.get("alias"), event.distinct_id
        # ALIAS: one alias maps to one id
        if isinstance(alias, str) and alias and existing and not _canonical(connection, alias):
            _merge(connection, existing, alias)


def _merge(connection: sqlite3.Connection, keep: str, join: str) -> None:
    canonical, joined = _canonical(connection, keep) or keep, _canonical(connection, join) or join
    if canonical == joined:
        return
    if _size(connection, canonical) + _size(connection, joined) > CLUSTER_IDS:
        return
    connection.execute("UPDATE identity SET canonical = ? WHERE canonical = ?", (canonical, joined))
    rows = [(one, canonical) for one in (canonical, joined)]
    connection.executemany("INSERT OR IGNORE INTO identity (id, canonical) VALUES (?, ?)", rows)


def _canonical(connection: sqlite3.Connection, distinct_id: str) -> str | None:
    row = connection.execute("SELECT canonical FROM identity WHERE id = ?", (distinct_id,)).fetchone()
    return str(row[0]) if row else None


def _size(connection: sqlite3.Connection, canonical: str) -> int:
    row = connection.execute("SELECT count(*) FROM identity WHERE canonical = ?", (canonical,)).fetchone()
    return max(1, int(row[0]))
