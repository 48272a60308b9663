"""Counts records whose strings Mixpanel will cut: it keeps 255 characters of each and says nothing.

The records are sent as they are; the report tells how many will be shorter over there. A look at every string
would cost a fifth of a run. So a block is first cleared as a whole: a string that is long enough fills at
least one aligned row of 128 bytes without a quote. Only lines with such a row are decoded.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgspec
import numpy as np

from mixpanel_http import limits

TRUNCATED: Final = "truncated_strings"
_ROW: Final = (limits.MAX_STRING + 1) // 2
_WORD: Final = 8
_QUOTE: Final = ord('"')
_BACKSLASH: Final = ord("\\")
_decode: Final = msgspec.json.Decoder(float_hook=str).decode


def count_truncated(body: bytes) -> int:
    r"""Returns how many records of an NDJSON body have a property name or string that will be cut.

    >>> count_truncated(b'{"properties":{"a":"%b"}}\n{"properties":{"a":"%b"}}' % (b"x" * 255, b"x" * 256))
    1
    """
    return sum(_is_cut(line) for line in _candidates(body))


def _candidates(body: bytes) -> Iterator[bytes]:
    """Yields the lines that may hold a long string; all that do are among them."""
    characters = np.frombuffer(body, np.uint8, len(body) // _ROW * _ROW)
    quotes = characters == _QUOTE
    if b"\\" in body:
        # A quote behind a backslash ends no string. Where the backslash is escaped itself it does, and two
        # strings are taken for one: then a line is looked at for nothing.
        quotes[1:] &= characters[:-1] != _BACKSLASH
    words = quotes.view(np.uint64).reshape(-1, _ROW // _WORD)
    rows = np.flatnonzero(np.bitwise_or.reduce(words, axis=1) == 0)
    seen_to = -1
    for row in rows.tolist():
        position = row * _ROW
        if position <= seen_to:
            continue
        end = body.find(b"\n", position)
        seen_to = len(body) if end < 0 else end
        yield body[body.rfind(b"\n", 0, position) + 1 : seen_to]


def _is_cut(line: bytes) -> bool:
    record = _decode(line)
    return isinstance(record, dict) and _is_long(record.get("properties"))


def _is_long(value: Any) -> bool:
    """Returns whether a value, or one within it, is a string that will be cut, or has such a name."""
    if isinstance(value, str):
        return len(value) > limits.MAX_STRING
    if isinstance(value, dict):
        return any(len(name) > limits.MAX_STRING or _is_long(inner) for name, inner in value.items())
    return isinstance(value, list) and any(map(_is_long, value))
