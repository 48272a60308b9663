"""Rows of a warehouse table: a column each for name, time and user, every other column a property."""

from __future__ import annotations

from typing import Final

from record_maps.spec import Dialect, MapSpec, TimeSpec

DIALECT: Final = Dialect(
    "flat",
    MapSpec(
        event=(("event",), ("event_name",), ("event_type",), ("name",)),
        time=TimeSpec((("time",), ("timestamp",), ("event_time",), ("event_timestamp",), ("created_at",))),
        distinct_id=(("distinct_id",), ("user_id",), ("anonymous_id",), ("device_id",)),
        insert_id=(("$insert_id",), ("insert_id",), ("event_id",)),
        drop_nulls=True,
    ),
)
