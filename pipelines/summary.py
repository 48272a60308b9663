"""The report as a page that a person understands at a glance."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any, Final

from pipelines.heartbeat import REMOVED
from pipelines.report import ExitCode

_HEADLINES: Final = {
    ExitCode.DONE: "Done.",
    ExitCode.BUG: "Failed: a bug, or a broken machine. Nothing is lost; --resume goes on where the run was.",
    ExitCode.USAGE: "Ended: another process goes on with this run. Its report counts, and nothing is lost.",
    ExitCode.REFUSED: "Stopped: the credentials or the endpoint are refused. Fix that, then --resume.",
    ExitCode.DAMAGED_INPUT: "Done, except for input that is damaged or could not be read.",
    ExitCode.UNDELIVERED: "Not all is delivered yet. --resume sends what is left.",
    ExitCode.DEAD_LETTERS: "Done, but there are more dead letters than run.allow_dead_letters.",
    ExitCode.REFUSED_FOR_GOOD: "Stopped: Mixpanel refuses this project's data for good.",
    ExitCode.STOPPED_BY_LIMIT: "Stopped: more records are refused than run.max_errors allows.",
    ExitCode.BOOKS_OPEN: "THE BOOKS DO NOT CLOSE. Treat this as an incident and keep the state folder.",
    ExitCode.INTERRUPTED: "Interrupted. --resume goes on where the run was.",
    ExitCode.TERMINATED: "Terminated. --resume goes on where the run was.",
}
_DRY_RUN: Final = {
    ExitCode.DONE: "Dry run: everything was read and validated, nothing was sent.",
    ExitCode.DEAD_LETTERS: (
        "Dry run: nothing was sent. There are more dead letters than run.allow_dead_letters."
    ),
    ExitCode.DAMAGED_INPUT: "Dry run: nothing was sent. Some input is damaged or could not be read.",
}
_OUTCOMES: Final = (
    ("imported", "imported"),
    ("dead_lettered", "dead letters"),
    ("filtered", "filtered"),
    ("undelivered", "undelivered"),
    ("ambiguous", "ambiguous"),
    ("not_attempted", "not attempted"),
)
_ALTERATIONS: Final = {
    "stamped_insert_ids": "$insert_id stamped",
    "replaced_insert_ids": "invalid $insert_id replaced",
    "stringified_ids": "numeric id made a string",
    "defaulted_ip": "ip set to 0",
    "kept_last_seen": "$ignore_time stamped",
    "truncated_strings": "string cut at 255 characters",
    "collapsed_updates": "update made part of another",
}
_MOST: Final = 10
_MOST_KINDS: Final = 30


def summary(report: Mapping[str, Any]) -> str:
    """Returns the report as text."""
    return "\n".join(_lines(report)) + "\n"


def shown(path: str) -> str:
    """Returns a path as it is shortest to type: relative where it lies below the current folder."""
    here = os.getcwd() + os.sep
    return path.removeprefix(here)


def counted(count: int, noun: str) -> str:
    """Returns a number with its noun.

    >>> counted(1, "segment"), counted(1200, "file")
    ('1 segment', '1,200 files')
    """
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def duration(seconds: float) -> str:
    """Returns how long something takes, as a person says it.

    >>> duration(5.9), duration(65), duration(32_400)
    ('5 s', '1 min 05 s', '9 h 00 min')
    """
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


def _lines(report: Mapping[str, Any]) -> Iterator[str]:
    code = ExitCode(report["exit_code"])
    headline = _HEADLINES.get(code, code.name)
    if code == ExitCode.DONE and not report["books"]["read"]:
        headline = "Done, but there is not a single record in the input."
    if code == ExitCode.UNDELIVERED and _only_ambiguous(report):
        headline = "Done, but some updates may or may not have got through: they are listed as ambiguous."
    if code == ExitCode.DAMAGED_INPUT and report["books"]["undelivered"]:
        headline = f"{_HEADLINES[ExitCode.UNDELIVERED]} And some input is damaged or could not be read."
    if report["failure"] == REMOVED:
        headline = "Failed: what it knew of itself is gone, and with it what its books would tell."
    if report["resumed"] and not report["rate"]["seconds"] and report["state"] == "done":
        headline = f"{headline} Nothing was left to do."
    if report["state"] == "dry_run":
        headline = _DRY_RUN.get(code, headline)
    yield f"Run {report['run_id']}: {headline}"
    for stop in report["stopped_by"]:
        status = f"HTTP {stop['status']}: " if stop["status"] else ""
        yield f"  because of {status}{stop['message']}"
    if report["failure"] and not report["stopped_by"]:
        yield f"  because of {report['failure']}"
    yield ""
    yield from _jobs(report)
    yield from _books(report)
    yield from _reasons(report)
    yield from _ambiguous(report)
    yield from _endpoints(report)
    yield from _table("Filtered", report["filtered"]["by_reason"], {})
    yield from _table("Changed before sending", report["alterations"], _ALTERATIONS)
    yield from _rows(report)
    yield from _files(report)
    yield from _requests(report)
    yield ""
    yield f"Report         {shown(report['folder'])}/report.json"
    goes_on = report["failure"] != REMOVED and report["state"] not in ("done", "superseded")
    if goes_on or code == ExitCode.UNDELIVERED or report["books"]["undelivered"]:
        how = " --set limits.retry.non_idempotent=retry" if _only_ambiguous(report) else ""
        yield f"To go on       --resume {report['run_id']}{how}"
    elif _may_heal(report):
        yield f"To go on       --resume {report['run_id']}, once what is missing or unreadable can be read"
    if "emulator_store" in report:
        python, store = shown(sys.executable), shown(report["emulator_store"])
        yield f"To look at it  {python} -m mixpanel_emulator --db {store}"


def _jobs(report: Mapping[str, Any]) -> Iterator[str]:
    """Yields how each job of a run of several has ended."""
    jobs = report.get("jobs", ())
    width = max((len(job["name"]) for job in jobs), default=0)
    for job in jobs:
        books = job["books"] or {}
        ended = job["state"].replace("_", " ") + (
            f", exit code {job['exit_code']}" if job["exit_code"] else ""
        )
        numbers = f"{books['imported']:>12,} of {books['read']:>12,} imported" if books else ""
        yield f"  {job['name']:<{width}}  {numbers:<37}  {ended}"
    if jobs:
        yield ""


def _books(report: Mapping[str, Any]) -> Iterator[str]:
    books = report["books"]
    yield f"Records read   {books['read']:>12,}"
    if books["expanded"]:
        yield f"  more by the map{books['expanded']:>9,}"
    for key, name in _OUTCOMES:
        if books[key] or key in ("imported", "dead_lettered"):
            name = "valid, not sent" if key == "not_attempted" and report["state"] == "dry_run" else name
            yield f"  {name:<15}{books[key]:>10,}"
    if books["balanced"]:
        yield "  The books close: every record read is accounted for, in every file."
    else:
        yield "  The books do not close:"
        yield from (f"    {problem}" for problem in books["unbalanced"][:_MOST])


def _reasons(report: Mapping[str, Any]) -> Iterator[str]:
    letters = report["dead_letters"]
    yield from _table("Dead letters", letters["by_reason"], {})
    files = letters["files"]
    yield from (f"  in {shown(name)}" for name in files[:3])
    if len(files) > 3:
        yield f"  and {len(files) - 3:,} more files, listed in the report"


def _only_ambiguous(report: Mapping[str, Any]) -> bool:
    """Returns whether nothing is left but what is not sent again unless asked for, and all is on record."""
    books = report["books"]
    left = books["undelivered"] or books["not_attempted"] or report["ambiguous"]["unrecorded"]
    return bool(books["ambiguous"]) and not left


def _may_heal(report: Mapping[str, Any]) -> bool:
    """Returns whether a resume reads files again that were away."""
    files = report["files"]
    return report["state"] == "done" and bool(files["damaged"]) and files["done"] < files["total"]


def _ambiguous(report: Mapping[str, Any]) -> Iterator[str]:
    files = report["ambiguous"]["files"]
    if files:
        yield ""
        yield "Ambiguous: $add and $append that may have got through, and are not sent again unasked"
        yield from (f"  in {shown(name)}" for name in files[:3])
    if len(files) > 3:
        yield f"  and {len(files) - 3:,} more files, listed in the report"


def _endpoints(report: Mapping[str, Any]) -> Iterator[str]:
    """Yields what became of each endpoint's records, where there are several."""
    endpoints = report["by_endpoint"]
    if len(endpoints) > 1:
        yield ""
        yield "By endpoint"
        for name, outcomes in endpoints.items():
            told = ", ".join(f"{count:,} {outcome.replace('_', ' ')}" for outcome, count in outcomes.items())
            yield f"  {name:<15}{told}"


def _table(title: str, counts: Mapping[str, int], names: Mapping[str, str]) -> Iterator[str]:
    if not counts:
        return
    yield ""
    yield title
    for key, count in list(counts.items())[:_MOST_KINDS]:
        yield f"  {names.get(key, key):<30}{count:>10,}"
    if len(counts) > _MOST_KINDS:
        yield f"  and {len(counts) - _MOST_KINDS} more kinds"


def _rows(report: Mapping[str, Any]) -> Iterator[str]:
    rows = report["identical_rows"]
    if rows["estimate"]:
        about = "" if rows["exact"] else "about "
        yield f"  {about}{rows['estimate']:,} identical rows share the id of another: Mixpanel shows one"


def _files(report: Mapping[str, Any]) -> Iterator[str]:
    files = report["files"]
    yield ""
    what = "read" if report["state"] == "dry_run" else "done"
    yield f"Files          {files[what]:>12,} of {files['total']:,} {what}"
    if files["new"]:
        yield f"  {files['new']:,} more came since and were not read; --resume with --allow-new takes them in"
    for damage in files["damaged"][:_MOST]:
        offset = f" at byte {damage['offset']:,}" if damage["offset"] is not None else ""
        lines = f", {counted(damage['lines'], 'line')} read" if damage["lines"] else ""
        yield f"  {damage['problem']}: {damage['uri']}{offset}{lines}: {damage['detail']}"
    if len(files["damaged"]) > _MOST:
        yield f"  and {len(files['damaged']) - _MOST} more, listed in the report"


def _requests(report: Mapping[str, Any]) -> Iterator[str]:
    requests = report["requests"]
    if not requests["total"]:
        return
    statuses = ", ".join(f"{count:,} × {status}" for status, count in requests["by_status"].items())
    yield f"Requests       {requests['total']:>12,} ({statuses}), {requests['retries']:,} of them retries"
    on_wire, json = _bytes(requests["bytes_sent"]), _bytes(requests["bytes_raw"])
    yield f"Sent           {on_wire:>12} on the wire, {json} of JSON"
    rate = report["rate"]
    if rate["seconds"]:
        speed, seconds = rate["events_per_second"], rate["seconds"]
        yield f"Speed          {speed:>12,.0f} events/s, over {seconds:,.1f} s of sending"


def _bytes(count: int) -> str:
    size, unit = float(count), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size < 1000 or unit == "TB":
            break
        size /= 1000
    return f"{size:.1f} {unit}" if unit != "B" else f"{count} B"
