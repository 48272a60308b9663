"""Amplitude's export: one event a line, with objects for the properties of event, user and groups."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from record_maps.paths import Fields
from record_maps.spec import Dialect, Filtered, MapSpec, Reshaped, Spread, TimeSpec

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

# Amplitude's own events that only carry changes of profiles.
PROFILES: Final = {b'"$identify"': "identify", b'"$groupidentify"': "group"}


def reshape(fields: Fields) -> Iterator[Reshaped]:
    """Yields the event, or why it is left out; of the web, what is called a system there is the browser."""
    profile = PROFILES.get(bytes(fields.get("event_type", b"")))
    if profile is not None:
        yield Filtered(profile)
    elif bytes(fields.get("platform", b"")) == b'"Web"':
        yield {_OF_THE_WEB.get(name, name): value for name, value in fields.items()}
    else:
        yield fields


_OF_THE_WEB: Final = {"os_name": "browser_name", "os_version": "browser_version"}


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
            ("$browser", (("browser_name",),)),
            ("$browser_version", (("browser_version",),)),
            ("$brand", (("device_brand",),)),
            ("$manufacturer", (("device_manufacturer",),)),
            ("$model", (("device_model",),)),
            ("$carrier", (("device_carrier",),)),
            ("$app_version_string", (("version_name",),)),
            ("mp_lib", (("library",),)),
        ),
        drop_nulls=True,
        deep_as_text=True,
        reshape=reshape,
    ),
    (
        ("identify", "`$identify`: it is about a profile"),
        ("group", "`$groupidentify`: it is about a group"),
    ),
)
