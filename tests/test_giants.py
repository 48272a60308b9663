"""Giants and bombs: memory stays flat, each is one dead letter with its beginning, and neighbours arrive."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import time
from collections.abc import Iterator
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

    assert path.stat().st_size < size / 900
    assert usage.peak_mib <= baseline.peak_mib + ROOM_MIB
    assert sorted(backfills.emulator.records()) == sorted(ndjson([event(0), event(1)]).splitlines())
    assert report["exit_code"] == 0


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_a_bomb_of_ten_gigabytes_is_survived_in_flat_memory(backfills: Backfills) -> None:
    assert_a_bomb_is_survived(backfills, 10 << 30)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_a_giant_takes_no_more_than_twice_the_time_of_as_many_clean_bytes(backfills: Backfills) -> None:
    clean = backfills.write("clean.json", events(1_500_000))
    bad = backfills.folder / "input" / "bad.json"
    write_giants(bad, clean.stat().st_size // 2)
    took = {}
    for name, path in (("clean", clean), ("bad", bad)):
        started = time.monotonic()
        run_apart(backfills, path, name)
        took[name] = time.monotonic() - started

    assert took["bad"] <= 2 * took["clean"]
