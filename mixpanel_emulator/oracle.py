"""Comparing a run with its input: what is missing, made up, changed on the way, or came twice.

It takes records as bytes from both sides and knows nothing of how they were read or sent. Numbers are
compared as they are written, not as floats: 12345678901234567890 that became 1.2345678901234567e19 differs.
"""

import gzip
import json
import sqlite3
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from mixpanel_emulator.event_rules import event_time_ms

EXAMPLES = 10
_TABLES = """
CREATE TABLE expected (identity BLOB, content BLOB, raw BLOB);
CREATE TABLE stored (identity BLOB, content BLOB, raw BLOB);
"""
# One row an identity: how many contents were expected and stored, and one record as an example.
_MISSING = """
SELECT {what} FROM expected WHERE identity NOT IN (SELECT identity FROM stored) GROUP BY identity
"""
_SPURIOUS = """
SELECT {what} FROM stored WHERE identity NOT IN (SELECT identity FROM expected) GROUP BY identity
"""
_ALTERED = """
SELECT {what} FROM stored WHERE identity IN (SELECT identity FROM expected)
  AND NOT EXISTS (
    SELECT 1 FROM expected WHERE expected.identity = stored.identity AND expected.content = stored.content)
  GROUP BY identity
"""


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a comparison found, in events (copies of one event are one), with a few records of each kind."""

    expected: int
    stored: int
    copies: int
    missing: int
    spurious: int
    altered: int
    examples: dict[str, list[bytes]] = field(default_factory=dict)

    @property
    def is_clean(self) -> bool:
        """Returns whether nothing was lost, made up or changed; copies are, as Mixpanel merges them."""
        return not (self.missing or self.spurious or self.altered)


def compare(
    expected: Iterable[bytes], stored: Iterable[bytes], *, ignore: Collection[str] = ()
) -> Comparison:
    """Returns how what is stored differs from what was expected.

    Args:
        expected: The records that should have arrived, one JSON object each, as they should have arrived.
        stored: The records that did, from `EmulatorProcess.records` or from `GET /_emulator/records`.
        ignore: Properties that are left out of the comparison, such as an `$insert_id` stamped on the way.
            They identify no record either: records that are otherwise the same are copies.
    """
    # The empty name is a temporary file: both sides may be larger than memory.
    database = sqlite3.connect("", isolation_level=None)
    try:
        database.executescript("PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF;" + _TABLES)
        for table, records in (("expected", expected), ("stored", stored)):
            database.execute("BEGIN")
            database.executemany(f"INSERT INTO {table} VALUES (?, ?, ?)", _rows(records, frozenset(ignore)))
            database.execute("COMMIT")
            database.execute(f"CREATE INDEX {table}_identity ON {table} (identity, content)")
        return _compared(database)
    finally:
        database.close()


def compare_files(
    expected: Iterable[str], stored: Iterable[bytes], *, ignore: Collection[str] = ()
) -> Comparison:
    """Returns how what is stored differs from the lines of NDJSON files, plain or gzip, given by path."""
    return compare(_lines(expected), stored, ignore=ignore)


def canonical(raw: bytes, ignore: Collection[str] = ()) -> tuple[bytes, bytes]:
    """Returns digests of what identifies a record and of all of it; key order and white space do not matter.

    >>> canonical(b'{"event":"a","properties":{"n":1}}') == canonical(b'{"properties":{"n":1},"event":"a"}')
    True
    """
    record = json.loads(raw, parse_int=_Token, parse_float=_Token)
    properties = {key: value for key, value in record.get("properties", record).items() if key not in ignore}
    identity = [record.get("event"), *_identity(record, properties, ignore)]
    whole = {"event": record.get("event"), "properties": properties} if "properties" in record else properties
    return _digest(identity), _digest(whole)


class _Token(str):
    """A number as it is written; a marker that no text from JSON starts with keeps it apart from texts."""

    __slots__ = ()

    def __new__(cls, text: str) -> "_Token":
        return super().__new__(cls, "\ud800" + text)  # half of a surrogate pair: never in valid UTF-8


def _identity(record: dict[str, Any], properties: dict[str, Any], ignore: Collection[str]) -> list[Any]:
    if "properties" not in record:
        return [properties]  # a profile update: all of it
    fields = ("distinct_id", "$user_id", "$device_id", "$insert_id")
    if "$insert_id" in ignore:
        return [properties]
    return [_moment(properties.get("time")), *(properties.get(name) for name in fields)]


def _moment(value: Any) -> Any:
    if not isinstance(value, _Token):
        return value
    number = json.loads(value[1:])
    return event_time_ms(number)


def _digest(value: Any) -> bytes:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return blake2b(text.encode(), digest_size=16).digest()


def _rows(records: Iterable[bytes], ignore: frozenset[str]) -> Iterator[tuple[bytes, bytes, bytes]]:
    for raw in records:
        if raw.strip():
            yield (*canonical(raw, ignore), raw)


def _compared(database: sqlite3.Connection) -> Comparison:
    def number(sql: str) -> int:
        (count,) = database.execute(sql).fetchone()
        return int(count)

    kinds = {"missing": _MISSING, "spurious": _SPURIOUS, "altered": _ALTERED}
    counts = {kind: number(f"SELECT count(*) FROM ({sql.format(what='1')})") for kind, sql in kinds.items()}
    examples = {
        kind: [row[0] for row in database.execute(f"{sql.format(what='max(raw)')} LIMIT {EXAMPLES}")]
        for kind, sql in kinds.items()
        if counts[kind]
    }
    distinct = number("SELECT count(DISTINCT identity) FROM stored")
    return Comparison(
        expected=number("SELECT count(DISTINCT identity) FROM expected"),
        stored=distinct,
        copies=number("SELECT count(*) FROM stored") - distinct,
        examples=examples,
        **counts,
    )


def _lines(paths: Iterable[str]) -> Iterator[bytes]:
    for path in paths:
        with gzip.open(path) if path.endswith(".gz") else open(path, "rb") as lines:
            for line in lines:
                yield line.rstrip(b"\r\n")
