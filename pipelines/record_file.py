"""What a ledger knows of each segment, in a file of this process: a record names each file of its segment."""

from __future__ import annotations

import sqlite3
import weakref
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import orjson

from pipelines.ledger_lines import SegmentRecord, record_values, stored_record

_TABLE: Final = (
    "CREATE TABLE records (segment TEXT PRIMARY KEY, done INTEGER, imported INTEGER,"
    " began_at REAL, ended_at REAL, content BLOB) WITHOUT ROWID"
)


class RecordFile(Mapping[str, SegmentRecord]):
    """Records by their segments, in the order of these; what it gives out is a copy. Used by one thread.

    Ten million small files make a gigabyte of records, and many more as objects: one is in memory at a time.
    """

    def __init__(self, records: Iterable[SegmentRecord] = ()) -> None:
        """Takes records; SQLite keeps them in a file of its own, which goes with it."""
        self._database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        weakref.finalize(self, self._database.close)
        self._database.execute("PRAGMA journal_mode = OFF")
        self._database.execute("PRAGMA synchronous = OFF")
        self._database.execute(_TABLE)
        for record in records:
            self.put(record)

    def put(self, record: SegmentRecord) -> None:
        """Takes a record, in place of the one that is there of its segment."""
        content = orjson.dumps(record_values(record))
        facts = (record.done, record.tally.total.imported, record.began_at, record.ended_at)
        self._database.execute(
            "INSERT OR REPLACE INTO records VALUES (?, ?, ?, ?, ?, ?)", (record.segment, *facts, content)
        )

    def __getitem__(self, segment: str) -> SegmentRecord:
        found = self._one("SELECT content FROM records WHERE segment = ?", segment)
        if found is None:
            raise KeyError(segment)
        return stored_record(orjson.loads(found))

    def __iter__(self) -> Iterator[str]:
        for (segment,) in self._database.execute("SELECT segment FROM records"):
            yield segment

    def __len__(self) -> int:
        return int(self._one("SELECT count(*) FROM records"))

    def is_done(self, segment: str) -> bool:
        """Returns whether nothing of a segment need be sent again."""
        return bool(self._one("SELECT done FROM records WHERE segment = ?", segment))

    @property
    def done(self) -> int:
        """How many segments are done."""
        return int(self._one("SELECT coalesce(sum(done), 0) FROM records"))

    @property
    def imported(self) -> int:
        """How many records are imported."""
        return int(self._one("SELECT coalesce(sum(imported), 0) FROM records"))

    @property
    def ended_at(self) -> float:
        """When one was last written, in seconds since the epoch; 0 if none was."""
        return float(self._one("SELECT coalesce(max(ended_at), 0) FROM records"))

    def sending_seconds(self, since: float) -> float:
        """Returns the seconds in which blocks were read and sent: Beam's start and end are not in it."""
        began_at = self._one("SELECT min(began_at) FROM records WHERE ended_at >= ?", since)
        return self.ended_at - max(since, began_at) if began_at is not None else 0.0

    def _one(self, query: str, *values: object) -> Any:
        found = self._database.execute(query, values).fetchone()
        return found[0] if found else None
