"""Decompresses files of any size as streams, told apart by their content, and notices where they are damaged.

Own code, because what is to be had accepts a truncated `.gz` in silence or gives up the whole file.
"""

from __future__ import annotations

import bz2
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Final, cast

import zstandard
from isal import isal_zlib

_MAGIC: Final = {b"\x1f\x8b": "gzip", b"BZh": "bz2", b"\x28\xb5\x2f\xfd": "zstd"}
SUFFIXES: Final = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd", ".zstd": "zstd"}
_PIECE: Final = 1 << 20  # decompressed at once, at most: a bomb stays as flat as anything else
_ZSTD_INPUT: Final = 1 << 10  # zstd's object takes no bound for its output: 1 KiB is at most some tens of MB
_ISAL_ERROR: Final = cast(type[Exception], isal_zlib.error)  # its stub takes the class for an instance
_ERRORS: Final = (_ISAL_ERROR, zlib.error, OSError, EOFError, ValueError, zstandard.ZstdError)


class DamagedFile(Exception):
    """A compressed file that ends early or is corrupt; what could be read before has been yielded.

    Attributes:
        problem: `truncated` or `corrupt`.
        offset: how many compressed bytes had been taken in.
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
    return next((name for magic, name in _MAGIC.items() if head.startswith(magic)), None)


def without_suffix(uri: str) -> str:
    """Returns a name without the suffix of a compression.

    >>> without_suffix("s3://b/x.json.gz"), without_suffix("x.json")
    ('s3://b/x.json', 'x.json')
    """
    return next((uri.removesuffix(suffix) for suffix in SUFFIXES if uri.endswith(suffix)), uri)


def decompress(chunks: Iterable[bytes], compression: str) -> Iterator[bytes]:
    """Yields a compressed stream's content, in pieces of bounded size; several members follow each other.

    Args:
        chunks: the compressed bytes.
        compression: `gzip`, `bz2` or `zstd`.

    Raises:
        DamagedFile: behind the last good piece, if the stream is cut short or corrupt.
    """
    offset = 0
    member = _new(compression)
    started = False
    for chunk in chunks:
        data = chunk
        while data:
            if not started:
                data = data.lstrip(b"\0")  # padding, which is legal behind a member
                if not data:
                    break
            started = True
            yield from _pieces(member, data, offset)
            if not member.eof:
                break
            data = member.unused_data
            member, started = _new(compression), False
        offset += len(chunk)
    if started:
        raise DamagedFile("truncated", offset, "the file ends in the middle of its compressed data")


def _pieces(member: _Gzip | _Bz2 | _Zstd, data: bytes, offset: int) -> Iterator[bytes]:
    try:
        yield from member.pieces(data)
    except _ERRORS as error:
        raise DamagedFile("corrupt", offset, f"{type(error).__name__}: {error}") from None


class _Gzip:
    """isal's gzip, with its output bounded."""

    def __init__(self) -> None:
        self._inner = isal_zlib.decompressobj(31)

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


def _new(compression: str) -> _Gzip | _Bz2 | _Zstd:
    return _READERS[compression]()
