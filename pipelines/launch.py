"""Prepares a launch: plans a new run, or takes up one that was begun, and holds the right to work on it."""

from __future__ import annotations

import dataclasses
import datetime as dt
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from mixpanel_http.crash_points import crash_point
from pipelines.config import Config
from pipelines.digest import write_digest
from pipelines.lease import Lease, take_lease
from pipelines.ledger import FOLDER as LEDGER
from pipelines.ledger import last_attempt, read_ledger, trim_dead_letters
from pipelines.listing import Listing
from pipelines.manifest import NAME as MANIFEST
from pipelines.manifest import Manifest, ManifestUnusable, read_manifest, write_manifest
from pipelines.ordering import ordered_segments, remove_ordered
from pipelines.plan import SourceUnreadable, list_files
from pipelines.record_file import RecordFile
from pipelines.resuming import (
    RunMismatch,
    check_files,
    check_not_replayed,
    check_run_id,
    check_segments,
    check_settings,
    count_new,
    listed_now,
    pattern_of,
    segments_of,
    settings_of,
    state_folder,
    take_new_files,
)
from pipelines.segment_file import SegmentFile, line_of
from pipelines.state import StateFolder
from transforms.attempt_ids import new_attempt_id
from transforms.storage import Storage, path_of


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
        days_without: the days among those of a new run of which there is no file.
        empty_files: files of a new run that have not a single byte.
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
    days_without: Sequence[dt.date] = ()
    empty_files: int = 0

    @property
    def segments_left(self) -> int:
        """Segments that are not done yet."""
        return len(self.manifest.segments) - self.before.done


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
    state = state_folder(config.run)
    if resume is not None:
        check_run_id(resume)
        return _resume(config, state.below(resume), resume, dry_run, allow_new)
    run_id = config.run.id or new_run_id()
    folder = state.below(run_id)
    folder.check_bucket()  # told now, and not when a large source has been listed
    if folder.exists(MANIFEST):
        raise RunMismatch(
            f"{folder.uri}: this run exists; resume it with --resume {run_id}, or choose another run.id"
        )
    files = list_files(pattern_of(config), Storage(config.source.storage_options))
    sorts = config.records.order_by is not None
    planned = None if sorts else SegmentFile(map(line_of, segments_of(config, files)))
    lease = _lease(config, folder)
    crash_point("after lease")
    segments = planned if planned is not None else _sorted_segments(config, folder, files, lease)
    manifest = _new_manifest(config, run_id, files, segments, origin)
    write_manifest(folder, manifest)
    made = Launch(config, folder, manifest, RecordFile(), False, dry_run, lease.owner, lease)
    dates = config.source.dates
    days_without = files.days_without(dates.from_, dates.to) if dates else ()
    return dataclasses.replace(made, days_without=days_without, empty_files=files.empty)


def new_run_id(now: dt.datetime | None = None) -> str:
    """Returns a run's name made from the time; runs of one second differ all the same."""
    moment = now or dt.datetime.now(dt.timezone.utc)
    return f"{moment:%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}"


def _lease(config: Config, folder: StateFolder) -> Lease:
    """Returns the right to work on a run, for a new start of it."""
    seconds, beam = config.run.lease_seconds, config.beam
    shared, afar = not beam.in_process, not beam.on_one_machine
    return take_lease(folder, new_attempt_id(), seconds, shared=shared, afar=afar)


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
    lease = _lease(config, folder)
    try:
        names = folder.names(LEDGER)
        lease.stand_behind(last_attempt(names))  # earlier starts may have gone by a clock that is ahead
        ledger = read_ledger(folder, manifest.key, names=names)
        check_segments(folder, manifest, ledger)
        launch = lease.owner
        made = Launch(config, folder, manifest, ledger, True, dry_run, launch, lease)
        if made.segments_left:
            check_not_replayed(folder, config)
        made = _with_files(made, allow_new) if made.segments_left or allow_new else _with_new_files(made)
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


def _with_new_files(launch: Launch) -> Launch:
    """Returns a launch of what is all done, after a count of the files that came since."""
    try:
        files = listed_now(launch.config)
    except SourceUnreadable:
        return launch  # nothing of it is needed any more
    return dataclasses.replace(launch, new_files=count_new(launch.manifest, files))


def emulator_store(launch: Launch) -> str:
    """Returns where the embedded Mixpanel of a run keeps what it was sent."""
    folder = launch.emulator_folder or launch.folder
    return f"{path_of(folder.uri)}/emulator.db" if folder.is_local else ":memory:"
