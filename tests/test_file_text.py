"""The text in a file: whatever it is wrapped in, from behind a byte order mark, or a reason to refuse it."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import struct
import tarfile
import zipfile

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.files import COMPRESS
from transforms.compression import SUFFIXES, DamagedFile
from transforms.file_text import check_head, text_of, verify

TEXT = b'{"event":"a"}\n{"event":"b"}\n'
BOM = b"\xef\xbb\xbf"


def read(data: bytes, name: str = "a.json", chunk: int = 1 << 20) -> tuple[bytes, DamagedFile | None]:
    """What could be read of a file, and the damage that ended it; offsets must be those of the text."""
    text, next_offset = b"", None
    try:
        for offset, piece in text_of(lambda: [data[i : i + chunk] for i in range(0, len(data), chunk)], name):
            assert piece
            assert next_offset in (None, offset)
            next_offset = offset + len(piece)
            text += piece
    except DamagedFile as damage:
        return text, damage
    return text, None


def problem(data: bytes, name: str = "a.json") -> str:
    """Returns what a file is refused for, before any text of it."""
    text, damage = read(data, name)
    assert text == b""
    assert damage is not None
    return f"{damage.problem}: {damage.detail}"


# --- byte order marks ---------------------------------------------------------------------------------------


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from(list(COMPRESS)),
    st.integers(1, 9),
    st.binary(max_size=9).filter(lambda text: not text.startswith(BOM) and b"\0" not in text),
)
def test_a_mark_at_the_beginning_is_skipped_and_counts_as_three_bytes(
    suffix: str, chunk: int, tail: bytes
) -> None:
    data = COMPRESS[suffix](BOM + b"{" + tail)
    chunks = [data[i : i + chunk] for i in range(0, len(data), chunk)]
    pieces = list(text_of(lambda: chunks, "a.json"))

    assert b"".join(piece for _, piece in pieces) == b"{" + tail
    assert pieces[0][0] == 3


def test_a_file_that_is_only_a_mark_is_empty() -> None:
    assert read(BOM) == (b"", None)
    assert read(gzip.compress(BOM)) == (b"", None)


def test_only_one_mark_is_skipped_and_only_at_the_beginning() -> None:
    assert read(BOM + BOM + TEXT)[0] == BOM + TEXT
    assert read(TEXT + BOM + TEXT)[0] == TEXT + BOM + TEXT


@pytest.mark.parametrize("name", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("text", ['{"event":"a"}', " \n[1]", "event,time"])
def test_wide_text_is_refused_by_name_with_what_to_do(name: str, text: str) -> None:
    told = problem(text.encode(name))
    shown = name.upper().replace("-LE", "LE").replace("-BE", "BE")
    assert told.startswith(f"encoding: text in {shown}")
    assert f"iconv -f {shown}" in told
    assert problem(gzip.compress(text.encode(name))).startswith("encoding")


@pytest.mark.parametrize(
    "text", [b"\0\0\0\0", b"{\0", b'{"a":1}\n\0\0\0\0', b"\xff\xfd{}", b"caf\xe9\n", b"{", b"", b"\n\n"]
)
def test_what_is_only_dirty_is_left_to_be_judged_line_by_line(text: bytes) -> None:
    assert read(text) == (text, None)


# --- wrappings ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("outer", [".gz", ".bz2", ".zst"])
@pytest.mark.parametrize("inner", [".gz", ".bz2", ".zst"])
def test_a_file_that_was_compressed_twice_is_decompressed_twice(outer: str, inner: str) -> None:
    data = COMPRESS[outer](COMPRESS[inner](BOM + TEXT))

    assert read(data, f"a.json{inner}{outer}", 7) == (TEXT, None)


def test_a_file_that_was_compressed_three_times_is_refused_by_name() -> None:
    told = problem(gzip.compress(gzip.compress(gzip.compress(TEXT))))

    assert told == "unsupported_format: compressed three times or more; decompress it first"


def test_damage_in_a_file_that_was_compressed_twice_is_told_with_the_stored_offset() -> None:
    data = gzip.compress(gzip.compress(TEXT * 9))
    for length in range(4, len(data)):
        text, damage = read(data[:length], chunk=5)

        assert (TEXT * 9).startswith(text)
        assert damage is not None
        assert (damage.problem, damage.offset) == ("truncated", length)


def test_a_skippable_frame_of_zstd_may_come_first_between_or_last() -> None:
    skippable = struct.pack("<II", 0x184D2A53, 5) + b"hello"
    frame = zstandard.compress(TEXT)

    assert read(skippable + frame + skippable + frame + skippable, "a.zst", 3) == (TEXT * 2, None)


def test_a_window_of_zstd_that_takes_too_much_memory_is_refused_by_name() -> None:
    parameters = zstandard.ZstdCompressionParameters.from_level(3, window_log=31)
    stream = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    data = stream.compress(TEXT) + stream.flush()

    assert problem(data).startswith("unsupported_format: zstd with a window above 128 MiB")


def zipped() -> bytes:
    """Returns a zip archive."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.json", TEXT)
    return file.getvalue()


def tarred() -> bytes:
    """Returns a tar archive."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        member = tarfile.TarInfo("a.json")
        member.size = len(TEXT)
        archive.addfile(member, io.BytesIO(TEXT))
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (zipped(), "a zip archive; unpack it"),
        (tarred(), "a tar archive; unpack it"),
        (gzip.compress(tarred()), "a tar archive; unpack it"),
        (lzma.compress(TEXT), "compressed by xz; compress it with"),
        (b"\x1f\x9d\x90" + TEXT, "compressed by compress (.Z); compress it with"),
        (b"\x04\x22\x4d\x18" + TEXT, "compressed by lz4; compress it with"),
        (b"7z\xbc\xaf\x27\x1c" + TEXT, "a 7z archive; unpack it"),
        (b"\xff\x06\0\0sNaPpY" + TEXT, "compressed by snappy; compress it with"),
    ],
)
def test_what_is_not_read_here_is_refused_by_name_whatever_the_file_is_called(data: bytes, told: str) -> None:
    for name in ("a.json", "a.json.gz"):
        assert problem(data, name).startswith(f"unsupported_format: {told}")


# --- names --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_plain_text_under_the_name_of_a_compressed_file_is_text(suffix: str) -> None:
    assert read(TEXT, f"a.json{suffix}") == (TEXT, None)
    assert read(BOM + TEXT, f"a.json{suffix}") == (TEXT, None)


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".zst"])
def test_a_compressed_file_that_ends_in_its_first_bytes_is_truncated(suffix: str) -> None:
    data = COMPRESS[suffix](TEXT)
    for length in range(4):
        text, damage = read(data[:length], f"a.json{suffix}")
        assert text == b""
        assert damage is not None
        assert (damage.problem, damage.offset) == ("truncated", length)


def test_a_plain_file_may_be_empty_or_begin_as_compressed_ones_do() -> None:
    assert read(b"") == (b"", None)
    assert read(b"BZ") == (b"BZ", None)


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".zst"])
def test_a_flipped_bit_in_the_first_bytes_is_one_problem_of_the_file_not_one_of_each_line(
    suffix: str,
) -> None:
    data = COMPRESS[suffix](TEXT * 30)
    for bit in range(8 * {".gz": 2, ".bz2": 3, ".zst": 4}[suffix]):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        text, damage = read(bytes(flipped), f"a{suffix}")
        assert damage is not None
        assert (text, damage.problem) == (b"", "corrupt")


def test_a_good_head_passes() -> None:
    for head in (b"", b"{", TEXT, b"[1]", "é".encode()):
        check_head(head, "a.json")


# --- reading through ----------------------------------------------------------------------------------------


def test_reading_through_says_what_stands_before_the_damage() -> None:
    data = gzip.compress(TEXT * 5000)
    with pytest.raises(DamagedFile) as caught:
        verify(lambda: [data[:-1]], "a.gz")

    assert caught.value.problem == "truncated"
    assert "nothing of the file was sent, 10,000 whole lines stand before the damage" in caught.value.detail


@pytest.mark.parametrize("compress", [bytes, gzip.compress, bz2.compress, zstandard.compress])
def test_reading_through_a_good_file_says_nothing(compress: type[bytes]) -> None:
    verify(lambda: [compress(TEXT)], "a.json")
