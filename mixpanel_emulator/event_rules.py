"""What Mixpanel accepts as an event: every rule of /import, as functions on the bytes of one record."""

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson

from mixpanel_emulator.bodies import parse_json
from mixpanel_emulator.settings import Settings

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
EARLIEST_MS = 365 * DAY_MS  # IMP: not before 1971-01-01
# Seconds or milliseconds are told apart by size (how Mixpanel does is not said): read as seconds, any number
# from here on lies beyond the year 2969; read as milliseconds, any number below lies before 1971.
FIRST_MILLISECOND_VALUE = 31_536_000_000
FUTURE_MS = HOUR_MS  # IMP: more than 1 hour ahead of Mixpanel's clock is refused
INSERT_ID_BYTES = 36  # IMP
INSERT_ID = re.compile(r"[A-Za-z0-9-]{1,36}\Z")  # IMP
# IMP: the complete official list; it holds for distinct_id and $insert_id.
BANNED_IDS = frozenset(
    [
        "00000000-0000-0000-0000-000000000000",
        "anon",
        "anonymous",
        "nil",
        "none",
        "null",
        "n/a",
        "na",
        "undefined",
        "unknown",
        "<nil>",
        "0",
        "-1",
        "true",
        "false",
        "[]",
        "{}",
    ]
)
IDENTITY_EVENTS = frozenset(["$identify", "$create_alias", "$merge"])
# AK-PROBE
IDENTITY_REFUSED = "identity events are not allowed when project is using simplified identity management"
BAD_TIME = "'properties.time' is invalid: must be specified as seconds since epoch"  # OAI-ING, E400
BAD_INSERT_ID = "'$insert_id' is invalid: must only contain alphanumeric or hyphen '-' characters"  # I-U40


class Refusal(NamedTuple):
    """Why one record was refused, in the terms of a `failed_records` row."""

    field: str
    message: str
    insert_id: str = ""


class Event(NamedTuple):
    """What identifies an accepted event; `properties` may leave out those that decide nothing."""

    name: str
    distinct_id: str
    time_ms: int
    insert_id: str
    properties: Mapping[str, Any]


class EventRules:
    """The rules of one project; `judge` and `complete` are called once a record, from any thread."""

    def __init__(self, settings: Settings) -> None:
        """Prepares the rules that the settings choose."""
        self._settings = settings
        self._original = settings.identity == "original"
        self.banned = BANNED_IDS | {item.lower() for item in settings.banned_extra}

    def judge(
        self, raw: bytes, now_ms: int, *, needs_insert_id: bool = True, ip: str = ""
    ) -> Event | Refusal:
        """Returns the event that a record is, or why it is refused."""
        found = self.read(raw)
        if isinstance(found, Refusal):
            return found
        name, properties = found
        return self.check(name, properties, now_ms, needs_insert_id=needs_insert_id, ip=ip)

    def read(self, raw: bytes) -> tuple[str, dict[str, Any]] | Refusal:
        """Returns the name and the properties of a record in the shape of an event, or why it is none."""
        if len(raw) > self._settings.max_event_bytes:
            return Refusal(
                "", f"event is invalid: exceeds max size of {self._settings.max_event_bytes} bytes"
            )
        try:
            record = parse_json(raw)
        except (ValueError, RecursionError):
            return _explain_malformed(raw)
        if type(record) is not dict:
            return Refusal("", "event is invalid: must be a JSON object")
        name = record.get("event")
        if not isinstance(name, str) or not name.strip():
            return Refusal("event", "'event' must not be missing or blank", _shown_insert_id(record))  # GO
        properties = record.get("properties")
        if type(properties) is not dict:
            return Refusal("properties", "'properties' is invalid: must not be missing and must be an object")
        return name, properties

    def check(
        self,
        name: str,
        properties: dict[str, Any],
        now_ms: int,
        *,
        needs_insert_id: bool = True,
        ip: str = "",
    ) -> Event | Refusal:
        """Returns the event that a name and properties are, or why it is refused."""
        if self._original and name in IDENTITY_EVENTS:
            # CRID, ALIAS, MERGE: the published payloads of these have neither
            properties, needs_insert_id = {"time": now_ms, **properties}, False
        time_ms = event_time_ms(properties.get("time"))
        insert_id = _text(properties.get("$insert_id"))
        distinct_id = self.distinct_id(name, properties, ip)
        refusal = (
            self._check_time(time_ms, now_ms)
            or (self._check_insert_id(insert_id) if needs_insert_id else None)
            or self._check_distinct_id(distinct_id)
            or self._check_sizes(properties)
            or (self._check_identity(name, properties) if name in IDENTITY_EVENTS else None)
        )
        if refusal is not None:
            return refusal._replace(insert_id=insert_id or "")
        if not needs_insert_id and (insert_id is None or self._check_insert_id(insert_id)):
            insert_id = ""
        assert time_ms is not None
        assert distinct_id is not None
        assert insert_id is not None
        return Event(name, distinct_id, min(time_ms, now_ms), insert_id, properties)

    def _check_time(self, time_ms: int | None, now_ms: int) -> Refusal | None:
        if time_ms is None:
            return Refusal("properties.time", BAD_TIME)
        if time_ms < EARLIEST_MS:
            return Refusal("properties.time", "'properties.time' is invalid: must not be before 1971-01-01")
        if time_ms > now_ms + FUTURE_MS:
            return Refusal(
                "properties.time", "'properties.time' is invalid: must not be over 1 hour in the future"
            )
        return None

    def _check_insert_id(self, insert_id: str | None) -> Refusal | None:
        if insert_id is None:
            return Refusal("$insert_id", "'$insert_id' is invalid: must not be missing")
        if self._is_banned(insert_id):
            return Refusal("$insert_id", "'$insert_id' is invalid: must not be one of the disallowed values")
        if INSERT_ID.match(insert_id):
            return None
        if INSERT_ID.match(insert_id[:INSERT_ID_BYTES]) and len(insert_id) > INSERT_ID_BYTES:
            return Refusal("$insert_id", f"'$insert_id' is invalid: must not be over {INSERT_ID_BYTES} bytes")
        return Refusal("$insert_id", BAD_INSERT_ID)

    def _check_distinct_id(self, distinct_id: str | None) -> Refusal | None:
        if distinct_id is None:
            return Refusal(
                "properties.distinct_id", "'properties.distinct_id' is invalid: must not be missing"
            )
        if self._is_banned(distinct_id):
            message = "'properties.distinct_id' is invalid: must not be one of the disallowed values"
            return Refusal("properties.distinct_id", message)
        return None

    def _check_sizes(self, properties: dict[str, Any]) -> Refusal | None:
        most = self._settings.max_properties
        if len(properties) > most:
            return Refusal("properties", f"'properties' is invalid: must have fewer than {most + 1} keys")
        for key, value in properties.items():
            if type(value) is dict or type(value) is list:
                reason = self._check_nested(value, 1)
                if reason:
                    return Refusal(f"properties.{key}", f"'properties.{key}' is invalid: {reason}")
        return None

    def _check_nested(self, value: dict[str, Any] | list[Any], depth: int) -> str:
        most = self._settings.max_properties
        if depth > self._settings.max_depth:
            return f"must not be nested deeper than {self._settings.max_depth} levels"
        if len(value) > most:
            kind = "keys" if type(value) is dict else "elements"
            return f"must have fewer than {most + 1} {kind}"
        for item in value.values() if type(value) is dict else value:
            if type(item) is dict or type(item) is list:
                reason = self._check_nested(item, depth + 1)
                if reason:
                    return reason
        return ""

    def _check_identity(self, name: str, properties: dict[str, Any]) -> Refusal | None:
        if not self._original:
            if self._settings.identity_verbs == "ignore":
                return None
            return Refusal("event", IDENTITY_REFUSED)
        if name != "$merge":
            return None
        pair = properties.get("$distinct_ids")
        if isinstance(pair, list) and len(pair) == 2 and all(isinstance(item, str) for item in pair):
            return None
        # OAI-ID: exactly two strings
        message = "'properties.$distinct_ids' is invalid: must be an array of exactly two strings"
        return Refusal("properties.$distinct_ids", message)

    def distinct_id(self, name: str, properties: dict[str, Any], ip: str = "") -> str | None:
        """Returns whose event this is, before identities are resolved; None where that cannot be told."""
        if not self._original:
            user, device = properties.get("$user_id"), properties.get("$device_id")
            if user:  # IDMIG: overwritten from $user_id, else from $device_id
                return _text(user)
            if device:
                # AK-PROBE: one prefix is stripped
                return "$device:" + str(_text(device)).removeprefix("$device:")
        sent = _text(properties.get("distinct_id"))
        if sent is not None:
            return sent
        if self._original and name in IDENTITY_EVENTS:
            return ""  # CRID, MERGE: the ids of these events are in properties of their own
        return f"$ip:{ip}" if self._settings.missing_distinct_id == "from_ip" else None

    def _is_banned(self, value: str) -> bool:
        if value in self.banned:
            return True
        return self._settings.banned_ignore_case and value.lower() in self.banned


def event_time_ms(value: object) -> int | None:
    """Returns a time of seconds or milliseconds since the epoch in milliseconds, None for anything else.

    >>> event_time_ms(1618716477), event_time_ms(1618716477000), event_time_ms("yesterday")
    (1618716477000, 1618716477000, None)
    """
    if type(value) is not int and type(value) is not float:
        return None
    if abs(value) >= FIRST_MILLISECOND_VALUE:
        return int(value)
    return value * 1000 if type(value) is int else round(value * 1000)


def _text(value: object) -> str | None:
    """Returns an id as text; numbers and booleans as JSON writes them (the banned list suggests it)."""
    if type(value) is str or value is None:
        return value
    return orjson.dumps(value).decode()


def _shown_insert_id(record: dict[str, Any]) -> str:
    properties = record.get("properties")
    return _text(properties.get("$insert_id")) or "" if type(properties) is dict else ""


def _explain_malformed(raw: bytes) -> Refusal:
    """Returns the refusal of a record that is no JSON; with bytes that are no UTF-8 it names the property."""
    not_json = Refusal("", "event is invalid: must be well-formed JSON")
    text = raw.decode("utf-8", "surrogateescape")
    try:
        record = json.loads(text)
    except (ValueError, RecursionError):
        return not_json
    properties = record.get("properties") if isinstance(record, dict) else None
    if not isinstance(properties, dict):
        return not_json
    for key, value in properties.items():
        if not _is_unicode(key) or not _is_unicode(value):
            field = "properties." + key.encode("utf-8", "replace").decode()
            message = f"'{field}' is invalid: string should be valid utf8"  # IMP
            return Refusal(field, message, _printable(properties.get("$insert_id")))
    return not_json


def _is_unicode(value: object) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except (UnicodeEncodeError, RecursionError):
        return False
    return True


def _printable(value: object) -> str:
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else ""
