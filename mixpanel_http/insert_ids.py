"""`$insert_id`: recipes that stamp one from the data alone.

The recipe is versioned (`RECIPE`) and documented in docs/insert-ids.md. Changing what it yields for any
record is a breaking change: a run that is repeated would import its records a second time.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import msgspec
import xxhash

from mixpanel_http.compiled import extension

RECIPE: Final = "v1"
InsertIdMode = Literal["content", "line", "fields"]
LONGEST_INTEGER: Final = 4300  # characters; msgspec refuses a longer whole number
_MISSING: Final = {"$missing": True}


class FieldsMissing(ValueError):
    """None of the fields that an id is made from is in the record; all such records would share one id."""


def _float(token: str) -> float | str:
    """Returns a number as such, or as its text where it lies beyond what a double holds."""
    value = float(token)
    return value if math.isfinite(value) else f"number:{token}"


def _integer(token: str) -> int | str:
    """Returns a whole number as such, or as its text where it has more digits than msgspec takes."""
    return int(token) if len(token) <= LONGEST_INTEGER else f"number:{token}"


_decode: Final = msgspec.json.Decoder().decode
_encode: Final = msgspec.json.Encoder(order="deterministic").encode
_digest: Final = xxhash.xxh3_128_hexdigest


def _parse(line: bytes) -> Any:
    try:
        return _decode(line)
    except msgspec.ValidationError:  # a number that is too large or too long
        return json.loads(line, parse_float=_float, parse_int=_integer)


def canonical(line: bytes) -> bytes:
    r"""Returns a record's canonical JSON: keys sorted, no white space, strings and floats in one spelling.

    Integers keep all their digits. Of a key that stands twice, the last value counts.

    >>> canonical(b'{"b": 1.50, "a": "\\u0041"}')
    b'{"a":"A","b":1.5}'
    """
    written = extension.canonical(line) if extension else None
    return canonical_by_parsing(line) if written is None else written


def canonical_by_parsing(line: bytes) -> bytes:
    """Returns the same of any record, without the C extension, which leaves the uncommon ones to this."""
    return _encode(_parse(line))


def content_id(line: bytes) -> str:
    """Returns the id of a record's content; key order and white space do not matter.

    >>> content_id(b'{"a":1,"b":2}') == content_id(b'{ "b": 2, "a": 1 }')
    True
    """
    return id_of_canonical(canonical(line))


def id_of_canonical(text: bytes) -> str:
    """Returns the `content_id` of a record whose canonical JSON is at hand."""
    return _digest(text)


def line_id(line: bytes) -> str:
    r"""Returns the id of a record's bytes, without the white space around them.

    >>> line_id(b'{"a":1}\r') == line_id(b'{"a":1}')
    True
    """
    return _digest(line.strip(b" \t\r\n"))


def fields_id(line: bytes, fields: Sequence[str]) -> str:
    """Returns the id of the named properties (`event` names the event's own name), in the order given.

    Raises:
        FieldsMissing: if the record has none of them.
    """
    record = _parse(line)
    properties: Mapping[str, Any] = record["properties"]
    values = [record["event"] if name == "event" else properties.get(name, _MISSING) for name in fields]
    if all(value is _MISSING for value in values):
        raise FieldsMissing(f"none of the fields {', '.join(fields)} is in the record")
    return _digest(_encode(values))


def located(insert_id: str, file: str, offset: int) -> str:
    """Returns an id that also depends on where the record stands, so that identical rows stay apart.

    `file` is the URI without the suffix of a compression, `offset` counts decompressed bytes: compressing a
    file does not change its ids, moving it does.
    """
    return _digest(f"{insert_id}\0{file}\0{offset}".encode())


@dataclass(frozen=True, slots=True)
class InsertIdPolicy:
    """How records without a valid `$insert_id` get one.

    Attributes:
        mode: `content`, `line` or `fields`.
        fields: property names, for `fields`.
        identical_rows: `merge` gives identical rows one id, `keep` gives each row its own.
    """

    mode: InsertIdMode = "content"
    fields: tuple[str, ...] = ()
    identical_rows: Literal["merge", "keep"] = "merge"

    def __post_init__(self) -> None:
        if (self.mode == "fields") != bool(self.fields):
            raise ValueError("insert_id.fields goes with mode: fields, and only with it")

    @property
    def keeps_rows(self) -> bool:
        """True where the row's place enters its id."""
        return self.identical_rows == "keep"

    def recipe(self) -> Callable[[bytes], str]:
        """Returns the function from a record's bytes to its id, before its place is added."""
        if self.mode == "content":
            return content_id
        if self.mode == "line":
            return line_id
        return lambda line: fields_id(line, self.fields)
