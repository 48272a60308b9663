"""Several worker processes on this machine: signals end them in good order, and their death ends the run."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.backfills import Backfills, events, ndjson
from tests.processes import BackfillProcess, start, wait_until
from tests.servers import GcsServer, S3Server
from tests.store_proxy import store_proxy

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
    """Returns whether the launcher or a process that it has started is there still.

    What has ended and is reaped by nobody is not: in a container the first process may reap nothing.
    """
    try:
        os.killpg(running.process.pid, 0)
    except ProcessLookupError:
        return False
    return not Path("/proc/self/stat").exists() or any(
        state not in "ZX" and group == running.process.pid for state, group in states_of_processes()
    )


def states_of_processes() -> Iterator[tuple[str, int]]:
    """Yields state and group of each process."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            stat = (process / "stat").read_text(errors="replace")
            state, _, group = stat.rpartition(")")[2].split()[:3]
            yield state, int(group)


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


def workers_of(running: BackfillProcess) -> list[int]:
    """Returns the processes that a launcher has started as workers."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (
                os.getpgid(int(process.name)) == running.process.pid
                and b"sdk_worker" in (process / "cmdline").read_bytes()
            ):
                found.append(int(process.name))
    return sorted(found)


def write_large_parts(backfills: Backfills) -> None:
    """Writes the events so that there is a segment for each process."""
    for part in range(FILES):
        padded = ndjson(events(EVENTS // FILES, first=part * EVENTS)).replace(b"\n", b" " * 1600 + b"\n")
        backfills.write(f"{part}.json", [padded.removesuffix(b"\n")])


@pytest.mark.soak
@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="tells processes apart by /proc")
def test_a_killed_process_ends_the_run_and_the_resume_closes_the_books(backfills: Backfills) -> None:
    write_large_parts(backfills)
    config = backfills.config(backfills.everything, {**SLOW, "limits.events_per_second": 1000})
    running = start(config)
    wait_until(lambda: backfills.emulator.stats()["requests"] > 5)
    first, _ = workers_of(running)
    os.kill(first, signal.SIGKILL)
    killed = time.monotonic()
    code, report, err = running.end()
    assert time.monotonic() - killed < 60
    assert (code, report["state"]) == (1, "failed"), err
    assert "a worker is gone in the midst of its work" in report["failure"]
    assert report["books"]["balanced"]
    wait_until(lambda: not group_exists(running))
    code, report, err = start(config, "--resume", "it", "--set", "limits.events_per_second=30000").end()
    assert code == 0, err
    assert report["books"]["balanced"]
    assert report["books"]["imported"] == EVENTS
    assert backfills.emulator.stats()["distinct"] == EVENTS


@pytest.mark.soak
def test_what_stops_one_process_stops_the_others_within_seconds_though_they_wait_for_answers(
    backfills: Backfills,
) -> None:
    write_large_parts(backfills)
    running = start(backfills.config(backfills.everything, {**SLOW, "limits.events_per_second": 4000}))
    wait_until(lambda: backfills.emulator.stats()["requests"] > 60)
    backfills.emulator.faults(
        [
            {"name": "refused", "path": "/import", "when": {"nth": [8]}, "do": {"status": 401}},
            {"name": "silent", "path": "/import", "when": {"nth": [1, 2, 3, 4]}, "do": {"delay_ms": 30_000}},
        ]
    )
    wait_until(lambda: backfills.emulator.stats()["faults"]["refused"] == 1)
    refused, refused_at = time.monotonic(), time.time()
    code, report, err = running.end()
    assert time.monotonic() - refused < 7  # of which the runner and the report take some
    assert backfills.emulator.stats()["last_time"] / 1000 - refused_at < 2
    assert (code, report["state"]) == (3, "stopped"), err
    assert report["books"]["balanced"]
    assert report["requests"]["by_status"]["given up"] > 0


@pytest.mark.soak
@pytest.mark.parametrize("store", ["s3", "gcs"])
def test_what_stops_one_process_stops_the_others_within_seconds_with_the_state_on_a_store(
    backfills: Backfills, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, store: str
) -> None:
    server: S3Server | GcsServer = request.getfixturevalue(store)
    write_large_parts(backfills)
    with store_proxy(server.endpoint_url) as proxy:
        options = {**server.storage_options, "endpoint_url": proxy.url}
        if "secret" in options:
            monkeypatch.setenv("TEST_STORE_SECRET", options["secret"])
            options["secret"] = "env:TEST_STORE_SECRET"
        state = {"run.state": server.url("stopped"), "run.storage_options": options}
        config = backfills.config(backfills.everything, {**SLOW, **state, "limits.events_per_second": 500})
        running = start(config)
        wait_until(lambda: backfills.emulator.stats()["requests"] > 20)
        calm_from = time.monotonic()
        asked_before = len(proxy.seen)
        wait_until(lambda: time.monotonic() - calm_from > 6)
        asked = len(proxy.seen) - asked_before
        backfills.emulator.faults(
            [{"name": "refused", "path": "/import", "when": {"nth": [8]}, "do": {"status": 401}}]
        )
        wait_until(lambda: backfills.emulator.stats()["faults"]["refused"] == 1)
        refused, refused_at = time.monotonic(), time.time()
        code, report, err = running.end()
    assert time.monotonic() - refused < 5
    assert backfills.emulator.stats()["last_time"] / 1000 - refused_at < 2
    assert (code, report["state"]) == (3, "stopped"), err
    assert report["books"]["balanced"]
    # A process asks the store 5 times in 3 s, the launcher 3 times in 2 s; what is finished comes on top.
    assert asked < 2 * (2 * 10 + 9)


@pytest.mark.soak
def test_when_the_launcher_is_killed_its_processes_end_and_a_resume_need_not_wait(
    backfills: Backfills,
) -> None:
    write_large_parts(backfills)
    config = backfills.config(backfills.everything, SLOW)
    running = start(config)
    wait_until(lambda: backfills.emulator.stats()["requests"] > 20)
    backfills.emulator.faults([{"name": "down", "path": "/import", "do": {"status": 503}}])
    wait_until(lambda: backfills.emulator.stats()["faults"]["down"] > 3)
    os.kill(running.process.pid, signal.SIGKILL)  # the launcher alone, while its workers wait for the service
    wait_until(lambda: not workers_of(running), 40)
    running.process.communicate()
    backfills.emulator.faults([])
    code, report, err = start(config, "--resume", "it", "--set", "limits.events_per_second=30000").end()
    assert code == 0, err
    assert report["books"]["balanced"]
    assert backfills.emulator.stats()["distinct"] == report["books"]["imported"] == EVENTS
