"""The BigQuery export of Google Analytics 4: parameters are lists of keys and typed values."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec
import xxhash

from record_maps.paths import NULL_VALUE, Fields, elements, opened, text_of
from record_maps.spec import Dialect, MapSpec, Spread, TimeSpec

# Places in Google's own batches, and what is said in a better way elsewhere in the row.
INTERNAL: Final = frozenset(
    {
        *("event_date", "event_previous_timestamp", "event_server_timestamp_offset", "event_dimensions"),
        *("event_bundle_sequence_id", "batch_event_index", "batch_ordering_id", "batch_page_id"),
        *("user_first_touch_timestamp", "user_ltv", "privacy_info", "publisher"),
        *("session_traffic_source_last_click", "collected_traffic_source", "traffic_source"),
        *("device", "geo", "app_info", "ecommerce", "$insert_id"),
    }
)
TYPES: Final = ("string_value", "int_value", "double_value", "float_value")
_encode: Final = msgspec.json.Encoder().encode


def reshape(fields: Fields) -> Iterator[Fields]:
    """Yields the row with its lists of parameters as objects, those of items among their other fields."""
    row = dict(fields)
    for name in ("event_params", "user_properties"):
        if name in row:
            row[name] = msgspec.Raw(_encode(dict(_parameters(row[name]))))
    if "items" in row:
        row["items"] = msgspec.Raw(_encode([_item(item) for item in elements(row["items"])]))
    yield {**row, **_id(fields)}


def _item(raw: msgspec.Raw) -> Fields | msgspec.Raw:
    """Returns an item with its own parameters as fields of it; a list of them lies too deep for Mixpanel."""
    item = opened(raw)
    if item is None:
        return raw
    given = {name: value for name, value in item.items() if name != "item_params" and value != NULL_VALUE}
    return {**dict(_parameters(item.get("item_params", NULL_VALUE))), **given}


PLACE: Final = (
    *("stream_id", "user_pseudo_id", "event_name", "event_timestamp", "event_bundle_sequence_id"),
    *("batch_page_id", "batch_ordering_id", "batch_event_index"),
)


def _id(fields: Fields) -> Fields:
    """Returns a row's own id, made of where it stood among what a device sent; none for rows without that.

    Rows of one batch have the same time, so that two equal clicks differ in nothing else. And what Google
    changes in a row later, as it does for three days, is not in it.
    """
    if fields.get("batch_event_index", NULL_VALUE) == NULL_VALUE:
        return {}
    place = b"\n".join(bytes(fields.get(name, NULL_VALUE)).strip(b'"') for name in PLACE)
    return {"$insert_id": msgspec.Raw(_encode(xxhash.xxh3_128_hexdigest(place)))}


class _Values(msgspec.Struct, gc=False):
    """A parameter's value in each type; that in which it was given is not null."""

    string_value: msgspec.Raw = NULL_VALUE
    int_value: msgspec.Raw = NULL_VALUE
    double_value: msgspec.Raw = NULL_VALUE
    float_value: msgspec.Raw = NULL_VALUE


_NO_KEY: Final = msgspec.Raw()


class _Parameter(msgspec.Struct, gc=False):
    key: msgspec.Raw = _NO_KEY
    value: _Values | None = None


_read_parameters: Final = msgspec.json.Decoder(list[_Parameter]).decode


def _parameters(raw: msgspec.Raw) -> Iterator[tuple[str, msgspec.Raw]]:
    for parameter in _listed(raw):
        found = None if parameter.value is None else _given(parameter.value)
        if found is not None and parameter.key != _NO_KEY:
            yield _key(parameter.key), found


def _listed(raw: msgspec.Raw) -> list[_Parameter]:
    """Returns a list's parameters; where some of it is none, without that."""
    try:
        return _read_parameters(raw)
    except _NO_PARAMETER:
        return list(_each(raw))


def _each(raw: msgspec.Raw) -> Iterator[_Parameter]:
    for element in elements(raw):
        parameter = opened(element) or {}
        value = opened(parameter.get("value"))
        if value is not None and "key" in parameter:
            yield _Parameter(parameter["key"], _Values(*(value.get(name, NULL_VALUE) for name in TYPES)))


_NO_PARAMETER: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def _given(values: _Values) -> msgspec.Raw | None:
    """Returns the one of a parameter's values that is there, a whole number in quotes without them."""
    if values.string_value != NULL_VALUE:
        return values.string_value
    for found in (values.int_value, values.double_value, values.float_value):
        if found != NULL_VALUE:
            token = bytes(found)
            return msgspec.Raw(token.strip(b'"')) if token[:1] == b'"' else found
    return None


def _key(raw: msgspec.Raw) -> str:
    key = text_of(raw)
    return bytes(raw).decode(errors="replace") if key is None else key


DIALECT: Final = Dialect(
    "ga4",
    MapSpec(
        event=(("event_name",),),
        time=TimeSpec((("event_timestamp",),), "microseconds"),
        distinct_id=(("user_id",), ("user_pseudo_id",)),
        insert_id=(("$insert_id",),),
        properties=(
            ("*", Spread((), without=INTERNAL)),
            ("ecommerce_*", Spread(("ecommerce",), "ecommerce_")),
            ("user.*", Spread(("user_properties",), "user.")),
            ("*", Spread(("event_params",))),
            ("$user_id", (("user_id",),)),
            ("$device_id", (("user_pseudo_id",),)),
            ("$current_url", (("event_params", "page_location"),)),
            ("$referrer", (("event_params", "page_referrer"),)),
            ("$city", (("geo", "city"),)),
            ("$region", (("geo", "region"),)),
            ("country", (("geo", "country"),)),
            ("$os", (("device", "operating_system"),)),
            ("$os_version", (("device", "operating_system_version"),)),
            ("$browser", (("device", "web_info", "browser"), ("device", "browser"))),
            ("$browser_version", (("device", "web_info", "browser_version"), ("device", "browser_version"))),
            ("$brand", (("device", "mobile_brand_name"),)),
            ("$model", (("device", "mobile_model_name"),)),
            ("device_category", (("device", "category"),)),
            ("language", (("device", "language"),)),
            ("$app_version_string", (("app_info", "version"),)),
            ("app_id", (("app_info", "id"),)),
            ("utm_source", (("collected_traffic_source", "manual_source"),)),
            ("utm_medium", (("collected_traffic_source", "manual_medium"),)),
            ("utm_campaign", (("collected_traffic_source", "manual_campaign_name"),)),
            ("utm_term", (("collected_traffic_source", "manual_term"),)),
            ("utm_content", (("collected_traffic_source", "manual_content"),)),
            ("first_source", (("traffic_source", "source"),)),
            ("first_medium", (("traffic_source", "medium"),)),
            ("first_campaign", (("traffic_source", "name"),)),
        ),
        drop_nulls=True,
        deep_as_text=True,
        reshape=reshape,
    ),
)
