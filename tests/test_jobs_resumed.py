"""Runs of several jobs that were stopped, interrupted or killed: how they are resumed, and replayed."""

from __future__ import annotations

import json
import signal
import time

import pytest

from mixpanel_http.crash_points import CRASHED
from pipelines.status_command import show_status
from tests.backfills import Backfills, event, events
from tests.processes import start, wait_until
from tests.servers import S3Server
from tests.several_jobs import OUTAGE, QUICK, arrived, ids, job, jobs_file, states, two_jobs


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
    # The first job has requests left for a quarter of a minute, whatever is done meanwhile.
    path = two_jobs(backfills, {"limits.records_per_request": 10, "limits.events_per_second": 2})
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

    code, report, err = backfills.resume(path, "limits.events_per_second=30000")
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
    resumed, again, told = backfills.resume(config)
    counts = [json.loads(raw)["$properties"]["n"] for raw in backfills.emulator.records(kind="profiles")]

    assert seconds < 30
    assert (code, report["state"], report["books"]["balanced"]) == (143, "interrupted", True), err
    assert resumed == (5 if path == "/engage" else 0), told
    assert again["books"]["imported"] + again["books"]["ambiguous"] == 80
    assert (again["books"]["ambiguous"] > 0) == (path == "/engage")
    assert set(counts) == {1}
    assert len(set(arrived(backfills))) == 40


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
