"""Whole runs over files that are no NDJSON: the same events, the places of what is refused, what is named."""

import base64
import gzip
import io
import json
import random
from typing import Any

import fastavro
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.backfills import Backfills
from tests.events import event

EVENTS: list[dict[str, Any]] = [event(**{"$insert_id": f"id-{n}", "n": n}) for n in range(50)]
ARRAY = json.dumps(EVENTS, indent=2).encode()


def held(backfills: Backfills) -> list[int]:
    """The numbers of the events that arrived."""
    return sorted(json.loads(record)["properties"]["n"] for record in backfills.emulator.records())


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("array.json", ARRAY),
        ("array.json.gz", gzip.compress(ARRAY)),
        ("one-after-the-other.json", b"".join(json.dumps(one, indent=1).encode() for one in EVENTS)),
        ("lines.json", b"\n".join(json.dumps(one).encode() for one in EVENTS)),
    ],
)
def test_events_arrive_whatever_they_are_stored_as(name: str, content: bytes, backfills: Backfills) -> None:
    path = backfills.folder / name
    path.write_bytes(content)
    outcome = backfills.run(str(path))

    assert outcome.code == 0
    assert outcome.books["read"] == outcome.books["imported"] == 50
    assert held(backfills) == list(range(50))


TABLE = "event,time,distinct_id,$insert_id,ip,n\n" + "".join(
    f"{one['event']},{p['time']},{p['distinct_id']},{p['$insert_id']},{p['ip']},{p['n']}\n"
    for one in EVENTS
    for p in [one["properties"]]
)


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.tsv"])
def test_rows_arrive_as_the_events_that_they_are(name: str, backfills: Backfills) -> None:
    text = TABLE.replace(",", "\t") if ".tsv" in name else TABLE
    path = backfills.folder / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    outcome = backfills.run(str(path))
    arrived = [json.loads(record) for record in backfills.emulator.records()]

    assert outcome.code == 0
    assert sorted(arrived, key=lambda one: one["properties"]["n"]) == EVENTS


def test_a_bad_row_is_a_dead_letter_with_its_bytes_and_its_place(backfills: Backfills) -> None:
    lines = TABLE.splitlines(keepends=True)
    lines[3] = 'Signup,"1,\n'
    path = backfills.folder / "a.csv"
    path.write_text("".join(lines))
    outcome = backfills.run(str(path), {"run.allow_dead_letters": 1})
    (letter,) = outcome.dead_letters()

    assert outcome.code == 0
    assert outcome.books == {
        **outcome.books,
        "read": 50,
        "imported": 49,
        "dead_lettered": 1,
        "balanced": True,
    }
    assert (letter["stage"], letter["reason"]) == ("prepare", "bad_row")
    assert letter["source"] == {"uri": str(path), "line": 3, "offset": sum(map(len, lines[:3]))}
    assert base64.b64decode(letter["raw_b64"]) == b'Signup,"1,'


def test_a_table_that_is_cut_short_is_imported_up_to_there(backfills: Backfills) -> None:
    path = backfills.folder / "a.csv.gz"
    path.write_bytes(gzip.compress(TABLE.encode(), 0)[:-1200])
    outcome = backfills.run(str(path), {"run.allow_dead_letters": 1})
    (letter,) = outcome.dead_letters()

    assert outcome.code == 4
    assert held(backfills) == list(range(outcome.books["imported"]))
    assert outcome.books["imported"] > 10
    assert letter["reason"] == "truncated_tail"


PARQUET_TABLE = pa.Table.from_pylist([{"event": one["event"], **one["properties"]} for one in EVENTS])


def test_rows_of_parquet_arrive_as_the_events_that_they_are(backfills: Backfills) -> None:
    path = backfills.folder / "a.parquet"
    pq.write_table(PARQUET_TABLE, path, row_group_size=7)
    outcome = backfills.run(str(path))
    arrived = [json.loads(record) for record in backfills.emulator.records()]

    assert outcome.code == 0
    assert sorted(arrived, key=lambda one: one["properties"]["n"]) == EVENTS


@pytest.mark.parametrize("name", ["a.avro", "a.avro.gz"])
def test_records_of_avro_arrive_as_the_events_that_they_are(name: str, backfills: Backfills) -> None:
    kinds = {"event": "string", "time": "long", "distinct_id": "string", "ip": "string", "n": "long"}
    fields = [{"name": field, "type": kind} for field, kind in kinds.items()]
    schema = {"type": "record", "name": "Flat", "fields": fields}
    file = io.BytesIO()
    fastavro.writer(file, schema, [{"event": one["event"], **one["properties"]} for one in EVENTS], "deflate")
    path = backfills.folder / name
    path.write_bytes(gzip.compress(file.getvalue()) if name.endswith(".gz") else file.getvalue())
    outcome = backfills.run(str(path))
    arrived = [json.loads(record) for record in backfills.emulator.records()]
    without_ids = [{**one, "properties": {**one["properties"], "$insert_id": ""}} for one in EVENTS]

    assert outcome.code == 0
    assert [
        {**one, "properties": {**one["properties"], "$insert_id": ""}}
        for one in sorted(arrived, key=lambda one: one["properties"]["n"])
    ] == without_ids


def test_a_large_parquet_file_is_read_in_parts(backfills: Backfills, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.plan.SEGMENT_BYTES", 500)
    monkeypatch.setattr("pipelines.plan.SMALL_BYTES", 10)
    path = backfills.folder / "a.parquet"
    dated = PARQUET_TABLE.set_column(1, "time", PARQUET_TABLE["time"].cast(pa.string()))
    bad = pa.Table.from_pylist([{"event": "Bad", "time": "tomorrow"}])
    table = pa.concat_tables([dated, bad], promote_options="default")
    pq.write_table(table, path, row_group_size=7)
    outcome = backfills.run(str(path), {"run.allow_dead_letters": 1})
    (letter,) = outcome.dead_letters()
    manifest = (backfills.state / outcome.report["run_id"] / "manifest.jsonl").read_text()

    assert outcome.code == 0
    assert held(backfills) == list(range(50))
    assert manifest.count('"parquet"]') > 2
    assert letter["reason"] == "bad_time"
    assert letter["source"] == {"uri": str(path), "line": 51, "offset": None}


def test_damaged_parquet_is_named_and_the_others_go_on(backfills: Backfills) -> None:
    folder = backfills.folder / "input"
    folder.mkdir()
    pq.write_table(PARQUET_TABLE, folder / "a.parquet")
    content = (folder / "a.parquet").read_bytes()
    (folder / "b.parquet").write_bytes(content[:-30])
    (folder / "c.parquet.gz").write_bytes(gzip.compress(content))
    outcome = backfills.run(f"{folder}/*")
    damaged = {found["uri"].rpartition("/")[2]: found for found in outcome.report["files"]["damaged"]}

    assert outcome.code == 4
    assert outcome.books["imported"] == outcome.books["read"] == 50
    assert {name: found["problem"] for name, found in damaged.items()} == {
        "b.parquet": "truncated",
        "c.parquet.gz": "unsupported_format",
    }
    assert "decompress it" in damaged["c.parquet.gz"]["detail"]


def test_a_map_sees_rows_as_objects_of_their_columns(backfills: Backfills) -> None:
    path = backfills.folder / "a.csv"
    path.write_text("name;when;who\nSignup;2024-03-01T00:00:00Z;u1\nbad\nLogin;2024-03-02T00:00:00Z;u2\n")
    mapping = {"event": "name", "time": "when", "distinct_id": "who"}
    outcome = backfills.run(str(path), {"records.map": mapping, "run.allow_dead_letters": 1})
    arrived = sorted(
        (one["event"], one["properties"]["distinct_id"], one["properties"]["time"])
        for one in map(json.loads, backfills.emulator.records())
    )

    assert outcome.code == 0
    assert arrived == [("Login", "u2", 1709337600000), ("Signup", "u1", 1709251200000)]
    assert [letter["reason"] for letter in outcome.dead_letters()] == ["bad_row"]


def test_a_bad_record_of_an_array_is_told_by_its_number_and_its_byte(backfills: Backfills) -> None:
    texts = [json.dumps(one) for one in EVENTS[:5]]
    texts[2] = '{"event": nope}'
    path = backfills.folder / "array.json"
    path.write_text("[\n " + ",\n ".join(texts) + "\n]\n")
    outcome = backfills.run(str(path), {"run.allow_dead_letters": 1})
    (letter,) = outcome.dead_letters()

    assert outcome.code == 0
    assert held(backfills) == [0, 1, 3, 4]
    assert letter["reason"] == "invalid_json"
    place = {"uri": str(path), "line": 3, "offset": path.read_text().index(texts[2])}
    assert letter["source"] == place


def test_an_array_that_ends_too_early_is_damaged_and_the_rest_goes_on(backfills: Backfills) -> None:
    folder = backfills.folder / "input"
    folder.mkdir()
    cut = ARRAY[: ARRAY.index(b'"n": 20') + 3]
    (folder / "a.json").write_bytes(cut)
    (folder / "b.json").write_bytes(json.dumps(EVENTS[30:]).encode())
    outcome = backfills.run(f"{folder}/*", {"run.allow_dead_letters": 1})

    assert outcome.code == 4
    assert held(backfills) == [*range(20), *range(30, 50)]
    assert [letter["reason"] for letter in outcome.dead_letters()] == ["truncated_tail"]
    (damaged,) = outcome.report["files"]["damaged"]
    assert (damaged["uri"], damaged["problem"]) == (str(folder / "a.json"), "truncated")
    assert damaged["offset"] == len(cut)


def test_a_compressed_array_that_is_cut_short_is_imported_up_to_there(backfills: Backfills) -> None:
    path = backfills.folder / "a.json.gz"
    noise = random.Random(3)
    noisy = [one | {"properties": {**one["properties"], "x": noise.getrandbits(9999)}} for one in EVENTS]
    path.write_bytes(gzip.compress(json.dumps(noisy).encode())[:-20_000])
    outcome = backfills.run(str(path), {"run.allow_dead_letters": 1})

    assert outcome.code == 4
    assert held(backfills) == list(range(outcome.books["imported"]))
    assert outcome.books["imported"] > 10
    (damaged,) = outcome.report["files"]["damaged"]
    assert (damaged["problem"], damaged["offset"]) == ("truncated", path.stat().st_size)


def test_a_file_that_cannot_be_read_is_named_and_the_others_go_on(backfills: Backfills) -> None:
    folder = backfills.folder / "input"
    folder.mkdir()
    (folder / "a.orc").write_bytes(b"ORC\x08\x03\x10\x02" * 100)
    (folder / "b.json").write_bytes(ARRAY)
    outcome = backfills.run(f"{folder}/*")

    assert outcome.code == 4
    assert outcome.books["read"] == outcome.books["imported"] == 50
    (damaged,) = outcome.report["files"]["damaged"]
    assert (damaged["uri"], damaged["problem"]) == (str(folder / "a.orc"), "unsupported_format")
    assert "ORC" in damaged["detail"]
    assert "Parquet" in damaged["detail"]
