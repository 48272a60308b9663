"""Snowplow's enriched events: tab-separated as the canonical model has them, or JSON as its SDKs make it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Final

import msgspec

from mixpanel_http.record_syntax import decode_object
from mixpanel_http.verdicts import Reason, RecordRefused
from record_maps.paths import NULL_VALUE, Fields, elements, opened, text_of
from record_maps.spec import Dialect, MapSpec, Spread, TimeSpec

_LAYOUT: Final = """
app_id platform etl_tstamp collector_tstamp dvce_created_tstamp event event_id txn_id name_tracker
v_tracker v_collector v_etl user_id user_ipaddress user_fingerprint domain_userid domain_sessionidx
network_userid geo_country geo_region geo_city geo_zipcode geo_latitude geo_longitude geo_region_name
ip_isp ip_organization ip_domain ip_netspeed page_url page_title page_referrer page_urlscheme
page_urlhost page_urlport page_urlpath page_urlquery page_urlfragment refr_urlscheme refr_urlhost
refr_urlport refr_urlpath refr_urlquery refr_urlfragment refr_medium refr_source refr_term mkt_medium
mkt_source mkt_term mkt_content mkt_campaign contexts se_category se_action se_label se_property
se_value unstruct_event tr_orderid tr_affiliation tr_total tr_tax tr_shipping tr_city tr_state
tr_country ti_orderid ti_sku ti_name ti_category ti_price ti_quantity pp_xoffset_min pp_xoffset_max
pp_yoffset_min pp_yoffset_max useragent br_name br_family br_version br_type br_renderengine br_lang
br_features_pdf br_features_flash br_features_java br_features_director br_features_quicktime
br_features_realplayer br_features_windowsmedia br_features_gears br_features_silverlight br_cookies
br_colordepth br_viewwidth br_viewheight os_name os_family os_manufacturer os_timezone dvce_type
dvce_ismobile dvce_screenwidth dvce_screenheight doc_charset doc_width doc_height tr_currency
tr_total_base tr_tax_base tr_shipping_base ti_currency ti_price_base base_currency geo_timezone
mkt_clickid mkt_network etl_tags dvce_sent_tstamp refr_domain_userid refr_device_tstamp derived_contexts
domain_sessionid derived_tstamp event_vendor event_name event_format event_version event_fingerprint
true_tstamp
"""
COLUMNS: Final = tuple(_LAYOUT.split())
LEAST_COLUMNS: Final = 107  # of the oldest layout there is; later ones only added columns at the end
# Versions and times of Snowplow's own pipeline, and fingerprints of people and events.
INTERNAL: Final = frozenset(
    {
        *("etl_tstamp", "collector_tstamp", "dvce_created_tstamp", "dvce_sent_tstamp", "derived_tstamp"),
        *("true_tstamp", "refr_device_tstamp", "load_tstamp", "txn_id", "name_tracker"),
        *("v_tracker", "v_collector", "v_etl"),
        *("user_fingerprint", "event_fingerprint", "etl_tags", "event_format", "event_version"),
        "event_vendor",
        *("event", "event_name", "unstruct_event", "contexts", "derived_contexts"),
        *("user_id", "domain_userid", "network_userid", "refr_domain_userid", "name", "event_id"),
    }
)
_NUMBERS: Final = re.compile(
    r"(domain_sessionidx|geo_latitude|geo_longitude|\w+_urlport|se_value|t[ir]_(total|tax|shipping|price|quantity)"
    r"(_base)?|pp_\w+|br_(colordepth|view\w+)|(dvce_screen|doc_)(width|height))"
).fullmatch
_FLAGS: Final = re.compile(r"br_features_\w+|br_cookies|dvce_ismobile").fullmatch
_NUMBER: Final = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?").fullmatch
_SCHEMA: Final = re.compile(r"iglu:([\w.-]+)/([\w.-]+)/[\w.-]+/(\d+)-\d+-\d+").fullmatch
_BOOLEANS: Final = {"1": b"true", "0": b"false", "true": b"true", "false": b"false"}
_encode: Final = msgspec.json.Encoder().encode


def read(line: bytes) -> Fields:
    """Returns a line's fields, without those that are empty.

    Raises:
        RecordRefused: if it is neither JSON nor has the columns of an enriched event.
    """
    if line.lstrip()[:1] == b"{":
        return decode_object(line)
    try:
        values = line.decode().rstrip("\r").split("\t")
    except UnicodeDecodeError as error:
        raise RecordRefused(Reason.INVALID_UTF8, None, f"the line is no UTF-8 (byte {error.start})") from None
    if not LEAST_COLUMNS <= len(values) <= len(COLUMNS):
        raise RecordRefused(
            Reason.MAP_FAILED,
            None,
            f"an enriched event has {LEAST_COLUMNS} to {len(COLUMNS)} columns, not {len(values)}",
        )
    return {name: typed(value) for (name, typed), value in zip(_TYPED, values, strict=False) if value}


def _json(value: str) -> msgspec.Raw:
    return msgspec.Raw(value.encode())


def _number(value: str) -> msgspec.Raw:
    return _json(value) if _NUMBER(value) else _string(value)


def _flag(value: str) -> msgspec.Raw:
    return msgspec.Raw(_BOOLEANS[value]) if value in _BOOLEANS else _string(value)


def _string(value: str) -> msgspec.Raw:
    return msgspec.Raw(_encode(value))


def reshape(fields: Fields) -> Iterator[Fields]:
    """Yields the event with its self-describing parts under names of their own, as the SDKs have them.

    Raises:
        RecordRefused: if one of them does not describe itself.
    """
    row = {name: value for name, value in fields.items() if name not in _DESCRIBED}
    for name, data in _parts(fields):
        if name.startswith("contexts_"):
            row[name] = msgspec.Raw(_encode([*elements(row.get(name)), data]))
        else:
            row[name] = data
    if row.get("network_userid") == NOBODY:
        del row["network_userid"]
    if MOBILE in row:
        row[MOBILE] = _without_advertising(row[MOBILE])
    own = next((name for name in row if name.startswith("unstruct_event_")), None)
    if own is not None:
        row["own"] = row.pop(own)
    is_structured = bytes(row.get("event", b"")) == b'"struct"'
    named = row.get("se_action") if is_structured else row.get("event_name") or row.get("event")
    yield row if named is None else {**row, "name": named}


MOBILE: Final = "contexts_com_snowplowanalytics_snowplow_mobile_context_1"
NOBODY: Final = msgspec.Raw(b'"00000000-0000-0000-0000-000000000000"')
"""What the collector writes for everybody who is tracked anonymously."""

ADVERTISING: Final = frozenset({"appleIdfa", "appleIdfv", "androidIdfa", "openIdfa", "appSetId"})


def _without_advertising(raw: msgspec.Raw) -> msgspec.Raw:
    """Returns what is said of phones without ids that are for advertising."""
    phones = [opened(phone) or {} for phone in elements(raw)]
    return msgspec.Raw(_encode([{k: v for k, v in p.items() if k not in ADVERTISING} for p in phones]))


_DESCRIBED: Final = ("contexts", "derived_contexts", "unstruct_event")
_TYPED: Final = tuple(
    (
        name,
        _json if name in _DESCRIBED else _number if _NUMBERS(name) else _flag if _FLAGS(name) else _string,
    )
    for name in COLUMNS
)


def _parts(fields: Fields) -> Iterator[tuple[str, msgspec.Raw]]:
    """Yields each self-describing part of an event with the name that it goes by."""
    for column in _DESCRIBED:
        if column not in fields or fields[column] == NULL_VALUE:
            continue
        data = (opened(fields[column]) or {}).get("data")
        for part in (data,) if column == "unstruct_event" else elements(data):
            name, content = _described(part)
            kind = "unstruct_event" if column == "unstruct_event" else "contexts"
            yield f"{kind}_{name}", content


def _described(raw: msgspec.Raw | None) -> tuple[str, msgspec.Raw]:
    """Returns the name that a self-describing value goes by, and the value."""
    value = opened(raw) or {}
    name = _name_of(bytes(value.get("schema", NULL_VALUE)))
    if name is None or "data" not in value:
        message = "contexts and unstruct_event must hold JSON with an iglu schema and data"
        raise RecordRefused(Reason.MAP_FAILED, None, message)
    return name, value["data"]


@lru_cache(maxsize=1024)
def _name_of(schema: bytes) -> str | None:
    """Returns the name that goes with a schema, as JSON, or None if it is none; a history has few of them."""
    match = _SCHEMA(text_of(msgspec.Raw(schema)) or "")
    return "_".join(_snake(part) for part in match.groups()) if match else None


def _snake(name: str) -> str:
    """Returns a name as columns are called.

    >>> _snake("com.acme"), _snake("addToCart")
    ('com_acme', 'add_to_cart')
    """
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", re.sub(r"[.-]", "_", name)).lower()


_UA_PARSER: Final = ("contexts_com_snowplowanalytics_snowplow_ua_parser_context_1", 0)
_YAUAA: Final = ("contexts_nl_basjes_yauaa_context_1", 0)
_MOBILE: Final = (MOBILE, 0)
# On the web the cookie of the site, in apps what the tracker keeps there; the collector's own comes last, as
# some apps get another one at each start.
DEVICE: Final = (
    ("domain_userid",),
    ("contexts_com_snowplowanalytics_snowplow_client_session_1", 0, "userId"),
    ("network_userid",),
)

DIALECT: Final = Dialect(
    "snowplow",
    MapSpec(
        event=(("name",),),
        time=TimeSpec(
            (("true_tstamp",), ("derived_tstamp",), ("dvce_created_tstamp",), ("collector_tstamp",)),
            "iso8601",
        ),
        distinct_id=(("user_id",), *DEVICE),
        insert_id=(("event_id",),),
        properties=(
            ("*", Spread((), without=INTERNAL)),
            ("*", Spread(("own",))),
            ("$user_id", (("user_id",),)),
            ("$device_id", DEVICE),
            ("ip", (("user_ipaddress",),)),
            ("$current_url", (("page_url",),)),
            ("$referrer", (("page_referrer",),)),
            ("$city", (("geo_city",),)),
            ("$region", (("geo_region_name",),)),
            ("mp_country_code", (("geo_country",),)),
            ("$latitude", (("geo_latitude",),)),
            ("$longitude", (("geo_longitude",),)),
            ("$browser", ((*_YAUAA, "agentName"), (*_UA_PARSER, "useragentFamily"), ("br_name",))),
            (
                "$browser_version",
                ((*_YAUAA, "agentVersion"), (*_UA_PARSER, "useragentVersion"), ("br_version",)),
            ),
            (
                "$os",
                (
                    (*_MOBILE, "osType"),
                    (*_YAUAA, "operatingSystemName"),
                    (*_UA_PARSER, "osFamily"),
                    ("os_name",),
                ),
            ),
            (
                "$os_version",
                ((*_MOBILE, "osVersion"), (*_YAUAA, "operatingSystemVersion"), (*_UA_PARSER, "osVersion")),
            ),
            ("$manufacturer", ((*_MOBILE, "deviceManufacturer"),)),
            ("$model", ((*_MOBILE, "deviceModel"),)),
            ("$carrier", ((*_MOBILE, "carrier"),)),
            ("$screen_width", (("dvce_screenwidth",),)),
            ("$screen_height", (("dvce_screenheight",),)),
            ("utm_source", (("mkt_source",),)),
            ("utm_medium", (("mkt_medium",),)),
            ("utm_campaign", (("mkt_campaign",),)),
            ("utm_term", (("mkt_term",),)),
            ("utm_content", (("mkt_content",),)),
        ),
        drop_nulls=True,
        deep_as_text=True,
        read=read,
        reshape=reshape,
    ),
)
