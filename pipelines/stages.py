"""The stages of a run of several jobs, and the file that says which they are.

`jobs.json` is written when every stage is planned, and never changed: a folder without it is no run.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import orjson

from pipelines.config import Config
from pipelines.config_fields import DatesConfig
from pipelines.config_jobs import HISTORY, RECENT, JobConfig, JobsConfig
from pipelines.manifest import ManifestUnusable
from pipelines.plan import NothingMatched, SourceUnreadable, list_files
from pipelines.resuming import RunMismatch, pattern_of
from pipelines.state import StateFolder
from transforms.storage import Storage

NAME: Final = "jobs.json"
VERSION: Final = 1
_DAY: Final = dt.timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Stage:
    """What runs as a whole before the next begins: a job, or the recent or older part of one.

    Attributes:
        name: its folder in the run's.
        job: the job's name.
        kind: of the job's records.
        dates: first and last partition, where the job is split by them.
    """

    name: str
    job: str
    kind: str
    dates: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Stages:
    """What a run of several jobs set out to do.

    Attributes:
        run_id: the run.
        created_at: when it was planned, ISO 8601.
        stages: in their order.
        origin: the run that this one replays, or None.
    """

    run_id: str
    created_at: str
    stages: tuple[Stage, ...]
    origin: str | None = None


def plan_stages(config: JobsConfig) -> tuple[Stage, ...]:
    """Returns a new run's stages; those by date are cut by the partitions that there are now.

    Raises:
        NothingMatched, SourceUnreadable: if a job that is split has no input.
    """
    stages: list[Stage] = []
    for job in config.jobs:
        with told_of(job.name):
            stages += _stages_of(config, job)
    return tuple(stages)


@contextmanager
def told_of(name: str) -> Iterator[None]:
    """Names the job in what is wrong with it."""
    try:
        yield
    except (RunMismatch, NothingMatched, SourceUnreadable) as error:
        lines = (f"job {name}: {line}" for line in str(error).splitlines())
        raise type(error)("\n".join(lines)) from None


def stage_config(config: JobsConfig, stage: Stage, folder: StateFolder) -> Config:
    """Returns the configuration by which a stage is run: as a run of its own, in the folder of the whole.

    Raises:
        RunMismatch: if the configuration has no such job.
    """
    job = next((job for job in config.jobs if job.name == stage.job), None)
    if job is None or stage.name not in job.stage_names:
        raise RunMismatch(f"jobs: the run has a stage {stage.name}, the configuration has none; put it back")
    alone = config.config_of(job)
    source = alone.source
    if stage.dates is not None:
        dates = DatesConfig.model_validate(dict(zip(("from", "to"), stage.dates, strict=True)))
        source = source.model_copy(update={"dates": dates})
    run = alone.run.model_copy(update={"id": stage.name, "state": folder.uri})
    return alone.model_copy(update={"source": source, "run": run})


def check_stages(stages: Stages, config: JobsConfig) -> None:
    """Refuses to go on with jobs that are other ones than the run's, or in another order.

    Raises:
        RunMismatch: with what differs.
    """
    had = list(dict.fromkeys(stage.job for stage in stages.stages))
    has = [job.name for job in config.jobs]
    if stages.origin is not None:
        has = [name for name in has if name in had]  # a replay has only those that something is left of
    if had != has:
        raise RunMismatch(
            f"jobs: the run has {', '.join(had)}, the configuration {', '.join(has)}; "
            "put them back, or start a new run"
        )


def write_stages(folder: StateFolder, stages: Stages) -> None:
    """Writes down what the run set out to do."""
    values = {"v": VERSION, **dataclasses.asdict(stages)}
    folder.write(NAME, orjson.dumps(values, option=orjson.OPT_INDENT_2) + b"\n")


def has_stages(folder: StateFolder) -> bool:
    """Returns whether a run's folder is of a run of several jobs."""
    return folder.exists(NAME)


def read_stages(folder: StateFolder) -> Stages:
    """Returns what a run of several jobs set out to do.

    Raises:
        ManifestUnusable: if there is no such run, or what it wrote is not whole.
    """
    try:
        values: dict[str, Any] = orjson.loads(folder.read(NAME))
        if values["v"] != VERSION:
            raise ManifestUnusable(f"{folder.uri_of(NAME)}: written by another version ({values['v']})")
        stages = tuple(_stage(stage) for stage in values["stages"])
        return Stages(values["run_id"], values["created_at"], stages, values["origin"])
    except FileNotFoundError:
        raise ManifestUnusable(f"{folder.uri}: there is no run of several jobs here") from None
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise ManifestUnusable(f"{folder.uri_of(NAME)}: damaged ({type(error).__name__})") from None


def _stage(values: dict[str, Any]) -> Stage:
    dates = values["dates"]
    return Stage(values["name"], values["job"], values["kind"], tuple(dates) if dates else None)


def _stages_of(config: JobsConfig, job: JobConfig) -> Sequence[Stage]:
    kind = str(job.records.kind)
    if job.recent is None:
        return [Stage(job.name, job.name, kind)]
    files = list_files(pattern_of(config.config_of(job)), Storage(job.source.storage_options))
    dates = sorted(file.date for file in files if file.date is not None)
    first, last = dates[0], dates[-1]
    split = last - job.recent + _DAY
    recent = Stage(f"{job.name}-{RECENT}", job.name, kind, (str(max(first, split)), str(last)))
    if first >= split:
        return [recent]
    return [recent, Stage(f"{job.name}-{HISTORY}", job.name, kind, (str(first), str(split - _DAY)))]
