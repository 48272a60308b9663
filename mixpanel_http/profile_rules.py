"""The rules of `/engage` and `/groups` for one update, checked on everything that is in it (the full path).

An update is an operation on one profile: `{"$distinct_id": "u-1", "$set": {"plan": "pro"}}`, for a group with
`$group_key` and `$group_id` in place of the id. A flat row, `{"user": "u-1", "plan": "pro"}`, is made into
one. Whatever token a record carries is left out: the client stamps the project's own. The fast path over
whole blocks is `profile_blocks`; this module is its judge.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, NoReturn, get_args

import msgspec
import xxhash

from mixpanel_http import limits
from mixpanel_http.event_rules import DEFAULTED_IP, STRINGIFIED_ID, kind_of
from mixpanel_http.record_syntax import decode_object, decode_value, raw_object
from mixpanel_http.verdicts import Reason, RecordRefused

Operation = Literal["$set", "$set_once", "$add", "$append", "$union", "$remove", "$unset", "$delete"]
OPERATIONS: Final[frozenset[str]] = frozenset(get_args(Operation))
# https://docs.mixpanel.com/docs/data-structure/user-profiles: not supported in group profiles.
ONLY_OF_USERS: Final = frozenset({"$add", "$append"})
# What may not be applied twice; the others end in the same state however often they are repeated.
NOT_IDEMPOTENT: Final = frozenset({"$add", "$append"})
# They stand beside the operation, also in a flat row.
MODIFIERS: Final = frozenset(
    {"$ip", "$time", "$latitude", "$longitude", "$ignore_time", "$ignore_alias", "$token"}
)
KEPT_LAST_SEEN: Final = "kept_last_seen"

_encode: Final = msgspec.json.Encoder().encode
Raws = dict[str, msgspec.Raw]


@dataclass(frozen=True, slots=True)
class ProfileRules:
    """What a run asks of its updates.

    Attributes:
        groups: whether the profiles are those of groups.
        id_field: the field of a flat row that holds the profile's id; None where records are operations.
        operation: what a flat row does to its profile.
        group_key: the kind of group, where a record does not say it.
        default_ip: stamp `"$ip": 0` on a user's update without one: else it is located where this runs.
        ignore_time: stamp `"$ignore_time": true` likewise, so that `$last_seen` stays what it is.
    """

    groups: bool = False
    id_field: str | None = None
    operation: Operation = "$set"
    group_key: str | None = None
    default_ip: bool = True
    ignore_time: bool = True


@dataclass(frozen=True, slots=True)
class AcceptedUpdate:
    """An update as it is sent, but for the token.

    Attributes:
        line: its JSON; the source's own bytes where nothing had to change.
        key: of its profile, for keeping its updates in order.
        repeatable: whether applying it twice is the same as once.
        alterations: names of the fixes made.
    """

    line: bytes
    key: int
    repeatable: bool = True
    alterations: tuple[str, ...] = ()


def profile_key(profile: str, group_key: str = "") -> int:
    """Returns a number for a profile; two profiles share one hardly ever, and then are only kept in order."""
    return xxhash.xxh3_64_intdigest((f"{group_key}\0{profile}" if group_key else profile).encode())


def check_update(line: bytes, rules: ProfileRules) -> AcceptedUpdate:
    """Returns an update as it is to be sent.

    >>> check_update(b'{"$group_key": "team", "$group_id": 7, "$unset": ["plan"]}', ProfileRules(True)).line
    b'{"$group_key": "team", "$group_id": 7, "$unset": ["plan"]}'

    Raises:
        RecordRefused: if Mixpanel would refuse or misread the record, with the reason.
    """
    if len(line) >= limits.MAX_UPDATE_BYTES:
        _refuse_size(len(line))
    record = decode_object(line)
    update = _from_row(record, rules) if rules.id_field is not None else record
    stamps: Raws = {}
    key = _check_group(update, rules, stamps) if rules.groups else _check_user(update, stamps)
    operation = _operation(update, rules)
    _check_value(operation, update[operation], line)
    alterations = [STRINGIFIED_ID] if "$distinct_id" in stamps else []
    alterations += _stamp_defaults(update, rules, stamps)
    repeatable = operation not in NOT_IDEMPOTENT
    if update is record and not stamps and "$token" not in record:
        return AcceptedUpdate(line.strip(b" \t\r\n"), key, repeatable)
    others = {name: value for name, value in update.items() if name not in stamps and name != "$token"}
    changed = _encode({**stamps, **others})
    if len(changed) >= limits.MAX_UPDATE_BYTES:
        _refuse_size(len(changed))
    return AcceptedUpdate(changed, key, repeatable, tuple(alterations))


def _refuse_size(size: int) -> NoReturn:
    raise RecordRefused(
        Reason.TOO_LARGE,
        None,
        f"an update must be below {limits.MAX_UPDATE_BYTES:,} bytes of JSON, this one has {size:,}",
    )


def _from_row(row: Raws, rules: ProfileRules) -> Raws:
    """Returns a flat row as an operation: what is neither id nor modifier are its properties."""
    own = {rules.id_field, *MODIFIERS, *(("$group_key",) if rules.groups else ())}
    properties = {name: value for name, value in row.items() if name not in own}
    update = {name: value for name, value in row.items() if name in own and name != rules.id_field}
    if rules.id_field in row:
        update["$group_id" if rules.groups else "$distinct_id"] = row[rules.id_field]
    update[rules.operation] = _ROW_VALUES.get(rules.operation, _as_object)(properties)
    return update


def _as_object(properties: Raws) -> msgspec.Raw:
    return msgspec.Raw(_encode(properties))


def _as_names(properties: Raws) -> msgspec.Raw:
    return msgspec.Raw(_encode(list(properties)))


def _as_nothing(properties: Raws) -> msgspec.Raw:
    return msgspec.Raw(b"null")


def _as_lists(properties: Raws) -> msgspec.Raw:
    lists = {
        name: value if bytes(value)[:1] == b"[" else msgspec.Raw(b"[" + bytes(value) + b"]")
        for name, value in properties.items()
    }
    return msgspec.Raw(_encode(lists))


_ROW_VALUES: Final[Mapping[str, Callable[[Raws], msgspec.Raw]]] = {
    "$union": _as_lists,
    "$unset": _as_names,
    "$delete": _as_nothing,
}


def _check_user(update: Raws, stamps: Raws) -> int:
    given = _value(update, "$distinct_id")
    if given is None or given == "":
        raise RecordRefused.of_field(
            Reason.MISSING_DISTINCT_ID, "$distinct_id", "must not be missing or empty"
        )
    if isinstance(given, (dict, list)):
        raise RecordRefused.of_field(
            Reason.BAD_DISTINCT_ID, "$distinct_id", f"must be a string, not {kind_of(given)}"
        )
    text = given if isinstance(given, str) else bytes(update["$distinct_id"]).decode()
    if text.lower() in limits.DISALLOWED_IDS:
        raise RecordRefused.of_field(
            Reason.DISALLOWED_ID, "$distinct_id", "is a value that no event may have, and so no user"
        )
    if text is not given:
        stamps["$distinct_id"] = msgspec.Raw(_encode(text))
    return profile_key(text)


def _check_group(update: Raws, rules: ProfileRules, stamps: Raws) -> int:
    key = _value(update, "$group_key")
    if (key is None or key == "") and rules.group_key is not None:
        key = rules.group_key
        stamps["$group_key"] = msgspec.Raw(_encode(key))
    identifier = _value(update, "$group_id")
    for name, value in (("$group_key", key), ("$group_id", identifier)):
        if value is None or value == "" or isinstance(value, (dict, list)):
            what = f"not {kind_of(value)}" if isinstance(value, (dict, list)) else "not missing or empty"
            raise RecordRefused.of_field(Reason.MISSING_GROUP, name, f"must be a string or number, {what}")
    text = identifier if isinstance(identifier, str) else bytes(update["$group_id"]).decode()
    return profile_key(text, str(key))


def _value(update: Mapping[str, msgspec.Raw], name: str) -> Any:
    return decode_value(update[name]) if name in update else None


def _operation(update: Raws, rules: ProfileRules) -> str:
    found = sorted(OPERATIONS & update.keys())
    if not found:
        raise RecordRefused(
            Reason.MISSING_OPERATION,
            None,
            f"must have an operation, one of {', '.join(sorted(OPERATIONS))}; "
            "for rows of plain columns set records.id_field",
        )
    if len(found) > 1:
        raise RecordRefused(
            Reason.BAD_OPERATION, found[0], f"must have exactly one operation, not {' and '.join(found)}"
        )
    if rules.groups and found[0] in ONLY_OF_USERS:
        raise RecordRefused.of_field(Reason.BAD_OPERATION, found[0], "not supported in group profiles")
    return found[0]


def _check_value(operation: str, raw: msgspec.Raw, line: bytes) -> None:
    problem = _VALUE_PROBLEMS[operation](decode_value(raw))
    if problem:
        raise RecordRefused.of_field(Reason.BAD_OPERATION, operation, problem)
    if len(line) >= limits.MAX_PROFILE_VALUE_BYTES and bytes(raw)[:1] == b"{":
        _check_sizes(operation, raw_object(raw))


def _check_sizes(operation: str, properties: Raws) -> None:
    for name, value in properties.items():
        if len(bytes(value)) > limits.MAX_PROFILE_VALUE_BYTES and bytes(value)[:1] in b"[{":
            shown = name[: limits.MAX_STRING]
            raise RecordRefused(
                Reason.TOO_LARGE,
                f"{operation}.{shown}",
                f"a list or object of a profile must not be over {limits.MAX_PROFILE_VALUE_BYTES:,} bytes",
            )


def _object_problem(value: Any) -> str:
    if not isinstance(value, dict):
        return f"must be an object, not {kind_of(value)}"
    if len(value) > limits.MAX_PROFILE_PROPERTIES:
        return f"must have at most {limits.MAX_PROFILE_PROPERTIES} properties, has {len(value)}"
    return ""


def _numbers_problem(value: Any) -> str:
    good = all(isinstance(n, (int, float)) and not isinstance(n, bool) for n in _values(value))
    return _object_problem(value) or ("" if good else "must be an object of numbers")


def _lists_problem(value: Any) -> str:
    if isinstance(value, dict) and not value:
        return "must be an object with at least one property"
    good = all(item != [] for item in _values(value))
    return _object_problem(value) or ("" if good else "must have at least one item in each list")


def _values(value: Any) -> list[Any]:
    return list(value.values()) if isinstance(value, dict) else []


def _names_problem(value: Any) -> str:
    good = isinstance(value, list) and value and all(isinstance(name, str) for name in value)
    return "" if good else "must be a list of property names, at least one"


def _no_problem(value: Any) -> str:
    return ""  # the value of $delete is ignored


_VALUE_PROBLEMS: Final[Mapping[str, Callable[[Any], str]]] = {
    "$set": _object_problem,
    "$set_once": _object_problem,
    "$add": _numbers_problem,
    "$append": _object_problem,
    "$union": _lists_problem,
    "$remove": _object_problem,
    "$unset": _names_problem,
    "$delete": _no_problem,
}


def _stamp_defaults(update: Mapping[str, msgspec.Raw], rules: ProfileRules, stamps: Raws) -> list[str]:
    """Adds what the run stamps on updates of users that do not have it, and returns what that was."""
    done = []
    if not rules.groups and rules.default_ip and "$ip" not in update:
        stamps["$ip"] = msgspec.Raw(b"0")
        done.append(DEFAULTED_IP)
    if not rules.groups and rules.ignore_time and "$ignore_time" not in update:
        stamps["$ignore_time"] = msgspec.Raw(b"true")
        done.append(KEPT_LAST_SEEN)
    return done
