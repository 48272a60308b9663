"""mParticle's batches: the events of one user and device together, each becomes a record of its own.

Fields after mParticle's JSON schema of a batch (docs.mparticle.com/developers/apis/json-reference and
docs.mparticle.com/schema/mparticle.inbound.eventsapi.schema.json), which is also what its outputs send.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec

from mixpanel_http.verdicts import Reason, RecordRefused
from record_maps.paths import NULL_VALUE, Fields, elements, opened, text_of
from record_maps.spec import Dialect, Filtered, MapSpec, Reshaped, Spread, TimeSpec

# What mParticle says of a batch, and the parts of it that are spread over its events.
INTERNAL: Final = frozenset(
    {
        *("events", "user_identities", "user_attributes", "deleted_user_attributes", "device_info"),
        *("application_info", "attribution_info", "consent_state", "api_key", "batch_id", "context"),
        *("data_plan_context", "ip", "job_id", "message_id", "message_type", "mp_deviceid", "mpid"),
        *("partner_identity", "integration_attributes", "schema_version", "source_request_id", "debug_event"),
        *("timestamp_unixtime_ms", "unique_id", "user_attribute_change", "cookies", "batch_type"),
        "source_info",
        *("mpid_history", "data", "event_type", "identity", "environment", "api_keys", "partner_identities"),
        *("origin_mpid", "sdk_version"),
    }
)
IN_DATA: Final = frozenset(
    {
        *("event_name", "event_id", "timestamp_unixtime_ms", "source_message_id", "session_uuid"),
        "session_id",
        *("session_start_unixtime_ms", "event_start_unixtime_ms", "custom_attributes", "custom_flags"),
        *("product_action", "location", "device_current_state", "data_connection_type", "is_goal_defined"),
        *("lifetime_value_change", "lifetime_value_attribute_name", "canonical_name", "event_num"),
        "view_controller",
        *("is_main_thread", "event_system_notification_info", "push_message_token", "breadcrumbs"),
        *("pl_crash_report_file_base64", "ios_image_base_address", "ios_image_size"),
    }
)
# These are about the user, the device or mParticle itself; some hold push tokens.
NO_EVENTS: Final = frozenset(
    {
        *("user_attribute_change", "user_identity_change", "profile", "opt_out", "push_registration"),
        *("validation_result", "network_performance", "breadcrumb", "uninstall", "batch"),
    }
)
_LIST: Final = "product_impression_list"
_encode: Final = msgspec.json.Encoder().encode


def reshape(fields: Fields) -> Iterator[Reshaped]:
    """Yields each event of a batch, with what is said of all of them."""
    batch = {**fields, "identity": _customer_id(fields.get("user_identities"))}
    for raw in elements(fields.get("events")):
        yield _event(batch, opened(raw) or {})


def _event(batch: Fields, event: Fields) -> Reshaped:
    kind, data = text_of(event.get("event_type")), opened(event.get("data"))
    if kind in NO_EVENTS:
        return Filtered(kind)
    if not kind or data is None:
        return RecordRefused(Reason.MAP_FAILED, "events", "an event of a batch has 'event_type' and 'data'")
    named = {"event_name": data.get("event_name") or msgspec.Raw(_encode(_title(kind)))}
    lifted = msgspec.Raw(_encode({**data, **named, **_lifted(data)}))
    return {**batch, "event_type": event["event_type"], "data": lifted}


def _lifted(data: Fields) -> Fields:
    """Returns lists of products without what is around them, with which Mixpanel finds them too deep."""
    cart = opened(data.get("shopping_cart")) or {}
    found = {"shopping_cart": cart["products"]} if "products" in cart else {}
    impressions = [
        {**product, **({_LIST: shown[_LIST]} if _LIST in shown else {})}
        for shown in map(opened, elements(data.get("product_impressions")))
        if shown is not None
        for product in map(opened, elements(shown.get("products")))
        if product is not None
    ]
    return {**found, "product_impressions": msgspec.Raw(_encode(impressions))} if impressions else found


def _title(kind: str) -> str:
    """Returns the name of an event that has none of its own.

    >>> _title("screen_view")
    'Screen View'
    """
    return kind.replace("_", " ").title()


def _customer_id(raw: msgspec.Raw | None) -> msgspec.Raw:
    """Returns the customer id among a user's identities: an object of them, or a list of kinds and values."""
    named = opened(raw)
    if named is not None:
        return named.get("customer_id") or NULL_VALUE
    for element in elements(raw):
        identity = opened(element) or {}
        if text_of(identity.get("identity_type")) == "customer_id":
            return identity.get("identity") or NULL_VALUE
    return NULL_VALUE


DIALECT: Final = Dialect(
    "mparticle",
    MapSpec(
        event=(("data", "event_name"),),
        time=TimeSpec((("data", "timestamp_unixtime_ms"), ("timestamp_unixtime_ms",)), "milliseconds"),
        distinct_id=(("identity",), ("mpid",)),
        insert_id=(("data", "event_id"),),
        properties=(
            ("*", Spread((), without=INTERNAL)),
            ("user.*", Spread(("user_attributes",), "user.")),
            ("product_*", Spread(("data", "product_action"), "product_")),
            ("*", Spread(("data",), without=IN_DATA)),
            ("*", Spread(("data", "custom_attributes"))),
            ("$user_id", (("identity",),)),
            ("$device_id", (("mp_deviceid",), ("mpid",))),
            ("ip", (("ip",),)),
            ("session_id", (("data", "session_uuid"), ("data", "session_id"))),
            ("$latitude", (("data", "location", "latitude"), ("context", "location", "latitude"))),
            ("$longitude", (("data", "location", "longitude"), ("context", "location", "longitude"))),
            ("$city", (("data", "location", "city_name"), ("context", "location", "city_name"))),
            (
                "mp_country_code",
                (("data", "location", "country_code"), ("context", "location", "country_code")),
            ),
            ("$os", (("device_info", "platform"),)),
            ("$os_version", (("device_info", "os_version"),)),
            ("$brand", (("device_info", "brand"),)),
            ("$manufacturer", (("device_info", "device_manufacturer"),)),
            ("$model", (("device_info", "device_model"),)),
            ("$carrier", (("device_info", "network_carrier"),)),
            ("$app_version_string", (("application_info", "application_version"),)),
            ("$lib_version", (("sdk_version",),)),
            ("app_name", (("application_info", "application_name"),)),
            ("environment", (("environment",),)),
        ),
        drop_nulls=True,
        deep_as_text=True,
        reshape=reshape,
    ),
    tuple((kind, "it is no event of the user's") for kind in sorted(NO_EVENTS)),
)
