"""How runs stand, told from the state folder alone; and what is told while one runs."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pipelines.config_reading import load_config
from pipelines.crew import now_values
from pipelines.heartbeat import Heartbeat
from pipelines.launch import prepare_launch
from pipelines.lease import RunBusy, is_stale, process_of, take_lease
from pipelines.progress import describe, progress_values
from pipelines.state import StateFolder
from pipelines.status import follow, list_runs, status_of, status_text
from pipelines.status_command import show_runs, show_status
from pipelines.watching import Snapshot
from tests.backfills import Backfills, events
from tests.processes import start, wait_until
from tests.report_schema import checked
from transforms import drain
from transforms.activity import REFUSED_SECONDS, Activity
from transforms.tally import Counts, PartCounts, Tally


def has_begun(folder: StateFolder) -> bool:
    """Returns whether a run has something on record."""
    return folder.exists("now.json") and int(status_of(folder)["bytes"]["done"]) > 0


def test_a_run_is_followed_from_its_start_to_its_end(backfills: Backfills) -> None:
    backfills.write("a.json", [*events(20_000), b"{"])
    slow = {"limits.events_per_second": 4000, "run.id": "it", "run.allow_dead_letters": 1}
    running = start(backfills.config(backfills.everything, slow))
    folder = StateFolder(str(backfills.state / "it"))
    wait_until(lambda: has_begun(folder))
    status = status_of(folder)
    assert (status["state"], status["exit_code"]) == ("running", None)
    assert 0 < status["bytes"]["done"] < status["bytes"]["total"]
    assert json.loads((backfills.state / "it" / "report.json").read_text())["state"] == "running"
    assert "of the bytes" in status_text(status)
    (line,) = list_runs(StateFolder(str(backfills.state)))
    assert (line.state, line.imported) == ("running", None)
    assert running.end()[0] == 0
    *_, last = follow(folder, wait=lambda _: None)
    assert (last["state"], last["exit_code"]) == ("done", 0)
    assert last["books"]["imported"] == 20_000
    assert last["dead_letters"]["by_reason"] == {"invalid_json": 1}
    assert last["files"]["done"] == 1


def test_a_run_that_was_killed_is_told_as_such_and_a_second_start_is_refused_meanwhile(
    backfills: Backfills,
) -> None:
    backfills.write("a.json", events(20_000))
    slow = {"limits.events_per_second": 4000, "run.id": "it"}
    config = backfills.config(backfills.everything, slow)
    running = start(config)
    folder = StateFolder(str(backfills.state / "it"))
    wait_until(lambda: has_begun(folder))
    running.signal(signal.SIGSTOP)
    code, _, err = backfills.resume(config)
    assert code == 2
    assert f"process {running.process.pid} on" in err
    running.kill_group()
    status = status_of(folder)
    assert (status["state"], status["report"]["state"]) == ("killed", "killed")
    assert_told_as_received(checked(status["report"]), backfills)
    code, report, err = backfills.resume(config, "limits.events_per_second=30000")
    assert (code, report["books"]["imported"]) == (0, 20_000), err


def assert_told_as_received(report: dict[str, Any], backfills: Backfills) -> None:
    """Checks the report of a killed run: of what was received it may lack what was still on its way."""
    received = backfills.emulator.stats()["received"]
    assert report["books"]["balanced"]
    assert report["exit_code"] is None
    assert 0 < report["books"]["imported"] <= received
    assert received - report["books"]["imported"] <= 16 * 2000
    assert report["requests"]["by_status"] == {"200": report["requests"]["total"]}
    assert report["rate"]["events_per_second"] > 0


def test_the_verbs_print_tables_and_json(backfills: Backfills, capsys: pytest.CaptureFixture[str]) -> None:
    backfills.write("a.json", events(10))
    state = str(backfills.state)
    assert show_runs(state=state) == 0
    assert "no runs" in capsys.readouterr().out
    config = str(backfills.config(backfills.everything, {"run.id": "it"}))
    assert backfills.run(backfills.everything, {"run.id": "it"}).code == 0
    assert show_runs(config_path=config) == 0
    assert "done" in capsys.readouterr().out
    assert show_runs(state=state, as_json=True) == 0
    assert json.loads(capsys.readouterr().out)["exit_code"] == 0
    assert show_status("it", state=state, as_json=True, following=True) == 0
    assert json.loads(capsys.readouterr().out)["books"]["read"] == 10
    assert show_status("it", state=state) == 0
    assert "done, exit code 0" in capsys.readouterr().out
    assert show_status("other", state=state) == 2
    assert show_status("../it", state=state) == 2
    assert "error: " in capsys.readouterr().err


def test_one_lease_at_a_time(tmp_path: Path) -> None:
    folder = StateFolder(str(tmp_path))
    lease = take_lease(folder, "a")
    with pytest.raises(RunBusy, match="is working on this run"):
        take_lease(folder, "b")
    assert lease.renew()
    lease.release()
    other = take_lease(folder, "b")
    assert not lease.renew()
    lease.release()  # it is no longer ours to give back
    assert other.renew()


def test_a_renewal_that_is_suspended_amid_writing_takes_the_lease_from_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = StateFolder(str(tmp_path))
    asleep = take_lease(folder, "a")

    def taken_up(descriptor: int) -> None:
        monkeypatch.undo()
        os.fsync(descriptor)
        asleep.release()
        assert take_lease(folder, "b").renew()

    monkeypatch.setattr(os, "fsync", taken_up)
    assert not asleep.renew()
    assert json.loads((tmp_path / "lock.json").read_text())["owner"] == "b"
    assert [path.name for path in tmp_path.iterdir()] == ["lock.json"]  # nothing is left of the renewal


def test_a_lease_is_stale_when_its_process_is_gone_or_elsewhere_when_its_time_is_over(tmp_path: Path) -> None:
    folder = StateFolder(str(tmp_path))
    take_lease(folder, "a", clock=lambda: 1000.0)
    held = json.loads((tmp_path / "lock.json").read_text())
    assert not is_stale(held, 1e9)
    assert is_stale({**held, "process": "1"}, 1000.0)
    elsewhere = {**held, "machine": "elsewhere"}
    assert not is_stale(elsewhere, 1000.0 + held["seconds"])
    assert is_stale(elsewhere, 1001.0 + held["seconds"])
    with subprocess.Popen(["sleep", "600"]) as asleep:
        process = process_of(asleep.pid)
        suspended = {**held, "pid": asleep.pid, "process": process}
        assert not is_stale(suspended, 1e9)
        asleep.send_signal(signal.SIGSTOP)
        try:
            wait_until(lambda: is_stale(suspended, 1e9))
            assert not is_stale(suspended, 1000.0 + held["seconds"])
        finally:
            asleep.kill()
    (tmp_path / "lock.json").write_bytes(b"\0")
    assert take_lease(folder, "b").renew()


@pytest.mark.parametrize("is_given_back", [False, True])
def test_a_lost_lease_drains_the_run(tmp_path: Path, is_given_back: bool) -> None:
    folder = StateFolder(str(tmp_path))
    heart = Heartbeat(folder, take_lease(folder, "a"), on_stuck=pytest.fail)
    try:
        heart.beat()
        assert heart.problem is None
        if is_given_back:
            folder.remove("lock.json")
        else:
            folder.remove("lock.json")
            take_lease(folder, "b")
        before = folder.read("now.json")
        heart.beat()
        assert "another process has taken this run up" in str(heart.problem)
        assert drain.is_requested()
        assert folder.read("now.json") == before
        assert folder.exists("lock.json") != is_given_back
    finally:
        drain.reset()


def test_a_run_whose_folder_is_removed_says_so_and_names_no_other_process(tmp_path: Path) -> None:
    folder = StateFolder(str(tmp_path / "run"))
    heart = Heartbeat(folder, take_lease(folder, "a"), on_stuck=pytest.fail)
    try:
        heart.beat()
        shutil.rmtree(tmp_path / "run")
        heart.beat()
        assert "folder was removed" in str(heart.problem)
        assert drain.is_requested()
    finally:
        drain.reset()


def _watched(monkeypatch: pytest.MonkeyPatch, time: list[float]) -> Activity:
    """Returns what this process does, by a clock of the test's own."""
    activity = Activity(clock=lambda: time[0])
    monkeypatch.setattr("transforms.activity.here", activity)
    return activity


def test_a_heart_notices_that_nothing_moves_while_nothing_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    time = [0.0]
    activity = _watched(monkeypatch, time)
    stuck: list[str] = []
    heart = Heartbeat(StateFolder(str(tmp_path)), None, stuck.append, stuck_s=100)
    heart.beat()
    time[0] = 1000
    heart.beat()
    assert not stuck, "nothing has begun"
    activity.moved()
    activity.waiting("outage_wait_s", 5000)
    time[0] = 3000
    heart.beat()
    assert not stuck, "it waits on purpose"
    activity.waiting("outage_wait_s", 0)
    time[0] = 3099
    heart.beat()
    assert not stuck
    time[0] = 3101
    heart.beat()
    assert stuck == ["no progress for 101 seconds, while nothing waits"]


def test_a_heart_beats_when_the_first_block_is_settled_and_then_now_and_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    time = [0.0]
    activity = _watched(monkeypatch, time)
    heart = Heartbeat(StateFolder(str(tmp_path)), None, pytest.fail, clock=lambda: time[0])
    heart.beat()
    time[0] = 4
    assert not heart.is_due()
    activity.settled("0000000", Tally(parts=PartCounts({0: Counts(read=50, imported=50)})))
    assert heart.is_due()
    heart.beat()
    assert json.loads((tmp_path / "now.json").read_text())["doing"] == "sending"
    time[0] = 13
    assert not heart.is_due()
    time[0] = 14
    assert heart.is_due()


def test_what_a_process_is_doing() -> None:
    time = [100.0]
    activity = Activity(clock=lambda: time[0])
    assert activity.now().what == "starting"
    activity.settled("0000000", Tally(parts=PartCounts({0: Counts(read=50, imported=50)})))
    time[0] += 10
    activity.settled("0000000", Tally(parts=PartCounts({0: Counts(read=50, imported=50)})))
    assert activity.now().what == "sending"
    assert activity.now().events_per_second == 10
    tally = Tally()
    tally.requests["429"] += 2
    activity.settled("0000000", tally)
    assert (activity.now().what, activity.now().refused) == ("throttled", 2)
    time[0] += REFUSED_SECONDS + 1
    activity.waiting("retry_wait_s", 3)
    assert activity.now().what == "retrying"
    activity.waiting("outage_wait_s", 3)
    assert activity.now().what == "outage"
    assert now_values(activity.now())["doing"] == "outage"
    time[0] += 100
    assert activity.now().events_per_second == 0


def test_progress_is_one_line_for_people_and_one_object_for_machines() -> None:
    half = Counts(read=600, imported=500, dead_lettered=100)
    before, now = Snapshot(0.0, Counts(), 0), Snapshot(10.0, half, 50)
    values = progress_values(now, before, 3, 100, "sending")
    assert (values["events_per_second"], values["seconds_left"], values["doing"]) == (50.0, 10.0, "sending")
    line = " 50% of 3 files: 500 imported, 100 dead letters, 50 events/s, sending, about 10 s left"
    assert describe(values) == line


def test_a_status_tells_what_is_left_in_words_that_a_person_reads() -> None:
    status: dict[str, Any] = {
        "run_id": "it",
        "state": "running",
        "doing": "sending",
        "exit_code": None,
        "books": {"imported": 500, "undelivered": 2000, "ambiguous": 3, "balanced": True},
        "files": {"done": 1, "total": 3},
        "bytes": {"done": 50, "total": 100},
        "rate": {"events_per_second": 50, "of_limit": None},
        "dead_letters": {"by_reason": {}},
        "requests": {"refused_for_speed": 0},
        "seconds_left": 32_400.0,
    }
    text = status_text(status)
    assert "500 imported, 0 dead letters, 2,000 undelivered, 3 ambiguous\n" in text
    assert "about 9 h 00 min left" in text


def test_undelivered_records_are_told_and_an_outage_has_no_end_to_tell() -> None:
    before, now = Snapshot(0.0, Counts(), 0), Snapshot(10.0, Counts(read=50, undelivered=2000), 50)
    values = progress_values(now, before, 3, 100, "outage")

    assert values["seconds_left"] is None
    assert describe(values) == (
        " 50% of 3 files: 0 imported, 0 dead letters, 2,000 undelivered, 0 events/s, outage"
    )
    assert progress_values(now, before, 3, 100, "sending")["seconds_left"] == 10.0


def test_an_unfinished_launch_gives_its_lease_back(backfills: Backfills) -> None:
    backfills.write("a.json", events(10))
    config = load_config(str(backfills.config(backfills.everything, {"run.id": "it"})))
    launch = prepare_launch(config)
    launch.lease.release()
    (backfills.state / "it" / "ledger").mkdir()
    assert prepare_launch(config, resume="it").segments_left == 1


def test_a_run_that_was_suspended_is_not_stuck(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGSTOP, Ctrl-Z or `docker pause`: the clock goes on, and nothing else."""
    time = [1000.0]
    activity = Activity(clock=lambda: time[0])
    monkeypatch.setattr("transforms.activity.here", activity)
    stuck: list[str] = []
    heart = Heartbeat(StateFolder(str(tmp_path)), None, stuck.append, stuck_s=100, clock=lambda: time[0])
    activity.moved()
    heart.beat()
    time[0] += 3600
    heart.beat()
    assert not stuck, "it slept"
    while not stuck:
        time[0] += heart.seconds
        heart.beat()
    assert stuck == ["no progress for 110 seconds, while nothing waits"]
