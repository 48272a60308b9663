"""Writes down refused records: a JSON object each, with what a person or a replay needs, nothing secret."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import chain, repeat, starmap
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
_encode_lines: Final = msgspec.json.Encoder().encode_lines
_decode: Final = msgspec.json.Decoder(float_hook=str).decode


class _SentProperties(msgspec.Struct, gc=False):
    insert_id: str | None = msgspec.field(name="$insert_id", default=None)


class _Sent(msgspec.Struct, gc=False):
    properties: _SentProperties


_decode_sent: Final = msgspec.json.Decoder(_Sent).decode


class Source(msgspec.Struct, gc=False):
    """Where a line stands: its file, its number there and its offset, as far as they are known."""

    uri: str
    line: int | None
    offset: int | None


class _Letter(msgspec.Struct, gc=False):
    """A dead letter; what is UNSET is left out."""

    v: int
    stage: str
    reason: str
    http_status: int | None
    field: str | None
    message: str
    source: Source
    insert_id: str | None
    output: int | msgspec.UnsetType = msgspec.UNSET
    truncated: bool | msgspec.UnsetType = msgspec.UNSET
    length: int | msgspec.UnsetType = msgspec.UNSET
    sha256: str | msgspec.UnsetType = msgspec.UNSET
    record: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    raw_b64: Any = msgspec.UNSET  # bytes are written in base64, text is that already


class LinePlaces:
    """Where each line of a block stands.

    Attributes:
        sources: each line's place as dead letters show it.
    """

    def __init__(self, block: Block, lines: Sequence[bytes]) -> None:
        """Takes a block and its lines; the places are worked out in one pass."""
        self.sources: list[Source] = []
        line = 0
        for span in block.spans:
            lengths = list(map(len, lines[line : line + span.lines]))
            self.sources += starmap(partial(Source, span.uri), span.places(lengths))
            line += span.lines

    def id_place(self, index: int) -> tuple[str, int]:
        """Returns what enters a line's id where identical rows are kept apart: its offset, or else number."""
        place = self.sources[index]
        return without_suffix(place.uri), (place.line or 0) if place.offset is None else place.offset


def block_lines(block: Block) -> list[bytes]:
    """Returns a block's lines without their newlines."""
    return block.raw.removesuffix(b"\n").split(b"\n") if block.raw else []


def dead_letters(
    block: Block, rejections: Sequence[Rejection], stage: str, sent_ids: Sequence[str | None] = ()
) -> list[bytes]:
    """Returns a dead letter for each rejection of a block's lines, encoded all at once.

    Args:
        block: the block.
        rejections: what was refused; their index counts the block's lines.
        stage: the step that refused: `map`, `prepare` or `import`.
        sent_ids: the `$insert_id`s that were sent, in the order of the rejections.
    """
    if not rejections:
        return []  # nearly every block: splitting it again would cost as much as decoding it
    lines = block_lines(block)
    places = LinePlaces(block, lines).sources
    tells_token = b'token"' in block.raw
    in_base64 = {refused.index for refused in block.refused if refused.in_base64}
    letters = []
    for rejection, sent_id in zip(rejections, chain(sent_ids, repeat(None)), strict=False):
        index = rejection.index
        line = lines[index]
        if tells_token and b'token"' in line:
            line = without_token(line)
        letter = _Letter(
            VERSION,
            stage,
            rejection.reason,
            rejection.http_status,
            rejection.field,
            rejection.message,
            places[index],
            sent_id,
        )
        if rejection.output is not None:
            letter.output = rejection.output
        if block.oversize:
            letter.truncated, letter.length = True, block.oversize.length
            letter.sha256 = block.oversize.sha256
        if index in in_base64:
            letter.raw_b64 = line.decode()
        elif rejection.reason in _NO_JSON or block.oversize or not _is_json(line):
            letter.raw_b64 = line
        else:
            letter.record = msgspec.Raw(line.strip(b" \t\r\n"))
        letters.append(letter)
    encoded = _encode_lines(letters).split(b"\n")
    encoded.pop()  # behind the last newline
    return encoded


def sent_insert_id(record: bytes) -> str | None:
    """Returns the `$insert_id` of a record as it was sent."""
    return _decode_sent(record).properties.insert_id


def _is_json(line: bytes) -> bool:
    try:
        line.decode()
        _decode(line)
    except (ValueError, RecursionError):
        return False
    return True
