"""Runs a backfill: plans it or takes it up again, runs the pipeline, closes the books, writes the report."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import os
import secrets
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from mixpanel_http.client import Destination
from mixpanel_http.insert_ids import RECIPE
from pipelines.config import Config
from pipelines.failures import describe_failure
from pipelines.ledger import (
    ErrorLimit,
    Ledger,
    SegmentRecord,
    read_ledger,
    read_stops,
    trim_dead_letters,
)
from pipelines.manifest import NAME as MANIFEST
from pipelines.manifest import Manifest, read_manifest, write_manifest
from pipelines.plan import SourceFile, SourcePattern, list_files, plan_segments
from pipelines.report import ExitCode, RunFacts, close_books, files_table, make_report
from pipelines.state import StateFolder
from transforms.storage import Storage, path_of, scheme_of

EMULATOR_TOKEN: Final = "BACKFILL_EMULATOR_TOKEN"


class RunMismatch(ValueError):
    """A run cannot be started or resumed as asked; the message says what differs and what to do."""


class Interrupted(BaseException):
    """SIGINT or SIGTERM came."""

    def __init__(self, code: ExitCode) -> None:
        super().__init__(code.name)
        self.code = code


@dataclass(frozen=True, slots=True)
class Launch:
    """One start of a run, new or resumed: everything that is decided before the pipeline runs."""

    config: Config
    folder: StateFolder
    manifest: Manifest
    before: dict[str, SegmentRecord]
    resumed: bool
    dry_run: bool


Watch = Callable[[Launch], "contextlib.AbstractContextManager[object]"]


def prepare_launch(
    config: Config, *, resume: str | None = None, dry_run: bool = False, origin: str | None = None
) -> Launch:
    """Returns a launch of a new run, or of one that is taken up again; writes the manifest of a new one.

    Raises:
        RunMismatch: if there is such a run already, or the one to resume is another.
        NothingMatched, SourceUnreadable: if there is no input.
        ManifestUnusable, StateUnusable: if the state cannot be used.
    """
    state = StateFolder(_absolute(config.run.state), Storage(config.run.storage_options))
    if resume is not None:
        return _resume(config, state.below(resume), dry_run)
    run_id = config.run.id or new_run_id()
    folder = state.below(run_id)
    if folder.exists(MANIFEST):
        raise RunMismatch(
            f"{folder.uri}: this run exists; resume it with --resume {run_id}, or choose another run.id"
        )
    files = list_files(_pattern(config), _storage(config))
    manifest = dataclasses.replace(_new_manifest(config, run_id, files), origin=origin)
    write_manifest(folder, manifest)
    return Launch(config, folder, manifest, {}, False, dry_run)


def run_launch(launch: Launch, beam_args: Sequence[str] = (), watch: Watch | None = None) -> dict[str, Any]:
    """Runs the pipeline of a launch and returns its report, which is also written beside the ledger."""
    started = time.time()
    failure: str | None = None
    interrupted: ExitCode | None = None
    with _emulator(launch) as emulator_url, _signals():
        try:
            destination = launch.config.destination.to_destination(emulator_url)
            if not launch.dry_run:
                destination.authorization()  # a missing secret is told now, not by a worker
            with watch(launch) if watch else contextlib.nullcontext():
                _run_pipeline(launch, destination, beam_args)
        except Interrupted as signalled:
            interrupted = signalled.code
        except Exception as error:  # noqa: BLE001 - whatever it is, the books are closed and it is told
            failure = describe_failure(error)
    return _finish(launch, started, failure, interrupted)


def new_run_id(now: dt.datetime | None = None) -> str:
    """Returns a run's name made from the time; runs of one second differ all the same."""
    moment = now or dt.datetime.now(dt.timezone.utc)
    return f"{moment:%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}"


def settings_of(config: Config) -> dict[str, Any]:
    """Returns what decides which files, blocks and ids a run has, by its path in the configuration."""
    return {
        "source.uri": config.source.uris,
        "source.dates": [str(config.source.dates.from_), str(config.source.dates.to)]
        if config.source.dates
        else None,
        "source.format": config.source.format,
        "records.kind": config.records.kind,
        "records.insert_id": config.records.insert_id.model_dump(),
        "records.insert_id recipe": RECIPE,
        "records.default_ip": config.records.default_ip,
        "destination.identity": config.destination.identity,
        "limits.records_per_request": config.limits.records_per_request,
        "limits.bytes_per_request": config.limits.bytes_per_request,
    }


def _absolute(uri: str) -> str:
    return uri if scheme_of(uri) != "file" else path_of(uri)


def _storage(config: Config) -> Storage:
    return Storage(config.source.storage_options)


def _pattern(config: Config) -> SourcePattern:
    dates = config.source.dates
    return SourcePattern(
        tuple(config.source.uris),
        dates.from_ if dates else None,
        dates.to if dates else None,
        config.source.order,
    )


def _new_manifest(config: Config, run_id: str, files: Sequence[SourceFile]) -> Manifest:
    created = dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds")
    segments = tuple(plan_segments(files, _storage(config)))
    size = sum(file.size for file in files)
    return Manifest(run_id, created, settings_of(config), len(files), size, segments)


def _resume(config: Config, folder: StateFolder, dry_run: bool) -> Launch:
    manifest = read_manifest(folder)
    now = settings_of(config)
    differing = [name for name, value in manifest.settings.items() if now.get(name) != value]
    if differing:
        raise RunMismatch(
            "\n".join(
                f"{name}: the run has {manifest.settings[name]!r}, the configuration {now.get(name)!r}; "
                "put it back, or start a new run"
                for name in differing
            )
        )
    ledger = read_ledger(folder)
    _check_files(config, manifest, ledger)
    trim_dead_letters(folder, ledger)
    return Launch(config, folder, manifest, ledger, True, dry_run)


def _check_files(config: Config, manifest: Manifest, ledger: dict[str, SegmentRecord]) -> None:
    """Refuses to go on where a file that is not done yet is another one now."""
    left = [s for s in manifest.segments if s.id not in ledger or not ledger[s.id].done]
    if not left:
        return
    now = {file.uri: file for file in list_files(_pattern(config), _storage(config))}
    problems = []
    for uri, part in {part.uri: part for segment in left for part in segment.parts}.items():
        file = now.get(uri)
        if file is not None and (file.size, file.version) != (part.size, part.version):
            problems.append(f"{uri}: has changed since the run was planned; start a new run for it")
    if problems:
        raise RunMismatch("\n".join(problems[:20]))


@contextlib.contextmanager
def _emulator(launch: Launch) -> Iterator[str | None]:
    """Starts the embedded Mixpanel if the configuration asks for it, and yields its URL."""
    if not launch.config.destination.emulator or launch.dry_run:
        yield "http://127.0.0.1:9" if launch.config.destination.emulator else None
        return
    from mixpanel_emulator.process import start_emulator

    os.environ.setdefault(EMULATOR_TOKEN, "emulator")
    settings = {"identity": launch.config.destination.identity}
    with start_emulator(emulator_store(launch), settings=settings) as emulator:
        yield emulator.url


def emulator_store(launch: Launch) -> str:
    """Returns where the embedded Mixpanel of a run keeps what it was sent."""
    return f"{path_of(launch.folder.uri)}/emulator.db" if launch.folder.is_local else ":memory:"


def _run_pipeline(launch: Launch, destination: Destination, beam_args: Sequence[str]) -> None:
    # Beam takes over a second to import, and is needed only from here on.
    import apache_beam as beam

    from pipelines.graph import BackfillEvents
    from pipelines.runners import pipeline_options, runner_of

    ledger = Ledger(
        launch.folder, launch.resumed, ErrorLimit.parse(launch.config.run.max_errors), _line_bases(launch)
    )
    options = pipeline_options(launch.config, beam_args)
    pipeline = beam.Pipeline(runner=runner_of(launch.config), options=options)
    _ = pipeline | "BackfillEvents" >> BackfillEvents(launch.config, destination, ledger, launch.dry_run)
    pipeline.run().wait_until_finish()


def _line_bases(launch: Launch) -> tuple[tuple[tuple[str, int], int], ...]:
    """Returns the numbers of the lines at which parts of split files start, as far as what is done tells."""
    bases: dict[tuple[str, int], int] = {}
    for segment in launch.manifest.segments:
        record = launch.before.get(segment.id)
        if record is None or not record.done or segment.parts[0].end is None:
            continue
        part = segment.parts[0]
        first = 1 if part.start == 0 else bases.get((part.uri, part.start))
        if first is not None and part.end is not None:
            bases[part.uri, part.end] = first + record.tally.lines
    return tuple(bases.items())


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    """Turns SIGINT and SIGTERM into exceptions for as long as the run lasts."""

    def interrupt(number: int, _frame: object) -> None:
        raise Interrupted(ExitCode.INTERRUPTED if number == signal.SIGINT else ExitCode.TERMINATED)

    try:
        before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread: whoever runs us there handles signals
        yield
        return
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _finish(
    launch: Launch, started: float, failure: str | None, interrupted: ExitCode | None
) -> dict[str, Any]:
    ledger = read_ledger(launch.folder)
    books = close_books(launch.manifest.segments, ledger)
    stops = read_stops(launch.folder, since=started)
    facts = RunFacts(
        _state(launch, failure, stops, interrupted),
        started,
        time.time(),
        stops,
        failure,
        ErrorLimit.parse(launch.config.run.allow_dead_letters),
        interrupted,
        launch.dry_run,
        sum(record.tally.total.imported for record in launch.before.values()),
    )
    report = make_report(launch.manifest, books, facts)
    report["dead_letters"]["files"] = [launch.folder.uri_of(name) for name in books.dead_files]
    report["undelivered"]["files"] = [launch.folder.uri_of(name) for name in books.undelivered_files]
    report["folder"] = launch.folder.uri
    if launch.config.destination.emulator and not launch.dry_run:
        report["emulator_store"] = emulator_store(launch)
    launch.folder.write("files.jsonl", b"".join(orjson.dumps(row) + b"\n" for row in files_table(books)))
    launch.folder.write("report.json", orjson.dumps(report, option=orjson.OPT_INDENT_2) + b"\n")
    if books.balanced and facts.state == "done" and books.total.settled:
        launch.folder.write("_SUCCESS", b"")
    return report


def _state(launch: Launch, failure: str | None, stops: Sequence[object], interrupted: ExitCode | None) -> str:
    if interrupted is not None:
        return "interrupted"
    if stops:
        return "stopped"
    if failure is not None:
        return "failed"
    return "dry_run" if launch.dry_run else "done"


__all__ = ["Interrupted", "Launch", "RunMismatch", "prepare_launch", "run_launch"]
