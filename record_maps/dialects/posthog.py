"""PostHog's batch export: one event a line, its properties an object or, from Parquet, a text of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec

from record_maps.paths import NULL_VALUE, Fields, opened, text_of
from record_maps.spec import Dialect, Filtered, MapSpec, Reshaped, Spread, TimeSpec

# Columns beside the event, and properties that steer PostHog's own ingestion; `token` is its project's key.
INTERNAL: Final = frozenset(
    {
        *("_inserted_at", "created_at", "inserted_at", "team_id", "project_id", "site_url", "set"),
        "set_once",
        *("elements", "elements_chain", "elements_hash", "person_id", "person_mode"),
        *("person_properties", "person_created_at", "_timestamp", "_offset", "id"),
    }
)
STEERING: Final = frozenset(
    {
        *("token", "distinct_id", "$set", "$set_once", "$unset", "$sent_at", "$insert_id", "$ip", "$lib"),
        *("$plugins_succeeded", "$plugins_failed", "$plugins_deferred", "$geoip_disable"),
        "$process_person_profile",
        *("$anon_distinct_id", "$had_persisted_distinct_id", "$lib_custom_api_host", "$elements"),
        *("$groups", "$group_0", "$group_1", "$group_2", "$group_3", "$group_4"),
        *("$user_id", "$device_id", "$is_identified", "$configured_session_timeout_ms"),
    }
)
PROFILES: Final = {
    b'"$identify"': "identify",
    b'"$create_alias"': "alias",
    b'"$merge_dangerously"': "alias",
    b'"$set"': "identify",
    b'"$groupidentify"': "group",
}


def reshape(fields: Fields) -> Iterator[Reshaped]:
    """Yields the row with its properties as an object, or why it is left out."""
    profile = PROFILES.get(bytes(fields.get("event", b"")))
    if profile is not None:
        yield Filtered(profile)
        return
    row = dict(fields)
    for name in _OBJECTS:
        if name in row:
            row[name] = _unquoted(row[name])
    yield {**row, **_ids(row)}


_OBJECTS: Final = ("properties", "person_properties")
_TRUE: Final = msgspec.Raw(b"true")
_FALSE: Final = msgspec.Raw(b"false")


def _ids(row: Fields) -> Fields:
    """Returns the ids by which Mixpanel tells a user that is known from a device, as far as they are told.

    Only some of PostHog's libraries give `$user_id`. Without it Mixpanel would count what a known user did on
    a device for the device alone; and without `$device_id` it takes an anonymous id for a user's.
    """
    properties = opened(row.get("properties")) or {}
    who = row.get("distinct_id", NULL_VALUE)
    user, device = (properties.get(name, NULL_VALUE) for name in ("$user_id", "$device_id"))
    flag = properties.get("$is_identified")
    is_anonymous = flag == _FALSE or properties.get("$process_person_profile") == _FALSE
    is_of_web = bytes(properties.get("$lib", NULL_VALUE)) == b'"web"'  # it gives `$user_id` once there is one
    if device == NULL_VALUE:
        device = who if is_anonymous else device
    elif user == NULL_VALUE and device != who and (flag == _TRUE or not (is_anonymous or is_of_web)):
        user = who
    return {"$user_id": user, "$device_id": device}


def _unquoted(value: msgspec.Raw) -> msgspec.Raw:
    """Returns an object that is given as a text of JSON; anything else as it is."""
    text = text_of(value) if bytes(value)[:1] == b'"' else None  # mostly it is an object
    return value if text is None else msgspec.Raw(text.encode())


DIALECT: Final = Dialect(
    "posthog",
    MapSpec(
        event=(("event",),),
        time=TimeSpec((("timestamp",),), "iso8601"),
        distinct_id=(("distinct_id",), ("properties", "distinct_id")),
        insert_id=(("uuid",),),
        properties=(
            ("*", Spread((), without=INTERNAL)),
            ("user.*", Spread(("person_properties",), "user.")),
            ("*", Spread(("properties", "$groups"))),
            ("*", Spread(("properties",), without=STEERING)),
            ("$user_id", (("$user_id",),)),
            ("$device_id", (("$device_id",),)),
            ("ip", (("properties", "$ip"), ("ip",))),
            ("$city", (("properties", "$geoip_city_name"),)),
            ("$region", (("properties", "$geoip_subdivision_1_name"),)),
            ("mp_country_code", (("properties", "$geoip_country_code"),)),
            ("mp_lib", (("properties", "$lib"),)),
        ),
        drop=("$sdk_debug_*", "$session_recording_*", "$replay_*"),
        deep_as_text=True,
        drop_nulls=True,
        reshape=reshape,
    ),
    (
        ("identify", "`$identify` and `$set`: it is about a profile"),
        ("alias", "`$create_alias` and `$merge_dangerously`: it is about an identity"),
        ("group", "`$groupidentify`: it is about a group"),
    ),
)
