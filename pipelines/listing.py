"""The files that a run reads, in the order in which they are sent; of ten million most are on disk."""

from __future__ import annotations

import datetime as dt
import itertools
import sqlite3
import weakref
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Final, NamedTuple

_BATCH: Final = 10_000
MOST_HELD: Final = 100_000  # some 40 MB, and half the time that SQLite takes
_TABLE: Final = (
    "CREATE TABLE files (uri BLOB PRIMARY KEY, partition BLOB, date TEXT, size INTEGER, version TEXT)"
    " WITHOUT ROWID"
)


class SourceFile(NamedTuple):
    """One input file as it was when the run was planned.

    Attributes:
        date: its partition's date, or None where the pattern names none.
        uri: the file.
        size: bytes, as stored.
        version: its etag, generation or modification time.
    """

    date: dt.date | None
    uri: str
    size: int
    version: str


class Listing(Collection[SourceFile]):
    """Files, each once, partition by partition. Used by one thread."""

    def __init__(self, newest_first: bool = True) -> None:
        """Begins without any. Few are held; many SQLite keeps in a file of its own, which goes with it."""
        self._newest_first = newest_first
        self._held: dict[str, SourceFile] = {}
        self._database: sqlite3.Connection | None = None

    def add(self, files: Iterable[SourceFile]) -> None:
        """Takes files; of several with one name the last counts."""
        left = iter(files)
        while batch := list(itertools.islice(left, _BATCH)):
            if self._database is None and len(self._held) + len(batch) <= MOST_HELD:
                self._held.update((file.uri, file) for file in batch)
            else:
                self._store(batch)

    def _store(self, files: Iterable[SourceFile]) -> None:
        """Puts files into the database, which is opened for the first of them."""
        if self._database is None:
            self._database = _open_database()
            weakref.finalize(self, self._database.close)
            files = [*self._held.values(), *files]
            self._held = {}
        self._database.execute("BEGIN")
        self._database.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?)", map(_row, files))
        self._database.execute("COMMIT")

    def __len__(self) -> int:
        if self._database is None:
            return len(self._held)
        (count,) = self._database.execute("SELECT count(*) FROM files").fetchone()
        return int(count)

    def __contains__(self, file: object) -> bool:
        return isinstance(file, SourceFile) and self.find(file.uri) == file

    def __iter__(self) -> Iterator[SourceFile]:
        """Yields the files, by partition in the order that was asked for, then by name."""
        if self._database is None:
            by_name = sorted(self._held.values(), key=lambda file: _packed(file.uri))
            yield from sorted(by_name, key=_partition, reverse=self._newest_first)
            return
        order = "DESC" if self._newest_first else "ASC"
        query = f"SELECT date, uri, size, version FROM files ORDER BY partition {order}, uri"
        for date, uri, size, version in self._database.execute(query):
            day = dt.date.fromisoformat(date) if date else None
            yield SourceFile(day, uri.decode("utf-8", "surrogateescape"), size, version)

    def find(self, uri: str) -> SourceFile | None:
        """Returns the file of that name, or None."""
        if self._database is None:
            return self._held.get(uri)
        query = "SELECT date, size, version FROM files WHERE uri = ?"
        found = self._database.execute(query, (_packed(uri),)).fetchone()
        if found is None:
            return None
        date, size, version = found
        return SourceFile(dt.date.fromisoformat(date) if date else None, uri, size, version)

    def drop(self, uris: Iterable[str]) -> None:
        """Forgets files by their names, those that are there."""
        if self._database is None:
            for uri in uris:
                self._held.pop(uri, None)
            return
        rows = ((_packed(uri),) for uri in uris)
        while batch := list(itertools.islice(rows, _BATCH)):
            self._database.execute("BEGIN")
            self._database.executemany("DELETE FROM files WHERE uri = ?", batch)
            self._database.execute("COMMIT")

    def days_without(self, first: dt.date, last: dt.date) -> Sequence[dt.date]:
        """Returns the days from one to another of which there is no file."""
        days = (first + dt.timedelta(n) for n in range((last - first).days + 1))
        there = self._days()
        return [day for day in days if day not in there]

    def _days(self) -> frozenset[dt.date | None]:
        if self._database is None:
            return frozenset(file.date for file in self._held.values())
        found = self._database.execute("SELECT DISTINCT date FROM files WHERE date IS NOT NULL")
        return frozenset(dt.date.fromisoformat(date) for (date,) in found)

    @property
    def bytes(self) -> int:
        """Bytes of all files, as stored."""
        if self._database is None:
            return sum(file.size for file in self._held.values())
        (total,) = self._database.execute("SELECT coalesce(sum(size), 0) FROM files").fetchone()
        return int(total)

    @property
    def empty(self) -> int:
        """How many files have not a single byte: often a sign that whatever wrote them failed."""
        if self._database is None:
            return sum(not file.size for file in self._held.values())
        (count,) = self._database.execute("SELECT count(*) FROM files WHERE size = 0").fetchone()
        return int(count)


def _open_database() -> sqlite3.Connection:
    database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
    database.execute("PRAGMA journal_mode = OFF")
    database.execute("PRAGMA synchronous = OFF")
    database.execute(_TABLE)
    return database


def _partition(file: SourceFile) -> bytes:
    """Returns what orders partitions: the date, or else the folder."""
    return file.date.isoformat().encode() if file.date else _packed(file.uri).rpartition(b"/")[0]


def _row(file: SourceFile) -> tuple[bytes, bytes, str | None, int, str]:
    """Returns a row of the table."""
    date, uri, size, version = file
    return _packed(uri), _partition(file), date.isoformat() if date else None, size, version


def _packed(text: str) -> bytes:
    """Returns a name as bytes: not every name on a disk is text."""
    return text.encode("utf-8", "surrogateescape")
