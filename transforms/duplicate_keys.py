"""Refuses lines in which an object has the same key twice, for runs that ask for it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final, Literal

from mixpanel_http.verdicts import Reason
from source_formats.lines import RefusedLine, refused_line
from transforms.elements import Block, Span, block_lines

DuplicateKeys = Literal["last", "refuse"]


class _Twice(Exception):
    pass


def has_key_twice(line: bytes) -> bool:
    r"""Returns whether an object of a line has a key twice; what is no JSON is for others to refuse.

    >>> has_key_twice(b'{"a": {"b": 1, "\\u0062": 2}}'), has_key_twice(b'{"a": 1, "b": {"a": 2}}')
    (True, False)
    """
    try:
        _decode(line.decode())
    except _Twice:
        return True
    except (ValueError, RecursionError):
        return False
    return False


def refuse_duplicates(block: Block) -> Block:
    """Returns a block in which lines with a key twice are refused; they stand there as refused lines do."""
    if block.oversize is not None or not block.raw:
        return block
    lines = block_lines(block)
    done = {*block.torn, *(line.index for line in block.refused)}
    twice = [i for i, line in enumerate(lines) if i not in done and has_key_twice(line)]
    if not twice:
        return block
    spans = tuple(_with_places(block.spans, list(map(len, lines))))
    for i in twice:
        lines[i] = refused_line(lines[i])[:-1]
    refused = (
        *block.refused,
        *(RefusedLine(i, Reason.DUPLICATE_KEYS.value, "an object has a key twice") for i in twice),
    )
    raw = b"\n".join(lines) + b"\n"
    return replace(block, raw=raw, spans=spans, refused=tuple(sorted(refused, key=lambda line: line.index)))


def _with_places(spans: Sequence[Span], lengths: list[int]) -> list[Span]:
    """Returns spans that know each line's offset by heart, as the lines are about to change their lengths."""
    found, first = [], 0
    for span in spans:
        own = lengths[first : first + span.lines]
        first += span.lines
        offsets = [offset for _, offset in span.places(own)]
        known = tuple(offset for offset in offsets if offset is not None)
        found.append(span._replace(offsets=known if len(known) == span.lines else ()))
    return found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _Twice
    return found


_decode: Final = json.JSONDecoder(object_pairs_hook=_unique, parse_int=str, parse_float=str).decode
