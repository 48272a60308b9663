"""Closes the books of a run: makes its report from the ledger and writes it, now or long after its start.

A detached run goes on without its launcher, so nobody is there at its end. Whoever looks at it next closes
its books, from the state folder alone.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from mixpanel_http.crash_points import crash_point
from pipelines.books import Books, close_books, files_table
from pipelines.lease import NAME as LEASE
from pipelines.lease import holder, is_stale
from pipelines.ledger import ErrorLimit, SegmentRecord, read_ledger, read_stops
from pipelines.manifest import Manifest, read_manifest
from pipelines.ordering import is_ordered, remove_ordered
from pipelines.record_file import RecordFile
from pipelines.report import RunFacts, make_report
from pipelines.state import StateFolder

DETACHED: Final = "detached.json"
REPORT: Final = "report.json"
FILES: Final = "files.jsonl"
SUCCESS: Final = "_SUCCESS"


@dataclass(frozen=True, slots=True)
class Detached:
    """What a launcher that does not wait leaves for whoever closes the books.

    Attributes:
        launch: the id of the start.
        job: what the engine calls the job.
        started_at: seconds since the epoch.
        allow_dead_letters: as configured.
        dry_run: whether nothing is to be sent.
        sent_before: records that earlier starts of the run imported.
        resumed: whether the run was begun before.
        new_files: files that match and are no part of the run.
    """

    launch: str
    job: str
    started_at: float
    allow_dead_letters: int | str | None = 0
    dry_run: bool = False
    sent_before: int = 0
    resumed: bool = False
    new_files: int = 0


def note_detached(folder: StateFolder, detached: Detached) -> None:
    """Notes that a start of a run goes on without its launcher."""
    folder.write(DETACHED, orjson.dumps(detached))


def whole_report(folder: StateFolder, manifest: Manifest, books: Books, facts: RunFacts) -> dict[str, Any]:
    """Returns a report that names its files as a person would."""
    report = make_report(manifest, books, facts)
    report["dead_letters"]["files"] = [folder.uri_of(name) for name in books.dead_files]
    report["undelivered"]["files"] = [folder.uri_of(name) for name in books.undelivered_files]
    report["ambiguous"]["files"] = [folder.uri_of(name) for name in books.ambiguous_files]
    report["folder"] = folder.uri
    return report


def write_report(folder: StateFolder, report: Mapping[str, Any]) -> None:
    """Writes a report beside the ledger."""
    crash_point("before report file")
    folder.write(REPORT, orjson.dumps(report, option=orjson.OPT_INDENT_2) + b"\n")


def write_last_report(
    folder: StateFolder,
    manifest: Manifest,
    report: Mapping[str, Any],
    books: Books,
    ledger: Mapping[str, SegmentRecord],
) -> None:
    """Writes the books of each file, then the last report, and then the mark of a run that is done.

    Then a sorted copy of the input has served its time.
    """
    crash_point("before files")
    folder.write_pieces(FILES, files_table(manifest.segments, ledger))
    crash_point("before last report")
    write_report(folder, report)
    if report["state"] == "done" and books.balanced and books.total.settled:
        crash_point("before success")
        folder.write(SUCCESS, b"")
        crash_point("after success")
        if is_ordered(manifest) and books.segments_done == len(manifest.segments):
            remove_ordered(folder)


def close_detached(folder: StateFolder, now: float | None = None) -> dict[str, Any] | None:
    """Closes the books of a detached run that is over and returns its report, or None.

    It is over when all its segments are done, or when no worker has been heard of for a lease's time.

    Raises:
        ManifestUnusable: if there is no such run.
        StateUnusable: if the state folder cannot be used.
    """
    detached = _left_by_launcher(folder)
    if detached is None:
        return None
    at = time.time() if now is None else now
    held = holder(folder)
    if held is not None and held.get("owner") != detached.launch and not is_stale(held, at):
        return None
    manifest = read_manifest(folder)
    ledger = read_ledger(folder, manifest.key)
    books = close_books(manifest.segments, ledger)
    stops = read_stops(folder, manifest.key, detached.launch)
    is_done = books.segments_done == len(manifest.segments)
    if not is_done and held is not None and not is_stale(held, at):
        return None
    state = "stopped" if stops else "dry_run" if detached.dry_run else "done" if is_done else "failed"
    report = whole_report(folder, manifest, books, _facts(detached, state, ledger, stops, at))
    write_last_report(folder, manifest, report, books, ledger)
    folder.remove(LEASE)
    folder.remove(DETACHED)
    return report


def report_untold(
    folder: StateFolder,
    manifest: Manifest,
    books: Books,
    ledger: RecordFile,
    first: Mapping[str, Any],
) -> dict[str, Any]:
    """Returns the report of a start that was killed, and so could not write its last one.

    Args:
        folder: the run's folder.
        manifest: the run's plan.
        books: the ledger, added up.
        ledger: what it knows of each segment.
        first: the report that the start wrote when it began; what was imported by then is in its books.
    """
    began_at = _seconds_of(first.get("started_at")) or _seconds_of(manifest.created_at) or ledger.ended_at
    owner = str((holder(folder) or {}).get("owner"))
    facts = RunFacts(
        "killed",
        began_at,
        ledger.ended_at,
        read_stops(folder, manifest.key, owner),
        sent_before=int((first.get("books") or {}).get("imported", 0)),
        sending_s=ledger.sending_seconds(began_at),
        resumed=bool(first.get("resumed")),
        new_files=int((first.get("files") or {}).get("new", 0)),
    )
    return whole_report(folder, manifest, books, facts)


def _seconds_of(moment: object) -> float | None:
    """Returns an ISO 8601 moment in seconds since the epoch, or None where there is none."""
    try:
        return dt.datetime.fromisoformat(str(moment)).timestamp()
    except ValueError:
        return None


def _facts(detached: Detached, state: str, ledger: RecordFile, stops: Any, at: float) -> RunFacts:
    return RunFacts(
        state,
        detached.started_at,
        ledger.ended_at or at,
        stops,
        allow_dead_letters=ErrorLimit.parse(detached.allow_dead_letters),
        dry_run=detached.dry_run,
        sent_before=detached.sent_before,
        sending_s=ledger.sending_seconds(detached.started_at),
        resumed=detached.resumed,
        new_files=detached.new_files,
    )


def _left_by_launcher(folder: StateFolder) -> Detached | None:
    try:
        return Detached(**orjson.loads(folder.read(DETACHED)))
    except (FileNotFoundError, orjson.JSONDecodeError, TypeError):
        return None
