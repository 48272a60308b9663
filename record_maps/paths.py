"""Paths into a JSON record, like `user.traits[0].plan`; of a record only what is asked for is read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from typing import Final

import msgspec

Path = tuple[str | int, ...]
"""Keys and places in lists, from the outside in."""

Fields = dict[str, msgspec.Raw]
"""A JSON object of which the values are still as they came."""

NULL: Final = b"null"
_NUMBER_STARTS: Final = frozenset(b"-0123456789")
_STEP: Final = re.compile(
    r"""(?P<key>[^.\[\]"'\s][^.\[\]"']*)|"(?P<quoted>(?:[^"\\]|\\["\\])+)"|\[(?P<place>[0-9]{1,6})\]"""
)
_raw_object: Final = msgspec.json.Decoder(Fields).decode
_text: Final = msgspec.json.Decoder(str).decode
_raw_list: Final = msgspec.json.Decoder(list[msgspec.Raw]).decode


def parse_path(text: str) -> Path:
    r"""Returns the path that a text stands for.

    >>> parse_path("user.traits[0].plan"), parse_path('"a.b".c')
    (('user', 'traits', 0, 'plan'), ('a.b', 'c'))

    Raises:
        ValueError: if it is no path, with where it stops being one.
    """
    if text.startswith(("$.", "$[")):
        raise ValueError(f"{text!r}: a path begins with a key of the record, without $")
    steps: list[str | int] = []
    position = 0
    while position < len(text) or not steps:
        match = _STEP.match(text, position)
        if match is None or (not steps and match["place"]):
            raise ValueError(
                f"{text!r} is no path from character {position + 1} on; one looks like user.traits[0].plan, "
                'and a key with dots like "a.b".plan'
            )
        if match["place"]:
            steps.append(int(match["place"]))
        else:
            steps.append(match["key"] or re.sub(r"\\(.)", r"\1", match["quoted"]))
        position = match.end()
        if text[position : position + 1] == "." and position + 1 < len(text):
            position += 1
        elif position < len(text) and text[position] != "[":
            raise ValueError(f"{text!r} is no path from character {position + 1} on")
    return tuple(steps)


class Row:
    """One record that is being mapped: its fields, and its inner objects as far as they were asked for.

    Attributes:
        fields: the record's own.
        used: those among which the first that is there was looked for, up to that one.
    """

    __slots__ = ("_opened", "fields", "used")

    def __init__(self, fields: Fields) -> None:
        """Takes a record's fields."""
        self.fields = fields
        self.used: tuple[str, ...] = ()
        self._opened: dict[Path, Fields | None] = {}

    def get(self, path: Path) -> msgspec.Raw | None:
        """Returns what lies at a path, as it came; None where there is nothing, or null."""
        step = path[-1]
        if isinstance(step, str):
            parent = self.fields if len(path) == 1 else self.object_at(path[:-1])
            found = None if parent is None else parent.get(step)
        else:
            found = next(islice(elements(self.get(path[:-1])), step, None), None)
        return None if found is None or found == NULL_VALUE else found

    def object_at(self, path: Path) -> Fields | None:
        """Returns the object at a path, or None where there is none; it is shared and must not be changed."""
        found = self._opened.get(path, _UNOPENED)
        if found is _UNOPENED:
            found = self._opened[path] = opened(self.get(path))
        return found


NULL_VALUE: Final = msgspec.Raw(NULL)
_UNOPENED: Final[Fields] = {}  # in place of what was not asked for yet


def id_text(value: msgspec.Raw) -> msgspec.Raw:
    """Returns an id as text: a number's own digits; anything else as it is, for the rules to judge."""
    token = bytes(value)
    return msgspec.Raw(b'"%b"' % token) if token[0] in _NUMBER_STARTS else value


def text_of(raw: msgspec.Raw | None) -> str | None:
    """Returns what a text says, or None if a value is none, or no text in UTF-8.

    >>> text_of(msgspec.Raw(b'"a"')), text_of(msgspec.Raw(b"1")), text_of(None)
    ('a', None, None)
    """
    if raw is None:
        return None
    try:
        return _text(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def opened(raw: msgspec.Raw | bytes | None) -> Fields | None:
    """Returns a value's fields, or None if it is no object.

    >>> opened(b'[1]'), sorted(opened(b'{"a":1}'))
    (None, ['a'])
    """
    if raw is None:
        return None
    try:
        return _raw_object(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def elements(raw: msgspec.Raw | bytes | None) -> Iterator[msgspec.Raw]:
    """Yields a list's elements; nothing if it is no list."""
    if raw is None:
        return
    try:
        yield from _raw_list(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return
