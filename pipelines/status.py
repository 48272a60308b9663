"""Says from the state folder alone, on any machine that reaches it, how runs stand."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from pipelines.books import close_books
from pipelines.bytes_done import Measure, UnderWay, is_plain
from pipelines.closing import REPORT, close_detached, report_untold
from pipelines.crew import read_crew, together
from pipelines.heartbeat import NOW
from pipelines.jobs_report import NOT_STARTED, added
from pipelines.lease import holder, is_stale
from pipelines.ledger import read_ledger
from pipelines.manifest import NAME as MANIFEST
from pipelines.manifest import read_manifest
from pipelines.record_file import RecordFile
from pipelines.stages import has_stages, read_stages
from pipelines.state import StateFolder
from pipelines.summary import duration
from transforms.elements import Segment
from transforms.tally import Tally

FOLLOW_SECONDS: Final = 10.0
_ENDED: Final = ("done", "dry_run", "stopped", "failed", "interrupted")


@dataclass(frozen=True, slots=True)
class RunLine:
    """A run under a state folder, and how it ended; no counts where only its ledger has them."""

    run_id: str
    state: str
    exit_code: int | None
    started_at: str
    read: int | None
    imported: int | None
    dead_lettered: int | None


def status_of(folder: StateFolder, now: Callable[[], float] = time.time) -> dict[str, Any]:
    """Returns how a run stands, as JSON values; with its report, if it was killed before it wrote one.

    Raises:
        ManifestUnusable: if there is no such run.
        StateUnusable: if the state folder cannot be read.
    """
    if has_stages(folder):
        return _status_of_jobs(folder, now)
    manifest = read_manifest(folder)
    ledger = read_ledger(folder, manifest.key)
    books = close_books(manifest.segments, ledger)
    report = _json(folder, REPORT)
    state = _state(folder, report, now())
    beat = _beat(folder, now())
    running = state == "running"
    done = _bytes_done(manifest.segments, ledger)
    rate = float(beat.get("events_per_second", 0.0)) if running else 0.0
    requests = sum(books.tally.requests.values())
    read = books.total.read
    untold = report_untold(folder, manifest, books, ledger, report) if state == "killed" else None
    return {
        "run_id": manifest.run_id,
        "state": state,
        "doing": beat.get("doing", "starting") if running else None,
        "exit_code": report.get("exit_code") if not running else None,
        "started_at": report.get("started_at"),
        "files": {"total": manifest.files, "done": books.files_done},
        "segments": {"total": len(manifest.segments), "done": books.segments_done},
        "bytes": {"total": manifest.bytes, "done": done},
        "books": {"read": read, **books.total.to_json(), "balanced": books.balanced},
        "dead_letters": {"by_reason": dict(books.tally.by_reason.most_common())},
        "requests": {"total": requests, "refused_for_speed": books.tally.requests["429"]},
        "rate": {"events_per_second": rate, "of_limit": _share(rate, beat)},
        "seconds_left": _seconds_left(books.total.imported, {"total": manifest.bytes, "done": done}, rate),
        **({"report": untold} if untold else {}),
    }


def status_text(status: Mapping[str, Any]) -> str:
    """Returns how a run stands as a few lines for a person."""
    books, files, size, rate = status["books"], status["files"], status["bytes"], status["rate"]
    share = size["done"] / size["total"] if size["total"] else 1.0
    lines = [f"Run {status['run_id']}: {_what(status)}"]
    lines.append(
        f"  {share:.0%} of the bytes, {files['done']:,} of {files['total']:,} files; "
        f"{books.get('imported', 0):,} imported, {books.get('dead_lettered', 0):,} dead letters"
        + "".join(f", {books[name]:,} {name}" for name in ("undelivered", "ambiguous") if books.get(name))
    )
    lines += [f"    job {job['run_id']:<24}{_what(job)}" for job in status.get("jobs", ())]
    lines += [f"    {reason:<28}{n:>10,}" for reason, n in status["dead_letters"]["by_reason"].items()]
    if status["state"] == "running":
        limit = f", {rate['of_limit']:.0%} of the limit" if rate["of_limit"] is not None else ""
        eta = f", about {duration(status['seconds_left'])} left" if status["seconds_left"] is not None else ""
        refused = status["requests"]["refused_for_speed"]
        lines.append(f"  {rate['events_per_second']:,.0f} events/s{limit}, {refused:,} × 429{eta}")
    if not books["balanced"]:
        lines.append("  The books do not close.")
    return "\n".join(lines) + "\n"


def follow(folder: StateFolder, wait: Callable[[float], object] = time.sleep) -> Iterator[dict[str, Any]]:
    """Yields how a run stands, again and again, until it runs no more.

    Raises:
        ManifestUnusable: if there is no such run.
        StateUnusable: if the state folder cannot be read.
    """
    while True:
        close_detached(folder)
        status = status_of(folder)
        yield status
        if status["state"] != "running":
            return
        wait(FOLLOW_SECONDS)


def list_runs(state: StateFolder, now: Callable[[], float] = time.time) -> Iterator[RunLine]:
    """Yields the runs under a state folder, oldest first.

    Raises:
        StateUnusable: if the state folder cannot be read.
    """
    for name in sorted(state.folders()):
        folder = state.below(name)
        if not folder.exists(MANIFEST) and not has_stages(folder):
            continue
        report = _json(folder, REPORT)
        state_of_run = _state(folder, report, now())
        # What a run reports at its start is not what it has done since.
        books = (report.get("books") or {}) if state_of_run in _ENDED else {}
        yield RunLine(
            name,
            state_of_run,
            report.get("exit_code"),
            str(report.get("started_at") or "unknown"),
            *(books.get(count) for count in ("read", "imported", "dead_lettered")),
        )


def _status_of_jobs(folder: StateFolder, now: Callable[[], float]) -> dict[str, Any]:
    """Returns how a run of several jobs stands: all of it, and each of its jobs."""
    stages = read_stages(folder)
    report = _json(folder, REPORT)
    state = _state(folder, report, now())
    jobs = [_status_of_job(folder.below(stage.name), now) for stage in stages.stages]
    total: dict[str, Any] = {}
    for job in jobs:
        total = added(total, {key: value for key, value in job.items() if key != "report"})
    reasons = Counter(total["dead_letters"]["by_reason"])
    at = next((job for job in jobs if job["state"] == "running"), None)
    rate: dict[str, Any] = at["rate"] if at else {"events_per_second": 0.0, "of_limit": None}
    left_s = _seconds_left(total["books"].get("imported", 0), total["bytes"], rate["events_per_second"])
    return {
        **total,
        "run_id": stages.run_id,
        "state": state,
        "doing": f"job {at['run_id']}, {at['doing']}" if at else "between two jobs",
        "exit_code": report.get("exit_code") if state != "running" else None,
        "started_at": report.get("started_at"),
        "dead_letters": {"by_reason": dict(reasons.most_common())},
        "rate": rate,
        "seconds_left": left_s,
        "jobs": jobs,
    }


def _status_of_job(folder: StateFolder, now: Callable[[], float]) -> dict[str, Any]:
    """Returns how a job of several stands; one that has not begun holds its lease, and has no report yet."""
    status = status_of(folder, now)
    return status if folder.exists(REPORT) else {**status, "state": NOT_STARTED, "doing": None}


def _what(status: Mapping[str, Any]) -> str:
    if status["state"] == "running":
        return str(status["doing"])
    code = status["exit_code"]
    ended = status["state"].replace("_", " ")
    return ended if code is None else f"{ended}, exit code {code}"


def _state(folder: StateFolder, report: Mapping[str, Any], now: float) -> str:
    """Returns a run's state: `running` only while somebody works on it, `killed` if nobody told its end."""
    held = holder(folder)
    if held is not None and not is_stale(held, now):
        return "running"
    state = report.get("state")
    return str(state) if state in _ENDED else "killed"


def _seconds_left(imported: int, size: Mapping[str, int], rate: float) -> float | None:
    """Returns how long the rest takes, if as much of it is imported, by the byte, as of what is done."""
    left = imported * (size["total"] / size["done"] - 1) if size["done"] else None
    return round(left / rate, 1) if left is not None and rate > 0 else None


def _beat(folder: StateFolder, now: float) -> dict[str, Any]:
    """Returns what the run last said of itself, or what its workers elsewhere say now."""
    beat = _json(folder, NOW)
    held = holder(folder)
    if held is None or held.get("machine") is not None:
        return beat
    return beat | (together(read_crew(folder, str(held.get("owner"))), now) or {"doing": "starting"})


def _bytes_done(segments: Iterable[Segment], ledger: RecordFile) -> int:
    """Returns how many of the input's stored bytes are done, nearly; also of segments that are under way."""
    measure, whole = Measure(is_plain(segments)), 0
    left: list[tuple[int, Tally]] = []
    for segment in segments:
        record = ledger.get(segment.id)
        if record is None:
            continue
        if record.done:
            whole += segment.bytes
            measure.learn(segment.bytes, record.tally.total)
        else:
            left.append((segment.bytes, record.tally))
    return whole + sum(measure.done(size, UnderWay.of(tally)) for size, tally in left)


def _share(rate: float, beat: Mapping[str, Any]) -> float | None:
    limit = beat.get("limit")
    return round(rate / limit, 3) if isinstance(limit, int | float) and limit else None


def _json(folder: StateFolder, name: str) -> dict[str, Any]:
    """Returns a file's values; none if it is missing or not whole."""
    try:
        values = orjson.loads(folder.read(name))
    except (FileNotFoundError, orjson.JSONDecodeError):
        return {}
    return values if isinstance(values, dict) else {}
