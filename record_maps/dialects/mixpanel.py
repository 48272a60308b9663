"""Mixpanel's own raw export: what the server added is removed, hot shards are undone, ids are kept."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from record_maps.paths import Fields
from record_maps.spec import Dialect, Filtered, MapSpec, Spread, TimeSpec

# Written by the server when the event came in, or when users were merged; importing them would mislead.
SERVER_MADE: Final = (
    *("$import", "$mp_*", "mp_processing_time_ms", "mp_sent_by_lib_version", "mp_event_size"),
    *("$distinct_id_before_identity", "$is_reshuffled", "$preshuffle_distinct_id"),
    *("$failure_reason", "$failure_description", "$identity_failure_reason"),
    *("token", "bucket", "$bucket", "mp_original_event_name", "mp_original_distinct_id"),
)
HOTSHARD_RECORD: Final = "hotshard_record"


def reshape(fields: Fields) -> Iterator[Fields | Filtered]:
    """Yields the record, or why it is left out."""
    if bytes(fields.get("event", b"")) == b'"$hotshard_record"':
        yield Filtered(HOTSHARD_RECORD)
    else:
        yield fields


DIALECT: Final = Dialect(
    "mixpanel",
    MapSpec(
        event=(("properties", "mp_original_event_name"), ("event",)),
        time=TimeSpec((("properties", "time"),)),
        distinct_id=(("properties", "mp_original_distinct_id"), ("properties", "distinct_id")),
        insert_id=(("properties", "$insert_id"),),
        properties=(("*", Spread(("properties",))),),
        drop=SERVER_MADE,
        deep_as_text=True,
        reshape=reshape,
    ),
    ((HOTSHARD_RECORD, "Mixpanel's own note that a user had too many events on a day"),),
)
