"""The files that a run reads, in the order in which they are sent; on disk, as there may be ten million."""

from __future__ import annotations

import datetime as dt
import itertools
import sqlite3
from collections.abc import Collection, Iterable, Iterator
from typing import Final, NamedTuple

_BATCH: Final = 10_000
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
        """Begins without any; SQLite keeps them in a file of its own, which goes with it."""
        self._order = "DESC" if newest_first else "ASC"
        self._database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._database.execute("PRAGMA journal_mode = OFF")
        self._database.execute("PRAGMA synchronous = OFF")
        self._database.execute(_TABLE)

    def add(self, files: Iterable[SourceFile]) -> None:
        """Takes files; of several with one name the last counts."""
        rows = map(_row, files)
        while batch := list(itertools.islice(rows, _BATCH)):
            self._database.execute("BEGIN")
            self._database.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?)", batch)
            self._database.execute("COMMIT")

    def __len__(self) -> int:
        (count,) = self._database.execute("SELECT count(*) FROM files").fetchone()
        return int(count)

    def __contains__(self, file: object) -> bool:
        return isinstance(file, SourceFile) and self.find(file.uri) == file

    def __iter__(self) -> Iterator[SourceFile]:
        """Yields the files, by partition in the order that was asked for, then by name."""
        query = f"SELECT date, uri, size, version FROM files ORDER BY partition {self._order}, uri"
        for date, uri, size, version in self._database.execute(query):
            day = dt.date.fromisoformat(date) if date else None
            yield SourceFile(day, uri.decode("utf-8", "surrogateescape"), size, version)

    def find(self, uri: str) -> SourceFile | None:
        """Returns the file of that name, or None."""
        query = "SELECT date, size, version FROM files WHERE uri = ?"
        found = self._database.execute(query, (_packed(uri),)).fetchone()
        if found is None:
            return None
        date, size, version = found
        return SourceFile(dt.date.fromisoformat(date) if date else None, uri, size, version)

    def drop(self, uris: Iterable[str]) -> None:
        """Forgets files by their names, those that are there."""
        rows = ((_packed(uri),) for uri in uris)
        while batch := list(itertools.islice(rows, _BATCH)):
            self._database.execute("BEGIN")
            self._database.executemany("DELETE FROM files WHERE uri = ?", batch)
            self._database.execute("COMMIT")

    @property
    def bytes(self) -> int:
        """Bytes of all files, as stored."""
        (total,) = self._database.execute("SELECT coalesce(sum(size), 0) FROM files").fetchone()
        return int(total)


def _row(file: SourceFile) -> tuple[bytes, bytes, str | None, int, str]:
    """Returns a row of the table: what orders partitions is the date, or else the folder."""
    date, uri, size, version = file
    name = _packed(uri)
    day = date.isoformat() if date else None
    return name, day.encode() if day else name.rpartition(b"/")[0], day, size, version


def _packed(text: str) -> bytes:
    """Returns a name as bytes: not every name on a disk is text."""
    return text.encode("utf-8", "surrogateescape")
