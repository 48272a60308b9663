"""Whole runs over an Avro file that is read in parts: ids, places, damage, a resume; and where it is not."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import fastavro
import pytest

from mixpanel_http.insert_ids import content_id, located
from source_formats.avro_blocks import AvroFile
from tests.backfills import Backfills, Outcome
from tests.servers import S3Server

COUNT = 400
KINDS = {"event": "string", "time": "string", "distinct_id": "string", "n": "long"}
SCHEMA: Any = {
    "type": "record",
    "name": "Flat",
    "fields": [{"name": field, "type": kind} for field, kind in KINDS.items()],
}
IN_PARTS = {"limits.records_per_request": 30, "run.allow_dead_letters": COUNT}


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cuts files of some kilobytes as a plan cuts large ones."""
    monkeypatch.setattr("pipelines.plan.SEGMENT_BYTES", 3000)
    monkeypatch.setattr("pipelines.plan.SMALL_BYTES", 10)


def avro(bad: tuple[int, ...] = (), same: tuple[int, ...] = (), garbled: tuple[int, ...] = ()) -> bytes:
    """Returns a file of events: some have no time, some are the same, some hold what is no text."""
    rows = [
        {
            "event": "E",
            "time": "tomorrow" if n in bad else "2024-03-01T00:00:00Z",
            "distinct_id": "ZZ" if n in garbled else "u",
            "n": -1 if n in same else n,
        }
        for n in range(COUNT)
    ]
    file = io.BytesIO()
    fastavro.writer(file, SCHEMA, rows, sync_interval=700)
    return file.getvalue().replace(b"ZZ", b"\xff\xff")


def blocks_of(content: bytes) -> list[tuple[int, range]]:
    """Where each block begins, and which records it has."""
    file, found, first = AvroFile([content]), [], 0
    marker = file.header().marker
    while not file.at_end():
        block = file.block(marker)
        found.append((block.offset, range(first, first + block.size)))
        first += block.size
    return found


def held(backfills: Backfills) -> list[int]:
    return sorted(json.loads(record)["properties"]["n"] for record in backfills.emulator.records())


def parts_in(backfills: Backfills, outcome: Outcome) -> int:
    manifest: Path = backfills.state / outcome.report["run_id"] / "manifest.jsonl"
    return manifest.read_text().count('"avro"]')


def test_a_large_file_is_read_in_parts_and_a_letter_tells_its_record_and_its_block(
    backfills: Backfills,
) -> None:
    bad = (3, 170, 399)
    content = avro(bad)
    path = backfills.folder / "a.avro"
    path.write_bytes(content)
    outcome = backfills.run(str(path), IN_PARTS)
    blocks = blocks_of(content)
    letters = sorted(outcome.dead_letters(), key=lambda letter: letter["record"]["properties"]["n"])

    assert outcome.code == 0
    assert outcome.books["balanced"]
    assert outcome.report["files"]["done"] == 1
    assert parts_in(backfills, outcome) >= 4
    assert held(backfills) == [n for n in range(COUNT) if n not in bad]
    assert [letter["source"] for letter in letters] == [
        {"uri": str(path), "line": n + 1, "offset": next(at for at, rows in blocks if n in rows)} for n in bad
    ]


def test_ids_are_those_of_the_file_read_as_a_whole(
    backfills: Backfills, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = backfills.folder / "a.avro"
    path.write_bytes(avro())
    assert parts_in(backfills, backfills.run(str(path), IN_PARTS)) >= 4
    in_parts = sorted(backfills.emulator.records())
    backfills.emulator.reset()
    monkeypatch.setattr("pipelines.plan.SEGMENT_BYTES", 1 << 20)
    assert parts_in(backfills, backfills.run(str(path), IN_PARTS)) == 0

    assert sorted(backfills.emulator.records()) == in_parts
    assert len(in_parts) == COUNT


def test_where_numbers_enter_the_ids_a_file_is_read_as_a_whole(backfills: Backfills) -> None:
    same = tuple(range(100, 300))
    path = backfills.folder / "a.avro"
    path.write_bytes(avro(same=same))
    keep = {**IN_PARTS, "records.insert_id.identical_rows": "keep"}
    outcome = backfills.run(str(path), keep)
    ids = {
        properties["$insert_id"]
        for record in backfills.emulator.records()
        if (properties := json.loads(record)["properties"])["n"] == -1
    }

    assert outcome.code == 0
    assert parts_in(backfills, outcome) == 0
    assert len(ids) == len(same)
    row = b'{"event":"E","properties":{"time":1709251200000,"distinct_id":"u","n":-1}}'
    assert ids == {located(content_id(row), str(path), n + 1) for n in same}


def test_damaged_blocks_are_named_and_all_others_arrive(backfills: Backfills) -> None:
    content = bytearray(avro())
    blocks = blocks_of(bytes(content))
    damaged = [blocks[2], blocks[len(blocks) // 2], blocks[-2]]
    for offset, _ in damaged:
        content[offset + 1] = 0x7F
    path = backfills.folder / "a.avro"
    path.write_bytes(content)
    outcome = backfills.run(str(path), IN_PARTS)
    lost = {n for _, rows in damaged for n in rows}

    assert outcome.code == 4
    assert outcome.books["balanced"]
    assert [(one["uri"], one["problem"], one["offset"]) for one in outcome.report["files"]["damaged"]] == [
        (str(path), "corrupt", offset) for offset, _ in damaged
    ]
    assert held(backfills) == [n for n in range(COUNT) if n not in lost]


def test_behind_damage_a_letter_tells_the_block_and_no_number(backfills: Backfills) -> None:
    content = bytearray(avro(bad=tuple(range(COUNT))))
    blocks = blocks_of(bytes(content))
    content[blocks[1][0] + 1] = 0x7F
    path = backfills.folder / "a.avro"
    path.write_bytes(content)
    outcome = backfills.run(str(path), IN_PARTS)
    at = dict.fromkeys(blocks[0][1], blocks[0][0])
    at |= {n: offset for offset, rows in blocks[2:] for n in rows}
    places = {letter["record"]["properties"]["n"]: letter["source"] for letter in outcome.dead_letters()}

    assert {n: place["offset"] for n, place in places.items()} == at
    known = set(blocks[0][1])
    assert {n: place["line"] for n, place in places.items()} == {n: n + 1 if n in known else None for n in at}


def test_a_run_that_was_stopped_has_the_same_blocks_when_it_goes_on(backfills: Backfills) -> None:
    content = avro(bad=(5, 390))
    path = backfills.folder / "a.avro"
    path.write_bytes(content)
    refused = {"name": "stop", "when": {"nth": list(range(7, 500))}, "do": {"status": 401}}
    backfills.emulator.faults([refused])
    first = backfills.run(str(path), {**IN_PARTS, "limits.in_flight": 1})
    before = len(held(backfills))
    backfills.emulator.faults([])
    outcome = backfills.run(str(path), {**IN_PARTS, "limits.in_flight": 1}, resume=first.report["run_id"])

    assert first.code == 3
    assert 0 < before < COUNT
    assert outcome.code == 0
    assert (outcome.books["imported"], outcome.books["dead_lettered"]) == (COUNT - 2, 2)
    assert backfills.emulator.stats()["duplicates"] == 0
    assert [letter["source"]["line"] for letter in outcome.dead_letters()] == [6, 391]


def test_a_replay_keeps_the_places_of_letters(backfills: Backfills) -> None:
    path = backfills.folder / "a.avro"
    path.write_bytes(avro(bad=(7, 250)))
    first = backfills.run(str(path), {**IN_PARTS, "run.id": "first"})
    replayed = backfills.run(str(path), IN_PARTS, replay="first")

    assert replayed.books["read"] == len(first.dead_letters()) == 2
    assert replayed.dead_letters() == first.dead_letters()


def test_a_record_that_cannot_be_told_is_a_dead_letter_with_its_place(backfills: Backfills) -> None:
    content = avro(garbled=(150,))
    path = backfills.folder / "a.avro"
    path.write_bytes(content)
    outcome = backfills.run(str(path), IN_PARTS)
    (letter,) = outcome.dead_letters()
    (offset,) = [at for at, rows in blocks_of(content) if 150 in rows]

    assert outcome.code == 0
    assert held(backfills) == [n for n in range(COUNT) if n != 150]
    assert (letter["reason"], letter["field"]) == ("bad_row", "distinct_id")
    assert letter["source"] == {"uri": str(path), "line": 151, "offset": offset}
    assert b"\xff\xff" in base64.b64decode(letter["raw_b64"])


def test_an_object_is_read_in_parts(
    backfills: Backfills, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_S3_SECRET", s3.secret_key)
    options = {"source.storage_options": {**s3.storage_options, "secret": "env:TEST_S3_SECRET"}}
    s3.put("avro/a.avro", avro(bad=(200,)))
    outcome = backfills.run(s3.url("avro/a.avro"), IN_PARTS | options)

    assert outcome.code == 0
    assert parts_in(backfills, outcome) >= 4
    assert held(backfills) == [n for n in range(COUNT) if n != 200]


def test_damage_is_told_of_a_file_that_is_sorted_though_its_last_part_has_no_records(
    backfills: Backfills, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = bytearray(avro())
    offset, lost = blocks_of(bytes(content))[3]
    content[offset + 1] = 0x7F
    path = backfills.folder / "a.avro"
    path.write_bytes(content)
    monkeypatch.setattr("pipelines.plan.SEGMENT_BYTES", len(content) - 10)
    sorted_by_time = {"records.kind": "profiles", "records.operation": "$set", "records.order_by": "time"}
    outcome = backfills.run(str(path), {**sorted_by_time, "records.id_field": "distinct_id"})
    (damage,) = outcome.report["files"]["damaged"]

    assert outcome.code == 4, outcome.err
    assert (damage["uri"], damage["problem"], damage["offset"]) == (str(path), "corrupt", offset)
    assert outcome.books["imported"] == COUNT - len(lost)
