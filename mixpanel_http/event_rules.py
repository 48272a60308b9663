"""The rules of `POST /import?strict=1` for one event, checked on everything that is in it (the full path).

Each rule accepts, fixes or refuses. Fixes change only what they name and keep every other value token for
token: a missing or unusable `$insert_id` is stamped, a numeric id becomes a string, a missing `ip` becomes 0.
The fast path over whole blocks is `event_blocks`; this module is its judge.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NoReturn

import msgspec

from mixpanel_http import flaws, limits
from mixpanel_http.flaws import field_name
from mixpanel_http.insert_ids import FieldsMissing, InsertIdPolicy, located
from mixpanel_http.record_syntax import decode_object, decode_value, raw_object
from mixpanel_http.verdicts import Reason, RecordRefused

IdentityModel = Literal["simplified", "original"]
Place = tuple[str, int]
"""A record's file (URI without the suffix of a compression) and its offset there, in decompressed bytes."""

_FULL_INSERT_ID: Final = re.compile(rf"[0-9A-Za-z-]{{1,{limits.MAX_INSERT_ID_BYTES}}}").fullmatch
_encode: Final = msgspec.json.Encoder().encode

STAMPED_ID: Final = "stamped_insert_ids"
REPLACED_ID: Final = "replaced_insert_ids"
STRINGIFIED_ID: Final = "stringified_ids"
DEFAULTED_IP: Final = "defaulted_ip"

# So many keys or elements the fast paths clear: stamping adds up to two, and must not reach the limit.
SURELY_FEW: Final = limits.PROPERTIES_LIMIT - 5


@dataclass(frozen=True, slots=True)
class EventRules:
    """What a run asks of its events.

    Attributes:
        insert_id: how a missing or unusable `$insert_id` is made.
        identity: the project's identity model; it decides on events without distinct_id and on identity
            verbs.
        default_ip: stamp `"ip": 0` where a record has no `ip`, so that it is not located at the sender's
            address.
    """

    insert_id: InsertIdPolicy = field(default_factory=InsertIdPolicy)
    identity: IdentityModel = "simplified"
    default_ip: bool = True


@dataclass(frozen=True, slots=True)
class Accepted:
    """An event as it is sent.

    Attributes:
        line: its JSON; the source's own bytes where nothing had to change.
        stamped_id: the `$insert_id` that was made for it, or None.
        alterations: names of the fixes made.
    """

    line: bytes
    stamped_id: str | None = None
    alterations: tuple[str, ...] = ()


def is_valid_insert_id(value: str) -> bool:
    """Returns whether Mixpanel takes a string as `$insert_id`.

    >>> is_valid_insert_id("13c0b661-f48b-51cd-ba54-97c5999169c0"), is_valid_insert_id("order_1234")
    (True, False)
    """
    return _FULL_INSERT_ID(value) is not None and value.lower() not in limits.DISALLOWED_IDS


def is_time_in_range(time: float, now_s: float) -> bool:
    """Returns whether a time in seconds or milliseconds lies between 1971 and an hour from now.

    >>> [is_time_in_range(time, 1.7e9) for time in (1618716477, 1618716477000, 86400)]
    [True, True, False]
    """
    return limits.MIN_TIME_S <= time <= now_s + limits.MAX_FUTURE_S or (
        limits.MIN_TIME_MS <= time <= (now_s + limits.MAX_FUTURE_S) * 1000
    )


def check_event(line: bytes, rules: EventRules, now_s: float, place: Place = ("", 0)) -> Accepted:
    """Returns an event as it is to be sent.

    Args:
        line: one record's bytes.
        rules: what the run asks.
        now_s: the clock, in seconds since the epoch.
        place: where the record stands; enters the id only where identical rows are kept apart.

    Raises:
        RecordRefused: if Mixpanel would refuse the record, with the reason.
    """
    if len(line) >= limits.MAX_RECORD_BYTES:
        refuse_size(len(line))
    record = decode_object(line)
    properties = _properties(record, line)
    event = _check_event_name(record)
    _check_time(properties, now_s)
    edits: dict[str, msgspec.Raw] = {}
    alterations: list[str] = []
    _check_identity_event(event, properties, rules.identity)
    _check_distinct_id(event, properties, rules.identity, edits)
    _check_values(properties)
    _check_given_insert_id(properties, edits)
    if edits:
        alterations.append(STRINGIFIED_ID)
    stamped = None
    if not _has_valid_insert_id(properties, edits):
        alterations.append(REPLACED_ID if "$insert_id" in properties else STAMPED_ID)
        stamped = make_id(line, rules.insert_id, place)
        edits["$insert_id"] = msgspec.Raw(b'"' + stamped.encode() + b'"')
    _check_property_count(properties, edits)
    if rules.default_ip and "ip" not in properties and len(properties | edits) < limits.PROPERTIES_LIMIT - 1:
        alterations.append(DEFAULTED_IP)
        edits["ip"] = msgspec.Raw(b"0")
    if not edits:
        return Accepted(line.strip(b" \t\r\n"))
    changed = _encode({**record, "properties": msgspec.Raw(_encode(edits | _others(properties, edits)))})
    if len(changed) >= limits.MAX_RECORD_BYTES:
        refuse_size(len(changed))
    return Accepted(changed, stamped, tuple(alterations))


def make_id(line: bytes, policy: InsertIdPolicy, place: Place) -> str:
    """Returns the `$insert_id` that a policy stamps on a valid record.

    Raises:
        RecordRefused: if the policy's fields are not in the record.
    """
    try:
        made = policy.recipe()(line)
    except FieldsMissing as error:
        raise RecordRefused(Reason.INSERT_ID_FIELDS_MISSING, "$insert_id", str(error)) from None
    return located(made, *place) if policy.keeps_rows else made


def refuse_size(size: int) -> NoReturn:
    """Raises the refusal of a record of `size` bytes."""
    raise RecordRefused(
        Reason.TOO_LARGE,
        None,
        f"a record must be below {limits.MAX_RECORD_BYTES:,} bytes of JSON, this one has {size:,}",
    )


def _others(properties: dict[str, msgspec.Raw], edits: dict[str, msgspec.Raw]) -> dict[str, msgspec.Raw]:
    return {key: value for key, value in properties.items() if key not in edits}


def _properties(record: Mapping[str, msgspec.Raw], line: bytes) -> dict[str, msgspec.Raw]:
    raw = record.get("properties")
    if raw is None:
        raise flaws.NO_PROPERTIES.refusal()
    try:
        return raw_object(raw)
    except msgspec.ValidationError:
        raise RecordRefused.of_field(Reason.MISSING_PROPERTIES, "properties", "must be an object") from None


def _check_event_name(record: Mapping[str, msgspec.Raw]) -> str:
    event = decode_value(record["event"]) if "event" in record else None
    if event is None or (isinstance(event, str) and not event.strip()):
        raise flaws.NO_EVENT.refusal()
    if not isinstance(event, str):
        raise RecordRefused(Reason.MISSING_EVENT, "event", f"'event' must be a string, not {kind_of(event)}")
    return event


def _check_time(properties: Mapping[str, msgspec.Raw], now_s: float) -> None:
    time = decode_value(properties["time"]) if "time" in properties else None
    if time is None:
        raise flaws.NO_TIME.refusal()
    if isinstance(time, bool) or not isinstance(time, (int, float)):
        raise flaws.time_as(kind_of(time)).refusal()
    if not is_time_in_range(time, now_s):
        raise (flaws.EARLY_TIME if time < limits.MIN_TIME_S else flaws.LATE_TIME).refusal()


def _check_identity_event(event: str, properties: Mapping[str, msgspec.Raw], model: IdentityModel) -> None:
    if event not in limits.IDENTITY_EVENTS:
        return
    if model == "simplified":
        raise flaws.IDENTITY_EVENT.refusal()
    if event == "$merge":
        _check_merge(properties)


def _check_distinct_id(
    event: str, properties: Mapping[str, msgspec.Raw], model: IdentityModel, edits: dict[str, msgspec.Raw]
) -> None:
    """Adds the edit that turns a number given as `distinct_id` into a string."""
    distinct_id = decode_value(properties["distinct_id"]) if "distinct_id" in properties else None
    if distinct_id is None:
        _check_missing_distinct_id(event, properties, model)
        return
    text = distinct_id if isinstance(distinct_id, str) else bytes(properties["distinct_id"]).decode()
    if text.lower() in limits.DISALLOWED_IDS:
        raise flaws.DISALLOWED_ID.refusal()
    if isinstance(distinct_id, str):
        return
    if isinstance(distinct_id, (dict, list)):
        raise RecordRefused.of_field(
            Reason.BAD_DISTINCT_ID, "properties.distinct_id", f"must be a string, not {kind_of(distinct_id)}"
        )
    edits["distinct_id"] = msgspec.Raw(_encode(text))


def _check_merge(properties: Mapping[str, msgspec.Raw]) -> None:
    ids = decode_value(properties["$distinct_ids"]) if "$distinct_ids" in properties else None
    if not isinstance(ids, list) or len(ids) != 2 or not all(isinstance(i, str) for i in ids):
        raise RecordRefused.of_field(
            Reason.BAD_IDENTITY_EVENT, "properties.$distinct_ids", "must be exactly two strings"
        )


def _check_missing_distinct_id(
    event: str, properties: Mapping[str, msgspec.Raw], model: IdentityModel
) -> None:
    if model == "original" and event in ("$merge", "$identify"):
        return
    if model == "simplified" and any(_is_text(properties.get(key)) for key in ("$user_id", "$device_id")):
        return
    raise flaws.NO_DISTINCT_ID.refusal()


def _is_text(raw: msgspec.Raw | None) -> bool:
    value = None if raw is None else decode_value(raw)
    return bool(value) and isinstance(value, str)


def _check_given_insert_id(properties: Mapping[str, msgspec.Raw], edits: dict[str, msgspec.Raw]) -> None:
    """Adds the edit that turns a whole number given as `$insert_id` into a string."""
    raw = properties.get("$insert_id")
    value = None if raw is None else decode_value(raw)
    if isinstance(value, int) and not isinstance(value, bool) and is_valid_insert_id(str(value)):
        edits["$insert_id"] = msgspec.Raw(_encode(str(value)))


def _has_valid_insert_id(properties: Mapping[str, msgspec.Raw], edits: Mapping[str, msgspec.Raw]) -> bool:
    if "$insert_id" in edits:
        return True
    value = decode_value(properties["$insert_id"]) if "$insert_id" in properties else None
    return isinstance(value, str) and is_valid_insert_id(value)


def _check_property_count(properties: dict[str, msgspec.Raw], edits: dict[str, msgspec.Raw]) -> None:
    count = len(properties | edits)
    if count >= limits.PROPERTIES_LIMIT:
        raise RecordRefused.of_field(
            Reason.TOO_MANY_KEYS,
            "properties",
            f"must have fewer than {limits.PROPERTIES_LIMIT} keys, has {count}",
        )


def _check_values(properties: Mapping[str, msgspec.Raw]) -> None:
    for key, raw in properties.items():
        value = decode_value(raw)
        if isinstance(value, (dict, list)):
            check_container(field_name(key), value)


def check_container(field: str, value: dict[str, Any] | list[Any]) -> None:
    """Refuses a property's value that has too many keys or elements, or nests too deep.

    Raises:
        RecordRefused: naming the field.
    """
    level: list[Any] = [value]
    for _ in range(limits.MAX_NESTING):
        for container in level:
            _check_length(field, container)
        children = [c.values() if isinstance(c, dict) else c for c in level]
        level = [x for inner in children for x in inner if isinstance(x, (dict, list))]
    if level:
        raise RecordRefused.of_field(
            Reason.TOO_DEEP, field, f"must not nest deeper than {limits.MAX_NESTING} levels"
        )


def _check_length(field: str, container: dict[str, Any] | list[Any]) -> None:
    if len(container) < limits.PROPERTIES_LIMIT:
        return
    reason = Reason.TOO_MANY_KEYS if isinstance(container, dict) else Reason.ARRAY_TOO_LONG
    what = "keys" if isinstance(container, dict) else "elements"
    problem = f"must have fewer than {limits.PROPERTIES_LIMIT} {what}, has {len(container)}"
    raise RecordRefused.of_field(reason, field, problem)


def kind_of(value: object) -> str:
    """Returns what a JSON value is, in words."""
    names = {
        bool: "a boolean",
        int: "a number",
        float: "a number",
        str: "text",
        list: "an array",
        dict: "an object",
    }
    return names.get(type(value), "null")
