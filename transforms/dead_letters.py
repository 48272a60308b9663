"""Writes down refused records: a JSON object each, with what a person or a replay needs, nothing secret."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec

from mixpanel_http.mixed_records import without_token
from mixpanel_http.verdicts import Reason, Rejection
from transforms.compression import without_suffix
from transforms.elements import Block

VERSION: Final = 1
_NO_JSON: Final = frozenset(
    {
        Reason.INVALID_JSON.value,
        Reason.INVALID_UTF8.value,
        Reason.NON_FINITE_NUMBER.value,
        Reason.LONE_SURROGATE.value,
    }
)
_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(float_hook=str).decode


class _SentProperties(msgspec.Struct, gc=False):
    insert_id: str | None = msgspec.field(name="$insert_id", default=None)


class _Sent(msgspec.Struct, gc=False):
    properties: _SentProperties


_decode_sent: Final = msgspec.json.Decoder(_Sent).decode


class LinePlaces:
    """Where each line of a block stands: its file, its number there and its offset."""

    def __init__(self, block: Block, lines: Sequence[bytes]) -> None:
        """Takes a block and its lines; the places are worked out in one pass."""
        self._places: list[tuple[str, int | None, int | None]] = []
        line = 0
        for span in block.spans:
            lengths = [len(own) for own in lines[line : line + span.lines]]
            self._places += [(span.uri, *place) for place in span.places(lengths)]
            line += span.lines

    def source(self, index: int) -> dict[str, Any]:
        """Returns a line's `source` as dead letters show it."""
        uri, number, offset = self._places[index]
        return {"uri": uri, "line": number, "offset": offset}

    def id_place(self, index: int) -> tuple[str, int]:
        """Returns what enters a line's id where identical rows are kept apart: its offset, or else number."""
        uri, number, offset = self._places[index]
        return without_suffix(uri), (number or 0) if offset is None else offset


def block_lines(block: Block) -> list[bytes]:
    """Returns a block's lines without their newlines."""
    return block.raw.removesuffix(b"\n").split(b"\n") if block.raw else []


def dead_letters(
    block: Block, rejections: Sequence[Rejection], stage: str, sent_ids: Sequence[str | None] = ()
) -> Iterator[bytes]:
    """Yields a dead letter for each rejection of a block's lines.

    Args:
        block: the block.
        rejections: what was refused; their index counts the block's lines.
        stage: the step that refused: `map`, `prepare` or `import`.
        sent_ids: the `$insert_id`s that were sent, in the order of the rejections.
    """
    if not rejections:
        return  # nearly every block: splitting it again would cost as much as decoding it
    lines = block_lines(block)
    places = LinePlaces(block, lines)
    in_base64 = {refused.index for refused in block.refused if refused.in_base64}
    for i, rejection in enumerate(rejections):
        line = lines[rejection.index]
        if b'token"' in line:
            line = without_token(line)
        letter = {
            "v": VERSION,
            "stage": stage,
            "reason": rejection.reason,
            "http_status": rejection.http_status,
            "field": rejection.field,
            "message": rejection.message,
            "source": places.source(rejection.index),
            "insert_id": sent_ids[i] if i < len(sent_ids) else None,
        }
        if rejection.output is not None:
            letter["output"] = rejection.output
        if block.oversize:
            letter |= {"truncated": True, "length": block.oversize.length, "sha256": block.oversize.sha256}
        if rejection.index in in_base64:
            yield _encode(letter | {"raw_b64": line.decode()})
        else:
            unreadable = block.oversize or rejection.reason in _NO_JSON
            yield _encode(letter | (_as_bytes(line) if unreadable else _content(line)))


def sent_insert_id(record: bytes) -> str | None:
    """Returns the `$insert_id` of a record as it was sent."""
    return _decode_sent(record).properties.insert_id


def _content(line: bytes) -> dict[str, Any]:
    """Returns the record itself, token for token, or its bytes where it is no JSON."""
    try:
        line.decode()
        _decode(line)
    except (ValueError, RecursionError):
        return _as_bytes(line)
    return {"record": msgspec.Raw(line.strip(b" \t\r\n"))}


def _as_bytes(line: bytes) -> dict[str, Any]:
    return {"raw_b64": base64.b64encode(line).decode()}
