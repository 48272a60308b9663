"""What the command line does: runs a backfill and says how it went, to a person or to a script."""

from __future__ import annotations

import contextlib
import datetime as dt
import gc
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, NamedTuple

import orjson

from pipelines import signals
from pipelines.backfill import Watch, run_launch, submit_launch
from pipelines.config import Config
from pipelines.config_jobs import JobsConfig
from pipelines.config_reading import ConfigError, load_run, with_beam_options
from pipelines.following import EngineRefused
from pipelines.jobs import prepare_jobs, prepare_jobs_replay, run_jobs
from pipelines.lanes import choose_lanes
from pipelines.launch import Launch, prepare_launch
from pipelines.progress import show_progress
from pipelines.refusals import REFUSALS, refuse, refuse_for
from pipelines.replay import prepare_replay, replaying
from pipelines.report import ExitCode
from pipelines.state import StateUnusable
from pipelines.streams import print_out, say
from pipelines.summary import counted, shown, summary
from transforms.elements import GC_OBJECTS

_TELL_TWICE: Final = ("apache_beam", "gcsfs")  # what is told without them, and with tracebacks
_NO_ENGINE: Final = "DirectRunner works on this machine, and nothing goes on without this process"
_ONE_AFTER_ANOTHER: Final = "a job begins when the one before has ended, and this process sees to that"
_STAY: Final = "leave --detach away and start the run where it can stay (should it end, --resume goes on)"


def run(
    config_path: str,
    *,
    overrides: Sequence[str] = (),
    resume: str | None = None,
    replay: str | None = None,
    dry_run: bool = False,
    allow_new: bool = False,
    detach: bool = False,
    as_json: bool = False,
    log_format: str = "text",
    beam_args: Sequence[str] = (),
) -> int:
    """Runs a backfill and returns the exit code.

    Args:
        config_path: the configuration's file.
        overrides: `key.path=value`, each replacing one value of it.
        resume: the run to go on with, or None for a new one.
        replay: the run whose dead letters and undelivered records are to be sent, or None.
        dry_run: read and validate only.
        allow_new: with `resume`, take in files that were not there when the run was planned.
        detach: return when an engine elsewhere has taken the run over.
        as_json: print the report as JSON on stdout.
        log_format: `text` or `json`, of what is told on stderr meanwhile.
        beam_args: options for Beam.
    """
    in_json = log_format == "json"
    _set_up_logging(in_json)
    gc.set_threshold(GC_OBJECTS)
    try:
        config = _configuration(config_path, overrides, beam_args)
        detach = detach or "template_location" in config.beam.options
        _check_engine(config, detach)
        _check_secrets(config, dry_run)
        start = _planned(config, _Wanted(resume, replay, dry_run, allow_new), in_json)
    except REFUSALS as error:
        return refuse_for(error)
    except signals.Interrupted as interrupted:
        told = "interrupted while planning, before anything was sent; start it again"
        return refuse(told, ExitCode(signals.exit_code_of(interrupted.number)))
    _say({"kind": "start", "run_id": start.run_id}, f"Run {start.run_id}: {start.text}", in_json)
    if start.submit is not None and detach:
        return _submit(start.run_id, start.submit, config_path, as_json)
    return _go(start, in_json, as_json)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """Which run is to be started, and how; the attributes are arguments of `run`."""

    resume: str | None
    replay: str | None
    dry_run: bool
    allow_new: bool


class _Start(NamedTuple):
    """What is about to run: its name, what to say of it, how it is run, and what shows how far it is."""

    run_id: str
    text: str
    go: Callable[[Watch], dict[str, Any]]
    show: Callable[..., contextlib.AbstractContextManager[None]]
    submit: Callable[[], str] | None = None


def _configuration(path: str, overrides: Sequence[str], beam_args: Sequence[str]) -> Config | JobsConfig:
    """Returns the configuration in a file with what the command line says otherwise."""
    config = load_run(path, overrides)
    return _with_options(config, beam_args) if beam_args or config.beam.options else config


def _check_secrets(config: Config | JobsConfig, dry_run: bool) -> None:
    """Resolves the secrets that will be needed: that one is missing is told first."""
    for to in config.destinations:
        if not (dry_run or to.emulator):
            to.to_destination().authorization()
    for declared in config.maps:
        declared.check_secrets()


def _planned(config: Config | JobsConfig, wanted: _Wanted, in_json: bool) -> _Start:
    """Returns what is about to run, once it is planned; a signal ends the planning at once."""
    with signals.raised():
        if wanted.resume is None and _sorts(config):
            _say({"kind": "sorting"}, "Reading and sorting all updates before any is sent", in_json)
        if isinstance(config, JobsConfig):
            return _start_of_jobs(config, wanted)
        return _start(config, wanted)


def _go(start: _Start, in_json: bool, as_json: bool) -> int:
    """Runs what is planned, prints its report, and returns its exit code."""
    try:
        report = start.go(partial(start.show, in_json=in_json))
    except StateUnusable as error:
        ended = f"the run ended without a report; nothing is lost: --resume {start.run_id} goes on"
        return refuse(f"{error}\n{ended}", ExitCode.BUG)
    text = orjson.dumps(report, option=orjson.OPT_INDENT_2).decode() + "\n" if as_json else summary(report)
    print_out(text, is_json=as_json)
    return int(report["exit_code"])


def _sorts(config: Config | JobsConfig) -> bool:
    """Returns whether planning takes as long as reading does."""
    records = [job.records for job in config.jobs] if isinstance(config, JobsConfig) else [config.records]
    return any(one.order_by is not None for one in records)


def _say(values: Mapping[str, Any], text: str, in_json: bool) -> None:
    """Says something on stderr: as text, or as JSON that has the text."""
    line = orjson.dumps({**values, "text": text}).decode() if in_json else text
    say(line)


@contextlib.contextmanager
def _show_job(launch: Launch, in_json: bool) -> Iterator[None]:
    """Says which of several jobs begins, and shows its progress for as long as the body runs."""
    manifest = launch.manifest
    text = f"Job {manifest.run_id}: {counted(manifest.files, 'file')}, {counted(manifest.bytes, 'byte')}"
    _say({"kind": "job", "job": manifest.run_id}, text, in_json)
    with show_progress(launch, in_json=in_json):
        yield


def _start(config: Config, wanted: _Wanted) -> _Start:
    launch = _launch(config, wanted)
    manifest = launch.manifest
    text = (
        f"{counted(manifest.files, 'file')}, {counted(manifest.bytes, 'byte')}, "
        f"{counted(len(manifest.segments), 'segment')}; state in {shown(launch.folder.uri)}"
    )
    if launch.days_without:
        text += f"\n  {_days_text(launch.days_without)}"
    if launch.empty_files:
        text += f"\n  {counted(launch.empty_files, 'file')} of 0 bytes"
    if not config.beam.on_one_machine:
        lanes = choose_lanes(config)
        text += f"\n  {config.beam.runner}, {counted(lanes.count, 'lane')}: {lanes.why}"
    go, submit = partial(run_launch, launch), partial(submit_launch, launch)
    return _Start(manifest.run_id, text, go, show_progress, submit)


def _days_text(days: Sequence[dt.date]) -> str:
    """Returns which days have no file, the first of them by name.

    >>> _days_text([dt.date(2024, 3, 5)])
    'no file of 1 day in source.dates: 2024-03-05'
    """
    named = ", ".join(map(str, days[:_DAYS_NAMED])) + (", …" if len(days) > _DAYS_NAMED else "")
    return f"no file of {counted(len(days), 'day')} in source.dates: {named}"


_DAYS_NAMED: Final = 5


def _launch(config: Config, wanted: _Wanted) -> Launch:
    resume, dry_run = wanted.resume, wanted.dry_run
    if resume is not None:
        found = replaying(config, resume)
        return prepare_launch(found, resume=resume, dry_run=dry_run, allow_new=wanted.allow_new)
    if wanted.replay is not None:
        return prepare_replay(config, wanted.replay, dry_run=dry_run)
    return prepare_launch(config, dry_run=dry_run)


def _start_of_jobs(config: JobsConfig, wanted: _Wanted) -> _Start:
    launch = (
        prepare_jobs_replay(config, wanted.replay, dry_run=wanted.dry_run)
        if wanted.replay is not None
        else prepare_jobs(config, resume=wanted.resume, dry_run=wanted.dry_run, allow_new=wanted.allow_new)
    )
    manifests = [one.manifest for one in launch.launches]
    names = ", ".join(manifest.run_id for manifest in manifests)
    text = (
        f"{counted(len(manifests), 'job')} ({names}), {counted(sum(m.files for m in manifests), 'file')}, "
        f"{counted(sum(m.bytes for m in manifests), 'byte')}; state in {shown(launch.folder.uri)}"
    )
    return _Start(launch.stages.run_id, text, partial(run_jobs, launch), _show_job)


def _set_up_logging(in_json: bool) -> None:
    """Shows warnings on stderr, but none of Beam's, nor of the client for GCS.

    Beam reports a failed bundle with a traceback, which can hold records; the report tells what happened, and
    what GCS refuses is told where it matters.
    """
    handler = logging.StreamHandler()
    text = logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S")
    handler.setFormatter(_JsonFormatter() if in_json else text)
    handler.addFilter(lambda record: not record.name.startswith(_TELL_TWICE))
    # What a job service says of a failed job Beam passes on as the root logger's.
    handler.addFilter(lambda record: "apache_beam" not in record.pathname)
    handler.addFilter(lambda record: not str(record.msg).startswith("apitools not found"))
    root = logging.getLogger()
    if not root.handlers:
        root.addHandler(handler)


class _JsonFormatter(logging.Formatter):
    """Formats a log record as one JSON object."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns the line."""
        values = {"kind": "log", "at": record.created, "level": record.levelname}
        return orjson.dumps({**values, "text": record.getMessage()}).decode()


def _submit(run_id: str, submit: Callable[[], str], config_path: str, as_json: bool) -> int:
    """Hands a run over to its engine, and says how to follow it."""
    try:
        job = submit()
    except EngineRefused as error:
        return refuse_for(error)
    if as_json:
        print_out(
            orjson.dumps({"run_id": run_id, "state": "running", "job": job}).decode() + "\n", is_json=True
        )
        return int(ExitCode.DONE)
    named = f"{run_id} --config {config_path}"
    print_out(
        f"Run {run_id}: handed over as job {job or 'without a name'}.\n"
        f"  follow it:  python run_backfill.py status {named} --follow\n"
        f"  go on, if it ends early:  python run_backfill.py --resume {named}\n"
    )
    return int(ExitCode.DONE)


def _check_engine(config: Config | JobsConfig, detach: bool) -> None:
    """Refuses what an engine cannot do, or is not told enough for."""
    if detach and config.beam.on_one_machine:
        raise ConfigError([f"--detach: {_NO_ENGINE}; leave --detach away"])
    if detach and isinstance(config, JobsConfig):
        raise ConfigError([f"--detach: {_ONE_AFTER_ANOTHER}; {_STAY}, or start each job as a run of its own"])
    if detach and isinstance(config, Config) and config.records.kind == "lookup_tables":
        raise ConfigError(["--detach: this process sends lookup tables, and no engine; leave --detach away"])
    if not config.beam.on_one_machine:
        from pipelines.runners import check_engine

        check_engine(config.beam)


def _with_options(config: Config | JobsConfig, beam_args: Sequence[str]) -> Config | JobsConfig:
    """Returns the configuration with the command line's options for Beam.

    Options that nobody knows are refused; Beam would pass over them with a warning.
    """
    from pipelines.runners import parsed_options, unknown_options

    unknown = unknown_options(config, beam_args)
    if unknown:
        raise ConfigError(
            [f"{name}: no option of run_backfill.py or of Beam{hint}" for name, hint in unknown]
        )
    return with_beam_options(config, parsed_options(beam_args))
