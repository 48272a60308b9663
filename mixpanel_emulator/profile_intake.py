"""Taking profile updates in: each judged and applied, and the whole outcome committed at once."""

import sqlite3
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any, NamedTuple

import orjson

from mixpanel_emulator.access import knows_token
from mixpanel_emulator.bodies import Span
from mixpanel_emulator.event_rules import Refusal
from mixpanel_emulator.exchange import Exchange
from mixpanel_emulator.intake import Batch, Outcome
from mixpanel_emulator.profile_ops import apply_operation, find_operation
from mixpanel_emulator.settings import Settings
from mixpanel_emulator.store import RefusedRow, Store, insert_body, insert_refused, insert_request

MAX_UPDATE_BYTES = 1024 * 1024  # UPL, GRL: 1MB per update


class Update(NamedTuple):
    """One accepted update: whose profile it is for, and what it does to it."""

    group_key: str
    profile: str
    operation: str
    record: dict[str, Any]


class ProfileIntake:
    """Judges, applies and stores the updates of /engage or of /groups."""

    def __init__(self, settings: Settings, store: Store, *, group: bool) -> None:
        """Makes the intake of user profiles, or of group profiles."""
        self._settings = settings
        self._store = store
        self._group = group

    def take(self, batch: Batch, exchange: Exchange) -> Outcome:
        """Returns what became of each update, once all of it is committed."""
        refusals: list[tuple[int, Refusal]] = []
        stored = 0
        with self._store.writing() as connection:
            body = insert_body(connection, exchange.path, batch.body, batch.wire)
            for index, span in enumerate(batch.spans):
                start, length = span
                raw = batch.body[start : start + length]
                verdict = self._judge(raw)
                if isinstance(verdict, Update):
                    verdict = self._apply(connection, verdict)
                if isinstance(verdict, Refusal):
                    refusals.append((index, verdict))
                elif knows_token(self._settings, str(verdict.record["$token"])):
                    _insert_update(connection, body, span, verdict)
                    stored += 1
            insert_refused(connection, body, _refused_rows(batch.spans, refusals))
            exchange.count(records=len(batch.spans), stored=stored, refused=len(refusals))
            insert_request(connection, exchange.row(200))
        return Outcome(len(batch.spans) - len(refusals), refusals)

    def _judge(self, raw: bytes) -> Update | Refusal:
        if len(raw) > MAX_UPDATE_BYTES:
            return Refusal("", f"update is invalid: exceeds max size of {MAX_UPDATE_BYTES} bytes")
        try:
            record = orjson.loads(raw)
        except orjson.JSONDecodeError:
            return Refusal("", "update is invalid: must be well-formed JSON")
        if type(record) is not dict:
            return Refusal("", "update is invalid: must be a JSON object")
        for field in ("$token", "$group_key", "$group_id") if self._group else ("$token", "$distinct_id"):
            if record.get(field) in (None, ""):
                return Refusal(field, f"{field}, missing or empty")  # I-RUD, observed for $distinct_id
        operation = find_operation(record, group=self._group)
        if isinstance(operation, Refusal):
            return operation
        return Update(self._group_key(record), self._profile(record), operation, record)

    def _group_key(self, record: dict[str, Any]) -> str:
        return str(record["$group_key"]) if self._group else ""

    def _profile(self, record: dict[str, Any]) -> str:
        identifier = record["$group_id" if self._group else "$distinct_id"]
        return identifier if isinstance(identifier, str) else orjson.dumps(identifier).decode()

    def _apply(self, connection: sqlite3.Connection, update: Update) -> Update | Refusal:
        if not knows_token(self._settings, str(update.record["$token"])):
            return update  # E401: a wrong token is not told
        key = (update.group_key, update.profile)
        if update.operation == "$delete":
            connection.execute("DELETE FROM profile WHERE group_key = ? AND id = ?", key)
            return update
        row = connection.execute(
            "SELECT properties FROM profile WHERE group_key = ? AND id = ?", key
        ).fetchone()
        before = orjson.loads(row[0]) if row else {}
        after = apply_operation(update.operation, update.record[update.operation], before)
        if row is None and not after:
            return update
        if len(after) > self._settings.max_profile_properties:
            most = self._settings.max_profile_properties
            return Refusal(update.operation, f"profile is invalid: must have at most {most} properties")
        if not self._group and not update.record.get("$ignore_time"):  # UP, DEFP
            after["$last_seen"] = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S")
        row = (*key, orjson.dumps(after), int(time.time() * 1000))
        connection.execute(
            "INSERT OR REPLACE INTO profile (group_key, id, properties, seen_ms) VALUES (?, ?, ?, ?)", row
        )
        return update


def _insert_update(connection: sqlite3.Connection, body: int, span: Span, update: Update) -> None:
    connection.execute(
        "INSERT INTO profile_update (body, start, length, group_key, profile) VALUES (?, ?, ?, ?, ?)",
        (body, *span, update.group_key, update.profile),
    )


def _refused_rows(spans: Sequence[Span], refusals: Sequence[tuple[int, Refusal]]) -> list[RefusedRow]:
    return [RefusedRow(*spans[index], refusal.field, refusal.message) for index, refusal in refusals]
