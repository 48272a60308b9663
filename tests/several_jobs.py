"""Runs of several jobs, for tests: their configurations, and what became of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.backfills import Backfills, Outcome, event, events

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
    """Returns the ids of the events of these numbers."""
    return [event(number)["properties"]["$insert_id"] for number in numbers]


def states(outcome: Outcome) -> dict[str, tuple[str, int | None]]:
    """Returns state and exit code of each job, by its name."""
    return {each["name"]: (each["state"], each["exit_code"]) for each in outcome.report["jobs"]}
