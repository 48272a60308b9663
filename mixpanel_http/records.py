"""Constructors of records, with the names of the official SDK, for Python mapping functions.

Each returns the record that the kinds `events`, `profiles`, `groups`, `identity` and `mixed` take. Unlike
the SDK's calls they send nothing and take neither clock nor chance into a record: no token (the backfill
stamps its own), no `$time` and no `$insert_id` that the caller does not give. So a record is the same in
every run.

As in the SDK, a datetime among the properties becomes `2024-03-05T08:30:00` as its own clock shows it,
without zone and fraction; what JSON has no form for is a TypeError.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from typing import Any, Final

Record = dict[str, Any]
Properties = Mapping[str, object]

DATE_FORMAT: Final = "%Y-%m-%dT%H:%M:%S"  # the SDK's DatetimeSerializer
_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.timezone.utc)
_SECOND: Final = dt.timedelta(seconds=1)


def event(
    distinct_id: str,
    event_name: str,
    timestamp: float | dt.datetime,
    properties: Properties | None = None,
    *,
    insert_id: str | None = None,
    meta: Properties | None = None,
) -> Record:
    """Returns an event.

    >>> event("u-1", "Order Paid", 1709627400, {"total": 79.0})["properties"]
    {'distinct_id': 'u-1', 'time': 1709627400, 'total': 79.0}

    Args:
        distinct_id: whose event it is.
        event_name: what happened.
        timestamp: seconds or milliseconds since the epoch, or a datetime; one without a zone is in UTC.
        properties: what else is known of it; they win over the arguments, as in the SDK.
        insert_id: the event's own id, if it has one; otherwise the backfill makes one from the content.
        meta: replaces or adds keys beside `event` and `properties`.
    """
    stamped: dict[str, object] = {"distinct_id": distinct_id, "time": seconds_of(timestamp)}
    if insert_id is not None:
        stamped["$insert_id"] = insert_id
    return _record({"event": event_name, "properties": {**stamped, **(properties or {})}}, meta)


def identify(identified_id: str, anonymous_id: str, meta: Properties | None = None) -> Record:
    """Returns an `$identify`: an anonymous id, a UUIDv4, is from now on known to be a user's.

    >>> identify("u-1", "0b1f6c3e-7a55-4c9e-9d0e-3b3f5f3f2a11")["properties"]["$identified_id"]
    'u-1'
    """
    ids = {"$identified_id": identified_id, "$anon_id": anonymous_id, "distinct_id": identified_id}
    return _record({"event": "$identify", "properties": ids}, meta)


def alias(alias_id: str, original: str, meta: Properties | None = None) -> Record:
    """Returns a `$create_alias`: one more id for a user who has one.

    >>> alias("jane@example.com", "u-1")["properties"]
    {'distinct_id': 'u-1', 'alias': 'jane@example.com'}
    """
    ids = {"distinct_id": original, "alias": alias_id}
    return _record({"event": "$create_alias", "properties": ids}, meta)


def merge(distinct_id1: str, distinct_id2: str, meta: Properties | None = None) -> Record:
    """Returns a `$merge`: two ids are one user.

    >>> merge("u-1", "u-2")
    {'event': '$merge', 'properties': {'$distinct_ids': ['u-1', 'u-2']}}
    """
    return _record({"event": "$merge", "properties": {"$distinct_ids": [distinct_id1, distinct_id2]}}, meta)


def people_set(distinct_id: str, properties: Properties, meta: Properties | None = None) -> Record:
    """Returns an update that sets properties of a profile.

    >>> people_set("u-1", {"$created": dt.datetime(2024, 3, 5, 8, 30)})
    {'$distinct_id': 'u-1', '$set': {'$created': '2024-03-05T08:30:00'}}
    """
    return people_update({"$distinct_id": distinct_id, "$set": properties}, meta)


def people_set_once(distinct_id: str, properties: Properties, meta: Properties | None = None) -> Record:
    """Returns an update that sets those properties that a profile has not yet."""
    return people_update({"$distinct_id": distinct_id, "$set_once": properties}, meta)


def people_increment(distinct_id: str, properties: Properties, meta: Properties | None = None) -> Record:
    """Returns an update that adds numbers to properties of a profile; sent twice, it adds twice."""
    return people_update({"$distinct_id": distinct_id, "$add": properties}, meta)


def people_append(distinct_id: str, properties: Properties, meta: Properties | None = None) -> Record:
    """Returns an update that appends a value to each list; sent twice, it appends twice."""
    return people_update({"$distinct_id": distinct_id, "$append": properties}, meta)


def people_union(distinct_id: str, properties: Properties, meta: Properties | None = None) -> Record:
    """Returns an update that adds to lists what they do not hold yet."""
    return people_update({"$distinct_id": distinct_id, "$union": properties}, meta)


def people_remove(distinct_id: str, properties: Properties, meta: Properties | None = None) -> Record:
    """Returns an update that takes a value out of each list."""
    return people_update({"$distinct_id": distinct_id, "$remove": properties}, meta)


def people_unset(distinct_id: str, properties: Iterable[str], meta: Properties | None = None) -> Record:
    """Returns an update that removes properties from a profile."""
    return people_update({"$distinct_id": distinct_id, "$unset": list(properties)}, meta)


def people_delete(distinct_id: str, meta: Properties | None = None) -> Record:
    """Returns an update that deletes a profile.

    >>> people_delete("u-1", meta={"$ignore_alias": True})
    {'$distinct_id': 'u-1', '$delete': '', '$ignore_alias': True}
    """
    return people_update({"$distinct_id": distinct_id, "$delete": ""}, meta)


def people_track_charge(
    distinct_id: str, amount: float, properties: Properties | None = None, meta: Properties | None = None
) -> Record:
    """Returns an update that appends a charge to a profile; sent twice, it is charged twice.

    >>> people_track_charge("u-1", 9.5, {"sku": "s"})["$append"]
    {'$transactions': {'sku': 's', '$amount': 9.5}}
    """
    charge = {**(properties or {}), "$amount": amount}
    return people_append(distinct_id, {"$transactions": charge}, meta)


def people_clear_charges(distinct_id: str, meta: Properties | None = None) -> Record:
    """Returns an update that removes all charges from a profile."""
    return people_unset(distinct_id, ["$transactions"], meta)


def people_update(message: Properties, meta: Properties | None = None) -> Record:
    """Returns any update of a profile: `$distinct_id`, one operation, and modifiers like `$time`."""
    return _record(message, meta)


def group_set(
    group_key: str, group_id: str, properties: Properties, meta: Properties | None = None
) -> Record:
    """Returns an update that sets properties of a group's profile.

    >>> group_set("company", "acme", {"plan": "pro"})
    {'$group_key': 'company', '$group_id': 'acme', '$set': {'plan': 'pro'}}
    """
    return group_update({"$group_key": group_key, "$group_id": group_id, "$set": properties}, meta)


def group_set_once(
    group_key: str, group_id: str, properties: Properties, meta: Properties | None = None
) -> Record:
    """Returns an update that sets those properties that a group's profile has not yet."""
    return group_update({"$group_key": group_key, "$group_id": group_id, "$set_once": properties}, meta)


def group_union(
    group_key: str, group_id: str, properties: Properties, meta: Properties | None = None
) -> Record:
    """Returns an update that adds to a group's lists what they do not hold yet."""
    return group_update({"$group_key": group_key, "$group_id": group_id, "$union": properties}, meta)


def group_remove(
    group_key: str, group_id: str, properties: Properties, meta: Properties | None = None
) -> Record:
    """Returns an update that takes a value out of each of a group's lists."""
    return group_update({"$group_key": group_key, "$group_id": group_id, "$remove": properties}, meta)


def group_unset(
    group_key: str, group_id: str, properties: Iterable[str], meta: Properties | None = None
) -> Record:
    """Returns an update that removes properties from a group's profile."""
    return group_update({"$group_key": group_key, "$group_id": group_id, "$unset": list(properties)}, meta)


def group_delete(group_key: str, group_id: str, meta: Properties | None = None) -> Record:
    """Returns an update that deletes a group's profile."""
    return group_update({"$group_key": group_key, "$group_id": group_id, "$delete": ""}, meta)


def group_update(message: Properties, meta: Properties | None = None) -> Record:
    """Returns any update of a group's profile: `$group_key`, `$group_id`, one operation, and modifiers."""
    return _record(message, meta)


def seconds_of(moment: float | dt.datetime) -> float:
    """Returns a moment as Mixpanel takes it: a number as it is, a datetime as seconds since the epoch.

    >>> seconds_of(dt.datetime(2024, 3, 5, 8, 30)), seconds_of(1709627400123)
    (1709627400, 1709627400123)
    """
    if not isinstance(moment, dt.datetime):
        return moment
    aware = moment if moment.tzinfo else moment.replace(tzinfo=dt.timezone.utc)
    whole, rest = divmod(aware - _EPOCH, _SECOND)
    return whole + rest / _SECOND if rest else whole


def _record(message: Properties, meta: Properties | None) -> Record:
    return {key: _plain(value) for key, value in {**message, **(meta or {})}.items()}


def _plain(value: object) -> object:
    """Returns a value as JSON has it, with the SDK's form of dates."""
    if value is None or isinstance(value, (str, int, float)):
        return value
    if isinstance(value, dt.datetime):
        return value.strftime(DATE_FORMAT)
    if isinstance(value, Mapping):
        return {_key(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    raise TypeError(f"a {type(value).__name__} has no form in JSON; give text, a number or a datetime")


def _key(key: object) -> str:
    if not isinstance(key, str):
        raise TypeError(f"the name of a property is text, not {type(key).__name__}")
    return key
