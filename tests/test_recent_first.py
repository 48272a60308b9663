"""Jobs that send the newest days first: which days these are, and that they stay the same."""

from __future__ import annotations

from pipelines.config_jobs import JobsConfig
from pipelines.config_reading import load_run
from pipelines.stages import plan_stages
from tests.backfills import Backfills, events
from tests.several_jobs import OUTAGE, QUICK, arrived, ids, jobs_file, states


def of_days(*days: int) -> list[str]:
    """Returns the ids of the two events of each of these days."""
    return ids(*(number for day in days for number in (10 * day, 10 * day + 1)))


def test_recent_days_go_first(backfills: Backfills) -> None:
    for day in range(1, 8):
        backfills.write(f"days/dt=2024-03-0{day}/a.json", events(2, first=10 * day))
    source = {"uri": str(backfills.folder / "input" / "days" / "dt={date}" / "*"), "order": "oldest_first"}
    path = jobs_file(backfills, [{"name": "days", "source": source, "recent_first": "3d"}])
    outcome = backfills.run_config(path)

    assert outcome.code == 0, outcome.err
    assert arrived(backfills) == of_days(5, 6, 7, 1, 2, 3, 4)
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
    assert sorted(arrived(backfills)) == sorted(of_days(1, 2, 3, 4))
