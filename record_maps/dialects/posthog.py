"""PostHog's batch export: one event a line, its properties an object or, from Parquet, a text of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec

from record_maps.paths import Fields
from record_maps.spec import Dialect, Filtered, MapSpec, Reshaped, Spread, TimeSpec

# Columns beside the event, and properties that steer PostHog's own ingestion; `token` is its project's key.
INTERNAL: Final = frozenset(
    {
        *(
            "_inserted_at",
            "created_at",
            "inserted_at",
            "team_id",
            "project_id",
            "site_url",
            "set",
            "set_once",
        ),
        *("elements", "elements_chain", "elements_hash", "person_id", "person_mode"),
        *("person_properties", "person_created_at", "_timestamp", "_offset", "id"),
    }
)
STEERING: Final = frozenset(
    {
        *("token", "distinct_id", "$set", "$set_once", "$unset", "$sent_at", "$insert_id", "$ip", "$lib"),
        *(
            "$plugins_succeeded",
            "$plugins_failed",
            "$plugins_deferred",
            "$geoip_disable",
            "$process_person_profile",
        ),
        *("$anon_distinct_id", "$had_persisted_distinct_id", "$lib_custom_api_host", "$elements"),
    }
)
PROFILES: Final = {
    b'"$identify"': "identify",
    b'"$create_alias"': "alias",
    b'"$merge_dangerously"': "alias",
    b'"$set"': "identify",
    b'"$groupidentify"': "group",
}
_text: Final = msgspec.json.Decoder(str).decode


def reshape(fields: Fields) -> Iterator[Reshaped]:
    """Yields the row with its properties as an object, or why it is left out."""
    profile = PROFILES.get(bytes(fields.get("event", b"")))
    if profile is not None:
        yield Filtered(profile)
        return
    yield {name: _unquoted(value) if name in _OBJECTS else value for name, value in fields.items()}


_OBJECTS: Final = ("properties", "person_properties")


def _unquoted(value: msgspec.Raw) -> msgspec.Raw:
    """Returns an object that is given as a text of JSON; anything else as it is."""
    if bytes(value)[:1] != b'"':
        return value
    try:
        return msgspec.Raw(_text(value).encode())
    except (msgspec.DecodeError, UnicodeError):
        return value


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
            ("*", Spread(("properties",), without=STEERING)),
            ("ip", (("properties", "$ip"), ("ip",))),
            ("$city", (("properties", "$geoip_city_name"),)),
            ("$region", (("properties", "$geoip_subdivision_1_name"),)),
            ("mp_country_code", (("properties", "$geoip_country_code"),)),
            ("mp_lib", (("properties", "$lib"),)),
        ),
        drop_nulls=True,
        reshape=reshape,
    ),
    (
        ("identify", "`$identify` and `$set`: it is about a profile"),
        ("alias", "`$create_alias` and `$merge_dangerously`: it is about an identity"),
        ("group", "`$groupidentify`: it is about a group"),
    ),
)
