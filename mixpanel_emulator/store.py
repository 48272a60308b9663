"""The store: one SQLite file that holds every request body as it came, and a narrow row for each record.

Bodies stay compressed and records are found in them by their span, so an event costs about 70 bytes beside
its share of the body, and can be given back byte for byte. Rows are counted by SQL, when asked.
"""

import contextlib
import queue
import shutil
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mixpanel_emulator.bodies import Span, deflate, inflate

MEMORY = ":memory:"
READERS = 8
READER_WAIT_S = 60.0  # a reader is busy for as long as somebody reads an export
READ_LIMIT = 1 << 40  # what the store holds has been measured already
SCHEMA_VERSION = 1
SCHEMA = """
CREATE TABLE IF NOT EXISTS body (id INTEGER PRIMARY KEY, received_ms INTEGER, path TEXT, data BLOB);
CREATE TABLE IF NOT EXISTS event (
  id INTEGER PRIMARY KEY, body INTEGER, start INTEGER, length INTEGER, name TEXT, source TEXT,
  time_ms INTEGER, identity BLOB, content INTEGER);
CREATE TABLE IF NOT EXISTS profile_update (
  id INTEGER PRIMARY KEY, body INTEGER, start INTEGER, length INTEGER, group_key TEXT, profile TEXT);
CREATE TABLE IF NOT EXISTS refused (
  id INTEGER PRIMARY KEY, body INTEGER, start INTEGER, length INTEGER, field TEXT, message TEXT);
CREATE TABLE IF NOT EXISTS profile (
  group_key TEXT, id TEXT, properties TEXT, seen_ms INTEGER, PRIMARY KEY (group_key, id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS request (
  id INTEGER PRIMARY KEY, received_ms INTEGER, took_ms REAL, method TEXT, path TEXT, status INTEGER,
  records INTEGER, stored INTEGER, refused INTEGER, bytes_raw INTEGER, bytes_wire INTEGER, fault TEXT);
CREATE TABLE IF NOT EXISTS tally (
  day INTEGER, name TEXT, events INTEGER, PRIMARY KEY (day, name)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS identity (id TEXT PRIMARY KEY, canonical TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS lookup_table (id TEXT PRIMARY KEY, name TEXT, csv BLOB) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS lexicon (
  type TEXT, name TEXT, definition TEXT, PRIMARY KEY (type, name)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS fact (key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
"""
TABLES = (
    *("body", "event", "profile_update", "refused", "profile", "request", "tally", "identity"),
    "lookup_table",
    *("lexicon", "fact"),
)


class RequestRow(NamedTuple):
    """What is remembered of one request; `records` is 0 where its body was not looked into."""

    received_ms: int
    took_ms: float
    method: str
    path: str
    status: int
    records: int
    stored: int
    refused: int
    bytes_raw: int
    bytes_wire: int
    fault: str


class EventRow(NamedTuple):
    """One accepted event: its span, its names, and digests of what identifies it and of its bytes."""

    start: int
    length: int
    name: str
    source: str | None
    time_ms: int
    identity: bytes
    content: int


class RefusedRow(NamedTuple):
    """One refused record: its span and the reason."""

    start: int
    length: int
    field: str
    message: str


class StoreError(Exception):
    """The store's file cannot be used; the message says why."""


class Store:
    """The emulator's memory. Writing is one transaction a request; reading never waits for writing (WAL)."""

    def __init__(self, path: str = MEMORY) -> None:
        """Opens or makes the store at `path`; `:memory:` is a file that is gone with the process."""
        self._lock = threading.Lock()
        self._folder = tempfile.mkdtemp(prefix="mixpanel-emulator-") if path == MEMORY else None
        self._path = str(Path(self._folder) / "store.db") if self._folder else path
        self._readers: queue.Queue[sqlite3.Connection] = queue.Queue()
        try:
            self._writer = self._open()
            self._prepare()
            for _ in range(READERS):
                self._readers.put(self._open())
        except sqlite3.Error as error:
            raise StoreError(f"cannot use {path} as a store: {error}") from error
        finally:
            # A file that has lost its name goes with the process, even a killed one, and fills no memory.
            if self._folder:
                shutil.rmtree(self._folder)

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, timeout=30.0)
        connection.execute("PRAGMA journal_mode=WAL")
        # OFF is enough: a commit is in the page cache before the answer leaves, and outlives kill -9. Only a
        # power cut could lose it, and what is stored here can be sent again.
        connection.execute("PRAGMA synchronous=OFF")
        connection.execute("PRAGMA cache_size=-16000")
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        return connection

    def _prepare(self) -> None:
        (version,) = self._writer.execute("PRAGMA user_version").fetchone()
        if version not in (0, SCHEMA_VERSION):
            raise StoreError(f"{self._path} was left by another version of the emulator (schema {version})")
        (foreign,) = self._writer.execute("SELECT count(*) FROM sqlite_master WHERE name='body'").fetchone()
        (tables,) = self._writer.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if tables and not foreign:
            raise StoreError(f"{self._path} is a database of something else")
        self._writer.executescript(SCHEMA)
        self._writer.execute(f"PRAGMA user_version={SCHEMA_VERSION}")

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Gives the writing connection in a transaction, committed unless an error leaves the block."""
        with self._lock:
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
            except BaseException:
                self._writer.execute("ROLLBACK")
                raise
            self._writer.execute("COMMIT")

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Gives a connection that sees one state of the store for the length of the block."""
        connection = self._readers.get(timeout=READER_WAIT_S)
        try:
            connection.execute("BEGIN")
            try:
                yield connection
            finally:
                connection.execute("ROLLBACK")
        finally:
            self._readers.put(connection)

    def rows(self, sql: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Returns the rows of one query."""
        with self.reading() as connection:
            return connection.execute(sql, parameters).fetchall()

    def add_request(self, row: RequestRow) -> None:
        """Remembers a request that left nothing else in the store."""
        with self.writing() as connection:
            insert_request(connection, row)

    def reset(self) -> None:
        """Forgets everything."""
        with self.writing() as connection:
            for table in TABLES:
                connection.execute(f"DELETE FROM {table}")

    def close(self) -> None:
        """Closes the file, folding the write-ahead log into it."""
        with self._lock:
            self._writer.close()
        while not self._readers.empty():
            self._readers.get().close()


def insert_body(connection: sqlite3.Connection, path: str, body: bytes, wire: bytes | None = None) -> int:
    """Stores a body and returns its id; `wire` is the body as it was compressed by its sender, if it was."""
    row = (int(time.time() * 1000), path, wire or deflate(body))
    cursor = connection.execute("INSERT INTO body (received_ms, path, data) VALUES (?, ?, ?)", row)
    return int(cursor.lastrowid or 0)


def insert_events(connection: sqlite3.Connection, body: int, events: Sequence[EventRow]) -> None:
    """Stores the accepted events of a body."""
    sql = f"INSERT INTO event (body, {', '.join(EventRow._fields)}) VALUES ({body:d}, ?, ?, ?, ?, ?, ?, ?)"
    connection.executemany(sql, events)


def insert_refused(connection: sqlite3.Connection, body: int, refused: Sequence[RefusedRow]) -> None:
    """Stores what was refused of a body."""
    sql = f"INSERT INTO refused (body, start, length, field, message) VALUES ({body:d}, ?, ?, ?, ?)"
    connection.executemany(sql, refused)


def insert_request(connection: sqlite3.Connection, row: RequestRow) -> None:
    """Stores what is remembered of a request."""
    marks = ", ".join("?" * len(row))
    connection.execute(f"INSERT INTO request ({', '.join(row._fields)}) VALUES ({marks})", row)


def record_reader(connection: sqlite3.Connection) -> Callable[[int, Span], bytes]:
    """Returns a function that gives a record back as it was sent, inflating each body once."""
    held: tuple[int, bytes] = (0, b"")

    def read(body: int, span: Span) -> bytes:
        nonlocal held
        if held[0] != body:
            (data,) = connection.execute("SELECT data FROM body WHERE id = ?", (body,)).fetchone()
            held = (body, inflate(data, "gzip", READ_LIMIT))
        start, length = span
        return held[1][start : start + length]

    return read
