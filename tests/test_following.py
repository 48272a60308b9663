"""Following a job elsewhere: when nothing more is to be waited for, and what many workers say as one."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from pipelines.crew import Member, beat_name, read_crew, together
from pipelines.following import (
    IDLE_SECONDS,
    LOST_SECONDS,
    START_SECONDS,
    STUCK_SECONDS,
    CrewWatch,
    EngineRefused,
    WorkersFailed,
    follow,
    start_job,
)
from pipelines.lease import take_lease
from pipelines.ledger import ErrorLimit, Ledger
from pipelines.state import StateFolder
from transforms import drain


class Time:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def beat(beats: int, busy: bool = True, quiet_s: float = 0.0, **more: Any) -> dict[str, Any]:
    return {"beats": beats, "busy": busy, "quiet_s": quiet_s, **more}


def test_a_busy_worker_that_is_silent_is_lost_where_nobody_replaces_it() -> None:
    clock = Time()
    watch, patient = CrewWatch(False, clock), CrewWatch(True, clock)
    for seconds in range(0, int(LOST_SECONDS) + 4, 2):
        clock.now = 1000.0 + seconds
        crew = {"a": beat(1), "b": beat(seconds)}
        found = watch.problem(crew)
        assert patient.problem(crew) is None
        assert (found is not None) == (seconds > LOST_SECONDS)
    assert found is not None
    assert found.startswith("a worker is gone")


def test_a_worker_that_has_just_come_has_work_to_do(tmp_path: Path) -> None:
    folder = StateFolder(str(tmp_path))
    take_lease(folder, "launch", 60, shared=True)
    member = Member(folder, "launch", lambda: None, lambda _: pytest.fail("nothing ends it"))
    said = []
    for _ in range(2):
        member.beat()
        said += [(beat["beats"], beat["busy"]) for beat in read_crew(folder, "launch").values()]
    assert said == [(1, True), (2, False)]
    assert not drain.is_requested()


def test_a_worker_that_ended_with_nothing_to_do_is_not_missed_while_others_work() -> None:
    clock = Time()
    watch = CrewWatch(False, clock)
    for seconds in range(0, 200, 2):
        clock.now = 1000.0 + seconds
        assert watch.problem({"a": beat(1, busy=False), "b": beat(seconds)}) is None


def test_a_job_in_which_nobody_works_any_more_does_not_end_by_itself() -> None:
    clock = Time()
    watch = CrewWatch(False, clock)
    assert watch.problem({"a": beat(1, busy=False)}) is None
    for seconds in range(2, int(IDLE_SECONDS) + 4, 2):
        clock.now = 1000.0 + seconds
        found = watch.problem({"a": beat(seconds, busy=False)})
        assert (found is not None) == (seconds > IDLE_SECONDS)
    assert "no worker has anything to do" in str(found)


def test_what_ends_the_work_in_one_process_the_others_learn_at_once_and_not_at_the_next_look(
    tmp_path: Path,
) -> None:
    ended: list[float] = []
    member = Member(StateFolder(str(tmp_path)), "launch", lambda: None, ended.append)
    waiting = threading.Thread(target=member.wait, args=(600.0,))
    waiting.start()
    try:
        drain.request()
        waiting.join(60)
        assert not waiting.is_alive()
        member.look()
    finally:
        drain.reset()
    assert ended == [drain.STOP_SECONDS]


def test_a_crew_that_was_suspended_with_its_launcher_is_heard_before_it_counts_as_lost() -> None:
    clock = Time()
    watch = CrewWatch(False, clock)
    assert watch.problem({"a": beat(1)}) is None
    clock.now += 3600
    for seconds in range(0, int(LOST_SECONDS) + 4, 2):
        found = watch.problem({"a": beat(1)})
        assert (found is not None) == (seconds > LOST_SECONDS)
        clock.now += 2


def test_a_job_that_no_worker_begins_is_given_up_after_a_while() -> None:
    clock = Time()
    watch = CrewWatch(True, clock)
    assert watch.problem({}) is None
    clock.now += START_SECONDS + 1
    assert "no worker has begun" in str(watch.problem({}))


@pytest.mark.parametrize("replaces", [True, False])
def test_workers_that_live_and_do_nothing_are_stuck(replaces: bool) -> None:
    stuck = beat(5, quiet_s=STUCK_SECONDS + 1)
    assert "no progress" in str(CrewWatch(replaces).problem({"a": stuck}))
    assert CrewWatch(replaces).problem({"a": stuck, "b": beat(1)}) is None


def test_what_keeps_one_of_a_crew_from_sending_is_told_first() -> None:
    crew = {
        "a": {**beat(1), "at": 100.0, "doing": "sending", "events_per_second": 10.0},
        "b": {**beat(1), "at": 101.0, "doing": "outage", "events_per_second": 5.0},
        "gone": {**beat(1), "at": 1.0, "doing": "sending", "events_per_second": 99.0},
    }
    assert together(crew, 102.0) == {"doing": "outage", "events_per_second": 15.0, "workers": 2}
    assert together(crew, 9999.0) is None


def test_an_engine_that_takes_no_job_is_quoted() -> None:
    def start() -> Any:
        raise OSError("quota\n  exceeded")

    with pytest.raises(EngineRefused, match="the engine did not take the job: OSError: quota exceeded"):
        start_job(start)


class Result:
    def __init__(self, state: str) -> None:
        self.state = state

    def wait_until_finish(self) -> None:
        return None


def test_a_job_that_the_engine_ends_is_no_success(tmp_path: Path) -> None:
    ledger = Ledger(StateFolder(str(tmp_path)), launch="launch")
    follow(lambda: Result("DONE"), ledger, CrewWatch(True))
    with pytest.raises(WorkersFailed, match="the engine ended the job: CANCELLED"):
        follow(lambda: Result("CANCELLED"), ledger, CrewWatch(True))


def test_errors_of_all_workers_together_end_the_run(tmp_path: Path) -> None:
    folder = StateFolder(str(tmp_path))
    ledger = Ledger(folder, launch="launch", max_errors=ErrorLimit(count=10))
    for worker in "ab":
        counts = b'{"beats": 1, "busy": true, "counts": {"read": 50, "dead_lettered": 6}}'
        folder.write(beat_name("launch", worker), counts)
    assert len(read_crew(folder, "launch")) == 2
    over = threading.Event()

    def run() -> Result:
        while ledger.patience() is None:
            over.wait(0.05)
        return Result("DONE")

    follow(run, ledger, CrewWatch(True))

    assert ledger.patience() is not None


def test_a_lease_that_workers_keep_is_judged_by_its_time_alone(tmp_path: Path) -> None:
    folder = StateFolder(str(tmp_path))
    now = Time()
    lease = take_lease(folder, "launch", clock=now, shared=True, afar=True)
    lease.hand_over()
    lease.seconds = 90.0
    assert lease.keep()
    now.now += 91
    other = take_lease(folder, "other", clock=now, shared=True, afar=True)
    assert other.is_held()
    assert not lease.keep()
