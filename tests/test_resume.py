"""Runs that are taken up again: nothing lost, nothing doubled in the books, and nobody else's run."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from mixpanel_emulator.oracle import compare
from mixpanel_emulator.process import start_emulator
from pipelines.command import run
from pipelines.lease import NAME as LOCK
from tests.backfills import Backfills, Outcome, event, events, ndjson

BOOKS = ("imported", "dead_lettered", "filtered", "undelivered", "ambiguous", "not_attempted")


def assert_closed(outcome: Outcome) -> None:
    assert outcome.books["balanced"], outcome.books
    assert outcome.books["read"] == sum(outcome.books[name] for name in BOOKS)
    assert len(outcome.dead_letters()) == outcome.books["dead_lettered"]


def assert_arrived(backfills: Backfills, records: list[dict[str, Any]]) -> None:
    found = compare(ndjson(records).splitlines(), backfills.emulator.records())
    assert found.is_clean, found


def begun(backfills: Backfills, changes: dict[str, Any] | None = None) -> str:
    """Returns the id of a run that was planned, and whose first request was refused."""
    backfills.emulator.faults([{"name": "no", "when": {"share": 1.0}, "do": {"status": 401}}])
    outcome = backfills.run(backfills.everything, changes)
    assert outcome.code == 3
    backfills.emulator.faults([])
    run_id: str = outcome.report["run_id"]
    return run_id


def test_a_file_that_was_missing_is_read_by_a_later_resume_and_nothing_is_doubled(
    backfills: Backfills,
) -> None:
    files = [backfills.write(f"{n}.json", [*events(30, first=100 * n), b"{"]) for n in range(4)]
    small = {"limits.records_per_request": 20, "run.allow_dead_letters": 4}
    run_id = begun(backfills, small)
    away = files[1].rename(backfills.folder / "away")
    without = backfills.run(backfills.everything, small, resume=run_id)
    assert without.code == 4
    (damaged,) = without.report["files"]["damaged"]
    assert (damaged["uri"], damaged["problem"]) == (str(files[1]), "missing")
    assert (without.books["imported"], without.books["dead_lettered"]) == (90, 3)
    assert_closed(without)
    away.rename(files[1])
    healed = backfills.run(backfills.everything, small, resume=run_id)
    assert healed.code == 0, healed.books
    assert (healed.books["read"], healed.books["imported"], healed.books["dead_lettered"]) == (124, 120, 4)
    assert_closed(healed)
    assert sorted(letter["source"]["uri"] for letter in healed.dead_letters()) == sorted(map(str, files))
    assert_arrived(backfills, [e for n in range(4) for e in events(30, first=100 * n)])


def test_what_stands_before_a_missing_file_is_not_sent_again(backfills: Backfills) -> None:
    files = [backfills.write(f"{n}.json", events(200, first=1000 * n)) for n in range(2)]
    small = {"limits.records_per_request": 20}
    run_id = begun(backfills, small)
    away = files[1].rename(backfills.folder / "away")
    assert backfills.run(backfills.everything, small, resume=run_id).code == 4
    away.rename(files[1])
    assert backfills.run(backfills.everything, small, resume=run_id).code == 0
    # Of the first file its last block may not have been full.
    assert backfills.emulator.stats()["duplicates"] <= 20
    assert_arrived(backfills, [e for n in range(2) for e in events(200, first=1000 * n)])


def test_a_finished_run_has_nothing_left_to_do_and_says_so(
    backfills: Backfills, capsys: pytest.CaptureFixture[str]
) -> None:
    backfills.write("a.json", events(10))
    first = backfills.run(backfills.everything)
    capsys.readouterr()
    code = run(str(backfills.config(backfills.everything)), resume=first.report["run_id"])
    page = capsys.readouterr().out
    assert code == 0
    assert "Nothing was left to do" in page
    assert "Speed" not in page
    assert backfills.emulator.stats()["requests"] == 1


def test_another_project_or_host_is_refused_by_name(
    backfills: Backfills, monkeypatch: pytest.MonkeyPatch
) -> None:
    backfills.write("a.json", events(10))
    account = {
        "service_account": {"username": "env:TEST_USER", "secret": "env:TEST_SECRET"},
        "project_id": "1",
    }
    for name in ("TEST_USER", "TEST_SECRET", "OTHER_USER", "OTHER_TOKEN"):
        monkeypatch.setenv(name, "x")
    run_id = begun(backfills, {"destination.credentials": account})
    other = backfills.run(
        backfills.everything, {"destination.credentials": {**account, "project_id": "2"}}, resume=run_id
    )
    assert other.code == 2
    assert "project 2" in other.err
    with start_emulator() as elsewhere:
        changes = {"destination.credentials": account, "destination.endpoint": elsewhere.url}
        assert backfills.run(backfills.everything, changes, resume=run_id).code == 2
        assert elsewhere.stats()["requests"] == 0
    user = {**account, "service_account": {**account["service_account"], "username": "env:OTHER_USER"}}  # type: ignore[dict-item]
    same = backfills.run(backfills.everything, {"destination.credentials": user}, resume=run_id)
    assert same.code == 0


def test_a_token_with_another_reference_is_another_project_unless_its_id_is_given(
    backfills: Backfills, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTHER_TOKEN", "x")
    backfills.write("a.json", events(10))
    run_id = begun(backfills)
    other = {"destination.credentials": {"project_token": "env:OTHER_TOKEN"}}
    assert backfills.run(backfills.everything, other, resume=run_id).code == 2
    manifest = Path(backfills.state, run_id, "manifest.jsonl").read_text()
    assert "token-of-the-test" not in manifest


def test_a_relative_source_is_found_from_another_folder(
    backfills: Backfills, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = backfills.write("a.json", events(10))
    monkeypatch.chdir(path.parent)
    backfills.emulator.faults([{"name": "no", "when": {"share": 1.0}, "do": {"status": 401}}])
    run_id = backfills.run("*.json").report["run_id"]
    backfills.emulator.faults([])
    monkeypatch.chdir(tmp_path)
    resumed = backfills.run("input/*.json", resume=run_id)
    assert resumed.code == 0, resumed.err
    assert resumed.books["imported"] == 10


@pytest.mark.parametrize("run_id", ["../../etc", "", ".", "a/b", "/etc"])
def test_what_is_no_id_of_a_run_is_refused(backfills: Backfills, run_id: str) -> None:
    backfills.write("a.json", events(10))
    assert backfills.run(backfills.everything, resume=run_id).code == 2
    assert not backfills.state.exists()


def test_new_files_are_told_and_taken_in_only_when_asked_for(backfills: Backfills) -> None:
    backfills.write("a.json", events(10))
    run_id = begun(backfills)
    backfills.write("b.json", events(10, first=100))
    without = backfills.run(backfills.everything, resume=run_id)
    assert (without.code, without.books["imported"]) == (0, 10)
    assert without.report["files"]["new"] == 1
    folder = Path(without.report["folder"])
    assert (folder / "_SUCCESS").exists()
    taken = backfills.run(backfills.everything, resume=run_id, allow_new=True)
    assert (taken.code, taken.books["imported"]) == (0, 20)
    assert taken.report["files"]["total"] == 2
    assert backfills.emulator.stats()["duplicates"] == 0
    again = backfills.run(backfills.everything, resume=run_id, allow_new=True)
    assert (again.code, again.books) == (0, taken.books)
    backfills.write("c.json", events(10, first=200))
    done = backfills.run(backfills.everything, resume=run_id)
    assert (done.code, done.books, done.report["files"]["new"]) == (0, taken.books, 1)
    (folder / "manifest_added" / "0001.jsonl").unlink()
    lost = backfills.run(backfills.everything, resume=run_id)
    assert lost.code == 2
    assert "a part of the manifest is missing" in lost.err


def test_a_link_that_led_nowhere_keeps_nothing_from_being_done_or_resumed(backfills: Backfills) -> None:
    whole = backfills.write("a.json", events(10))
    link = whole.with_name("link.json")
    link.symlink_to("mended.json")
    first = backfills.run(backfills.everything)
    whole.with_name("mended.json").write_bytes(whole.read_bytes())
    resumed = backfills.run(backfills.everything, resume=first.report["run_id"])

    for outcome in (first, resumed):
        (damaged,) = outcome.report["files"]["damaged"]
        assert (outcome.code, outcome.books["imported"]) == (4, 10)
        assert (damaged["uri"], damaged["problem"]) == (str(link), "broken_link")
    assert resumed.report["files"]["new"] == 1


def test_a_link_that_is_mended_before_it_is_read_is_left_to_a_new_run(backfills: Backfills) -> None:
    whole = backfills.write("a.json", events(10))
    link = whole.with_name("link.json")
    link.symlink_to("mended.json")
    run_id = begun(backfills)
    whole.with_name("mended.json").write_bytes(whole.read_bytes())
    resumed = backfills.run(backfills.everything, resume=run_id)

    assert (resumed.code, resumed.books["imported"]) == (4, 10)
    assert [each["problem"] for each in resumed.report["files"]["damaged"]] == ["broken_link"]


def test_a_changed_file_is_refused_by_name(backfills: Backfills) -> None:
    path = backfills.write("a.json", events(10))
    run_id = begun(backfills)
    path.write_bytes(ndjson(events(11)))
    outcome = backfills.run(backfills.everything, resume=run_id)
    assert outcome.code == 2
    assert f"{path}: has changed" in outcome.err


def test_a_run_under_another_name_is_refused(backfills: Backfills) -> None:
    backfills.write("a.json", events(10))
    run_id = begun(backfills)
    (backfills.state / run_id).rename(backfills.state / "renamed")
    outcome = backfills.run(backfills.everything, resume="renamed")
    assert outcome.code == 2
    assert run_id in outcome.err


def test_identical_rows_are_no_longer_exact_after_a_resume(backfills: Backfills) -> None:
    rows = [event(n % 50) for n in range(100)]
    for row in rows:
        del row["properties"]["$insert_id"]
    backfills.write("a.json", rows)
    one = {"limits.records_per_request": 10, "limits.in_flight": 1}
    backfills.emulator.faults([{"name": "no", "when": {"nth": [5]}, "do": {"status": 401}}])
    stopped = backfills.run(backfills.everything, one)
    assert stopped.code == 3
    assert stopped.books["imported"] == 40
    assert not stopped.report["identical_rows"]["exact"]
    resumed = backfills.run(backfills.everything, one, resume=stopped.report["run_id"])
    assert resumed.code == 0
    assert not resumed.report["identical_rows"]["exact"]
    assert backfills.emulator.stats()["duplicates"] == 50


def test_a_dry_run_counts_files_as_read(backfills: Backfills, capsys: pytest.CaptureFixture[str]) -> None:
    backfills.write("a.json", events(10))
    assert run(str(backfills.config(backfills.everything)), dry_run=True) == 0
    printed = capsys.readouterr()
    assert "1 of 1 read" in printed.out
    assert "1 file, " in printed.err
    assert "1 segment;" in printed.err


def test_a_dry_run_is_gone_on_with_for_real(backfills: Backfills) -> None:
    backfills.write("a.json", [*events(10), b"{"])
    dry = backfills.run(backfills.everything, dry_run=True)
    real = backfills.run(backfills.everything, {"run.allow_dead_letters": 1}, resume=dry.report["run_id"])
    assert real.code == 0
    assert (real.books["imported"], real.books["dead_lettered"]) == (10, 1)
    assert_closed(real)
    once_more = backfills.run(backfills.everything, resume=dry.report["run_id"], dry_run=True)
    assert once_more.report["state"] == "done", "a run that is done stays what it is"


def test_what_the_emulator_keeps_is_for_its_owner_only(backfills: Backfills) -> None:
    backfills.write("a.json", events(10))
    local = {"destination": {"emulator": True}}
    outcome = backfills.run(backfills.everything, local)
    assert outcome.code == 0, outcome.err
    store = Path(outcome.report["emulator_store"])
    assert stat.S_IMODE(store.stat().st_mode) == 0o600
    assert backfills.run(backfills.everything, local, resume=outcome.report["run_id"]).code == 0


def test_the_rate_is_that_of_sending(backfills: Backfills) -> None:
    backfills.write("a.json", events(2000))
    report = backfills.run(backfills.everything, {"limits.events_per_second": 2000}).report
    assert 0 < report["rate"]["seconds"] < 1.5
    assert report["rate"]["events_per_second"] == pytest.approx(2000 / report["rate"]["seconds"], rel=0.01)


def test_a_run_that_somebody_works_on_is_not_taken_up(backfills: Backfills) -> None:
    backfills.write("a.json", events(10))
    run_id = begun(backfills)
    lock = backfills.state / run_id / LOCK
    assert not lock.exists()
    held = {"v": 1, "owner": "other", "machine": "m", "host": "h", "pid": 7, "at": 4e9, "seconds": 90}
    lock.write_text(json.dumps(held))
    refused = backfills.run(backfills.everything, resume=run_id)
    assert refused.code == 2
    assert "process 7 on h is working on this run" in refused.err
    lock.write_text(json.dumps({**held, "at": 5}))
    assert backfills.run(backfills.everything, resume=run_id).code == 0
    assert not lock.exists()
