"""Messages of the Segment spec, as Segment and RudderStack archive them: one a line, or batches of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec

from mixpanel_http.verdicts import Reason, RecordRefused
from record_maps.paths import Fields, elements, opened, text_of
from record_maps.spec import Dialect, Filtered, MapSpec, Reshaped, Spread, TimeSpec

# What the transport added, and a key with which anybody could send.
INTERNAL: Final = frozenset(
    {
        *("type", "context", "traits", "integrations", "version", "channel", "projectId", "writeKey"),
        *("sentAt", "receivedAt", "originalTimestamp", "timestamp", "request_ip", "rudderId"),
        *("anonymousId", "userId", "messageId", "_metadata", "source_id", "sourceId", "batch"),
    }
)
PROFILES: Final = ("identify", "group", "alias")
NAMES: Final = {"page": msgspec.Raw(b'"Page Viewed"'), "screen": msgspec.Raw(b'"Screen Viewed"')}


def reshape(fields: Fields) -> Iterator[Reshaped]:
    """Yields each message that is an event, with its name under `event`, and for others why they are none."""
    if "batch" not in fields:
        yield _message(fields)
        return
    for message in elements(fields["batch"]):
        yield _message(opened(message) or {})


def _message(fields: Fields) -> Reshaped:
    kind = text_of(fields.get("type"))
    if kind == "track":
        return fields
    if kind in PROFILES:
        return Filtered(kind)
    if kind in NAMES:
        return {**fields, "event": NAMES[kind]}
    return RecordRefused(
        Reason.MAP_FAILED, "type", "'type' must be track, page, screen, identify, group or alias"
    )


DIALECT: Final = Dialect(
    "segment",
    MapSpec(
        event=(("event",),),
        time=TimeSpec((("timestamp",), ("originalTimestamp",), ("receivedAt",)), "iso8601"),
        distinct_id=(("userId",), ("anonymousId",)),
        insert_id=(("messageId",),),
        properties=(
            ("*", Spread((), without=INTERNAL)),
            ("*", Spread(("properties",))),
            ("$user_id", (("userId",),)),
            ("$device_id", (("anonymousId",),)),
            ("ip", (("context", "ip"), ("request_ip",))),
            ("$current_url", (("context", "page", "url"),)),
            ("$referrer", (("context", "page", "referrer"),)),
            ("page_title", (("context", "page", "title"),)),
            ("$os", (("context", "os", "name"),)),
            ("$os_version", (("context", "os", "version"),)),
            ("$manufacturer", (("context", "device", "manufacturer"),)),
            ("$model", (("context", "device", "model"),)),
            ("$carrier", (("context", "network", "carrier"),)),
            ("$city", (("context", "location", "city"),)),
            ("$region", (("context", "location", "region"),)),
            ("country", (("context", "location", "country"),)),
            ("$app_version_string", (("context", "app", "version"),)),
            ("$screen_width", (("context", "screen", "width"),)),
            ("$screen_height", (("context", "screen", "height"),)),
            ("user_agent", (("context", "userAgent"),)),
            ("locale", (("context", "locale"),)),
            ("timezone", (("context", "timezone"),)),
            ("group_id", (("context", "groupId"),)),
            ("utm_source", (("context", "campaign", "source"),)),
            ("utm_medium", (("context", "campaign", "medium"),)),
            ("utm_campaign", (("context", "campaign", "name"),)),
            ("utm_term", (("context", "campaign", "term"),)),
            ("utm_content", (("context", "campaign", "content"),)),
            ("mp_lib", (("context", "library", "name"),)),
            ("$lib_version", (("context", "library", "version"),)),
        ),
        drop_nulls=True,
        deep_as_text=True,
        reshape=reshape,
    ),
    tuple((kind, "it is about a profile or an identity") for kind in PROFILES),
)
