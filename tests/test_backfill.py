"""Whole runs, judged by what they leave: records at the emulator, dead letters, report, exit code."""

from __future__ import annotations

import bz2
import gzip
import json
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

from mixpanel_emulator.oracle import compare
from mixpanel_emulator.process import EmulatorProcess
from tests.backfills import Backfills, Outcome, event, events, ndjson
from tests.servers import GcsServer, S3Server


def lines_of(records: Any) -> list[bytes]:
    return ndjson(records).splitlines()


def assert_arrived(emulator: EmulatorProcess, expected: list[bytes], ignore: tuple[str, ...] = ()) -> None:
    found = compare(expected, emulator.records(), ignore=ignore)
    assert found.is_clean, found


def assert_closed(outcome: Outcome) -> None:
    books = outcome.books
    accounted = sum(
        books[name]
        for name in (
            "imported",
            "dead_lettered",
            "filtered",
            "undelivered",
            "ambiguous",
            "not_attempted",
        )
    )
    assert books["balanced"]
    assert books["read"] == accounted


def test_every_event_arrives_once_and_the_books_close(backfills: Backfills) -> None:
    for day in range(3):
        backfills.write(f"dt=2024-01-0{day + 1}/a.json", events(2500, first=10_000 * day))
    outcome = backfills.run(backfills.everything)
    assert outcome.code == 0, outcome.err
    assert_closed(outcome)
    assert outcome.books["imported"] == 7500
    expected = [line for day in range(3) for line in lines_of(events(2500, first=10_000 * day))]
    assert_arrived(backfills.emulator, expected)
    assert backfills.emulator.stats()["duplicates"] == 0
    assert Path(outcome.report["folder"], "_SUCCESS").exists()


def test_plain_gzip_bz2_and_zstd_are_told_by_content_not_by_name(backfills: Backfills) -> None:
    folder = backfills.folder / "input"
    folder.mkdir()
    zstd: Callable[[bytes], bytes] = zstandard.ZstdCompressor().compress
    packs: tuple[Callable[[bytes], bytes], ...] = (bytes, gzip.compress, bz2.compress, zstd)
    for number, pack in enumerate(packs):
        (folder / f"{number}.json").write_bytes(pack(ndjson(events(100, first=1000 * number))))
    outcome = backfills.run(backfills.everything)
    assert outcome.code == 0, outcome.err
    expected = [line for number in range(4) for line in lines_of(events(100, first=1000 * number))]
    assert_arrived(backfills.emulator, expected)


def test_a_large_plain_file_is_split_and_every_line_is_read_exactly_once(
    backfills: Backfills, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.plan.SEGMENT_BYTES", 10_000)
    monkeypatch.setattr("pipelines.plan.SMALL_BYTES", 100)
    path = backfills.write("big.json", [*events(3000), b"no json"])
    outcome = backfills.run(str(path))
    assert outcome.report["segments"]["total"] > 10
    assert outcome.books["read"] == 3001
    assert_arrived(backfills.emulator, lines_of(events(3000)))
    (letter,) = outcome.dead_letters()
    assert letter["source"] == {
        "uri": str(path),
        "line": 3001,
        "offset": path.stat().st_size - len(b"no json\n"),
    }


def test_many_small_files_are_packed_into_full_requests(backfills: Backfills) -> None:
    for number in range(300):
        backfills.write(f"{number:03}.json", events(10, first=100 * number))
    outcome = backfills.run(backfills.everything)
    assert outcome.books["imported"] == 3000
    assert outcome.report["files"] == {"total": 300, "done": 300, "read": 300, "damaged": [], "new": 0}
    assert outcome.report["requests"]["total"] <= 4
    files = [
        json.loads(row) for row in Path(outcome.report["folder"], "files.jsonl").read_text().splitlines()
    ]
    assert {row["read"] for row in files} == {10}
    assert all(row["balanced"] for row in files)


def test_bad_records_become_dead_letters_with_their_place_and_reason(backfills: Backfills) -> None:
    good = list(events(5))
    bad: list[bytes | dict[str, Any]] = [b'{"event": "x", ', b"\xff\xfe", event(90, distinct_id="undefined")]
    path = backfills.write("a.json.gz", [good[0], bad[0], good[1], b"", bad[1], *good[2:], bad[2]])
    outcome = backfills.run(str(path))
    assert outcome.code == 6
    assert_closed(outcome)
    assert outcome.books["read"] == 8
    assert outcome.books["dead_lettered"] == 3
    letters = outcome.dead_letters()
    assert [(x["reason"], x["source"]["line"]) for x in letters] == [
        ("invalid_json", 2),
        ("invalid_utf8", 5),
        ("disallowed_id", 9),
    ]
    content = gzip.decompress(path.read_bytes())
    for letter, line in zip(letters, (2, 5, 9), strict=True):
        start = letter["source"]["offset"]
        assert content[start:].split(b"\n")[0] == content.split(b"\n")[line - 1]
        assert letter["stage"] == "prepare"
        assert letter["http_status"] is None
    assert letters[2]["record"] == bad[2]
    assert letters[2]["field"] == "properties.distinct_id"
    assert_arrived(backfills.emulator, lines_of(good))


def test_the_service_refusing_records_is_told_with_its_own_words(backfills: Backfills) -> None:
    path = backfills.write("a.json", events(10))
    answer = {
        "code": 400,
        "error": "some data points in the request failed validation",
        "status": "Bad Request",
        "num_records_imported": 9,
        "failed_records": [
            {"index": 3, "insert_id": "id-000000000003", "field": "properties.amount", "message": "too odd"}
        ],
    }
    backfills.emulator.faults(
        [{"name": "odd", "when": {"times": 1}, "do": {"status": 400, "body": json.dumps(answer)}}]
    )
    outcome = backfills.run(str(path))
    assert backfills.emulator.stats()["faults"] == {"odd": 1}
    assert outcome.code == 6
    assert_closed(outcome)
    (letter,) = outcome.dead_letters()
    assert letter["stage"] == "import"
    assert letter["http_status"] == 400
    assert (letter["field"], letter["message"]) == ("properties.amount", "too odd")
    assert (letter["source"]["line"], letter["insert_id"]) == (4, "id-000000000003")
    assert outcome.report["requests"]["by_status"] == {"400": 1}


def test_refused_credentials_stop_the_run_and_make_no_dead_letters(backfills: Backfills) -> None:
    path = backfills.write("a.json", events(10_000))
    backfills.emulator.faults([{"name": "no", "when": {"share": 1.0, "seed": 1}, "do": {"status": 401}}])
    outcome = backfills.run(str(path), {"limits.in_flight": 2})
    assert outcome.code == 3
    assert outcome.report["state"] == "stopped"
    assert outcome.books["dead_lettered"] == outcome.books["imported"] == 0
    assert_closed(outcome)
    assert backfills.emulator.stats()["requests"] <= 2
    backfills.emulator.faults([])
    resumed = backfills.run(str(path), {"limits.in_flight": 2}, resume=outcome.report["run_id"])
    assert resumed.code == 0
    assert_closed(resumed)
    assert_arrived(backfills.emulator, lines_of(events(10_000)))


def test_throttling_and_server_errors_are_ridden_out(backfills: Backfills) -> None:
    path = backfills.write("a.json", events(20_000))
    backfills.emulator.faults(
        [
            {"name": "slow down", "when": {"nth": [1, 4]}, "do": {"status": 429}},
            {"name": "busy", "when": {"nth": [2]}, "do": {"status": 503}},
            {"name": "cut after", "when": {"nth": [3]}, "do": {"reset": "after"}},
            {"name": "cut before", "when": {"nth": [6]}, "do": {"reset": "before"}},
        ]
    )
    outcome = backfills.run(str(path))
    assert outcome.code == 0, outcome.err
    assert backfills.emulator.stats()["faults"] == {
        "slow down": 2,
        "busy": 1,
        "cut after": 1,
        "cut before": 1,
    }
    assert_closed(outcome)
    assert outcome.report["requests"]["retries"] == 5
    assert outcome.report["re_sent"]["events"] == 10_000
    assert_arrived(backfills.emulator, lines_of(events(20_000)))


def test_a_too_large_request_is_halved_until_it_fits(backfills: Backfills, tmp_path: Path) -> None:
    from mixpanel_emulator.process import start_emulator

    path = backfills.write("a.json", events(4000))
    with start_emulator(settings={"max_body_bytes": "100000"}) as small:
        backfills.emulator = small
        outcome = backfills.run(str(path), {"limits.in_flight": 1})
        assert outcome.code == 0, outcome.err
        assert outcome.report["requests"]["by_status"]["413"] >= 1
        assert outcome.report["requests"]["splits"] >= 1
        assert_arrived(small, lines_of(events(4000)))


def test_ids_are_the_same_for_plain_and_compressed_input_and_for_a_second_run(backfills: Backfills) -> None:
    def ids() -> Counter[str]:
        return Counter(json.loads(r)["properties"]["$insert_id"] for r in backfills.emulator.records())

    rows = list(events(500))
    for row in rows:
        del row["properties"]["$insert_id"]
    plain = backfills.write("plain.json", rows)
    packed = backfills.write("packed.json.gz", rows)
    first = backfills.run(str(plain))
    assert first.report["alterations"] == {"stamped_insert_ids": 500}
    stamped = ids()
    backfills.run(str(packed), {"limits.records_per_request": 77})
    backfills.run(str(plain))
    assert ids() == Counter({key: 3 * n for key, n in stamped.items()})
    assert backfills.emulator.stats()["distinct"] == 500


@pytest.mark.parametrize(("identical_rows", "distinct"), [("merge", 1), ("keep", 5)])
def test_identical_rows_are_merged_or_kept_as_asked(
    backfills: Backfills, identical_rows: str, distinct: int
) -> None:
    row = event(1)
    del row["properties"]["$insert_id"]
    path = backfills.write("a.json", [row] * 5)
    outcome = backfills.run(str(path), {"records.insert_id.identical_rows": identical_rows})
    assert outcome.code == 0
    assert backfills.emulator.stats()["distinct"] == distinct
    assert outcome.report["identical_rows"] == {"estimate": 5 - distinct, "exact": True}


def test_a_dry_run_reads_everything_and_sends_nothing(backfills: Backfills) -> None:
    path = backfills.write("a.json", [*events(10), b"{"])
    outcome = backfills.run(str(path), {"run.allow_dead_letters": 1}, dry_run=True)
    assert outcome.code == 0
    assert outcome.report["state"] == "dry_run"
    assert outcome.books["not_attempted"] == 10
    assert outcome.books["dead_lettered"] == 1
    assert_closed(outcome)
    assert backfills.emulator.stats()["requests"] == 0


def test_no_input_is_exit_code_9_not_0(backfills: Backfills) -> None:
    outcome = backfills.run(str(backfills.folder / "nothing" / "*.json"))
    assert outcome.code == 9
    assert "no file matches" in outcome.err


def test_a_truncated_file_is_delivered_up_to_the_damage_and_named(backfills: Backfills) -> None:
    good = backfills.write("a.json.gz", events(100, first=5000))
    path = backfills.write("b.json.gz", events(20_000))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    outcome = backfills.run([str(good), str(path)])
    assert outcome.code == 4
    assert_closed(outcome)
    (damaged,) = outcome.report["files"]["damaged"]
    assert (damaged["uri"], damaged["problem"]) == (str(path), "truncated")
    assert damaged["offset"] == path.stat().st_size
    assert outcome.report["dead_letters"]["by_reason"] == {"truncated_tail": 1}
    whole = outcome.books["imported"] - 100
    assert 0 < whole < 20_000
    assert_arrived(backfills.emulator, lines_of(events(whole)) + lines_of(events(100, first=5000)))


def test_too_many_errors_stop_the_run_with_exit_code_8(backfills: Backfills) -> None:
    path = backfills.write("a.json", [b"{"] * 80_000)
    outcome = backfills.run(str(path), {"run.max_errors": 5000})
    assert outcome.code == 8
    assert 5000 < outcome.books["dead_lettered"] < 80_000
    assert_closed(outcome)


def test_resuming_a_finished_run_sends_nothing(backfills: Backfills) -> None:
    path = backfills.write("a.json", events(3000))
    first = backfills.run(str(path))
    requests = backfills.emulator.stats()["requests"]
    again = backfills.run(str(path), resume=first.report["run_id"])
    assert again.code == 0
    assert again.books == first.books
    assert backfills.emulator.stats()["requests"] == requests


def test_a_resumed_run_refuses_settings_that_would_change_ids(backfills: Backfills) -> None:
    path = backfills.write("a.json", events(10))
    first = backfills.run(str(path))
    other = backfills.run(str(path), {"records.insert_id.mode": "line"}, resume=first.report["run_id"])
    assert other.code == 2
    assert "records.insert_id" in other.err


def test_undelivered_records_are_sent_by_a_resume(backfills: Backfills) -> None:
    path = backfills.write("a.json", events(2000))
    backfills.emulator.faults([{"name": "down", "when": {"share": 1.0, "seed": 1}, "do": {"status": 503}}])
    short = {"limits.retry.give_up_after_seconds": 0.05}
    outcome = backfills.run(str(path), short)
    assert backfills.emulator.stats()["faults"]["down"] >= 1
    assert outcome.code == 5
    assert outcome.books["undelivered"] == 2000
    assert_closed(outcome)
    backfills.emulator.faults([])
    resumed = backfills.run(str(path), short, resume=outcome.report["run_id"])
    assert resumed.code == 0
    assert resumed.books["imported"] == 2000
    assert resumed.books["undelivered"] == 0
    assert_arrived(backfills.emulator, lines_of(events(2000)))


def s3_changes(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    options = dict(s3.storage_options)
    monkeypatch.setenv("TEST_S3_SECRET", options["secret"])
    return {"source.storage_options": {**options, "secret": "env:TEST_S3_SECRET"}}


def test_partitions_in_s3_are_read_by_date_and_the_state_can_live_there(
    backfills: Backfills, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for day in (1, 2, 3):
        s3.put(f"e2e/dt=2024-01-0{day}/a.json.gz", gzip.compress(ndjson(events(2500, first=10_000 * day))))
    changes = s3_changes(s3, monkeypatch)
    changes |= {
        "source.dates": {"from": "2024-01-02", "to": "2024-01-03"},
        "run.state": s3.url("state"),
        "run.storage_options": changes["source.storage_options"],
        "run.id": "first",
    }
    outcome = backfills.run(s3.url("e2e/dt={date}/*.json.gz"), changes)
    assert outcome.code == 0, outcome.err
    assert outcome.report["files"]["total"] == 2
    expected = [line for day in (2, 3) for line in lines_of(events(2500, first=10_000 * day))]
    assert_arrived(backfills.emulator, expected)
    kept = s3.list("state/first")
    assert "state/first/_SUCCESS" in kept
    assert json.loads(s3.get("state/first/report.json"))["books"] == outcome.books
    again = backfills.run(s3.url("e2e/dt={date}/*.json.gz"), changes, resume="first")
    assert (again.code, again.books) == (0, outcome.books)


def test_partitions_in_gcs_are_read_and_the_state_can_live_there(
    backfills: Backfills, gcs: GcsServer
) -> None:
    for day in (1, 2):
        gcs.put(f"e2e/dt=2024-01-0{day}/a.json", ndjson([*events(1500, first=10_000 * day), b"{"]))
    options = dict(gcs.storage_options)
    outcome = backfills.run(
        gcs.url("e2e/**"),
        {
            "source.storage_options": options,
            "run.state": gcs.url("state"),
            "run.storage_options": options,
            "run.allow_dead_letters": 2,
            "run.id": "first",
        },
    )
    assert outcome.code == 0, outcome.err
    assert_closed(outcome)
    expected = [line for day in (1, 2) for line in lines_of(events(1500, first=10_000 * day))]
    assert_arrived(backfills.emulator, expected)
    (name,) = (name for name in gcs.list("state/first/dead_letters"))
    letters = [json.loads(line) for line in gzip.decompress(gcs.get(name)).splitlines()]
    assert {x["source"]["line"] for x in letters} == {1501}
    assert {x["source"]["uri"] for x in letters} == {
        gcs.url(f"e2e/dt=2024-01-0{day}/a.json") for day in (1, 2)
    }


def test_the_newest_partition_is_sent_first(backfills: Backfills) -> None:
    days = list(range(1, 8))
    random.Random(3).shuffle(days)
    for day in days:
        backfills.write(f"dt=2024-01-0{day}/a.json", [event(day)])
    outcome = backfills.run(
        str(backfills.folder / "input" / "dt={date}" / "*"),
        {"limits.in_flight": 1, "limits.records_per_request": 1},
    )
    assert outcome.code == 0
    sent = [json.loads(r)["properties"]["amount"] * 4 for r in backfills.emulator.records()]
    assert sent == [7, 6, 5, 4, 3, 2, 1]


def test_files_of_no_bytes_are_told_when_a_run_begins(backfills: Backfills) -> None:
    backfills.write("a.json", events(3))
    backfills.write("b.json", [])
    backfills.write("c.json", [])
    outcome = backfills.run(backfills.everything)

    assert (outcome.code, outcome.report["files"]["done"]) == (0, 3)
    assert "\n  2 files of 0 bytes\n" in outcome.err
