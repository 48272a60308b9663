"""What a resume checks before it goes on: that settings, destination and files are those of the run."""

from __future__ import annotations

import dataclasses
import datetime as dt
import itertools
from collections.abc import Collection, Iterable, Iterator
from typing import Any, Final

from mixpanel_http.insert_ids import RECIPE
from mixpanel_http.kinds import KINDS
from pipelines.config import RUN_ID, Config, RunConfig
from pipelines.listing import Listing, SourceFile
from pipelines.manifest import Manifest, ManifestUnusable, add_to_manifest
from pipelines.plan import SourcePattern, find_files, plan_segments
from pipelines.record_file import RecordFile
from pipelines.segment_file import SegmentFile, line_of
from pipelines.state import StateFolder
from pipelines.table_files import table_problems, table_segments
from transforms.elements import FilePart, Segment
from transforms.storage import Storage, path_of, scheme_of

MOST_NAMED: Final = 20
REPLAYED: Final = "replayed_by"  # a file with the id of the run that sends what this one had left


class RunMismatch(ValueError):
    """A run cannot be started or resumed as asked; the message says what differs and what to do."""


def settings_of(config: Config) -> dict[str, Any]:
    """Returns what decides which files, blocks and ids a run has and where they go, by its path."""
    return {
        "source.uri": [absolute(uri) for uri in config.source.uris],
        "source.dates": [str(config.source.dates.from_), str(config.source.dates.to)]
        if config.source.dates
        else None,
        "source.format": config.source.format,
        "source.csv": config.source.csv.model_dump(),
        "source.verify": config.source.verify,
        "records.kind": config.records.kind,
        "records.insert_id": config.records.insert_id.model_dump(),
        "records.insert_id recipe": RECIPE,
        "records.duplicate_keys": config.records.duplicate_keys,
        "records.default_ip": config.records.default_ip,
        **_of_kind(config),
        "records.map": config.records.map.settings() if config.records.map else None,
        "destination.identity": config.destination.identity,
        "destination": _destination(config),
        "limits.records_per_request": config.limits.records_per_request,
        "limits.bytes_per_request": config.limits.bytes_per_request,
    }


def _of_kind(config: Config) -> dict[str, Any]:
    """Returns the settings that events do not have."""
    records = config.records
    if records.kind == "events":
        return {}
    if records.kind == "lookup_tables":
        return {"records.tables": records.tables}
    return {
        "records.operation": records.operation,
        "records.id_field": records.id_field,
        "records.group_key": records.group_key,
        "records.ignore_time": records.ignore_time,
        "records.order_by": records.order_by,
    }


def pattern_of(config: Config) -> SourcePattern:
    """Returns what a configuration's source matches; local paths no longer depend on the current folder."""
    dates = config.source.dates
    return SourcePattern(
        tuple(absolute(uri) for uri in config.source.uris),
        dates.from_ if dates else None,
        dates.to if dates else None,
        config.order,
    )


def state_folder(run: RunConfig) -> StateFolder:
    """Returns the folder that holds the runs; a local one no longer depends on the current folder."""
    return StateFolder(absolute(run.state), Storage(run.storage_options))


def absolute(uri: str) -> str:
    """Returns a URI that means the same from any folder."""
    return uri if scheme_of(uri) != "file" else path_of(uri)


def check_run_id(run_id: str) -> None:
    """Refuses what is no run's name, and might be a path.

    Raises:
        RunMismatch: if it is none.
    """
    if not RUN_ID(run_id):
        raise RunMismatch(f"{run_id!r} is not the id of a run: letters, digits, dots, underscores, hyphens")


def check_settings(manifest: Manifest, config: Config) -> None:
    """Refuses to go on with settings that would make other ids or blocks, or send elsewhere.

    Raises:
        RunMismatch: with a line for each difference.
    """
    now = settings_of(config)
    differing = [line for name, had in manifest.settings.items() for line in _told(name, had, now.get(name))]
    if differing:
        raise RunMismatch("\n".join(differing))


def _told(name: str, had: Any, has: Any) -> Iterator[str]:
    """Yields a line for each difference in a setting; of a section only the keys that differ."""
    if isinstance(had, dict) and isinstance(has, dict):
        for key in [*had, *(key for key in has if key not in had)]:
            yield from _told(f"{name}.{key}", had.get(key), has.get(key))
    elif had != has:
        yield f"{name}: the run has {had!r}, the configuration {has!r}; put it back, or start a new run"


def check_not_replayed(folder: StateFolder, config: Config) -> None:
    """Refuses to send what another run has sent already in this one's place, where that does harm twice.

    Events have ids, by which Mixpanel shows one. Of updates `$add` would count double, and an old `$set` take
    the place of a newer one.

    Raises:
        RunMismatch: if there is such a run; the message names it.
    """
    once = KINDS[config.records.kind].in_order and config.limits.retry.non_idempotent != "retry"
    if once and folder.exists(REPLAYED):
        by = folder.read(REPLAYED).decode(errors="replace")
        raise RunMismatch(
            f"{folder.uri}: what this run had left has been replayed by run {by}, and would be done twice: "
            f"go on with {by} (--resume or replay); or, to mean it, remove {folder.uri_of(REPLAYED)}"
        )


def check_segments(folder: StateFolder, manifest: Manifest, ledger: RecordFile) -> None:
    """Refuses to go on with a ledger of more than the manifest tells.

    Raises:
        ManifestUnusable: with a segment that only the ledger knows.
    """
    if len(ledger) == sum(segment.id in ledger for segment in manifest.segments):
        return
    known = {segment.id for segment in manifest.segments}
    raise ManifestUnusable(
        f"{folder.uri}: the ledger knows segments that the manifest does not, like "
        f"{next(id_ for id_ in ledger if id_ not in known)}: a part of the manifest is missing"
    )


def check_files(manifest: Manifest, ledger: RecordFile, files: Listing) -> None:
    """Refuses to go on where a file that is not done yet is another one now.

    Raises:
        RunMismatch: with a line for each such file.
    """
    undone = (segment for segment in manifest.segments if not ledger.is_done(segment.id))
    left = (segment for segment in undone if segment.ordered is None)  # of the others the run has a copy
    problems, count = [], 0
    for part in _files_of(left):
        file = files.find(part.uri)
        if file is None or part.is_broken_link or (file.size, file.version) == (part.size, part.version):
            continue
        count += 1
        if count <= MOST_NAMED:
            problems.append(
                f"{part.uri}: has changed since the run was planned ({_difference(part, file)}); "
                "put it back as it was, or move it away, resume, and start a new run for it"
            )
    if problems:
        more = [f"and {count - MOST_NAMED:,} more files"] if count > MOST_NAMED else []
        raise RunMismatch("\n".join([*problems, *more]))


def count_new(manifest: Manifest, files: Listing) -> int:
    """Returns how many files are no part of a run."""
    return len(files) - sum(files.find(part.uri) is not None for part in _files_of(manifest.segments))


def _files_of(segments: Iterable[Segment]) -> Iterator[FilePart]:
    """Yields a part of each file; those of one file stand side by side in a plan, but in a sorted copy."""
    last, scattered = None, set[str]()
    for segment in segments:
        for part in segment.parts:
            if part.uri != last and part.uri not in scattered:
                yield part
            last = part.uri
            if segment.ordered is not None:
                scattered.add(part.uri)


def _difference(part: FilePart, file: SourceFile) -> str:
    if part.size != file.size:
        return f"it had {part.size:,} bytes, now {file.size:,}"
    if scheme_of(part.uri) == "file":
        return f"it was written at {_moment(part.version)}, now at {_moment(file.version)}"
    return f"its version was {part.version or 'unknown'}, now {file.version or 'unknown'}"


def _moment(version: str) -> str:
    """Returns when a file on disk was written, as a person reads it; its version is that in seconds."""
    return dt.datetime.fromtimestamp(float(version), dt.timezone.utc).isoformat(timespec="microseconds")


def listed_now(config: Config) -> Listing:
    """Returns the files that match now; none is no reason not to go on.

    Raises:
        SourceUnreadable: if the source cannot be listed.
    """
    return find_files(pattern_of(config), Storage(config.source.storage_options))[0]


def segments_of(config: Config, files: Collection[SourceFile]) -> Iterator[Segment]:
    """Returns the segments that files are read in.

    Raises:
        RunMismatch: if one is to be a lookup table, and it is not known which; a line for each.
    """
    if config.records.kind == "lookup_tables":
        _check_tables(config, (file.uri for file in files))
        return table_segments(files)
    return plan_segments(files, Storage(config.source.storage_options), config.format_choice())


def _check_tables(config: Config, uris: Iterable[str]) -> None:
    problems = table_problems(uris, config.records.tables)
    if problems:
        raise RunMismatch("\n".join(problems[:MOST_NAMED]))


def take_new_files(config: Config, folder: StateFolder, manifest: Manifest, files: Listing) -> Manifest:
    """Adds files to a run that were not there when it was planned, and returns its manifest then.

    What is no new file is dropped from the list.

    Raises:
        RunMismatch: if the run's records are ordered by their time, and there are such files; or if one of
            them is to be a lookup table, and it is not known which, or another file is that table already.
    """
    files.drop(part.uri for part in _files_of(manifest.segments))
    if not len(files):
        return manifest
    if config.records.order_by is not None:
        raise RunMismatch(
            f"--allow-new: {next(iter(files)).uri} came after the run was planned, whose updates "
            f"were put into the order of {config.records.order_by} then; start a new run for it"
        )
    if config.records.kind == "lookup_tables":
        uris = (part.uri for part in _files_of(manifest.segments))
        _check_tables(config, itertools.chain(uris, (file.uri for file in files)))
    first = 1 + max((int(segment.id) for segment in manifest.segments), default=-1)
    new = (Segment(f"{first + int(segment.id):07d}", segment.parts) for segment in segments_of(config, files))
    segments = SegmentFile(map(line_of, new))
    added = dataclasses.replace(manifest, files=len(files), bytes=files.bytes, segments=segments)
    return add_to_manifest(folder, manifest, added)


def _destination(config: Config) -> list[str]:
    """Returns what tells one project from another, without any secret.

    A token is told by its reference, unless the project's id is given: a digest of it could be tried out.
    """
    to = config.destination
    if to.emulator or to.credentials is None:
        return ["emulator"]
    where = to.to_destination().base_url
    if to.credentials.project_id:
        return [where, f"project {to.credentials.project_id}"]
    return [where, f"project_token {to.credentials.project_token}"]
