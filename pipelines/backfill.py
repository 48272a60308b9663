"""Runs a backfill that is prepared: starts what it needs, runs the pipeline, and sees to its reports."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import orjson

from mixpanel_http.crash_points import crash_point
from mixpanel_http.destinations import Destination
from mixpanel_http.kinds import KINDS
from mixpanel_http.preflight import refusal
from mixpanel_http.rate import Lane
from mixpanel_http.receipts import Stop
from pipelines import signals
from pipelines.closing import DETACHED, note_detached
from pipelines.config_destination import EMULATOR_TOKEN
from pipelines.crew import lead
from pipelines.failures import describe_failure
from pipelines.following import CrewWatch, EngineRefused, follow, job_of, start_job
from pipelines.heartbeat import NOW, Heartbeat, beating
from pipelines.lanes import choose_lanes
from pipelines.launch import Launch, emulator_store
from pipelines.launch_reports import LaunchReports
from pipelines.ledger import ErrorLimit, Ledger
from pipelines.state import StateUnusable
from pipelines.versions import versions_here
from transforms import activity, drain, unrecorded
from transforms.storage import Storage

if TYPE_CHECKING:
    from apache_beam import Pipeline

MOST_BASES: Final = 2000
SETTLE_SECONDS: Final = 20.0  # for requests under way when a pipeline has failed


class EmulatorFailed(RuntimeError):
    """The embedded Mixpanel did not start; the message says why."""


Watch = Callable[[Launch], "contextlib.AbstractContextManager[object]"]


def run_launch(launch: Launch, watch: Watch | None = None) -> dict[str, Any]:
    """Runs the pipeline of a launch and returns its report, which is also written beside the ledger.

    SIGINT and SIGTERM drain the run; see `pipelines.signals`.
    """
    run = LaunchReports(launch, time.time())
    drain.reset()
    activity.here.reset()
    unrecorded.here.reset(is_told=True)
    lead(launch.id)
    settings = launch.config
    heart = Heartbeat(
        launch.folder,
        launch.lease,
        run.end_stuck,
        settings.limits.events_per_second,
        settings.run.stuck_after_seconds,
    )
    with signals.handled(run.end_early) as signalled:
        try:
            run.write_first()
            launch.folder.remove(DETACHED)  # of an earlier start: this one is there at its end
            crash_point("after first report")
            try:
                with _emulator(launch) as emulator_url, beating(heart):
                    crash_point("before pipeline")
                    failure = _try_pipeline(launch, emulator_url, watch)
            except (EmulatorFailed, StateUnusable) as error:
                failure = describe_failure(error)
            crash_point("before report")
            return run.finish(failure or heart.problem, signalled.first)
        finally:
            drain.reset()
            unrecorded.here.reset(is_told=False)
            launch.lease.release()


def submit_launch(launch: Launch) -> str:
    """Hands a launch over to an engine that goes on without this process; returns the job's name there.

    Raises:
        EngineRefused: if the engine does not take it.
    """
    run = LaunchReports(launch, time.time())
    try:
        run.write_first()
        destination = launch.config.destination.to_destination()
        pipeline = _pipeline(launch, destination, _ledger_of(launch))
        stop = _refusal(launch, destination)
        if stop is not None:
            raise EngineRefused(f"Mixpanel refuses the credentials ({stop.status}): {stop.message}")
        job = job_of(start_job(pipeline.run))
        note_detached(launch.folder, run.detached(job))
        launch.folder.write(NOW, orjson.dumps({"limit": launch.config.limits.events_per_second}))
        launch.lease.hand_over()
    except BaseException:
        launch.lease.release()
        raise
    return job


def _try_pipeline(launch: Launch, emulator_url: str | None, watch: Watch | None) -> str | None:
    """Runs the pipeline, if anything is left for it, and returns why it failed, or None."""
    if not launch.segments_left:
        return None
    try:
        destination = launch.config.destination.to_destination(emulator_url)
        if not launch.dry_run:
            destination.authorization()  # a missing secret is told now, not by a worker
        with watch(launch) if watch else contextlib.nullcontext():
            run = _run_tables if launch.config.records.kind == "lookup_tables" else _run_pipeline
            run(launch, destination)
    except Exception as error:  # noqa: BLE001 - whatever it is, the books are closed and it is told
        return describe_failure(error)
    finally:
        drain.settle(SETTLE_SECONDS)
        crash_point("after pipeline")
    return None


@contextlib.contextmanager
def _emulator(launch: Launch) -> Iterator[str | None]:
    """Starts the embedded Mixpanel if the configuration asks for it, and yields its URL.

    Raises:
        EmulatorFailed: if it does not start.
        StateUnusable: if its store cannot be written.
    """
    if not launch.config.destination.emulator or launch.dry_run or not launch.segments_left:
        yield "http://127.0.0.1:9" if launch.config.destination.emulator else None
        return
    from mixpanel_emulator.process import EmulatorError, start_emulator

    os.environ.setdefault(EMULATOR_TOKEN, "emulator")
    settings = {"identity": launch.config.destination.identity}
    store = emulator_store(launch)
    if launch.folder.is_local:
        with launch.folder.explained("emulator.db", "written"):
            os.close(os.open(store, os.O_CREAT | os.O_RDWR, 0o600))  # it will hold people's data
    try:
        started = start_emulator(store, settings=settings)
    except EmulatorError as error:
        raise EmulatorFailed(str(error)) from error
    with started as emulator:
        yield emulator.url


def _run_pipeline(launch: Launch, destination: Destination) -> None:
    ledger = _ledger_of(launch)
    pipeline = _pipeline(launch, destination, ledger)
    alone = launch.config.beam.in_process
    # Of a wrong token /engage and /groups say nothing: they take everything, and nothing arrives.
    stop = _refusal(launch, destination) if not alone or _wants_token(launch) else None
    if stop is not None:
        ledger.write_stop(stop)
        return
    if alone:
        pipeline.run().wait_until_finish()
        return
    beam = launch.config.beam
    start = pipeline.run if beam.on_one_machine else partial(start_job, pipeline.run)
    follow(start, ledger, CrewWatch(beam.replaces_workers))


def _refusal(launch: Launch, destination: Destination) -> Stop | None:
    """Returns why the credentials will not do, where one request can prove that before workers start."""
    return None if launch.dry_run else refusal(destination)


def _wants_token(launch: Launch) -> bool:
    return KINDS[launch.config.records.kind].wants_token


def _pipeline(launch: Launch, destination: Destination, ledger: Ledger) -> Pipeline:
    # Beam takes over a second to import, and is needed only from here on.
    import apache_beam as beam

    from pipelines.graph import BackfillEvents
    from pipelines.runners import pipeline_options, runner_of

    options = pipeline_options(launch.config, launch.manifest.run_id)
    pipeline = beam.Pipeline(runner=runner_of(launch.config), options=options)
    lanes = choose_lanes(launch.config).count
    whole = BackfillEvents(launch.config, destination, ledger, launch.dry_run, lanes)
    _ = pipeline | "BackfillEvents" >> whole
    return pipeline


def _run_tables(launch: Launch, destination: Destination) -> None:
    from pipelines.send_tables import TableRun, TableSender

    config, rate = launch.config, launch.config.limits
    lane = Lane(rate.events_per_second, rate.bytes_per_minute)
    sender = None if launch.dry_run else TableSender(destination, lane, config.retry_policy())
    storage = Storage(config.source.storage_options)
    TableRun(_ledger_of(launch), storage, config.records.tables, sender).send_all(launch.manifest.segments)


def _ledger_of(launch: Launch) -> Ledger:
    return Ledger(
        launch.folder,
        launch.manifest.key,
        launch.id,
        launch.resumed,
        ErrorLimit.parse(launch.config.run.max_errors),
        _line_bases(launch),
        versions_here(),
    )


def _line_bases(launch: Launch) -> tuple[tuple[tuple[str, int], int], ...]:
    """Returns the numbers of the lines at which parts still to do start, as far as what is done tells.

    They travel in the job's graph, which must stay small: beyond so many, letters tell offsets alone.
    """
    bases: list[tuple[tuple[str, int], int]] = []
    place, line = ("", 0), 0  # the end of the last part that is done, and the number of the line there
    for segment in launch.manifest.segments if launch.before else ():
        part = segment.parts[0]
        first = 1 if part.start == 0 else line if place == (part.uri, part.start) else None
        if launch.before.is_done(segment.id):
            done = launch.before[segment.id]
            if first is not None and part.end is not None and not any(note.problem for note in done.notes):
                place, line = (part.uri, part.end), first + done.tally.lines
        elif first is not None and part.start and len(bases) < MOST_BASES:
            bases.append((place, first))
    return tuple(bases)
