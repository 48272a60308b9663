"""Runs of several jobs: their order, their barriers, and one report over all."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from mixpanel_emulator.process import start_emulator
from pipelines.command import run
from pipelines.jobs_report import may_go_on
from pipelines.report import ExitCode
from pipelines.status_command import show_runs, show_status
from tests.backfills import Backfills, events
from tests.several_jobs import OUTAGE, QUICK, arrived, ids, job, jobs_file, states, two_jobs


def test_jobs_run_in_their_order_and_the_report_adds_them_up(backfills: Backfills) -> None:
    outcome = backfills.run_config(two_jobs(backfills))

    assert outcome.code == 0, outcome.err
    assert arrived(backfills) == ids(*range(30), *range(100, 150))
    assert states(outcome) == {"first": ("done", 0), "second": ("done", 0)}
    books = outcome.books
    assert (books["read"], books["imported"], books["dead_lettered"], books["balanced"]) == (81, 80, 1, True)
    assert outcome.report["files"]["total"] == outcome.report["files"]["done"] == 2
    assert outcome.report["requests"]["by_status"] == {"200": 2}
    assert outcome.report["dead_letters"]["by_reason"] == {"invalid_json": 1}
    assert [letter["source"]["line"] for letter in outcome.dead_letters()] == [31]
    assert outcome.report == json.loads((backfills.state / "it" / "report.json").read_bytes())
    for folder in ("it", "it/first", "it/second"):
        assert (backfills.state / folder / "_SUCCESS").exists()
        assert not (backfills.state / folder / "lock.json").exists()


def test_a_run_of_every_kind_is_in_order_and_told_by_endpoint(backfills: Backfills) -> None:
    backfills.write("who/a.json", [{"event": "$merge", "properties": {"$distinct_ids": ["user-1", "u-9"]}}])
    backfills.write("users/a.json", [{"id": "user-1", "at": 2, "plan": "pro"}, {"id": "user-1", "at": 1}])
    backfills.write("teams/a.json", [{"id": "t", "size": 1}, {"id": ""}])
    backfills.write("tables/f-1.csv", [b"sku,name\na,Apple"])
    backfills.write("visits/a.json", events(3))
    kinds: dict[str, dict[str, Any]] = {
        "who": {"kind": "identity"},
        "users": {"kind": "profiles", "id_field": "id", "order_by": "at"},
        "teams": {"kind": "groups", "id_field": "id", "group_key": "team"},
        "tables": {"kind": "lookup_tables"},
        "visits": {"kind": "events"},
    }
    jobs = [job(backfills, name, records=records) for name, records in kinds.items()]
    with start_emulator(settings={"identity": "original"}) as emulator:
        to = {"destination.identity": "original", "destination.endpoint": emulator.url}
        outcome = backfills.run_config(jobs_file(backfills, jobs, to))
        names = [json.loads(raw)["event"] for raw in emulator.records()]
        (profile,) = map(json.loads, emulator.records(kind="profiles"))

    assert outcome.code == 6, outcome.err
    assert [each["kind"] for each in outcome.report["jobs"]] == [one["kind"] for one in kinds.values()]
    assert outcome.report["by_endpoint"] == {
        "events": {"imported": 4},
        "people": {"imported": 2},
        "groups": {"imported": 1, "dead_lettered": 1},
        "lookup_tables": {"imported": 1},
    }
    assert names == ["$merge", *["Order placed"] * 3]
    assert profile["$properties"] == {"plan": "pro", "at": 2}


def test_a_single_job_has_the_report_that_it_always_had(backfills: Backfills) -> None:
    backfills.write("a.json", events(3))

    assert "jobs" not in backfills.run(backfills.everything).report


@pytest.mark.parametrize("code", list(ExitCode))
def test_only_a_job_that_has_done_what_it_could_lets_the_next_begin(code: ExitCode) -> None:
    goes_on = code in (ExitCode.DONE, ExitCode.DAMAGED_INPUT, ExitCode.DEAD_LETTERS)
    books = {"undelivered": 1, "ambiguous": 1, "not_attempted": 0}

    assert may_go_on({"state": "done", "exit_code": int(code), "books": books}) is goes_on


@pytest.mark.parametrize(("left", "goes_on"), [("undelivered", False), ("not_attempted", False), ("", True)])
def test_a_job_of_which_all_is_sent_or_ambiguous_lets_the_next_begin(left: str, goes_on: bool) -> None:
    books = {"undelivered": 0, "ambiguous": 3, "not_attempted": 0} | ({left: 1} if left else {})

    assert may_go_on({"state": "done", "exit_code": 5, "books": books}) is goes_on


def test_dead_letters_and_damaged_files_of_a_job_do_not_stop_the_next(backfills: Backfills) -> None:
    path = two_jobs(backfills, {"run.allow_dead_letters": 0})
    backfills.write("first/damaged.json.gz", events(500, first=1000))
    damaged = backfills.folder / "input" / "first" / "damaged.json.gz"
    damaged.write_bytes(damaged.read_bytes()[:-20])
    outcome = backfills.run_config(path)

    assert outcome.code == 4  # of 4 and 6, the more severe
    assert states(outcome) == {"first": ("done", 4), "second": ("done", 0)}
    assert len(outcome.report["files"]["damaged"]) == 1
    assert set(ids(*range(100, 150))) <= set(arrived(backfills))


def test_a_job_without_input_is_told_before_anything_is_sent(backfills: Backfills) -> None:
    path = two_jobs(backfills)
    moved = (backfills.folder / "input" / "second").rename(backfills.folder / "away")
    refused = backfills.run_config(path)
    assert refused.code == 9
    assert "error: job second: no file matches" in refused.err
    assert backfills.emulator.stats()["requests"] == 0
    assert show_runs(state=str(backfills.state)) == 0
    assert f"There are no runs in {backfills.state}." in backfills.capture.readouterr().out

    moved.rename(backfills.folder / "input" / "second")
    assert backfills.run_config(path).code == 0


def test_status_and_runs_tell_of_all_jobs(backfills: Backfills) -> None:
    path = two_jobs(backfills, {"limits": QUICK})
    backfills.emulator.faults([{**OUTAGE, "when": {"nth": list(range(2, 40))}}])
    assert backfills.run_config(path).code == 5
    backfills.capture.readouterr()
    assert show_status("it", state=str(backfills.state), as_json=True) == 0
    status = json.loads(backfills.capture.readouterr().out)
    assert (status["state"], status["exit_code"], status["books"]["imported"]) == ("done", 5, 30)
    assert [each["state"] for each in status["jobs"]] == ["done", "done"]
    assert status["files"] == {"total": 2, "done": 1}

    assert show_status("it", config_path=str(path)) == 0
    text = backfills.capture.readouterr().out
    assert "Run it: done, exit code 5" in text
    assert "job second                  done, exit code 5" in text
    assert show_runs(state=str(backfills.state)) == 0
    assert "\nit  done" in backfills.capture.readouterr().out


def test_a_dry_run_reads_all_jobs_and_sends_nothing(backfills: Backfills) -> None:
    outcome = backfills.run_config(two_jobs(backfills), dry_run=True)

    assert (outcome.code, outcome.report["state"]) == (0, "dry_run")
    assert (outcome.books["read"], outcome.books["not_attempted"]) == (81, 80)
    assert backfills.emulator.stats()["requests"] == 0


def test_several_jobs_are_not_detached_from(backfills: Backfills) -> None:
    elsewhere = {
        "beam.runner": "PortableRunner",
        "beam.options": {"job_endpoint": "localhost:9"},
        "run.state": "s3://nowhere/state",
    }

    assert run(str(two_jobs(backfills, elsewhere)), detach=True) == ExitCode.USAGE

    told = backfills.capture.readouterr().err
    assert "a job begins when the one before has ended" in told
    assert "start each job as a run of its own" in told


def test_all_jobs_share_one_embedded_mixpanel(backfills: Backfills) -> None:
    path = two_jobs(backfills)
    values = yaml.safe_load(path.read_text())
    values["destination"] = {"emulator": True}
    path.write_text(yaml.safe_dump(values))
    outcome = backfills.run_config(path)

    assert outcome.code == 0, outcome.err
    assert outcome.report["emulator_store"] == str(backfills.state / "it" / "emulator.db")
    assert not list(backfills.state.rglob("it/*/emulator.db"))
