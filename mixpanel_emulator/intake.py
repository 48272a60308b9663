"""Taking events in: every record of a body judged, and the whole outcome committed in one transaction."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import NamedTuple
from uuid import uuid4

from isal import isal_zlib

from mixpanel_emulator.bodies import Span
from mixpanel_emulator.event_rules import (
    DAY_MS,
    IDENTITY_EVENTS,
    IDENTITY_REFUSED,
    Event,
    Refusal,
)
from mixpanel_emulator.exchange import Exchange
from mixpanel_emulator.identity import apply_identity_events, link_devices
from mixpanel_emulator.settings import Settings
from mixpanel_emulator.store import (
    EventRow,
    RefusedRow,
    Store,
    insert_body,
    insert_events,
    insert_refused,
    insert_request,
)

IDENTITY_BYTES = 16  # 128 bits: no two identities of a store share a digest by chance


# What a judge says of a record's bytes at a time in ms; None is a record that is dropped without a word.
Judge = Callable[[bytes, int], Event | Refusal | None]


def digest(raw: bytes) -> int:
    """Returns 64 bits by which copies of one record that are not the same bytes are told apart."""
    return (isal_zlib.crc32(raw) << 32 | isal_zlib.adler32(raw)) - (1 << 63)  # SQLite's integers have a sign


class Batch(NamedTuple):
    """One request's records: the body, where they lie in it, and the body as its sender compressed it."""

    body: bytes
    spans: Sequence[Span]
    wire: bytes | None = None


class Outcome(NamedTuple):
    """What became of a batch: how many were accepted, and the refused ones by index."""

    accepted: int
    refusals: list[tuple[int, Refusal]]

    @property
    def of_identity(self) -> bool:
        """Returns whether the batch was refused for its identity events."""
        return any(refusal.message == IDENTITY_REFUSED for _, refusal in self.refusals)


class EventIntake:
    """Stores events; `take` may be called from several threads."""

    def __init__(self, settings: Settings, store: Store) -> None:
        """Makes an intake for the project of the settings."""
        self._settings = settings
        self._store = store

    def take(self, batch: Batch, exchange: Exchange, judge: Judge) -> Outcome:
        """Returns what became of each record by this judge, once all of it is committed."""
        now_ms = int(time.time() * 1000)
        events: list[tuple[Span, Event]] = []
        refusals: list[tuple[int, Refusal]] = []
        body = batch.body
        for index, span in enumerate(batch.spans):
            start, length = span
            verdict = judge(body[start : start + length], now_ms)
            if type(verdict) is Event:
                events.append((span, verdict))
            elif type(verdict) is Refusal:
                refusals.append((index, verdict))
        outcome = self._refuse_whole_batch(Outcome(len(batch.spans) - len(refusals), refusals))
        self._commit(batch, events if outcome.accepted else [], outcome, exchange)
        return outcome

    def _refuse_whole_batch(self, outcome: Outcome) -> Outcome:
        if self._settings.identity_verbs == "refuse_batch" and outcome.of_identity:
            return outcome._replace(accepted=0)  # AK-PROBE
        return outcome

    def _commit(
        self, batch: Batch, events: list[tuple[Span, Event]], outcome: Outcome, exchange: Exchange
    ) -> None:
        kept = [(span, event) for span, event in events if not self._is_dropped(event)]
        rows = [self._row(batch.body, span, event) for span, event in kept]
        days = Counter((row.time_ms // DAY_MS, row.name) for row in rows)
        exchange.count(records=len(batch.spans), stored=len(rows), refused=len(outcome.refusals))
        with self._store.writing() as connection:
            body = insert_body(connection, exchange.path, batch.body, batch.wire)
            insert_events(connection, body, rows)
            if outcome.refusals:
                insert_refused(
                    connection, body, [_refused_row(batch.spans, *item) for item in outcome.refusals]
                )
            if self._settings.identity == "original":
                apply_identity_events(connection, (event for _, event in kept))
            else:
                link_devices(connection, (event for _, event in kept))
            connection.executemany(
                "INSERT INTO tally (day, name, events) VALUES (?, ?, ?)"
                " ON CONFLICT (day, name) DO UPDATE SET events = events + excluded.events",
                [(day, name, count) for (day, name), count in days.items()],
            )
            insert_request(connection, exchange.row(400 if outcome.refusals and exchange.strict else 200))

    def _is_dropped(self, event: Event) -> bool:
        if event.properties and event.properties.get("$ignore"):  # BOT: silently dropped
            return True
        return self._settings.identity == "simplified" and event.name in IDENTITY_EVENTS  # IDMIG: ignored

    def _row(self, body: bytes, span: Span, event: Event) -> EventRow:
        start, length = span
        name, distinct_id, time_ms, insert_id, properties = event
        # DEDUP: these four fields, and only these, tell copies of one event. The name's length keeps it apart
        # from the distinct_id; the other two cannot hold a space.
        four = f"{time_ms} {insert_id or uuid4().hex} {len(name)} {name}{distinct_id}"
        identity = blake2b(four.encode(), digest_size=IDENTITY_BYTES).digest()
        source = self._source(event) if properties else None
        return EventRow(start, length, name, source, time_ms, identity, digest(body[start : start + length]))

    def _source(self, event: Event) -> str | None:
        source = event.properties.get(self._settings.source_property)
        return source if isinstance(source, str) else None


def _refused_row(spans: Sequence[Span], index: int, refusal: Refusal) -> RefusedRow:
    return RefusedRow(*spans[index], refusal.field, refusal.message)
