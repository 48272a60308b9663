"""Decompresses files of any size as streams, told apart by their content, and notices where they are damaged.

Own code, because what is to be had accepts a truncated `.gz` in silence or gives up the whole file.
"""

from __future__ import annotations

import bz2
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, cast

import zstandard
from isal import isal_zlib

_MAGIC: Final = {b"\x1f\x8b": "gzip", b"BZh": "bz2", b"\x28\xb5\x2f\xfd": "zstd"}
MAGIC_BYTES: Final = 4
# Behind a byte 0x5?: a frame without content, which pzstd puts first.
_ZSTD_SKIPPABLE: Final = b"\x2a\x4d\x18"
SUFFIXES: Final = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd", ".zstd": "zstd"}
# Taken in at once: tells where damage is, and what is left over is copied for each member.
SLICE_BYTES: Final = 1 << 16
_PIECE: Final = 1 << 20  # decompressed at once, at most: a bomb stays as flat as anything else
_ZSTD_INPUT: Final = 1 << 10  # zstd's object takes no bound for its output: 1 KiB is at most some tens of MB
_WITH_GZIP_HEADER: Final = 31
_LONG_WINDOW: Final = (
    "zstd with a window above 128 MiB, which takes as much memory; compress it again without --long above 27"
)
_ISAL_ERROR: Final = cast(type[Exception], isal_zlib.error)  # its stub takes the class for an instance
_ERRORS: Final = (_ISAL_ERROR, zlib.error, OSError, EOFError, ValueError)


class DamagedFile(Exception):
    """A file that ends early, is corrupt or of no use; what could be read before has been yielded.

    Attributes:
        problem: `truncated`, `corrupt`, `unsupported_format` or `encoding`.
        offset: where in the stored file that was noticed.
        detail: what is wrong, and what to do about it.
    """

    def __init__(self, problem: str, offset: int, detail: str) -> None:
        super().__init__(f"{problem} at byte {offset:,}: {detail}")
        self.problem = problem
        self.offset = offset
        self.detail = detail


def compression_of(head: bytes) -> str | None:
    r"""Returns the compression that a file's first bytes tell, or None for a plain file.

    >>> compression_of(b"\x1f\x8b\x08"), compression_of(b'{"event"')
    ('gzip', None)
    """
    if head[1:4] == _ZSTD_SKIPPABLE and head[0] >> 4 == 5:
        return "zstd"
    return next((name for magic, name in _MAGIC.items() if head.startswith(magic)), None)


def is_cut_magic(head: bytes) -> bool:
    """Returns whether a whole file is the beginning of what a compressed file begins with, or nothing.

    >>> is_cut_magic(b"BZ"), is_cut_magic(b"{}")
    (True, False)
    """
    return any(magic.startswith(head) and magic != head for magic in _MAGIC)


def without_suffix(uri: str) -> str:
    """Returns a name without the suffix of a compression.

    >>> without_suffix("s3://b/x.json.gz"), without_suffix("x.json")
    ('s3://b/x.json', 'x.json')
    """
    return next((uri.removesuffix(suffix) for suffix in SUFFIXES if uri.endswith(suffix)), uri)


def decompress(chunks: Iterable[bytes], compression: str, careful_from: int | None = None) -> Iterator[bytes]:
    """Yields a compressed stream's content, in pieces of bounded size; several members follow each other.

    A decompressor that meets damage keeps to itself what it had made of the same input before. With care the
    input goes in byte by byte, so that nothing that stands before the damage is lost; that is slow.

    Args:
        chunks: the compressed bytes.
        compression: `gzip`, `bz2` or `zstd`.
        careful_from: the offset from which on to take care.

    Raises:
        DamagedFile: behind the last good piece, if the stream is cut short or corrupt.
    """
    offset = 0
    new = _READERS[compression] if careful_from is None else _CAREFUL[compression]
    member = new()
    started = False
    for data in slices(chunks, careful_from):
        offset += len(data)
        while data:
            if not started:
                data = data.lstrip(b"\0")  # padding, which is legal behind a member
                if not data:
                    break
            started = True
            yield from _pieces(member, data, offset - len(data))
            if not member.eof:
                break
            data = member.unused_data
            member, started = new(), False
    if started:
        raise DamagedFile("truncated", offset, "the file ends in the middle of its compressed data")


def slices(chunks: Iterable[bytes], careful_from: int | None = None) -> Iterator[bytes]:
    """Yields a stream again in small chunks, from an offset on in single bytes."""
    offset = 0
    for chunk in chunks:
        careful = careful_from is not None and offset + len(chunk) > careful_from
        step = 1 if careful else SLICE_BYTES
        if len(chunk) <= step:
            yield chunk
        else:
            yield from (chunk[start : start + step] for start in range(0, len(chunk), step))
        offset += len(chunk)


def _pieces(member: _Gzip | _Bz2 | _Zstd, data: bytes, offset: int) -> Iterator[bytes]:
    try:
        yield from member.pieces(data)
    except zstandard.ZstdError as error:
        if "too much memory" in str(error):
            raise DamagedFile("unsupported_format", offset, _LONG_WINDOW) from None
        raise DamagedFile("corrupt", offset, f"{type(error).__name__}: {error}") from None
    except _ERRORS as error:
        raise DamagedFile("corrupt", offset, f"{type(error).__name__}: {error}") from None


class _Gzip:
    """isal's gzip, with its output bounded."""

    def __init__(self) -> None:
        self._inner: Any = isal_zlib.decompressobj(_WITH_GZIP_HEADER)

    @property
    def eof(self) -> bool:
        return bool(self._inner.eof)

    @property
    def unused_data(self) -> bytes:
        return bytes(self._inner.unused_data)

    def pieces(self, data: bytes) -> Iterator[bytes]:
        while data and not self._inner.eof:
            piece = self._inner.decompress(data, _PIECE)
            data = self._inner.unconsumed_tail
            if piece:
                yield piece


class _CarefulGzip(_Gzip):
    """zlib's gzip, which unlike isal's works nothing out ahead of what it gives."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(_WITH_GZIP_HEADER)


class _Bz2:
    """The standard library's bz2, with its output bounded."""

    def __init__(self) -> None:
        self._inner = bz2.BZ2Decompressor()

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def pieces(self, data: bytes) -> Iterator[bytes]:
        while not self._inner.eof:
            piece = self._inner.decompress(data, _PIECE)
            if piece:
                yield piece
            if self._inner.needs_input:
                return
            data = b""


class _Zstd:
    """zstandard's decompressor, fed little by little."""

    def __init__(self) -> None:
        self._inner = zstandard.ZstdDecompressor().decompressobj()
        self.unused_data = b""

    @property
    def eof(self) -> bool:
        return bool(self._inner.eof)

    def pieces(self, data: bytes) -> Iterator[bytes]:
        for start in range(0, len(data), _ZSTD_INPUT):
            piece = self._inner.decompress(data[start : start + _ZSTD_INPUT])
            if piece:
                yield piece
            if self._inner.eof:
                self.unused_data = self._inner.unused_data + data[start + _ZSTD_INPUT :]
                return


_READERS: Final[dict[str, Callable[[], _Gzip | _Bz2 | _Zstd]]] = {"gzip": _Gzip, "bz2": _Bz2, "zstd": _Zstd}
_CAREFUL: Final = {**_READERS, "gzip": _CarefulGzip}
