"""Amplitude's export: one event a line, with objects for the properties of event, user and groups."""

from __future__ import annotations

from typing import Final

from record_maps.spec import Dialect, MapSpec, Spread, TimeSpec

# Amplitude's own bookkeeping, of no use outside of it.
INTERNAL: Final = frozenset(
    {
        *("$schema", "app", "amplitude_attribution_ids", "amplitude_event_type", "amplitude_id"),
        *("client_event_time", "client_upload_time", "server_received_time", "server_upload_time"),
        *("processed_time", "data", "data_type", "event_id", "is_attribution_event", "partner_id"),
        *("sample_rate", "source_id", "followed_an_identify", "group_properties", "global_user_properties"),
        *("adid", "idfa", "idfv"),
    }
)

DIALECT: Final = Dialect(
    "amplitude",
    MapSpec(
        event=(("event_type",),),
        time=TimeSpec((("event_time",), ("client_event_time",)), "iso8601"),
        distinct_id=(("user_id",), ("device_id",), ("amplitude_id",)),
        insert_id=(("uuid",), ("$insert_id",)),
        properties=(
            ("*", Spread((), without=INTERNAL)),
            ("*", Spread(("groups",))),
            ("user.*", Spread(("user_properties",), "user.")),
            ("*", Spread(("event_properties",))),
            ("$user_id", (("user_id",),)),
            ("$device_id", (("device_id",),)),
            ("ip", (("ip_address",),)),
            ("$city", (("city",),)),
            ("$region", (("region",),)),
            ("$latitude", (("location_lat",),)),
            ("$longitude", (("location_lng",),)),
            ("$os", (("os_name",),)),
            ("$os_version", (("os_version",),)),
            ("$brand", (("device_brand",),)),
            ("$manufacturer", (("device_manufacturer",),)),
            ("$model", (("device_model",),)),
            ("$carrier", (("device_carrier",),)),
            ("$app_version_string", (("version_name",),)),
            ("mp_lib", (("library",),)),
        ),
        drop_nulls=True,
    ),
)
