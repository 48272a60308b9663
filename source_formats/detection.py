"""Tells what a file holds by its first bytes, and names what is known but cannot be read."""

from __future__ import annotations

import json
import re
from codecs import BOM_UTF8
from typing import Final, Literal

import msgspec

from source_formats.json_structure import cut_records
from source_formats.lines import FormatProblem

Format = Literal["ndjson", "json", "csv", "tsv", "parquet", "avro"]

# Of the (decompressed) file; enough for a record that is laid out over many lines.
HEAD_BYTES: Final = 64 << 10
PARQUET_MAGIC: Final = b"PAR1"
AVRO_MAGIC: Final = b"Obj\x01"
_BINARY: Final[dict[bytes, Format]] = {PARQUET_MAGIC: "parquet", AVRO_MAGIC: "avro"}
_TEXT: Final = "write it as NDJSON, CSV, Parquet or Avro"
_UNPACK: Final = "unpack it, and name the files in it"
# What a file is told by, what it is called, and what to do about it.
_REFUSED: Final[tuple[tuple[bytes, str, str], ...]] = (
    (b"ORC", "ORC", "write it as Parquet"),
    (b"ARROW1", "an Arrow file (Feather)", "write it as Parquet"),
    (b"FEA1", "a Feather file", "write it as Parquet"),
    (b"PARE", "Parquet with an encrypted footer", "write it without encryption"),
    (b"PK\x03\x04", "a zip archive or an Excel workbook", f"{_UNPACK}, or save the sheet as CSV"),
    (b"PK\x05\x06", "an empty zip archive", _UNPACK),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Excel workbook", "save the sheet as CSV"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", _UNPACK),
    (b"Rar!\x1a\x07", "a RAR archive", _UNPACK),
    (b"\xfd7zXZ\x00", "xz compression", "compress it with gzip, bz2 or zstd"),
    (b"\x04\x22\x4d\x18", "lz4 compression", "compress it with gzip, bz2 or zstd"),
    (b"\xff\x06\x00\x00sNaPpY", "snappy compression", "compress it with gzip, bz2 or zstd"),
    (b"\x89LZO\x00", "lzo compression", "compress it with gzip, bz2 or zstd"),
    (b"SQLite format 3\x00", "an SQLite database", "export its tables as CSV"),
    (b"SEQ", "a Hadoop sequence file", _TEXT),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file", _TEXT),
    (b"%PDF-", "a PDF document", _TEXT),
    (b"\x89PNG\r\n", "a PNG image", _TEXT),
    (b"\xff\xd8\xff", "a JPEG image", _TEXT),
    (b"\x7fELF", "a program", _TEXT),
)
_MARKUP: Final = re.compile(rb"\s*<(\?xml|!doctype|html|[a-z][\w:.-]*[\s/>])", re.IGNORECASE).match
_TAR: Final = slice(257, 262)
_NAMES: Final[dict[str, Format]] = {".csv": "csv", ".tsv": "tsv", ".tab": "tsv"}
_well_formed: Final = msgspec.json.Decoder(msgspec.Raw).decode
_one_value: Final = json.JSONDecoder(parse_int=str, parse_float=str).raw_decode


def detect_format(head: bytes, name: str) -> Format:
    r"""Returns what a file holds.

    CSV looks like anything; it is told by its name alone, and only where the content is no JSON.

    >>> detect_format(b'{"event": "a"}\n{"event": "b"}\n', "x"), detect_format(b'[{"event": "a"}]', "x")
    ('ndjson', 'json')

    Args:
        head: the file's first bytes, decompressed, up to HEAD_BYTES.
        name: the file's name, without the suffix of a compression.

    Raises:
        FormatProblem: if it is known for something that cannot be read.
    """
    refuse_known(head)
    binary = next((found for magic, found in _BINARY.items() if head.startswith(magic)), None)
    if binary is not None:
        return binary
    text = head.removeprefix(BOM_UTF8).lstrip()
    by_name = next((found for suffix, found in _NAMES.items() if name.lower().endswith(suffix)), None)
    return by_name if by_name and text[:1] not in (b"{", b"[") else _of_json(text)


def is_ndjson(content: bytes) -> bool:
    r"""Returns whether a file certainly has a record a line, by its first line alone.

    What this returns True for `detect_format` takes for NDJSON too, but with a look at more.

    >>> is_ndjson(b'{"event": "a"}\n'), is_ndjson(b'{"event": "a"}{"event": "b"}')
    (True, False)
    """
    if content[:1] != b"{":
        return False
    end = content.find(b"\n", 0, HEAD_BYTES)
    try:
        _well_formed(content[:end] if end >= 0 else content[:HEAD_BYTES])
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


def refuse_known(head: bytes) -> None:
    """Refuses, by name, what is known and cannot be read.

    Raises:
        FormatProblem: that says what the file looks like and what to do.
    """
    for magic, what, remedy in _REFUSED:
        if head.startswith(magic) and _not_text(head, magic):
            raise unsupported(what, remedy)
    if head[_TAR] == b"ustar":
        raise unsupported("a tar archive", _UNPACK)
    if _MARKUP(head.removeprefix(BOM_UTF8)):
        raise unsupported("XML or HTML", _TEXT)


def check_fits(chosen: Format, head: bytes) -> None:
    """Checks that a file does not plainly hold something else than the format that was chosen for it.

    Raises:
        FormatProblem: if it does.
    """
    refuse_known(head)
    looks = next((found for magic, found in _BINARY.items() if head.startswith(magic)), None)
    if head and looks != chosen and (looks is not None or chosen in _BINARY.values()):
        raise FormatProblem(
            "unsupported_format",
            0,
            f"source.format is {chosen}, and this looks like {looks or 'something else'}; "
            "set source.format to auto, or to what the file is",
        )


def unsupported(what: str, remedy: str) -> FormatProblem:
    """Returns the refusal of a file for what it looks like."""
    return FormatProblem("unsupported_format", 0, f"it looks like {what}, which cannot be read; {remedy}")


def _not_text(head: bytes, magic: bytes) -> bool:
    """Returns whether a file that begins with letters is more than a text that happens to begin with them."""
    return not magic.isalpha() or any(byte < 9 for byte in head[len(magic) : len(magic) + 64])


def _of_json(text: bytes) -> Format:
    """Returns how JSON is laid out: a record a line, or in any other way."""
    first, _, more = text.partition(b"\n")
    if text[:1] == b"[":
        return "json" if text[1:].lstrip()[:1] in (b"{", b"]", b"") else "ndjson"
    if text[:1] != b"{" or _is_json(first):
        return "ndjson"
    if text[1:].lstrip()[:1] not in (b'"', b"}", b""):
        return "ndjson"  # no layout makes JSON of it, and lines are told one by one
    cut = cut_records(text)
    if cut.spans:
        start, end = cut.spans[0]
        spread = b"\n" in text[start:end].strip()
        behind = text[end:].lstrip(b" \t")
        joined = behind[:1] == b"{" or (behind[:1] == b"," and behind.lstrip(b" \t\r\n,")[:1] == b"{")
        return "json" if (spread or joined) and _is_json(text[start:end]) else "ndjson"
    lines = more.split(b"\n")[:-1]
    return "json" if lines and not any(map(_is_record, lines)) and _ends_between_tokens(first) else "ndjson"


def _is_json(text: bytes) -> bool:
    try:
        decoded = text.decode().strip()
        return _one_value(decoded)[1] == len(decoded)
    except (ValueError, RecursionError):
        return False


def _is_record(line: bytes) -> bool:
    return line.lstrip()[:1] == b"{" and _is_json(line)


def _ends_between_tokens(line: bytes) -> bool:
    return line.rstrip()[-1:] in (b"{", b"[", b",", b":")
