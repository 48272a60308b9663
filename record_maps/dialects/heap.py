"""Heap Connect's tables of events: a row each, numbers as ids, times in UTC."""

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
            ("$current_url", (("url",),)),
            ("$referrer", (("referrer",),)),
            ("$browser", (("browser",),)),
            ("$city", (("city",),)),
            ("$region", (("region",),)),
            ("$os", (("os",),)),
            ("$carrier", (("carrier",),)),
            ("$app_version_string", (("app_version",),)),
            ("mp_lib", (("library",),)),
        ),
        drop_nulls=True,
    ),
)
