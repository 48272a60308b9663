"""Opens dead letters: from a block of letters to a block of their records, at the places they came from.

So a replayed record keeps the file, line and offset that it had, and the `$insert_id` with which it was sent.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, replace
from typing import Any, Final

import msgspec

from mixpanel_http.record_syntax import raw_object
from mixpanel_http.verdicts import Reason
from transforms.elements import Block, Span, block_lines

_raw_pair: Final = msgspec.json.Decoder(tuple[msgspec.Raw, msgspec.Raw]).decode
_encode: Final = msgspec.json.Encoder().encode


class _Source(msgspec.Struct, gc=False):
    uri: str
    line: int | None = None
    offset: int | None = 0


class _Letter(msgspec.Struct, gc=False):
    source: _Source
    reason: str = ""
    insert_id: str | None = None
    output: int | None = None
    record: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    raw_b64: str | msgspec.UnsetType = msgspec.UNSET


_letter: Final = msgspec.json.Decoder(_Letter).decode


@dataclass(frozen=True, slots=True)
class _Opened:
    record: bytes
    uri: str
    line: int | None
    offset: int | None
    torn: bool = False
    output: int | None = None


def open_letters(block: Block) -> Block:
    """Returns the block with each letter's record in place of the letter.

    A line that is no letter stays as it is, at its own place, and is refused for what it is.
    """
    if not block.raw or block.oversize:
        return block
    opened: list[tuple[int, _Opened]] = []
    lines = block_lines(block)
    position = 0
    for span in block.spans:
        own = lines[position : position + span.lines]
        position += span.lines
        for line, place in zip(own, span.places([len(line) for line in own]), strict=True):
            opened.append((span.part, _open(line) or _Opened(line, span.uri, *place)))
    spans = tuple(
        Span(part, letter.uri, 1, len(letter.record) + 1, letter.line, letter.offset)
        for part, letter in opened
    )
    torn = {i for i, (_, letter) in enumerate(opened) if letter.torn} | set(block.torn)
    raw = b"".join(letter.record + b"\n" for _, letter in opened)
    wanted = tuple(letter.output for _, letter in opened)
    return replace(block, raw=raw, spans=spans, torn=tuple(sorted(torn)), wanted=wanted)


def _open(line: bytes) -> _Opened | None:
    """Returns a letter's record and place, or None if the line is no letter."""
    try:
        letter = _letter(line)
        if isinstance(letter.raw_b64, str):
            record = base64.b64decode(letter.raw_b64, validate=True)
        elif isinstance(letter.record, msgspec.Raw):
            # The id of a mapped record is made again with it: the letter holds what it was made from.
            insert_id = letter.insert_id if letter.output is None else None
            record = _with_id(bytes(letter.record), insert_id)
        else:
            return None
    except (msgspec.DecodeError, UnicodeDecodeError, binascii.Error, RecursionError):
        return None
    if b"\n" in record:
        return None
    source = letter.source
    torn = letter.reason == Reason.TRUNCATED_TAIL.value
    return _Opened(record, source.uri, source.line, source.offset, torn, letter.output)


def _with_id(record: bytes, insert_id: str | None) -> bytes:
    """Returns a record with the id that it was sent with; everything else stays token for token."""
    if insert_id is None:
        return record
    try:
        if record.startswith(b"["):
            endpoint, message = _raw_pair(record)  # a record that carries its own kind
            return b"[%b,%b]" % (bytes(endpoint), _with_id(bytes(message), insert_id))
        event: dict[str, Any] = dict(raw_object(record))
        properties: dict[str, Any] = dict(raw_object(event["properties"]))
    except (msgspec.DecodeError, KeyError):
        return record
    encoded = _encode(insert_id)
    if properties.get("$insert_id") == msgspec.Raw(encoded):
        return record
    properties["$insert_id"] = msgspec.Raw(encoded)
    event["properties"] = msgspec.Raw(_encode(properties))
    return _encode(event)
