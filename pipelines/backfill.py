"""Runs a backfill: plans it or takes it up again, runs the pipeline, closes the books, writes the report."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import orjson

from mixpanel_http.client import Destination
from mixpanel_http.crash_points import crash_point
from mixpanel_http.kinds import KINDS
from mixpanel_http.preflight import refusal
from mixpanel_http.rate import Lane
from mixpanel_http.receipts import Stop
from pipelines import signals
from pipelines.books import close_books
from pipelines.closing import (
    DETACHED,
    Detached,
    note_detached,
    whole_report,
    write_last_report,
    write_report,
)
from pipelines.config import Config
from pipelines.crew import lead
from pipelines.digest import write_digest
from pipelines.failures import describe_failure
from pipelines.following import CrewWatch, EngineRefused, follow, job_of, start_job
from pipelines.heartbeat import NOW, SUPERSEDED, Heartbeat, beating, dump_stacks
from pipelines.lanes import choose_lanes
from pipelines.lease import Lease, take_lease
from pipelines.ledger import (
    ErrorLimit,
    Ledger,
    read_ledger,
    read_stops,
    trim_dead_letters,
)
from pipelines.listing import Listing
from pipelines.manifest import NAME as MANIFEST
from pipelines.manifest import Manifest, ManifestUnusable, read_manifest, write_manifest
from pipelines.ordering import ordered_segments, remove_ordered
from pipelines.plan import list_files
from pipelines.record_file import RecordFile
from pipelines.report import ExitCode, RunFacts
from pipelines.resuming import (
    RunMismatch,
    absolute,
    check_files,
    check_run_id,
    check_segments,
    check_settings,
    count_new,
    listed_now,
    pattern_of,
    segments_of,
    settings_of,
    take_new_files,
)
from pipelines.segment_file import SegmentFile, line_of
from pipelines.state import StateFolder, StateUnusable
from pipelines.versions import versions_here
from transforms import activity, drain, unrecorded
from transforms.elements import new_attempt_id
from transforms.storage import Storage, path_of

if TYPE_CHECKING:
    from apache_beam import Pipeline

EMULATOR_TOKEN: Final = "BACKFILL_EMULATOR_TOKEN"
MOST_BASES: Final = 2000
SETTLE_SECONDS: Final = 20.0  # for requests under way when a pipeline has failed


@dataclass(frozen=True, slots=True)
class Launch:
    """One start of a run, new or resumed: everything that is decided before the pipeline runs.

    Attributes:
        config: the configuration.
        folder: the run's folder.
        manifest: what the run is.
        before: what was known of each segment before.
        resumed: whether the run was begun before.
        dry_run: read and validate only.
        id: of this start; it begins with the time.
        lease: the right to work on the run.
        new_files: files that match by now and are no part of the run.
        emulator_folder: where the embedded Mixpanel keeps what it is sent, if not in the run's folder.
    """

    config: Config
    folder: StateFolder
    manifest: Manifest
    before: RecordFile
    resumed: bool
    dry_run: bool
    id: str
    lease: Lease
    new_files: int = 0
    emulator_folder: StateFolder | None = None

    @property
    def segments_left(self) -> int:
        """Segments that are not done yet."""
        return len(self.manifest.segments) - self.before.done


class EmulatorFailed(RuntimeError):
    """The embedded Mixpanel did not start; the message says why."""


Watch = Callable[[Launch], "contextlib.AbstractContextManager[object]"]


def prepare_launch(
    config: Config,
    *,
    resume: str | None = None,
    dry_run: bool = False,
    origin: str | None = None,
    allow_new: bool = False,
) -> Launch:
    """Returns a launch of a new run, or of one that is taken up again; writes the manifest of a new one.

    Raises:
        RunMismatch: if there is such a run already, or the one to resume is another.
        RunBusy: if another process works on it.
        NothingMatched, SourceUnreadable: if there is no input.
        ManifestUnusable, StateUnusable: if the state cannot be used.
    """
    state = StateFolder(absolute(config.run.state), Storage(config.run.storage_options))
    if resume is not None:
        check_run_id(resume)
        return _resume(config, state.below(resume), resume, dry_run, allow_new)
    run_id = config.run.id or new_run_id()
    folder = state.below(run_id)
    if folder.exists(MANIFEST):
        raise RunMismatch(
            f"{folder.uri}: this run exists; resume it with --resume {run_id}, or choose another run.id"
        )
    files = list_files(pattern_of(config), Storage(config.source.storage_options))
    sorts = config.records.order_by is not None
    planned = None if sorts else SegmentFile(map(line_of, segments_of(config, files)))
    launch = new_attempt_id()
    lease = take_lease(folder, launch, config.run.lease_seconds, shared=not config.beam.in_process)
    crash_point("after lease")
    segments = planned if planned is not None else _sorted_segments(config, folder, files, lease)
    manifest = _new_manifest(config, run_id, files, segments, origin)
    write_manifest(folder, manifest)
    return Launch(config, folder, manifest, RecordFile(), False, dry_run, launch, lease)


def run_launch(launch: Launch, watch: Watch | None = None) -> dict[str, Any]:
    """Runs the pipeline of a launch and returns its report, which is also written beside the ledger.

    SIGINT and SIGTERM drain the run; see `pipelines.signals`.
    """
    run = _Run(launch, time.time())
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
            run.write_report("running")
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
    run = _Run(launch, time.time())
    try:
        run.write_report("running")
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


def new_run_id(now: dt.datetime | None = None) -> str:
    """Returns a run's name made from the time; runs of one second differ all the same."""
    moment = now or dt.datetime.now(dt.timezone.utc)
    return f"{moment:%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}"


def _sorted_segments(config: Config, folder: StateFolder, files: Listing, lease: Lease) -> SegmentFile:
    """Returns the segments of a run whose records are put into an order first; a failure leaves no run."""
    try:
        return SegmentFile(map(line_of, ordered_segments(config, folder, files)))
    except BaseException:
        remove_ordered(folder)
        lease.release()
        raise


def _new_manifest(
    config: Config, run_id: str, files: Listing, segments: SegmentFile, origin: str | None
) -> Manifest:
    created = dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds")
    return Manifest(run_id, created, settings_of(config), len(files), files.bytes, segments, origin)


def _resume(config: Config, folder: StateFolder, run_id: str, dry_run: bool, allow_new: bool) -> Launch:
    manifest = read_manifest(folder)
    if manifest.run_id != run_id:
        raise ManifestUnusable(f"{folder.uri_of(MANIFEST)}: is of another run, {manifest.run_id}")
    check_settings(manifest, config)
    launch = new_attempt_id()
    lease = take_lease(folder, launch, config.run.lease_seconds, shared=not config.beam.in_process)
    try:
        ledger = read_ledger(folder, manifest.key)
        check_segments(folder, manifest, ledger)
        made = Launch(config, folder, manifest, ledger, True, dry_run, launch, lease)
        if made.segments_left or allow_new:
            made = _with_files(made, allow_new)
        write_digest(folder, manifest.key, launch, ledger)  # should this start be killed, the next is fast
        crash_point("before trim")
        trim_dead_letters(folder, ledger)
        crash_point("after trim")
    except BaseException:
        lease.release()
        raise
    return made


def _with_files(launch: Launch, allow_new: bool) -> Launch:
    """Returns a launch after a look at its files as they are now."""
    files = listed_now(launch.config)
    check_files(launch.manifest, launch.before, files)
    if allow_new:
        manifest = take_new_files(launch.config, launch.folder, launch.manifest, files)
        return dataclasses.replace(launch, manifest=manifest)
    return dataclasses.replace(launch, new_files=count_new(launch.manifest, files))


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


def emulator_store(launch: Launch) -> str:
    """Returns where the embedded Mixpanel of a run keeps what it was sent."""
    folder = launch.emulator_folder or launch.folder
    return f"{path_of(folder.uri)}/emulator.db" if folder.is_local else ":memory:"


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
            if first is not None and part.end is not None:
                place, line = (part.uri, part.end), first + launch.before[segment.id].tally.lines
        elif first is not None and part.start and len(bases) < MOST_BASES:
            bases.append((place, first))
    return tuple(bases)


class _Run:
    """Writes the reports of one launch; the last one once."""

    def __init__(self, launch: Launch, started: float) -> None:
        self._launch = launch
        self.started = started
        self._ending = threading.Lock()  # who takes it first writes the last report; it is never given back

    def detached(self, job: str) -> Detached:
        """Returns what whoever closes the books later has to know of this launch."""
        launch = self._launch
        return Detached(
            launch.id,
            job,
            self.started,
            launch.config.run.allow_dead_letters,
            launch.dry_run,
            launch.before.imported,
            launch.resumed,
            launch.new_files,
        )

    def finish(self, failure: str | None, signal: int | None) -> dict[str, Any]:
        """Closes the books and writes the last report."""
        self._ending.acquire()
        return self.write_report(None, failure, signal)

    def end_early(self, signal: int) -> None:
        """Writes the last report while the pipeline still hangs on to something."""
        if self._ending.acquire(blocking=False):
            self.write_report(None, None, signal)
            self._launch.lease.release()

    def end_stuck(self, problem: str) -> None:
        """Ends a process in which nothing happens any more, and says so."""
        drain.request()
        dump_stacks()
        if self._ending.acquire(blocking=False):
            self.write_report(None, f"stuck: {problem}", None)
            self._launch.lease.release()
        os._exit(ExitCode.BUG)

    def write_report(
        self, state: str | None, failure: str | None = None, signal: int | None = None
    ) -> dict[str, Any]:
        """Writes a report of what the ledger says now; without a state it is the last one."""
        launch = self._launch
        unchanged = state or not launch.segments_left
        ledger = launch.before if unchanged else self._read_ledger()
        superseded = not state and not launch.lease.is_held()
        books = close_books(launch.manifest.segments, ledger)
        stops = [] if state else read_stops(launch.folder, launch.manifest.key, launch.id)
        unfinished = books.segments_done < len(launch.manifest.segments)
        code = ExitCode(signals.exit_code_of(signal)) if signal is not None and unfinished else None
        facts = RunFacts(
            state or ("superseded" if superseded else _state(launch, failure, stops, code)),
            self.started,
            time.time(),
            stops,
            SUPERSEDED if superseded else failure,
            ErrorLimit.parse(launch.config.run.allow_dead_letters),
            code,
            launch.dry_run,
            launch.before.imported,
            ledger.sending_seconds(self.started),
            launch.resumed,
            launch.new_files,
        )
        report = whole_report(launch.folder, launch.manifest, books, facts)
        if launch.config.destination.emulator and not launch.dry_run:
            report["emulator_store"] = emulator_store(launch)
        if not state:
            write_digest(launch.folder, launch.manifest.key, launch.id, ledger)
        if superseded:  # the report of whoever took the run up is the run's
            return report
        if state:
            write_report(launch.folder, report)
        else:
            write_last_report(launch.folder, launch.manifest, report, books, ledger)
        return report

    def _read_ledger(self) -> RecordFile:
        return read_ledger(self._launch.folder, self._launch.manifest.key, unrecorded.here.blocks())


def _state(launch: Launch, failure: str | None, stops: Sequence[object], signal: ExitCode | None) -> str:
    if signal is not None:
        return "interrupted"
    if stops:
        return "stopped"
    if failure is not None:
        return "failed"
    return "dry_run" if launch.dry_run else "done"


__all__ = ["Launch", "RunMismatch", "new_run_id", "prepare_launch", "run_launch", "submit_launch"]
