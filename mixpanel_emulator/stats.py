"""What the store can say about what was sent: counts, copies, sizes, times; exact, by SQL, when asked."""

import sqlite3
import threading
from typing import Any

from mixpanel_emulator.store import Store

_REQUESTS = """
SELECT count(*), total(records), total(stored), total(refused), total(bytes_raw), total(bytes_wire),
  min(received_ms), max(received_ms) FROM request
"""
# A group is one event by what identifies it; its rows are copies of it.
_COPIES = """
SELECT count(*), total(copies), total(differ), total(copies * differ) FROM (
  SELECT count(*) AS copies, min(content) <> max(content) AS differ FROM event GROUP BY identity)
"""
_SOURCES = """
SELECT source, count(*), count(DISTINCT identity) FROM event WHERE source IS NOT NULL
  GROUP BY source ORDER BY source
"""


class Statistics:
    """The counts of one store; what is dear to compute is kept until the store has grown."""

    def __init__(self, store: Store) -> None:
        """Makes the statistics of a store."""
        self._store = store
        self._lock = threading.Lock()
        self._kept: tuple[int, dict[str, Any]] = (-1, {})

    def read(self, *, exact: bool = True) -> dict[str, Any]:
        """Returns all counts of one moment; without `exact` not those that look at every event."""
        with self._lock, self._store.reading() as connection:
            counts = _request_counts(connection)
            counts |= _row_counts(connection)
            if exact:
                counts |= self._copies(connection)
            return counts

    def _copies(self, connection: sqlite3.Connection) -> dict[str, Any]:
        (newest,) = connection.execute("SELECT coalesce(max(id), 0) FROM event").fetchone()
        if self._kept[0] != newest:
            self._kept = (newest, _copy_counts(connection))
        return self._kept[1]

    def forget(self) -> None:
        """Forgets what was kept, after the store was emptied."""
        with self._lock:
            self._kept = (-1, {})


def _request_counts(connection: sqlite3.Connection) -> dict[str, Any]:
    total, records, stored, refused, raw, wire, first, last = connection.execute(_REQUESTS).fetchone()
    by_status = connection.execute(
        "SELECT status, count(*) FROM request GROUP BY status ORDER BY status"
    ).fetchall()
    by_path = connection.execute("SELECT path, count(*) FROM request GROUP BY path ORDER BY path").fetchall()
    return {
        "received": int(records),
        "ignored": int(records - stored - refused),
        "refused": int(refused),
        "requests": total,
        "requests_by_status": {str(status): count for status, count in by_status},
        "requests_by_path": dict(by_path),
        "bytes_raw": int(raw),
        "bytes_wire": int(wire),
        "first_time": first,
        "last_time": last,
    }


def _row_counts(connection: sqlite3.Connection) -> dict[str, Any]:
    (events,) = connection.execute("SELECT count(*) FROM event").fetchone()
    (updates,) = connection.execute("SELECT count(*) FROM profile_update").fetchone()
    kinds = (
        "SELECT CASE group_key WHEN '' THEN 'profiles' ELSE 'groups' END, count(*) FROM profile GROUP BY 1"
    )
    profiles = dict(connection.execute(kinds).fetchall())
    return {
        "stored": events + updates,
        "events": events,
        "profile_updates": updates,
        "profiles": profiles.get("profiles", 0),
        "groups": profiles.get("groups", 0),
    }


def _copy_counts(connection: sqlite3.Connection) -> dict[str, Any]:
    distinct, rows, differing, _ = connection.execute(_COPIES).fetchone()
    sources = connection.execute(_SOURCES).fetchall()
    return {
        "distinct": distinct,
        "duplicates": int(rows) - distinct,
        "duplicates_that_differ": int(differing),
        "sources": {source: {"stored": count, "distinct": unique} for source, count, unique in sources},
    }
