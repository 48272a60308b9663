"""Rows of a warehouse table: a column each for name, time and user, every other column a property."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec

from record_maps.paths import NULL_VALUE, Fields
from record_maps.spec import Dialect, MapSpec, Spread, TimeSpec

_NONE: Final = (None, NULL_VALUE, msgspec.Raw(b'""'))


def reshape(fields: Fields) -> Iterator[Fields]:
    """Yields the row, of one with an anonymous id with both ids, so that Mixpanel can join what they did."""
    if fields.get("anonymous_id") in _NONE or fields.get("distinct_id") not in _NONE:
        yield fields
        return
    joined = {"$device_id": fields["anonymous_id"], "$user_id": fields.get("user_id", NULL_VALUE)}
    yield {**joined, **fields}


DIALECT: Final = Dialect(
    "flat",
    MapSpec(
        event=(("event",), ("event_name",), ("event_type",), ("name",)),
        time=TimeSpec((("time",), ("timestamp",), ("event_time",), ("event_timestamp",), ("created_at",))),
        distinct_id=(("distinct_id",), ("user_id",), ("anonymous_id",), ("device_id",)),
        insert_id=(("$insert_id",), ("insert_id",), ("event_id",)),
        properties=(
            ("*", Spread(())),
            ("$user_id", (("$user_id",),)),
            ("$device_id", (("$device_id",),)),
        ),
        drop_nulls=True,
        deep_as_text=True,
        reshape=reshape,
    ),
)
