"""Runs of several jobs: their order, their barriers, one report over all, and how they are taken up again."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from mixpanel_emulator.process import start_emulator
from mixpanel_http.crash_points import CRASHED
from pipelines.command import run
from pipelines.config_jobs import JobsConfig
from pipelines.config_reading import ConfigError, load_run
from pipelines.jobs_report import may_go_on
from pipelines.report import ExitCode
from pipelines.stages import plan_stages
from pipelines.status_command import show_runs, show_status
from tests.backfills import Backfills, Outcome, event, events
from tests.processes import start, wait_until
from tests.servers import S3Server

QUICK = {"retry": {"first_wait_seconds": 0.01, "longest_wait_seconds": 0.02, "give_up_after_seconds": 0.05}}
OUTAGE = {"name": "outage", "when": {"share": 1.0}, "do": {"status": 503}}


def jobs_file(
    backfills: Backfills, jobs: list[dict[str, Any]], changes: Mapping[str, Any] | None = None
) -> Path:
    """Returns the path of a configuration with several jobs, with `section.key` values changed."""
    path = backfills.config("unused", changes)
    values = yaml.safe_load(path.read_text())
    del values["source"]
    path.write_text(yaml.safe_dump({"jobs": jobs, **values}))
    return path


def job(backfills: Backfills, name: str, **more: Any) -> dict[str, Any]:
    """Returns a job that reads what was written into the folder of its name."""
    return {"name": name, "source": {"uri": str(backfills.folder / "input" / name / "*")}, **more}


def two_jobs(backfills: Backfills, changes: Mapping[str, Any] | None = None) -> Path:
    """Returns a configuration of two jobs, of 30 good events and a bad line, and of 50."""
    backfills.write("first/a.json", [*events(30), b"{"])
    backfills.write("second/a.json", events(50, first=100))
    jobs = [job(backfills, "first"), job(backfills, "second")]
    return jobs_file(backfills, jobs, {"run.id": "it", "run.allow_dead_letters": 1, **(changes or {})})


def arrived(backfills: Backfills) -> list[str]:
    """Returns the ids of what the emulator was sent, in order."""
    return [json.loads(raw)["properties"]["$insert_id"] for raw in backfills.emulator.records()]


def ids(*numbers: int) -> list[str]:
    return [event(number)["properties"]["$insert_id"] for number in numbers]


def of_days(*days: int) -> list[str]:
    return ids(*(number for day in days for number in (10 * day, 10 * day + 1)))


def states(outcome: Outcome) -> dict[str, tuple[str, int | None]]:
    return {each["name"]: (each["state"], each["exit_code"]) for each in outcome.report["jobs"]}


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
    }
    assert names == ["$merge", *["Order placed"] * 3]
    assert profile["$properties"] == {"plan": "pro", "at": 2}


def test_a_single_job_has_the_report_that_it_always_had(backfills: Backfills) -> None:
    backfills.write("a.json", events(3))

    assert "jobs" not in backfills.run(backfills.everything).report


def test_recent_days_go_first(backfills: Backfills) -> None:
    for day in range(1, 8):
        backfills.write(f"days/dt=2024-03-0{day}/a.json", events(2, first=10 * day))
    source = {"uri": str(backfills.folder / "input" / "days" / "dt={date}" / "*"), "order": "oldest_first"}
    path = jobs_file(backfills, [{"name": "days", "source": source, "recent_first": "3d"}])
    outcome = backfills.run_config(path)

    assert outcome.code == 0, outcome.err
    recent, history = (
        [n for day in days for n in (10 * day, 10 * day + 1)] for days in ((5, 6, 7), range(1, 5))
    )
    assert arrived(backfills) == ids(*recent, *history)
    assert states(outcome) == {"days-recent": ("done", 0), "days-history": ("done", 0)}


def test_all_days_are_recent_where_there_are_few(backfills: Backfills) -> None:
    backfills.write("days/dt=2024-03-01/a.json", events(2))
    source = {"uri": str(backfills.folder / "input" / "days" / "dt={date}" / "*")}
    config = load_run(str(jobs_file(backfills, [{"name": "days", "source": source, "recent_first": "30d"}])))
    assert isinstance(config, JobsConfig)

    assert [stage.name for stage in plan_stages(config)] == ["days-recent"]


def test_what_is_recent_does_not_change_by_new_files(backfills: Backfills) -> None:
    for day in range(1, 5):
        backfills.write(f"days/dt=2024-03-0{day}/a.json", events(2, first=10 * day))
    source = {"uri": str(backfills.folder / "input" / "days" / "dt={date}" / "*")}
    jobs = [{"name": "days", "source": source, "recent_first": "2d"}]
    path = jobs_file(backfills, jobs, {"run.id": "it", "limits": QUICK})
    backfills.emulator.faults([OUTAGE])
    assert backfills.run_config(path).code == 5
    backfills.emulator.faults([])
    backfills.write("days/dt=2024-03-09/a.json", events(2, first=90))

    outcome = backfills.run_config(path, resume="it")

    assert outcome.code == 0, outcome.err
    assert sorted(arrived(backfills)) == sorted(
        ids(*(n for day in range(1, 5) for n in (10 * day, 10 * day + 1)))
    )


def test_a_job_that_cannot_deliver_stops_those_behind_it_and_a_resume_goes_on(backfills: Backfills) -> None:
    path = two_jobs(backfills, {"limits": QUICK})
    backfills.emulator.faults([OUTAGE])
    stopped = backfills.run_config(path)
    assert backfills.emulator.stats()["faults"]["outage"] > 0
    assert (stopped.code, stopped.report["state"]) == (5, "stopped")
    assert states(stopped) == {"first": ("done", 5), "second": ("not_started", None)}
    assert (stopped.books["undelivered"], stopped.books["dead_lettered"]) == (30, 1)
    assert not (backfills.state / "it" / "_SUCCESS").exists()
    backfills.emulator.faults([])

    resumed = backfills.run_config(path, resume="it")

    assert resumed.code == 0, resumed.err
    assert (resumed.books["read"], resumed.books["imported"]) == (81, 80)
    assert resumed.report["resumed"]
    assert arrived(backfills) == ids(*range(30), *range(100, 150))


def test_a_resume_sends_nothing_of_a_job_that_is_done(backfills: Backfills) -> None:
    path = two_jobs(backfills, {"limits": QUICK})
    backfills.emulator.faults([{**OUTAGE, "when": {"nth": list(range(2, 40))}}])
    assert states(backfills.run_config(path))["first"] == ("done", 0)
    backfills.emulator.faults([])

    outcome = backfills.run_config(path, resume="it")

    assert outcome.code == 0, outcome.err
    assert backfills.emulator.stats()["received"] == 80
    assert backfills.run_config(path, resume="it").books["imported"] == 80
    assert backfills.emulator.stats()["received"] == 80


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
    assert "There are no runs here." in backfills.capture.readouterr().out

    moved.rename(backfills.folder / "input" / "second")
    assert backfills.run_config(path).code == 0


def test_a_second_start_and_a_resume_with_other_jobs_are_refused(backfills: Backfills) -> None:
    path = two_jobs(backfills)
    assert backfills.run_config(path).code == 0
    again = backfills.run_config(path)
    assert again.code == 2
    assert "this run exists; resume it with --resume it" in again.err
    path = jobs_file(backfills, [job(backfills, "second"), job(backfills, "first")])
    swapped = backfills.run_config(path, resume="it")
    assert swapped.code == 2
    assert "jobs: the run has first, second, the configuration second, first" in swapped.err

    path = jobs_file(
        backfills, [job(backfills, "first"), job(backfills, "second", records={"default_ip": None})]
    )
    changed = backfills.run_config(path, resume="it")
    assert changed.code == 2
    assert "job second: records.default_ip: the run has 0, the configuration None" in changed.err


@pytest.mark.soak
@pytest.mark.parametrize(
    "point",
    ["before jobs", "after jobs", "before job", "before job:2", "after done:2", "before success of all"],
)
def test_a_crash_anywhere_loses_nothing(backfills: Backfills, point: str) -> None:
    path = two_jobs(backfills)
    code, _, err = start(path, crash_at=point).end()
    assert code == CRASHED, err
    planned = point != "before jobs"
    code, report, err = start(path, *(["--resume", "it"] if planned else [])).end()

    assert code == 0, err
    assert (report["books"]["read"], report["books"]["imported"], report["books"]["balanced"]) == (
        81,
        80,
        True,
    )
    assert arrived(backfills) == ids(*range(30), *range(100, 150))


def test_a_signal_ends_the_run_and_a_resume_goes_on(backfills: Backfills) -> None:
    path = two_jobs(backfills, {"limits.records_per_request": 10, "limits.events_per_second": 20})
    running = start(path)
    wait_until(lambda: int(backfills.emulator.stats()["requests"]) >= 1)
    assert show_status("it", state=str(backfills.state), as_json=True) == 0
    status = json.loads(backfills.capture.readouterr().out)
    assert (status["state"], [each["state"] for each in status["jobs"]]) == (
        "running",
        ["running", "not_started"],
    )
    running.signal(signal.SIGTERM)
    code, report, err = running.end()
    assert code == 143, err
    assert "\nJob first: 1 file, " in err
    assert "\nJob second" not in err
    assert report["state"] == "interrupted"
    assert report["jobs"][1]["state"] == "not_started"

    code, report, err = start(path, "--resume", "it", "--set", "limits.events_per_second=30000").end()
    assert code == 0, err
    assert sorted(arrived(backfills)) == sorted(ids(*range(30), *range(100, 150)))


@pytest.mark.soak
@pytest.mark.timeout(180)
@pytest.mark.parametrize("path", ["/import", "/engage"])
def test_a_signal_ends_a_run_whose_answers_do_not_come(backfills: Backfills, path: str) -> None:
    backfills.write("first/a.json", [{"$distinct_id": f"u-{n}", "$add": {"n": 1}} for n in range(40)])
    backfills.write("second/a.json", events(40))
    jobs = [{**job(backfills, "first"), "records": {"kind": "profiles"}}, job(backfills, "second")]
    small = {"run.id": "it", "limits.records_per_request": 10, "limits.in_flight": 4}
    config = jobs_file(backfills, jobs, small)
    hang = {
        "name": "hang",
        "path": path,
        "do": {"delay_after_ms": 100_000},
        "when": {"nth": list(range(3, 99))},
    }
    backfills.emulator.faults([hang])
    running = start(config)
    wait_until(lambda: int(backfills.emulator.stats()["requests_by_path"].get(path, 0)) >= 3)
    running.signal(signal.SIGTERM)
    asked = time.monotonic()
    code, report, err = running.end()
    seconds = time.monotonic() - asked
    backfills.emulator.faults([])
    resumed, again, told = start(config, "--resume", "it").end()
    counts = [json.loads(raw)["$properties"]["n"] for raw in backfills.emulator.records(kind="profiles")]

    assert seconds < 30
    assert (code, report["state"], report["books"]["balanced"]) == (143, "interrupted", True), err
    assert resumed == (5 if path == "/engage" else 0), told
    assert again["books"]["imported"] + again["books"]["ambiguous"] == 80
    assert (again["books"]["ambiguous"] > 0) == (path == "/engage")
    assert set(counts) == {1}
    assert len(set(arrived(backfills))) == 40


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


def test_a_replay_sends_again_what_each_job_could_not(backfills: Backfills) -> None:
    path = two_jobs(backfills)
    backfills.write("first/b.json", [event(7, time="never")])
    assert backfills.run_config(path).code == 6
    path.write_text(path.read_text().replace("id: it", "id: again"))
    replayed = backfills.run_config(path, replay="it")

    assert replayed.code == 6
    assert states(replayed) == {"first": ("done", 6)}  # of the second job nothing is left
    assert (replayed.books["read"], replayed.books["dead_lettered"]) == (2, 2)
    assert backfills.run_config(path, resume="again").books["read"] == 2
    path.write_text(path.read_text().replace("id: again", "id: more"))
    assert backfills.run_config(path, replay="again").books["read"] == 2


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


SHARED = "destination: {emulator: true}\n"
ONE = "jobs: [{name: a, source: {uri: x.json}}]\n"


def loaded(tmp_path: Path, text: str, *overrides: str) -> JobsConfig:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    config = load_run(str(path), overrides)
    assert isinstance(config, JobsConfig)
    return config


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("jobs: []\n", "jobs: List should have at least 1 item after validation, not 0"),
        ("jobs: [{source: {uri: x}}]\n", "jobs.0.name: is required"),
        ("jobs: [{name: a, source: {url: x}}]\n", "jobs.0.source.url: unknown key; did you mean uri?"),
        ("jobs: [{name: a/b, source: {uri: x}}]\n", "jobs.0.name: must be letters, digits"),
        ("jobs: [{name: report.json, source: {uri: x}}]\n", "jobs.0.name: must not end with .json or .db"),
        (ONE + "source: {uri: x}\n", "configuration: source: each of the jobs has its own"),
        (ONE + "limit: {}\n", "limit: unknown key; did you mean limits?"),
        (
            "jobs: [{name: a, source: {uri: x}}, {name: a, source: {uri: y}}]\n",
            "configuration: jobs: the name a stands twice",
        ),
        (
            "jobs: [{name: a, source: {uri: x}, recent_first: 30d}]\n",
            "jobs.0: recent_first needs {date} in every uri",
        ),
        (
            "jobs: [{name: a, source: {uri: 'd={date}/x'}, recent_first: 30}]\n",
            "jobs.0.recent_first: must be a number of days, like 30d",
        ),
        (
            ONE + "beam: {runner: DataflowRunner}\n",
            "configuration: jobs.0: run.state must be a folder that DataflowRunner's workers reach",
        ),
    ],
)
def test_a_mistake_in_jobs_is_told_by_its_path(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(ConfigError) as told:
        loaded(tmp_path, text + SHARED)

    assert expected in "\n".join(told.value.errors)


def test_an_override_reaches_a_job_by_its_number(tmp_path: Path) -> None:
    config = loaded(tmp_path, ONE + SHARED, "jobs.0.source.uri=y.json", "limits.in_flight=3")
    assert (config.jobs[0].source.uri, config.limits.in_flight) == ("y.json", 3)
    with pytest.raises(ConfigError, match=r"--set jobs.7.name: 7 has no keys"):
        loaded(tmp_path, ONE + SHARED, "jobs.7.name=b")
    with pytest.raises(ConfigError, match=r"--set jobs.name: jobs has no keys"):
        loaded(tmp_path, ONE + SHARED, "jobs.name=b")


def test_a_job_may_have_limits_of_its_own(tmp_path: Path) -> None:
    text = "jobs: [{name: a, source: {uri: x}, limits: {in_flight: 2}}, {name: b, source: {uri: y}}]\n"
    config = loaded(tmp_path, text + SHARED)

    assert [config.config_of(job).limits.in_flight for job in config.jobs] == [2, 16]


@pytest.mark.soak
def test_jobs_keep_their_state_on_s3_and_are_resumed_from_it(
    backfills: Backfills, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_S3_SECRET", s3.secret_key)
    options = {**s3.storage_options, "secret": "env:TEST_S3_SECRET"}
    where = {"run.state": s3.url("jobs-state"), "run.storage_options": options}
    path = two_jobs(backfills, {"limits": QUICK, **where})
    backfills.emulator.faults([{**OUTAGE, "when": {"nth": list(range(2, 40))}}])
    stopped = backfills.run_config(path)
    assert (stopped.code, states(stopped)) == (5, {"first": ("done", 0), "second": ("done", 5)}), stopped.err
    backfills.emulator.faults([])

    resumed = backfills.run_config(path, resume="it")

    assert resumed.code == 0, resumed.err
    assert resumed.books["imported"] == 80
    assert backfills.emulator.stats()["received"] == 80
    assert "jobs-state/it/_SUCCESS" in s3.list("jobs-state/it/")
    assert not [key for key in s3.list("jobs-state/it/") if key.endswith("lock.json")]
