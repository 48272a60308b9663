"""Backfills as processes of their own, to be interrupted and killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixpanel_http.crash_points import VARIABLE
from tests.report_schema import checked

REPOSITORY = Path(__file__).parent.parent


def wait_until(is_so: Callable[[], bool], seconds: float = 60.0) -> None:
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

    def end(self, seconds: float = 120.0) -> tuple[int, dict[str, Any], str]:
        """Waits for its end and returns exit code, report and what it said."""
        out, err = self.process.communicate(timeout=seconds)
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
        env={**os.environ, **(environment or {}), **({VARIABLE: crash_at} if crash_at else {})},
    )
    return BackfillProcess(process)
