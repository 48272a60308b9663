"""The verb `show`: records beside what would be sent of them, and nothing sent, nothing left behind."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

import run_backfill
from tests.backfills import Backfills, event

MAP = {"event": "e", "time": "t", "distinct_id": "u", "events": {"deny": ["Debug"]}}


def show(backfills: Backfills, uri: str, changes: dict[str, Any], *more: str) -> tuple[int, list[str], str]:
    backfills.capture.readouterr()
    code = run_backfill.main(["show", "--config", str(backfills.config(uri, changes)), *more])
    printed = backfills.capture.readouterr()
    assert not backfills.state.exists()
    assert not list(backfills.emulator.records())
    return code, printed.out.splitlines(), printed.err


def test_each_record_is_shown_with_what_becomes_of_it(backfills: Backfills) -> None:
    lines: list[Any] = [
        {"e": "Order", "t": "2024-03-05", "u": 7, "a": 1.50},
        {"e": "Debug", "t": 1709627400, "u": "u"},
        {"e": "Order", "t": "2024-02-30", "u": "u"},
        b"",
        {"e": "Order", "t": 1709627400, "u": "anon"},
        {"e": "not shown"},
    ]
    path = backfills.write("a.json", lines)

    code, out, _ = show(backfills, str(path), {"records.map": MAP}, "--count", "4")

    assert code == 0
    assert out[0] == f"{path}, line 1"
    assert out[1] == "< " + json.dumps(lines[0])
    sent = json.loads(out[2].removeprefix("> "))
    assert (sent["event"], sent["properties"]["distinct_id"], sent["properties"]["time"]) == (
        *("Order", "7", 1709596800000),
    )
    assert len(sent["properties"]["$insert_id"]) == 32
    assert out[3:6] == [f"{path}, line 2", "< " + json.dumps(lines[1]), "> filtered: event"]
    assert out[8].startswith("> dead letter: bad_time: 'properties.time' is invalid")
    assert out[9] == f"{path}, line 5"
    assert out[11].startswith("> dead letter: disallowed_id: ")
    assert len(out) == 12


def test_all_that_a_map_makes_of_a_record_is_shown(backfills: Backfills) -> None:
    batch = {
        "batch": [{"type": "identify"}, *({"type": "track", "event": n, "userId": "u"} for n in ("A", "B"))]
    }
    for message in batch["batch"]:
        message["timestamp"] = "2024-03-05T08:30:00Z"
    path = backfills.write("a.json", [batch])

    code, out, _ = show(backfills, str(path), {"records.map": {"dialect": "segment"}})

    fates = sorted(line[2:12] for line in out[2:])
    assert code == 0
    assert fates == ["filtered: ", '{"event":"', '{"event":"']


def test_what_no_record_has_is_told_of_the_map(backfills: Backfills) -> None:
    path = backfills.write(
        "a.json", [{"e": "A", "t": 1709627400 + n, "u": {"id": n}, "x": n or None} for n in range(3)]
    )
    declared = {
        "event": "e",
        "time": ["at", "t"],
        "distinct_id": "user.id",
        "$insert_id": ["uuid", "id"],
        "properties": {"x": "x", "plan": "u.plan", "source": {"const": "web"}, "*": "*", "t_*": "traits.*"},
    }

    _, out, _ = show(backfills, str(path), {"records.map": declared})

    assert [line for line in out if line.startswith("!")] == [
        "! records.map.distinct_id: none of these records has user.id",
        "! records.map.$insert_id: none of these records has uuid or id",
        "! records.map.properties.plan: none of these records has u.plan",
        "! records.map.properties.t_*: none of these records has traits.*",
    ]


def test_what_a_dialect_makes_of_a_record_is_what_is_looked_at(backfills: Backfills) -> None:
    message = {
        "type": "track",
        "event": "A",
        "userId": "u",
        "timestamp": "2024-03-05T08:30:00Z",
        "properties": {"a": 1},
    }
    path = backfills.write("a.json", [{"batch": [message]}, b"{"])
    declared = {"dialect": "segment", "properties": {"b": "properties.a", "c": "batch[0].event"}}

    _, out, _ = show(backfills, str(path), {"records.map": declared})

    assert [line for line in out if line.startswith("!")] == [
        "! records.map.properties.c: none of these records has batch[0].event"
    ]


def test_records_without_a_map_and_rows_of_tables_are_shown(backfills: Backfills) -> None:
    path = backfills.write("a.csv", [b"event,time,distinct_id", b"A,1709627400,u"])

    code, out, _ = show(backfills, str(path), {"source.format": "csv"})

    assert (code, len(out)) == (0, 3)
    assert json.loads(out[2][2:])["event"] == "A"


def test_jobs_are_shown_one_after_another(backfills: Backfills, tmp_path: Path) -> None:
    path = backfills.write("a.json", [event(1)])
    values = yaml.safe_load(backfills.config(str(path)).read_text())
    job = {"source": values.pop("source")}
    tables = {"name": "tables", **job, "records": {"kind": "lookup_tables"}}
    values["jobs"] = [{"name": "one", **job}, tables, {"name": "two", **job}]
    config = tmp_path / "jobs.yaml"
    config.write_text(yaml.safe_dump(values))

    backfills.capture.readouterr()
    assert run_backfill.main(["show", "--config", str(config)]) == 0
    out = backfills.capture.readouterr().out.splitlines()
    assert [line for line in out if line.startswith("#")] == ["# one", "# tables", "# two"]
    assert out[5] == "! records.kind lookup_tables is sent as it stands"
    assert len(out) == 10


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({}, 9, "error: no file matches"),
        ({"records.map": {"evnt": "x"}}, 2, "unknown key; did you mean event?"),
        ({"records.kind": "lookup_tables", "records.tables": {"a": "b"}}, 2, "error: "),
    ],
)
def test_what_cannot_be_shown_is_told(
    backfills: Backfills, changes: dict[str, Any], code: int, words: str
) -> None:
    found, out, err = show(backfills, str(backfills.folder / "none" / "*.json"), changes)

    assert (found, out) == (code, [])
    assert words in err


@pytest.mark.parametrize("count", ["0", "x", "2001", "-1"])
def test_a_count_is_a_number_in_bounds(backfills: Backfills, count: str) -> None:
    with pytest.raises(SystemExit) as ended:
        show(backfills, "x", {}, "--count", count)

    assert ended.value.code == 2
