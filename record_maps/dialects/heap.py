"""Heap Connect's tables of events: a row each, numbers as ids, times in UTC.

Columns after "Heap Connect: Data Schema" (help.heap.io/hc/en-us/articles/18700033317020); `event_name` is
what Fivetran's copy of the tables has (fivetran.com/docs/connectors/applications/heap/connector-schema).
"""

from __future__ import annotations

from typing import Final

from record_maps.spec import Dialect, MapSpec, Spread, TimeSpec

# Which load of a table a row came with.
INTERNAL: Final = frozenset({"_updated_at", "_dump_id", "sync_id", "loaded_at", "_fivetran_synced"})

DIALECT: Final = Dialect(
    "heap",
    MapSpec(
        event=(("event_table_name",), ("event_name",), ("event",), ("type",)),
        time=TimeSpec((("time",),)),
        distinct_id=(("identity",), ("user_id",)),
        insert_id=(("event_id",),),
        properties=(
            ("*", Spread((), without=INTERNAL)),
            ("$user_id", (("identity",),)),
            ("$device_id", (("user_id",),)),  # Heap's own, made before anybody is known
            ("$referrer", (("referrer",),)),
            ("$browser", (("browser",),)),
            ("$city", (("city",),)),
            ("$region", (("region",),)),
            ("$os", (("platform",),)),  # the system with its version; Heap has no other column for it
            ("$model", (("device",), ("heap_device",))),
            ("$carrier", (("carrier",),)),
            ("$app_version_string", (("heap_app_version",), ("app_version",))),
            ("mp_lib", (("library",),)),
        ),
        drop_nulls=True,
        deep_as_text=True,
    ),
)
