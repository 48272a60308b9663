"""Giants and bombs: memory stays flat, each is one dead letter with its beginning, and neighbours arrive."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from benchmarks.measure import Usage, run_measured
from tests.backfills import TOKEN, Backfills, event, events, ndjson, read_letters
from transforms.line_blocks import GIANT_LINE_BYTES, GIANT_LINE_HEAD

PIECE = 1 << 22
ROOM_MIB = 128
ALL_ALLOWED = {"run.allow_dead_letters": "100%", "run.max_errors": "100%"}


def run_apart(backfills: Backfills, path: Path, name: str) -> tuple[Usage, dict[str, object]]:
    """Runs a backfill in a process of its own, so that its memory is its own."""
    config = backfills.config(str(path), {**ALL_ALLOWED, "run.id": name})
    usage = run_measured(["run_backfill.py", "--config", str(config), "--json"], {TOKEN: "token"})
    return usage, json.loads(usage.output)


def tell(what: str, usage: Usage, baseline: Usage) -> None:
    """Prints what a run took, for who looks at the bars."""
    print(
        f"{what}: peak {usage.peak_mib:.0f} MiB, {usage.peak_mib - baseline.peak_mib:+.0f} MiB over the "
        f"baseline, {usage.cpu_s:.1f} CPU-s"
    )


def giants(size: int) -> Iterator[tuple[str, bytes, int]]:
    """Yields what giant lines are made of: a name, a piece, and how many of it."""
    count = -(-size // PIECE)
    yield "one line of text", b"x" * PIECE, count
    yield "opening brackets", b"[" * PIECE, count
    yield "a long integer", b"1234567890" * (PIECE // 10), -(-10_000_000 // PIECE)
    yield "many keys", b"".join(b'"k%07d":1,' % i for i in range(1_000_000)), 1


def write_giants(path: Path, size: int) -> list[tuple[int, str, bytes]]:
    """Writes giants between good lines, and returns the length, the hash and the head of each."""
    told = []
    with path.open("wb") as file:
        file.write(ndjson([event(0)]))
        for number, (_, piece, count) in enumerate(giants(size), 1):
            digest = hashlib.sha256()
            for _ in range(count):
                digest.update(piece)
                file.write(piece)
            told.append((len(piece) * count, digest.hexdigest(), piece[:GIANT_LINE_HEAD]))
            file.write(b"\n" + ndjson([event(number)]))
        for text in (b"[" * 100_000, b'{"a":' * 100_000, b"[" * 100_000 + b"]" * 100_000):
            file.write(text + b"\n")
        file.write(ndjson([event(90)]))
    return told


def assert_giants_are_survived(backfills: Backfills, size: int) -> None:
    baseline, _ = run_apart(backfills, backfills.write("small.json", events(3000)), "baseline")
    backfills.emulator.reset()
    path = backfills.folder / "input" / "giants.json"
    told = write_giants(path, size)
    usage, report = run_apart(backfills, path, "giants")
    tell(f"lines of {size >> 20:,} MiB", usage, baseline)

    assert usage.peak_mib <= baseline.peak_mib + ROOM_MIB
    numbers = [0, *range(1, len(told) + 1), 90]
    assert sorted(backfills.emulator.records()) == sorted(ndjson(map(event, numbers)).splitlines())
    assert report["exit_code"] == 0
    dead = report["dead_letters"]
    assert isinstance(dead, dict)
    letters = [letter for name in dead["files"] for letter in read_letters(Path(name))]
    found = [letter for letter in letters if letter.get("truncated")]
    expected = [giant for giant in told if giant[0] > GIANT_LINE_BYTES]
    shown = [(x["length"], x["sha256"], base64.b64decode(x["raw_b64"])) for x in found]
    assert sorted(shown) == sorted(expected)
    assert len(letters) == len(told) + 3
    assert {letter["reason"] for letter in letters} <= {"too_large", "too_deep"}


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_giant_lines_are_survived_in_flat_memory(backfills: Backfills) -> None:
    assert_giants_are_survived(backfills, 64 << 20)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_lines_of_two_gigabytes_are_survived_in_flat_memory(backfills: Backfills) -> None:
    assert_giants_are_survived(backfills, 2 << 30)


def write_bomb(path: Path, size: int) -> None:
    """Writes a file that decompresses to a thousand times its size: one line between good ones."""
    member = gzip.compress(b"x" * (64 << 20), 9)
    with path.open("wb") as file:
        file.write(gzip.compress(ndjson([event(0)])))
        for _ in range(size // (64 << 20)):
            file.write(member)
        file.write(gzip.compress(b"\n" + ndjson([event(1)])))


def assert_a_bomb_is_survived(backfills: Backfills, size: int) -> None:
    baseline, _ = run_apart(backfills, backfills.write("small.json", events(3000)), "baseline")
    backfills.emulator.reset()
    path = backfills.folder / "input" / "bomb.json.gz"
    write_bomb(path, size)
    usage, report = run_apart(backfills, path, "bomb")
    tell(f"a bomb of {size >> 20:,} MiB", usage, baseline)

    assert path.stat().st_size < size / 900
    assert usage.peak_mib <= baseline.peak_mib + ROOM_MIB
    assert sorted(backfills.emulator.records()) == sorted(ndjson([event(0), event(1)]).splitlines())
    assert report["exit_code"] == 0


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_a_bomb_of_ten_gigabytes_is_survived_in_flat_memory(backfills: Backfills) -> None:
    assert_a_bomb_is_survived(backfills, 10 << 30)


def write_in_array(path: Path, size: int) -> None:
    """Writes an array of records in which one is a giant."""
    with path.open("wb") as file:
        file.write(b"[\n" + ndjson([event(0)]).rstrip() + b',\n{"event": "')
        for _ in range(size // PIECE):
            file.write(b"x" * PIECE)
        file.write(b'"},\n' + ndjson([event(1)]).rstrip() + b"\n]\n")


def write_in_table(path: Path, size: int) -> None:
    """Writes a table in which one row is a giant."""
    with path.open("wb") as file:
        file.write(b"event,time,distinct_id,$insert_id,ip\nSignup,1700000000,u,a,0\nSignup,1700000000,")
        for _ in range(size // PIECE):
            file.write(b"x" * PIECE)
        file.write(b",b,0\nSignup,1700000000,u,c,0\n")


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("name", "write"), [("a.json", write_in_array), ("a.csv", write_in_table)])
def test_records_of_two_gigabytes_in_other_formats_are_survived_in_flat_memory(
    name: str, write: Callable[[Path, int], None], backfills: Backfills
) -> None:
    baseline, _ = run_apart(backfills, backfills.write("small.json", events(3000)), "baseline")
    backfills.emulator.reset()
    path = backfills.folder / "input" / name
    write(path, 2 << 30)
    usage, report = run_apart(backfills, path, "giant")

    tell(f"2 GiB in {name}", usage, baseline)
    assert usage.peak_mib <= baseline.peak_mib + ROOM_MIB
    assert len(list(backfills.emulator.records())) == 2
    dead = report["dead_letters"]
    assert isinstance(dead, dict)
    (letter,) = [letter for name in dead["files"] for letter in read_letters(Path(name))]
    assert (letter["reason"], letter["truncated"]) == ("too_large", True)
    assert letter["length"] >= 2 << 30
    assert len(letter["sha256"]) == 64


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_giants_and_bombs_take_no_more_than_twice_the_work_of_as_many_clean_bytes(
    backfills: Backfills,
) -> None:
    nothing, _ = run_apart(backfills, backfills.write("small.json", events(1)), "nothing")
    clean = backfills.write("clean.json", events(1_000_000))
    size = clean.stat().st_size
    bad, bomb, packed = (backfills.folder / "input" / name for name in ("bad.json", "bomb.gz", "clean.gz"))
    write_giants(bad, size // 2)
    write_bomb(bomb, size)
    packed.write_bytes(gzip.compress(clean.read_bytes(), 1))
    took = {
        path.name: run_apart(backfills, path, path.name)[0].cpu_s - nothing.cpu_s
        for path in (clean, bad, packed, bomb)
    }

    for ours, theirs in (("bad.json", "clean.json"), ("bomb.gz", "clean.gz")):
        ratio = took[ours] / took[theirs]
        print(f"{ours}: {took[ours]:.1f} CPU-s, {ratio:.2f} of the {took[theirs]:.1f} of {theirs}")
        assert ratio <= 2
