"""Request bodies: inflating them within a limit, and finding where each record of a body begins and ends."""

import base64
import binascii
import json
import math
from typing import Any
from urllib.parse import parse_qsl

import msgspec
import orjson
from isal import isal_zlib

GZIP_WINDOW = 31  # 15 bits of window + 16: expect a gzip header and check its trailer
FLOAT_DIGITS = 309  # a whole number of more digits is beyond any float
STORED_LEVEL = 1  # ISA-L; the store keeps bodies compressed, so disk and page cache see a tenth of the bytes


class BodyTooLargeError(Exception):
    """The body is larger, uncompressed, than the limit."""


class BodyMalformedError(Exception):
    """The body is not what its headers say; the message says how."""


Span = tuple[int, int]  # where one record lies in a body: its start and its length


def inflate(wire: bytes, encoding: str, limit: int) -> bytes:
    """Returns the uncompressed body, reading no further than one byte beyond the limit."""
    if encoding in ("", "identity"):
        return _within(wire, limit)
    if encoding != "gzip":  # OAI-ING: the schema's enum holds gzip only; what others do is not said
        raise BodyMalformedError(f"unsupported content encoding: {encoding[:40]}")
    parts: list[bytes] = []
    size = 0
    while wire:
        member, wire = _inflate_member(wire, limit + 1 - size)
        size += len(member)
        if size > limit:
            raise BodyTooLargeError
        parts.append(member)
    if not parts:
        raise BodyMalformedError("request body is not valid gzip")
    return parts[0] if len(parts) == 1 else b"".join(parts)


def deflate(body: bytes) -> bytes:
    """Returns the body as one gzip member, as the store keeps it."""
    compressor = isal_zlib.compressobj(STORED_LEVEL, isal_zlib.DEFLATED, GZIP_WINDOW)
    return compressor.compress(body) + compressor.flush()


def find_records(body: bytes) -> list[Span]:
    """Returns where the records of a JSON array, of a single object or of NDJSON lie; blank lines are none.

    >>> find_records(b'[{"a":1}, {}]')
    [(1, 7), (10, 2)]
    """
    head = body[:64].lstrip()[:1] or body.lstrip()[:1]
    if head == b"[":
        return _array_items(body)
    return _lines(body)


def parse_json(raw: bytes) -> Any:
    """Returns what a JSON text holds; numbers that no float can hold are infinity."""
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        value = json.loads(raw.decode(), parse_constant=_no_number, parse_int=_whole_number)
        json.dumps(value, ensure_ascii=False).encode()  # raises where a text is half of a surrogate pair
        return value


def form_data(body: bytes) -> dict[str, str]:
    """Returns the fields of an urlencoded form; of a repeated field the first."""
    try:
        pairs = parse_qsl(
            body.decode("ascii", "surrogateescape"), keep_blank_values=True, max_num_fields=1000
        )
    except ValueError as error:
        raise BodyMalformedError("request body is not a valid form") from error
    return dict(reversed(pairs))


def decode_data(text: str) -> bytes:
    """Returns the JSON that a form's `data` field holds, plain or base64 (both are sent by official SDKs)."""
    stripped = text.strip()
    if stripped[:1] in ("{", "["):
        return stripped.encode("utf-8", "surrogateescape")
    try:
        # A plus sign of base64 that was not percent-encoded arrives as a space.
        return base64.b64decode(stripped.replace(" ", "+") + "=" * (-len(stripped) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise BodyMalformedError("data, not valid base64 or JSON") from error


def _whole_number(digits: str) -> float:
    return int(digits) if len(digits) < FLOAT_DIGITS else math.inf


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _within(body: bytes, limit: int) -> bytes:
    if len(body) > limit:
        raise BodyTooLargeError
    return body


def _inflate_member(wire: bytes, most: int) -> tuple[bytes, bytes]:
    inflater = isal_zlib.decompressobj(GZIP_WINDOW)
    try:
        member = inflater.decompress(wire, most)
    except isal_zlib.IsalError as error:  # type: ignore[misc]  # its stub calls it an instance
        raise BodyMalformedError("request body is not valid gzip") from error
    if not inflater.eof and len(member) < most:
        raise BodyMalformedError("request body is not valid gzip")
    return member, inflater.unused_data if inflater.eof else b""


def _lines(body: bytes) -> list[Span]:
    spans: list[Span] = []
    start = 0
    for line in body.split(b"\n"):
        length = len(line)
        if line and not line.isspace():
            spans.append((start, length))
        start += length + 1
    return spans


def _array_items(body: bytes) -> list[Span]:
    try:
        items = msgspec.json.decode(body, type=list[msgspec.Raw])
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return _array_items_one_by_one(body)
    spans = []
    position = body.index(b"[") + 1
    for item in items:
        raw = bytes(item)
        position = body.index(raw, position)
        spans.append((position, len(raw)))
        position += len(raw)
    return spans


def _array_items_one_by_one(body: bytes) -> list[Span]:
    """Finds the items of an array of which one item is bad, so that only that one is refused."""
    text = body.decode("latin-1")  # one character a byte: positions in the text are positions in the body
    scan = json.JSONDecoder(strict=False).raw_decode
    spans: list[Span] = []
    position = _skip_space(text, text.index("[") + 1)
    try:
        while True:
            _, end = scan(text, position)
            spans.append((position, end - position))
            position = _skip_space(text, end)
            if text[position : position + 1] == "]":
                return _nothing_after(text, position + 1, spans)
            if text[position : position + 1] != ",":
                raise BodyMalformedError("request body is not valid JSON")
            position = _skip_space(text, position + 1)
    except (ValueError, RecursionError) as error:
        raise BodyMalformedError("request body is not valid JSON") from error


def _skip_space(text: str, position: int) -> int:
    while text[position : position + 1] in (" ", "\t", "\r", "\n"):
        position += 1
    return position


def _nothing_after(text: str, position: int, spans: list[Span]) -> list[Span]:
    if text[position:].strip(" \t\r\n"):
        raise BodyMalformedError("request body is not valid JSON")
    return spans
