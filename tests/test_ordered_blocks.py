"""Putting lines into the order of their times: whatever comes in, nothing is lost, moved or cut short."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixpanel_http.endpoints import compress
from source_formats.lines import RefusedLine
from transforms.dead_letters import LinePlaces
from transforms.elements import Block, FileNote, FilePart, Ordered, OversizeLine, Segment, Span, block_lines
from transforms.merge_sort import MERGED, Row, merge_sorted
from transforms.ordered_blocks import VERSION, OrderedUnusable, ordered_blocks, ordered_files, rows_of
from transforms.segment_reader import BlockLimits
from transforms.update_times import moment_of, moments

LIMITS = BlockLimits(3, 200)
File = Sequence[bytes]

times = st.one_of(st.none(), st.integers(0, 4), st.sampled_from(["1970-01-01T00:00:02Z", "soon", ""]))
line = st.one_of(
    st.builds(
        lambda user, at, n: json.dumps({"user": user, "at": at, "n": n}).encode(),
        st.integers(0, 2),
        times,
        st.integers(),
    ),
    st.sampled_from([b"", b"  ", b"[]", b"{bad", b'{"user": 1}', b"\xff", b'{"at": "\\ud800"}']),
)


def block_of(file: File, number: int, uri: str) -> Block:
    """Returns a file's lines as one block, as reading would."""
    raw = b"".join(line + b"\n" for line in file)
    return Block("s", "", number, raw, (Span(0, uri, len(file), len(raw), 1, 0),) if file else ())


def sorted_rows(files: Sequence[File], run_rows: int = 4) -> list[Row]:
    """Returns the lines of some files in the order of their times."""
    rows: list[Row] = []
    for number, file in enumerate(files):
        rows += rows_of(block_of(file, number, f"f{number}"), "at", [number], rows[-1] if rows else None)
    return list(merge_sorted(rows, run_rows=run_rows))


def packed(files: Sequence[File], most_bytes: int = 1 << 20) -> list[tuple[Segment, list[Block]]]:
    """Returns the segments that files become, and their blocks as they are read again."""
    parts = [FilePart(f"f{number}", 1, "v") for number in range(len(files))]
    notes = {n: FileNote(0, f"f{n}", 0) for n, file in enumerate(files) if not file}
    found = []
    for own, _, content in ordered_files(iter(sorted_rows(files)), parts, LIMITS, notes, most_bytes):
        segment = Segment("s", own, Ordered("name", 1))
        found.append((segment, list(ordered_blocks(content, segment, "attempt"))))
    return found


@settings(max_examples=150, deadline=None)
@given(st.lists(st.lists(line, max_size=12), min_size=1, max_size=4), st.sampled_from([1, 60, 1 << 20]))
def test_every_line_comes_once_from_its_own_place_and_those_with_a_time_in_its_order(
    files: list[list[bytes]], most_bytes: int
) -> None:
    segments = packed(files, most_bytes)
    seen: dict[tuple[str, int | None], bytes] = {}
    order: list[tuple[int, str, int | None]] = []
    told: dict[str, int] = {}
    for segment, blocks in segments:
        for block in blocks[:-1]:
            lines = block_lines(block)
            assert len(lines) <= LIMITS.records
            refused = {one.index for one in block.refused}
            places = LinePlaces(block, lines)
            for index, (own, moment) in enumerate(zip(lines, moments(lines, "at"), strict=True)):
                source = places.sources[index]
                key = source.uri, source.line
                assert key not in seen
                seen[key] = own
                assert b"".join(x + b"\n" for x in files[int(key[0][1:])])[source.offset :].startswith(own)
                assert isinstance(moment, RefusedLine) == (index in refused)
                if isinstance(moment, int):
                    order.append((moment, *key))
        assert blocks[-1].end
        for note in blocks[-1].notes:
            assert segment.parts[note.part].uri == note.uri
            told[note.uri] = told.get(note.uri, 0) + note.lines

    assert seen == {(f"f{n}", i + 1): own for n, file in enumerate(files) for i, own in enumerate(file)}
    assert order == sorted(order)
    assert told == {f"f{n}": len(file) for n, file in enumerate(files)}


@given(st.lists(st.integers(0, 3), max_size=400), st.integers(1, 5))
@settings(max_examples=60, deadline=None)
def test_rows_of_one_time_keep_the_order_in_which_they_came(moments: list[int], run_rows: int) -> None:
    rows = [Row(moment, number, 0, "f", None, None, b"x") for number, moment in enumerate(moments)]

    assert list(merge_sorted(rows, run_rows=run_rows)) == sorted(rows)


def test_more_runs_than_are_merged_at_once_are_merged_in_turns(tmp_path: Path) -> None:
    count = MERGED * MERGED + 3 * MERGED + 1
    rows = [Row(-number, number, 0, "f", None, None, b"x") for number in range(count)]

    assert [row.number for row in merge_sorted(rows, str(tmp_path), run_rows=1)] == list(
        reversed(range(count))
    )
    assert not list(tmp_path.iterdir())


def test_what_reading_found_wrong_with_lines_stays_with_them() -> None:
    raw = b'{"at": 2}\nMSwy\n{"at": 1}\n{"at": 3, "to'
    spans = (Span(0, "f", 4, len(raw), 7, None, (70, 80, 90, 99)),)
    why = RefusedLine(1, "bad_row", "two columns expected, three came")
    block = Block("s", "", 0, raw, spans, torn=(3,), refused=(why,), wanted=(None, None, 2, None))
    giant = Block(
        "s", "", 1, b'{"at": 1, "head', (Span(0, "f", 1, 9000, 11, 110),), oversize=OversizeLine(8999, "ab")
    )
    rows = rows_of(block, "at", [0], None)
    rows += rows_of(giant, "at", [0], rows[-1])
    damaged = FileNote(0, "f", 5, "truncated", 120, "the end is missing")
    ((parts, lines, content),) = ordered_files(
        sorted(rows), [FilePart("f", 1, "v")], BlockLimits(9, 999), {0: damaged}
    )
    first, second, third, end = ordered_blocks(content, Segment("s", parts), "attempt")

    assert lines == 5
    assert block_lines(first) == [b'{"at": 1}', b'{"at": 3, "to']
    assert first.torn == (1,)
    assert first.wanted == (2, None)
    assert second.oversize == OversizeLine(8999, "ab")
    assert (second.raw, second.spans[0].first_line) == (b'{"at": 1, "head', 11)
    assert block_lines(third) == [b'{"at": 2}', b"MSwy"]
    assert third.refused == (why,)
    assert [LinePlaces(third, block_lines(third)).sources[i].offset for i in (0, 1)] == [70, 80]
    assert end.notes == (damaged,)


def test_a_damaged_file_of_blocks_is_told_and_never_read_in_part() -> None:
    ((parts, _, content),) = ordered_files(
        sorted_rows([[b'{"at": 1}']]), [FilePart("f0", 1, "v")], LIMITS, {}
    )
    for cut in range(len(content)):
        with pytest.raises(OrderedUnusable):
            list(ordered_blocks(content[:cut], Segment("s", parts), "attempt"))


def test_a_file_of_another_version_is_not_read() -> None:
    content = compress(msgspec.msgpack.encode([VERSION + 1, [], []]))
    with pytest.raises(OrderedUnusable, match="another version"):
        list(ordered_blocks(content, Segment("s", ()), "attempt"))


def test_blocks_that_are_settled_are_left_out() -> None:
    files = [[b'{"at": %d}' % n for n in range(9)]]
    ((parts, _, content),) = ordered_files(sorted_rows(files), [FilePart("f0", 1, "v")], LIMITS, {})

    assert [b.ordinal for b in ordered_blocks(content, Segment("s", parts), "attempt", {0, 2})] == [1, 3]


SAME = 1_700_000_000


@pytest.mark.parametrize(
    "value",
    [
        SAME,
        float(SAME),
        SAME * 1000,
        SAME * 10**6,
        SAME * 10**9,
        str(SAME),
        "1700000000.0",
        "2023-11-14T22:13:20",
        "2023-11-14 22:13:20",
        "2023-11-14T22:13:20Z",
        "2023-11-14T22:13:20.000000Z",
        "2023-11-14T23:13:20+01:00",
        "2023-11-14 22:13:20 UTC",
        "2023-11-14T22:13:20,000Z",
        " 2023-11-14T22:13:20Z ",
    ],
    ids=str,
)
def test_a_time_is_read_however_it_is_written(value: object) -> None:
    assert moment_of(value) == SAME * 10**9


def test_times_that_differ_by_little_differ() -> None:
    ascending: list[object] = [
        "2023-11-14T22:13:20.000001Z",
        "2023-11-14T22:13:20.000002Z",
        SAME + 0.5,
        SAME * 1000 + 501,
    ]

    assert moment_of("2023-11-14") < moment_of(SAME)
    assert [moment_of(value) for value in ascending] == sorted({moment_of(value) for value in ascending})
    assert moment_of(SAME * 10**9 + 1) - moment_of(SAME * 10**9) == 1


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "missing_time"),
        ("", "missing_time"),
        *[
            (value, "bad_time")
            for value in (
                "soon",
                "2023-13-01",
                True,
                [1],
                {"a": 1},
                10**30,
                9.3e18,
                "9999-01-01",
                "-",
                ".",
                "1.2.3",
            )
        ],
    ],
    ids=str,
)
def test_what_is_no_time_is_refused_with_the_field_and_no_value(value: object, reason: str) -> None:
    (found,) = moments([json.dumps({"at": value}).encode()], "at")

    assert isinstance(found, RefusedLine)
    assert (found.reason, found.field, found.in_base64) == (reason, "at", False)
    assert "records.order_by" in found.message
    assert str(value) not in found.message.replace("'at'", "") or value in ("", "-", ".", None)
