"""Writes down refused records: a JSON object each, with what a person or a replay needs, nothing secret."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache, partial
from itertools import chain, repeat, starmap
from typing import Final, NamedTuple

import msgspec

from mixpanel_http.insert_ids import LONGEST_INTEGER
from mixpanel_http.mixed_records import without_token
from mixpanel_http.verdicts import Reason, Rejection
from transforms.compression import without_suffix
from transforms.elements import Block, OversizeLine, block_lines
from transforms.letters import (
    NO_LETTERS,
    Following,
    LetterLines,
    are_json,
    as_base64,
    as_record,
    following,
    letters_of,
)

VERSION: Final = 1
_NO_JSON: Final = frozenset(
    {
        Reason.INVALID_JSON.value,
        Reason.INVALID_UTF8.value,
        Reason.NON_FINITE_NUMBER.value,
        Reason.LONE_SURROGATE.value,
    }
)
_TOKEN: Final = b'token"'
_AS_IT_IS: Final = b""
_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(float_hook=str).decode
_look_at: Final = msgspec.json.Decoder(msgspec.Raw).decode  # at the syntax; decodes nothing


class _SentProperties(msgspec.Struct, gc=False):
    insert_id: str | None = msgspec.field(name="$insert_id", default=None)


class _Sent(msgspec.Struct, gc=False):
    properties: _SentProperties


_decode_sent: Final = msgspec.json.Decoder(_Sent).decode


class Source(NamedTuple):
    """Where a line stands: its file, its number there and its offset, as far as they are known."""

    uri: str
    line: int | None
    offset: int | None


class _Told(msgspec.Struct, gc=False):
    """What a letter says before it names the source."""

    v: int
    stage: str
    reason: str
    http_status: int | None
    field: str | None
    message: str


class _Rest(msgspec.Struct, gc=False):
    """What it says behind it, but for the record; what is UNSET is left out."""

    insert_id: str | None
    output: int | msgspec.UnsetType
    truncated: bool | msgspec.UnsetType = msgspec.UNSET
    length: int | msgspec.UnsetType = msgspec.UNSET
    sha256: str | msgspec.UnsetType = msgspec.UNSET


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


def dead_letters(
    block: Block, rejections: Sequence[Rejection], stage: str, sent_ids: Sequence[str | None] = ()
) -> LetterLines:
    """Returns a dead letter for each rejection of a block's lines, in their order.

    Args:
        block: the block.
        rejections: what was refused; their index counts the block's lines.
        stage: the step that refused: `map`, `prepare` or `import`.
        sent_ids: the `$insert_id`s that were sent, in the order of the rejections.
    """
    if not rejections:
        return NO_LETTERS  # nearly every block
    opening = cache(partial(_opening, stage))  # where much is refused, little differs between the letters
    closing = cache(partial(_closing, block.oversize))
    indices = [rejection.index for rejection in rejections]
    lines = letters_of(
        block.raw,
        _places(block),
        indices,
        [
            opening(r.reason, r.http_status, r.field, r.message, uri)
            for r, uri in zip(rejections, _uris(block, indices), strict=False)
        ],
        [closing(r.output, id_) for r, id_ in zip(rejections, chain(sent_ids, repeat(None)), strict=False)],
        _contents(block, rejections),
    )
    return LetterLines(lines, len(rejections))


def _opening(
    stage: str, reason: str, http_status: int | None, field: str | None, message: str, uri: str
) -> bytes:
    """Returns a letter up to the line's number."""
    told = _encode(_Told(VERSION, stage, reason, http_status, field, message))
    return b'%b,"source":{"uri":%b,"line":' % (told[:-1], _encode(uri))


def _closing(oversize: OversizeLine | None, output: int | None, sent_id: str | None) -> bytes:
    """Returns what a letter says between the line's offset and the record."""
    rest = _Rest(sent_id, msgspec.UNSET if output is None else output)
    if oversize:
        rest.truncated, rest.length, rest.sha256 = True, oversize.length, oversize.sha256
    return b"},%b," % _encode(rest)[1:-1]


def _places(block: Block) -> list[Following]:
    found = []
    for span in block.spans:
        if span.offsets:
            found += [following(1, *place) for place in span.places([0] * span.lines)]
        else:
            found.append(following(span.lines, span.first_line, span.offset))
    return found


def _uris(block: Block, indices: Sequence[int]) -> Iterable[str]:
    """Returns the file of each of some lines."""
    if len(block.spans) == 1:
        return repeat(block.spans[0].uri)
    uris = [uri for span in block.spans for uri in repeat(span.uri, span.lines)]
    return [uris[index] for index in indices]


def _contents(block: Block, rejections: Sequence[Rejection]) -> list[bytes | None]:
    """Returns for each rejection what holds the record; None where that is the line in base64."""
    in_base64 = {refused.index for refused in block.refused if refused.in_base64}
    tells_token = _TOKEN in block.raw
    if not (tells_token or in_base64) and all(r.reason in _NO_JSON for r in rejections):
        return [None] * len(rejections)
    every = block_lines(block)
    lines = [every[rejection.index] for rejection in rejections]
    contents: list[bytes | None] = []
    for rejection, line, is_json in zip(rejections, lines, are_json(lines), strict=True):
        told = without_token(line) if tells_token and _TOKEN in line else line
        if rejection.index in in_base64:
            contents.append(b'"raw_b64":"%b"' % told)
        elif rejection.reason in _NO_JSON or block.oversize:
            contents.append(as_base64(told))
        elif is_json and told is line:
            contents.append(_AS_IT_IS)
        else:
            contents.append(as_record(told) if _is_json(told) else as_base64(told))
    return contents


def sent_insert_id(record: bytes) -> str | None:
    """Returns the `$insert_id` of a record as it was sent."""
    return _decode_sent(record).properties.insert_id


def _is_json(line: bytes) -> bool:
    # Half a character and a number that is too long are found by nothing but decoding.
    read = _decode if len(line) > LONGEST_INTEGER or b"\\u" in line else _look_at
    try:
        line.decode()
        read(line)
    except (ValueError, RecursionError):
        return False
    return True
