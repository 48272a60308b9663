"""Runs over damaged input: whole lines arrive, the torn one is told, the file is named, the rest goes on."""

from __future__ import annotations

import bz2
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

from tests.backfills import Backfills, Outcome, events, ndjson

TEXT = ndjson(events(3000))
COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".zst": zstandard.ZstdCompressor(write_checksum=True).compress,
}


def put(backfills: Backfills, name: str, content: bytes) -> Path:
    """Writes an input file as it is."""
    path = backfills.folder / "input" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def damaged(outcome: Outcome) -> dict[str, Any]:
    """Returns the one damaged file of a report."""
    (found,) = outcome.report["files"]["damaged"]
    return dict(found)


def arrived(backfills: Backfills) -> list[bytes]:
    return sorted(backfills.emulator.records())


def lines_of(text: bytes) -> list[bytes]:
    return sorted(text.splitlines())


@pytest.mark.parametrize("suffix", COMPRESS)
def test_of_a_truncated_file_every_whole_line_arrives_and_the_torn_one_is_a_dead_letter(
    suffix: str, backfills: Backfills
) -> None:
    # Two members: the second of them is cut.
    half = TEXT.index(b"\n", len(TEXT) // 2) + 1
    data = COMPRESS[suffix](TEXT[:half]) + COMPRESS[suffix](TEXT[half:])
    path = put(backfills, f"cut.json{suffix}", data[:-20])
    put(backfills, "good.json", ndjson(events(5, first=9000)))
    outcome = backfills.run(backfills.everything)

    whole = outcome.books["imported"] - 5
    assert outcome.code == 4
    assert outcome.books["balanced"]
    assert whole >= TEXT[:half].count(b"\n")
    assert arrived(backfills) == lines_of(
        b"".join(TEXT.splitlines(keepends=True)[:whole]) + ndjson(events(5, first=9000))
    )
    found = damaged(outcome)
    assert (found["uri"], found["problem"], found["offset"]) == (str(path), "truncated", len(data) - 20)
    letters = outcome.dead_letters()
    assert {letter["reason"] for letter in letters} <= {"truncated_tail"}
    assert found["lines"] == whole + len(letters)


@pytest.mark.parametrize("suffix", COMPRESS)
@pytest.mark.parametrize("size", [1, 200_000])
def test_nothing_of_a_damaged_file_is_sent_if_it_is_verified_first(
    suffix: str, size: int, backfills: Backfills, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transforms.part_lines.CHUNK_BYTES", size * 7)
    data = bytearray(COMPRESS[suffix](TEXT))
    data[-7] ^= 0x10  # in the checksum of gzip and zstd; in the last block of bz2
    path = put(backfills, f"bad.json{suffix}", bytes(data))
    put(backfills, f"good.json{suffix}", COMPRESS[suffix](ndjson(events(5, first=9000))))
    outcome = backfills.run(backfills.everything, {"source.verify": "full"})

    assert outcome.code == 4
    assert outcome.books["balanced"]
    assert (outcome.books["read"], outcome.books["imported"]) == (5, 5)
    assert arrived(backfills) == lines_of(ndjson(events(5, first=9000)))
    found = damaged(outcome)
    assert (found["uri"], found["problem"], found["lines"]) == (str(path), "corrupt", 0)
    assert "nothing of the file was sent" in found["detail"]
    again = backfills.run(backfills.everything, {"source.verify": "full"}, resume=outcome.report["run_id"])
    assert (again.code, again.books) == (4, outcome.books)


def test_without_verification_the_report_says_how_many_lines_stood_before_the_damage(
    backfills: Backfills,
) -> None:
    data = bytearray(gzip.compress(TEXT))
    data[-7] ^= 0x10
    put(backfills, "bad.json.gz", bytes(data))
    outcome = backfills.run(backfills.everything)

    assert outcome.code == 4
    assert outcome.books["imported"] == damaged(outcome)["lines"] == 3000


def test_a_resume_that_verifies_otherwise_is_refused(backfills: Backfills) -> None:
    put(backfills, "a.json.gz", gzip.compress(TEXT))
    first = backfills.run(backfills.everything)
    other = backfills.run(backfills.everything, {"source.verify": "full"}, resume=first.report["run_id"])

    assert other.code == 2
    assert "source.verify" in other.err


@pytest.mark.parametrize("suffix", ["", *COMPRESS])
@pytest.mark.parametrize("verify", ["stream", "full"])
def test_oddities_that_are_legal_are_read(suffix: str, verify: str, backfills: Backfills) -> None:
    compress = COMPRESS.get(suffix, bytes)
    lines = TEXT.splitlines()
    first, second = lines[:1500], lines[1500:]
    padding = b"\0" * 700 if suffix else b""
    put(
        backfills,
        f"members.json{suffix}",
        compress(b"\xef\xbb\xbf" + b"\r\n".join(first) + b"\r\n")
        + padding
        + compress(b"\n\n" + b"\n".join(second))
        + padding,
    )
    put(backfills, "misnamed.csv", compress(ndjson(events(5, first=9000))))
    put(backfills, "twice.json.gz", gzip.compress(compress(ndjson(events(5, first=9500)))))
    outcome = backfills.run(backfills.everything, {"source.verify": verify})

    assert outcome.code == 0, outcome.report["files"]
    assert arrived(backfills) == lines_of(
        TEXT + ndjson(events(5, first=9000)) + ndjson(events(5, first=9500))
    )


def test_text_in_utf_16_is_one_problem_with_what_to_do_and_its_neighbours_arrive(
    backfills: Backfills,
) -> None:
    path = put(backfills, "wide.json", TEXT.decode().encode("utf-16"))
    put(backfills, "good.json", ndjson(events(5, first=9000)))
    outcome = backfills.run(backfills.everything)

    assert outcome.code == 4
    assert (outcome.books["read"], outcome.books["imported"]) == (5, 5)
    found = damaged(outcome)
    assert (found["uri"], found["problem"]) == (str(path), "encoding")
    assert "iconv -f UTF-16LE -t UTF-8" in found["detail"]
    shown = backfills.run(backfills.everything, resume=outcome.report["run_id"])
    assert json.loads(shown.out)["exit_code"] == 4


def test_a_large_file_in_utf_16_is_one_problem_and_not_one_of_each_part(
    backfills: Backfills, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.plan.SEGMENT_BYTES", 100_000)
    monkeypatch.setattr("pipelines.plan.SMALL_BYTES", 1000)
    put(backfills, "wide.json", TEXT.decode().encode("utf-16-le"))
    outcome = backfills.run(backfills.everything)

    assert outcome.code == 4
    assert outcome.books["read"] == 0
    assert damaged(outcome)["problem"] == "encoding"
