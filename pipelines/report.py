"""The report of a run, computed from its books alone: exit code and JSON."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Final

from mixpanel_http.kinds import KINDS, KindName
from mixpanel_http.receipts import Stop
from pipelines.books import Books
from pipelines.ledger import ErrorLimit
from pipelines.manifest import Manifest
from transforms.part_counts import OUTCOMES
from transforms.tally import Tally


class ExitCode(IntEnum):
    """How a run ended; scripts rely on the numbers (docs/exit-codes.md)."""

    DONE = 0
    BUG = 1
    USAGE = 2
    REFUSED = 3
    DAMAGED_INPUT = 4
    UNDELIVERED = 5
    DEAD_LETTERS = 6
    REFUSED_FOR_GOOD = 7
    STOPPED_BY_LIMIT = 8
    NO_INPUT = 9
    BOOKS_OPEN = 10
    INTERRUPTED = 130
    TERMINATED = 143


# The most severe wins.
SEVERITY: Final = (
    ExitCode.BOOKS_OPEN,
    ExitCode.BUG,
    ExitCode.REFUSED,
    ExitCode.REFUSED_FOR_GOOD,
    ExitCode.USAGE,
    ExitCode.STOPPED_BY_LIMIT,
    ExitCode.DAMAGED_INPUT,
    ExitCode.UNDELIVERED,
    ExitCode.DEAD_LETTERS,
)

NOT_TOLD: Final = ("running", "killed")  # states without an end that anybody could tell


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What the launcher knows and the ledger does not.

    Attributes:
        state: `running`, `done`, `stopped`, `failed`, `interrupted`, `killed`, `superseded`, or `dry_run`.
        started_at: seconds since the epoch.
        ended_at: likewise.
        stops: why the run was stopped.
        failure: the launcher's own failure, or None.
        allow_dead_letters: as configured.
        interrupted_by: the exit code of a signal, or None.
        dry_run: whether nothing was to be sent.
        sent_before: records that earlier starts of the run imported.
        sending_s: seconds from the first segment's first byte to the last block's outcome; 0 if none.
        resumed: whether the run was begun before.
        new_files: files that match by now and are no part of the run.
    """

    state: str
    started_at: float
    ended_at: float
    stops: Sequence[Stop] = ()
    failure: str | None = None
    allow_dead_letters: ErrorLimit = field(default_factory=lambda: ErrorLimit(count=0))
    interrupted_by: ExitCode | None = None
    dry_run: bool = False
    sent_before: int = 0
    sending_s: float = 0.0
    resumed: bool = False
    new_files: int = 0


def exit_code(books: Books, manifest: Manifest, facts: RunFacts) -> ExitCode:
    """Returns the exit code: of everything that applies, the most severe."""
    applies: set[ExitCode] = set()
    if facts.state == "superseded":
        return ExitCode.USAGE
    if not books.balanced:
        applies.add(ExitCode.BOOKS_OPEN)
    for stop in facts.stops:
        for_good = ExitCode.REFUSED_FOR_GOOD if stop.for_good else ExitCode.REFUSED
        applies.add(ExitCode.STOPPED_BY_LIMIT if stop.limit else for_good)
    if facts.failure is not None and not facts.stops:
        applies.add(ExitCode.BUG)
    if books.damaged:
        applies.add(ExitCode.DAMAGED_INPUT)
    total = books.total
    unfinished = books.segments_done < len(manifest.segments) and not facts.dry_run
    if total.undelivered or total.ambiguous or (unfinished and not applies):
        applies.add(ExitCode.UNDELIVERED)
    if facts.allow_dead_letters.exceeded_by(total.dead_lettered, total.read):
        applies.add(ExitCode.DEAD_LETTERS)
    worst = next((code for code in SEVERITY if code in applies), ExitCode.DONE)
    if facts.interrupted_by is not None and worst not in SEVERITY[:3]:
        return facts.interrupted_by
    return worst


def make_report(manifest: Manifest, books: Books, facts: RunFacts) -> dict[str, Any]:
    """Returns the report as it is written to report.json."""
    code = int(exit_code(books, manifest, facts)) if facts.state not in NOT_TOLD else None
    tally = books.tally
    return {
        "v": 1,
        "run_id": manifest.run_id,
        "state": facts.state,
        "exit_code": code,
        "started_at": iso(facts.started_at),
        "ended_at": iso(facts.ended_at) if code is not None else None,
        "resumed": facts.resumed,
        "books": _books(books),
        "dead_letters": {"by_reason": dict(tally.by_reason.most_common()), "files": books.dead_files},
        "filtered": {"by_reason": dict(tally.by_filter.most_common())},
        "undelivered": {"files": books.undelivered_files, "unrecorded": books.unrecorded},
        "ambiguous": {"files": books.ambiguous_files, "unrecorded": books.unrecorded_ambiguous},
        "by_endpoint": _by_endpoint(manifest.settings.get("records.kind"), books),
        "files": _files(manifest, books, facts),
        "segments": {"total": len(manifest.segments), "done": books.segments_done},
        "requests": _requests(tally),
        "re_sent": {"events": tally.re_sent_events, "bytes": tally.re_sent_bytes},
        "alterations": dict(tally.alterations.most_common()),
        "identical_rows": {
            "estimate": books.sample.identical_rows(),
            "exact": books.sample.exact and books.sample_whole,
        },
        "rate": _rate(books, facts),
        "stopped_by": [{"status": stop.status, "message": stop.message} for stop in facts.stops],
        "failure": facts.failure,
    }


def _books(books: Books) -> dict[str, Any]:
    return {
        "read": books.total.read,
        "expanded": books.total.expanded,
        **{name: getattr(books.total, name) for name in OUTCOMES},
        "balanced": books.balanced,
        "unbalanced": books.unbalanced,
    }


def _files(manifest: Manifest, books: Books, facts: RunFacts) -> dict[str, Any]:
    damaged = [
        {"uri": n.uri, "problem": n.problem, "offset": n.offset, "detail": n.detail, "lines": n.lines}
        for n in books.damaged
    ]
    return {
        "total": manifest.files,
        "done": books.files_done,
        "read": books.files_read,
        "damaged": damaged,
        "new": facts.new_files,
    }


def _requests(tally: Tally) -> dict[str, Any]:
    return {
        "total": sum(tally.requests.values()),
        "by_status": dict(tally.requests.most_common()),
        "retries": tally.retries,
        "splits": tally.splits,
        "bytes_raw": tally.bytes_raw,
        "bytes_sent": tally.bytes_sent,
        "isolations": tally.isolations,
        "waited_seconds": round(tally.waited_s, 1),
        "throttled_seconds": round(tally.throttled_s, 1),
        "retry_wait_seconds": round(tally.retry_wait_s, 1),
        "outage_wait_seconds": round(tally.outage_wait_s, 1),
    }


def _rate(books: Books, facts: RunFacts) -> dict[str, float]:
    """Returns the mean of this start: what earlier ones imported took other seconds."""
    imported = max(0, books.total.imported - facts.sent_before)
    seconds = max(facts.sending_s, 1e-3)
    return {"events_per_second": round(imported / seconds, 1), "seconds": round(facts.sending_s, 3)}


def of_endpoint(endpoint: str, books: Mapping[str, int]) -> dict[str, dict[str, int]]:
    """Returns the outcomes of a run all of whose records go to one endpoint, by its name."""
    counts = {name: count for name in OUTCOMES if (count := books.get(name))}
    return {endpoint: counts} if counts else {}


def _by_endpoint(kind: KindName | None, books: Books) -> dict[str, dict[str, int]]:
    """Returns the outcomes of each endpoint's records, for kinds that keep an order."""
    of_kind = KINDS.get(kind or "events", KINDS["events"])
    if of_kind.in_order and of_kind.endpoint is not None:
        return of_endpoint(of_kind.endpoint.name, books.total.to_json())
    found: dict[str, dict[str, int]] = {}
    for name, count in sorted(books.tally.by_endpoint.items()):
        endpoint, _, outcome = name.partition(".")
        found.setdefault(endpoint, {})[outcome] = count
    return found


def iso(seconds: float) -> str:
    """Returns a moment, in seconds since the epoch, as reports tell it: ISO 8601, in UTC."""
    return dt.datetime.fromtimestamp(seconds, dt.timezone.utc).isoformat(timespec="milliseconds")
