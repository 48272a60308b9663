"""Files made by dice: read as the slow reader reads them, whole or damaged."""

import json
import random
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from source_formats.opening import FormatChoice
from source_formats.table_rows import TableLayout
from tests.files import local, parts_of
from tests.format_files import BAD, Made, make_file
from transforms.dead_letters import LinePlaces
from transforms.elements import Segment, block_lines
from transforms.segment_reader import BlockLimits, SegmentReader

CHOICE = FormatChoice("auto", TableLayout(shape="rows"))
FEW, MANY = 200, 10_000


class Read(NamedTuple):
    """What came of a file: its records, which of them damage cut short, and what is wrong with it."""

    records: list[Any]
    torn: int
    problem: str | None
    numbers: list[int | None]
    offsets: list[int | None]


def read(path: Path, limits: BlockLimits) -> Read:
    reader = SegmentReader(local, limits, format=CHOICE)
    found = Read([], 0, None, [], [])
    torn, problem = 0, None
    for block in reader.blocks(Segment("s", parts_of(path)), "attempt"):
        lines = block_lines(block)
        places = LinePlaces(block, lines)
        refused = {line.index for line in block.refused}
        for index, line in enumerate(lines):
            if index in block.torn:
                torn += 1
                continue
            if not line.strip():
                continue
            found.records.append(BAD if index in refused else said(line))
            found.numbers.append(places.sources[index].line)
            found.offsets.append(places.sources[index].offset)
        problem = next((note.problem for note in block.notes if note.problem), problem)
    return found._replace(torn=torn, problem=problem)


def said(line: bytes) -> Any:
    try:
        value = json.loads(line, parse_float=Decimal, parse_constant=lambda _: 1 / 0)
    except (ValueError, ZeroDivisionError):
        return BAD
    return BAD if value is None else value


def alike(ours: Any, theirs: Any) -> bool:
    """Whether two values are one: decimals by their digits, doubles by what they are."""
    if isinstance(theirs, dict):
        return (
            isinstance(ours, dict)
            and ours.keys() == theirs.keys()
            and all(alike(ours[k], theirs[k]) for k in ours)
        )
    if isinstance(theirs, list):
        return isinstance(ours, list) and len(ours) == len(theirs) and all(map(alike, ours, theirs))
    if isinstance(theirs, float):
        return isinstance(ours, (Decimal, int)) and float(ours) == theirs
    if isinstance(theirs, Decimal):
        return str(ours) == str(theirs) or Decimal(ours) == theirs
    return type(ours) is type(theirs) and bool(ours == theirs)


def check_whole(made: Made, path: Path, limits: BlockLimits) -> None:
    path.write_bytes(made.stored)
    found = read(path, limits)

    assert found.problem is None
    assert found.torn == 0
    assert len(found.records) == len(made.records)
    assert all(map(alike, found.records, made.records)), (found.records, made.records)
    assert found.numbers == list(range(1, len(made.records) + 1))
    if made.ends:
        assert all(offset is not None for offset in found.offsets)
        starts = [0, *made.ends]
        assert all(starts[i] <= (offset or 0) < made.ends[i] for i, offset in enumerate(found.offsets))


def check_cut(made: Made, path: Path, limits: BlockLimits, dice: random.Random) -> None:
    """A file that ends too early gives what it held before, and says so."""
    stored = made.stored
    length = dice.randrange(len(stored)) if stored else 0
    path.write_bytes(stored[:length])
    found = read(path, limits)
    good = [record for record in found.records if record != BAD]
    whole = [record for record in made.records if record != BAD]

    assert found.torn <= 1
    last_may_differ = 0 if found.torn or made.suffix else 1  # a value may be cut so that it is another one
    kept = max(0, len(good) - last_may_differ)
    assert all(map(alike, good[:kept], whole)), (good, whole)
    if made.ends and not made.suffix:
        before = [r for r, end in zip(made.records, made.ends, strict=True) if end <= length and r != BAD]
        assert len(good) >= len(before)
    if made.suffix and length > 0:
        assert found.problem is not None


def check_flip(made: Made, path: Path, limits: BlockLimits, dice: random.Random) -> None:
    """A flipped bit ends nothing but the file: what stands before it is as it was."""
    stored = bytearray(made.stored)
    if not stored:
        return
    at = dice.randrange(len(stored))
    stored[at] ^= 1 << dice.randrange(8)
    path.write_bytes(bytes(stored))
    found = read(path, limits)
    if made.ends and not made.suffix and at >= 64:
        before = [r for r, end in zip(made.records, made.ends, strict=True) if end + 3 < at]
        assert all(map(alike, found.records, before)), (found.records, before)
        assert len(found.records) >= len(before)


def check(seed: int, folder: Path) -> None:
    dice = random.Random(-seed)
    made = make_file(seed)
    limits = BlockLimits(dice.choice([1, 3, 2000]), dice.choice([50, 9_800_000]))
    path = folder / made.name
    check_whole(made, path, limits)
    check_cut(made, path, limits, dice)
    check_flip(made, path, limits, dice)


def test_files_made_by_dice_are_read_as_the_slow_reader_reads_them(tmp_path: Path) -> None:
    for seed in range(FEW):
        check(seed, tmp_path)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_ten_thousand_files_made_by_dice_are_read_as_the_slow_reader_reads_them(tmp_path: Path) -> None:
    for seed in range(FEW, MANY):
        check(seed, tmp_path)
