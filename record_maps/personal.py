"""Hashes or removes personal data among an event's properties: by their names, and by patterns in texts."""

from __future__ import annotations

import hmac
import ipaddress
import re
from collections.abc import Callable
from typing import Any, Final, Literal

import msgspec

from record_maps.names import IDS, MOST_NAMES, NameList
from record_maps.paths import NULL_VALUE, Fields, elements, id_text, opened, text_of
from record_maps.spec import PersonalData

Fate = Literal["kept", "hashed", "removed"]

NEVER: Final = frozenset({"time", "$insert_id"})  # neither tells a person; without them there is no event
REMOVED: Final = "[removed]"
_TEXTS: Final = {
    # As in the query of a URL, the @ may be escaped.
    "email": r"(?<![\w.+-])[\w.+-]{1,64}(?:@|%40)(?:[\w-]{1,63}\.){1,8}[A-Za-z]{2,24}(?![\w-])",
    # Of version 4 also behind `::ffff:` and before a port.
    "ip": r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?!\w|\.\d)"
    r"|(?<![\w.:])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}(?![\w:]|\.\d)",
    "phone": r"(?<![\w+])\+[1-9](?:[ ().-]{0,2}\d){6,14}(?!\d)",
    "card": r"(?<![\w.-])\d(?:[ -]?\d){12,18}(?![\w-]|\.\d)",
}
# What bytes without these have no match in them. An escape can stand for any character.
_MAYBE: Final = {
    "email": rb"@|%40|\\",
    "ip": rb"\d\.\d{1,3}\.\d|[0-9A-Fa-f]?:[0-9A-Fa-f]{0,4}:|\\",
    "phone": rb"\+[1-9]|\\",
    "card": rb"\d(?:[ -]?\d){12}|\\",
}
_encode: Final = msgspec.json.Encoder().encode
_encode_sorted: Final = msgspec.json.Encoder(order="sorted").encode
_CONTAINERS: Final = frozenset(b"{[")
_NOTHING: Final = (NULL_VALUE, msgspec.Raw(b'""'))  # nobody's; the hash of it would look like somebody
_fields: Final = msgspec.json.Decoder(Fields).decode
_elements: Final = msgspec.json.Decoder(list[msgspec.Raw]).decode
_text: Final = msgspec.json.Decoder(str).decode


class PersonalDataRule:
    """What becomes of the personal data in an event's properties."""

    def __init__(self, spec: PersonalData) -> None:
        """Takes what is declared, and resolves the salt.

        Raises:
            SecretUnavailable: if the salt cannot be had.
        """
        self._salt = spec.salt.resolve().encode() if spec.salt else b""
        self._hashed = NameList(spec.hash.keys, any_case=True)
        self._removed = NameList(spec.remove.keys, any_case=True)
        self._patterns = [
            *((_compiled(name), self._digest) for name in spec.hash.patterns),
            *((_compiled(name), _removed) for name in spec.remove.patterns),
        ]
        self._traces = [
            re.compile(_MAYBE[name]).search for name in (*spec.hash.patterns, *spec.remove.patterns)
        ]
        self._fates: dict[str, Fate] = {}

    def applied(self, properties: Fields) -> Fields:
        """Returns the properties without the personal data."""
        if self._hashed or self._removed:
            is_nested = _encode(properties).count(b"{") > 1
            found = self._by_names(properties, "") if is_nested else self._by_own_names(properties)
            properties = self._with_ids(properties, found)
        if self._traces and self._may_match(_encode(properties)):
            properties = self._by_patterns(properties)
        return properties

    def applied_to_text(self, raw: msgspec.Raw) -> msgspec.Raw:
        """Returns a text, like the name of an event, with what the patterns find replaced."""
        if not (self._traces and self._may_match(bytes(raw))):
            return raw
        text = text_of(raw)
        if text is None:
            return raw  # it is refused for what it is
        return msgspec.Raw(_encode(self._cleaned(text)))

    def _may_match(self, json: bytes) -> bool:
        return any(search(json) is not None for search in self._traces)

    def _with_ids(self, properties: Fields, found: Fields) -> Fields:
        """Returns what was found, with each id that says who as `distinct_id` does treated like that.

        Mixpanel makes `distinct_id` of `$user_id`, so that the one would tell what the other hides.
        """
        who = properties.get("distinct_id")
        if who is None or found.get("distinct_id") == who:
            return found
        for name in IDS:
            given = found.get(name)
            if given is None or given != properties[name] or id_text(given) != who:
                continue
            if "distinct_id" in found:
                found[name] = found["distinct_id"]
            else:
                del found[name]
        return found

    def _by_own_names(self, properties: Fields) -> Fields:
        """Returns the same as `_by_names` of properties with no object among them, in half the time."""
        found: Fields = {}
        for name, value in properties.items():
            fate = self._fates.get(name) or self._fate_of(name, name)
            if fate == "kept":
                found[name] = value
            elif fate == "hashed":
                found[name] = value if value in _NOTHING else self._hash_of(value)
        return found

    def _by_names(self, fields: Fields, path: str) -> Fields:
        """Returns the fields of the properties, or of an object in them, without those that names tell of."""
        found: Fields = {}
        for name, value in fields.items():
            where = path + name
            fate = self._fates.get(where) or self._fate_of(where, name)
            if fate == "kept":
                found[name] = self._inside(value, where) if memoryview(value)[0] in _CONTAINERS else value
            elif fate == "hashed":
                found[name] = value if value in _NOTHING else self._hash_of(value)
        return found

    def _inside(self, raw: msgspec.Raw, path: str) -> msgspec.Raw:
        """Returns an object or a list without what the names of fields in it tell of.

        An object is always written anew: where a key stands twice, the value that counts for nobody goes too.
        """
        fields = opened(raw)
        if fields is not None:
            return msgspec.Raw(_encode(self._by_names(fields, f"{path}.")))
        if b"{" not in bytes(raw):
            return raw
        inner = elements(raw)
        made = [self._inside(one, path) if memoryview(one)[0] in _CONTAINERS else one for one in inner]
        return msgspec.Raw(_encode(made))

    def _fate_of(self, where: str, name: str) -> Fate:
        """Returns what becomes of a field, by its own name or with those of the objects that it lies in."""
        if len(self._fates) >= MOST_NAMES:
            self._fates.clear()
        fate: Fate = "kept"
        if where not in NEVER:
            names = (name, where)
            if any(name in self._hashed for name in names):
                fate = "hashed"
            elif any(name in self._removed for name in names):
                fate = "removed"
            elif where in IDS and "distinct_id" in self._hashed:
                fate = "hashed"  # in each event alike: a device that is hashed in some joins nobody
        self._fates[where] = fate
        return fate

    def _by_patterns(self, properties: Fields) -> Fields:
        found: Fields = {}
        for name, value in properties.items():
            new: msgspec.Raw | None = value
            if name not in NEVER and self._may_match(bytes(value)):
                new = self._without_matches(value)
            if new is not None:
                found[self._cleaned(name)] = new
        return found

    def _without_matches(self, raw: msgspec.Raw) -> msgspec.Raw | None:
        """Returns a value without matches in its texts, or None where nothing else was in it."""
        try:
            value = _exact(raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return raw  # no JSON: it is refused for that, and not sent
        new = self._cleaned(value)
        text = bytes(raw).decode("utf-8", "surrogateescape")
        if new == value and self._cleaned(text) == text:  # the text has more where a key stands twice
            return raw
        return None if new == REMOVED else msgspec.Raw(_encode(new))

    def _cleaned(self, value: Any) -> Any:
        if isinstance(value, str):
            for pattern, replaced in self._patterns:
                value = pattern(replaced, value)
            return value
        if isinstance(value, list):
            return [self._cleaned(inner) for inner in value]
        if isinstance(value, dict):
            return {self._cleaned(key): self._cleaned(inner) for key, inner in value.items()}
        return value

    def _hash_of(self, raw: msgspec.Raw) -> msgspec.Raw:
        """Returns the hash of a text, or of another value's JSON with its keys in order."""
        text = text_of(raw)
        if text is None:
            text = _sorted_json(raw).decode("utf-8", "surrogateescape")
        return msgspec.Raw(_encode(self._digest(text)))

    def _digest(self, text: str) -> str:
        """Returns the HMAC-SHA256 of a text, in hex: without the salt nobody can try values out."""
        return hmac.digest(self._salt, text.encode("utf-8", "surrogateescape"), "sha256").hex()


def _sorted_json(raw: msgspec.Raw) -> bytes:
    try:
        return _encode_sorted(_exact(raw))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return bytes(raw)  # no JSON: it is refused for that, and not sent


Replace = Callable[[Callable[[str], str], str], str]


def _compiled(name: str) -> Replace:
    """Returns the function that replaces what a pattern finds and a closer look confirms."""
    search = re.compile(_TEXTS[name])
    is_one = _CLOSER.get(name, _always)

    def replace(replaced: Callable[[str], str], text: str) -> str:
        return search.sub(lambda match: replaced(match[0]) if is_one(match[0]) else match[0], text)

    return replace


def _exact(raw: msgspec.Raw) -> Any:
    """Returns a value in which numbers keep their tokens when it is encoded again."""
    first = bytes(raw).lstrip()[:1]
    if first == b"{":
        return {key: _exact(value) for key, value in _fields(raw).items()}
    if first == b"[":
        return [_exact(value) for value in _elements(raw)]
    return _text(raw) if first == b'"' else raw


def _removed(_: str) -> str:
    return REMOVED


def _always(_: str) -> bool:
    return True


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _is_card(text: str) -> bool:
    """Returns whether digits end in the check digit that card numbers have.

    >>> _is_card("4111 1111 1111 1111"), _is_card("4111 1111 1111 1112")
    (True, False)
    """
    digits = [int(c) for c in text if c.isdigit()][::-1]
    doubled = (sum(divmod(2 * digit, 10)) for digit in digits[1::2])
    return (sum(digits[::2]) + sum(doubled)) % 10 == 0


_CLOSER: Final[dict[str, Callable[[str], bool]]] = {"ip": _is_address, "card": _is_card}
