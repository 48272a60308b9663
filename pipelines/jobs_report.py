"""The report of a run of several jobs: the sum of their reports, and a section for each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from mixpanel_http.endpoints import EVENTS
from pipelines.report import SEVERITY, ExitCode, of_endpoint
from pipelines.stages import Stage

# A job that ends with one of these has done all that it can: the next may begin.
GOES_ON: Final = frozenset({ExitCode.DONE, ExitCode.DAMAGED_INPUT, ExitCode.DEAD_LETTERS})
NOT_STARTED: Final = "not_started"
_SIGNALS: Final = (ExitCode.INTERRUPTED, ExitCode.TERMINATED)
_LEAST: Final = (*SEVERITY, ExitCode.DONE)
_OF_A_JOB: Final = ("state", "exit_code", "started_at", "ended_at", "books", "rate", "failure", "folder")

Report = Mapping[str, Any]


def jobs_report(
    stages: Sequence[Stage], reports: Mapping[str, Report], empty: Report, run: Report
) -> dict[str, Any]:
    """Returns the report of a run: like that of one job, with all numbers added up, and with `jobs`.

    Args:
        stages: in their order.
        reports: of those that have begun, by their stage's name.
        empty: the report of a job that has read nothing yet, which tells what numbers there are.
        run: what is of the run and not told by its jobs: run_id, started_at, folder and the like.
    """
    several = len({stage.kind for stage in stages}) > 1
    begun = [
        _with_endpoint(reports[stage.name], stage.kind) if several else reports[stage.name]
        for stage in stages
        if stage.name in reports
    ]
    total = dict(empty)
    for report in begun:
        total = added(total, report)
    reasons = Counter(total["dead_letters"]["by_reason"])
    total["dead_letters"] = {**total["dead_letters"], "by_reason": dict(reasons.most_common())}
    told = {
        "state": _state(stages, begun),
        "exit_code": int(_exit_code(begun)),
        "rate": _rate(begun),
        "failure": next((report["failure"] for report in begun if report["failure"]), None),
    }
    return {**total, **told, **run, "jobs": [_section(stage, reports) for stage in stages]}


def _with_endpoint(report: Report, kind: str) -> Report:
    """Returns a report that counts its records by endpoint, as those of kinds that keep an order do."""
    named = kind in (EVENTS.name, "lookup_tables")
    return {**report, "by_endpoint": of_endpoint(kind, report["books"])} if named else report


def may_go_on(report: Report) -> bool:
    """Returns whether the next job may begin after this one has ended so.

    Ambiguous records are for a person to judge: another start of the run would not send them again, either.
    """
    books = report["books"]
    all_tried = not (books["undelivered"] or books["not_attempted"])
    ambiguous = report["exit_code"] == ExitCode.UNDELIVERED and books["ambiguous"] > 0 and all_tried
    return report["state"] in ("done", "dry_run") and (report["exit_code"] in GOES_ON or ambiguous)


def added(first: Any, second: Any) -> Any:
    """Returns two values of a report as one: numbers are added, lists joined, and true is what both say."""
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        return {key: _either(first, second, key) for key in (*first, *(k for k in second if k not in first))}
    if isinstance(first, bool) and isinstance(second, bool):
        return first and second
    if isinstance(first, list) and isinstance(second, list):
        return [*first, *second]
    if _is_number(first) and _is_number(second):
        return round(first + second, 3)
    return first if second is None else second


def _exit_code(reports: Sequence[Report]) -> ExitCode:
    """Returns the most severe of the jobs' exit codes; a signal's gives way to the three worst alone."""
    codes = {ExitCode(report["exit_code"]) for report in reports}
    worst = next(code for code in _LEAST if code in codes or code is ExitCode.DONE)
    signal = next((code for code in _SIGNALS if code in codes), None)
    return signal if signal is not None and worst not in SEVERITY[:3] else worst


def _state(stages: Sequence[Stage], reports: Sequence[Report]) -> str:
    last = str(reports[-1]["state"]) if reports else NOT_STARTED
    ended_early = len(reports) < len(stages) and last in ("done", "dry_run")
    return "stopped" if ended_early else last


def _rate(reports: Sequence[Report]) -> dict[str, float]:
    """Returns the mean over the seconds in which something was sent."""
    seconds = sum(report["rate"]["seconds"] for report in reports)
    sent = sum(report["rate"]["events_per_second"] * report["rate"]["seconds"] for report in reports)
    return {"events_per_second": round(sent / seconds, 1) if seconds else 0.0, "seconds": round(seconds, 3)}


def _section(stage: Stage, reports: Mapping[str, Report]) -> dict[str, Any]:
    report = reports.get(stage.name, {"state": NOT_STARTED})
    told = {name: report.get(name) for name in _OF_A_JOB}
    reasons = report.get("dead_letters", {}).get("by_reason", {})
    return {"name": stage.name, "kind": stage.kind, **told, "by_reason": reasons}


def _either(first: Report, second: Report, key: str) -> Any:
    if key not in first or key not in second:
        return first.get(key, second.get(key))
    return added(first[key], second[key])


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
