"""MapRecords, and whole runs with a map: what arrives, what is refused, what is left out, and the books."""

import gzip
import json
import pickle
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.testing.util import assert_that, equal_to

from mixpanel_emulator.process import EmulatorProcess
from record_maps.functions import FunctionMissing, load_function
from record_maps.mapper import Mapper
from record_maps.spec import MapSpec, TimeSpec, parse_value
from tests.backfills import Backfills
from tests.steps import shown_settings, step_pipeline
from transforms.elements import Block, OversizeLine, Span
from transforms.map_records import MapRecords, map_block

FLAT = MapSpec(
    event=parse_value("e"), time=TimeSpec(parse_value("t")), distinct_id=parse_value("u"), dates=None
)
MAP = {"event": "e", "time": "t", "distinct_id": "u"}
FUNCTIONS = '''
from mixpanel_http.records import people_set

def several(record):
    """Makes as many records as the record says, fails, or makes none."""
    if record["n"] is None:
        raise KeyError(record["secret"])
    users = ["anon" if i == record.get("bad") else "u" for i in range(record["n"])]
    return [{**record, "e": f"Order {i}", "u": user} for i, user in enumerate(users)]

def one(record):
    return dict(record, added=1) if record.get("keep", True) else None

def no_record(record):
    return 7

def profile(record):
    return people_set(record["u"], {"plan": record["plan"]})
'''


def block_of(*lines: bytes, **more: Any) -> Block:
    raw = b"".join(line + b"\n" for line in lines)
    return Block("0000000", "attempt", 0, raw, (Span(0, "f.json", len(lines), len(raw), 1, 0),), **more)


def row(**fields: Any) -> dict[str, Any]:
    return {"e": "Order", "t": 1_709_627_400, "u": "u-1", **fields}


# The step.


def test_the_step_maps_each_block_as_the_rule_does() -> None:
    blocks = [
        block_of(json.dumps(row(a=1.0)).encode(), b"", b"{", json.dumps(row(t="x")).encode()),
        block_of(json.dumps(row()).encode(), b'{"cut', torn=(1,)),
        block_of(b"begin", oversize=OversizeLine(1 << 30, "00")),
        Block("0000000", "attempt", 3, b"", (), end=True),
    ]
    mapper = Mapper(FLAT)
    with step_pipeline() as pipeline:
        mapped = pipeline | beam.Create(blocks) | MapRecords(FLAT)
        assert_that(mapped, equal_to([map_block(block, mapper) for block in blocks]))

    first, second, *others = (map_block(block, mapper).mapped for block in blocks)
    assert first is not None
    assert second is not None
    assert (first.sources, first.blank) == ([0], [1])
    assert [(r.index, r.reason) for r in first.rejections] == [(2, "invalid_json"), (3, "bad_time")]
    assert (second.sources, second.rejections) == ([0], [])
    assert others == [None, None]


def test_the_step_survives_pickling_and_shows_its_settings() -> None:
    step = pickle.loads(pickle.dumps(MapRecords(MapSpec(function="a:b"))))

    assert shown_settings(step) == {"function": "a:b", "drop_nulls": False}


# Whole runs.


@pytest.fixture
def functions(backfills: Backfills, request: pytest.FixtureRequest) -> str:
    """The name of a module of mapping functions beside the configuration."""
    name = f"maps_{abs(hash(request.node.name))}"  # of its own: modules stay loaded
    (backfills.folder / f"{name}.py").write_text(FUNCTIONS)
    return name


def test_what_a_map_makes_arrives_and_the_books_close(backfills: Backfills) -> None:
    lines: list[Any] = [row(n=i, e="Debug" if i % 10 == 0 else "Order") for i in range(50)]
    lines[3]["t"], lines[4]["t"], lines[5]["u"] = "2024-02-30", "2020-01-01", None
    lines[7] = b"{"
    backfills.write("a.json.gz", lines[:25])
    backfills.write("b.json", [*lines[25:], b""])
    declared = {**MAP, "events": {"deny": ["Debug"]}, "dates": {"from": "2024-01-01", "to": "2024-12-31"}}

    outcome = backfills.run(backfills.everything, {"records.map": declared})

    assert outcome.code == 6
    assert outcome.books["balanced"]
    assert outcome.books["read"] == 50
    assert outcome.books["filtered"] == 6
    assert outcome.books["expanded"] == 0
    assert outcome.report["filtered"]["by_reason"] == {"event": 5, "date": 1}
    assert outcome.report["dead_letters"]["by_reason"] == {
        "bad_time": 1,
        "missing_distinct_id": 1,
        "invalid_json": 1,
    }
    assert outcome.books["imported"] == 41
    assert {letter["source"]["line"]: letter["stage"] for letter in outcome.dead_letters()} == {
        4: "map",
        6: "prepare",
        8: "map",
    }
    assert [letter["record"] for letter in outcome.dead_letters() if "record" in letter] == [
        lines[3],
        lines[5],
    ]


def test_a_function_makes_any_number_of_records_and_the_books_close(
    backfills: Backfills, functions: str
) -> None:
    lines = [row(n=n, secret="canary-4711") for n in (1, 0, 3, None, 2, 5)]
    backfills.write("a.json", lines[:3])
    backfills.write("b.json", lines[3:])

    outcome = backfills.run(
        backfills.everything, {"records.map": {**MAP, "function": f"{functions}:several"}}
    )

    assert outcome.books["balanced"]
    assert {k: v for k, v in outcome.books.items() if isinstance(v, int) and v and k != "balanced"} == {
        "read": 6,
        "expanded": 2 + 1 + 4,
        "imported": 11,
        "filtered": 1,
        "dead_lettered": 1,
    }
    (letter,) = outcome.dead_letters()
    assert letter["reason"] == "map_failed"
    assert letter["message"].endswith(f":several failed: KeyError ({functions}.py, line 7)")
    assert "canary" not in letter["message"]
    assert letter["record"] == lines[3]
    files = (Path(outcome.report["folder"]) / "files.jsonl").read_text().splitlines()
    assert {
        Path(f["uri"]).name: (f["read"], f["expanded"], f["balanced"]) for f in map(json.loads, files)
    } == {
        "a.json": (3, 2, True),
        "b.json": (3, 5, True),
    }


def test_a_replay_maps_the_sources_record_again_and_takes_only_what_was_refused(
    backfills: Backfills, functions: str, emulator: EmulatorProcess
) -> None:
    lines = [row(n=3, bad=1, x=i) for i in range(4)]
    backfills.write("a.json", lines)
    declared = {**MAP, "function": f"{functions}:several"}
    first = backfills.run(backfills.everything, {"records.map": declared})
    letters = first.dead_letters()
    assert first.books["imported"] == 8
    assert [(letter["record"], letter["output"]) for letter in letters] == [(line, 1) for line in lines]

    mended = {"records.map": {**declared, "distinct_id": {"const": "nobody"}}}
    second = backfills.run(backfills.everything, mended, replay=first.report["run_id"])

    assert second.code == 0
    assert (second.books["read"], second.books["expanded"], second.books["imported"]) == (4, 0, 4)
    assert emulator.stats()["events"] == 12


def test_what_mixpanel_refuses_of_a_mapped_record_holds_the_sources_record(
    backfills: Backfills, emulator: EmulatorProcess
) -> None:
    lines = [row(i=f"id-{i}", e="Debug" if i == 0 else "Order") for i in range(4)]
    backfills.write("a.json", lines)
    refused = [{"index": 1, "insert_id": "id-2", "field": "properties.x", "message": "too odd"}]
    answer = {"code": 400, "error": "some", "status": "Bad Request", "num_records_imported": 2}
    body = json.dumps({**answer, "failed_records": refused})
    emulator.faults([{"name": "odd", "when": {"times": 1}, "do": {"status": 400, "body": body}}])

    declared = {**MAP, "$insert_id": "i", "events": {"deny": ["Debug"]}}
    outcome = backfills.run(backfills.everything, {"records.map": declared})

    assert emulator.stats()["faults"] == {"odd": 1}
    (letter,) = outcome.dead_letters()
    assert (letter["stage"], letter["record"], letter["output"]) == ("import", lines[2], 0)
    assert letter["insert_id"] == "id-2"


@pytest.mark.parametrize(
    "change",
    [
        {"records.map.tags": {"a": 1}},
        {"records.map.time": {"from": "t", "zone": "Asia/Tokyo"}},
        {"records.map": None},
    ],
)
def test_a_resume_refuses_another_map(backfills: Backfills, change: dict[str, Any]) -> None:
    backfills.write("a.json", [row(n=i) for i in range(3)])
    first = backfills.run(backfills.everything, {"records.map": dict(MAP)}, dry_run=True)

    again = backfills.run(
        backfills.everything, {"records.map": dict(MAP), **change}, resume=first.report["run_id"]
    )
    assert again.code == 2
    assert "error: records.map" in again.err
    assert ": the run has " in again.err


def test_a_resume_refuses_a_function_that_has_changed(backfills: Backfills, functions: str) -> None:
    backfills.write("a.json", [row(n=i) for i in range(3)])
    changes = {"records.map": {**MAP, "function": f"{functions}:one"}}
    first = backfills.run(backfills.everything, changes, dry_run=True)
    (backfills.folder / f"{functions}.py").write_text(FUNCTIONS + "\n# changed")

    again = backfills.run(backfills.everything, changes, resume=first.report["run_id"])

    assert again.code == 2


def test_personal_data_and_the_salt_go_nowhere_but_into_letters(
    backfills: Backfills, emulator: EmulatorProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAP_SALT", "canary-of-the-salt")
    person = {"Mail": "canary-a@example.org", "note": "ask canary-b@example.org", "phone": "canary-c"}
    backfills.write("a.json", [row(**person), {**row(**person), "u": "canary-d@example.org", "t": "never"}])
    declared = {
        **MAP,
        "personal_data": {
            "hash": {"keys": ["mail"], "patterns": ["email"]},
            "remove": {"keys": ["phone"]},
            "salt": "env:MAP_SALT",
        },
    }

    outcome = backfills.run(backfills.everything, {"records.map": declared})

    assert (outcome.books["imported"], outcome.books["dead_lettered"]) == (1, 1)
    (stored,) = emulator.records()
    left = [
        path for path in backfills.state.rglob("*") if path.is_file() and path.parent.name != "dead_letters"
    ]
    said = [stored.decode(), outcome.out, outcome.err, *(path.read_text() for path in left)]
    assert not [text for text in said if "canary" in text]
    assert b"canary-a" in gzip.decompress(Path(outcome.report["dead_letters"]["files"][0]).read_bytes())


def test_a_salt_that_is_not_there_is_told_before_anything_begins(backfills: Backfills) -> None:
    backfills.write("a.json", [row()])
    personal = {"hash": {"keys": ["mail"]}, "salt": "env:NO_SUCH_SALT"}

    outcome = backfills.run(backfills.everything, {"records.map": {**MAP, "personal_data": personal}})

    assert outcome.code == 2
    assert "env:NO_SUCH_SALT: the environment variable is not set" in outcome.err
    assert not backfills.state.exists()


def test_a_mapped_run_that_was_stopped_goes_on_where_it_was(
    backfills: Backfills, functions: str, emulator: EmulatorProcess
) -> None:
    for name in ("a", "b", "c"):
        backfills.write(f"{name}.json", [row(n=i % 4, of=f"{name}{i}") for i in range(40)])
    changes = {
        "records.map": {**MAP, "function": f"{functions}:several"},
        "limits.records_per_request": 10,
        "limits.in_flight": 1,
    }
    emulator.faults([{"name": "no", "when": {"nth": [5]}, "do": {"status": 401}}])
    first = backfills.run(backfills.everything, changes)
    assert (first.code, emulator.stats()["faults"]) == (3, {"no": 1})
    emulator.faults([])

    second = backfills.run(backfills.everything, changes, resume=first.report["run_id"])

    assert second.code == 0
    assert second.books["balanced"]
    read, made = 120, 30 * (1 + 2 + 3)
    assert {name: second.books[name] for name in ("read", "expanded", "imported", "filtered")} == {
        "read": read,
        "expanded": made - 90,
        "imported": made,
        "filtered": 30,
    }
    ids = [json.loads(record)["properties"]["$insert_id"] for record in emulator.records()]
    assert len(set(ids)) == made


# Functions.


def test_a_number_that_python_cannot_hold_is_told_as_such(backfills: Backfills, functions: str) -> None:
    backfills.write("a.json", [b'{"e":"x","t":1709627400,"u":"u","n":1e999}', b'{"s":"\xff"}'])

    outcome = backfills.run(backfills.everything, {"records.map": {**MAP, "function": f"{functions}:one"}})

    assert [(letter["reason"], letter["message"][:16]) for letter in outcome.dead_letters()] == [
        ("map_failed", "a number lies be"),
        ("invalid_utf8", "record is invali"),
    ]


def test_a_function_makes_updates_of_profiles_too(backfills: Backfills, functions: str) -> None:
    backfills.write("a.json", [row(plan="pro"), row(u="u-2", plan="free"), row()])
    changes = {
        "records.kind": "profiles",
        "records.map": {"function": f"{functions}:profile"},
        "source.order": "oldest_first",
    }

    outcome = backfills.run(backfills.everything, changes)

    assert (outcome.books["imported"], outcome.books["balanced"]) == (2, True)
    assert outcome.report["dead_letters"]["by_reason"] == {"map_failed": 1}
    assert [letter["record"] for letter in outcome.dead_letters()] == [row()]


def test_a_function_that_returns_no_record_fails_on_that_record(backfills: Backfills, functions: str) -> None:
    backfills.write("a.json", [row()])

    outcome = backfills.run(backfills.everything, {"records.map": {"function": f"{functions}:no_record"}})

    assert outcome.report["dead_letters"]["by_reason"] == {"map_failed": 1}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("no_such_module_here:f", "no_such_module_here cannot be imported: ModuleNotFoundError"),
        ("json:no_such_function", "json has no function no_such_function"),
        ("json:__name__", "json has no function __name__"),
    ],
)
def test_a_function_that_is_not_there_is_told(name: str, words: str) -> None:
    with pytest.raises(FunctionMissing, match=words):
        load_function(name)


def test_dead_letters_of_a_mapped_run_are_written_as_always(backfills: Backfills) -> None:
    backfills.write("a.json", [b"{"])
    outcome = backfills.run(backfills.everything, {"records.map": MAP})

    with gzip.open(outcome.report["dead_letters"]["files"][0]) as file:
        assert set(json.loads(file.read())) == {
            *("v", "stage", "reason", "http_status", "field", "message", "source", "insert_id", "raw_b64")
        }
