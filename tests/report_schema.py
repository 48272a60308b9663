"""What a report of a run looks like (docs/exit-codes.md); every whole run of the tests is held against it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from pipelines.report import SEVERITY, ExitCode

Count = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0)]
Counted = dict[str, Count]
Moment = Annotated[AwareDatetime, BeforeValidator(lambda told: dt.datetime.fromisoformat(told))]
# With which codes a run ends in a state, besides 10, which tells of its books and not of its course.
CODES: Final[dict[str, set[int]]] = {
    "done": {0, 4, 5, 6},
    "dry_run": {0, 4, 5, 6},
    "stopped": {3, 7, 8},
    "failed": {1},
    "interrupted": {130, 143, *SEVERITY[:3]},
    "superseded": {2},
}


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Books(_Section):
    read: Count
    expanded: Count
    imported: Count
    dead_lettered: Count
    filtered: Count
    undelivered: Count
    ambiguous: Count
    not_attempted: Count
    balanced: bool
    unbalanced: list[str]

    @model_validator(mode="after")
    def every_record_has_one_outcome(self) -> _Books:
        sent = self.imported + self.undelivered + self.ambiguous + self.not_attempted
        adds_up = self.read + self.expanded == sent + self.dead_lettered + self.filtered
        assert self.balanced == (not self.unbalanced)
        assert adds_up or not self.balanced
        return self


class _Reasons(_Section):
    by_reason: Counted


class _DeadLetters(_Reasons):
    files: list[str]


class _Undelivered(_Section):
    files: list[str]
    unrecorded: Count


class _Ambiguous(_Section):
    files: list[str]
    unrecorded: Count


class _Damaged(_Section):
    uri: str
    problem: str
    offset: Count | None
    detail: str
    lines: Count


class _Files(_Section):
    total: Count
    done: Count
    read: Count
    damaged: list[_Damaged]
    new: Count


class _Segments(_Section):
    total: Count
    done: Count


class _Requests(_Section):
    total: Count
    by_status: Counted
    retries: Count
    splits: Count
    bytes_raw: Count
    bytes_sent: Count
    isolations: Count
    waited_seconds: Seconds
    throttled_seconds: Seconds
    retry_wait_seconds: Seconds
    outage_wait_seconds: Seconds

    @model_validator(mode="after")
    def each_has_a_status(self) -> _Requests:
        assert sum(self.by_status.values()) == self.total
        return self


class _ReSent(_Section):
    events: Count
    bytes: Count


class _IdenticalRows(_Section):
    estimate: Count
    exact: bool


class _Rate(_Section):
    events_per_second: Seconds
    seconds: Seconds


class _Stop(_Section):
    status: Count
    message: str


class _Job(_Section):
    name: str
    kind: str
    state: str
    exit_code: int | None
    started_at: str | None
    ended_at: str | None
    books: _Books | None
    rate: _Rate | None
    failure: str | None
    folder: str | None
    by_reason: Counted


class Report(_Section):
    """A report as it is printed and written."""

    v: Literal[1]
    run_id: str
    state: Literal["running", "killed", "done", "dry_run", "stopped", "failed", "interrupted", "superseded"]
    exit_code: int | None
    started_at: Moment
    ended_at: Moment | None
    resumed: bool
    books: _Books
    dead_letters: _DeadLetters
    filtered: _Reasons
    undelivered: _Undelivered
    ambiguous: _Ambiguous
    by_endpoint: dict[str, Counted]
    files: _Files
    segments: _Segments
    requests: _Requests
    re_sent: _ReSent
    alterations: Counted
    identical_rows: _IdenticalRows
    rate: _Rate
    stopped_by: list[_Stop]
    failure: str | None
    folder: str
    emulator_store: str | None = None
    jobs: list[_Job] | None = None

    @model_validator(mode="after")
    def tells_how_it_ended(self) -> Report:
        if self.state in ("running", "killed"):
            assert self.exit_code is None
            return self
        # A job that leaves something undone stops the run: the next one does not begin.
        left = {ExitCode.UNDELIVERED} if self.jobs and self.state == "stopped" else set()
        assert self.exit_code in CODES[self.state] | {ExitCode.BOOKS_OPEN, *left}, (
            self.state,
            self.exit_code,
        )
        assert self.ended_at is not None
        assert self.started_at <= self.ended_at
        assert bool(self.stopped_by) >= (self.state == "stopped" and not self.jobs)
        assert (self.failure is not None) >= (self.state in ("failed", "superseded"))
        assert (self.exit_code == ExitCode.BOOKS_OPEN) == (not self.books.balanced)
        return self


def checked(report: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a report that is as reports are.

    Raises:
        ValidationError: if it is not.
    """
    Report.model_validate(report)
    return dict(report)
