"""Backfills as processes of their own, to be interrupted and killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixpanel_http.crash_points import VARIABLE
from tests.report_schema import checked

REPOSITORY = Path(__file__).parent.parent
# For what takes seconds, on a machine that is many times as slow: only a test that fails waits so long. It is
# less than pytest's own limit (pyproject.toml), which cannot tell what was waited for.
PATIENCE_S = 300.0


def wait_until(is_so: Callable[[], bool], seconds: float = PATIENCE_S) -> None:
    """Returns as soon as something is so.

    Raises:
        TimeoutError: if it does not come to that.
    """
    ends = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > ends:
            raise TimeoutError(f"not so within {seconds} s")
        threading.Event().wait(0.02)


@dataclass
class BackfillProcess:
    """A backfill that runs on its own, in a process group of its own."""

    process: subprocess.Popen[str]

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal to the process."""
        self.process.send_signal(number)

    def kill_group(self) -> None:
        """Ends everything that the process has started as kill -9 does."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()

    def end(self, seconds: float = PATIENCE_S) -> tuple[int, dict[str, Any], str]:
        """Waits for its end and returns exit code, report and what it said.

        Raises:
            TimeoutError: if it does not end; says where each of its threads stood.
        """
        try:
            out, err = self.process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGABRT)  # which faulthandler answers
            _, err = self.process.communicate(timeout=seconds)
            raise TimeoutError(f"it did not end within {seconds} s; it said:\n{err[-9000:]}") from None
        return self.process.returncode, checked(json.loads(out)) if out else {}, err


def start(
    config: Path,
    *arguments: str,
    crash_at: str | None = None,
    environment: Mapping[str, str] | None = None,
) -> BackfillProcess:
    """Starts a backfill, as the command line does, and returns at once."""
    process = subprocess.Popen(
        [sys.executable, "run_backfill.py", "--config", str(config), "--json", *arguments],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={
            **os.environ,
            "PYTHONFAULTHANDLER": "1",
            **(environment or {}),
            **({VARIABLE: crash_at} if crash_at else {}),
        },
    )
    running = BackfillProcess(process)
    _started.append(running)
    return running


_started: list[BackfillProcess] = []


@contextmanager
def none_left() -> Iterator[None]:
    """Ends what the body has started and has not ended: where a test fails, a run may be stopped, or hang."""
    yield
    while _started:
        running = _started.pop()
        if running.process.poll() is None:
            with suppress(ProcessLookupError):
                running.kill_group()
