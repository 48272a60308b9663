"""Runs several jobs as one run: each a run of its own in the folder of the whole, one after the other.

A job begins when the one before it has ended with all delivered that it could: that is the barrier between
identities and the events that need them. All jobs are planned before the first one sends anything.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from mixpanel_http.crash_points import crash_point
from pipelines import signals
from pipelines.backfill import Watch, run_launch
from pipelines.books import Books
from pipelines.closing import REPORT, SUCCESS
from pipelines.config_jobs import JobsConfig
from pipelines.heartbeat import SUPERSEDED, Heartbeat, beating
from pipelines.jobs_report import jobs_report, may_go_on
from pipelines.launch import Launch, new_run_id, prepare_launch
from pipelines.lease import Lease, take_lease
from pipelines.manifest import NAME as MANIFEST
from pipelines.plan import NothingMatched
from pipelines.replay import copy_letters, letters_of, note_replayed, reading_letters, replaying
from pipelines.report import ExitCode, RunFacts, iso, make_report
from pipelines.resuming import RunMismatch, check_not_replayed, check_run_id, state_folder
from pipelines.stages import (
    Stage,
    Stages,
    check_stages,
    has_stages,
    plan_stages,
    read_stages,
    stage_config,
    told_of,
    write_stages,
)
from pipelines.state import StateFolder
from transforms.attempt_ids import new_attempt_id

RUNNING: Final = {"state": "running", "exit_code": None, "ended_at": None}


@dataclass(frozen=True, slots=True)
class JobsLaunch:
    """One start of a run of several jobs: everything that is decided before the first one runs.

    Attributes:
        folder: the run's folder.
        stages: what it set out to do.
        launches: of the stages, in their order.
        lease: the right to work on the run.
        resumed: whether the run was begun before.
        dry_run: read and validate only.
    """

    folder: StateFolder
    stages: Stages
    launches: tuple[Launch, ...]
    lease: Lease
    resumed: bool
    dry_run: bool


def prepare_jobs(
    config: JobsConfig, *, resume: str | None = None, dry_run: bool = False, allow_new: bool = False
) -> JobsLaunch:
    """Returns a launch of a new run of several jobs, or of one that is taken up again.

    Raises:
        RunMismatch, RunBusy, NothingMatched, SourceUnreadable, ManifestUnusable, StateUnusable: as for a run
            of one job.
    """
    if resume is not None:
        return _resume(config, resume, dry_run, allow_new)
    folder = _new_folder(config)

    def prepare(stage: Stage) -> Launch:
        return prepare_launch(stage_config(config, stage, folder), dry_run=dry_run)

    stages = Stages(_name(folder), _now(), plan_stages(config))
    return _begin(config, folder, stages, prepare, dry_run)


def prepare_jobs_replay(config: JobsConfig, origin: str, *, dry_run: bool = False) -> JobsLaunch:
    """Returns a launch that sends what the jobs of another run could not, or were not allowed to, in order.

    Raises:
        NothingMatched: if it has neither dead letters nor undelivered records.
        RunMismatch, ManifestUnusable, StateUnusable: as for a run of one job.
    """
    check_run_id(origin)
    source = state_folder(config.run).below(origin)
    before = read_stages(source)
    check_stages(before, config)
    # A lookup table is sent as a whole: its rows cannot be sent again.
    sent = [stage for stage in before.stages if stage.kind != "lookup_tables"]
    left = [stage for stage in sent if letters_of(source.below(stage.name))]
    if not left:
        raise NothingMatched(f"run {origin} has neither dead letters nor undelivered records")
    folder = _new_folder(config)

    def prepare(stage: Stage) -> Launch:
        copied = folder.below(stage.name)
        copy_letters(source.below(stage.name), copied)
        alone = reading_letters(stage_config(config, stage, folder), copied)
        check_not_replayed(source.below(stage.name), alone)
        launch = prepare_launch(alone, dry_run=dry_run, origin=f"{origin}/{stage.name}")
        note_replayed(source.below(stage.name), launch)
        return launch

    return _begin(config, folder, Stages(_name(folder), _now(), tuple(left), origin), prepare, dry_run)


def run_jobs(launch: JobsLaunch, watch: Watch | None = None) -> dict[str, Any]:
    """Runs the jobs and returns the report of all, which is also written into the run's folder."""
    run = _Run(launch, time.time())
    heart = Heartbeat(launch.folder, launch.lease, lambda _: None)
    with signals.handled(lambda _: None) as signalled:
        try:
            with beating(heart):
                for one in launch.launches:
                    if signalled.first is not None or heart.problem or not run.may_go_on:
                        break
                    run.write(RUNNING)
                    crash_point("before job")
                    run.ended(one, run_launch(one, watch))
            return run.finish(signalled.first)
        finally:
            _release(launch.launches, launch.lease)


class _Run:
    """Collects the reports of the jobs, and writes that of all."""

    def __init__(self, launch: JobsLaunch, started: float) -> None:
        self._launch = launch
        self._started = started
        self._reports: dict[str, dict[str, Any]] = {}
        self.may_go_on = True

    def ended(self, launch: Launch, report: dict[str, Any]) -> None:
        """Takes the report of a job."""
        self._reports[launch.manifest.run_id] = report
        self.may_go_on = may_go_on(report)

    def finish(self, signal: int | None) -> dict[str, Any]:
        """Writes the last report, and that all is done if it is."""
        told: dict[str, Any] = {"ended_at": iso(time.time())}
        if signal is not None and self.may_go_on and len(self._reports) < len(self._launch.launches):
            told |= {"state": "interrupted", "exit_code": signals.exit_code_of(signal)}
        if not self._launch.lease.is_held():  # the report of whoever took the run up is the run's
            told |= {"state": "superseded", "exit_code": int(ExitCode.USAGE), "failure": SUPERSEDED}
            return self._report(told)
        report = self.write(told)
        if all(one.folder.exists(SUCCESS) for one in self._launch.launches):
            crash_point("before success of all")
            self._launch.folder.write(SUCCESS, b"")
        return report

    def write(self, told: dict[str, Any]) -> dict[str, Any]:
        """Writes and returns a report of what has ended so far."""
        report = self._report(told)
        self._launch.folder.write(REPORT, orjson.dumps(report, option=orjson.OPT_INDENT_2) + b"\n")
        return report

    def _report(self, told: dict[str, Any]) -> dict[str, Any]:
        launch = self._launch
        run = {
            "v": 1,
            "run_id": launch.stages.run_id,
            "started_at": iso(self._started),
            "resumed": launch.resumed,
            "folder": launch.folder.uri,
            **told,
        }
        return jobs_report(launch.stages.stages, self._reports, self._empty(), run)

    def _empty(self) -> dict[str, Any]:
        """Returns the report of a job that has read nothing."""
        nothing = dataclasses.replace(self._launch.launches[0].manifest, files=0, bytes=0, segments=())
        return make_report(nothing, Books(), RunFacts("running", self._started, self._started))


def _begin(
    config: JobsConfig,
    folder: StateFolder,
    stages: Stages,
    prepare: Callable[[Stage], Launch],
    dry_run: bool,
) -> JobsLaunch:
    """Plans every stage and only then writes down that there is such a run; a failure leaves none behind."""
    lease = take_lease(folder, new_attempt_id(), config.run.lease_seconds)
    launches: list[Launch] = []
    try:
        for stage in stages.stages:
            folder.below(stage.name).remove(MANIFEST)  # of a start that ended while it planned
        _prepare_all(stages, prepare, folder, launches)
        crash_point("before jobs")
        write_stages(folder, stages)
        crash_point("after jobs")
    except BaseException:
        for one in launches:
            one.folder.remove(MANIFEST)
        _release(launches, lease)
        raise
    return JobsLaunch(folder, stages, tuple(launches), lease, False, dry_run)


def _resume(config: JobsConfig, run_id: str, dry_run: bool, allow_new: bool) -> JobsLaunch:
    check_run_id(run_id)
    folder = state_folder(config.run).below(run_id)
    stages = read_stages(folder)
    check_stages(stages, config)

    def prepare(stage: Stage) -> Launch:
        alone = replaying(stage_config(config, stage, folder), stage.name)
        return prepare_launch(alone, resume=stage.name, dry_run=dry_run, allow_new=allow_new)

    lease = take_lease(folder, new_attempt_id(), config.run.lease_seconds)
    launches: list[Launch] = []
    try:
        _prepare_all(stages, prepare, folder, launches)
    except BaseException:
        _release(launches, lease)
        raise
    return JobsLaunch(folder, stages, tuple(launches), lease, True, dry_run)


def _prepare_all(
    stages: Stages, prepare: Callable[[Stage], Launch], folder: StateFolder, launches: list[Launch]
) -> None:
    """Prepares each stage; an embedded Mixpanel is that of the whole run."""
    for stage in stages.stages:
        with told_of(stage.name):
            launches.append(dataclasses.replace(prepare(stage), emulator_folder=folder))


def _release(launches: Sequence[Launch], lease: Lease) -> None:
    for one in launches:
        one.lease.release()
    lease.release()


def _new_folder(config: JobsConfig) -> StateFolder:
    run_id = config.run.id or new_run_id()
    folder = state_folder(config.run).below(run_id)
    if has_stages(folder) or folder.exists(MANIFEST):
        raise RunMismatch(
            f"{folder.uri}: this run exists; resume it with --resume {run_id}, or choose another run.id"
        )
    return folder


def _name(folder: StateFolder) -> str:
    return folder.uri.rstrip("/").rpartition("/")[2]


def _now() -> str:
    return dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds")
