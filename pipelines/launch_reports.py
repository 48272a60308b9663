"""Writes the reports of a launch: that it runs, and how it has ended, once, whoever ends it."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Sequence
from typing import Any, Final

from pipelines import signals
from pipelines.books import close_books
from pipelines.closing import Detached, whole_report, write_last_report, write_report
from pipelines.digest import write_digest
from pipelines.heartbeat import REMOVED, SUPERSEDED, dump_stacks
from pipelines.launch import Launch, emulator_store
from pipelines.ledger import ErrorLimit, read_ledger, read_stops
from pipelines.record_file import RecordFile
from pipelines.report import ExitCode, RunFacts
from transforms import drain, unrecorded

_log: Final = logging.getLogger(__name__)


class LaunchReports:
    """Writes the reports of one launch; the last one once."""

    def __init__(self, launch: Launch, started: float) -> None:
        self._launch = launch
        self.started = started
        self._ending = threading.Lock()  # who takes it first writes the last report; it is never given back

    def detached(self, job: str) -> Detached:
        """Returns what whoever closes the books later has to know of this launch."""
        launch = self._launch
        return Detached(
            launch.id,
            job,
            self.started,
            launch.config.run.allow_dead_letters,
            launch.dry_run,
            launch.before.imported,
            launch.resumed,
            launch.new_files,
        )

    def finish(self, failure: str | None, signal: int | None) -> dict[str, Any]:
        """Closes the books and writes the last report."""
        self._ending.acquire()
        return self.write_report(None, failure, signal)

    def end_early(self, signal: int) -> None:
        """Writes the last report while the pipeline still hangs on to something."""
        if self._ending.acquire(blocking=False):
            self.write_report(None, None, signal)
            self._launch.lease.release()
            self._say_last("what was under way did not come to an end in time")

    def end_stuck(self, problem: str) -> None:
        """Ends a process in which nothing happens any more, and says so."""
        drain.request()
        dump_stacks()
        if self._ending.acquire(blocking=False):
            self.write_report(None, f"stuck: {problem}", None)
            self._launch.lease.release()
            self._say_last(problem)
        os._exit(ExitCode.BUG)

    @staticmethod
    def _say_last(problem: str) -> None:
        """Says why a process ends that gets no further, where its page would stand."""
        _log.error("the run ends here: %s; nothing is lost: --resume goes on", problem)

    def write_report(
        self, state: str | None, failure: str | None = None, signal: int | None = None
    ) -> dict[str, Any]:
        """Writes a report of what the ledger says now; without a state it is the last one."""
        launch = self._launch
        unchanged = state or not launch.segments_left
        ledger = launch.before if unchanged else self._read_ledger()
        superseded = not state and failure != REMOVED and not launch.lease.is_held()
        books = close_books(launch.manifest.segments, ledger)
        stops = [] if state else read_stops(launch.folder, launch.manifest.key, launch.id)
        unfinished = books.segments_done < len(launch.manifest.segments)
        code = ExitCode(signals.exit_code_of(signal)) if signal is not None and unfinished else None
        facts = RunFacts(
            state or ("superseded" if superseded else _state(launch, failure, stops, code)),
            self.started,
            time.time(),
            stops,
            SUPERSEDED if superseded else failure,
            ErrorLimit.parse(launch.config.run.allow_dead_letters),
            code,
            launch.dry_run,
            launch.before.imported,
            ledger.sending_seconds(self.started),
            launch.resumed,
            launch.new_files,
        )
        report = whole_report(launch.folder, launch.manifest, books, facts)
        if launch.config.destination.emulator and not launch.dry_run:
            report["emulator_store"] = emulator_store(launch)
        if not state:
            write_digest(launch.folder, launch.manifest.key, launch.id, ledger)
        if superseded:  # the report of whoever took the run up is the run's
            return report
        if state:
            write_report(launch.folder, report)
        else:
            write_last_report(launch.folder, launch.manifest, report, books, ledger)
        return report

    def _read_ledger(self) -> RecordFile:
        return read_ledger(self._launch.folder, self._launch.manifest.key, unrecorded.here.blocks())


def _state(launch: Launch, failure: str | None, stops: Sequence[object], signal: ExitCode | None) -> str:
    if signal is not None:
        return "interrupted"
    if stops:
        return "stopped"
    if failure is not None:
        return "failed"
    return "dry_run" if launch.dry_run and launch.segments_left else "done"
