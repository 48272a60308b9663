"""Several worker processes on this machine: a signal ends them in good order, whoever gets it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import pytest

from tests.backfills import Backfills, events
from tests.processes import BackfillProcess, start, wait_until

EVENTS = 12_000
FILES = 4
SLOW = {
    "limits.events_per_second": 2000,
    "limits.records_per_request": 100,
    "run.id": "it",
    "beam.options": {"direct_running_mode": "multi_processing", "direct_num_workers": 2},
}


def signal_launcher(running: BackfillProcess) -> int:
    """Sends what `kill` and a service manager send: a signal to one process."""
    running.signal(signal.SIGTERM)
    return 143


def signal_everybody(running: BackfillProcess) -> int:
    """Sends what Ctrl-C sends: a signal to the launcher and to all processes that it has started."""
    os.killpg(running.process.pid, signal.SIGINT)
    return 130


def group_exists(running: BackfillProcess) -> bool:
    """Returns whether the launcher or a process that it has started is there still."""
    try:
        os.killpg(running.process.pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.soak
@pytest.mark.parametrize("interrupt", [signal_launcher, signal_everybody])
def test_a_signal_drains_all_processes_and_the_resume_sends_nothing_twice(
    backfills: Backfills, interrupt: Callable[[BackfillProcess], int]
) -> None:
    for part in range(FILES):
        backfills.write(f"{part}.json", events(EVENTS // FILES, first=part * EVENTS))
    config = backfills.config(backfills.everything, SLOW)
    running = start(config)
    wait_until(lambda: backfills.emulator.stats()["requests"] > 10)
    expected = interrupt(running)
    asked = time.monotonic()
    code, report, err = running.end()
    assert time.monotonic() - asked < 30
    assert code == expected, err
    assert report["state"] == "interrupted", err
    assert report["books"]["balanced"]
    assert 0 < report["books"]["imported"] < EVENTS
    assert backfills.emulator.stats()["distinct"] == report["books"]["imported"]
    wait_until(lambda: not group_exists(running))
    code, report, err = start(config, "--resume", "it", "--set", "limits.events_per_second=30000").end()
    assert code == 0, err
    assert report["books"]["imported"] == EVENTS
    assert backfills.emulator.stats()["distinct"] == EVENTS
    assert backfills.emulator.stats()["duplicates"] == 0
