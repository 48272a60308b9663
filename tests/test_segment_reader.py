"""Segments as blocks: each line knows its file, its number and its offset; damage is told, never hidden."""

import bz2
import gzip
import os
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.files import COMPRESS, ROOMY, expected_lines, lines_with_places, local, parts_of, read_blocks
from transforms.elements import Block, FileNote, FilePart, Segment, block_lines
from transforms.line_blocks import GIANT_LINE_BYTES
from transforms.segment_reader import BlockLimits, SegmentReader

SMALL = BlockLimits(3, 40)


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(COMPRESS[path.suffix if path.suffix in COMPRESS else ""](content))
    return path


def notes_of(blocks: list[Block]) -> tuple[FileNote, ...]:
    assert [block.end for block in blocks] == [False] * (len(blocks) - 1) + [True]
    assert not any(block.notes for block in blocks[:-1])
    return blocks[-1].notes


def assert_blocks_are_sound(blocks: list[Block], limits: BlockLimits) -> None:
    assert [block.ordinal for block in blocks] == list(range(len(blocks)))
    assert {(block.segment, block.attempt) for block in blocks} == {("segment", "attempt")}
    assert blocks[-1].raw == b""
    for block in blocks[:-1]:
        assert block.lines == len(block_lines(block)) <= limits.records
        assert sum(span.bytes for span in block.spans) == len(block.raw)
        assert len(block.raw) <= limits.bytes or block.lines == 1


TEXT = b'{"a":1}\n\n{"b":"\xc3\xa9"}\r\nno json\n{"c":3}\n' * 5


@pytest.mark.parametrize("ending", [b"", b"last"])
@pytest.mark.parametrize("limits", [ROOMY, SMALL, BlockLimits(1, 1), BlockLimits(100, 17)])
@pytest.mark.parametrize("suffix", COMPRESS)
def test_each_line_knows_its_place(suffix: str, limits: BlockLimits, ending: bytes, tmp_path: Path) -> None:
    path = write(tmp_path / f"a.json{suffix}", TEXT + ending)
    blocks = read_blocks(parts_of(path), limits)

    assert_blocks_are_sound(blocks, limits)
    assert lines_with_places(blocks) == expected_lines(path, TEXT + ending)
    assert notes_of(blocks) == (FileNote(0, str(path), 25 + bool(ending)),)


CONTENTS = st.lists(
    st.lists(st.sampled_from([b"", b"a", b"{}", b'{"b":1}', b"\r", b"x" * 30]), max_size=6).map(b"\n".join)
    | st.sampled_from([b"a\n", b"\n", b"a\n\n", b"{}\n", b"{}", b"{}\n\n{}\n{}\n{}\n"]),
    min_size=1,
    max_size=5,
)


@settings(max_examples=150, deadline=None)
@given(CONTENTS, st.lists(st.sampled_from(list(COMPRESS)), min_size=5, max_size=5), st.integers(1, 5))
def test_a_pack_of_small_files_is_one_stream_in_which_each_line_keeps_its_place(
    tmp_path_factory: pytest.TempPathFactory, contents: list[bytes], suffixes: list[str], records: int
) -> None:
    folder = tmp_path_factory.mktemp("pack")
    paths = [
        folder / f"{n}.json{suffix}" for n, (_, suffix) in enumerate(zip(contents, suffixes, strict=False))
    ]
    for path, content in zip(paths, contents, strict=True):
        write(path, content)
    limits = BlockLimits(records, 25)
    blocks = read_blocks([part for path in paths for part in parts_of(path)], limits)

    assert_blocks_are_sound(blocks, limits)
    expected = [expected_lines(path, content) for path, content in zip(paths, contents, strict=True)]
    assert lines_with_places(blocks) == [line for lines in expected for line in lines]
    # All were read to their end, which one note says.
    assert [(note.part, note.uri, note.lines, note.problem, note.parts) for note in notes_of(blocks)] == [
        (0, str(paths[0]), sum(map(len, expected)), None, len(paths))
    ]


def parts_as_segments(
    path: Path, cuts: list[int], limits: BlockLimits, backwards: bool = False
) -> list[list[Block]]:
    """Reads a file's parts as a worker does that has them all: one reader, a segment each."""
    reader = SegmentReader(local, limits)
    parts = parts_of(path, cuts)[:: -1 if backwards else 1]
    return [list(reader.blocks(Segment(f"s{part.start}", (part,)), "attempt")) for part in parts]


@settings(max_examples=150, deadline=None)
@given(CONTENTS, st.lists(st.integers(1, 200), min_size=1, max_size=6), st.integers(1, 5))
def test_parts_of_a_split_file_hold_each_line_once_with_its_number(
    tmp_path_factory: pytest.TempPathFactory, contents: list[bytes], cuts: list[int], records: int
) -> None:
    path = tmp_path_factory.mktemp("split") / "a.json"
    content = b"\n".join(contents)
    write(path, content)
    inner = sorted({cut for cut in cuts if cut < len(content)})
    segments = parts_as_segments(path, inner, BlockLimits(records, 50))

    assert lines_with_places([b for blocks in segments for b in blocks]) == expected_lines(path, content)


def test_a_line_has_no_number_where_the_part_before_was_read_elsewhere(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", b"first\nsecond\nthird\n")
    last, first = parts_as_segments(path, [8], ROOMY, backwards=True)

    assert lines_with_places(last) == [(str(path), None, 13, b"third")]
    assert lines_with_places(first) == expected_lines(path, b"first\nsecond\n")


def test_line_numbers_go_on_from_what_is_known_of_earlier_parts(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", b"first\nsecond\nthird\n")
    reader = SegmentReader(local, ROOMY, {(str(path), 8): 3})
    blocks = list(reader.blocks(Segment("s", parts_of(path, [8])[1:]), "attempt"))

    assert lines_with_places(blocks) == [(str(path), 3, 13, b"third")]
    assert reader.line_bases[str(path), 19] == 4


def test_a_part_in_which_no_line_begins_is_empty(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", b"x" * 30 + b"\ny\n")
    segments = parts_as_segments(path, [5, 10], ROOMY)

    assert [[block.raw for block in blocks] for blocks in segments] == [
        [b"x" * 30 + b"\n", b""],
        [b""],
        [b"y\n", b""],
    ]


@pytest.mark.parametrize("done", [(), (0,), (1, 3), (0, 1, 2, 3, 4, 5, 6, 7)])
def test_a_second_attempt_yields_the_remaining_blocks_as_they_were(
    done: tuple[int, ...], tmp_path: Path
) -> None:
    parts = [*parts_of(write(tmp_path / "a.json.gz", TEXT)), *parts_of(write(tmp_path / "b.json", TEXT))]
    everything = read_blocks(parts, SMALL)

    assert read_blocks(parts, SMALL, done) == [block for block in everything if block.ordinal not in done]


# --- damage -------------------------------------------------------------------------------------------------


@pytest.fixture
def neighbours(tmp_path: Path) -> tuple[Path, Path]:
    return write(tmp_path / "0.json", b"before\n"), write(tmp_path / "9.json.gz", b"after\n")


def read_between(neighbours: tuple[Path, Path], *parts: FilePart) -> list[Block]:
    before, after = neighbours
    return read_blocks([*parts_of(before), *parts, *parts_of(after)])


def assert_neighbours_are_whole(blocks: list[Block], neighbours: tuple[Path, Path]) -> None:
    lines = lines_with_places(blocks)

    assert lines[0] == (str(neighbours[0]), 1, 0, b"before")
    assert lines[-1] == (str(neighbours[1]), 1, 0, b"after")
    assert [note.problem for note in (notes_of(blocks)[0], notes_of(blocks)[-1])] == [None, None]


def torn_lines(blocks: list[Block]) -> list[bytes]:
    return [block_lines(block)[index] for block in blocks for index in block.torn]


@pytest.mark.parametrize("limits", [ROOMY, SMALL])
@pytest.mark.parametrize(("compress", "suffix"), [(gzip.compress, ".gz"), (bz2.compress, ".bz2")])
def test_a_truncated_file_yields_its_whole_lines_and_tells_which_was_torn(
    compress: Any, suffix: str, limits: BlockLimits, tmp_path: Path, neighbours: tuple[Path, Path]
) -> None:
    dice = random.Random(5)
    text = b"".join(b"%030x\n" % dice.getrandbits(120) for _ in range(300))
    data = compress(text)
    path = tmp_path / f"5.json{suffix}"
    for length in dice.sample(range(1, len(data)), 40):
        path.write_bytes(data[:length])
        blocks = read_blocks([*parts_of(neighbours[0]), *parts_of(path), *parts_of(neighbours[1])], limits)
        own = [line for uri, _, _, line in lines_with_places(blocks) if uri == str(path)]
        torn = torn_lines(blocks)

        assert_neighbours_are_whole(blocks, neighbours)
        whole = own[:-1] if torn else own
        assert b"".join(line + b"\n" for line in whole) == text[: 31 * len(whole)]
        assert torn == ([own[-1]] if torn else [])
        assert all(text[31 * len(whole) :].startswith(line) for line in torn)
        note = notes_of(blocks)[1]
        assert (note.problem, note.offset, note.lines) == ("truncated", length, len(own))


def test_a_line_that_damage_leaves_whole_is_not_torn(tmp_path: Path) -> None:
    path = tmp_path / "a.json.gz"
    path.write_bytes(gzip.compress(b"one\ntwo\n") + b"rubbish, and more of it")
    blocks = read_blocks(parts_of(path))

    assert [line for *_, line in lines_with_places(blocks)] == [b"one", b"two"]
    assert torn_lines(blocks) == []
    assert [note.problem for note in notes_of(blocks)] == ["corrupt"]


def test_a_last_line_without_newline_is_not_torn(tmp_path: Path) -> None:
    blocks = read_blocks(parts_of(write(tmp_path / "a.json.gz", b"one\ntwo")))

    assert torn_lines(blocks) == []


def test_a_file_that_is_gone_is_missing(tmp_path: Path, neighbours: tuple[Path, Path]) -> None:
    path = write(tmp_path / "5.json", TEXT)
    (part,) = parts_of(path)
    path.unlink()
    blocks = read_between(neighbours, part)

    assert_neighbours_are_whole(blocks, neighbours)
    assert notes_of(blocks)[1] == FileNote(1, str(path), 0, "missing", None, "FileNotFoundError")
    assert notes_of(blocks)[1].may_heal


@pytest.mark.parametrize("content", [TEXT + b"more\n", TEXT.replace(b"a", b"b"), b""])
def test_a_file_that_was_replaced_is_not_read(
    content: bytes, tmp_path: Path, neighbours: tuple[Path, Path]
) -> None:
    path = write(tmp_path / "5.json", TEXT)
    (part,) = parts_of(path)
    write(path, content)
    os.utime(path, (1, 1))
    blocks = read_between(neighbours, part)

    assert_neighbours_are_whole(blocks, neighbours)
    assert [line for uri, _, _, line in lines_with_places(blocks) if uri == str(path)] == []
    assert notes_of(blocks)[1].problem == "changed"
    assert not notes_of(blocks)[1].may_heal


def test_a_file_of_another_size_is_not_read_though_its_time_is_the_same(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", TEXT)
    (part,) = parts_of(path)
    before = path.stat()
    write(path, TEXT + b"more\n")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    assert [note.problem for note in notes_of(read_blocks([part]))] == ["changed"]


def test_a_file_that_cannot_be_read_is_unreadable(tmp_path: Path, neighbours: tuple[Path, Path]) -> None:
    folder = tmp_path / "5.json"
    folder.mkdir()
    info = local(str(folder)).info(str(folder))
    blocks = read_between(neighbours, FilePart(str(folder), info["size"], str(info["mtime"])))

    assert_neighbours_are_whole(blocks, neighbours)
    note = notes_of(blocks)[1]
    assert (note.problem, note.lines, note.may_heal) == ("unreadable", 0, True)
    assert "IsADirectoryError" in note.detail


def test_behind_a_part_that_could_not_be_read_no_line_has_a_number(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", b"first\nsecond\nthird\n")
    first, last = parts_of(path, [8])
    stale = FilePart(first.uri, first.size, "another version", first.start, first.end)
    reader = SegmentReader(local, ROOMY)

    assert notes_of(list(reader.blocks(Segment("s0", (stale,)), "attempt")))[0].problem == "changed"
    assert lines_with_places(list(reader.blocks(Segment("s8", (last,)), "attempt"))) == [
        (str(path), None, 13, b"third")
    ]


def test_an_empty_file_has_no_lines(tmp_path: Path) -> None:
    for suffix in COMPRESS:
        blocks = read_blocks(parts_of(write(tmp_path / f"a{suffix}", b"")))

        assert [block.raw for block in blocks] == [b""]
        assert [(note.lines, note.problem) for note in notes_of(blocks)] == [(0, None)]


@pytest.mark.parametrize("suffix", COMPRESS)
def test_a_giant_line_is_a_block_of_its_own(suffix: str, tmp_path: Path) -> None:
    path = write(tmp_path / f"a.json{suffix}", b"before\n" + b"g" * (GIANT_LINE_BYTES + 5) + b"\nafter")
    before, giant, after, _ = read_blocks(parts_of(path), SMALL)

    assert (before.raw, after.raw) == (b"before\n", b"after\n")
    assert giant.oversize is not None
    assert giant.oversize.length == GIANT_LINE_BYTES + 5
    assert (giant.lines, giant.spans[0].first_line, giant.spans[0].offset) == (1, 2, 7)
    assert (after.spans[0].first_line, after.spans[0].offset) == (3, 7 + GIANT_LINE_BYTES + 6)
