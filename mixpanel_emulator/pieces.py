"""Streams of lines, cut into pieces that are worth a write of their own."""

from collections.abc import Iterator

PIECE_BYTES = 256 * 1024


def in_pieces(lines: Iterator[bytes]) -> Iterator[bytes]:
    r"""Yields lines, each ended, joined to pieces.

    >>> list(in_pieces(iter([b"a", b"b"])))
    [b'a\nb\n']
    """
    piece: list[bytes] = []
    size = 0
    for line in lines:
        piece += (line, b"\n")
        size += len(line) + 1
        if size >= PIECE_BYTES:
            yield b"".join(piece)
            piece, size = [], 0
    if piece:
        yield b"".join(piece)
