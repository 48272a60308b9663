"""What the operations of /engage and /groups do to a profile: plain functions on plain values."""

from collections.abc import Callable
from typing import Any

from mixpanel_emulator.event_rules import Refusal

NAME_CHARACTERS = 255  # UP: longer names are cut
STRING_CHARACTERS = 255  # UP, DT: longer strings are cut
Properties = dict[str, Any]


def find_operation(update: dict[str, Any], *, group: bool) -> str | Refusal:
    """Returns the name of the one operation in an update, or why there is none to apply.

    >>> find_operation({"$token": "t", "$set": {"a": 1}}, group=False)
    '$set'
    """
    found = [key for key in update if key in _OPERATIONS]
    if len(found) != 1:  # OAI-ING: every example has exactly one; the texts are inferred
        return Refusal("", "update is invalid: must have exactly one operation")
    if group and found[0] == "$append":  # UP: not supported in group profiles; $add is listed by OAI-ING
        return Refusal(found[0], f"'{found[0]}' is invalid: not supported in group profiles")
    problem = _OPERATIONS[found[0]][0](update[found[0]])
    return Refusal(found[0], f"'{found[0]}' is invalid: {problem}") if problem else found[0]


def apply_operation(operation: str, value: Any, properties: Properties) -> Properties:
    """Returns the properties that a profile has after an operation other than `$delete`.

    >>> apply_operation("$add", {"coins": 2}, {"coins": 1})
    {'coins': 3}
    """
    return _OPERATIONS[operation][1](_cut(value), properties)


def _object(value: Any) -> str:
    return "" if isinstance(value, dict) else "must be an object"


def _numbers(value: Any) -> str:
    if not isinstance(value, dict):
        return "must be an object"
    good = all(isinstance(item, int | float) and not isinstance(item, bool) for item in value.values())
    return "" if good else "must be an object of numbers"


def _lists(value: Any) -> str:
    if not isinstance(value, dict) or not value:
        return "must be an object with at least one property"
    # OAI-ING wants arrays of at least one item; UP says that a single value is fine too.
    return "" if all(item != [] for item in value.values()) else "must have at least one item in each array"


def _names(value: Any) -> str:
    good = isinstance(value, list) and value and all(isinstance(item, str) for item in value)
    return "" if good else "must be an array of property names"


def _anything(value: Any) -> str:
    return ""  # the value of $delete is ignored


def _set(value: Properties, properties: Properties) -> Properties:
    return {**properties, **value}


def _set_once(value: Properties, properties: Properties) -> Properties:
    return {**value, **properties}


def _add(value: Properties, properties: Properties) -> Properties:
    sums = {}
    for name, amount in value.items():
        before = properties.get(name, 0)
        sums[name] = (before if isinstance(before, int | float) else 0) + amount
    return {**properties, **sums}


def _union(value: Properties, properties: Properties) -> Properties:
    joined = {}
    for name, items in value.items():
        before = _as_list(properties.get(name, []))
        new = [item for item in _as_list(items) if item not in before]
        joined[name] = before + [item for place, item in enumerate(new) if item not in new[:place]]
    return {**properties, **joined}


def _append(value: Properties, properties: Properties) -> Properties:
    longer = {name: [*_as_list(properties.get(name, [])), item] for name, item in value.items()}
    return {**properties, **longer}


def _remove(value: Properties, properties: Properties) -> Properties:
    shorter = {
        name: [item for item in properties[name] if item != gone]
        for name, gone in value.items()
        if isinstance(properties.get(name), list)
    }
    return {**properties, **shorter}


def _unset(value: list[str], properties: Properties) -> Properties:
    return {name: item for name, item in properties.items() if name not in value}


def _keep(value: Any, properties: Properties) -> Properties:
    return properties


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list) else [value]


def _cut(value: Any) -> Any:
    if isinstance(value, str):
        return value[:STRING_CHARACTERS]
    if isinstance(value, list):
        return [_cut(item) for item in value]
    if isinstance(value, dict):
        return {key[:NAME_CHARACTERS]: _cut(item) for key, item in value.items()}
    return value


_Check = Callable[[Any], str]
_Apply = Callable[[Any, Properties], Properties]
_OPERATIONS: dict[str, tuple[_Check, _Apply]] = {
    "$set": (_object, _set),
    "$set_once": (_object, _set_once),
    "$add": (_numbers, _add),
    "$union": (_lists, _union),
    "$append": (_object, _append),
    "$remove": (_object, _remove),
    "$unset": (_names, _unset),
    "$delete": (_anything, _keep),
}
