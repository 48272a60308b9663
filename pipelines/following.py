"""Follows a pipeline that runs in other processes: waits for its end, and notices what its runner does not.

A runner may wait for ever for a worker that was killed, or that never started. What the workers say of
themselves shows that.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from mixpanel_http.receipts import Stop
from pipelines.crew import read_crew
from pipelines.ledger import Ledger
from pipelines.state import StateUnusable
from transforms import drain
from transforms.tally import Counts

LOOK_SECONDS: Final = 2.0
LOST_SECONDS: Final = 18.0  # six beats of a worker
ASLEEP_SECONDS: Final = 9.0  # between two looks: this process was suspended, or the machine was
IDLE_SECONDS: Final = 45.0  # nobody works, and the job does not end either
START_SECONDS: Final = 900.0  # for the first worker: machines have to be started, packages installed
STUCK_SECONDS: Final = 1800.0  # longer than a request is tried for
_ENDED: Final = ("DONE", "FAILED", "CANCELLED", "UPDATED", "DRAINED")  # as Beam names them
_TOLD_CHARACTERS: Final = 600
_log: Final = logging.getLogger(__name__)


class EngineRefused(RuntimeError):
    """An engine elsewhere does not take a job; the message says why, in its words."""


class WorkersFailed(RuntimeError):
    """The workers no longer get on, and the runner does not notice; the message says how that shows."""


@dataclass(slots=True)
class CrewWatch:
    """Judges by what workers say whether a job still gets on.

    Attributes:
        replaces: whether the runner replaces workers that are lost.
        clock: seconds, monotonic; workers' own clocks are not compared with it.
    """

    replaces: bool
    clock: Callable[[], float] = time.monotonic
    _began: float | None = None
    _looked_at: float = math.inf
    _last: dict[str, tuple[object, float]] = field(default_factory=dict)
    _busy_at: float = 0.0

    def problem(self, crew: Mapping[str, Mapping[str, Any]]) -> str | None:
        """Returns why nothing more is to be waited for, or None."""
        now = self.clock()
        if now - self._looked_at > ASLEEP_SECONDS:  # perhaps with the workers: they are to be heard first
            self._last = {name: (beats, now) for name, (beats, _) in self._last.items()}
            self._busy_at = min(self._busy_at, 0.0)
        self._looked_at = now
        self._began = self._began if self._began is not None else now
        for name, beat in crew.items():
            if name not in self._last or self._last[name][0] != beat.get("beats"):
                self._last[name] = (beat.get("beats"), now)
        if not crew:
            late = now - self._began > START_SECONDS
            return f"no worker has begun to work in {START_SECONDS:,.0f} seconds" if late else None
        return self._lost(crew, now) or self._stuck(crew, now)

    def _lost(self, crew: Mapping[str, Mapping[str, Any]], now: float) -> str | None:
        if self.replaces:
            return None
        silent = [name for name in crew if now - self._last[name][1] > LOST_SECONDS]
        if any(crew[name].get("busy") for name in silent):
            return "a worker is gone in the midst of its work, and the runner replaces none; resume the run"
        if self._busy_at == 0.0 or any(beat.get("busy") for beat in crew.values()):
            self._busy_at = now
        if now - self._busy_at > IDLE_SECONDS:
            return "no worker has anything to do, and the job does not end; resume the run"
        return None

    def _stuck(self, crew: Mapping[str, Mapping[str, Any]], now: float) -> str | None:
        alive = [beat for name, beat in crew.items() if now - self._last[name][1] <= LOST_SECONDS]
        if alive and all(float(beat.get("quiet_s", 0.0)) > STUCK_SECONDS for beat in alive):
            return f"no progress for {STUCK_SECONDS:,.0f} seconds, while nothing waits"
        newest = max(at for _, at in self._last.values())
        if now - newest > STUCK_SECONDS:
            return f"no worker has been heard of for {STUCK_SECONDS:,.0f} seconds"
        return None


class JobResult(Protocol):
    """What a runner returns; Beam's `PipelineResult`."""

    @property
    def state(self) -> str:
        """The job's state now."""
        ...

    def wait_until_finish(self) -> object:
        """Waits for the job's end, and raises if it failed."""
        ...


def start_job(start: Callable[[], JobResult]) -> JobResult:
    """Starts a job on an engine elsewhere.

    Raises:
        EngineRefused: if that fails; nothing has been read yet, so that the engine's own words can be told.
    """
    try:
        return start()
    except Exception as error:  # noqa: BLE001 - each engine has errors of its own
        said = " ".join(str(error).split())[:_TOLD_CHARACTERS]
        raise EngineRefused(f"the engine did not take the job: {type(error).__name__}: {said}") from None


def job_of(result: object) -> str:
    """Returns what an engine calls a job, or nothing where it does not say."""
    if not getattr(result, "has_job", True):
        return ""  # a template was written; its job begins later
    name = getattr(result, "job_id", None) or getattr(result, "_job_id", "")
    return str(name() if callable(name) else name)


def follow(start: Callable[[], JobResult], ledger: Ledger, watch: CrewWatch) -> None:
    """Starts a job, and returns when its end has come.

    Raises:
        WorkersFailed: if the job gets on no more.
        Exception: what the runner raises.
    """
    job = _Job(start)
    job.start()
    asked = False
    while True:
        job.join(LOOK_SECONDS)
        if not job.is_alive():
            break
        if drain.is_requested() and not asked:
            ledger.ask_to_end()
            asked = True
        crew = _crew(ledger)
        if not asked:
            asked = _stopped_by_limit(ledger, crew)
        problem = watch.problem(crew) if crew is not None else None
        if problem is not None:
            ledger.ask_to_end()
            raise WorkersFailed(problem)
    if job.error is not None:
        raise job.error


class _Job(threading.Thread):
    """Waits for a job; a daemon, as it may wait for ever."""

    def __init__(self, start: Callable[[], JobResult]) -> None:
        super().__init__(name="job", daemon=True)
        self._start_job = start
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            result = self._start_job()
            while result.state not in _ENDED:
                threading.Event().wait(LOOK_SECONDS)
            result.wait_until_finish()
            if result.state != "DONE":
                raise WorkersFailed(f"the engine ended the job: {result.state}")
        except BaseException as error:  # noqa: BLE001 - raised again where the job is followed
            self.error = error


def _crew(ledger: Ledger) -> Mapping[str, Mapping[str, Any]] | None:
    try:
        return read_crew(ledger.folder, ledger.launch)
    except StateUnusable as error:
        _log.warning("%s", error)
        return None


def _stopped_by_limit(ledger: Ledger, crew: Mapping[str, Mapping[str, Any]] | None) -> bool:
    """Ends the run where the errors of all workers together are too many, and returns whether that is so.

    Each worker counts its own; nobody but the launcher sees all.
    """
    total = Counts()
    for beat in (crew or {}).values():
        total.add(Counts(**beat.get("counts", {})))
    reason = ledger.too_many_errors(total)
    if reason is not None:
        ledger.write_stop(Stop(0, reason, limit=True))
    return reason is not None
