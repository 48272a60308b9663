"""Makes values that are nested deeper than Mixpanel takes into ones that it takes."""

from __future__ import annotations

from typing import Final

import msgspec

from mixpanel_http.limits import MAX_NESTING
from record_maps.paths import Fields, elements, opened

_OBJECT: Final = ord("{")
_LIST: Final = ord("[")
_encode: Final = msgspec.json.Encoder().encode


def shallow(properties: Fields) -> Fields:
    """Returns properties in which objects and lists that lie too deep are texts of JSON.

    >>> bytes(shallow({"a": msgspec.Raw(b'[{"b":[[1.0]]}]')})["a"])
    b'[{"b":["[1.0]"]}]'
    """
    changed = {
        name: _shallow(value, MAX_NESTING) for name, value in properties.items() if _may_be_deep(value)
    }
    return {**properties, **changed} if changed else properties


def _may_be_deep(value: msgspec.Raw) -> bool:
    """Returns whether there are brackets enough for a value to lie too deep; they may stand in texts."""
    if memoryview(value)[0] not in (_OBJECT, _LIST):
        return False
    json = bytes(value)
    return json.count(b"{") + json.count(b"[") > MAX_NESTING


def _shallow(value: msgspec.Raw, levels: int) -> msgspec.Raw:
    first = memoryview(value)[0]
    if first not in (_OBJECT, _LIST):
        return value
    if not levels:
        return msgspec.Raw(_encode(bytes(value).decode("utf-8", "surrogateescape")))
    if first == _LIST:
        inner = list(elements(value))
        made = [_shallow(element, levels - 1) for element in inner]
        return value if made == inner else msgspec.Raw(_encode(made))
    fields = opened(value) or {}
    new = {name: _shallow(inside, levels - 1) for name, inside in fields.items()}
    return value if new == fields else msgspec.Raw(_encode(new))
