"""Turns a stored file into the text in it: decompressed as often as need be, from behind a byte order mark.

What is no UTF-8 text for certain (UTF-16, an archive, a compression that is not read here) is refused by name
before its first line, so that it is one problem of one file and not a dead letter for each of its lines.
"""

from __future__ import annotations

import codecs
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Final

from transforms.compression import (
    MAGIC_BYTES,
    SLICE_BYTES,
    SUFFIXES,
    DamagedFile,
    compression_of,
    decompress,
    is_cut_magic,
    slices,
)
from transforms.line_blocks import count_lines

_LAYERS: Final = 2  # a compressed file that some tool compressed once more
_HEAD_BYTES: Final = 512
_MARKS: Final = {
    codecs.BOM_UTF32_LE: "UTF-32LE",  # before UTF-16's, with which it begins
    codecs.BOM_UTF32_BE: "UTF-32BE",
    codecs.BOM_UTF16_LE: "UTF-16LE",
    codecs.BOM_UTF16_BE: "UTF-16BE",
}
# Without a mark: the two or one characters that JSON begins with, each in its wide form.
_WIDE: Final = {
    "UTF-32LE": re.compile(rb"[\t\n\r -~]\0\0\0"),
    "UTF-32BE": re.compile(rb"\0\0\0[\t\n\r -~]"),
    "UTF-16LE": re.compile(rb"[\t\n\r -~]\0[\t\n\r -~]\0"),
    "UTF-16BE": re.compile(rb"\0[\t\n\r -~]\0[\t\n\r -~]"),
}
_FOREIGN: Final = {
    b"PK\x03\x04": "a zip archive; unpack it",
    b"\xfd7zXZ\0": "compressed by xz; compress it with gzip, bzip2 or zstd instead",
    b"\x04\x22\x4d\x18": "compressed by lz4; compress it with gzip, bzip2 or zstd instead",
    b"\xff\x06\0\0sNaPpY": "compressed by snappy; compress it with gzip, bzip2 or zstd instead",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive; unpack it",
    b"\x1f\x9d": "compressed by compress (.Z); compress it with gzip, bzip2 or zstd instead",
}
_TAR: Final = slice(257, 262)
_CONTROL: Final = re.compile(rb"[\0-\x08\x0e-\x1a\x1c-\x1f]")


def text_of(stored: Callable[[], Iterable[bytes]], name: str) -> Iterator[tuple[int, bytes]]:
    """Yields (offset, bytes) of a file's text; offsets count decompressed bytes, also of a byte order mark.

    Args:
        stored: returns the stored bytes; what is damaged is read a second time, with care.
        name: the file's; it only helps to tell damage from text.

    Raises:
        DamagedFile: behind the last good byte, or before the first if the file is no text.
    """
    reached = 0
    try:
        for offset, piece in _text(stored(), name):
            yield offset, piece
            reached = offset + len(piece)
    except DamagedFile as damage:
        if damage.problem not in ("corrupt", "truncated"):
            raise
        careful_from = max(0, damage.offset - SLICE_BYTES)
    else:
        return
    yield from _joined(_behind(reached, _text(stored(), name, careful_from)))


def verify(stored: Callable[[], Iterable[bytes]], name: str) -> None:
    """Reads a file through and keeps nothing of it.

    Raises:
        DamagedFile: if it cannot be read to its end.
    """
    lines = 0
    try:
        for _, piece in text_of(stored, name):
            lines += count_lines(piece)
    except DamagedFile as error:
        told = f"{error.detail}; nothing of the file was sent, {lines:,} whole lines stand before the damage"
        raise DamagedFile(error.problem, error.offset, told) from None


def _text(chunks: Iterable[bytes], name: str, careful_from: int | None = None) -> Iterator[tuple[int, bytes]]:
    stored = _Counted(slices(chunks, careful_from))
    head, stream = _peek(stored)
    layers = 0
    try:
        while (compression := compression_of(head)) is not None:
            if layers == _LAYERS:
                raise DamagedFile(
                    "unsupported_format", 0, "compressed three times or more; decompress it first"
                )
            layers += 1
            head, stream = _peek(decompress(stream, compression, careful_from))
            # What comes out of the first with care comes in pieces that are small enough.
            careful_from = None if careful_from is None else sys.maxsize
        check_head(head, "" if layers else name)
        yield from behind_mark(_with_offsets(stream))
    except DamagedFile as error:
        if layers < _LAYERS:
            raise
        # What is inside counts bytes of its own.
        raise DamagedFile(error.problem, stored.taken, error.detail) from None


def _behind(reached: int, chunks: Iterable[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
    """Yields what stands behind an offset."""
    for offset, piece in chunks:
        skipped = max(0, reached - offset)
        if skipped < len(piece):
            yield offset + skipped, piece[skipped:]


def check_head(head: bytes, name: str) -> None:
    """Refuses a file whose first bytes tell that it is no UTF-8 text.

    Args:
        head: the first bytes, decompressed; of a short file all of it.
        name: the file's, or nothing if it was decompressed.

    Raises:
        DamagedFile: with what it is instead, and what to do.
    """
    encoding = encoding_of(head)
    if encoding is not None:
        detail = f"text in {encoding}, not UTF-8; convert it: iconv -f {encoding} -t UTF-8"
        raise DamagedFile("encoding", 0, detail)
    foreign = next((what for magic, what in _FOREIGN.items() if head.startswith(magic)), None)
    if foreign is None and head[_TAR] == b"ustar":
        foreign = "a tar archive; unpack it"
    if foreign is not None:
        raise DamagedFile("unsupported_format", 0, foreign)
    suffix = next((suffix for suffix in SUFFIXES if name.endswith(suffix)), None)
    if suffix is None:
        return
    if len(head) < MAGIC_BYTES and is_cut_magic(head):
        raise DamagedFile("truncated", len(head), f"a {suffix} file of {len(head)} bytes")
    if _CONTROL.search(head):
        raise DamagedFile("corrupt", 0, f"a {suffix} file that begins neither as such nor as text")


def encoding_of(head: bytes) -> str | None:
    r"""Returns the encoding that a file's first bytes tell, if it is another one than UTF-8.

    >>> encoding_of("{}".encode("utf-16")), encoding_of("{}".encode("utf-16-be")), encoding_of(b"{}")
    ('UTF-16LE', 'UTF-16BE', None)
    """
    marked = next((name for mark, name in _MARKS.items() if head.startswith(mark)), None)
    return marked or next((name for name, begins in _WIDE.items() if begins.match(head)), None)


def behind_mark(chunks: Iterable[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
    """Yields a file's chunks with their offsets, from its beginning on, without a byte order mark."""
    ordered = iter(chunks)
    offset, head = next(ordered, (0, b""))
    while len(head) < len(codecs.BOM_UTF8) and (more := next(ordered, None)) is not None:
        head += more[1]
    if head.startswith(codecs.BOM_UTF8):
        offset, head = offset + len(codecs.BOM_UTF8), head[len(codecs.BOM_UTF8) :]
    if head:
        yield offset, head
    yield from ordered


def _joined(chunks: Iterable[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
    """Yields chunks joined, as they come byte by byte; what came before damage comes before it still."""
    start, held = 0, bytearray()
    damage: DamagedFile | None = None
    try:
        for offset, piece in chunks:
            start = start if held else offset
            held += piece
            if len(held) >= SLICE_BYTES:
                yield start, bytes(held)
                held.clear()
    except DamagedFile as error:
        damage = error
    if held:
        yield start, bytes(held)
    if damage is not None:
        raise damage


def _with_offsets(stream: Iterator[bytes]) -> Iterator[tuple[int, bytes]]:
    offset = 0
    for piece in stream:
        yield offset, piece
        offset += len(piece)


class _Counted:
    """A stream that says how many of its bytes have been taken."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self.taken = 0

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._chunks:
            self.taken += len(chunk)
            yield chunk


def _peek(chunks: Iterable[bytes]) -> tuple[bytes, Iterator[bytes]]:
    """Returns a stream's first bytes, and the stream from its beginning, with its damage where it was."""
    stream, held, damage = iter(chunks), b"", None
    try:
        while len(held) < _HEAD_BYTES and (piece := next(stream, None)) is not None:
            held += piece
    except DamagedFile as error:
        damage = error
    return held[:_HEAD_BYTES], chain((held,) if held else (), _raise(damage) if damage else stream)


def _raise(damage: DamagedFile) -> Iterator[bytes]:
    raise damage
    yield b""
