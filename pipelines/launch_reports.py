"""Writes the reports of a launch: that it runs, and how it has ended, once, whoever ends it."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from pipelines import signals
from pipelines.books import Books, close_books
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
        return self._write_last(failure, signal)

    def end_early(self, signal: int) -> None:
        """Writes the last report while the pipeline still hangs on to something."""
        if self._ending.acquire(blocking=False):
            self._write_last(None, signal)
            self._launch.lease.release()
            self._say_last("what was under way did not come to an end in time")

    def end_stuck(self, problem: str) -> None:
        """Ends a process in which nothing happens any more, and says so."""
        drain.request()
        dump_stacks()
        if self._ending.acquire(blocking=False):
            self._write_last(f"stuck: {problem}", None)
            self._launch.lease.release()
            self._say_last(problem)
        os._exit(ExitCode.BUG)

    @staticmethod
    def _say_last(problem: str) -> None:
        """Says why a process ends that gets no further, where its page would stand."""
        _log.error("the run ends here: %s; nothing is lost: --resume goes on", problem)

    def write_first(self) -> None:
        """Writes that the launch runs."""
        launch = self._launch
        books = close_books(launch.manifest.segments, launch.before)
        write_report(launch.folder, self._report(books, self._facts("running", launch.before)))

    def _write_last(self, failure: str | None, signal: int | None) -> dict[str, Any]:
        """Returns the report of how it has ended; writes it, unless another start goes on with the run."""
        launch = self._launch
        ledger = self._read_ledger() if launch.segments_left else launch.before
        superseded = failure != REMOVED and not launch.lease.is_held()
        books = close_books(launch.manifest.segments, ledger)
        stops = read_stops(launch.folder, launch.manifest.key, launch.id)
        unfinished = books.segments_done < len(launch.manifest.segments)
        code = ExitCode(signals.exit_code_of(signal)) if signal is not None and unfinished else None
        state = "superseded" if superseded else _state(launch, failure, stops, code)
        facts = replace(
            self._facts(state, ledger),
            stops=stops,
            failure=SUPERSEDED if superseded else failure,
            interrupted_by=code,
        )
        report = self._report(books, facts)
        write_digest(launch.folder, launch.manifest.key, launch.id, ledger)
        if not superseded:
            write_last_report(launch.folder, launch.manifest, report, books, ledger)
        return report

    def _facts(self, state: str, ledger: RecordFile) -> RunFacts:
        launch = self._launch
        return RunFacts(
            state,
            self.started,
            time.time(),
            allow_dead_letters=ErrorLimit.parse(launch.config.run.allow_dead_letters),
            dry_run=launch.dry_run,
            sent_before=launch.before.imported,
            sending_s=ledger.sending_seconds(self.started),
            resumed=launch.resumed,
            new_files=launch.new_files,
        )

    def _report(self, books: Books, facts: RunFacts) -> dict[str, Any]:
        launch = self._launch
        report = whole_report(launch.folder, launch.manifest, books, facts)
        if launch.config.destination.emulator and not launch.dry_run:
            report["emulator_store"] = emulator_store(launch)
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
